"""What every test shares."""

import pytest
from hypothesis import settings

from distillery.verification.router import Router
from tests.support.builders import verify_params

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


def pytest_collection_modifyitems(items):
    """For two workers: a file's tests stay together, and so do all that share the whole study, which takes longest."""
    for item in items:
        group = "the whole study" if "project" in item.fixturenames else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: "project" not in item.fixturenames)
