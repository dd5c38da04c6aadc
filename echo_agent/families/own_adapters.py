"""Adapters that a checkpoint brings along for sound, worked into its weights.

Some checkpoints were taught to hear by low-rank adapters (PEFT) on a decoder that stays what it was for text, and want
them on whenever there is audio. Here there always is, so the two are made one when the model is loaded: what trains,
caches and saves then sees one set of weights, and adapters of one's own can be put on it.
"""

from __future__ import annotations

from typing import Any


def merge_own_adapters(model: Any, source: str, folder: str = "") -> None:
    """Put a checkpoint's own adapters on a model, if there are any, and work them into its weights.

    Args:
        model: As ``from_pretrained`` gave it: adapters that lie beside the weights are on already.
        source: Hub id or folder of the checkpoint.
        folder: Folder in it that holds the adapters, where they do not lie beside the weights.
    """
    if folder:
        from transformers.utils.hub import cached_file

        found = cached_file(
            source,
            "adapter_config.json",
            subfolder=folder,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found is None:
            return
        model.load_adapter(source, adapter_name="sound", adapter_kwargs={"subfolder": folder})
    if not getattr(model, "_hf_peft_config_loaded", False):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.conversion_mapping import get_model_conversion_mapping

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    model._hf_peft_config_loaded = False
    # Saving turns back the renamings of loading, and those of the adapters' files are no longer among them.
    model._weight_conversions = get_model_conversion_mapping(model)
    del model.peft_config
