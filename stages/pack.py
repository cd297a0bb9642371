"""pack: fills training windows with whole dialogues, so that no token is padding that need not be.

Windows are filled by first-fit decreasing over the whole data set. ``ids.npy``, ``targets.npy`` and ``positions.npy`` are
(windows, window), mapped into memory and written a dialogue at a time: targets are true on the last response alone,
positions restart with every dialogue, and what is left of a window is one dialogue of padding without targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from stages import locks, params, provenance
from stages.params import Positive, Section
from stages.provenance import say
from stages.shards import Shard, open_shard
from stages.tables import SHARED, DataError, part_paths, read_part, whole_folder, write_part
from stages.text import whole

PLAN = pa.schema([("query_id", pa.string()), ("window", pa.int32()), ("start", pa.int32()), ("tokens", pa.int32())])


@dataclass(frozen=True)
class Pack(Section):
    """``window`` in tokens. `parallel` leaves a query out of training where any teacher's dialogue is longer."""

    window: Positive


@njit(cache=True)
def first_fit_decreasing(lengths: np.ndarray, window: int) -> np.ndarray:
    """The window of every length, by putting each, longest first, into the first window where it fits.

    A segment tree over the windows' free space finds that window in O(log n).
    """
    leaves = 1
    while leaves < len(lengths):
        leaves *= 2
    free = np.full(2 * leaves, window, np.int64)
    placed = np.empty(len(lengths), np.int64)
    for i in np.argsort(-lengths, kind="mergesort"):
        node = 1
        while node < leaves:
            node *= 2
            node += free[node] < lengths[i]
        placed[i] = node - leaves
        free[node] -= lengths[i]
        while node > 1:
            node //= 2
            free[node] = max(free[2 * node], free[2 * node + 1])
    return placed


@njit(cache=True)
def lay_out(lengths: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The window and the start within it of every dialogue, dialogues in one window by their order."""
    placed = first_fit_decreasing(lengths, window)
    starts, used = np.empty(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for i in range(len(placed)):
        target = placed[i]
        starts[i] = used[target]
        used[target] += lengths[i]
    return placed, starts


@njit(cache=True)
def pad_windows(ids: np.ndarray, positions: np.ndarray, used: np.ndarray, pad: int) -> None:
    """Fills each window from where its dialogues end."""
    for row in range(len(used)):
        for column in range(used[row], ids.shape[1]):
            ids[row, column] = pad
            positions[row, column] = column - used[row]


@njit(cache=True)
def fill(
    shard: np.ndarray,
    offsets: np.ndarray,
    prompts: np.ndarray,
    chosen: np.ndarray,
    placed: np.ndarray,
    starts: np.ndarray,
    ids: np.ndarray,
    targets: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Writes the ``chosen`` dialogues of a shard where they are ``placed`` in the windows (ids, targets, positions)."""
    for k in range(len(chosen)):
        i, row = chosen[k], placed[k]
        for j in range(offsets[i + 1] - offsets[i]):
            column = starts[k] + j
            ids[row, column] = shard[offsets[i] + j]
            targets[row, column] = j >= prompts[i]
            positions[row, column] = j


def trained(folder: str) -> Iterator[tuple[Shard, np.ndarray]]:
    """Every shard of a teacher's tokens and which of its dialogues train, int64."""
    for part, path in enumerate(part_paths("data/parallel/ids")):
        common, shard = read_part(path, SHARED), open_shard(folder, part)
        wanted = common.filter(pc.field("trains"))["query_id"]
        chosen = np.flatnonzero(pc.is_in(shard.names, value_set=whole(wanted)).to_numpy())
        if len(chosen) != len(wanted):
            raise DataError(f"{folder}: {len(wanted) - len(chosen)} dialogues of part {part} are missing; run `dvc repro`")
        yield shard, chosen


def pad_token() -> int:
    from transformers import AutoTokenizer

    lock = locks.read("base")
    return AutoTokenizer.from_pretrained(lock.id, revision=lock.hub_revision).pad_token_id or 0


def pack(teacher: str, folder: Path, window: int, pad: int) -> dict[str, int]:
    """Writes the windows and the plan; how many dialogues, windows, tokens and target tokens there are."""
    source = f"data/tokens/{teacher}"
    lengths = np.concatenate([np.diff(shard.offsets)[chosen] for shard, chosen in trained(source)])
    if not len(lengths):
        raise DataError(f"data/parallel: no query fits a window of {window} tokens for every teacher; raise pack.window")
    if lengths.max() > window:
        raise DataError(f"data/parallel: made for windows longer than {window} tokens; run `dvc repro parallel`")
    placed, starts = lay_out(lengths, window)
    shape = (int(placed.max()) + 1, window)
    kind = open_shard(source, 0).ids.dtype
    kinds = {"ids": kind, "targets": np.dtype(bool), "positions": np.dtype(np.uint16 if window <= 2**16 else np.uint32)}
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", each, shape) for name, each in kinds.items()}
    pad_windows(arrays["ids"], arrays["positions"], np.bincount(placed, lengths, shape[0]).astype(np.int64), pad)
    done, targets, names = 0, 0, []
    for shard, chosen in trained(source):
        here = slice(done, done + len(chosen))
        fill(shard.ids, shard.offsets, shard.prompts, chosen, placed[here], starts[here], *arrays.values())
        done += len(chosen)
        targets += int(shard.responses[chosen].sum())
        names.append(whole(shard.names.take(pa.array(chosen))))
        if done < len(lengths):
            say(f"pack@{teacher}", f"{done}/{len(lengths)} dialogues")
    columns = (pa.concat_arrays(names), *(pa.array(each, pa.int32()) for each in (placed, starts, lengths)))
    write_part(pa.table(columns, PLAN), folder / "plan.parquet")
    return {"dialogues": done, "windows": shape[0], "tokens": int(lengths.sum()), "target_tokens": targets}


def main(teacher: str) -> None:
    window = params.load(Pack, "pack").window
    with provenance.record(f"metrics/pack/{teacher}.json", "numba", "numpy") as metrics:
        with whole_folder(f"data/packed/{teacher}") as folder:
            metrics.update(pack(teacher, folder, window, pad_token()))
        metrics["full"] = round(metrics["tokens"] / (metrics["windows"] * window), 5)
    full = f"{100 * metrics['full']:.2f} % full"
    say(f"pack@{teacher}", f"{metrics['dialogues']} dialogues in {metrics['windows']} windows of {window}, {full}")


if __name__ == "__main__":
    provenance.run(main)
