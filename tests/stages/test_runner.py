import time

import pytest

from stages import params
from stages.runner import each_part, total
from stages.tables import DataError


@pytest.fixture(autouse=True)
def settings(inside):
    (inside / "params.yaml").write_text("runner: native\n")


def test_every_part_says_its_own_in_their_order():
    assert each_part("s", lambda part: {"n": part * part}, 37) == [{"n": part * part} for part in range(37)]


@pytest.mark.parametrize(
    ("error", "kind"), [(DataError("a: bad"), DataError), (OSError(28, "No space left on device"), OSError)]
)
def test_an_error_in_a_part_keeps_its_kind_and_words(error, kind):
    def work(part):
        if part == 3:
            raise error
        return {}

    with pytest.raises(kind) as raised:
        each_part("s", work, 5)
    assert str(raised.value) == str(error)
    if kind is OSError:
        assert raised.value.errno == 28


def test_parts_are_worked_on_side_by_side():
    def work(part):
        began = time.monotonic()
        time.sleep(0.2)
        return {"began": began, "ended": time.monotonic()}

    spans = each_part("s", work, 8)
    assert any(a["began"] < b["began"] < a["ended"] for a in spans for b in spans if a is not b)


def test_an_unknown_runner_is_an_error(inside):
    (inside / "params.yaml").write_text("runner: spark\n")
    with pytest.raises(params.ParamsError, match=r"params.yaml: runner: .*'native' or 'ray'.*'spark'"):
        each_part("s", lambda part: {}, 1)


def test_counts_add_up():
    assert total([{"b": 1}, {"a": 2, "b": 3}, {}]) == {"a": 2, "b": 4}
    assert total([]) == {}
