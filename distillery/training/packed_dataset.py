"""Packed windows as transformers' Trainer wants them."""

from pathlib import Path
from typing import Any

import numpy as np

from distillery.core.errors import ConfigError
from distillery.training.config import Train
from distillery.training.packed_files import ARRAYS

IGNORED = -100


class Windows:
    """The windows of a folder that ``pack`` made, one per row: input_ids, labels and position_ids, each (window,).

    There is no attention mask: with restarting positions, its absence is what keeps documents apart. Blank windows without
    labels pad their number to a ``multiple``: otherwise the last batch would repeat windows, different ones for each
    number of ranks.
    """

    def __init__(self, folder: Path, multiple: int):
        self.ids, self.targets, self.positions = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
        self.count = -(-len(self.ids) // multiple) * multiple

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index >= len(self.ids):
            window = self.ids.shape[1]
            blank = np.zeros(window, np.int64)
            return {"input_ids": blank, "labels": blank + IGNORED, "position_ids": np.arange(window)}
        ids = self.ids[index].astype(np.int64)
        labels = np.where(self.targets[index], ids, IGNORED)
        return {"input_ids": ids, "labels": labels, "position_ids": self.positions[index]}


def collate(rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """A batch of windows as tensors, each (rows, window)."""
    import torch

    return {name: torch.from_numpy(np.stack([row[name] for row in rows]).astype(np.int64)) for name in rows[0]}


def collate_with_lengths(rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """The same, with documents' boundaries and greatest length as variable-length attention takes them.

    Without, each layer would look for the boundaries in the positions, and wait for the GPU to find them.
    """
    from distillery.training.attention import boundaries

    batch = collate(rows)
    ends = boundaries(batch["position_ids"])
    longest = int(ends.diff().max())
    return batch | {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def accumulation(settings: Train, ranks: int) -> int:
    """Forward passes per optimizer step of each rank, so that the global batch is the same for any number of ranks.

    Raises ConfigError where the global batch does not divide.
    """
    shared = settings.sequence_parallel
    if ranks % shared:
        raise ConfigError(f"params.yaml: train.sequence_parallel: {ranks} ranks cannot be divided into groups of {shared}")
    windows = settings.micro_batch * ranks // shared
    if settings.global_batch % windows:
        by = f" / sequence_parallel = {settings.micro_batch} x {ranks} / {shared}" if shared > 1 else ""
        plain = f"micro_batch x processes{by or f' = {settings.micro_batch} x {ranks}'}"
        raise ConfigError(f"params.yaml: train.global_batch: {settings.global_batch} is not a multiple of {plain}")
    return settings.global_batch // windows
