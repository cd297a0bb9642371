"""Sentence embeddings, each computed once: the ledger keeps them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from distillery.core import model_locks
from distillery.core.batching import devices
from distillery.core.cpu_kernels import multiply_by_openblas
from distillery.generation.score_store import key_of
from distillery.generation.vector_store import Vectors

AT_ONCE = 16_384


Embed = Callable[[list[str]], np.ndarray]


class Embedder:
    """Unit vectors of texts, by a copy of the model on every device; loaded when first needed."""

    def __init__(self, lock: model_locks.Lock, batch: int, max_tokens: int, dtype: str):
        self.lock, self.batch, self.max_tokens, self.dtype = lock, batch, max_tokens, dtype
        self.pool: Any = None

    @cached_property
    def model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        multiply_by_openblas()
        model = SentenceTransformer(self.lock.id, revision=self.lock.hub_revision, model_kwargs={"dtype": self.dtype})
        model.max_seq_length = self.max_tokens
        if len(where := devices()) > 1:
            self.pool = model.start_multi_process_pool(where)
        return model

    def __call__(self, texts: list[str]) -> np.ndarray:
        """(texts, size)"""
        model, size = self.model, self.batch
        how = {"batch_size": size, "chunk_size": size, "pool": self.pool} if self.pool else {"batch_size": size}
        vectors: np.ndarray = model.encode(texts, normalize_embeddings=True, show_progress_bar=False, **how)
        return vectors

    def close(self) -> None:
        if self.pool:
            self.model.stop_multi_process_pool(self.pool)


class CachedEmbedder:
    """An embedder that embeds no text twice; ``embedded`` counts the texts that were new."""

    def __init__(self, embed: Embed, known: Vectors):
        self.embed, self.known, self.embedded = embed, known, 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Unit vectors of at least one text, (texts, size), in the ledger's precision."""
        keys = list(map(key_of, texts))
        new = list({key: text for key, text in zip(keys, texts, strict=True) if key not in self.known}.items())
        for first in range(0, len(new), AT_ONCE):
            some = new[first : first + AT_ONCE]
            self.known.add([key for key, _ in some], self.embed([text for _, text in some]))
        self.embedded += len(new)
        found = self.known.of(keys)
        return found / np.linalg.norm(found, axis=1, keepdims=True)
