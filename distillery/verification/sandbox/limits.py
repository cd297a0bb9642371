"""What a program may use, and what it did."""

from dataclasses import dataclass

from distillery.core.config import Positive, PositiveFloat, Section


@dataclass(frozen=True)
class Limits(Section):
    """What a program may use. A row with limits of its own (``time_limit``, ``memory_limit``) gets those."""

    seconds: PositiveFloat
    """CPU seconds per test; ten tests together may take three times as long."""
    memory: Positive
    """MiB, for the whole program with all its processes."""
    output: Positive
    """MiB of output per test."""
    processes: Positive
    """Processes and threads at any time."""
    packages: tuple[str, ...] = ()
    """Installed packages that programs and tests may import, with what they require."""
    tests: Positive = 10
    """How many of its tests are run, the first ones."""


@dataclass(frozen=True)
class Answer:
    """What a program did: how it ended, its output, and a message of its that `values.parse` reads.

    ``status`` is ok, error, flood (too much output), timeout (its CPU seconds are used up), stalled (it waited, or got no CPU,
    for several times as long), memory, or dead (its sandbox is gone).
    """

    status: str
    output: bytes = b""
    why: str = ""
    cpu: float = 0.0

    @property
    def text(self) -> str:
        return self.output.decode("utf-8", "replace")
