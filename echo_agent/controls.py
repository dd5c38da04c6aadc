"""What a run of the listening graph may be changed in, to tell what listening again is worth, and how a run can end."""

from __future__ import annotations

from typing import Literal

Control = Literal["on", "off", "wrong-crop", "silence", "oracle"]
"""What is delivered in the place of what a policy asks for: see :class:`~echo_agent.graphs.state.ListeningContext`."""
Condition = Literal[Control, "no-audio"]
"""Under what a question is asked: a control of the listening graph, or with a silent recording in place of its own."""
Status = Literal["answered", "unparsed", "not_understood"]
"""Whether an answer could be read; ``not_understood`` where the model was not asked, for it does not know the words or
the language."""
