import pytest

from tests.support.results import write_results


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with everything that the page shows, which tests only read."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_results()
    return folder


@pytest.fixture
def here(study, monkeypatch):
    monkeypatch.chdir(study)
    return study
