"""Shards: the concatenated token ids of a part's dialogues in one memory-mapped file, and a table of lengths.

``ids-00000.npy`` (uint16, or uint32 where the vocabulary needs it) belongs to ``part-00000.parquet``, one row per dialogue in
the order of query ids and attempts. ``pad.json`` names the token that windows are padded with.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillery.core.errors import DataError
from distillery.core.files import read_json, write_json
from distillery.core.schemas import PASS
from distillery.core.tables import part_name, part_paths, read_part, write_part
from distillery.corpus.arrow_text import combine_chunks

PAD = "pad.json"
DIALOGUES = pa.schema(
    [
        ("query_id", pa.string()),
        ("attempt", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("response_tokens", pa.int32()),
        ("flaw", pa.string()),
    ]
)


def index_type(count: int) -> np.dtype:
    """The unsigned type of the numbers below ``count``: uint16, or larger where it must be."""
    return np.promote_types(np.uint16, np.min_scalar_type(count - 1))


def ids_name(part: int) -> str:
    return f"ids-{part:05}.npy"


@dataclass(frozen=True)
class Shard:
    """One part: ``ids`` concatenated; dialogue i is ``ids[offsets[i]:offsets[i + 1]]``, its first ``prompts[i]`` the prompt.

    Its column ``flaw`` says why a dialogue must not be trained on, None where it may be.
    """

    table: pa.Table
    ids: np.ndarray

    @property
    def names(self) -> pa.ChunkedArray:
        return self.table["query_id"]

    @property
    def keys(self) -> pa.Array:
        return attempt_keys(self.table)

    @cached_property
    def prompts(self) -> np.ndarray:
        return self.table["prompt_tokens"].to_numpy().astype(np.int64)

    @cached_property
    def responses(self) -> np.ndarray:
        return self.table["response_tokens"].to_numpy().astype(np.int64)

    def flawed(self, flaw: str) -> np.ndarray:
        """Which dialogues have this flaw; bool, (dialogues,)."""
        found: np.ndarray = pc.fill_null(pc.equal(self.table["flaw"], flaw), False).to_numpy()
        return found

    @cached_property
    def offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.prompts + self.responses)])


def open_shard(folder: str | Path, part: int) -> Shard:
    """Raises DataError where a file is truncated, or does not match its table."""
    path = Path(folder) / ids_name(part)
    table = read_part(Path(folder) / part_name(part), DIALOGUES)
    try:
        ids = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}; remove it and run `dvc checkout`") from None
    shard = Shard(table, ids)
    if len(ids) != shard.offsets[-1]:
        raise DataError(f"{path}: {len(ids)} tokens, its table has {shard.offsets[-1]}; remove it and run `dvc checkout`")
    return shard


def candidates(traces: pa.Table, unverified: bool) -> pa.Table:
    """The traces that a student may learn from: those that pass, and ``unverified`` first attempts, in their order."""
    wanted = pc.field("verdict") == PASS
    return traces.filter(wanted | (pc.field("attempt") == 1) if unverified else wanted)


def attempt_keys(table: pa.Table) -> pa.Array:
    """The key of each attempt, one string per row: its query and its number."""
    return combine_chunks(pc.binary_join_element_wise(table["query_id"], pc.cast(table["attempt"], pa.string()), "-"))


def write_pad_token(folder: Path, token: int) -> None:
    """Notes the token that windows are padded with, so that packing needs no tokenizer."""
    write_json({"pad_token": token}, folder / PAD)


def pad_token(folder: str | Path) -> int:
    return int(read_json(Path(folder) / PAD)["pad_token"])


def count_shards(folder: str | Path) -> int:
    return len(part_paths(folder))


class ShardWriter:
    """Writes one part, dialogue by dialogue."""

    def __init__(self, folder: Path, part: int, kind: Any):
        self.folder, self.part, self.kind = folder, part, np.dtype(kind)
        self.rows: list[tuple[str, int, int, int, str | None]] = []
        self.tokens = 0

    def __enter__(self) -> "ShardWriter":
        self.file = (self.folder / ids_name(self.part)).open("wb")
        self._header()
        return self

    def add(self, query_id: str, attempt: int, ids: list[int], prompt: int, flaw: str | None) -> None:
        self.file.write(np.array(ids, self.kind).tobytes())
        self.rows.append((query_id, attempt, prompt, len(ids) - prompt, flaw))
        self.tokens += len(ids)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()
        columns = zip(*self.rows, strict=True) if self.rows else len(DIALOGUES) * ((),)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, DIALOGUES, strict=True)]
        write_part(pa.table(arrays, DIALOGUES), self.folder / part_name(self.part))

    def _header(self) -> None:
        """numpy's header has room for any length, so it can be overwritten in place."""
        about = {"descr": self.kind.str, "fortran_order": False, "shape": (self.tokens,)}
        np.lib.format.write_array_header_1_0(self.file, about)
