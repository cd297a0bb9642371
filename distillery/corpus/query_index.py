"""Finds a query among millions by its id, with or without its system prompt, while their messages stay on disk."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from distillery.core.chat import Messages, identify
from distillery.core.record_file import places_of, split

HALVES = np.dtype([("high", np.uint64), ("low", np.uint64)])


def as_keys(ids: Iterable[str]) -> np.ndarray:
    """Ids as pairs of numbers: HALVES, (ids,)."""
    return np.array([split(key) for key in ids], HALVES)


class Places:
    """Which query has an id: 20 bytes per id. Of ids that occur more than once none is found."""

    def __init__(self, keys: np.ndarray):
        """``keys``: HALVES, (ids,)."""
        order = np.lexsort((keys["low"], keys["high"]))
        keys = keys[order]
        same = keys[1:] == keys[:-1]
        unique = ~(np.append(same, False) | np.insert(same, 0, False)) if len(keys) else np.zeros(0, bool)
        self.high, self.low = keys["high"][unique].data, keys["low"][unique].data
        self.rows = order[unique].astype(np.uint32)

    def find(self, key: str) -> int | None:
        """The place of an id in the list; None where it is not in it."""
        return next((int(self.rows[place]) for place in places_of(self.high, self.low, key)), None)


class QueryIndex:
    """Queries by id. Memory holds their ids; ``file`` gets their messages and is read as it is needed."""

    def __init__(self, parts: Iterable[pa.Table], file: Path):
        """``parts`` have the columns ``id`` and ``messages``."""
        ids, bare_ids = [as_keys(())], [as_keys(())]
        writer: pa.RecordBatchFileWriter | None = None
        for part in parts:
            writer = writer or pa.ipc.new_file(str(file), pa.schema([part.schema.field("messages")]))
            writer.write_table(part.select(["messages"]))
            ids.append(as_keys(part["id"].to_pylist()))
            bare_ids.append(as_keys(identify(bare(messages)) for messages in part["messages"].to_pylist()))
        if writer:
            writer.close()
        self.ids, self.bare_ids = Places(np.concatenate(ids)), Places(np.concatenate(bare_ids))
        self.count = sum(map(len, ids))
        self.messages = pa.ipc.open_file(pa.memory_map(str(file))).read_all()["messages"] if writer else pa.chunked_array([[]])

    def find(self, messages: Messages) -> int | None:
        """The place of the query that asks ``messages``, a system prompt of theirs or of the query's left out if need be."""
        keys = identify(messages), identify(bare(messages))
        found = (places.find(key) for key in keys for places in (self.ids, self.bare_ids))
        return next((row for row in found if row is not None), None)

    def messages_of(self, place: int) -> Messages:
        return self.messages[place].as_py()


def bare(messages: Messages) -> Messages:
    return [turn for turn in messages if turn["role"] != "system"]
