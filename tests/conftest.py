"""What every test shares: no network, and queries and engines to play with."""

import os

from tests.support.builders import verify_params

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DVC_NO_ANALYTICS="1")


import pytest
from hypothesis import settings

from distillery.verification.router import Router

settings.register_profile("ours", deadline=None)
settings.load_profile("ours")


@pytest.fixture(scope="session")
def route():
    """All verifiers that need no model."""
    made = Router(verify_params())
    yield made
    made.close()


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A folder of the test's own as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
