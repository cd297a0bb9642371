"""The judge: a language model that is asked whether, or how far, an answer agrees with the reference.

Its prompts are files, math.txt and science.txt in the folder ``prompts`` of params.yaml. It must end with one line of a
strict form; an answer without that line is retried once, and is then inconclusive. A judge that is down ends the run, with the
reason: all that it decides would be inconclusive.
"""

import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from distillery.core.config import Section
from distillery.core.errors import ConfigError, EngineError
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import EngineSettings, Sampling
from distillery.generation.engine import NO_OUTPUT_REASONS, Completion, Request
from distillery.verification.futures import then
from distillery.verification.verdict import Item

_HOLE = re.compile(r"\{(question|reference|answer)\}")


@dataclass(frozen=True)
class JudgeSettings(Section):
    """How the judge runs."""

    engine: EngineSettings
    """The engine."""
    sampling: Sampling
    """Sampling settings."""


@dataclass(frozen=True)
class JudgeReply:
    """The judge's verdict, matched by the required form; None, and why, where its answer does not match.

    ``seconds``: what the engine spent on it.
    """

    words: str | None
    why: str = ""
    seconds: float = 0.0


class EngineThread:
    """Drives an engine on a thread of its own, and gives each request's completion as a future."""

    def __init__(self, engine: LedgerEngine):
        self.engine = engine
        self.inbox: SimpleQueue[tuple[Request, Future[Completion]] | None] = SimpleQueue()
        self.waiting: dict[str, list[Future[Completion]]] = {}
        self.dead: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True, name="judge")
        self.thread.start()

    def ask(self, request: Request) -> "Future[Completion]":
        future: Future[Completion] = Future()
        self.inbox.put((request, future))
        return future

    def close(self) -> None:
        self.inbox.put(None)
        self.thread.join(30)
        self.engine.close()

    def _run(self) -> None:
        while (asked := self._taken()) is not None:
            try:
                for request, future in asked:
                    self._submit(request, future)
                for completion in self.engine.poll() if self.waiting else ():
                    for future in self.waiting.pop(completion.key):
                        future.set_result(completion)
            except Exception as error:  # a full disk under the ledger, too: whoever waits must hear of it
                self.dead = error
                waiting = [future for futures in self.waiting.values() for future in futures] + [future for _, future in asked]
                self.waiting = {}
                for future in waiting:
                    if not future.done():
                        future.set_exception(error)

    def _taken(self) -> "list[tuple[Request, Future[Completion]]] | None":
        """All that was asked since; waits for the first where nothing is being generated. None once the thread shall end."""
        found = []
        try:
            found.append(self.inbox.get(block=not self.waiting))
            while True:
                found.append(self.inbox.get_nowait())
        except Empty:
            pass
        asked = [each for each in found if each is not None]
        return asked if len(asked) == len(found) else None

    def _submit(self, request: Request, future: "Future[Completion]") -> None:
        """Equal requests are asked once."""
        if self.dead:
            raise self.dead
        self.waiting.setdefault(request.key, []).append(future)
        if len(self.waiting[request.key]) == 1:
            self.engine.submit(request)


class Judge:
    """Asks a model about items. ``revision`` is the model's, for the ledger."""

    def __init__(self, thread: EngineThread, revision: str, sampling: Sampling, prompts: dict[str, str]):
        self.thread, self.revision, self.sampling, self.prompts = thread, revision, sampling, prompts

    def ask(self, prompt: str, form: re.Pattern[str], item: Item) -> "Future[JudgeReply]":
        """The judge's reply on an item; the last line of its answer must fully match ``form``.

        The future raises EngineError where the judge is down.
        """
        fields = {"question": item.question, "reference": item.ground_truth or "", "answer": item.answer or ""}
        text = _HOLE.sub(lambda hole: fields[hole[1]], self.prompts[prompt])
        return then(self._ask(text, form, 1), lambda said: said if said.words else self._ask(text, form, 2))

    def close(self) -> None:
        self.thread.close()

    def _ask(self, text: str, form: re.Pattern[str], attempt: int) -> "Future[JudgeReply]":
        request = Request(({"role": "user", "content": text},), self.revision, self.sampling, attempt)
        out: Future[JudgeReply] = Future()

        def settle(answered: "Future[Completion]") -> None:
            if error := answered.exception():
                out.set_exception(EngineError(f"the judge is down: {error}"))
                return
            completion = answered.result()
            if completion.finish_reason in NO_OUTPUT_REASONS:
                said = JudgeReply(None, f"the judge gives no answer: {completion.text or completion.finish_reason}")
            else:
                said = read(completion.text, form)
            out.set_result(replace(said, seconds=self.thread.engine.seconds(request)))

        self.thread.ask(request).add_done_callback(settle)
        return out


def read(text: str, form: re.Pattern[str]) -> JudgeReply:
    """Reads the judge's last line in its strict form."""
    lines = text.strip().splitlines()
    match = form.fullmatch(lines[-1].strip(" *`")) if lines else None
    return (
        JudgeReply(match[1].lower())
        if match
        else JudgeReply(None, "the judge's last line is not in the form that was asked for")
    )


def prompt(folder: str, name: str) -> str:
    """A prompt by its name. Raises ConfigError where its file is missing."""
    path = Path(folder, f"{name}.txt")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"params.yaml: prompts: {path}: {error.strerror}") from None
