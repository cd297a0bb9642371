"""curate: keeps a teacher's traces that are well-formed, fluent and not repetitive. Every removed one has its reason.

- ``structure``: turns do not alternate and end with the assistant; no thought and answer, or one of them empty;
  or truncated.
- ``special_token``: a text of the dialogue contains a special token of the student's tokenizer, which would encode it as one.
- ``template``: the student's chat template rejects the dialogue.
- ``tokenizer``: the student's tokenizer does not read back the response that it encodes.
- ``perplexity``: above the teacher's ``max_perplexity``, or not a number.
- ``ngram``: holds a run of ``ngram`` tokens that occurs more than ``max_repeats`` times in the data set's responses.
- ``repetition``: over ``max_repetition`` of its runs of ``ngram`` tokens occurred earlier in the same response.
- ``duplicate``: the same text as an earlier trace of the same query.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Le

from distillery.core import config
from distillery.core.config import NonNegativeFloat, Positive, PositiveFloat, Section
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import atomic_dir, read_json
from distillery.core.progress import in_words, log
from distillery.core.runner import map_parts, sum_counts
from distillery.core.schemas import CURATED, MAJORITY, PASS, PERPLEXITY, QUERY, TRACE, UNKNOWN
from distillery.core.stage import read_run, record_metrics, run_stage
from distillery.core.tables import matching_parts, part_name, read_part, write_part
from distillery.corpus import token_ngrams
from distillery.corpus.arrow_text import as_before, combine_chunks, out_of_turn
from distillery.corpus.token_shards import Shard, attempt_keys, candidates, count_shards, open_shard

MOST_REASONS = 10
FLAWS = ("special_token", "template", "tokenizer")
REASONS = ("structure", *FLAWS, "perplexity", "ngram", "repetition", "duplicate")
GROUPS = ("category", "difficulty", "attempt")
Tally = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Curate(Section):
    """What is too much repetition."""

    ngram: Positive
    """Tokens per n-gram."""
    max_repeats: Positive
    """How often an n-gram may occur in all of a teacher's responses."""
    max_repetition: Annotated[float, Ge(0), Le(1)]
    """The highest share of a response's n-grams that may have occurred earlier in it."""
    memory: Positive
    """Memory for counting n-grams, in MB; the exact counts of candidates may take as much again."""


@dataclass(frozen=True)
class Price(Section):
    """What generation costs."""

    device_hour: NonNegativeFloat | None
    """The price of one hour of one device, in any currency; null to leave prices out."""


def responses(shard: Shard) -> token_ngrams.Responses:
    return shard.ids, shard.offsets[:-1] + shard.prompts, shard.offsets[1:]


def repeated(teacher: str, settings: Curate) -> list[np.ndarray]:
    """For each part, which of its responses hold an n-gram that the data set repeats too often."""
    folder = f"data/tokens/{teacher}"

    def shards() -> Iterator[token_ngrams.Responses]:
        for part in range(count_shards(folder)):
            yield responses(open_shard(folder, part))

    try:
        return token_ngrams.repeated(shards, settings.ngram, settings.max_repeats, settings.memory)
    except token_ngrams.LimitError as error:
        raise ConfigError(f"params.yaml: curate: {error}") from None


def malformed(queries: pa.Table, traces: pa.Table) -> np.ndarray:
    """Which traces are not a complete answer to a dialogue that alternates; bool, (traces,)."""
    asked = pc.index_in(combine_chunks(traces["query_id"]), combine_chunks(queries["id"]))
    if asked.null_count:
        raise DataError("data/traces: a trace of a query that data/queries does not hold; run `dvc repro`")
    parts = [pc.fill_null(pc.greater(traces[f"{name}_end"], traces[f"{name}_start"]), False) for name in ("think", "answer")]
    sound = pc.and_(pc.and_(*parts), pc.equal(traces["finish_reason"], "stop")).to_numpy()
    return ~sound | out_of_turn(combine_chunks(queries["messages"]))[asked.to_numpy()]


def duplicates(traces: pa.Table) -> np.ndarray:
    """Which traces have the text of an earlier one of their query; bool, (traces,)."""
    texts = traces.select(["query_id", "text"]).append_column("row", pa.array(np.arange(len(traces))))
    first = texts.group_by(["query_id", "text"]).aggregate([("row", "min")])["row_min"].to_numpy()
    found = np.ones(len(traces), bool)
    found[first] = False
    return found


def reasons(rules: dict[str, np.ndarray]) -> np.ndarray:
    """Why each trace is removed, as an index into REASONS; -1 where it is kept. int8, (traces,).

    ``rules`` says for each reason which traces it holds for, bool, (traces,); of several the first counts.
    """
    why = np.full(len(rules[REASONS[0]]), -1, np.int8)
    for i in reversed(range(len(REASONS))):
        why[rules[REASONS[i]]] = i
    return why


def share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def tallies(queries: pa.Table, traces: pa.Table) -> dict[str, Tally]:
    """Attempts that passed and all attempts: first ones by category and difficulty, and by attempt."""
    asked = queries.select(["id", "category", "difficulty"])
    joined = traces.select(["query_id", "attempt", "verdict"]).join(asked, "query_id", "id")
    level = pc.if_else(pc.equal(pc.fill_null(joined["difficulty"], ""), ""), "none", joined["difficulty"])
    joined = joined.drop_columns(["difficulty"]).append_column("difficulty", level)
    joined = joined.append_column("passed", pc.cast(pc.equal(joined["verdict"], PASS), pa.int64()))
    first = joined.filter(pc.field("attempt") == 1)
    found = {}
    for name, table in zip(GROUPS, (first, first, joined), strict=True):
        groups = table.group_by(name).aggregate([("passed", "sum"), ("passed", "count")]).to_pylist()
        found[name] = {str(row[name]): (row["passed_sum"], row["passed_count"]) for row in groups}
    return found


def account(queries: pa.Table, traces: pa.Table) -> dict[str, Any]:
    """How the queries of one part fared, as counts that can be added up."""
    unknown = traces.filter(pc.field("verdict") == UNKNOWN)
    named = zip(unknown["verifier"].to_pylist(), unknown["reason"].to_pylist(), strict=True)
    reasons = Counter(f"{verifier}: {reason}" for verifier, reason in named)
    passed = traces.filter(pc.field("verdict") == PASS)["query_id"]
    agreed = traces.filter((pc.field("verdict") == PASS) & (pc.field("verifier") == MAJORITY))["query_id"]
    counts = {
        "queries": len(queries),
        "attempts": len(traces),
        "verified": int((~as_before(passed)).sum()),
        "verified_traces": len(passed),
        "by_majority": len(agreed.unique()),
        "unknown": len(unknown),
        "truncated": pc.sum(pc.equal(traces["finish_reason"], "length")).as_py() or 0,
        "tokens": pc.sum(traces["completion_tokens"]).as_py() or 0,
    }
    return {"counts": counts, "unknown_reasons": reasons, "tallies": tallies(queries, traces)}


def pass_rates(tallies: Iterable[Tally]) -> dict[str, float]:
    """The share of attempts that passed, by group, over all parts."""
    sums: dict[str, list[int]] = {}
    for tally in tallies:
        for name, pair in tally.items():
            sums[name] = [a + b for a, b in zip(sums.get(name, [0, 0]), pair, strict=True)]
    return {name: share(*pair) for name, pair in sorted(sums.items())}


def distillation(accounts: list[dict[str, Any]]) -> dict[str, Any]:
    """Pass rates by category, difficulty and attempt, attempts, truncated responses and inconclusive verdicts."""
    counts = sum_counts([each["counts"] for each in accounts])
    reasons = Counter(sum_counts([each["unknown_reasons"] for each in accounts]))
    rates = {name: pass_rates(each["tallies"][name] for each in accounts) for name in GROUPS}
    attempts = counts["attempts"]
    return {
        "queries": counts["queries"],
        "attempts": attempts,
        "verified": counts["verified"],
        "verified_traces": counts["verified_traces"],
        "verified_by_majority": counts["by_majority"],
        "verified_share": share(counts["verified"], counts["queries"]),
        "pass_rate": share(counts["verified_traces"], attempts),
        "first_attempt_by_category": rates["category"],
        "first_attempt_by_difficulty": rates["difficulty"],
        "by_attempt": rates["attempt"],
        "attempts_per_query": round(attempts / max(counts["queries"], 1), 3),
        "truncated_share": share(counts["truncated"], attempts),
        "unknown_share": share(counts["unknown"], attempts),
        "unknown_reasons": dict(reasons.most_common(MOST_REASONS)),
        "tokens_per_verified_trace": round(counts["tokens"] / max(counts["verified_traces"], 1), 1),
    }


def cost(run: dict[str, Any], verified: int, price: Price) -> dict[str, float]:
    """What the traces cost in engine time, failed attempts included; ``run`` is the information of distill's run."""
    seconds = run["engine_seconds"] * run["devices"]
    figures = {"device_seconds": round(seconds, 1), "device_seconds_per_verified_trace": round(seconds / max(verified, 1), 4)}
    if price.device_hour is not None:
        figures["price_per_verified_trace"] = round(seconds / 3600 * price.device_hour / max(verified, 1), 8)
    return figures


def measured(traces: pa.Table, shard: Shard, scores: pa.Table) -> pa.Table:
    """Candidate traces with their scores and lengths: CURATED, in the order of the shard."""
    keys = attempt_keys(traces)
    found = pc.index_in(keys, attempt_keys(scores))
    if not shard.keys.equals(keys) or found.null_count:
        raise DataError("data/tokens or data/perplexity: not of these traces; run `dvc repro`")
    scored = scores.take(found)
    columns = {
        "perplexity": scored["perplexity"],
        "fit": scored["fit"],
        "response_tokens": pa.array(shard.responses),
        "dialogue_tokens": pa.array(shard.prompts + shard.responses),
    }
    for name, column in columns.items():
        traces = traces.append_column(name, column)
    return traces.cast(CURATED)


def summed(table: pa.Table, column: str) -> float:
    return pc.sum(table[column]).as_py() or 0.0


@dataclass(frozen=True)
class Curator:
    """Curates a teacher's traces part by part; ``repeats`` says of each part which responses repeat n-grams too often."""

    settings: Curate
    max_perplexity: float
    unverified: bool
    tokens: str
    queries: list[Path]
    traces: list[Path]
    scores: list[Path]
    repeats: list[np.ndarray]
    kept_to: Path
    rejected_to: Path

    def curate_part(self, part: int) -> dict[str, Any]:
        """Writes what is kept and what is removed; counts and sums of both."""
        asked, answered = read_part(self.queries[part], QUERY), read_part(self.traces[part], TRACE)
        shard = open_shard(self.tokens, part)
        traces = measured(candidates(answered, self.unverified), shard, read_part(self.scores[part], PERPLEXITY))
        rules = {
            "structure": malformed(asked, traces),
            **{flaw: shard.flawed(flaw) for flaw in FLAWS},
            "perplexity": ~(traces["perplexity"].to_numpy() <= self.max_perplexity),
            "ngram": self.repeats[part],
            "repetition": token_ngrams.repetition(*responses(shard), self.settings.ngram) > self.settings.max_repetition,
            "duplicate": duplicates(traces),
        }
        why = reasons(rules)
        kept, rejected = traces.filter(pa.array(why < 0)), traces.filter(pa.array(why >= 0))
        names = [REASONS[i] for i in why[why >= 0]]
        write_part(kept, self.kept_to / part_name(part))
        write_part(rejected.append_column("rejected_for", pa.array(names, pa.string())), self.rejected_to / part_name(part))
        sums = {name: summed(kept, name) for name in ("perplexity", "response_tokens")}
        return account(asked, answered) | {"kept": len(kept), "rejected": Counter(names), "sums": sums}


def main(teacher: str) -> None:
    settings, stage = config.load(Curate, "curate"), f"curate@{teacher}"
    max_perplexity = config.load(PositiveFloat, f"teacher.{teacher}.max_perplexity")
    unverified = config.load(bool, "unverified")
    with record_metrics(f"metrics/teachers/{teacher}.json", "numba", "pyarrow") as (metrics, run):
        tokens = f"data/tokens/{teacher}"
        folders = "data/queries", f"data/traces/{teacher}", f"data/perplexity/{teacher}", tokens
        queries, traces, scores, _shards = matching_parts(*folders)
        repeats = repeated(teacher, settings)
        out = f"data/curated/{teacher}", f"data/rejected/curate/{teacher}"
        with atomic_dir(out[0]) as kept_to, atomic_dir(out[1]) as rejected_to:
            files = (tokens, queries, traces, scores, repeats, kept_to, rejected_to)
            curator = Curator(settings, max_perplexity, unverified, *files)
            results = map_parts(stage, curator.curate_part, len(queries))
        kept, rejected = sum(part["kept"] for part in results), sum_counts([part["rejected"] for part in results])
        metrics["distill"] = distillation(results)
        metrics["curate"] = {"kept": kept, "rejected": rejected}
        for name in ("perplexity", "response_tokens"):
            metrics[f"mean_{name}"] = round(sum(part["sums"][name] for part in results) / kept, 4) if kept else None
        metrics["sampling"] = read_json(f"metrics/distill/{teacher}.json")["sampling"]
        metrics["max_perplexity"] = max_perplexity
        if distilled := read_run(f"metrics/distill/{teacher}.json"):
            run.update(cost(distilled, metrics["distill"]["verified_traces"], config.load(Price, "price")))
    log(stage, f"kept {kept} of {kept + sum(rejected.values())} traces; removed {in_words(rejected)}")


if __name__ == "__main__":
    run_stage(main)
