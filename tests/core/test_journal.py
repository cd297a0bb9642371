"""Journals: what was appended is found, whatever happens to the file, the writer, the disk; nothing is found that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillery.core import journal as journals
from distillery.core import journal_index
from distillery.core.errors import DataError
from distillery.core.journal import Journal
from distillery.core.record_file import Layout

LAYOUT = Layout((("number", "<u4"), ("share", "<f8")))
KEYS = [f"{i:032x}" for i in (0, 1, 2**64 - 1, 2**64, 2**127, 2**128 - 1)]


def open_journal(folder: Path) -> Journal:
    return Journal(folder, LAYOUT)


def payload(i: int) -> bytes:
    return random.Random(i).randbytes(i % 50) * (i % 7)


def fill(folder: Path, count: int = 40, first: int = 0) -> None:
    with closing(open_journal(folder)) as journal:
        for i in range(first, first + count):
            journal.append(f"{i * 2**96 + i:032x}", (i, i / 7), payload(i))


def held(journal: Journal) -> dict[int, bytes]:
    """The payloads of all records that are whole, by their numbers."""
    found = {}
    for key, record in journal.records():
        number, share = record.fields
        assert (key, share) == (f"{number * 2**96 + number:032x}", number / 7)
        content = journal.payload(record)
        if content is not None:
            assert number not in found, "held twice"
            found[number] = content
    return found


def contents(folder: Path) -> dict[int, bytes]:
    with closing(open_journal(folder)) as journal:
        return held(journal)


def expected(*numbers: int) -> dict[int, bytes]:
    return {number: payload(number) for number in numbers}


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 2**32 - 1), st.binary(max_size=200)), max_size=30))
@settings(max_examples=50, deadline=None)
def test_what_is_appended_is_found_by_its_key(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("j")
    with closing(open_journal(folder)) as journal:
        for key, number, content in records:
            journal.append(key, (number, 0.5), content)
        at_once = {key: sorted((each.fields[0], journal.payload(each)) for each in journal.find(key)) for key in KEYS}
    assert at_once == {key: sorted((n, c) for k, n, c in records if k == key) for key in KEYS}
    with closing(open_journal(folder)) as again:
        for key in KEYS:
            assert sorted({(each.fields[0], again.payload(each)) for each in again.find(key)}) == sorted(set(at_once[key]))


def test_keys_that_floats_cannot_tell_apart_are_found(tmp_path):
    """Half of all keys are below 2^63: looked up as plain integers, they and all others were rounded to floats."""
    keys = [f"{half + i:016x}{i:016x}" for half in (2**62, 2**63 - 40, 2**63 + 40) for i in range(20)]
    journal = open_journal(tmp_path)
    for i, key in enumerate(keys):
        journal.append(key, (i, 0.5), payload(i))
    journal.close()
    journal = open_journal(tmp_path)
    assert [record.fields[0] for key in keys for record in journal.find(key)] == list(range(len(keys)))
    journal.close()


def test_many_new_records_become_rows_and_are_found_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_index, "ADDED", 7)
    first, second = open_journal(tmp_path), open_journal(tmp_path)
    for i in range(40):
        (first if i % 2 else second).append(f"{i * 2**96 + i:032x}", (i, i / 7), payload(i))
    first.refresh()
    second.refresh()
    for journal in (first, second):
        assert len(journal.index.added) < 7 and len(journal.index.rows) > 30
        assert held(journal) == expected(*range(40))
        for i in range(40):
            (record,) = journal.find(f"{i * 2**96 + i:032x}")
            assert record.fields == (i, i / 7) and journal.payload(record) == payload(i)
    first.close()
    second.close()
    assert contents(tmp_path) == expected(*range(40))


def test_a_finished_file_is_opened_by_its_index_and_is_a_plain_zstd_stream(tmp_path, monkeypatch):
    fill(tmp_path, 30)
    (path,) = tmp_path.glob("part-*.zst")
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        shown = stream.read()
    assert shown == b"".join(payload(i) for i in range(30))
    monkeypatch.setattr(journals, "walk", None)
    assert contents(tmp_path) == expected(*range(30))


def test_a_file_is_finished_when_it_is_full_and_the_next_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(journals, "PART_BYTES", 1200)
    with closing(open_journal(tmp_path)) as journal:
        for i in range(60):
            journal.append(f"{i * 2**96 + i:032x}", (i, i / 7), payload(i))
        assert len(list(tmp_path.glob("part-*.zst"))) > 2 and len(list(tmp_path.glob("open-*.zst"))) == 1
        assert held(journal) == expected(*range(60))
    assert contents(tmp_path) == expected(*range(60))


@pytest.mark.parametrize("finished", [True, False])
def test_a_flipped_byte_costs_at_most_its_record_which_is_named(tmp_path, finished):
    """At a thousand random places: every record comes back right, or is missing; what is missing is named."""
    fill(tmp_path)
    (path,) = tmp_path.glob("part-*.zst")
    if not finished:
        path = path.rename(tmp_path / path.name.replace("part-", "open-"))
    whole, rng, lost = path.read_bytes(), random.Random(0), 0
    for _ in range(500):
        at = rng.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ rng.randrange(1, 256)]) + whole[at + 1 :])
        with closing(open_journal(tmp_path)) as journal:
            found, damaged = held(journal), journal.damaged
        missing = set(range(40)) - found.keys()
        assert found == expected(*found) and len(missing) <= 1
        if missing - ({39} if not finished else set()):
            ((name, _, place),) = [each.rpartition(", byte ") for each in damaged]
            assert name.endswith(path.name.split("-", 1)[1]) and 0 <= at - int(place) < 400
        lost += len(missing)
    assert lost > 100


@pytest.mark.parametrize("finished", [True, False])
def test_a_truncated_file_keeps_what_is_whole(tmp_path, finished):
    fill(tmp_path, 10)
    (path,) = tmp_path.glob("part-*.zst")
    if not finished:
        path = path.rename(tmp_path / path.name.replace("part-", "open-"))
    whole, least = path.read_bytes(), 10
    for size in range(len(whole) - 1, -1, -7):
        path.write_bytes(whole[:size])
        found = contents(tmp_path)
        assert found == expected(*range(len(found))) and len(found) <= least
        least = len(found)
    assert least == 0


def test_another_writers_records_appear_once_they_are_whole(tmp_path):
    with closing(open_journal(tmp_path)) as reader, closing(open_journal(tmp_path)) as writer:
        writer.append("0" * 32, (0, 0.0), payload(0))
        assert [key for key, _ in reader.refresh()] == ["0" * 32] and reader.refresh() == []
        writer.append(f"{2**96 + 1:032x}", (1, 1 / 7), payload(1))
        (path,) = tmp_path.glob("open-*.zst")
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert reader.refresh() == []
        path.write_bytes(whole)
        assert [key for key, _ in reader.refresh()] == [f"{2**96 + 1:032x}"] and held(reader) == expected(0, 1)
        writer.close()
        assert reader.refresh() == [] and held(reader) == expected(0, 1), "under its final name"


def test_of_many_files_few_are_open(tmp_path, monkeypatch):
    monkeypatch.setattr(journals, "OPEN_FILES", 3)
    for first in range(0, 40, 4):
        fill(tmp_path, 4, first)
    with closing(open_journal(tmp_path)) as journal:
        assert held(journal) == expected(*range(40)) == held(journal)
        assert len(journal.reading) == 3


def test_writers_are_counted_by_their_locks(tmp_path):
    """A killed writer's file stays open by name; its lock went with it."""
    with closing(open_journal(tmp_path)) as journal:
        journal.append("0" * 32, (0, 0.0), b"")
        assert journal.others() == 0, "its own file"
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE)
        assert writer.stdout and writer.stdout.readline()
        assert journal.others() == 1
        writer.kill()
        writer.wait()
        assert journal.others() == 0 and len(list(tmp_path.glob("open-*"))) == 2


WRITER = """
import sys, time
from pathlib import Path
from tests.core.test_journal import open_journal, payload
journal = open_journal(Path(sys.argv[1]))
i = 1
while True:
    journal.append(f"{i * 2**96 + i:032x}", (i, i / 7), payload(i))
    print(i, flush=True)
    i += 1
    if len(sys.argv) > 2 and i % int(sys.argv[2]) == 0:
        journal._seal()
    time.sleep(0 if len(sys.argv) > 2 else 60)
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_loses_nothing_that_it_reported(tmp_path):
    """While it appends and finishes files: what it said it had appended is there, and one more at most."""
    rng = random.Random(1)
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, folder, "5"], stdout=subprocess.PIPE)
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.1))
        writer.kill()
        reported = int((writer.stdout.read().splitlines() or [b"1"])[-1])
        writer.wait()
        found = contents(folder)
        assert found == expected(*found) and set(found) in ({*range(1, reported + 1)}, {*range(1, reported + 2)})


COMPACT = """
import sys
from contextlib import closing
from pathlib import Path
from tests.core.test_journal import open_journal
with closing(open_journal(Path(sys.argv[1]))) as journal:
    print(flush=True)
    journal.compact()
"""


def test_compaction_writes_every_record_once_and_drops_what_is_damaged(tmp_path):
    fill(tmp_path, 20)
    for path in list(tmp_path.glob("part-*.zst")):
        (tmp_path / "part-copy-1-a-0.zst").write_bytes(path.read_bytes())
    fill(tmp_path, 20, 20)
    with closing(open_journal(tmp_path)) as journal:
        assert journal.compact() == (3, 40) and held(journal) == expected(*range(40))
    assert len(list(tmp_path.glob("*.zst"))) == 1 and contents(tmp_path) == expected(*range(40))


@pytest.mark.slow
def test_a_compaction_killed_at_any_moment_loses_and_doubles_nothing(tmp_path):
    rng = random.Random(2)
    fill(tmp_path, 2000)
    fill(tmp_path, 2000, 2000)
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", COMPACT, tmp_path], stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert contents(tmp_path) == expected(*range(4000))


def test_compaction_refuses_while_anybody_reads(tmp_path):
    fill(tmp_path)
    with closing(open_journal(tmp_path)) as reader:
        with closing(open_journal(tmp_path)) as other, pytest.raises(DataError, match="in use by another run"):
            other.compact()
        assert held(reader) == expected(*range(40))


@pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of process ids needs root")
@pytest.mark.slow
def test_compaction_refuses_a_writer_of_another_container(tmp_path):
    """Of the same host name, in another namespace of process ids, where its id means nothing here."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout and writer.stdout.readline()
            with closing(open_journal(tmp_path)) as journal:
                assert journal.others() == 1
                with pytest.raises(DataError, match="in use"):
                    journal.compact()
        finally:
            writer.kill()
            assert writer.stdout
            writer.stdout.read()  # ends with the last process inside
    with closing(open_journal(tmp_path)) as journal:
        assert journal.compact() == (1, 1) and held(journal) == expected(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        with closing(open_journal(disk / "j")) as journal:
            with pytest.raises(OSError, match="No space left"):
                for i in range(10_000):
                    journal.append(f"{i * 2**96 + i:032x}", (i, i / 7), payload(i))
            before = held(journal)
        found = contents(disk / "j")
        assert found == before == expected(*range(len(before))) and len(before) > 100
        for path in (disk / "j").glob("*.zst"):
            path.unlink()
        fill(disk / "j", 3)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_journal_that_may_only_be_read_is_read(tmp_path):
    """As a plain user: root may write everywhere."""
    fill(tmp_path / "j")
    if os.geteuid() == 0:
        for path in (tmp_path, *tmp_path.parents):
            if "pytest" in str(path):
                path.chmod(0o755)
    else:
        (tmp_path / "j").chmod(0o555)
    done = subprocess.run([sys.executable, "-c", READER, tmp_path / "j"], capture_output=True, text=True)
    assert done.returncode == 0 and "/j/open-" in done.stdout, done.stderr


READER = """
from tests.core.test_journal import *
if os.geteuid() == 0:
    os.setuid(65534)
folder = Path(sys.argv[1])
assert contents(folder) == expected(*range(40))
try:
    fill(folder, 1)
except PermissionError as error:
    print(error.filename)
"""


def test_what_was_appended_is_synced_after_a_while(tmp_path, monkeypatch):
    synced: list[int] = []
    now = [100.0]
    monkeypatch.setattr(journals.os, "fsync", synced.append)
    monkeypatch.setattr(journals.time, "monotonic", lambda: now[0])
    with closing(open_journal(tmp_path)) as journal:
        journal.append("0" * 32, (0, 0.0), b"")
        synced.clear()
        for seconds, count in ((4.9, 0), (0.2, 1), (60, 1)):
            now[0] += seconds
            journal.sync_if_due()
            assert len(synced) == count
        journal.append("0" * 32, (0, 0.0), b"")
        now[0] += 5.1
        journal.append("0" * 32, (0, 0.0), b"")
        assert len(synced) == 2
