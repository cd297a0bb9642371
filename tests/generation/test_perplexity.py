import math

import pytest

from distillery.core import model_locks
from distillery.core.errors import DataError
from distillery.generation import perplexity as scoring
from distillery.generation.perplexity import Scorer, load_scorer, perplexities, perplexities_of
from distillery.generation.score_store import Scores

ROWS = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13, 14], [1, 2, 3, 4, 5]]


@pytest.fixture(scope="module")
def lock(tmp_path_factory):
    """A tiny model with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 32}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    folder = tmp_path_factory.mktemp("scorer")
    Qwen3ForCausalLM(Qwen3Config(vocab_size=50, initializer_range=0.5, **sizes, **heads)).save_pretrained(folder)
    return model_locks.Lock("scorer", str(folder), "r", True, {})


@pytest.mark.parametrize("slice_size", [1, 3, 2048])
def test_perplexity_is_exp_of_the_models_loss_for_any_slice_size(lock, monkeypatch, slice_size):
    import torch

    monkeypatch.setattr(scoring, "SLICE", slice_size)
    model = load_scorer(lock, "float32", "cpu")
    own = [math.exp(model(input_ids=torch.tensor([row]), labels=torch.tensor([row])).loss.item()) for row in ROWS]
    assert perplexities_of(model, ROWS, 0) == pytest.approx(own, rel=1e-4)


def test_a_scorer_that_modifies_its_logits_is_refused(lock, monkeypatch):
    monkeypatch.setattr(scoring, "losses_of", lambda model, ids, mask: (ids[:, 1:] * 0 + 99).float())
    with pytest.raises(DataError, match=r"assets.scorer: .* changes its logits after its output embedding"):
        load_scorer(lock, "float32", "cpu")


class Counting(Scorer):
    """Records the rows, and raises at the row ``fatal``."""

    def __init__(self, lock, fatal=None):
        super().__init__(lock, "float32", 0)
        self.asked, self.fatal = [], fatal

    def score(self, rows):
        if self.fatal in rows:
            raise KeyboardInterrupt
        self.asked += rows
        return super().score(rows)


def test_an_interrupted_run_scores_only_missing_rows_and_a_finished_one_loads_no_model(lock, tmp_path):
    first = Counting(lock, fatal=ROWS[2])
    with pytest.raises(KeyboardInterrupt):
        perplexities(ROWS, first, Scores("s", tmp_path), 5, "x")
    assert sorted(first.asked) == [ROWS[0], ROWS[1]], "duplicates once"
    second = Counting(lock)
    found = perplexities(ROWS, second, Scores("s", tmp_path), 5, "x")
    assert second.asked == [ROWS[2]] and found[0] == found[3]
    third = Counting(lock)
    assert perplexities(ROWS, third, Scores("s", tmp_path), 5, "x") == found
    assert third.asked == [] and third.devices == []
    assert perplexities([], third, Scores("s", tmp_path), 5, "x") == []


def test_a_truncated_score_is_scored_again(lock, tmp_path):
    scores = Scores("s", tmp_path)
    perplexities(ROWS, Counting(lock), scores, 100, "x")
    (path,) = (tmp_path / "s").glob("open-*.zst")
    path.write_bytes(path.read_bytes()[:-9])
    again = Counting(lock)
    perplexities(ROWS, again, Scores("s", tmp_path), 100, "x")
    assert len(again.asked) == 1


def test_copies_on_several_devices_share_the_work(lock, tmp_path, monkeypatch):
    alone = perplexities(ROWS, Counting(lock), Scores("one", tmp_path), 5, "x")
    monkeypatch.setattr(scoring, "devices", lambda: ["cpu", "cpu"])
    both = Counting(lock)
    assert perplexities(ROWS, both, Scores("two", tmp_path), 5, "x") == pytest.approx(alone, rel=1e-4)
    assert both.free.qsize() == 2 and len(both.asked) == 3
