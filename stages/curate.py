"""curate: keeps a teacher's verified traces that are sound in structure, fluent and not repeated. Rejects say why."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from stages import params, provenance
from stages.params import Section
from stages.provenance import say
from stages.tables import CURATED, QUERY, TRACE, read, read_json, write
from stages.verifiers import PASS, UNKNOWN

MOST_REASONS = 10
REJECTED = CURATED.append(pa.field("rejected_for", pa.string()))


@dataclass(frozen=True)
class Curate(Section):
    """A trace goes if one of its ``ngram``-token sequences occurs more than ``max_repeats`` times in the data set."""

    ngram: int
    max_repeats: int


@dataclass(frozen=True)
class Price(Section):
    """What an hour of one device costs, in any currency; null where nobody asks."""

    device_hour: float | None


def repeated(responses: list[np.ndarray], n: int, most: int) -> np.ndarray:
    """Which responses hold an n-gram that occurs more than ``most`` times over all of them; bool, (responses,)."""
    windows = [np.lib.stride_tricks.sliding_window_view(ids, n) for ids in responses if len(ids) >= n]
    owners = np.repeat(np.arange(len(responses)), [max(len(ids) - n + 1, 0) for ids in responses])
    guilty = np.zeros(len(responses), bool)
    if windows:
        _, inverse, counts = np.unique(np.concatenate(windows), axis=0, return_inverse=True, return_counts=True)
        guilty[owners[counts[inverse.ravel()] > most]] = True
    return guilty


def malformed(query: dict[str, Any], trace: dict[str, Any]) -> bool:
    """Whether turns do not alternate from user to user, or the think or the answer part is missing or empty."""
    roles = [message["role"] for message in query["messages"] if message["role"] != "system"]
    alternate = len(roles) % 2 == 1 and all(role == ("user", "assistant")[i % 2] for i, role in enumerate(roles))
    return not (alternate and trace["think"] and trace["answer"] and trace["finish_reason"] == "stop")


def judge(query: dict[str, Any], trace: dict[str, Any], repeats: bool, max_perplexity: float) -> str | None:
    """Why a trace is rejected, or None."""
    if malformed(query, trace):
        return "structure"
    if not trace["perplexity"] <= max_perplexity:
        return "perplexity"
    return "ngram" if repeats else None


def responses_of(folder: str) -> list[np.ndarray]:
    """The response tokens of every verified trace, in the order of query ids."""
    ids = np.load(f"{folder}/ids.npy", mmap_mode="r")
    offsets, prompts = np.load(f"{folder}/offsets.npy"), np.load(f"{folder}/prompts.npy")
    return [ids[a + p : b] for a, b, p in zip(offsets[:-1], offsets[1:], prompts, strict=True)]


def share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def pass_rates(traces: list[dict[str, Any]], group_of: Callable[[dict[str, Any]], str]) -> dict[str, float]:
    """The share of attempts that passed, by group."""
    groups: dict[str, list[bool]] = {}
    for row in traces:
        groups.setdefault(group_of(row), []).append(row["verdict"] == PASS)
    return {name: share(sum(group), len(group)) for name, group in sorted(groups.items())}


def distillation(traces: list[dict[str, Any]], queries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How the teacher fared: pass rates by category, difficulty and attempt, attempts, cuts, and what could not be told."""
    first = [row for row in traces if row["attempt"] == 1]
    verified, unknown = sum(row["verdict"] == PASS for row in traces), [row for row in traces if row["verdict"] == UNKNOWN]
    reasons = Counter(f"{row['verifier']}: {row['reason']}" for row in unknown)
    return {
        "queries": len(queries),
        "verified": verified,
        "verified_share": share(verified, len(queries)),
        "pass_rate": share(verified, len(traces)),
        "first_attempt_by_category": pass_rates(first, lambda row: queries[row["query_id"]]["category"]),
        "first_attempt_by_difficulty": pass_rates(first, lambda row: queries[row["query_id"]]["difficulty"] or "none"),
        "by_attempt": pass_rates(traces, lambda row: str(row["attempt"])),
        "attempts_a_query": round(len(traces) / max(len(queries), 1), 3),
        "truncated_share": share(sum(row["finish_reason"] == "length" for row in traces), len(traces)),
        "unknown_share": share(len(unknown), len(traces)),
        "unknown_reasons": dict(reasons.most_common(MOST_REASONS)),
        "tokens_a_verified_trace": round(sum(row["completion_tokens"] for row in traces) / max(verified, 1), 1),
    }


def cost(run: dict[str, Any], verified: int, price: Price) -> dict[str, float | None]:
    """What a verified trace took of the engine, attempts that failed included; ``run`` is distill's own account."""
    seconds = run["engine_seconds"] * run["devices"] / max(verified, 1)
    return {
        "device_seconds_a_verified_trace": round(seconds, 4),
        "cost_a_verified_trace": None if price.device_hour is None else round(seconds / 3600 * price.device_hour, 8),
    }


def curate(
    queries: dict[str, dict[str, Any]], traces: list[dict[str, Any]], guilty: np.ndarray, max_perplexity: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Splits verified traces into kept and rejected; ``guilty`` says which hold a repeated n-gram."""
    kept: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for trace, repeats in zip(traces, guilty, strict=True):
        why = judge(queries[trace["query_id"]], trace, bool(repeats), max_perplexity)
        if why:
            rejected.append(trace | {"rejected_for": why})
        else:
            kept.append(trace)
    return kept, rejected


def average(rows: list[dict[str, Any]], field: str) -> float | None:
    return round(fmean(row[field] for row in rows), 4) if rows else None


def main(teacher: str) -> None:
    settings = params.load(Curate, "curate")
    max_perplexity = params.load(float, f"teacher.{teacher}.max_perplexity")
    with provenance.record(f"metrics/teachers/{teacher}.json", "numpy", "pyarrow") as metrics:
        queries = {query["id"]: query for query in read("data/queries", QUERY).to_pylist()}
        traces = read(f"data/traces/{teacher}", TRACE).to_pylist()
        scores = {(r["query_id"], r["attempt"]): r["perplexity"] for r in read(f"data/perplexity/{teacher}").to_pylist()}
        responses = responses_of(f"data/tokens/{teacher}")
        lengths = np.diff(np.load(f"data/tokens/{teacher}/offsets.npy")).tolist()
        verified = [
            row
            | {"perplexity": scores[row["query_id"], row["attempt"]]}
            | {"response_tokens": len(response), "dialogue_tokens": length}
            for row, response, length in zip((r for r in traces if r["verdict"] == PASS), responses, lengths, strict=True)
        ]
        guilty = repeated(responses, settings.ngram, settings.max_repeats)
        kept, rejected = curate(queries, verified, guilty, max_perplexity)
        write(kept, f"data/curated/{teacher}", CURATED)
        write(rejected, f"data/rejected/curate/{teacher}", REJECTED)
        reasons = dict(sorted(Counter(row["rejected_for"] for row in rejected).items()))
        account = distillation(traces, queries)
        run = read_json(f"metrics/distill/{teacher}.json")
        metrics["distill"] = account | cost(run, account["verified"], params.load(Price, "price"))
        metrics.update(curate={"kept": len(kept), "rejected": reasons})
        metrics["mean_perplexity"] = average(kept, "perplexity")
        metrics["mean_response_tokens"] = average(kept, "response_tokens")
    say(f"curate@{teacher}", f"kept {len(kept)} of {len(verified)} verified traces; dropped {reasons}")


if __name__ == "__main__":
    provenance.run(main)
