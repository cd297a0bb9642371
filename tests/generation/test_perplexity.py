import math

import pytest

from distillery.core import model_locks
from distillery.core.errors import DataError
from distillery.generation import perplexity as scoring
from distillery.generation.perplexity import Row, Scorer, load_scorer, scored, scores_of
from distillery.generation.score_store import Scores

ROWS = [Row(ids, 1) for ids in ([1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13, 14], [1, 2, 3, 4, 5])]


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
    own = [math.exp(model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.ids])).loss.item()) for row in ROWS]
    assert [score.perplexity for score in scores_of(model, ROWS, 0)] == pytest.approx(own, rel=1e-4)


@pytest.mark.parametrize("prompt", [1, 3, 4])
def test_fit_is_the_models_mean_log_probability_of_the_response(lock, prompt):
    import torch

    model = load_scorer(lock, "float32", "cpu")
    ids, rows = torch.tensor([ROWS[2].ids]), [ROWS[0], Row(ROWS[2].ids, prompt)]
    labels = ids.clone()
    labels[:, :prompt] = -100
    assert scores_of(model, rows, 0)[1].fit == pytest.approx(-model(input_ids=ids, labels=labels).loss.item(), rel=1e-4)


def test_a_row_without_response_has_a_perplexity_and_no_fit(lock, tmp_path):
    found = scored([Row([1, 2, 3], 3), Row([], 0)], Scorer(lock, "float32", 0), Scores("s", tmp_path), 5, "x")
    assert found[0].perplexity > 1 and math.isnan(found[0].fit) and all(map(math.isnan, found[1]))


def test_a_known_perplexity_stays_when_the_fit_is_added(lock, tmp_path):
    """As a ledger has them that was written before there were fits."""
    scorer, scores = Scorer(lock, "float32", 0), Scores("s", tmp_path)
    scores.add(scorer.keys(ROWS[0])[0], 7.0)
    (found,) = scored([ROWS[0]], scorer, scores, 5, "x")
    assert found.perplexity == 7.0 and found.fit < 0 and scorer.scored == 1


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
        scored(ROWS, first, Scores("s", tmp_path), 5, "x")
    assert sorted(first.asked) == [ROWS[0], ROWS[1]], "duplicates once"
    second = Counting(lock)
    found = scored(ROWS, second, Scores("s", tmp_path), 5, "x")
    assert second.asked == [ROWS[2]] and found[0] == found[3]
    third = Counting(lock)
    assert scored(ROWS, third, Scores("s", tmp_path), 5, "x") == found
    assert third.asked == [] and third.devices == []
    assert scored([], third, Scores("s", tmp_path), 5, "x") == []


def test_a_truncated_score_is_scored_again(lock, tmp_path):
    scores = Scores("s", tmp_path)
    scored(ROWS, Counting(lock), scores, 100, "x")
    (path,) = (tmp_path / "s").glob("open-*.zst")
    path.write_bytes(path.read_bytes()[:-9])
    again = Counting(lock)
    scored(ROWS, again, Scores("s", tmp_path), 100, "x")
    assert len(again.asked) == 1


def test_copies_on_several_devices_share_the_work(lock, tmp_path, monkeypatch):
    alone = scored(ROWS, Counting(lock), Scores("one", tmp_path), 5, "x")
    monkeypatch.setattr(scoring, "devices", lambda: ["cpu", "cpu"])
    both = Counting(lock)
    assert scored(ROWS, both, Scores("two", tmp_path), 5, "x") == [pytest.approx(each, rel=1e-4) for each in alone]
    assert both.free.qsize() == 2 and len(both.asked) == 3
