"""Chat by a reward model: coherence, correctness and helpfulness, each from 0 to 4; the score is their sum / 12.

The model is a sequence classifier of transformers, in a process of its own. While it works on a batch the next one
is collected; a batch is sorted by length and padded in groups.
"""

import math
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from threading import Lock
from time import monotonic
from typing import Any

from pebble import ProcessPool

from distillery.core.batching import by_length, padded
from distillery.core.config import ModelType, NonNegative, Positive, Section
from distillery.core.cpu_kernels import multiply_by_openblas
from distillery.core.errors import EngineError
from distillery.core.model_locks import Lock as ModelLock
from distillery.core.processes import die_with_parent
from distillery.verification.verdict import Item, Verdict, scored, unknown

NAME = "reward"
HIGHEST = 4.0
MOST_AT_ONCE = 256
Dialogue = list[dict[str, str]]


@dataclass(frozen=True)
class Outputs(Section):
    """Indices of the model's outputs."""

    coherence: NonNegative
    """The index of the output that rates coherence, from 0."""
    correctness: NonNegative
    """The index of the one that rates correctness."""
    helpfulness: NonNegative
    """The index of the one that rates helpfulness."""


@dataclass(frozen=True)
class RewardSettings(Section):
    """How the reward model runs."""

    outputs: Outputs
    """Indices of its outputs."""
    dtype: ModelType
    """Its data type."""
    batch_tokens: Positive
    """Tokens per forward pass, padding included."""
    max_tokens: Positive
    """The longest dialogue; longer ones are inconclusive."""
    trust_remote_code: bool
    """Whether code that comes with the model may run; only for a model that needs it and that you have read."""


@cache
def load(model: str, revision: str | None, dtype: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """The model and its tokenizer, once per process, on the accelerator where there is one. Raises EngineError."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    where: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
        multiply_by_openblas()
    try:
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(model, dtype=dtype, **where)
        placed = loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        return placed, AutoTokenizer.from_pretrained(model, **where)
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise EngineError(f"the reward model {model} cannot be loaded: {type(error).__name__}: {why}") from None


def rate(lock: ModelLock, settings: RewardSettings, dialogues: list[Dialogue]) -> list[list[float] | None]:
    """The three ratings of each dialogue, in the order of `Outputs`; None where it is too long. Runs in the process."""
    import torch

    model, tokenizer = load(lock.id, lock.hub_revision, settings.dtype, settings.trust_remote_code)
    ids = [tokenizer.apply_chat_template(dialogue, return_dict=False) for dialogue in dialogues]
    fit = [i for i, row in enumerate(ids) if len(row) <= settings.max_tokens]
    rated: list[list[float] | None] = [None] * len(ids)
    wanted = [settings.outputs.coherence, settings.outputs.correctness, settings.outputs.helpfulness]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.config.pad_token_id = pad
    for group in by_length([len(ids[i]) for i in fit], settings.batch_tokens):
        rows = [ids[fit[i]] for i in group]
        batch, mask = padded(rows, pad, model.device)
        with torch.inference_mode():
            output = model(input_ids=batch, attention_mask=mask)
        logits = output.logits if hasattr(output, "logits") else output.rewards
        if max(wanted) >= logits.shape[1]:
            raise EngineError(
                f"params.yaml: verify.reward.outputs: {max(wanted)}: {lock.id} has outputs 0 to {logits.shape[1] - 1}"
            )
        for i, values in zip(group, logits.float()[:, wanted].tolist(), strict=True):
            rated[fit[i]] = values
    return rated


def verdict_of(ratings: list[float] | None, longest: int) -> Verdict:
    """The score from three ratings, each clipped to the range 0 to 4."""
    if ratings is None:
        return unknown(NAME, f"over {longest} tokens", hopeless=True)
    if not all(map(math.isfinite, ratings)):
        return unknown(NAME, "the reward model gave no number")
    within = [min(max(value, 0.0), HIGHEST) for value in ratings]
    shown = ", ".join(f"{name} {value:.1f}" for name, value in zip(Outputs.__dataclass_fields__, within, strict=True))
    return scored(NAME, round(sum(within) / (HIGHEST * len(within)), 4), shown)


Waiting = tuple[Dialogue, "Future[Verdict]"]


class RewardVerifier:
    """Batches incoming items; one batch is in the model's process at a time. The rows of one that fails are tried alone."""

    def __init__(self, lock: ModelLock, settings: RewardSettings):
        self.model, self.settings = lock, settings
        self.pool = ProcessPool(1, context=get_context("forkserver"), initializer=die_with_parent)
        self.lock = Lock()
        self.waiting: list[Waiting] = []
        self.alone: list[Waiting] = []
        self.working = False

    def verify(self, item: Item) -> "Future[Verdict]":
        future: Future[Verdict] = Future()
        with self.lock:
            self.waiting.append(([*item.messages, {"role": "assistant", "content": item.answer or ""}], future))
        self._next()
        return future

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()

    def _next(self) -> None:
        with self.lock:
            if self.working or not (self.alone or self.waiting):
                return
            if self.alone:
                batch = [self.alone.pop()]
            else:
                batch, self.waiting = self.waiting[:MOST_AT_ONCE], self.waiting[MOST_AT_ONCE:]
            self.working = True
        began = monotonic()
        work = self.pool.schedule(rate, args=[self.model, self.settings, [dialogue for dialogue, _ in batch]])
        work.add_done_callback(lambda ended: self._settle(batch, ended, (monotonic() - began) / len(batch)))

    def _settle(self, batch: list[Waiting], ended: Any, seconds: float) -> None:
        error = ended.exception()
        with self.lock:
            self.working = False
            if error and len(batch) > 1 and not isinstance(error, EngineError):
                self.alone, batch = batch, []
        for i, (_, future) in enumerate(batch):
            if isinstance(error, EngineError):
                future.set_exception(error)
            elif error:
                why = f"the reward model failed: {type(error).__name__}: {error}"
                future.set_result(unknown(NAME, why, hopeless=True).after(seconds))
            else:
                future.set_result(verdict_of(ended.result()[i], self.settings.max_tokens).after(seconds))
        self._next()
