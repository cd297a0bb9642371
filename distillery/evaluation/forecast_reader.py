"""Reads traces with the base for `distillery.evaluation.forecast_metrics`, and keeps every figure in the ledger."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distillery.core.batching import by_length, devices
from distillery.core.codehash import hash_code
from distillery.core.model_locks import Lock
from distillery.core.progress import Progress
from distillery.evaluation.forecast_metrics import FIGURES, LOCAL, Dialogue, local_windows, readings, text_figures
from distillery.generation.perplexity import load_scorer
from distillery.generation.score_store import Scores, key_of

CODE = ("distillery.evaluation.forecast_metrics",)


class Reader:
    """Figures of traces that need the base, each kept in the ledger.

    ``dtype`` is the base's, ``batch_tokens`` the size of a forward pass; ``sentences`` are those before each that local
    naturalness is judged by, none leaves it out; ``ends`` tells whether a token ends a sentence.
    """

    def __init__(
        self, lock: Lock, pad: int, scores: Scores, dtype: str, batch_tokens: int, sentences: int, ends: Callable[[int], bool]
    ):
        self.lock, self.pad, self.scores, self.dtype = lock, pad, scores, dtype
        self.batch_tokens, self.sentences, self.ends = batch_tokens, sentences, ends
        self.model: Any = None
        self.read = 0
        self.about = (lock.weights, dtype, hash_code(CODE))

    def figures(self, dialogues: list[Dialogue], stage: str) -> list[dict[str, float]]:
        """All figures of each dialogue."""
        found = [text_figures(dialogue) for dialogue in dialogues]
        for names, fill in ((list(FIGURES), self._direct), ([LOCAL] if self.sentences else [], self._local)):
            missing = [i for i, each in enumerate(dialogues) if any(self.scores.find(self.key(n, each)) is None for n in names)]
            fill([dialogues[i] for i in missing], stage)
            for values, dialogue in zip(found, dialogues, strict=True):
                values |= {name: self.scores.find(self.key(name, dialogue)) or 0.0 for name in names}
        return found

    def key(self, name: str, dialogue: Dialogue) -> str:
        local = self.sentences if name == LOCAL else 0
        return key_of("forecast", name, local, *self.about, dialogue.ids, dialogue.prompt)

    def _direct(self, dialogues: list[Dialogue], stage: str) -> None:
        for dialogue, reading in self._readings(dialogues, stage):
            for name, figure in FIGURES.items():
                self.scores.add(self.key(name, dialogue), round(figure(reading), 6))

    def _local(self, dialogues: list[Dialogue], stage: str) -> None:
        windows = [local_windows(each, self.ends, self.sentences) for each in dialogues]
        losses = {
            id(window): float(reading.losses.mean())
            for window, reading in self._readings([window for each in windows for window in each], f"{stage}, sentences")
        }
        for dialogue, own in zip(dialogues, windows, strict=True):
            self.scores.add(self.key(LOCAL, dialogue), round(float(np.mean([losses[id(window)] for window in own])), 6))

    def _readings(self, dialogues: list[Dialogue], stage: str) -> Iterator[tuple[Dialogue, Any]]:
        if dialogues and self.model is None:
            self.model = load_scorer(self.lock, self.dtype, devices()[0])
        progress, done = Progress(stage, "texts", len(dialogues)), 0
        for group in by_length([len(each.ids) for each in dialogues], self.batch_tokens):
            batch = [dialogues[i] for i in group]
            yield from zip(batch, readings(self.model, batch, self.pad), strict=True)
            done += len(batch)
            self.read += sum(len(each.ids) for each in batch)
            progress.update(done)
