"""A journal's index in memory: where the records of every key are.

Most are rows of one array, in order of their keys; those that came last are objects, which need five times the memory.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from distillery.core.record_file import Layout, joined, places_of, split

ADDED = 100_000
"""Keys that are held as objects before they become rows."""


class Record(NamedTuple):
    """A record without its payload: its fields, and where the payload is."""

    fields: tuple[Any, ...]
    raw: int
    size: int
    crc: int
    start: int
    file: int


class Index:
    """The records of one layout; ``rows`` are of its type ``held``, and of equal ones only one is kept."""

    def __init__(self, layout: Layout, rows: np.ndarray):
        self.layout = layout
        self.added: dict[str, list[Record]] = {}
        self.gone: set[tuple[int, int]] = set()
        self._hold(rows)

    def find(self, key: str) -> list[Record]:
        """The records of a key, in no order."""
        found = [record_of(self._values(place)) for place in places_of(self.high, self.low, key)]
        return [each for each in (*found, *self.added.get(key, ())) if self._is_held(each)]

    def add(self, key: str, record: Record) -> None:
        self.added.setdefault(key, []).append(record)
        if len(self.added) >= ADDED:
            each = ((key, record) for key, records in self.added.items() for record in records)
            rows = [(*split(key), *r.fields, r.raw, r.size, r.crc, r.start, r.file) for key, r in each]
            self._hold(np.concatenate([self.rows, np.array(rows, self.rows.dtype)]))
            self.added = {}

    def forget(self, record: Record) -> None:
        self.gone.add((record.file, record.start))

    def records(self) -> Iterator[tuple[str, Record]]:
        """Every record with its key."""
        yield from self.in_order()
        for key, added in self.added.items():
            yield from ((key, record) for record in added if self._is_held(record))

    def in_order(self) -> Iterator[tuple[str, Record]]:
        """The records that are rows, by their keys."""
        for values in map(self._values, range(len(self.rows))):
            record = record_of(values)
            if self._is_held(record):
                yield joined(*values[:2]), record

    def _is_held(self, record: Record) -> bool:
        return (record.file, record.start) not in self.gone

    def _hold(self, rows: np.ndarray) -> None:
        self.rows = _ordered(rows)
        self.high, self.low = self.rows["high"].copy().data, self.rows["low"].copy().data
        self.packed = self.rows.view(np.uint8).data

    def _values(self, place: int) -> tuple[Any, ...]:
        """What a row holds: the fields of `Layout.held`."""
        return self.layout.values.unpack_from(self.packed, place * self.layout.values.size)


def record_of(values: tuple[Any, ...]) -> Record:
    """The record of a row's values."""
    return Record(values[2:-5], *values[-5:])


def _ordered(rows: np.ndarray) -> np.ndarray:
    """Rows by key, each record once, whichever files hold it."""
    rows = rows[np.lexsort((rows["crc"], rows["low"], rows["high"]))]
    about = [name for name in rows.dtype.names or () if name not in ("start", "file")]
    same = np.ones(max(len(rows) - 1, 0), bool)
    for name in about:
        same &= rows[name][1:] == rows[name][:-1]
    return rows[np.concatenate([np.ones(min(len(rows), 1), bool), ~same])]
