"""``varlen``: attention that keeps the documents of packed windows apart without a mask.

On a GPU it is torch's variable-length flash attention, which needs no package of its own; on a CPU, which that kernel does
not know, one causal ``scaled_dot_product_attention`` per document. A mask over packed documents would rule torch's flash
kernel out instead, which makes training about 1.8 times slower at 16 k tokens. Importing this module registers it with
transformers. It reads the boundaries of documents, not a mask, so sequence parallelism keeps them apart as well.
"""

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from distillery.core.errors import ConfigError
from distillery.training.config import VARLEN

Flat = tuple[torch.Tensor, ...]
"""Queries, keys and values of all documents, one after the other: (tokens, heads, size) each."""


def boundaries(positions: torch.Tensor) -> torch.Tensor:
    """Where documents start, their rows laid end to end, and where the last ends: (documents + 1,), int32."""
    starts = (positions.reshape(-1) == 0).nonzero()[:, 0]
    return torch.nn.functional.pad(starts, (0, 1), value=positions.numel()).to(torch.int32)


def varlen(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    position_ids: torch.Tensor | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: (rows, heads, tokens, size) each, to (rows, tokens, heads, size).

    Raises ConfigError for attention that it cannot compute: sinks and soft caps.
    """
    if more.get("s_aux") is not None or more.get("softcap") is not None or dropout:
        raise ConfigError("params.yaml: train.attention: varlen has no attention sinks, soft caps or dropout; take another")
    ends = cu_seq_lens_q if cu_seq_lens_q is not None else boundaries(_positions(query, position_ids))
    flat = tuple(each.transpose(1, 2).reshape(-1, each.shape[1], each.shape[3]) for each in (query, key, value))
    if query.is_cuda:
        attended = _on_gpu(flat, ends, max_length_q or int(ends.diff().max()), scaling, sliding_window)
    else:
        attended = _per_document(flat, ends.tolist(), scaling, sliding_window)
    return attended.reshape(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None


def _positions(query: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor:
    """Every row's positions, (rows, tokens); without any, each row is one document."""
    positions = torch.arange(query.shape[2], device=query.device)[None] if given is None else given
    return positions.expand(query.shape[0], -1)


def _on_gpu(flat: Flat, ends: torch.Tensor, longest: int, scale: float | None, window: int | None) -> Any:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = flat
    if value.shape[2] != query.shape[2]:
        raise ConfigError("params.yaml: train.attention: varlen needs values as wide as queries on a GPU; take another")
    reach = (window - 1 if window else -1, 0)
    grouped = query.shape[1] != key.shape[1]
    return varlen_attn(query, key, value, ends, ends, longest, longest, scale=scale, window_size=reach, enable_gqa=grouped)


def _per_document(flat: Flat, ends: list[int], scale: float | None, window: int | None) -> torch.Tensor:
    parts = []
    for start, end in pairwise(ends):
        query, key, value = (each[start:end].transpose(0, 1)[None] for each in flat)
        near = _band(end - start, window) if window and window < end - start else None
        out = scaled_dot_product_attention(query, key, value, near, is_causal=near is None, scale=scale, enable_gqa=True)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def _band(tokens: int, window: int) -> torch.Tensor:
    """The mask of causal attention to the last ``window`` tokens, (tokens, tokens)."""
    return torch.ones(tokens, tokens, dtype=torch.bool).tril().triu(1 - window)


AttentionInterface.register(VARLEN, varlen)
