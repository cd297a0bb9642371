"""curate: keeps a teacher's verified traces that are sound in structure, fluent and not repeated. Rejects say why.

- ``structure``: turns do not alternate and end with the assistant; not one think part and one answer part, neither empty,
  with nothing after; or cut.
- ``special_token``: a text of the dialogue spells a special token of the student's tokenizer, which would take it for one.
- ``perplexity``: above the teacher's ``max_perplexity``, or no number.
- ``ngram``: holds a run of ``ngram`` tokens that occurs more than ``max_repeats`` times in the data set's responses.
- ``repetition``: over ``max_repetition`` of its runs of ``ngram`` tokens occurred earlier in the same response.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages import ngrams, params, provenance
from stages.params import ParamsError, Positive, Section
from stages.provenance import say
from stages.runner import each_part, total
from stages.shards import Shard, chosen, count_shards, open_shard
from stages.tables import (
    CURATED,
    PERPLEXITY,
    QUERY,
    TRACE,
    DataError,
    aligned,
    part_name,
    read_json,
    read_part,
    whole_folder,
    write_part,
)
from stages.text import out_of_turn, whole
from stages.verifiers import PASS, UNKNOWN

MOST_REASONS = 10
REJECTED = CURATED.append(pa.field("rejected_for", pa.string()))
REASONS = ("structure", "special_token", "perplexity", "ngram", "repetition")
GROUPS = ("category", "difficulty", "attempt")
Tally = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Curate(Section):
    """What is too much repetition; ``memory`` in MB is what counting n-grams may take (twice, at most)."""

    ngram: Positive
    max_repeats: Positive
    max_repetition: float
    memory: Positive


@dataclass(frozen=True)
class Price(Section):
    """What an hour of one device costs, in any currency; null where nobody asks."""

    device_hour: float | None


def responses(shard: Shard) -> ngrams.Responses:
    return shard.ids, shard.offsets[:-1] + shard.prompts, shard.offsets[1:]


def repeated(teacher: str, settings: Curate) -> list[np.ndarray]:
    """For each part, which of its responses hold an n-gram that the data set repeats too often."""
    folder = f"data/tokens/{teacher}"

    def shards() -> Iterator[ngrams.Responses]:
        for part in range(count_shards(folder)):
            yield responses(open_shard(folder, part))

    try:
        return ngrams.repeated(shards, settings.ngram, settings.max_repeats, settings.memory)
    except ngrams.LimitError as error:
        raise ParamsError(f"params.yaml: curate: {error}") from None


def malformed(queries: pa.Table, traces: pa.Table) -> np.ndarray:
    """Which traces are no whole answer to a dialogue that alternates; bool, (traces,)."""
    asked = pc.index_in(whole(traces["query_id"]), whole(queries["id"]))
    if asked.null_count:
        raise DataError("data/traces: a trace of a query that data/queries does not hold; run `dvc repro`")
    parts = [pc.fill_null(pc.greater(pc.utf8_length(traces[name]), 0), False) for name in ("think", "answer")]
    sound = pc.and_(pc.and_(*parts), pc.equal(traces["finish_reason"], "stop")).to_numpy()
    return ~sound | out_of_turn(whole(queries["messages"]))[asked.to_numpy()]


def reasons(
    malformed: np.ndarray,
    special: np.ndarray,
    perplexity: np.ndarray,
    repeats: np.ndarray,
    repetition: np.ndarray,
    max_perplexity: float,
    max_repetition: float,
) -> np.ndarray:
    """Why each trace goes, as an index into REASONS, the first of them; -1 where it stays. int8, (traces,)."""
    rules = (malformed, special, ~(perplexity <= max_perplexity), repeats, repetition > max_repetition)
    why = np.full(len(malformed), -1, np.int8)
    for i in reversed(range(len(REASONS))):
        why[rules[i]] = i
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
    """What a part tells of how its queries fared: counts that can be added up."""
    unknown = traces.filter(pc.field("verdict") == UNKNOWN)
    told = zip(unknown["verifier"].to_pylist(), unknown["reason"].to_pylist(), strict=True)
    reasons = Counter(f"{verifier}: {reason}" for verifier, reason in told)
    counts = {
        "queries": len(queries),
        "attempts": len(traces),
        "verified": pc.sum(pc.equal(traces["verdict"], PASS)).as_py() or 0,
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
    """How the teacher fared: pass rates by category, difficulty and attempt, attempts, cuts, and what could not be told."""
    counts = total([each["counts"] for each in accounts])
    reasons = Counter(total([each["unknown_reasons"] for each in accounts]))
    rates = {name: pass_rates(each["tallies"][name] for each in accounts) for name in GROUPS}
    attempts = counts["attempts"]
    return {
        "queries": counts["queries"],
        "verified": counts["verified"],
        "verified_share": share(counts["verified"], counts["queries"]),
        "pass_rate": share(counts["verified"], attempts),
        "first_attempt_by_category": rates["category"],
        "first_attempt_by_difficulty": rates["difficulty"],
        "by_attempt": rates["attempt"],
        "attempts_a_query": round(attempts / max(counts["queries"], 1), 3),
        "truncated_share": share(counts["truncated"], attempts),
        "unknown_share": share(counts["unknown"], attempts),
        "unknown_reasons": dict(reasons.most_common(MOST_REASONS)),
        "tokens_a_verified_trace": round(counts["tokens"] / max(counts["verified"], 1), 1),
    }


def cost(run: dict[str, Any], verified: int, price: Price) -> dict[str, float | None]:
    """What a verified trace took of the engine, attempts that failed included; ``run`` is distill's own account."""
    seconds = run["engine_seconds"] * run["devices"] / max(verified, 1)
    return {
        "device_seconds_a_verified_trace": round(seconds, 4),
        "cost_a_verified_trace": None if price.device_hour is None else round(seconds / 3600 * price.device_hour, 8),
    }


def measured(traces: pa.Table, shard: Shard, scores: pa.Table) -> pa.Table:
    """The verified traces, one a query, with their perplexity and lengths: CURATED, in the order of the shard."""
    verified = chosen(traces)
    key = lambda table: pc.binary_join_element_wise(table["query_id"], pc.cast(table["attempt"], pa.string()), "-")  # noqa: E731
    found = pc.index_in(whole(key(verified)), whole(key(scores)))
    if not whole(shard.names).equals(whole(verified["query_id"])) or found.null_count:
        raise DataError("data/tokens or data/perplexity: not of these traces; run `dvc repro`")
    lengths = (pa.array(shard.responses), pa.array(shard.prompts + shard.responses))
    for name, column in zip(CURATED.names[len(TRACE) :], (whole(scores["perplexity"].take(found)), *lengths), strict=True):
        verified = verified.append_column(name, column)
    return verified.cast(CURATED)


def summed(table: pa.Table, column: str) -> float:
    return pc.sum(table[column]).as_py() or 0.0


def main(teacher: str) -> None:
    settings = params.load(Curate, "curate")
    max_perplexity = params.load(float, f"teacher.{teacher}.max_perplexity")
    with provenance.record(f"metrics/teachers/{teacher}.json", "daft", "numba", "pyarrow") as metrics:
        tokens, folders = f"data/tokens/{teacher}", [f"data/{name}/{teacher}" for name in ("traces", "perplexity", "tokens")]
        queries, traces, scores, _ = aligned("data/queries", *folders)
        guilty = repeated(teacher, settings)
        out = f"data/curated/{teacher}", f"data/rejected/curate/{teacher}"
        with whole_folder(out[0]) as kept_to, whole_folder(out[1]) as rejected_to:

            def work(part: int) -> dict[str, Any]:
                asked, answered = read_part(queries[part], QUERY), read_part(traces[part], TRACE)
                shard = open_shard(tokens, part)
                verified = measured(answered, shard, read_part(scores[part], PERPLEXITY))
                loops = ngrams.repetition(*responses(shard), settings.ngram)
                found = malformed(asked, verified), shard.special, verified["perplexity"].to_numpy(), guilty[part], loops
                why = reasons(*found, max_perplexity, settings.max_repetition)
                kept, rejected = verified.filter(pa.array(why < 0)), verified.filter(pa.array(why >= 0))
                names = [REASONS[i] for i in why[why >= 0]]
                write_part(kept, kept_to / part_name(part))
                write_part(rejected.append_column("rejected_for", pa.array(names, pa.string())), rejected_to / part_name(part))
                sums = {name: summed(kept, name) for name in ("perplexity", "response_tokens")}
                return account(asked, answered) | {"kept": len(kept), "rejected": Counter(names), "sums": sums}

            said = each_part(f"curate@{teacher}", work, len(queries))
        told, run = distillation(said), read_json(f"metrics/distill/{teacher}.json")
        kept, rejected = sum(part["kept"] for part in said), total([part["rejected"] for part in said])
        metrics["distill"] = told | cost(run, told["verified"], params.load(Price, "price"))
        metrics["curate"] = {"kept": kept, "rejected": rejected}
        for name in ("perplexity", "response_tokens"):
            metrics[f"mean_{name}"] = round(sum(part["sums"][name] for part in said) / kept, 4) if kept else None
    say(f"curate@{teacher}", f"kept {kept} of {kept + sum(rejected.values())} verified traces; dropped {rejected}")


if __name__ == "__main__":
    provenance.run(main)
