"""Whether documents of one window see each other: checked on the model itself, in seconds, before it trains.

Attention is kept within documents by restarting positions. Layers that carry a state along the sequence (Mamba, gated
delta nets) and attention with sinks may not respect them; then a student would learn from its neighbours.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from transformers import TrainerCallback

from distillery.core.errors import DataError
from distillery.training.packed_dataset import Windows, collate

DOCUMENTS, TOKENS = 3, 512
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Relative difference of logits that rounding explains; what leaks in hybrid and sink-attention models is 0.06 to 1."""


def pieces(windows: Windows) -> list[dict[str, np.ndarray]]:
    """The beginnings of the first documents."""
    found: list[dict[str, np.ndarray]] = []
    for i in range(len(windows.ids)):
        row = windows[i]
        starts = [*np.flatnonzero(row["position_ids"] == 0).tolist(), len(row["position_ids"])]
        for start, end in pairwise(starts):
            span = slice(start, min(end, start + TOKENS))
            found.append({name: row[name][span] for name in ("input_ids", "position_ids")})
            if len(found) == DOCUMENTS:
                return found
    return found


def difference(model: Any, documents: list[dict[str, np.ndarray]]) -> float:
    """The largest relative difference between the logits of documents in one window and of each alone."""
    import torch

    with torch.no_grad():
        packed = _logits(model, {name: np.concatenate([each[name] for each in documents]) for name in documents[0]})
        alone = [_logits(model, each) for each in documents]
    ends = np.cumsum([len(logits) for logits in alone])
    return max(_difference(packed[end - len(logits) : end], logits) for end, logits in zip(ends, alone, strict=True))


def _logits(model: Any, inputs: dict[str, np.ndarray]) -> Any:
    """Logits of one row, (tokens, vocabulary)."""
    batch = {name: tensor.to(model.device) for name, tensor in collate([inputs]).items()}
    return model(**batch, use_cache=False).logits[0].float()


def _difference(packed: Any, alone: Any) -> float:
    """The largest relative difference of any token's logits."""
    norms = alone.norm(dim=-1).clamp(min=1e-12)
    return float(((packed - alone).norm(dim=-1) / norms).max())


class LeakageCheck(TrainerCallback):
    """Refuses to train a model whose documents see each other. On every rank: under ZeRO 3 all compute together."""

    def __init__(self, windows: Windows, dtype: str):
        self.windows, self.tolerance = windows, TOLERANCE[dtype]

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        documents, training = pieces(self.windows), model.training
        model.eval()
        found = difference(model, documents)
        model.train(training)
        if found > self.tolerance:  # not a number: the loss will say so
            raise DataError(
                f"documents packed into one window see each other in this model: their logits differ by {found:.2g} from those "
                f"of each document alone (tolerance {self.tolerance:g}); set train.packed to false, or take another base"
            )
