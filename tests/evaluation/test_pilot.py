"""Pilots: which arms they train, and what learning curves let one expect."""

import numpy as np
import pytest
import yaml

from distillery.core.arms import Arm
from distillery.core.errors import ConfigError
from distillery.evaluation.learning_curves import CAN, CANNOT, Curve, line_of, outlooks
from distillery.evaluation.pilot import original_names, outlook_lines, pilot_arms, pilot_name, write_params

SHARES = (0.01, 0.03, 0.1, 0.3)


def test_every_arm_is_trained_at_every_share():
    found = pilot_arms({"a": Arm(("x",)), "b-c": Arm(("x", "y"), share=0.5)}, (0.1, 0.3))
    assert found == {
        "a-at-0_1": Arm(("x",), share=0.1),
        "b-c-at-0_1": Arm(("x", "y"), share=0.05),
        "a-at-0_3": Arm(("x",), share=0.3),
        "b-c-at-0_3": Arm(("x", "y"), share=0.15),
    }
    assert original_names(list(found)) == ["a", "b-c"] and pilot_name("a", 0.03) == "a-at-0_03"
    with pytest.raises(ConfigError, match=r"arm.t.tokens: a pilot varies the number of queries"):
        pilot_arms({"t": Arm(("x",), tokens=5)}, SHARES)


def test_params_have_the_pilots_arms_and_one_seed(inside):
    settings = {"teachers": ["x"], "arms": ["x"], "arm": {}, "unverified": False, "pilot": {"shares": list(SHARES)}}
    settings |= {"train": {"seeds": [4, 5], "epochs": 2}, "headline": {"arm": "x"}}
    (inside / "params.yaml").write_text(yaml.safe_dump(settings))
    write_params()
    found = yaml.safe_load((inside / "params.yaml").read_text())
    assert found["arms"] == [f"x-at-{share}" for share in ("0_01", "0_03", "0_1", "0_3")]
    assert found["arm"]["x-at-0_03"]["share"] == 0.03 and found["train"] == {"seeds": [4], "epochs": 2}
    assert found["headline"] == {"arm": "x-at-0_01"}


def test_a_line_is_exact_and_knows_where_it_crosses_zero():
    points = tuple(4 + 2 * np.log(share) for share in SHARES)
    line = line_of(Curve(SHARES, points, 0.0))
    assert (line.at_all, line.slope) == pytest.approx((4, 2)) and line.residuals == pytest.approx((0, 0, 0, 0), abs=1e-9)
    assert line.crossing == pytest.approx(np.exp(-2), abs=1e-4)
    assert line_of(Curve(SHARES, tuple(4 - 2 * np.log(share) for share in SHARES), 0.0)).crossing is None, "beyond all data"


def test_a_clear_difference_is_settled_and_a_small_one_is_not():
    noise = (0.5, -0.5, 0.5, -0.5)
    clear = Curve(SHARES, tuple(20 + each for each in noise), 1.0)
    small = Curve(SHARES, tuple(1 + each for each in noise), 1.0)
    found = outlooks({"a - b": clear, "a - c": small}, 0.95)
    assert found["a - b"].verdict == CANNOT and found["a - c"].verdict == CAN
    first, second = outlook_lines(found, {"a - b": clear, "a - c": small})
    assert first.startswith("a - b: +19.5 points so far, +") and first.endswith(f"{CANNOT}.") and CAN in second


def test_two_shares_leave_no_scatter_to_see():
    with pytest.raises(ValueError, match="at least three shares"):
        outlooks({"a - b": Curve((0.1, 0.3), (1.0, 2.0), 1.0)}, 0.95)


@pytest.mark.parametrize("pairs", [1, 3])
def test_the_interval_for_all_data_covers_what_comes_of_it(pairs):
    """Points about a line, with the training seed in each and the choice of questions in all of a pair's."""
    rng, hits = np.random.default_rng(0), []
    for _ in range(600):
        curves, truths = {}, []
        for pair in range(pairs):
            level, slope, questions = rng.normal(0, 5), rng.normal(0, 2), rng.normal(0, 1.5)
            points = tuple(level + slope * np.log(share) + questions + rng.normal(0, 2) for share in SHARES)
            curves[str(pair)] = Curve(SHARES, points, 1.5**2)
            truths.append(level + rng.normal(0, 2))
        found = outlooks(curves, 0.95)
        hits += [each.low <= truth <= each.high for each, truth in zip(found.values(), truths, strict=True)]
    assert 0.93 <= np.mean(hits) <= 0.985
