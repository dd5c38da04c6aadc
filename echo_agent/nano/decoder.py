"""The decoder's forward pass when it runs in the engine: few operations, because each costs more than its arithmetic.

A token of echo-nano is some five million multiplications, a tenth of a millisecond; calling the operations takes longer
than doing them. So the engine runs transformers' Llama layers by the shortest way: the norms as one operation each,
rotary positions of queries and keys together, one mask for all layers. The projections are called as the modules they
are, so that adapters (LoRA) put in their place count. Training and ``forward`` use transformers' own code; the
conformance tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers import Cache, LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


def decode(decoder: LlamaModel, embeds: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
    """Hidden states ``[rows, n, hidden]`` of new tokens; their keys and values are added to the cache.

    Args:
        decoder: The layers and their weights.
        embeds: ``[rows, n, hidden]``.
        mask: ``[rows, slots]``, 0 where a slot is empty; the new tokens are the last ``n`` slots.
        positions: Of the new tokens ``[rows, n]``.
        cache: What stands before them.
    """
    rows, n, width = embeds.shape
    layers = cast("Sequence[LlamaDecoderLayer]", decoder.layers)
    eps, size = decoder.config.rms_norm_eps, layers[0].self_attn.head_dim
    seen = mask.bool()[:, None, None]
    if n > 1:
        slots = torch.arange(mask.shape[1], device=mask.device)
        seen = seen & (slots <= slots[-n:, None])
    cos, sin = decoder.rotary_emb(embeds, positions)
    cos, sin = cos[:, :, None], sin[:, :, None]
    sin = torch.cat([-sin[..., : size // 2], sin[..., size // 2 :]], dim=-1)
    x = embeds
    for number, layer in enumerate(layers):
        attention, mlp = layer.self_attn, layer.mlp
        h = rms_norm(x, (width,), layer.input_layernorm.weight, eps)
        queries, keys = attention.q_proj(h), attention.k_proj(h)
        both = torch.cat([queries, keys], dim=-1).view(rows, n, -1, size)
        both = torch.addcmul(both * cos, both.roll(size // 2, -1), sin)
        query, key = both.transpose(1, 2).split([queries.shape[-1] // size, keys.shape[-1] // size], dim=1)
        value = attention.v_proj(h).view(rows, n, -1, size).transpose(1, 2)
        key, value = cache.update(key, value, number)
        heard = scaled_dot_product_attention(
            query, key, value, attn_mask=seen, enable_gqa=query.shape[1] != key.shape[1]
        )
        x = x + attention.o_proj(heard.transpose(1, 2).reshape(rows, n, -1))
        h = rms_norm(x, (width,), layer.post_attention_layernorm.weight, eps)
        x = x + mlp.down_proj(silu(mlp.gate_proj(h)) * mlp.up_proj(h))
    return rms_norm(x, (width,), decoder.norm.weight, eps)
