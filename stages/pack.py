"""pack: fills training windows with whole dialogues, so that no token is padding that need not be.

Windows are filled by first-fit decreasing over the whole data set. ``ids.npy``, ``labels.npy`` and ``positions.npy`` are
(windows, window): labels are -100 outside the last response, positions restart with every dialogue, and what is left of
a window is one dialogue of padding without labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages import locks, params, provenance
from stages.params import Positive, Section
from stages.provenance import say
from stages.tables import DataError, read, read_json_lines, whole_folder, write

IGNORED = -100
PLAN = pa.schema([("query_id", pa.string()), ("window", pa.int32()), ("start", pa.int32()), ("tokens", pa.int32())])


@dataclass(frozen=True)
class Pack(Section):
    """``window`` in tokens. `parallel` leaves a query out of training where any teacher's dialogue is longer."""

    window: Positive


def first_fit_decreasing(lengths: np.ndarray, window: int) -> np.ndarray:
    """The window of every length, by putting each, longest first, into the first window where it fits.

    A segment tree over the windows' free space finds that window in O(log n).
    """
    leaves = 1 << max(len(lengths) - 1, 0).bit_length()
    free = np.full(2 * leaves, window, np.int64)
    placed = np.empty(len(lengths), np.int64)
    for i in np.argsort(-lengths, kind="stable"):
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


def lay_out(lengths: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The window and the start within it of every dialogue, dialogues in one window by their order."""
    placed = first_fit_decreasing(lengths, window)
    starts, used = np.empty(len(lengths), np.int64), np.zeros(placed.max(initial=-1) + 1, np.int64)
    for i, target in enumerate(placed):
        starts[i] = used[target]
        used[target] += lengths[i]
    return placed, starts


def fill(
    dialogues: list[np.ndarray], prompts: np.ndarray, window: int, pad: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lays dialogues out: (ids, labels, positions), each (windows, window), then each one's window and start."""
    lengths = np.array([len(ids) for ids in dialogues], np.int64)
    placed, starts = lay_out(lengths, window)
    shape = (placed.max(initial=-1) + 1, window)
    ids, labels = np.full(shape, pad, np.int32), np.full(shape, IGNORED, np.int32)
    positions = np.zeros(shape, np.int32)
    used = np.bincount(placed, lengths, shape[0]).astype(int)
    for row, end in enumerate(used):
        positions[row, end:] = np.arange(window - end)
    for tokens, prompt, row, start in zip(dialogues, prompts, placed, starts, strict=True):
        end = start + len(tokens)
        ids[row, start:end] = tokens
        labels[row, start + prompt : end] = tokens[prompt:]
        positions[row, start:end] = np.arange(len(tokens))
    return ids, labels, positions, placed, starts


def dialogues_of(teacher: str) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """Query ids, token ids and prompt lengths of the dialogues to train on, in the order of ids."""
    wanted = {row["query_id"] for row in read_json_lines("data/parallel/train_ids.jsonl")}
    source = Path(f"data/tokens/{teacher}")
    names = read(source / "index")["query_id"].to_pylist()
    flat, offsets = np.load(source / "ids.npy", mmap_mode="r"), np.load(source / "offsets.npy")
    chosen = [i for i, name in enumerate(names) if name in wanted]
    dialogues = [flat[offsets[i] : offsets[i + 1]] for i in chosen]
    return [names[i] for i in chosen], dialogues, np.load(source / "prompts.npy")[chosen]


def pad_token() -> int:
    from transformers import AutoTokenizer

    lock = locks.read("base")
    return AutoTokenizer.from_pretrained(lock.id, revision=lock.hub_revision).pad_token_id or 0


def main(teacher: str) -> None:
    window = params.load(Pack, "pack").window
    with provenance.record(f"metrics/pack/{teacher}.json", "numpy") as metrics:
        names, dialogues, prompts = dialogues_of(teacher)
        if not names:
            raise DataError(f"data/parallel: no query fits a window of {window} tokens for every teacher; raise pack.window")
        ids, labels, positions, placed, starts = fill(dialogues, prompts, window, pad_token())
        plan = [
            {"query_id": name, "window": int(row), "start": int(start), "tokens": len(tokens)}
            for name, tokens, row, start in zip(names, dialogues, placed, starts, strict=True)
        ]
        with whole_folder(f"data/packed/{teacher}") as folder:
            for file, array in {"ids": ids, "labels": labels, "positions": positions}.items():
                np.save(folder / f"{file}.npy", array)
            write(plan, folder / "plan", PLAN)
        used = sum(map(len, dialogues))
        metrics.update(dialogues=len(names), windows=len(ids), tokens=used, full=round(used / ids.size, 5))
        metrics["target_tokens"] = int((labels != IGNORED).sum())
    say(f"pack@{teacher}", f"{len(names)} dialogues in {len(ids)} windows of {window}, {100 * metrics['full']:.2f} % full")


if __name__ == "__main__":
    provenance.run(main)
