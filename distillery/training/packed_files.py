"""The files of a folder of packed windows."""

ARRAYS = ("ids", "targets", "positions")
"""Each ``<name>.npy``, (windows, window)."""
DIGEST = "sha256"
"""The hash of all arrays, written by `pack` so that a training's identity does not need to read them again."""
