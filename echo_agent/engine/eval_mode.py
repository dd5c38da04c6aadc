"""The model's modules in evaluation mode while the engine computes, and as they were before when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from echo_agent.families.base import Family


class EvalMode:
    """Puts the model's modules into evaluation mode for a while, and those back that were not."""

    def __init__(self, family: Family) -> None:
        """Change nothing yet."""
        self._family = family
        self._changed: list[nn.Module] = []
        self._active = False

    def enter(self) -> None:
        """Evaluation mode for every module; nothing to do where that has been done."""
        if not self._active:
            self._active = True
            self._changed = [module for module in self._family.model.modules() if module.training]
            for module in self._changed:
                module.training = False

    def restore(self) -> None:
        """Training mode for the modules that were in it."""
        for module in self._changed:
            module.training = True
        self._changed = []
        self._active = False
