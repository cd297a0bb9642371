"""forecast: which arm's traces will teach best, said before any student is trained.

The base reads a few hundred traces of each arm, of the same queries, and metrics from the literature are computed of its
losses, ranks and entropies (`distillery.evaluation.forecast_metrics`). Differences are paired by query. Figures go into the
ledger: a second run reads nothing again. How well each metric agrees with the students' scores is said by `outcomes`.

One pass gives all metrics but two: local naturalness reads every sentence again with the few before it, about
``local_sentences`` + 1 times the tokens, and the probe trains the base for a few steps on each arm.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import combinations
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillery.core import config, model_locks
from distillery.core.arms import Arm, arms
from distillery.core.batching import devices
from distillery.core.codehash import hash_code
from distillery.core.config import ModelType, NonNegative, Positive, Section
from distillery.core.errors import DataError
from distillery.core.files import read_json
from distillery.core.model_locks import Lock
from distillery.core.progress import log
from distillery.core.schemas import CURATED, TAKEN
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import matching_parts, read_part
from distillery.core.teachers import teacher_names
from distillery.corpus.arm_selection import hashes
from distillery.corpus.arrow_text import combine_chunks
from distillery.corpus.token_shards import attempt_keys, open_shard, pad_token
from distillery.evaluation.forecast_metrics import (
    HIGHER,
    LOCAL,
    METRICS,
    Dialogue,
    Metric,
    mean,
)
from distillery.evaluation.forecast_reader import Reader
from distillery.evaluation.paired_statistics import interval
from distillery.generation.ledger import ROOT
from distillery.generation.perplexity import load_scorer
from distillery.generation.score_store import Scores, key_of
from distillery.training.probe import Probe, probe
from distillery.training.tokenization import load_tokenizer

STOPS = (".", "!", "?", ";", "\n")
TEXT = pa.schema([CURATED.field(name) for name in ("query_id", "attempt", "text")])


@dataclass(frozen=True)
class Forecast(Section):
    """What is read before training."""

    queries: Positive
    """Queries whose traces are read, of each arm; the same for all, drawn by ``seed``."""
    batch_tokens: Positive
    """Tokens per forward pass, padding included."""
    dtype: ModelType
    """The base's data type."""
    local_sentences: NonNegative
    """Sentences before each that local naturalness is judged by; 0 leaves it out."""
    probe: Probe | None
    """A short training on each arm; null leaves it out."""


@dataclass
class Sample:
    """An arm's traces of the queries that are read, one per query, in the order of the draw."""

    dialogues: list[Dialogue] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    def first(self, count: int) -> list[Dialogue]:
        places = sorted(range(len(self.order)), key=self.order.__getitem__)[:count]
        return [self.dialogues[place] for place in places]


def common_queries(described: dict[str, Arm], paths: dict[str, Any], part: int) -> pa.Array:
    """The queries of one part on which every arm trains."""
    first, *others = (read_part(paths[name][part], TAKEN).filter(pc.field("trains")) for name in described)
    ids = pc.unique(combine_chunks(first["query_id"]))
    for other in others:
        ids = ids.filter(pc.is_in(ids, value_set=combine_chunks(other["query_id"])))
    return ids


def samples(described: dict[str, Arm], wanted: int, seed: int) -> dict[str, list[Dialogue]]:
    """For each arm its dialogues of the same queries. Raises DataError where arms share none."""
    parts = dict(zip(described, matching_parts(*(f"data/arms/{name}" for name in described)), strict=True))
    found = {name: Sample() for name in described}
    for part in range(len(next(iter(parts.values())))):
        ids = common_queries(described, parts, part)
        order = hashes(seed, "forecast", ids)
        keep = np.argsort(order)[:wanted]
        ids, order = ids.take(pa.array(keep)), order[keep]
        for name in described:
            add_part(found[name], read_part(parts[name][part], TAKEN), ids, order, part)
    if not found[next(iter(described))].order:
        raise DataError("data/arms: no query trains every arm, so they cannot be compared before training")
    return {name: sample.first(wanted) for name, sample in found.items()}


def add_part(sample: Sample, takes: pa.Table, ids: pa.Array, order: np.ndarray, part: int) -> None:
    """Adds an arm's first trace of each of these queries, with its tokens."""
    places = pc.index_in(ids, combine_chunks(takes["query_id"]))
    takes = takes.take(places)
    for teacher in pc.unique(takes["teacher"]).to_pylist():
        here = pc.equal(takes["teacher"], teacher)
        chosen, drawn = takes.filter(here), order[combine_chunks(here).to_numpy(zero_copy_only=False)]
        shard = open_shard(f"data/tokens/{teacher}", part)
        curated = read_part(matching_parts(f"data/curated/{teacher}")[0][part], TEXT)
        texts = curated["text"].take(pc.index_in(attempt_keys(chosen), attempt_keys(curated))).to_pylist()
        rows = pc.index_in(attempt_keys(chosen), shard.keys).to_pylist()
        for row, text, place in zip(rows, texts, drawn.tolist(), strict=True):
            ids_of = shard.ids[shard.offsets[row] : shard.offsets[row + 1]].tolist()
            sample.dialogues.append(Dialogue(ids_of, int(shard.prompts[row]), text))
            sample.order.append(place)


def sentence_ends(lock: Lock) -> Callable[[int], bool]:
    """Whether a token ends a sentence, by the base's tokenizer."""
    tokenizer = load_tokenizer(lock.id, lock.hub_revision)
    return lambda token: tokenizer.decode([token]).rstrip(" ").endswith(STOPS)


class Prober:
    """Falls of the held-out loss by arm, each kept in the ledger."""

    def __init__(self, reader: Reader, settings: Probe):
        self.reader, self.settings = reader, settings

    def falls(self, dialogues: list[Dialogue], stage: str) -> list[dict[str, float]]:
        """Of each held-out trace, at most a quarter of all, how much its loss falls by training on the others."""
        rows = [(each.ids, each.prompt) for each in dialogues]
        count = max(1, min(self.settings.held_out, len(rows) // 4))
        train, held_out = rows[:-count], rows[-count:]
        about = ("probe", asdict(self.settings), self.reader.about, hash_code(("distillery.training.probe",)), train)
        keys = [key_of(*about, row) for row in held_out]
        if any(self.reader.scores.find(key) is None for key in keys):
            log(stage, f"probe: {self.settings.steps} steps on {len(train)} traces")
            model = load_scorer(self.reader.lock, "float32", devices()[0])
            for key, fall in zip(keys, probe(model, train, held_out, self.settings, self.reader.pad), strict=True):
                self.reader.scores.add(key, round(fall, 6))
        return [{"probe": self.reader.scores.find(key) or 0.0} for key in keys]


PROBED = {"probe": Metric(("probe",), mean, HIGHER, "how far the loss on held-out traces falls in a short training")}
Rows = dict[str, list[dict[str, float]]]
"""By arm, the figures of its traces, of the same queries in the same order."""


@dataclass(frozen=True)
class Estimator:
    """Turns figures of traces into figures of arms."""

    resamples: int
    confidence: float
    seed: int

    def estimate(self, rows: Rows, metric: Metric) -> dict[str, Any]:
        """Each arm's figure with its interval over queries, and the differences between arms, paired by query."""
        count = len(next(iter(rows.values())))
        picks = np.random.default_rng(self.seed).integers(0, count, (self.resamples, count))
        columns = {arm: [np.array([row[name] for row in each]) for name in metric.figures] for arm, each in rows.items()}
        values = {arm: float(metric.combine(*each)) for arm, each in columns.items()}
        draws = {arm: metric.combine(*(column[picks] for column in each)) for arm, each in columns.items()}

        def between(a: str, b: str) -> dict[str, Any]:
            return dict(interval(draws[a] - draws[b], values[a] - values[b], count, self.confidence))

        alone = {arm: dict(interval(draws[arm], values[arm], count, self.confidence)) for arm in rows}
        pairs = {f"{a} - {b}": between(a, b) for a, b in combinations(rows, 2)}
        return {"better": metric.better, "source": metric.source, "arms": alone, "differences": pairs}


def pass_rates(described: dict[str, Arm]) -> dict[str, Any]:
    """The mean share of its teachers' attempts that verified, as a metric without interval."""
    rates = {name: read_json(f"metrics/teachers/{name}.json")["distill"]["pass_rate"] for name in teacher_names()}
    arms_of = {arm: float(np.mean([rates[teacher] for teacher in each.teachers])) for arm, each in described.items()}
    alone = {arm: {"mean": round(rate, 4), "low": None, "high": None} for arm, rate in arms_of.items()}
    return {"better": HIGHER, "source": "difficulty, arXiv 2507.01921", "arms": alone, "differences": {}}


def ranking(found: dict[str, Any]) -> list[str] | None:
    """Arms by a metric, the one that should teach best first."""
    if found["better"] is None:
        return None
    means = {arm: each["mean"] for arm, each in found["arms"].items()}
    return sorted(means, key=means.__getitem__, reverse=found["better"] == HIGHER)


def main() -> None:
    settings, seed, described, stage = config.load(Forecast, "forecast"), config.load(int, "seed"), arms(), "forecast"
    lock = model_locks.read("base")
    pad = pad_token(f"data/tokens/{next(iter(described.values())).teachers[0]}")
    estimator = Estimator(config.load(int, "compare.resamples"), config.load(float, "compare.confidence"), seed)
    with (
        record_metrics("metrics/forecast.json", "torch", "transformers", device=device()) as (metrics, run),
        closing(Scores("forecast", ROOT)) as scores,
    ):
        dialogues = samples(described, settings.queries, seed)
        metrics["queries"] = len(next(iter(dialogues.values())))
        about = (settings.dtype, settings.batch_tokens, settings.local_sentences)
        reader, begun = Reader(lock, pad, scores, *about, sentence_ends(lock)), monotonic()
        figures = {name: reader.figures(each, f"{stage}: {name}") for name, each in dialogues.items()}
        run.update(tokens_read=reader.read, reading_seconds=round(monotonic() - begun, 1))
        local = settings.local_sentences > 0
        chosen = {name: each for name, each in METRICS.items() if local or LOCAL not in each.figures}
        found = {name: estimator.estimate(figures, metric) for name, metric in chosen.items()}
        found["pass rate"] = pass_rates(described)
        if settings.probe and metrics["queries"] > 1:
            begun, prober = monotonic(), Prober(reader, settings.probe)
            falls = {name: prober.falls(each, f"{stage}: {name}") for name, each in dialogues.items()}
            found |= {name: estimator.estimate(falls, metric) for name, metric in PROBED.items()}
            run["probe_seconds"] = round(monotonic() - begun, 1)
        metrics["metrics"] = {name: each | {"ranking": ranking(each)} for name, each in found.items()}
        metrics["provenance"] = {"models": model_locks.brief(lock)}
    for name, each in metrics["metrics"].items():
        if each["ranking"]:
            log(stage, f"{name}: {' > '.join(each['ranking'])}")


if __name__ == "__main__":
    run_stage(main)
