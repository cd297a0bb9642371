"""What the page shows of one query, one removed row, or one benchmark question: plain dictionaries, texts as HTML."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from distillery.core.response_parts import parts_of
from distillery.core.schemas import PASS
from distillery.reader.rendering import html_of, marked

Record = dict[str, Any]
Removed = Mapping[tuple[str, str, int], str]
"""Why an attempt was removed, by teacher, query and attempt."""
Perplexities = Mapping[tuple[str, str, int], float]


def turns(messages: Iterable[Mapping[str, str]]) -> list[Record]:
    return [{"role": message["role"], "html": html_of(message["content"])} for message in messages]


def attempt_of(trace: Mapping[str, Any], removed: Removed, perplexities: Perplexities) -> Record:
    """One attempt, with its verdict and the evidence for it."""
    thought, answer = parts_of(trace)
    key = (trace["teacher"], trace["query_id"], trace["attempt"])
    perplexity = perplexities.get(key)
    return {
        "attempt": trace["attempt"],
        "verdict": trace["verdict"],
        "reason": trace["reason"],
        "verifier": trace["verifier"],
        "score": trace["verify_score"],
        "tokens": trace["completion_tokens"],
        "finish": trace["finish_reason"],
        "perplexity": None if perplexity is None else round(perplexity, 2),
        "removed": removed.get(key, ""),
        "thought": html_of(thought) if thought is not None else "",
        "answer": html_of(answer if answer is not None else trace["text"] if thought is None else ""),
    }


def query_record(
    query: Mapping[str, Any], traces: Iterable[Mapping[str, Any]], removed: Removed, perplexities: Perplexities
) -> Record:
    """A query with every teacher's attempts, in their order."""
    by_teacher = defaultdict(list)
    for trace in sorted(traces, key=lambda trace: (trace["teacher"], trace["attempt"])):
        by_teacher[trace["teacher"]].append(attempt_of(trace, removed, perplexities))
    attempts = [attempt for found in by_teacher.values() for attempt in found]
    return {
        "id": query["id"],
        "category": query["category"],
        "source": query["source"],
        "difficulty": query["difficulty"],
        "text": brief(query["messages"]),
        "turns": turns(query["messages"]),
        "reference": html_of(query["ground_truth"]) if query["ground_truth"] else "",
        "tests": (query["test_cases"] or "")[:2000],
        "constraints": (query["constraints"] or "")[:2000],
        "verified": [teacher for teacher, found in by_teacher.items() if any(each["verdict"] == PASS for each in found)],
        "attempts": len(attempts),
        "tokens": max((attempt["tokens"] for attempt in attempts), default=0),
        "reasons": " ".join(sorted({f"{each['reason']} {each['removed']}".strip() for each in attempts})),
        "teachers": dict(by_teacher),
    }


def brief(messages: Iterable[Mapping[str, str]]) -> str:
    """What a query is searched by and listed as: its user turns."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def removed_record(row: Mapping[str, Any], stage: str, twins: Mapping[str, str]) -> Record:
    """A row that ``stage`` removed; a contaminated one beside the benchmark's question, the words in common marked."""
    twin, words = twins.get(row.get("benchmark_item") or "", ""), row.get("matched") or ""
    text = brief(row["messages"])
    return {
        "id": f"{stage}-{row['id']}",
        "query": row["id"],
        "rule": f"{stage}: {row['reason']}",
        "category": row["category"],
        "source": row["source"],
        "score": row.get("score"),
        "text": text,
        "html": marked(text, words) if twin else "".join(turn["html"] for turn in turns(row["messages"])),
        "twin": row.get("benchmark_item") or "",
        "twin_html": marked(twin, words) if twin else "",
    }


def removed_trace(trace: Mapping[str, Any], query: Mapping[str, Any] | None) -> Record:
    """A trace that curate removed, with its query."""
    thought, answer = parts_of(trace)
    asked = query or {"messages": [], "category": "", "source": ""}
    return {
        "id": f"curate-{trace['teacher']}-{trace['query_id']}-{trace['attempt']}",
        "query": trace["query_id"],
        "rule": f"curate: {trace['rejected_for']}",
        "category": asked["category"],
        "source": trace["teacher"],
        "score": None,
        "text": brief(asked["messages"]) or trace["text"][:300],
        "html": "".join(turn["html"] for turn in turns(asked["messages"]))
        + f"<h3>{trace['teacher']}, attempt {trace['attempt']}</h3>{html_of(thought)}{html_of(answer)}",
        "twin": "",
        "twin_html": "",
    }


def question_record(benchmark: str, question: Mapping[str, Any], samples: Iterable[tuple[str, Mapping[str, Any]]]) -> Record:
    """A benchmark's question with the samples of every model, right ones first."""
    by_model = defaultdict(list)
    for model, sample in samples:
        by_model[model].append(
            {
                "attempt": sample["sample"],
                "seed": sample["seed"],
                "verdict": sample["verdict"],
                "reason": sample["reason"],
                "tokens": sample["completion_tokens"],
                "finish": sample["finish_reason"],
                "thought": "",
                "answer": html_of(sample["text"]),
            }
        )
    for found in by_model.values():
        found.sort(key=lambda each: (each["verdict"] != PASS, each["seed"] or 0, each["attempt"]))
    right = {model: sum(each["verdict"] == PASS for each in found) for model, found in by_model.items()}
    return {
        "id": question["id"] if question["id"].startswith(benchmark) else f"{benchmark}-{question['id']}",
        "benchmark": benchmark,
        "difficulty": question["difficulty"],
        "text": question["question"],
        "turns": turns([{"role": "user", "content": question["question"]}]),
        "reference": html_of(question["answer"]) if question["answer"] else "",
        "right": {model: f"{count} of {len(by_model[model])}" for model, count in right.items()},
        "solved": sum(right.values()),
        "models": dict(by_model),
    }
