"""Engines in processes of their own: parallel copies of a model, and a judge that runs alongside a teacher."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

from distillery.core.errors import EngineError
from distillery.core.processes import collect_rarely, die_with_parent
from distillery.generation.engine import Completion, Engine, Request


@dataclass(frozen=True)
class Failed:
    """The last message of an engine process that failed."""

    why: str


def _serve(pipe: Connection, start: Callable[[], Engine], devices: str | None) -> None:
    """The process: takes requests from the pipe, works, sends completions, until the pipe closes."""
    die_with_parent()
    collect_rarely()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    try:
        engine, waiting = start(), 0
        while True:
            while pipe.poll(0 if waiting else None):
                engine.submit(pipe.recv())
                waiting += 1
            for completion in engine.poll():
                waiting -= 1
                pipe.send(completion)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:
        pipe.send(Failed(str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"))


def _send(pipe: Connection, outbox: "SimpleQueue[Request | None]") -> None:
    """Sends requests on a thread of its own: two processes that send to each other while neither reads wait for ever."""
    while (request := outbox.get()) is not None:
        try:
            pipe.send(request)
        except OSError:  # `poll` reads why
            return


class SubprocessEngine:
    """Copies of an engine, each in a process; a request goes to the copy with the fewest in flight.

    ``start`` creates the engine there, so it must be picklable. ``devices`` gives each copy its GPUs; None leaves
    them unchanged.
    """

    def __init__(self, start: Callable[[], Engine], copies: int = 1, devices: int | None = None):
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        self.in_flight: dict[Connection, int] = {}
        self.place: dict[str, Connection] = {}
        self.outboxes: dict[Connection, SimpleQueue[Request | None]] = {}
        context = get_context("spawn")
        seen = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        for copy in range(copies):
            ours, theirs = context.Pipe()
            own = range(copy * devices, (copy + 1) * devices) if devices else None
            names = None if own is None else ",".join(seen[i] if seen else str(i) for i in own)
            process = context.Process(target=_serve, args=(theirs, start, names), daemon=False)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
            self.in_flight[ours] = 0
            self.outboxes[ours] = SimpleQueue()
            threading.Thread(target=_send, args=(ours, self.outboxes[ours]), daemon=True).start()

    def submit(self, request: Request) -> None:
        pipe = min(self.pipes, key=lambda each: self.in_flight[each])
        self.in_flight[pipe] += 1
        self.place[request.key] = pipe
        self.outboxes[pipe].put(request)

    def poll(self) -> list[Completion]:
        found = []
        for pipe in wait(self.pipes, 0.05):
            assert isinstance(pipe, Connection)
            try:
                answer = pipe.recv()
            except (EOFError, OSError):
                raise EngineError("an engine's process died without a word; is its memory enough?") from None
            if isinstance(answer, Failed):
                raise EngineError(answer.why)
            self.in_flight[self.place.pop(answer.key)] -= 1
            found.append(answer)
        return found

    def close(self) -> None:
        for pipe in self.pipes:
            self.outboxes[pipe].put(None)
            pipe.close()
        for process in self.processes:
            process.join(20)
            process.kill()
            process.join()
