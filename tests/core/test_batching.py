import threading

import pytest

from distillery.core.batching import one_ahead


def test_the_next_item_is_prepared_while_the_caller_works():
    started = [threading.Event() for _ in range(4)]

    def prepare(item):
        started[item].set()
        return item * 10

    found = []
    for value in one_ahead(prepare, range(4)):
        found.append(value)
        if value < 30:
            assert started[value // 10 + 1].wait(10)
        assert not any(event.is_set() for event in started[value // 10 + 2 :]), "one ahead, not all"
    assert found == [0, 10, 20, 30] and list(one_ahead(prepare, [])) == []


def test_an_error_arrives_in_its_place():
    def prepare(item):
        if item == 2:
            raise ValueError("two")
        return item

    found: list[int] = []
    with pytest.raises(ValueError, match="two"):
        found.extend(one_ahead(prepare, range(4)))
    results = one_ahead(prepare, range(4))
    assert [next(results), next(results)] == [0, 1]
