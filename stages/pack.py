"""pack: packs an arm's complete dialogues into training windows with as little padding as possible.

Windows are filled by first-fit decreasing over the entire data set. ``ids.npy``, ``targets.npy`` and ``positions.npy`` are
(windows, window), mapped into memory and written a dialogue at a time: targets are true on the last response alone,
positions restart with every dialogue, and what is left of a window is one dialogue of padding without targets.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillery.core import config
from distillery.core.config import Positive, Section
from distillery.core.errors import DataError
from distillery.core.files import atomic_dir, write_text
from distillery.core.progress import Progress, log
from distillery.core.schemas import TAKEN
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import part_paths, read_part, write_part
from distillery.corpus.arrow_text import combine_chunks
from distillery.corpus.token_shards import Shard, attempt_keys, index_type, open_shard, pad_token
from distillery.training.packed_files import DIGEST
from distillery.training.packing import fill, lay_out, pad_windows

PLAN = pa.schema([("query_id", pa.string()), ("window", pa.int32()), ("start", pa.int32()), ("tokens", pa.int32())])

WINDOWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Pack(Section):
    """How dialogues are packed."""

    window: Positive
    """Tokens per window; `parallel` leaves a query out of training where any teacher's dialogue is longer."""


def tokens_of(teacher: str) -> str:
    return f"data/tokens/{teacher}"


def trained(arm: str) -> Iterator[tuple[Shard, np.ndarray]]:
    """Every shard of its teachers' tokens and which of its dialogues train, int64."""
    for part, path in enumerate(part_paths(f"data/arms/{arm}")):
        training = read_part(path, TAKEN).filter(pc.field("trains"))
        for teacher in sorted(pc.unique(training["teacher"]).to_pylist()):
            wanted = training.filter(pc.field("teacher") == teacher)
            shard = open_shard(tokens_of(teacher), part)
            chosen = np.flatnonzero(pc.is_in(shard.keys, value_set=attempt_keys(wanted)).to_numpy(zero_copy_only=False))
            if len(chosen) != len(wanted):
                missing = f"{len(wanted) - len(chosen)} dialogues of part {part} are missing"
                raise DataError(f"{tokens_of(teacher)}: {missing}; run `dvc repro`")
            yield shard, chosen


def teachers_of(arm: str) -> list[str]:
    """Whose traces an arm takes."""
    tables = (read_part(path, TAKEN) for path in part_paths(f"data/arms/{arm}"))
    return sorted({name for table in tables for name in pc.unique(table["teacher"]).to_pylist()})


def digest_of(arrays: dict[str, np.ndarray]) -> str:
    """The hash of all that is trained on. Windows are hashed in their memory layout, which is also that on disk."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        for start in range(0, len(array), WINDOWS_AT_ONCE):
            digest.update(np.ascontiguousarray(array[start : start + WINDOWS_AT_ONCE]).data)
    return digest.hexdigest()


def one_each(dialogues: int) -> tuple[np.ndarray, np.ndarray]:
    """The window and the start within it of every dialogue where each has a window of its own."""
    return np.arange(dialogues, dtype=np.int64), np.zeros(dialogues, np.int64)


def pack(arm: str, folder: Path, window: int, packed: bool) -> dict[str, int]:
    """Writes the windows and the plan; how many dialogues, windows, tokens and target tokens there are."""
    lengths = np.concatenate([np.empty(0, np.int64), *(np.diff(shard.offsets)[chosen] for shard, chosen in trained(arm))])
    if not len(lengths):
        raise DataError(f"data/parallel: no query fits a window of {window} tokens for every teacher; raise pack.window")
    if lengths.max() > window:
        raise DataError(f"data/parallel: made for windows longer than {window} tokens; run `dvc repro parallel`")
    placed, starts = lay_out(lengths, window) if packed else one_each(len(lengths))
    shape = (int(placed.max()) + 1, window)
    source = tokens_of(teachers_of(arm)[0])
    kind = open_shard(source, 0).ids.dtype
    kinds = {"ids": kind, "targets": np.dtype(bool), "positions": index_type(window)}
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", each, shape) for name, each in kinds.items()}
    pad_windows(arrays["ids"], arrays["positions"], np.bincount(placed, lengths, shape[0]).astype(np.int64), pad_token(source))
    progress, done, targets, names = Progress(f"pack@{arm}", "dialogues", len(lengths)), 0, 0, []
    for shard, chosen in trained(arm):
        here = slice(done, done + len(chosen))
        fill(shard.ids, shard.offsets, shard.prompts, chosen, placed[here], starts[here], *arrays.values())
        done += len(chosen)
        targets += int(shard.responses[chosen].sum())
        names.append(combine_chunks(shard.names.take(pa.array(chosen))))
        progress.update(done)
    write_text(f"{digest_of(arrays)}\n", folder / DIGEST)
    columns = (pa.concat_arrays(names), *(pa.array(each, pa.int32()) for each in (placed, starts, lengths)))
    write_part(pa.table(columns, PLAN), folder / "plan.parquet")
    return {"dialogues": done, "windows": shape[0], "tokens": int(lengths.sum()), "target_tokens": targets}


def main(arm: str) -> None:
    window, packed = config.load(Pack, "pack").window, config.load(bool, "train.packed")
    with record_metrics(f"metrics/pack/{arm}.json", "numba", "numpy") as (metrics, _):
        with atomic_dir(f"data/packed/{arm}") as folder:
            metrics.update(pack(arm, folder, window, packed))
        metrics["full"] = round(metrics["tokens"] / (metrics["windows"] * window), 5)
    full = f"{100 * metrics['full']:.2f} % full"
    log(f"pack@{arm}", f"{metrics['dialogues']} dialogues in {metrics['windows']} windows of {window}, {full}")


if __name__ == "__main__":
    run_stage(main)
