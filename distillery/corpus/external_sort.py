"""Sorting more queries than memory holds: spread over buckets on disk by their ids, then sorted a bucket at a time."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from distillery.core.schemas import QUERY
from distillery.core.tables import part_of, parts_for

BUCKETS = 256
ROWS_AT_ONCE = 50_000
CHARACTERS_AT_ONCE = 256_000_000
TEXTS = ("test_cases", "constraints", "ground_truth")
Query = dict[str, Any]


def characters_of(query: Query) -> int:
    return sum(len(query.get(name) or "") for name in TEXTS) + sum(len(turn["content"]) for turn in query["messages"])


class Buckets:
    """Spreads queries over files by the beginning of their ids, keeping their order within a file."""

    def __init__(self, folder: Path):
        self.folder, self.rows, self.size = folder, 0, 0
        self.held: list[Query] = []
        self.characters = 0
        self.writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self.open = ExitStack()

    def add(self, query: Query) -> None:
        self.rows += 1
        self.held.append(query)
        self.characters += characters_of(query)
        if len(self.held) >= ROWS_AT_ONCE or self.characters >= CHARACTERS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Writes the buffered rows."""
        groups: dict[int, list[Query]] = {}
        for query in self.held:
            groups.setdefault(part_of(query["id"], BUCKETS), []).append(query)
        self.held, self.characters = [], 0
        for bucket, rows in groups.items():
            if bucket not in self.writers:
                stream = pa.ipc.new_stream(str(self.path(bucket)), QUERY)
                self.writers[bucket] = self.open.enter_context(stream)
            table = pa.Table.from_pylist(rows, QUERY)
            self.writers[bucket].write_table(table)
            self.size += table.nbytes

    def path(self, bucket: int) -> Path:
        return self.folder / f"bucket-{bucket}.arrow"

    def parts(self) -> Iterator[pa.Table]:
        """All parts of the corpus in order, each sorted by id; equal ids keep their input order."""
        self.flush()
        self.open.close()
        parts = min(parts_for(self.rows, self.size), BUCKETS)
        for first in range(0, BUCKETS, BUCKETS // parts):
            names = [self.path(bucket) for bucket in range(first, first + BUCKETS // parts)]
            tables = [pa.ipc.open_stream(str(name)).read_all() for name in names if name.exists()]
            table = pa.concat_tables(tables) if tables else QUERY.empty_table()
            for name in names:
                name.unlink(missing_ok=True)
            order = sorted(range(len(table)), key=table["id"].to_pylist().__getitem__)
            yield table.take(pa.array(order, pa.int64())).combine_chunks()
