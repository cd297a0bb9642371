"""Record files: keyed records with checksums in a zstd stream, and an index at the end.

`zstdcat` reads such a file. Per record it holds a skippable frame (key, fields, sizes, checksums), then the payload as a frame.
A finished file ends with its index in one more skippable frame, so that its records are known without reading them. A file
without an index is read header by header.

A record is what its two checksums confirm, the header's and the payload's. Behind a damaged header, reading goes on at the next
one that is whole.
"""

import os
import struct
import threading
import zlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zstandard

HEADER_MAGIC, INDEX_MAGIC, TAG = 0x184D2A50, 0x184D2A51, b"drf2"
FRAME, CHECK, TAIL = struct.Struct("<II"), struct.Struct("<I"), struct.Struct("<QI4s")
KEY, PLACE = [("high", "<u8"), ("low", "<u8")], [("raw", "<u4"), ("size", "<u4"), ("crc", "<u4")]
CODES = {"|u1": "B", "<u4": "I", "<u8": "Q", "<f8": "d"}
"""How `struct` calls the types of fields."""
CHUNK = 1 << 20


class _Codec(threading.local):
    """A thread's own contexts, used again: a new one for every record costs more than a short record."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


CODEC = _Codec()


@dataclass(frozen=True)
class Layout:
    """The fixed fields of one kind of record, as (name, numpy type)."""

    fields: tuple[tuple[str, str], ...]

    @cached_property
    def names(self) -> list[str]:
        return [name for name, _ in self.fields]

    @cached_property
    def header(self) -> np.dtype:
        """What a header says: the key, the fields, and the payload's size, its frame's size and checksum."""
        return np.dtype([*KEY, *self.fields, *PLACE])

    @cached_property
    def entry(self) -> np.dtype:
        """What an index says of a record: its header, and the byte where that begins."""
        return np.dtype([*KEY, *self.fields, *PLACE, ("start", "<u8")])

    @cached_property
    def held(self) -> np.dtype:
        """An entry as a journal holds it: with the number of its file."""
        return np.dtype([*self.entry.descr, ("file", "<u4")])

    @cached_property
    def values(self) -> struct.Struct:
        """Reads the same from its bytes, ten times faster than numpy reads one row."""
        return struct.Struct("<" + "".join(CODES[self.held[name].str] for name in self.held.names or ()))

    @cached_property
    def opening(self) -> bytes:
        """The first bytes of every record."""
        return FRAME.pack(HEADER_MAGIC, len(TAG) + self.header.itemsize + CHECK.size) + TAG

    @cached_property
    def lead(self) -> int:
        """Bytes of a record before its payload."""
        return len(self.opening) + self.header.itemsize + CHECK.size


def encoded(layout: Layout, key: str, fields: tuple[Any, ...], raw: int, frame: bytes) -> tuple[bytes, tuple[Any, ...]]:
    """A record as bytes, and its header's values; ``frame`` is the compressed payload of ``raw`` bytes."""
    values = (*split(key), *fields, raw, len(frame), zlib.crc32(frame))
    header = layout.opening + np.array([values], layout.header).tobytes()
    return header + CHECK.pack(zlib.crc32(header)) + frame, values


def compressed(payload: bytes) -> bytes:
    return CODEC.compress(payload) if payload else b""


def payload_at(file: int, layout: Layout, start: int, raw: int, size: int, crc: int) -> bytes | None:
    """A record's payload; None where its checksum does not confirm it."""
    frame = os.pread(file, size, start + layout.lead)
    if len(frame) != size or zlib.crc32(frame) != crc:
        return None
    return CODEC.decompress(frame) if size else b""


def split(key: str) -> tuple[int, int]:
    return int(key[:16], 16), int(key[16:], 16)


def places_of(highs: memoryview, lows: memoryview, key: str) -> list[int]:
    """Where a key stands among keys in order, given by their halves: uint64, (keys,) each.

    Memoryviews, since their items are plain ints: numpy would compare them as rounded floats, or slower.
    """
    high, low = split(key)
    first = end = bisect_left(highs, high)
    while end < len(highs) and highs[end] == high:
        end += 1
    return [place for place in range(first, end) if lows[place] == low]


def joined(high: int, low: int) -> str:
    return f"{high:016x}{low:016x}"


def index_of(entries: bytes, end: int) -> bytes:
    """The index of a file whose records, ``entries``, end at byte ``end``."""
    return FRAME.pack(INDEX_MAGIC, len(entries) + TAIL.size) + entries + TAIL.pack(end, zlib.crc32(entries), TAG)


def read_index(file: int, layout: Layout) -> tuple[np.ndarray, int] | None:
    """The records of a finished file, and the byte where they end; None where it has no index that is whole."""
    last = os.fstat(file).st_size - TAIL.size
    if last < 0:
        return None
    end, crc, tag = TAIL.unpack(os.pread(file, TAIL.size, last))
    first = end + FRAME.size
    if tag != TAG or first > last or (last - first) % layout.entry.itemsize:
        return None
    entries = os.pread(file, last - first, first)
    return (np.frombuffer(entries, layout.entry), end) if zlib.crc32(entries) == crc else None


def walk(file: int, layout: Layout, start: int, damaged: Callable[[int], None]) -> tuple[np.ndarray, int]:
    """The whole records from byte ``start`` on, and the byte where they end; ``damaged`` is told where others begin.

    What is unfinished at the end of the file is no damage: it is being written, or its writer was killed.
    """
    found, size = [], os.fstat(file).st_size
    while start + layout.lead <= size:
        header = _header_at(file, layout, start)
        if header is None:
            after = _next_header(file, layout, start + 1, size)
            if after is None:
                break
            damaged(start)
        else:
            after = start + layout.lead + int(header["size"])
            if after > size:
                break
            found.append((*header.item(), start))
        start = after
    return np.array(found, layout.entry), start


def _header_at(file: int, layout: Layout, start: int) -> np.void | None:
    block = os.pread(file, layout.lead, start)
    body, check = block[: -CHECK.size], block[-CHECK.size :]
    if len(block) < layout.lead or not body.startswith(layout.opening) or CHECK.pack(zlib.crc32(body)) != check:
        return None
    return np.frombuffer(body, layout.header, 1, len(layout.opening))[0]


def _next_header(file: int, layout: Layout, start: int, size: int) -> int | None:
    """Where the next whole header begins, from byte ``start`` on."""
    while start < size:
        block = os.pread(file, CHUNK, start)
        at = block.find(layout.opening)
        if at >= 0:
            if _header_at(file, layout, start + at) is not None:
                return start + at
            start += at + 1
        else:
            start += max(len(block) - len(layout.opening) + 1, 1)
    return None
