"""One evaluation with a scripted engine, as a process that a test can kill.

Run python -m tests.support.evaluate_process in a folder of its own.
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from distillery.core.files import write_json
from distillery.core.teachers import BASE
from distillery.generation.engine import Request
from stages import benchmarks, evaluate
from tests.support.scripted_engine import ScriptedEngine

ROOT = Path(__file__).resolve().parents[2]
NAME = "teacher-t"
BATCH = 4


def prepare(folder: Path, sources: dict[str, dict[str, Any]], samples: int, tokens: int) -> None:
    """Settings for `benchmarks` and `evaluate` in a folder: the project's own, except for the questions.

    All sources are in one folder.
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, source in sources.items():
        sources[name] = {"revision": None, "split": None, "answer": None, "difficulty": None} | source
    task = {name: ROOT / f"conf/lm_eval/{'code' if source.get('tests') else 'math'}.yaml" for name, source in sources.items()}
    params["world"] = str(Path(next(iter(sources.values()))["source"]).parent)
    params["benchmarks"] = sources
    params["evaluate"]["benchmarks"] = {
        name: {"task": str(task[name]), "samples": samples, "verifier": "code" if source.get("tests") else "math"}
        for name, source in sources.items()
    }
    params["evaluate"]["sampling"]["max_tokens"] = tokens
    (folder / "params.yaml").write_text(json.dumps(params))
    for role, file in ((NAME, "teachers/t"), (BASE, "roles/base")):
        lock = {"role": role, "id": "nowhere", "revision": "r", "local": True, "files": {}}
        write_json(lock, folder / f"models/locks/{file}.json")


def sometimes(request: Request) -> str:
    """Adds two numbers; every third sample is off by one."""
    one, other = map(int, re.findall(r"\d+", request.messages[-1]["content"])[:2])
    return f"<think> so </think> <answer> \\boxed{{ {one + other + (request.attempt % 3 == 0)} }} </answer>"


class SlowEngine(ScriptedEngine):
    """Takes a while for each batch, and logs its requests."""

    def __init__(self, script: Callable[[Request], str]):
        super().__init__(script, BATCH)

    def submit(self, request: Request) -> None:
        super().submit(request)
        with Path("asked.log").open("a") as log:
            log.write(f"{request.key}\n")

    def poll(self):
        time.sleep(0.05)
        return super().poll()


if __name__ == "__main__":
    evaluate.start = lambda lock, settings: SlowEngine(sometimes)  # type: ignore[assignment, misc]
    benchmarks.main()
    evaluate.main(NAME)
