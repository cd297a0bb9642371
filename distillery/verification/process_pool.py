"""Processes that verify and can be killed: what runs here may never end, or may crash its process."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from multiprocessing import get_context
from threading import Lock
from time import monotonic
from typing import Any

from pebble import ProcessExpired, ProcessPool

from distillery.core.processes import die_with_parent
from distillery.verification.verdict import Verdict, unknown

LATE = "timed out"
REMEMBERED = 100_000
TASKS_A_PROCESS = 2000


def timed(function: Callable[..., Verdict], *arguments: Any) -> Verdict:
    """The verdict of a call, with the seconds that it took."""
    began = monotonic()
    return function(*arguments).after(monotonic() - began)


def _begin(prepare: tuple[Callable[[], Any], ...]) -> None:
    die_with_parent()
    for each in prepare:
        each()


class Pool:
    """Runs functions that give a verdict, each for ``timeout`` seconds at most; equal calls are made once.

    Each process first calls ``prepare``, so that imports do not count towards the limit.
    """

    def __init__(self, processes: int, timeout: float, prepare: tuple[Callable[[], Any], ...] = ()):
        self.timeout = timeout
        context = get_context("forkserver")
        self.pool = ProcessPool(processes, TASKS_A_PROCESS, initializer=_begin, initargs=(prepare,), context=context)
        self.lock = Lock()
        self.known: OrderedDict[tuple[Any, ...], Future[Verdict]] = OrderedDict()

    def run(self, verifier: str, function: Callable[..., Verdict], *arguments: Any, share: float = 1.0) -> "Future[Verdict]":
        """The verdict of ``function(*arguments)``; unknown where it takes too long, raises, or kills its process.

        ``share``: of the usual time, how much this call may take.
        """
        call = (function, *arguments)
        with self.lock:
            if call in self.known:
                self.known.move_to_end(call)
                return self.known[call]
            future = self.known[call] = Future()
            if len(self.known) > REMEMBERED:
                self.known.popitem(last=False)
        seconds = share * self.timeout
        work = self.pool.schedule(timed, args=list(call), timeout=seconds)
        work.add_done_callback(lambda ended: future.set_result(self._verdict(verifier, ended, seconds)))
        return future

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()

    def _verdict(self, verifier: str, ended: Any, seconds: float) -> Verdict:
        try:
            return ended.result()
        except TimeoutError:
            return unknown(verifier, f"{LATE} after {seconds:g} s").after(seconds)
        except ProcessExpired as error:
            return unknown(verifier, f"the verifying process died (exit code {error.exitcode})")
        except Exception as error:
            return unknown(verifier, f"{type(error).__name__}: {error}")
