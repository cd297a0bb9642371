"""Text columns: flags of code points, and the messages of many queries as flat bytes.

Kernels read the UTF-8 bytes of Arrow arrays in place, so that 1.89 million queries need no Python objects.
"""

import sys
import unicodedata
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

SPACE, ODD = 1, 2
_SIGNS = {"Sm", "Sc", "Sk"}
ROLES = ("user", "assistant", "system")


@cache
def classes() -> np.ndarray:
    """Flags of every code point, uint8: SPACE, or ODD where it is unusual in prose, mathematics and code."""
    flags = np.zeros(sys.maxunicode + 1, np.uint8)
    for point in range(sys.maxunicode + 1):
        char = chr(point)
        if char.isspace():
            flags[point] = SPACE
        elif (kind := unicodedata.category(char))[0] in "SC" and kind not in _SIGNS:
            flags[point] = ODD
    return flags


@njit(cache=True, nogil=True)
def decode(data: np.ndarray, i: int) -> tuple[Any, int]:
    """The code point that begins at byte ``i`` of valid UTF-8, and the byte after it."""
    first = data[i]
    if first < 0x80:
        return np.int64(first), i + 1
    if first < 0xE0:
        return (np.int64(first & 0x1F) << 6) | (data[i + 1] & 0x3F), i + 2
    if first < 0xF0:
        return (np.int64(first & 0x0F) << 12) | (np.int64(data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F), i + 3
    high = (np.int64(first & 0x07) << 18) | (np.int64(data[i + 1] & 0x3F) << 12)
    return high | (np.int64(data[i + 2] & 0x3F) << 6) | (data[i + 3] & 0x3F), i + 4


def combine_chunks(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array without an offset."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def as_before(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Which rows equal the row before them; bool, (rows,)."""
    values = combine_chunks(column)
    same = np.zeros(len(values), bool)
    same[1:] = pc.equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False) if len(values) else False
    return same


def flat(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a text array, uint8, and where each text begins and the last one ends, int64 (texts + 1,)."""
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    borders = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), borders


def contents(messages: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """All contents of a column of messages, concatenated, and where each row's begin: int64, (rows + 1,)."""
    borders = messages.offsets.to_numpy().astype(np.int64)
    said = messages.values.field("content").slice(borders[0], borders[-1] - borders[0])
    return said.fill_null(""), borders - borders[0]


def joined(messages: pa.Array) -> pa.Array:
    """The messages of each row as one text, joined by line breaks."""
    said, borders = contents(messages)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(borders.astype(np.int32)), said), "\n")


def out_of_turn(messages: pa.Array) -> np.ndarray:
    """Which rows' turns, apart from a system prompt, do not alternate or do not begin and end with the user; bool."""
    borders = messages.offsets.to_numpy().astype(np.int64)
    roles = messages.values.field("role").slice(borders[0], borders[-1] - borders[0])
    known = pc.index_in(roles, pa.array(ROLES, roles.type)).fill_null(len(ROLES))
    return _out_of_turn(known.to_numpy(zero_copy_only=False).astype(np.int8), borders - borders[0])


@njit(cache=True, nogil=True)
def _out_of_turn(roles: np.ndarray, borders: np.ndarray) -> np.ndarray:
    out = np.zeros(len(borders) - 1, np.bool_)
    for row in range(len(out)):
        turns = 0
        for i in range(borders[row], borders[row + 1]):
            if roles[i] != 2:
                out[row] |= roles[i] != turns % 2
                turns += 1
        out[row] |= turns % 2 == 0
    return out
