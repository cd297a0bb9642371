"""Forecast metrics against a slow reference, and what a table of outcomes says of them."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.evaluation import forecast_metrics
from distillery.evaluation.forecast_metrics import (
    FIGURES,
    METRICS,
    Dialogue,
    Reading,
    highest,
    local_windows,
    readings,
    sentence_ends,
    text_figures,
)
from distillery.training.probe import Probe, probe
from stages.forecast import Estimator, ranking
from stages.outcomes import agreement, conclusion, interval, merged

DIALOGUES = [Dialogue([1, 2, 3, 4, 5, 6], 2, ""), Dialogue([7, 8, 9], 1, ""), Dialogue([9, 8, 7, 6, 5, 4, 3, 2], 5, "")]


@pytest.fixture(scope="module")
def model():
    """A tiny model with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 32}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=150, initializer_range=0.5, **sizes, **heads)).eval()


def reference(model, dialogue: Dialogue) -> Reading:
    """Token by token, in NumPy, each from a prefix of its own."""
    import torch

    found: list[tuple[float, int, float]] = []
    for place in range(1, len(dialogue.ids)):
        logits = model(torch.tensor([dialogue.ids[:place]])).logits[0, -1].detach().numpy().astype(float)
        chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        own = chances[dialogue.ids[place]]
        rank = 1 + sum(chance > own for chance in chances)
        found.append((-math.log(own), rank, -sum(chance * math.log(chance) for chance in chances)))
    losses, ranks, entropies = (np.array(column) for column in zip(*found, strict=True))
    said = slice(dialogue.prompt - 1, None)
    before = losses[: dialogue.prompt - 1]
    return Reading(losses[said], ranks[said], entropies[said], float(before.mean()) if len(before) else math.nan)


@pytest.mark.parametrize("slice_size", [1, 4, 2048])
def test_a_forward_pass_reads_what_a_slow_reference_does(model, monkeypatch, slice_size):
    monkeypatch.setattr(forecast_metrics, "SLICE", slice_size)
    for dialogue, reading in zip(DIALOGUES, readings(model, DIALOGUES, 0), strict=True):
        expected = reference(model, dialogue)
        assert reading.ranks.tolist() == expected.ranks.tolist()
        assert reading.losses == pytest.approx(expected.losses, rel=1e-4)
        assert reading.entropies == pytest.approx(expected.entropies, rel=1e-4)
        assert reading.prompt_loss == pytest.approx(expected.prompt_loss, rel=1e-4, nan_ok=True)


def arm(*traces: tuple[Any, Any, Any]) -> dict[str, np.ndarray]:
    """Columns of figures of an arm whose traces have these losses, ranks and entropies."""
    read = [Reading(np.asarray(a, float), np.asarray(b, float), np.asarray(c, float), 1.0) for a, b, c in traces]
    return {name: np.array([figure(each) for each in read]) for name, figure in FIGURES.items()}


def value(name: str, columns: dict[str, np.ndarray]) -> float:
    return float(METRICS[name].combine(*(columns[figure] for figure in METRICS[name].figures)))


def test_the_rank_surprisal_ratio_is_of_means_of_traces_with_ranks_up_to_100():
    columns = arm(([1.0, 3.0], [1, 500], [0, 0]), ([0.5], [2], [0]))
    assert value("rank-surprisal ratio", columns) == pytest.approx(((1 + 100) / 2 + 2) / (2.0 + 0.5))


def test_the_rank_surprisal_ratio_is_that_of_the_published_code():
    """Of fifty made traces; github.com/UmeanNever/RankSurprisalRatio, compute_sample_metrics, gives 62.22485519415609."""
    rng, traces = np.random.default_rng(20261130), []
    for _ in range(50):
        tokens = int(rng.integers(3, 400))
        ranks = np.minimum(rng.geometric(0.3, tokens) * rng.integers(1, 60, tokens), 5000)
        traces.append((rng.gamma(1, 1, tokens), ranks, np.zeros(tokens)))
    assert value("rank-surprisal ratio", arm(*traces)) == pytest.approx(62.22485519415609, rel=1e-12)


def test_fit_and_perplexity_are_of_the_response_per_trace():
    columns = arm(([1.0, 3.0], [1, 1], [0, 0]), ([0.5], [1], [0]))
    assert value("fit", columns) == pytest.approx(-1.25)
    assert value("response perplexity", columns) == pytest.approx((math.exp(2) + math.exp(0.5)) / 2)
    assert value("prompt perplexity", columns) == pytest.approx(math.e)


@pytest.mark.parametrize(("tokens", "count"), [(1, 1), (200, 1), (400, 2), (1000, 5)])
def test_the_highest_entropies_are_half_a_percent_of_the_tokens(tokens, count):
    entropies = np.random.default_rng(0).permutation(tokens).astype(float)
    assert highest(entropies).tolist() == list(range(tokens - count, tokens))


def test_cues_are_per_1000_tokens():
    dialogue = Dialogue(list(range(60)), 10, "Wait, maybe so. Let me check: double-check. Therefore 5. Waiter, something.")
    assert text_figures(dialogue) == {"tokens": 50, "hesitations": 40, "checks": 40, "conclusions": 40}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 3))
def test_local_windows_cover_a_response_once_and_hold_only_so_many_sentences(response, before):
    dialogue = Dialogue([9, 9, *response], 2, "")
    windows = local_windows(dialogue, lambda token: token == 0, before)
    assert [token for window in windows for token in window.ids[window.prompt :]] == response
    assert windows[0].ids[: windows[0].prompt] == [9]
    for window in windows[1:]:
        context = window.ids[: window.prompt]
        assert context[-1] == 0 and 1 <= context.count(0) <= before


def test_the_last_sentence_may_end_without_a_stop():
    assert sentence_ends([1, 0, 2], lambda token: token == 0) == [2, 3]
    assert sentence_ends([1, 0], lambda token: token == 0) == [2]


def test_a_probe_learns_what_repeats_and_not_what_is_random(model):
    import copy

    rng = np.random.default_rng(0)
    settings = Probe(steps=30, batch=4, learning_rate=0.003, held_out=4)
    same = [([1, 2, *rng.permutation([10, 11]).tolist(), 12, 13, 14], 2) for _ in range(16)]
    noise = [([1, 2, *rng.integers(3, 150, 5).tolist()], 2) for _ in range(16)]
    falls = {name: probe(copy.deepcopy(model), rows[:12], rows[12:], settings, 0) for name, rows in (("s", same), ("n", noise))}
    assert min(falls["s"]) > 1.0 > np.mean(falls["n"])
    assert probe(copy.deepcopy(model), same[:12], same[12:], settings, 0) == falls["s"], "the same again"


def test_differences_are_paired_by_query():
    rng = np.random.default_rng(1)
    hard = rng.normal(3, 1, 100)
    rows = {name: [{"surprisal": each + more} for each in hard] for name, more in (("a", 0.0), ("b", 0.1))}
    found = Estimator(1000, 0.95, 0).estimate(rows, METRICS["fit"])
    assert found["differences"]["a - b"] == {"mean": 0.1, "low": 0.1, "high": 0.1}
    assert found["arms"]["a"]["high"] - found["arms"]["a"]["low"] > 0.2 and ranking(found | {"better": "higher"}) == ["a", "b"]
    assert ranking(found | {"better": "lower"}) == ["b", "a"] and ranking(found | {"better": None}) is None


def row(key: str, metric: float, score: float, group: str = "g", differs: tuple[str, ...] = ()) -> dict:
    return {"key": key, "group": group, "forecast": {"m": metric}, "score": score, "differs_from": list(differs)}


def test_pairs_are_counted_within_a_group_and_by_significance():
    table = [
        row("a", 3.0, 30.0, differs=("c",)),
        row("b", 2.0, 32.0),
        row("c", 1.0, 10.0, differs=("a",)),
        row("x", 9.0, 1.0, "h"),
    ]
    found = agreement(table, "m", "higher")
    assert (found["pairs"], found["right"], found["significant"], found["significant_right"]) == (3, 2, 1, 1)
    assert found["share"] == 0.6667 and found["low"] < 0.2 and found["high"] > 0.9, "two free pairs say little"
    assert agreement(table, "m", "lower")["right"] == 1 and agreement([], "m", "lower")["share"] is None


def test_equal_scores_are_ordered_right_by_nothing():
    assert agreement([row("a", 1.0, 5.0), row("b", 2.0, 5.0)], "m", "higher")["right"] == 0


def test_an_arm_that_was_trained_again_replaces_its_row():
    old, new = [row("a", 1.0, 5.0), row("b", 2.0, 6.0)], [row("a", 1.0, 7.0)]
    assert merged(old, new) == [row("a", 1.0, 7.0), row("b", 2.0, 6.0)] and merged(merged(old, new), new) == merged(old, new)


def test_a_conclusion_needs_an_interval_above_a_half():
    few, many = interval(3, 3, 2), interval(90, 100, 30)
    assert "Nothing can be concluded" in conclusion({"m": few}, 3, 0)
    assert conclusion({"m": few, "n": many}, 31, 28).startswith("Over 31 arms, 28 of them of earlier runs, these metrics order")
