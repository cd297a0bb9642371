import math
from concurrent.futures import Future
from dataclasses import replace

import pytest

from distillery.core import model_locks
from distillery.core.batching import by_length
from distillery.core.errors import ConfigError, EngineError
from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.verification.config import Rule, VerifyParams
from distillery.verification.reward_verifier import Outputs, RewardSettings, RewardVerifier, load, rate, verdict_of
from distillery.verification.router import Router
from distillery.verification.verdict import Item
from tests.support.builders import LIMITS, verdicts_of

SETTINGS = RewardSettings(Outputs(2, 0, 1), "float32", 256, 64, False)


@pytest.mark.parametrize(
    ("ratings", "score"),
    [([4, 4, 4], 1.0), ([4, 4, 2.8], 0.9), ([0, 0, 0], 0.0), ([5, 5, 5], 1.0), ([-3, 4, 4], 0.6667)],
)
def test_the_score_is_the_sum_of_three_ratings_over_twelve(ratings, score):
    assert verdict_of(ratings, 64).score == score


def test_nan_or_missing_ratings_are_inconclusive():
    assert verdict_of([4, math.nan, 4], 64).verdict == UNKNOWN
    too_long = verdict_of(None, 64)
    assert too_long.verdict == UNKNOWN and too_long.hopeless and "64 tokens" in too_long.reason


def test_batches_hold_every_dialogue_once_within_their_size():
    lengths = [5, 100, 7, 7, 300, 1]
    found = by_length(lengths, 256)
    assert sorted(i for group in found for i in group) == list(range(6))
    assert all(len(group) * max(lengths[i] for i in group) <= 256 for group in found if len(group) > 1)


class Fixed:
    """A substitute for tokenizer and model: one token per word, and the outputs 1, 4 and 3 for any input."""

    pad_token_id, device = 0, "cpu"
    config = type("Config", (), {})()

    def apply_chat_template(self, dialogue, return_dict):
        return [1] * sum(len(turn["content"].split()) for turn in dialogue)

    def __call__(self, input_ids, attention_mask):
        import torch

        return type("Output", (), {"logits": torch.tensor([[1.0, 4.0, 3.0]] * len(input_ids))})()


def test_params_map_outputs_to_ratings(monkeypatch):
    monkeypatch.setattr("distillery.verification.reward_verifier.load", lambda *_: (Fixed(), Fixed()))
    lock = model_locks.Lock("reward", "x", "r", True, {})
    dialogues = [[{"role": "user", "content": "a " * words}] for words in (3, 65, 64)]
    assert rate(lock, SETTINGS, dialogues) == [[3.0, 1.0, 4.0], None, [3.0, 1.0, 4.0]]


def test_an_output_that_the_model_does_not_have_ends_the_run(monkeypatch):
    monkeypatch.setattr("distillery.verification.reward_verifier.load", lambda *_: (Fixed(), Fixed()))
    lock = model_locks.Lock("reward", "x", "r", True, {})
    settings = replace(SETTINGS, outputs=replace(SETTINGS.outputs, coherence=3))
    with pytest.raises(EngineError, match=r"verify\.reward\.outputs: 3: x has outputs 0 to 2"):
        rate(lock, settings, [[{"role": "user", "content": "a"}]])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A sequence classifier with three outputs, all of them 0, with the small world's tokenizer."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    from mini.judge_data import prompts
    from mini.tokenizer import build

    tokenizer = build("be brief", prompts())
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 32}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "num_labels": 3}
    classifier = Qwen3ForSequenceClassification(Qwen3Config(vocab_size=len(tokenizer), pad_token_id=0, **sizes, **heads))
    classifier.score.weight.data.zero_()
    folder = tmp_path_factory.mktemp("reward")
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model_locks.Lock("reward", str(folder), "r", True, {})


@pytest.mark.slow
def test_dialogues_are_rated_in_batches_by_a_real_classifier(model):
    verifier = RewardVerifier(model, SETTINGS)
    items = [Item(str(i), "other", "hello " * (i % 7 + 1), ({"role": "user", "content": "hello"},)) for i in range(300)]
    long = Item("long", "other", "hello " * 100, ({"role": "user", "content": "hello"},))
    futures = [verifier.verify(item) for item in [*items, long]]
    found = [future.result(60) for future in futures]
    assert {v.score for v in found[:-1]} == {0.0} and found[-1].verdict == UNKNOWN
    verifier.close()


def test_a_reward_model_computes_on_one_thread(monkeypatch):
    """A sum over a large tensor depends on the number of threads."""
    threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineError, match="nowhere cannot be loaded"):
        load("nowhere", None, "float32", False)
    assert threads == [1]


@pytest.mark.slow
def test_a_reward_model_that_cannot_load_ends_the_run():
    """Instead of leaving all chat unverified."""
    rules = {"other": Rule("reward", 0.9)}
    params = VerifyParams(rules, 2.0, 1, LIMITS, None, SETTINGS)  # type: ignore[arg-type]
    from distillery.verification.config import Roles

    route = Router(params, Roles(reward=model_locks.Lock("reward", "/nowhere", "r", True, {})))
    with pytest.raises(EngineError, match="the reward model /nowhere cannot be loaded"):
        verdicts_of(route, [Item("x", "other", "hi")])
    route.close()


def test_a_rule_without_its_model_is_named():
    with pytest.raises(ConfigError, match=r"verify.reward: null, but a rule names the verifier reward; give it settings"):
        Router(VerifyParams({"other": Rule("reward", 0.9)}, 1.0, 1, LIMITS, None, None))
    with pytest.raises(ConfigError, match=r"verify.rules.math.verifier: 'maths' is none of"):
        Router(VerifyParams({"math": Rule("maths", 0.9)}, 1.0, 1, LIMITS, None, None))


def test_thresholds_turn_scores_into_verdicts():
    verdict = verdict_of([4, 4, 2.8], 64)
    assert verdict.at(0.9).verdict == PASS and verdict.at(0.91).verdict == FAIL


class Picky(Fixed):
    """Fails on a batch that holds the word bad."""

    def apply_chat_template(self, dialogue, return_dict):
        if any("bad" in turn["content"] for turn in dialogue):
            raise ValueError("roles must alternate")
        return super().apply_chat_template(dialogue, return_dict)


class AtOnce:
    """A substitute for the pool that works in this process, when told to."""

    def __init__(self):
        self.later = []

    def schedule(self, function, args):
        work: Future[object] = Future()
        self.later.append((work, function, args))
        return work

    def run(self):
        while self.later:
            work, function, args = self.later.pop(0)
            try:
                work.set_result(function(*args))
            except Exception as error:
                work.set_exception(error)


def test_a_row_that_the_model_cannot_take_does_not_spoil_its_neighbours(monkeypatch):
    monkeypatch.setattr("distillery.verification.reward_verifier.load", lambda *_: (Picky(), Picky()))
    verifier = RewardVerifier(model_locks.Lock("reward", "x", "r", True, {}), SETTINGS)
    verifier.close()
    pool = AtOnce()
    monkeypatch.setattr(verifier, "pool", pool)
    replies = ["fine", "bad", "fine", "fine", "bad"]
    futures = [verifier.verify(Item(str(i), "other", reply)) for i, reply in enumerate(replies)]
    assert [len(args[2]) for _, _, args in pool.later] == [1]
    pool.run()
    found = [future.result(0) for future in futures]
    assert [verdict.score for verdict in found] == [0.6667, None, 0.6667, 0.6667, None]
    assert found[1].hopeless and "ValueError: roles must alternate" in found[1].reason
    assert not verifier.waiting and not verifier.alone and not verifier.working


def test_two_rows_that_fail_together_are_tried_alone(monkeypatch):
    monkeypatch.setattr("distillery.verification.reward_verifier.load", lambda *_: (Picky(), Picky()))
    verifier = RewardVerifier(model_locks.Lock("reward", "x", "r", True, {}), SETTINGS)
    verifier.close()
    pool = AtOnce()
    monkeypatch.setattr(verifier, "pool", pool)
    futures = [verifier.verify(Item(str(i), "other", reply)) for i, reply in enumerate(["fine", "fine", "bad"])]
    pool.run()
    assert [future.result(0).score for future in futures] == [0.6667, 0.6667, None]


def test_a_batch_is_bounded_and_its_seconds_are_shared(monkeypatch):
    monkeypatch.setattr("distillery.verification.reward_verifier.load", lambda *_: (Fixed(), Fixed()))
    monkeypatch.setattr("distillery.verification.reward_verifier.MOST_AT_ONCE", 3)
    clock = iter([10.0, 13.0, 20.0, 26.0, 30.0, 31.0])
    monkeypatch.setattr("distillery.verification.reward_verifier.monotonic", lambda: next(clock))
    verifier = RewardVerifier(model_locks.Lock("reward", "x", "r", True, {}), SETTINGS)
    verifier.close()
    pool = AtOnce()
    monkeypatch.setattr(verifier, "pool", pool)
    futures = [verifier.verify(Item(str(i), "other", None if i else "fine")) for i in range(5)]
    pool.run()
    assert [future.result(0).seconds for future in futures] == [3.0, 2.0, 2.0, 2.0, 1.0]


def test_ratings_are_clipped_and_shown():
    verdict = verdict_of([5, -1, 2.26], 64)
    assert (verdict.score, verdict.reason) == (0.5217, "coherence 4.0, correctness 0.0, helpfulness 2.3")
