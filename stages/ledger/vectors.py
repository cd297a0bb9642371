"""Vectors that a model gave to texts, kept beside the completions: what was embedded once is never embedded again.

They lie in immutable files, each renamed into place, in half precision: at 1024 numbers, 2 KB a text.
"""

import uuid
from pathlib import Path

import numpy as np


class Vectors:
    """The vectors of one owner, all of one size, by their keys of 32 characters; memory holds the keys, not the vectors."""

    def __init__(self, owner: str, root: Path):
        self.folder = root / owner
        self.folder.mkdir(parents=True, exist_ok=True)
        self.blocks: list[np.ndarray] = []
        self.places: dict[str, tuple[int, int]] = {}
        for path in sorted(self.folder.glob("part-*.npy")):
            self._open(path)

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def add(self, keys: list[str], vectors: np.ndarray) -> None:
        """Keeps (keys, size) vectors; they are on disk when this returns."""
        block = np.empty(len(keys), [("key", "S32"), ("vector", "<f2", vectors.shape[1:])])
        block["key"], block["vector"] = keys, vectors
        path = self.folder / f"part-{uuid.uuid4().hex}.npy"
        with path.with_suffix(".tmp").open("wb") as file:
            np.save(file, block)
        path.with_suffix(".tmp").rename(path)
        self._open(path)

    def of(self, keys: list[str]) -> np.ndarray:
        """The vectors of at least one key, float32, (keys, size), as rounded. Raises KeyError where one is missing."""
        places = np.array([self.places[key] for key in keys])
        found = np.empty((len(keys), *self.blocks[places[0, 0]]["vector"].shape[1:]), np.float32)
        for block in np.unique(places[:, 0]):
            here = places[:, 0] == block
            found[here] = self.blocks[block]["vector"][places[here, 1]]
        return found

    def _open(self, path: Path) -> None:
        block = np.load(path, mmap_mode="r")
        self.places |= {key.decode(): (len(self.blocks), row) for row, key in enumerate(block["key"].tolist())}
        self.blocks.append(block)
