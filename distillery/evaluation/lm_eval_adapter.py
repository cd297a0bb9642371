"""Runs lm-eval over our engines: maps its requests to ours, and our verdicts to its scores."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from lm_eval import evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from distillery.core.progress import Progress
from distillery.core.response_parts import answer_part
from distillery.core.schemas import PASS
from distillery.evaluation.config import Evaluate
from distillery.generation.cached_engine import LedgerEngine, complete_all
from distillery.generation.config import Sampling
from distillery.generation.engine import Completion, Request
from distillery.verification.verdict import Item, Verdict, Verifies

FEWSHOT_SEED = 1234  # lm-eval's own

SampleId = tuple[str, int, int]  # benchmark, the question's number, sample


def assign_requests(instances: list[Any], revision: str, sampling: Sampling) -> dict[SampleId, Request]:
    """The request of each of lm-eval's samples; the same prompt asked again, by any question, is its next attempt."""
    asked: Counter[str] = Counter()
    drawn: Counter[tuple[str, int]] = Counter()
    requests = {}
    for instance in instances:
        context, question = instance.args[0], (instance.task_name, instance.doc_id)
        asked[context] += 1
        drawn[question] += 1
        requests[*question, drawn[question]] = Request(tuple(json.loads(context)), revision, sampling, asked[context])
    return requests


class EngineLM(LM):
    """Our engines as a language model of lm-eval's. It verifies samples while it generates others, and keeps both.

    ``verifiers`` names every benchmark's. Completions and requests are kept by sample, verdicts by the request's key, and the
    keys of a question's samples, in their order, by the question's id.
    """

    def __init__(
        self,
        engine: LedgerEngine,
        router: Verifies,
        verifiers: Mapping[str, str],
        revision: str,
        sampling: Sampling,
        max_in_flight: int,
        name: str,
    ) -> None:
        super().__init__()
        self.engine, self.router, self.verifiers = engine, router, verifiers
        self.revision, self.sampling, self.max_in_flight, self.name = revision, sampling, max_in_flight, name
        self.completions: dict[SampleId, Completion] = {}
        self.requests: dict[SampleId, Request] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.drawn: dict[str, list[str]] = defaultdict(list)

    @property
    def tokenizer_name(self) -> str:
        """The name by which lm-eval distinguishes rendered prompts."""
        return self.revision

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages pass through lm-eval as JSON: the engine renders them."""
        return json.dumps([{"role": turn["role"], "content": turn["content"]} for turn in chat_history])

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.requests |= (places := assign_requests(requests, self.revision, self.sampling))
        sample_of = {
            request.key: (place, instance.doc) for instance, (place, request) in zip(requests, places.items(), strict=True)
        }
        for key, (_, doc) in sample_of.items():
            self.drawn[doc["id"]].append(key)
        progress = Progress(f"evaluate@{self.name}", "samples", len(places))
        for done, (request, completion) in enumerate(complete_all(self.engine, places.values(), self.max_in_flight), 1):
            place, doc = sample_of[request.key]
            self.completions[place] = completion
            self.router.submit(item_of(request.key, self.verifiers[place[0]], doc, completion.output))
            self.verdicts.update(self.router.poll(0))
            progress.update(done, f", {done - len(self.verdicts)} being verified", self.engine.servers())
        while left := len(self.requests) - len(self.verdicts):
            progress.update(len(places), f", {left} being verified")
            self.verdicts.update(self.router.poll(0.1))
        return [self.completions[place].output for place in places]

    def verdicts_of(self, question: str) -> list[Verdict]:
        """The verdicts on a question's samples, in their order."""
        return [self.verdicts[key] for key in self.drawn[question]]

    def loglikelihood(self, requests: list[Any]) -> Any:
        raise NotImplementedError("generation only")

    loglikelihood_rolling = loglikelihood


def item_of(key: str, verifier: str, doc: dict[str, Any], text: str) -> Item:
    """A sample as its verifier needs it; items are routed by the verifier's name."""
    question = ({"role": "user", "content": doc["question"]},)
    return Item(key, verifier, answer_part(text), question, doc["answer"], doc.get("tests"), doc.get("constraints"))


def score(doc: dict[str, Any], lm: EngineLM) -> dict[str, float]:
    """pass@1 of one question: the mean over its samples."""
    found = lm.verdicts_of(doc["id"])
    return {"pass@1": sum(verdict.verdict == PASS for verdict in found) / len(found)}


def asked(row: dict[str, Any]) -> str:
    """A question with its options, if it has any."""
    return "\n\n".join(filter(None, (row["question"], row.get("options"))))


def task_config(name: str, settings: Evaluate, rows: list[dict[str, Any]], lm: EngineLM) -> dict[str, Any]:
    """The lm-eval task of one benchmark over its questions, with every generation setting stated."""
    task, sampling = settings.benchmarks[name], settings.sampling
    questions = [row | {"suffix": settings.suffix, "question": asked(row)} for row in rows]
    return yaml.safe_load(Path(task.task).read_text()) | {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(questions)},
        "repeats": task.samples,
        "generation_kwargs": {
            "do_sample": sampling.temperature > 0,
            **sampling.options(),
            "max_gen_toks": sampling.max_tokens,
            "until": [],
        },
        "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": task.samples}]}],
        "process_results": lambda doc, results: score(doc, lm),  # a function, since lm-eval copies anything else
    }


def evaluated(lm: EngineLM, tasks: list[dict[str, Any]], system_prompt: str) -> dict[str, Any]:
    """lm-eval's results of these tasks, samples included; an empty system prompt means none.

    Not by ``simple_evaluate``, which afterwards lists all installed packages for seconds.
    """
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)  # its warnings concern its own command line
    loaded = TaskManager(include_defaults=False).load(tasks)
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(FEWSHOT_SEED)
    results: Any = evaluate(
        lm,
        loaded,
        system_instruction=system_prompt or None,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        bootstrap_iters=0,
    )
    return results
