"""Lines that a stage prints: progress while it works, a summary at its end."""

import time


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

    def update(self, done: int, note: str = "") -> None:
        """Reports how much is done by now; prints a line if the last one is old enough."""
        now = time.monotonic()
        if self.first is None:
            self.first, self.started, self.shown = done, now, now
        elif now - self.shown >= self.every:
            self.shown = now
            log(self.stage, self._line(done, now - self.started) + note)

    def _line(self, done: int, seconds: float) -> str:
        rate = (done - (self.first or 0)) / max(seconds, 1e-9)
        of_total = "" if self.total is None else f"/{self.total}"
        if self.total is None or not rate:
            return f"{done}{of_total} {self.unit}, {rate:.3g} per second"
        return f"{done}{of_total} {self.unit}, {rate:.3g} per second, {(self.total - done) / rate:.0f} s left"
