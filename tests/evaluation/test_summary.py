"""The summary of a run that has not come to its end."""

import pytest
import yaml

from distillery.core.errors import DataError
from distillery.core.files import write_json
from distillery.evaluation import summary


def test_results_of_other_arms_are_not_shown_as_this_runs(inside):
    (inside / "params.yaml").write_text(yaml.safe_dump({"teachers": ["left"], "arms": ["left"], "arm": {}}))
    write_json({"models": {"plain": {}}}, inside / "metrics/compare.json")
    write_json({}, inside / "metrics/outcomes.json")
    with pytest.raises(DataError, match=r"compare.json: of an earlier run, without the arm left; run `make repro`"):
        summary.main()
