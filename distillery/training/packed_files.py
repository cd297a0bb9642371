"""The files of a folder of packed windows."""

ARRAYS = ("ids", "targets", "positions")
"""Each ``<name>.npy``, (windows, window)."""
DIGEST = "sha256"
"""The hash of all arrays, left by `pack` so that nobody reads them again to know what a training is trained on."""
