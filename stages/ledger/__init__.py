"""The ledger: every completion that was ever paid for, kept outside the pipeline's outputs.

DVC deletes a stage's outputs before it runs the stage; the ledger stays. A completion is found by the key of what was
asked; `valid` says whether it still holds under another ``max_tokens`` or context.

Each writer appends to a journal of its own, a line a completion, so that a killed run loses only what was in flight.
On closing, the journal is renamed to an immutable part. A torn last line is the mark of a kill and is passed over.
"""

import json
import os
import socket
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from stages.engines import PROMPT_TOO_LONG, Completion, Engine, Request, Sampling
from stages.tables import DataError

ROOT = Path(os.environ.get("DVC_ROOT", ".")) / ".ledger"


def valid(completion: Completion, sampling: Sampling, context: int) -> bool:
    """Whether asking again would give the same under ``max_tokens`` and a model's ``context``, both in tokens.

    What ended by itself holds where it fits; what was cut holds where it would be cut at the same place.
    """
    room = min(sampling.max_tokens, context - completion.prompt_tokens)
    if completion.finish_reason == "length":
        return completion.completion_tokens == room
    return completion.completion_tokens <= room


class Ledger:
    """The completions of one owner (a teacher, a student), readable at once and appended to as they come."""

    def __init__(self, owner: str, root: Path = ROOT):
        self.folder = root / owner
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kept: dict[str, list[Completion]] = defaultdict(list)
        for path in sorted(self.folder.glob("*.jsonl")):
            for completion in _read(path):
                self.kept[completion.key].append(completion)
        writer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.journal = self.folder / f"open-{writer}.jsonl"
        self.file: int | None = None

    def find(self, key: str, sampling: Sampling, context: int) -> Completion | None:
        """A stored completion that still holds; of several, the shortest and then the first by its text."""
        held = [completion for completion in self.kept.get(key, ()) if valid(completion, sampling, context)]
        return min(held, key=lambda completion: (completion.completion_tokens, completion.text), default=None)

    def add(self, completion: Completion) -> None:
        """Keeps a completion; it is in the operating system's hands when this returns, in one write."""
        if self.file is None:
            self.file = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        line = json.dumps(asdict(completion), ensure_ascii=True).encode() + b"\n"
        while line:
            line = line[os.write(self.file, line) :]
        self.kept[completion.key].append(completion)

    def close(self) -> None:
        """Seals this writer's journal as an immutable part."""
        if self.file is not None:
            os.fsync(self.file)
            os.close(self.file)
            self.file = None
            self.journal.rename(self.journal.with_name(self.journal.name.replace("open-", "part-", 1)))


class LedgerEngine:
    """An engine that asks only for what the ledger does not hold, and starts the real one only when it must.

    ``context`` is the real engine's, in tokens.
    """

    def __init__(self, ledger: Ledger, context: int, start: Callable[[], Engine]):
        self.ledger, self.context, self.start = ledger, context, start
        self.engine: Engine | None = None
        self.found: list[Completion] = []
        self.asked = 0
        self.reused = 0

    def submit(self, request: Request) -> None:
        stored = self.ledger.find(request.key, request.sampling, self.context)
        if stored:
            self.found.append(stored)
            self.reused += 1
            return
        if self.engine is None:
            self.engine = self.start()
        self.asked += 1
        self.engine.submit(request)

    def poll(self) -> list[Completion]:
        if self.found:
            found, self.found = self.found, []
            return found
        if self.engine is None:
            return []
        fresh = self.engine.poll()
        for completion in fresh:
            if completion.finish_reason != PROMPT_TOO_LONG:
                self.ledger.add(completion)
        return fresh


def _read(path: Path) -> Iterator[Completion]:
    """The whole lines of a part or journal; a line that a kill tore is not a completion."""
    for line in path.read_bytes().split(b"\n"):
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        try:
            yield Completion(**fields)
        except TypeError:
            raise DataError(f"{path}: not a completion of this version; move the file away to generate anew") from None
