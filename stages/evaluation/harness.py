"""lm-eval over our engines: its requests become ours, our verdicts its scores."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from stages.engines import Completion, Request, Sampling
from stages.evaluation import Evaluate, Task
from stages.ledger import LedgerEngine, answers
from stages.provenance import say
from stages.tables import read_json_lines
from stages.verifiers import PASS, Item, Verdict, answer_part

EVERY = 5.0
Place = tuple[str, int, int]  # benchmark, the question's number, sample


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


class EngineLM(LM):
    """Our engines as a language model of lm-eval's; it keeps the completion of every sample it was asked for."""

    def __init__(self, engine: LedgerEngine, revision: str, max_in_flight: int, name: str) -> None:
        super().__init__()
        self.engine, self.revision, self.max_in_flight, self.name = engine, revision, max_in_flight, name
        self.completions: dict[Place, Completion] = {}
        self.requests: dict[Place, Request] = {}

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval keeps rendered prompts apart by."""
        return self.revision

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages travel through lm-eval as JSON: the engine renders them."""
        return json.dumps([{"role": turn["role"], "content": turn["content"]} for turn in chat_history])

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.requests |= (places := placed(requests, self.revision))
        place_of = {request.key: place for place, request in places.items()}
        for done, (request, completion) in enumerate(answers(self.engine, places.values(), self.max_in_flight)):
            self.completions[place_of[request.key]] = completion
            now = time.monotonic()
            if not done:
                began = said = now  # an engine's start is in no rate
            if now - said > EVERY:
                said, rate = now, done / (now - began)
                left = f"{rate:.1f} a second, {(len(places) - done) / rate:.0f} s left"
                say(f"evaluate@{self.name}", f"{done}/{len(places)} samples, {left}")
        return [self.completions[place].text for place in places]

    def loglikelihood(self, requests: list[Any]) -> Any:
        raise NotImplementedError("generation only")

    loglikelihood_rolling = loglikelihood


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


def evaluated(lm: EngineLM, tasks: list[dict[str, Any]], system_prompt: str) -> dict[str, Any]:
    """lm-eval's results of these tasks, samples included; an empty system prompt is none."""
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)  # its advice is about its own command line
    results: Any = simple_evaluate(
        lm,
        tasks=tasks,
        task_manager=TaskManager(include_defaults=False),
        system_instruction=system_prompt or None,
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    return results
