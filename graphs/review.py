"""A person decides about a call before it is answered, in the shapes of LangChain's human-in-the-loop middleware.

So whatever shows the interrupts of that middleware to a person shows these too. One call is asked about at a time. The
value of the interrupt is::

    {"action_requests": [{"name": "relisten", "args": {"start": 12.4, "end": 15.0}, "description": "..."}],
     "review_configs": [{"action_name": "relisten", "allowed_decisions": ["approve", "edit", "reject"]}]}

and the run goes on with ``Command(resume={"decisions": [decision]})``, where the decision is one of::

    {"type": "approve"}
    {"type": "edit", "edited_action": {"name": "relisten", "args": {"start": 12.0, "end": 16.0}}}
    {"type": "reject", "message": "not that part"}

``True`` is short for an approval. What is none of these forbids the call: nothing is heard that nobody allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.types import interrupt

from echo_agent.answers import TOOL_NAME

APPROVE, EDIT, REJECT = "approve", "edit", "reject"
SHOWN = 200
"""Characters of a person's reason that the model is told."""


@dataclass(frozen=True)
class Decision:
    """What a person decided about one call."""

    arguments: dict[str, Any] | None
    """The arguments to go on with; None where the call is forbidden."""
    note: str = ""
    """What the model is told besides, or why nothing is heard."""


def review(arguments: dict[str, Any]) -> Decision:
    """Stop the run until a person has decided about a call with these arguments."""
    return read_decision(interrupt(request(arguments)), arguments)


def request(arguments: dict[str, Any]) -> dict[str, Any]:
    """The value of the interrupt."""
    said = ", ".join(f"{key}={value}" for key, value in arguments.items())
    action = {"name": TOOL_NAME, "args": arguments, "description": f"The model asks to listen again: {said}"}
    config = {"action_name": TOOL_NAME, "allowed_decisions": [APPROVE, EDIT, REJECT]}
    return {"action_requests": [action], "review_configs": [config]}


def read_decision(answer: Any, arguments: dict[str, Any]) -> Decision:
    """What the answer to an interrupt says about a call."""
    if answer is True:
        return Decision(arguments)
    decisions = answer.get("decisions") if isinstance(answer, Mapping) else None
    match decisions:
        case [{"type": "approve"}]:
            return Decision(arguments)
        case [{"type": "edit", "edited_action": {"name": str(name), "args": dict(changed)}}] if (
            name == TOOL_NAME
        ):
            return Decision(changed, "changed by a person")
        case [{"type": "reject", "message": str(reason)}] if reason.strip():
            return Decision(None, f"it was not allowed: {reason.strip()[:SHOWN]}")
        case _:
            return Decision(None, "it was not allowed")
