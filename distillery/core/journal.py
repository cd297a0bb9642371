"""Journals: records that several writers append to and all read, on any file system with atomic renames and locks.

Each writer appends to a record file of its own (`record_file`), ``open-<host>-<pid>-<random>-<number>.zst``, one write per
record, so that a killed writer loses only what was in flight. At 256 MB, and on closing, the file gets its index and is
renamed to ``part-...``, which never changes again. Opening a journal reads indexes, and no payload; ``refresh`` takes in what
other writers have added since. What a checksum does not confirm is skipped, and listed in ``damaged`` by file and byte.

What was appended is on the disk after `SYNC_SECONDS`, and when the journal is closed: a kill loses nothing, a power cut what is
younger. Whoever has a journal open holds a shared lock on its folder (flock: right across the containers of a machine, and
over NFS 4 by its own locks), so that `compact`, which takes the lock alone, deletes no file in use.
"""

import fcntl
import os
import socket
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distillery.core.errors import DataError
from distillery.core.files import sync, write_text
from distillery.core.journal_index import Index, Record, record_of
from distillery.core.progress import log
from distillery.core.record_file import Layout, compressed, encoded, index_of, joined, payload_at, read_index, walk

OPEN, PART, SUFFIX, LOCK, REPLACED = "open-", "part-", ".zst", ".lock", "replaced"
MERGED = "merged-"
"""How the names of lists begin: of files that a compaction has merged into others, so that their copies elsewhere are not
added again (`generation.ledger_sharing`)."""
PART_BYTES, SYNC_SECONDS, OPEN_FILES = 1 << 28, 5.0, 64


class New(NamedTuple):
    """A record to append."""

    key: str
    fields: tuple[Any, ...]
    payload: bytes


class Journal:
    """The records of a folder, all of one layout, by their keys of 32 hexadecimal digits.

    Lines of an older version's files, ``*.jsonl``, are taken over at opening: ``convert`` gives a line's record, or None for
    one to drop.
    """

    def __init__(self, folder: Path, layout: Layout, convert: Callable[[bytes], New | None] | None = None):
        self.folder, self.layout = folder, layout
        with suppress(OSError):  # may be there to be read only; whoever appends hears of it
            folder.mkdir(parents=True, exist_ok=True)
        self.lock = _lock_of(folder)
        self.own = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.writing: int | None = None
        self.entries, self.end, self.sealed, self.place = bytearray(), 0, 0, 0
        self.synced: float | None = None
        self.reading: OrderedDict[int, int] = OrderedDict()
        self.damaged: list[str] = []
        self._load()
        if convert:
            self._take_over(convert)

    def append(self, key: str, fields: tuple[Any, ...], payload: bytes) -> Record:
        """Appends a record in a single write; the operating system has it when this returns."""
        if self.writing is None:
            self._open()
        assert self.writing is not None
        frame = compressed(payload)
        block, values = encoded(self.layout, key, fields, len(payload), frame)
        try:
            _write(self.writing, block)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.writing, self.end)
            raise
        record = Record(fields, len(payload), len(frame), values[-1], self.end, self.place)
        self.entries += np.array([(*values, self.end)], self.layout.entry).tobytes()
        self.end += len(block)
        self.index.add(key, record)
        self.synced = self.synced or time.monotonic()
        self.sync_if_due()
        if self.end >= PART_BYTES:
            self._seal()
        return record

    def find(self, key: str) -> list[Record]:
        """The records of a key, in no order."""
        return self.index.find(key)

    def payload(self, record: Record) -> bytes | None:
        """A record's payload; None where it is damaged, and then the journal holds it no longer."""
        found = payload_at(self._reader(record.file), self.layout, record.start, record.raw, record.size, record.crc)
        if found is None:
            self.index.forget(record)
            self._damage(self.files[record.file], record.start)
        return found

    def refresh(self) -> list[tuple[str, Record]]:
        """Takes in what other writers have added: these records with their keys."""
        found = [(joined(*row.item()[:2]), record_of(row.item())) for row in self._news()]
        for key, record in found:
            self.index.add(key, record)
        return found

    def records(self) -> Iterator[tuple[str, Record]]:
        """Every record with its key."""
        return self.index.records()

    def others(self) -> int:
        """How many other writers there are: their open files are locked."""
        found = 0
        for path in self.folder.glob(f"{OPEN}*{SUFFIX}"):
            with suppress(FileNotFoundError):
                found += not _name_of(path).startswith(self.own) and _locked(path)
        return found

    def sync_if_due(self) -> None:
        """Brings to disk what was appended over `SYNC_SECONDS` ago."""
        if self.writing is not None and self.synced is not None and time.monotonic() - self.synced > SYNC_SECONDS:
            os.fsync(self.writing)
            self.synced = None

    def close(self) -> None:
        """Finishes this writer's file, and gives up the lock."""
        self._seal()
        self._close_readers()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def compact(self) -> tuple[int, int]:
        """Writes every record once, into new files in place of the old; the numbers of old files and of records.

        Raises DataError where somebody else has the journal open. A kill on the way leaves some records twice, which
        the next reader takes for one.
        """
        with self._alone():
            self._load()
            old = self._paths()
            for key, record in self.index.in_order():
                payload = self.payload(record)
                if payload is not None:
                    self.append(key, record.fields, payload)
            self._seal()
            write_text("".join(f"{path.name}\n" for path in old), self.folder / f"{MERGED}{uuid.uuid4().hex[:12]}.txt")
            for path in old:
                path.unlink()
            sync(self.folder)
            self._load()
        return len(old), len(self.index.rows)

    def _load(self) -> None:
        """Reads every file's index from the beginning."""
        self._close_readers()
        self.files: list[str] = []
        self.numbers: dict[str, int] = {}
        self.read_to: dict[str, int] = {}
        self.index = Index(self.layout, self._news())

    def _close_readers(self) -> None:
        for file in self.reading.values():
            os.close(file)
        self.reading.clear()

    def _open(self) -> None:
        name = f"{self.own}-{self.sealed}"
        path = self.folder / f"{OPEN}{name}{SUFFIX}"
        self.writing = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        fcntl.flock(self.writing, fcntl.LOCK_EX)
        sync(self.folder)
        self.entries, self.end = bytearray(), 0
        self.read_to[name] = 1 << 62  # what this writer appends, it knows
        self.place = self._number(name)

    def _seal(self) -> None:
        """Gives this writer's file its index and its final name; on a full disk it stays as it is, and nothing is lost."""
        if self.writing is None:
            return
        name = self.files[self.place]
        try:
            _write(self.writing, index_of(bytes(self.entries), self.end))
            os.fsync(self.writing)
            (self.folder / f"{OPEN}{name}{SUFFIX}").rename(self.folder / f"{PART}{name}{SUFFIX}")
            sync(self.folder)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.writing, self.end)
        os.close(self.writing)
        self.writing, self.synced = None, None
        self.sealed += 1

    def _news(self) -> np.ndarray:
        """The entries of what was added to the folder since it was last read."""
        found = [np.empty(0, self.layout.held)]
        for path in self._paths():
            with suppress(FileNotFoundError):  # finished meanwhile; the next call finds it under its new name
                found.append(self._read(path))
        return np.concatenate(found)

    def _read(self, path: Path) -> np.ndarray:
        """The new entries of one file."""
        name = _name_of(path)
        start = self.read_to.get(name, 0)
        if path.stat().st_size <= start:
            return np.empty(0, self.layout.held)
        number = self._number(name)
        with _opened(path) as file:
            indexed = read_index(file, self.layout) if path.name.startswith(PART) else None
            if indexed is None:
                entries, self.read_to[name] = walk(file, self.layout, start, lambda at: self._damage(name, at))
            else:
                entries = indexed[0][indexed[0]["start"] >= start]
            if path.name.startswith(PART):
                self.read_to[name] = 1 << 62
        held = np.empty(len(entries), self.layout.held)
        for column in self.layout.entry.names or ():
            held[column] = entries[column]
        held["file"] = number
        return held

    def _number(self, name: str) -> int:
        if name not in self.numbers:
            self.numbers[name] = len(self.files)
            self.files.append(name)
        return self.numbers[name]

    def _reader(self, number: int) -> int:
        """A file, open for reading; the least recently used of many is closed."""
        if number in self.reading:
            self.reading.move_to_end(number)
        else:
            self.reading[number] = self._reopened(self.files[number])
            if len(self.reading) > OPEN_FILES:
                os.close(self.reading.popitem(last=False)[1])
        return self.reading[number]

    def _reopened(self, name: str) -> int:
        for prefix in (PART, OPEN, PART):  # it may be finished, and renamed, between two looks
            with suppress(FileNotFoundError):
                return os.open(self.folder / f"{prefix}{name}{SUFFIX}", os.O_RDONLY)
        raise DataError(f"{self.folder / name}{SUFFIX}: deleted while in use; run again: what it held is generated again")

    def _paths(self) -> list[Path]:
        """Every file of the folder, one per name: of a file that is seen under both, the finished one."""
        found = {_name_of(path): path for path in sorted(self.folder.glob(f"*{SUFFIX}"))}
        return [found[name] for name in sorted(found)]

    def _damage(self, name: str, start: int) -> None:
        self.damaged.append(f"{self.folder / name}{SUFFIX}, byte {start}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else has the journal open within. Raises DataError where somebody has."""
        if self.lock is None:
            raise DataError(f"{self.folder}: cannot be written to")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fcntl.flock(self.lock, fcntl.LOCK_SH)
            raise DataError(f"{self.folder}: in use by another run; wait for its end") from None
        try:
            yield
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_SH)

    def _take_over(self, convert: Callable[[bytes], New | None]) -> None:
        """Writes an older version's lines as records and puts its files aside; a kill on the way loses nothing."""
        old = sorted(self.folder.glob("*.jsonl"))
        if not old:
            return
        with self._alone():
            counts: Counter[bool] = Counter()
            for path in old:
                with path.open("rb") as lines:
                    for record in map(convert, lines):
                        counts[record is not None] += 1
                        if record is not None:
                            self.append(*record)
            self._seal()
            aside = self.folder / REPLACED
            taken = f"{counts[True]} records of an older version taken over, {counts[False]} broken ones not"
            log("ledger", f"{self.folder}: {taken}; {aside} may be deleted")
            aside.mkdir(exist_ok=True)
            for path in old:
                path.rename(aside / path.name)
            self._load()


def _name_of(path: Path) -> str:
    return path.name.removesuffix(SUFFIX).removeprefix(OPEN).removeprefix(PART)


def _write(file: int, block: bytes) -> None:
    while block:
        block = block[os.write(file, block) :]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def _lock_of(folder: Path) -> int | None:
    """The folder's lock, shared; None where it cannot be had, as for a folder that may only be read and has none."""
    with suppress(OSError):
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(file, fcntl.LOCK_SH)
        return file
    with suppress(OSError):
        file = os.open(folder / LOCK, os.O_RDONLY)
        fcntl.flock(file, fcntl.LOCK_SH)
        return file
    return None


def _locked(path: Path) -> bool:
    """Whether a writer has this file open."""
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
