"""Lines that a stage prints: progress while it works, a summary at its end; and a table of what all running stages are at.

``python -m distillery.core.progress`` (`make progress`) shows the table, from any machine that sees the folder.
"""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distillery.core.text_table import format_table

FOLDER = Path(os.environ.get("DVC_ROOT", ".")) / ".logs" / "progress"
Server = dict[str, Any]
"""A server's ``url``, ``answers``, ``in_flight``, and how many seconds it still ``rests``."""
SILENT = 60.0
"""Seconds without a sign of life after which a stage on another machine counts as stopped."""


def in_words(counts: Mapping[str, Any]) -> str:
    """``5 ngram, 2 perplexity``, the most frequent first; inner counts are added up; ``nothing`` where there are none."""
    sums = {name: sum(count.values()) if isinstance(count, Mapping) else count for name, count in counts.items()}
    found = sorted(((count, name) for name, count in sums.items() if count), key=lambda pair: (-pair[0], pair[1]))
    return ", ".join(f"{count} {name}" for count, name in found) or "nothing"


def log(stage: str, line: str) -> None:
    """Prints one line under the stage's name."""
    print(f"{stage}: {line}", flush=True)


class Progress:
    """One line every few seconds: done, rate, time left.

    The clock starts at the first update, so that neither the start of an engine nor imports count in the rate. ``total``
    is None where unknown; ``every`` is in seconds.
    """

    def __init__(self, stage: str, unit: str, total: int | None = None, every: float = 5.0):
        self.stage, self.unit, self.total, self.every = stage, unit, total, every
        self.first: int | None = None
        self.started = self.shown = 0.0

    def update(self, done: int, note: str = "", servers: Sequence[Server] = (), **figures: float) -> None:
        """Reports how much is done by now, if the last report is old enough; servers and figures are for the table alone."""
        now = time.monotonic()
        if self.first is None:
            self.first, self.started, self.shown = done, now, now
        elif now - self.shown >= self.every:
            self.shown = now
            log(self.stage, self._line(done, now - self.started) + note)
            self._record(done, now - self.started, figures, servers)

    def _line(self, done: int, seconds: float) -> str:
        rate = self._rate(done, seconds)
        of_total = "" if self.total is None else f"/{self.total}"
        if self.total is None or not rate:
            return f"{done}{of_total} {self.unit}, {rate:.3g} per second"
        return f"{done}{of_total} {self.unit}, {rate:.3g} per second, {(self.total - done) / rate:.0f} s left"

    def _rate(self, done: int, seconds: float) -> float:
        return (done - (self.first or 0)) / max(seconds, 1e-9)

    def _record(self, done: int, seconds: float, figures: dict[str, float], servers: Sequence[Server]) -> None:
        """Keeps the state where `table` finds it."""
        about = {"stage": self.stage, "unit": self.unit, "done": done, "total": self.total, "at": time.time()}
        about |= {"rate": self._rate(done, seconds), "host": platform.node(), "pid": os.getpid(), "figures": figures}
        about |= {"seconds": seconds, "servers": list(servers)}
        path = own_path(self.stage)
        with suppress(OSError):  # a full disk ends no stage for the sake of a table
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".tmp").write_text(json.dumps(about))
            path.with_suffix(".tmp").rename(path)


def own_path(stage: str) -> Path:
    return FOLDER / f"{stage.replace('/', '_')[:100]}-{platform.node()}-{os.getpid()}.json"


def forget() -> None:
    """Removes this process's entries from the table."""
    for path in FOLDER.glob(f"*-{platform.node()}-{os.getpid()}.json"):
        path.unlink(missing_ok=True)


def running(about: dict[str, Any], now: float) -> bool:
    """Whether a stage is still at work: its process is there, or on another machine it was a moment ago."""
    if about["host"] == platform.node():
        return Path(f"/proc/{about['pid']}").exists()
    return bool(now - about["at"] < SILENT)


def row_of(about: dict[str, Any], now: float) -> list[str]:
    left = (about["total"] - about["done"]) / about["rate"] if about["total"] and about["rate"] else None
    done = f"{about['done']}/{about['total']}" if about["total"] else f"{about['done']}"
    state = f"{left / 60:.0f} min left" if left is not None else "running"
    state = state if running(about, now) else f"stopped {(now - about['at']) / 60:.0f} min ago"
    figures = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in about["figures"].items())
    return [about["stage"], f"{done} {about['unit']}", f"{about['rate']:.3g}/s", state, about["host"], figures]


def server_row(server: Server, seconds: float, host: str) -> list[str]:
    """A server that a stage asks, below that stage."""
    state = f"rests {server['rests']:.0f} s" if server["rests"] else f"{server['in_flight']} in flight"
    rate = server["answers"] / max(seconds, 1e-9)
    return [f"  {server['url']}", f"{server['answers']} answers", f"{rate:.3g}/s", state, host, ""]


def table(now: float) -> Iterator[str]:
    """A line per stage that is at work, or was when it was killed, and below it one per server that it asks."""
    rows = []
    for path in sorted(FOLDER.glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):  # ended meanwhile, or cut by a full disk
            about = json.loads(path.read_text())
            servers = [server_row(server, about["seconds"], about["host"]) for server in about["servers"]]
            rows += [row_of(about, now), *servers]
    if not rows:
        yield "no stage is at work"
    else:
        yield from format_table(["stage", "done", "rate", "state", "machine", ""], rows)


def main() -> None:
    print("\n".join(table(time.time())))


if __name__ == "__main__":
    from distillery.core.stage import run_stage  # which imports this module

    run_stage(main)
