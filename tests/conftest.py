"""Shared fixtures."""

from zlib import crc32

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
    """A temporary folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


WHOLE_STUDY = ("test_pipeline.py", "test_user_errors.py", "test_report_page.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps the tests of a file on one worker, and likewise the files that share one run of the full study."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "the whole study" if file.endswith(WHOLE_STUDY) else file

    return Scheduling(config, log)


def pytest_addoption(parser):
    parser.addoption("--exhaustive", default="0/1", help="of the exhaustive tests only a share, I/N for I from 0 to N - 1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """The full study first, since it takes longest; what is exhaustive is slow, and left out where it is of another share."""
    share, shares = map(int, config.getoption("exhaustive").split("/"))
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker("slow")
    items[:] = [
        item for item in items if not item.get_closest_marker("exhaustive") or crc32(item.nodeid.encode()) % shares == share
    ]
    items.sort(key=lambda item: item.path.name not in WHOLE_STUDY)
