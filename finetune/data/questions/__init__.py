"""The built-in composer: varied questions with reasoning from an event list, with no network and no model."""

from typing import Literal

ReasoningStyle = Literal["sentences", "terse"]
"""How reasoning is put: see :mod:`echo_agent.finetune.data.questions.reasoning`."""
