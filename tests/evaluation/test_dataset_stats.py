import numpy as np
import pyarrow as pa
import pytest

from distillery.core.errors import ConfigError
from distillery.core.schemas import CATEGORIES
from stages.analyse import Gathered, describe, entropy, main, overlap, span_names, spread, together

ROWS = Gathered(
    np.array([CATEGORIES.index("math"), CATEGORIES.index("science")]), np.array([5, 10]), np.array([1.0, 3.0]), np.array([1, 2])
)


def test_spans_are_disjoint_and_complete():
    assert span_names((10, 20)) == ["<10", "10-19", ">=20"]
    found = describe(ROWS, (10, 20))
    assert found["histogram"] == {"<10": 1, "10-19": 1, ">=20": 0}
    assert found["histogram_math"] == {"<10": 1, "10-19": 0, ">=20": 0}


def test_categories_count_instances_and_tokens():
    found = describe(ROWS, (10, 20))
    assert (found["instances"]["math"], found["tokens"]["math"], found["tokens"]["science"]) == (1, 5, 10)
    assert (found["mean_attempts"], found["perplexity"]["mean"], found["response_tokens"]["median"]) == (1.5, 2.0, 7.5)


def test_entropy_in_bits():
    assert entropy([5, 5, 0]) == 1.0
    assert entropy([7]) == 0.0


def test_all_quantiles_of_one_value_are_equal():
    assert set(spread(np.array([4])).values()) == {4.0}


def test_combined_parts_equal_the_whole():
    halves = [Gathered(*(column[i : i + 1] for column in vars(ROWS).values())) for i in range(2)]
    assert describe(together(halves), (10, 20)) == describe(ROWS, (10, 20))


def test_overlap_counts_queries_solved_by_all_and_by_one():
    found = overlap({"x": pa.array(["a", "b"]), "y": pa.array(["b", "c", "d"])})
    assert found == {"by_all": 1, "by_any": 4, "only x": 1, "only y": 2}


@pytest.mark.parametrize("teachers", [1, 3])
def test_overlap_works_for_one_teacher_or_more(teachers):
    found = overlap({str(i): pa.array(["a"]) for i in range(teachers)})
    assert found["by_all"] == 1 and sum(found[f"only {i}"] for i in range(teachers)) == (teachers == 1)


@pytest.mark.parametrize("spans", ["[]", "[64, 32]", "[8, 8]"])
def test_unsorted_borders_are_an_error(inside, spans):
    (inside / "params.yaml").write_text(f"analyse: {{spans: {spans}}}\n")
    with pytest.raises(ConfigError, match=r"analyse.spans: borders must rise"):
        main()
