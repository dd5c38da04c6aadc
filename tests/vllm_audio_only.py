"""A plugin of vLLM for the environment of ``make vllm``: the processor of Qwen2.5-Omni without pictures and video.

What prepares pictures needs a torchvision, of which PyPI has none for a torch of the CPU alone. ``tests/vllm_venv.py``
puts this file into the environment, where vLLM calls :func:`register`.
"""

from __future__ import annotations

from typing import Any


def register() -> None:
    """Have processors of Omni made of what hears and what reads."""
    from transformers import AutoFeatureExtractor, AutoTokenizer, Qwen2_5OmniProcessor

    class_: Any = Qwen2_5OmniProcessor
    check = class_.check_argument_for_proper_class

    def parts(cls: Any, source: str, *given: Any, **options: Any) -> list[Any]:
        return [
            None,
            None,
            AutoFeatureExtractor.from_pretrained(source),
            AutoTokenizer.from_pretrained(source),
        ]

    class_._get_arguments_from_pretrained = classmethod(parts)
    class_.check_argument_for_proper_class = lambda self, name, part: (
        None if part is None else check(self, name, part)
    )
