import threading

import pytest

from distillery.core.errors import ConfigError, DataError
from distillery.core.runner import map_parts, sum_counts


@pytest.fixture(autouse=True)
def settings(inside):
    (inside / "params.yaml").write_text("runner: native\n")


def test_results_come_in_part_order():
    assert map_parts("s", lambda part: {"n": part * part}, 37) == [{"n": part * part} for part in range(37)]


@pytest.mark.parametrize(
    ("error", "kind"), [(DataError("a: bad"), DataError), (OSError(28, "No space left on device"), OSError)]
)
def test_an_error_in_a_part_keeps_its_type_and_message(error, kind):
    def work(part):
        if part == 3:
            raise error
        return {}

    with pytest.raises(kind) as raised:
        map_parts("s", work, 5)
    assert str(raised.value) == str(error)
    if kind is OSError:
        assert raised.value.errno == 28


def test_parts_run_in_parallel(monkeypatch):
    """Two parts wait for each other, so both must run at once."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    both = threading.Barrier(2, timeout=60)

    def work(part):
        both.wait()
        return {"part": part}

    assert map_parts("s", work, 2) == [{"part": 0}, {"part": 1}]


def test_an_error_stops_further_parts(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    begun = []

    def work(part):
        begun.append(part)
        raise DataError("bad")

    with pytest.raises(DataError):
        map_parts("s", work, 50)
    assert len(begun) < 50


def test_an_unknown_runner_is_an_error(inside):
    (inside / "params.yaml").write_text("runner: spark\n")
    with pytest.raises(ConfigError, match=r"params.yaml: runner: .*'native' or 'ray'.*'spark'"):
        map_parts("s", lambda part: {}, 1)


def test_counts_add_up():
    assert sum_counts([{"b": 1}, {"a": 2, "b": 3}, {}]) == {"a": 2, "b": 4}
    assert sum_counts([]) == {}
