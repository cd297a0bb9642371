"""Embeddings kept in the ledger: a text is embedded once.

They are in immutable files, each renamed into place, in half precision: 2 KB per text at 1024 dimensions.
"""

import os
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np


class Vectors:
    """The vectors of one owner, all of one size, by their keys of 32 characters; memory holds the keys, not the vectors."""

    def __init__(self, owner: str, root: Path):
        self.folder = root / owner
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files: list[Path] = []
        self.places: dict[str, tuple[int, int]] = {}
        for path in sorted(self.folder.glob("part-*.npy")):
            with suppress(OSError, ValueError, EOFError, KeyError):  # truncated: its texts are embedded again
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
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".tmp").rename(path)
        self._open(path)

    def of(self, keys: list[str]) -> np.ndarray:
        """The vectors of at least one key, float32, (keys, size), in half precision. Raises KeyError where one is missing."""
        places = np.array([self.places[key] for key in keys])
        found: np.ndarray | None = None
        for number in np.unique(places[:, 0]):
            vectors, here = np.load(self.files[number], mmap_mode="r")["vector"], places[:, 0] == number
            found = np.empty((len(keys), *vectors.shape[1:]), np.float32) if found is None else found
            found[here] = vectors[places[here, 1]]
        assert found is not None
        return found

    def _open(self, path: Path) -> None:
        """Reads the keys; the file stays closed, since there may be thousands."""
        keys = np.load(path, mmap_mode="r")["key"].tolist()
        self.places |= {key.decode(): (len(self.files), row) for row, key in enumerate(keys)}
        self.files.append(path)
