import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.training.packing import first_fit_decreasing, lay_out
from stages.pack import digest_of
from tests.support.packed_windows import windows_of

LENGTHS = st.lists(st.integers(1, 32), max_size=60)


def brute_force(lengths, window):
    """Textbook first-fit decreasing."""
    free: list[int] = []
    placed = [0] * len(lengths)
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        target = next((w for w, space in enumerate(free) if space >= lengths[i]), len(free))
        free += [window] * (target == len(free))
        free[target] -= lengths[i]
        placed[i] = target
    return placed


@given(LENGTHS)
def test_the_tree_matches_the_textbook_algorithm(lengths):
    assert first_fit_decreasing(np.array(lengths, np.int64), 32).tolist() == brute_force(lengths, 32)


@given(LENGTHS)
def test_no_window_overflows_and_no_two_dialogues_overlap(lengths):
    placed, starts = lay_out(np.array(lengths, np.int64), 32)
    taken = [(w, s + k) for w, s, n in zip(placed, starts, lengths, strict=True) for k in range(n)]
    assert len(set(taken)) == sum(lengths)
    assert all(position < 32 for _, position in taken)


@given(LENGTHS, st.randoms(use_true_random=False))
def test_packing_loses_and_repeats_no_token(lengths, rng):
    dialogues = [[rng.randint(1, 999) for _ in range(n)] for n in lengths]
    prompts = [rng.randint(0, n) for n in lengths]
    ids, targets, positions, placed, starts = windows_of(dialogues, prompts, 32, pad=0)
    for tokens, prompt, row, start in zip(dialogues, prompts, placed, starts, strict=True):
        span = slice(start, start + len(tokens))
        assert ids[row, span].tolist() == tokens
        assert positions[row, span].tolist() == list(range(len(tokens)))
        assert targets[row, span].tolist() == [False] * prompt + [True] * (len(tokens) - prompt)
    assert (ids != 0).sum() == sum(lengths)
    assert targets.sum() == sum(lengths) - sum(prompts)


def test_the_rest_of_a_window_is_padding_without_targets():
    ids, targets, positions, *_ = windows_of([[5, 6, 7]], [1], 6, pad=9)
    assert ids.tolist() == [[5, 6, 7, 9, 9, 9]]
    assert targets.tolist() == [[False, True, True, False, False, False]]
    assert positions.tolist() == [[0, 1, 2, 0, 1, 2]]


@pytest.mark.parametrize("count", [0, 1])
def test_zero_and_one_dialogue(count):
    ids, *_ = windows_of([[1, 2]] * count, [1] * count, 4, pad=0)
    assert ids.shape == (count, 4)


@pytest.mark.slow
def test_a_million_lengths_are_packed_densely():
    lengths = np.minimum(np.random.default_rng(0).lognormal(7.8, 0.9, 1_000_000).astype(np.int64) + 1, 32768)
    placed = first_fit_decreasing(lengths, 32768)
    used = np.bincount(placed, lengths)
    assert used.max() <= 32768 and lengths.sum() / (len(used) * 32768) > 0.999


def test_the_digest_covers_every_array_and_its_shape():
    arrays = {"ids": np.arange(6, dtype=np.uint16).reshape(2, 3), "targets": np.zeros((2, 3), bool)}
    known = {digest_of(arrays)}
    for changed in (
        arrays | {"ids": arrays["ids"] + np.uint16(1)},
        arrays | {"ids": arrays["ids"].reshape(3, 2)},
        arrays | {"ids": arrays["ids"].astype(np.uint32)},
        arrays | {"targets": ~arrays["targets"]},
        {"targets": arrays["targets"]},
    ):
        known.add(digest_of(changed))
    assert len(known) == 6 and digest_of({name: array.copy() for name, array in arrays.items()}) in known


@pytest.mark.parametrize("lengths", [[1], [32], [32, 32], [32] * 4, [16] * 8, [32] * 5, list(range(1, 33))])
def test_full_windows_and_powers_of_two(lengths):
    assert first_fit_decreasing(np.array(lengths, np.int64), 32).tolist() == brute_force(lengths, 32)


def test_a_long_digest_is_that_of_all_rows(monkeypatch):
    arrays = {"ids": np.arange(12, dtype=np.uint16).reshape(6, 2)}
    whole = digest_of(arrays)
    monkeypatch.setattr("stages.pack.WINDOWS_AT_ONCE", 4)
    assert digest_of(arrays) == whole
    for row in range(6):
        changed = arrays["ids"].copy()
        changed[row, 0] += 99
        assert digest_of({"ids": changed}) != whole
