"""Packs dialogues in memory, as the stage does on disk."""

import numpy as np

from distillery.training.packing import fill, lay_out, pad_windows


def windows_of(dialogues, prompts, window, pad):
    """(ids, targets, positions) of the windows, then each dialogue's window and start."""
    lengths = np.array([len(ids) for ids in dialogues], np.int64)
    placed, starts = lay_out(lengths, window)
    shape = (int(placed.max(initial=-1)) + 1, window)
    ids, targets, positions = np.zeros(shape, np.uint32), np.zeros(shape, bool), np.zeros(shape, np.uint16)
    pad_windows(ids, positions, np.bincount(placed, lengths, shape[0]).astype(np.int64), pad)
    flat = np.array([token for each in dialogues for token in each], np.uint32)
    offsets, every = np.concatenate([[0], np.cumsum(lengths)]), np.arange(len(lengths))
    fill(flat, offsets, np.array(prompts, np.int64), every, placed, starts, ids, targets, positions)
    return ids, targets, positions, placed, starts
