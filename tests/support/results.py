"""What the last stages read: synthetic results of two students and the base, and the traces that they learnt from."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from distillery.core import model_locks
from distillery.core.files import write_csv, write_json, write_json_lines, write_text
from distillery.core.schemas import MALFORMED, PERPLEXITY, QUERY, REJECTED_QUERY, TRACE
from distillery.core.tables import write_table
from distillery.verification.agreement import Judged, agreement
from stages.evaluate import SAMPLES
from tests.support.builders import make_query

MODELS = {"good": 0.8, "odd": 0.5, "base": 0.2}
TEACHERS = ["good", "odd"]
TASK = {"task": "conf/lm_eval/math.yaml", "samples": 4, "verifier": "math"}
SIZES = {"aime": 20, "lcb": 30}
COUNTS = dict.fromkeys(("math", "code", "science", "if", "multiturn", "other"), 1)


def sample_rows(rate: float, rng: np.random.Generator, seed: int | None) -> list[dict]:
    about = {"text": "", "finish_reason": "stop", "reason": "", "difficulty": "1", "cluster": "", "seed": seed}
    return [
        about
        | {
            "benchmark": benchmark,
            "question_id": f"{benchmark}-{i:03}",
            "sample": sample,
            "answer": str(i % 3),
            "completion_tokens": 10 + i + sample,
            "verdict": "pass" if rng.random() < rate else "fail",
        }
        for benchmark, size in SIZES.items()
        for i in range(size)
        for sample in range(1, 5)
    ]


def write_results() -> None:
    """Writes everything into the working directory."""
    write_settings()
    write_samples()
    write_teachers()
    write_metrics()
    write_tables()
    write_reading()


def write_settings() -> None:
    settings = {
        "seed": 0,
        "teachers": TEACHERS,
        "arms": TEACHERS,
        "arm": {},
        "unverified": False,
        "train": {"seeds": [3, 5]},
        "pack": {"window": 128},
        "system_prompt": "think first",
        "student_format": "study",
        "compare": {"resamples": 500, "confidence": 0.95},
        "forecast": {"queries": 9},
        "headline": {"arm": "good"},
        "report": {
            "title": "A <title>",
            "note": "A note.",
            "study": None,
            "reader": {"queries": 2, "removed": 3, "questions": 2},
        },
        "evaluate": {"benchmarks": dict.fromkeys(SIZES, TASK) | {"off": TASK | {"samples": 0}}},
    }
    Path("params.yaml").write_text(yaml.safe_dump(settings))


def write_samples() -> None:
    """Samples of every model, and the questions that they answer."""
    rng = np.random.default_rng(0)
    for name, rate in MODELS.items():
        seeds = (3, 5) if name in TEACHERS else (None,)
        write_table([row for seed in seeds for row in sample_rows(rate, rng, seed)], f"data/samples/{name}", SAMPLES)
        conditions: dict = {"engines": ["x"], "sampling": {}, "prompts": "p", "tasks": {}, "verifiers": {}, "judge": None}
        write_json({"conditions": conditions}, f"metrics/evaluate/{name}.json")
    for benchmark, size in SIZES.items():
        about = {"difficulty": "1", "answer": "1"}
        rows = [about | {"id": f"{benchmark}-{i:03}", "question": f"What is {i} + 1?"} for i in range(size)]
        write_json_lines(rows, f"data/benchmarks/{benchmark}.jsonl")


SPREAD = {"p05": 1.0, "q1": 2.0, "median": 3.0, "q3": 4.0, "p95": 5.0, "mean": 3.2}


def write_teachers() -> None:
    """Metrics of every teacher and of its arm."""
    analysis: dict = {}
    for teacher in TEACHERS:
        distilled = {"queries": 12, "verified": 9, "attempts": 15, "pass_rate": 0.6, "verified_share": 0.75}
        distilled |= {"attempts_per_query": 1.25, "tokens_per_verified_trace": 33.5}
        about = {"distill": distilled, "curate": {"kept": 8, "rejected": {"ngram": 1}}}
        write_json(about | {"mean_response_tokens": 30.0, "mean_perplexity": None}, f"metrics/teachers/{teacher}.json")
        write_json({"tokens": 500}, f"metrics/distill/{teacher}.json")
        for kind in ("tokenise", "perplexity", "pack", "train"):
            write_json({}, f"metrics/{kind}/{teacher}.json")
        Path(f"data/training/{teacher}/3").mkdir(parents=True)
        rows = [{"step": i, "epoch": 1, "loss": 2.0 / i, "learning_rate": 0.1} for i in range(1, 4 + (teacher == "odd"))]
        write_csv(rows, Path(f"data/training/{teacher}/3/loss.csv"))
        figures: dict = {"response_tokens": SPREAD, "perplexity": SPREAD, "mean_attempts": 1.5, "length_entropy_bits": 2.5}
        analysis[teacher] = figures | {"instances": COUNTS, "histogram": {"<10": 3, ">=10": 5}}
        write_text(f"{teacher}\n", Path(f"data/packed/{teacher}/sha256"))
    write_json(analysis | {"overlap": {"by_all": 7, "by_any": 11, "only": {"good": 3, "odd": 1}}}, "metrics/analysis.json")


def write_metrics() -> None:
    """Metrics of the joint stages, locks, and a judge's agreement with labels."""
    write_json({"malformed": {"json": 2}}, "metrics/collect.json")
    write_json({"rejected": {"url": 4}}, "metrics/clean.json")
    write_json({"rejected": {"aime": {"exact": 5}}}, "metrics/decontaminate.json")
    write_json({"rejected": {"no_constraints": 6}}, "metrics/constrain.json")
    write_json({"over_long": 1, "trained_on": 7}, "metrics/parallel.json")
    figures = {arm: {"mean": mean, "low": None, "high": None} for arm, mean in (("good", 2.0), ("odd", 1.0))}
    rated = {"better": "higher", "source": "somewhere", "arms": figures, "differences": {}, "ranking": TEACHERS}
    write_json({"queries": 9, "metrics": {"fit": rated, "prompts": rated | {"ranking": None}}}, "metrics/forecast.json")
    for name in ("benchmarks", "similarity"):
        write_json({}, f"metrics/{name}.json")
    for role in ("judge", "reward", "base", *map(model_locks.teacher_role, TEACHERS)):
        about = {"role": role, "id": role, "revision": "r1", "local": True, "files": {}}
        write_json(about, model_locks.path_of(role))
    judged = [Judged(True, True, 5)] * 3 + [Judged(False, None, 5)]
    measured = {"science": {"verifier": "science", "version": "v"} | agreement(judged, 0)}
    labels = {"file": "labels.jsonl", "sha256": "0"}
    write_json({"labels": labels, "models": {"judge": "judge@r1"}, "categories": measured}, "conf/agreement.json")


def write_tables() -> None:
    """The tables that figures draw."""
    Path("data/analysis").mkdir(parents=True)
    per_teacher: dict[str, list[dict]] = {
        "categories": [{"category": c, "instances": 1, "tokens": 5} for c in COUNTS],
        "histogram": [{"span": "<10", "traces": 3, "math": 1}, {"span": ">=10", "traces": 5, "math": 2}],
        "boxes": [{"measure": measure} | SPREAD for measure in ("response_tokens", "perplexity")],
    }
    for name, rows in per_teacher.items():
        write_csv([{"arm": t} | row for t in TEACHERS for row in rows], Path(f"data/analysis/{name}.csv"))


TEXTS = (
    "what is 2 + 3 ?",
    "what is $\\frac{1}{2} + 1$ ?",
    "who wrote <b>this</b> ?",
    'say "hello" </script> twice',
    "count to ten",
)


def trace(query: dict, teacher: str, attempt: int, passed: bool) -> dict:
    thought, answer = f"let me see, {attempt}", "it is \\(5\\)" if passed else "<img src=x onerror=alert(1)>"
    text = f"<think> {thought} </think> <answer> {answer} </answer>"
    places = {"think_start": 8, "think_end": 8 + len(thought) + 1, "answer_start": text.index(answer) - 1}
    about = {"seed": 1, "finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 10 * attempt, "format": "think"}
    verdict = {"verify_score": float(passed), "verdict": "pass" if passed else "fail", "verifier": "math"}
    about |= places | verdict | {"answer_end": text.index(answer) + len(answer) + 1, "engine": "x", "model_revision": "r1"}
    reason = "equal numbers" if passed else "7 is not 5"
    return {"query_id": query["id"], "teacher": teacher, "attempt": attempt, "text": text, "reason": reason} | about


def write_reading() -> None:
    """Queries, every attempt at them, and removed rows; the last query is verified by one teacher alone."""
    queries = sorted((make_query(text) for text in TEXTS), key=lambda query: query["id"])
    write_table(queries, "data/queries", QUERY)
    removed = TRACE.append(pa.field("rejected_for", pa.string()))
    for teacher in TEACHERS:
        passes = [teacher == "good" or query["messages"][0]["content"] != TEXTS[-1] for query in queries]
        rows = [trace(query, teacher, n, ok and n == 2) for query, ok in zip(queries, passes, strict=True) for n in (1, 2)]
        write_table(rows, f"data/traces/{teacher}", TRACE)
        found = [{"query_id": row["query_id"], "attempt": row["attempt"], "perplexity": 2.5, "fit": -1.0} for row in rows]
        write_table(found, f"data/perplexity/{teacher}", PERPLEXITY)
        write_table([rows[1] | {"rejected_for": "ngram"}], f"data/rejected/curate/{teacher}", removed)
    wheres = [{"where": f"a.jsonl:{n}", "reason": "json", "row": "{"} for n in (1, 2)]
    write_table(wheres, "data/rejected/collect", MALFORMED)
    for stage, reason in (("clean", "url"), ("constrain", "no_constraints")):
        rows = sorted((make_query(f"{stage} {n}") | {"reason": reason} for n in range(4)), key=lambda row: row["id"])
        write_table(rows, f"data/rejected/{stage}", REJECTED_QUERY)
    twin = {"reason": "ngram", "benchmark_item": "aime-003", "score": 0.9, "matched": "What is … 3"}
    schema = pa.schema([*REJECTED_QUERY, ("benchmark_item", pa.string()), ("score", pa.float64()), ("matched", pa.string())])
    write_table([make_query("What is then 3 + 2 ?") | twin], "data/rejected/decontaminate", schema)
