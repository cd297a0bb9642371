"""What every test shares: no network, and queries and engines to play with."""

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DVC_NO_ANALYTICS="1")

from typing import Any

import pytest

from stages.collect import identify


def make_query(text: str = "what is 2 + 3 ?", answer: str | None = "5", category: str = "math", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    fields = {"source": "test", "difficulty": "1", "ground_truth": answer, "test_cases": None, "constraints": None}
    return {"id": identify(messages), "messages": messages, "category": category} | fields | more


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A folder of the test's own as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
