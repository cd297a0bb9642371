"""What every test shares: no network, and queries and engines to play with."""

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DVC_NO_ANALYTICS="1")

from typing import Any

import pytest
from hypothesis import settings

from stages.messages import identify
from stages.sandbox import Limits
from stages.verifiers import Item, Verdict
from stages.verifiers.route import Route, Rule, VerifyParams

settings.register_profile("ours", deadline=None)
settings.load_profile("ours")
LIMITS = Limits(seconds=2.0, memory=256, output=1, processes=24)


def make_query(text: str = "what is 2 + 3 ?", answer: str | None = "5", category: str = "math", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    fields = {"source": "test", "difficulty": "1", "ground_truth": answer, "test_cases": None, "constraints": None}
    return {"id": identify(messages), "messages": messages, "category": category} | fields | more


def verify_params(timeout: float = 2.0, processes: int = 2, **rules: Rule) -> VerifyParams:
    """Settings for verifiers without models; by default every category that needs none."""
    plain = {name: Rule(name, 0.9) for name in ("math", "code", "science")} | {"if": Rule("if", 0.9)}
    return VerifyParams(rules or plain, timeout, processes, LIMITS, None, None)  # type: ignore[arg-type]


def verdicts_of(route: Route, items: list[Item]) -> list[Verdict]:
    """The verdicts on items, in their order; each item's key must be its own."""
    for item in items:
        route.submit(item)
    found: dict[str, Verdict] = {}
    while len(found) < len(items):
        found.update(route.poll(0.1))
    return [found[item.key] for item in items]


@pytest.fixture(scope="session")
def route():
    """All verifiers that need no model."""
    made = Route(verify_params())
    yield made
    made.close()


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A folder of the test's own as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
