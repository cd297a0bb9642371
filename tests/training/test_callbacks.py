"""A checkpoint's mark: it says that every rank's part is on disk."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distillery.core.files import read_json
from distillery.training.callbacks import Watcher
from distillery.training.store import COMPLETE


@pytest.mark.parametrize(("ranks", "rank"), [(1, 0), (2, 0), (2, 1)])
def test_a_checkpoint_is_marked_by_the_first_rank_once_all_have_written(tmp_path, monkeypatch, ranks, rank):
    mark = tmp_path / "checkpoint-4" / COMPLETE
    mark.parent.mkdir()
    marked_at_the_barrier: list[bool] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: ranks > 1)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: marked_at_the_barrier.append(mark.exists()))
    settings: Any = SimpleNamespace(sequence_parallel=1)
    arguments = SimpleNamespace(output_dir=str(tmp_path), world_size=ranks)
    Watcher("t", settings).on_save(arguments, SimpleNamespace(is_world_process_zero=rank == 0, global_step=4), None)
    assert marked_at_the_barrier == [False] * (ranks > 1)
    assert mark.exists() == (rank == 0) and (rank or read_json(mark) == {"ranks": ranks, "sequence_parallel": 1})
