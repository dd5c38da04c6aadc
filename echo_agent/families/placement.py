"""How weights are held and where: in their own precision on one device, in fewer bits, or partly in other memory.

Only the decoder's linear layers are held in fewer bits: what hears stays as it is. They are less exact by intent, so
the log-probabilities of such a model are its own; on a live cache they equal one full pass of the same model, as ever.

Keys and values of a run lie on one device. A map of devices may put weights into the memory of the machine or on its
disk while one GPU computes; a model that is spread over several GPUs is run behind vLLM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from echo_agent.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    import torch

PACKAGES = {"4bit": "bitsandbytes", "8bit": "bitsandbytes", "int8": "torchao"}
"""Ways to hold weights in fewer bits, and the package that does it."""
MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways to spread weights, by their names in transformers."""


@dataclass(frozen=True)
class Placement:
    """Where the weights of a model go, and how they are held."""

    device: torch.device
    dtype: torch.dtype
    quantise: str = ""
    """``4bit``, ``8bit`` or ``int8``; empty holds them in ``dtype``."""
    device_map: str = ""
    """``auto``, ``balanced``, ``balanced_low_0`` or ``sequential``; empty puts all of them on ``device``."""

    def check(self) -> None:
        """Refuse what is unknown, or needs a package that is not there.

        Raises:
            ModelError: There is no such way to hold or spread weights.
            MissingExtraError: The package is not installed.
        """
        if self.quantise and self.quantise not in PACKAGES:
            raise ModelError(f"quantise {self.quantise!r} is not one of {', '.join(PACKAGES)}")
        if self.device_map and self.device_map not in MAPS:
            raise ModelError(f"device_map {self.device_map!r} is not one of {', '.join(MAPS)}")
        if self.quantise and find_spec(PACKAGES[self.quantise]) is None:
            raise MissingExtraError(
                f"quantise {self.quantise} needs {PACKAGES[self.quantise]}: pip install "
                '"echo-agent[quantised]"'
            )

    @property
    def moves(self) -> bool:
        """Whether the model has to be moved to its device once it is loaded."""
        return not (self.quantise or self.device_map)

    def arguments(self, decoder: str) -> dict[str, Any]:
        """Arguments of ``from_pretrained``; ``decoder`` is the dotted name of the module that may lose bits."""
        given: dict[str, Any] = {"dtype": self.dtype}
        if not self.moves:
            given["device_map"] = self.device_map or {"": self.device}
        if self.quantise:
            given["quantization_config"] = self._quantisation(rf"(?!{re.escape(decoder)}\.).*")
        return given

    def _quantisation(self, kept: str) -> Any:
        """Settings for what has a name that ``kept`` (a regular expression) does not match."""
        if self.quantise == "int8":
            try:
                from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]
            except ImportError as error:
                raise ModelError(f"quantise {self.quantise}: torchao cannot be used here: {error}") from error
            from transformers import TorchAoConfig

            return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=[kept])
        from transformers import BitsAndBytesConfig

        if self.quantise == "8bit":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=[kept])
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=self.dtype,
            llm_int8_skip_modules=[kept],
        )


def check_spread(name: str, model: Any) -> None:
    """Refuse a model that computes on several devices.

    Raises:
        ModelError: Naming them, and the way out.
    """
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    computing = sorted(places - {"cpu", "disk"})
    if len(computing) > 1:
        raise ModelError(
            f"{name} would be spread over the devices {', '.join(computing)}, but keys and values of a run lie on one: "
            "show one GPU (CUDA_VISIBLE_DEVICES=0), hold weights in fewer bits, or run it behind vLLM"
        )
