"""``python -m distillery.core.pipeline [AT_ONCE] [STAGE]`` (`make repro`) runs whatever changed, stages beside each other.

With a stage only that one and those that it needs are run.

Every stage runs by ``dvc repro --single-item`` as soon as those it needs are done, at most ``AT_ONCE`` at a time: by default
one where there is a GPU, since each takes all of its memory, and three on the CPU, where a stage that loads libraries leaves
room for others. What a stage prints goes into a file under .logs/; here it is one line when it has ended. A stage that fails
ends the run when the others at work have ended; what was done stays done.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic
from typing import Any

from distillery.core.arms import arm_names
from distillery.core.errors import ConfigError
from distillery.core.files import read_json, write_json
from distillery.core.stage import run_stage
from distillery.core.teachers import teacher_names

LOGS = Path(".logs/stages")
DURATIONS = LOGS / "seconds.json"
RWLOCK = Path(".dvc/tmp/rwlock")
ON_CPU, CODE = 3, "code"
WIDTH = 110
SKIPPED = "didn't change, skipping"
Graph = dict[str, set[str]]
"""The stages that each stage needs."""


def graph() -> Graph:
    """The pipeline of dvc.yaml as DVC sees it, with those stages of other files that it needs."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        found = Repo(".").index.graph
    except DvcException as error:
        raise ConfigError(f"dvc.yaml: {' '.join(str(error).split())}") from None
    every = {stage.addressing: {needed.addressing for needed in found.successors(stage)} for stage in found}
    return with_needed({stage for stage in every if ":" not in stage}, every)


def with_needed(wanted: set[str], needs: Graph) -> Graph:
    """The part of the graph that holds these stages and all that they need."""
    while more := {needed for stage in wanted for needed in needs[stage]} - wanted:
        wanted = wanted | more
    return {stage: needed for stage, needed in needs.items() if stage in wanted}


def up_to(stage: str, needs: Graph) -> Graph:
    """The part of the graph that a stage needs, and itself."""
    if stage not in needs:
        raise ConfigError(f"dvc.yaml: no stage {stage!r}; there are {', '.join(sorted(needs))}")
    return with_needed({stage}, needs)


def outdated(needs: Graph) -> Graph:
    """The part of the graph that may have to run: what DVC calls changed, and everything after that."""
    done = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"`dvc status` failed: {done.stderr.strip()}")
    wanted = set(json.loads(done.stdout)) & set(needs)
    while more := {stage for stage, needed in needs.items() if needed & wanted} - wanted:
        wanted |= more
    return {stage: needs[stage] & wanted for stage in needs if stage in wanted}


def default_at_once() -> int:
    """One stage where there is a GPU, else three."""
    has_gpu = shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0
    return 1 if has_gpu else ON_CPU


def clear_lock() -> None:
    """Removes the empty lock that a killed run can leave, with which DVC refuses to start."""
    if RWLOCK.exists() and not RWLOCK.stat().st_size:
        RWLOCK.unlink()


@dataclass(frozen=True)
class Ended:
    """How a stage ended: whether it ran or had not changed, how long it took, and whether it failed."""

    stage: str
    ran: bool
    failed: bool
    seconds: float

    @property
    def log(self) -> Path:
        return log_of(self.stage)


def log_of(stage: str) -> Path:
    return LOGS / f"{re.sub('[^A-Za-z0-9@._-]', '_', stage)}.log"


def reproduce(stage: str) -> int:
    """Runs one stage, or finds it unchanged: DVC's command; its exit code."""
    from dvc.cli import main as dvc

    return dvc(["--wait-for-lock", "repro", "--single-item", stage])


def _work(stage: str) -> None:
    """A stage's process, whose output goes into its log."""
    with log_of(stage).open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(reproduce(stage))


class Work:
    """A stage at work, in a fork of this process: DVC is imported once, and not by every stage for itself."""

    def __init__(self, stage: str):
        sys.stdout.flush()
        self.stage, self.began = stage, monotonic()
        self.process: Any = get_context("fork").Process(target=_work, args=(stage,))
        self.process.start()

    def ended(self) -> Ended:
        self.process.join()
        ran = SKIPPED not in log_of(self.stage).read_text(errors="replace")
        return Ended(self.stage, ran, self.process.exitcode != 0, monotonic() - self.began)


def summary(stage: str) -> str:
    """The last line that a stage said about itself, which sums it up; empty where it said nothing."""
    said = re.compile(rf"{re.escape(stage.rpartition(':')[2].split('@')[0])}(?:@[^:]+)?: (.+)")
    found = [match[1] for line in log_of(stage).read_text(errors="replace").splitlines() if (match := said.fullmatch(line))]
    return found[-1] if found else ""


def problem(stage: str) -> str:
    """What a failed stage said last, before DVC's own words."""
    lines = [line for line in log_of(stage).read_text(errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("ERROR:", "Running stage", "> "))]
    return (own or lines or ["it said nothing"])[-1][:500]


class Board:
    """One line per stage that has ended: its place among all, the time since the start, and about how long it still takes."""

    def __init__(self, stages: Iterable[str], at_once: int):
        self.left, self.total, self.at_once, self.began = set(stages), len(set(stages)), at_once, monotonic()
        self.known: dict[str, float] = read_json(DURATIONS) if DURATIONS.exists() else {}
        self.unchanged = 0

    def ended(self, end: Ended) -> Iterator[str]:
        """What there is to print; stages that had not changed are counted, not printed."""
        self.left.discard(end.stage)
        if not end.ran:
            self.unchanged += 1
            return
        self.known[end.stage] = round(end.seconds, 1)
        place = f"[{self.total - len(self.left)}/{self.total} {clock(monotonic() - self.began)}{self.remaining()}]"
        line = f"{place} {end.stage} {'FAILED after' if end.failed else 'took'} {end.seconds:.0f} s"
        said = "" if end.failed else summary(end.stage)
        yield f"{line}: {said}"[:WIDTH] if said else line
        if end.failed:
            yield f"  {problem(end.stage)}"
            yield f"  everything it said: {end.log}"

    def remaining(self) -> str:
        """About how long the rest takes, by what its stages took before, all slots busy; empty where that is unknown."""
        known = [self.known.get(stage) for stage in self.left]
        seconds = sum(each for each in known if each is not None)
        return f", {clock(seconds / self.at_once)} left" if known and None not in known else ""


def clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def run_all(needs: Graph, at_once: int) -> list[Ended]:
    """Runs every stage after those that it needs; how each ended. After a failure no further one starts."""
    board, found = Board(needs, at_once), list[Ended]()
    done: set[str] = set()
    working: dict[Any, Work] = {}
    while True:
        failed, started = any(end.failed for end in found), {work.stage for work in working.values()}
        ready = [stage for stage in needs if stage not in done | started and needs[stage] <= done]
        for work in [] if failed else map(Work, by_urgency(ready, needs)[: at_once - len(working)]):
            working[work.process.sentinel] = work
        if not working:
            break
        for sentinel in wait(list(working)):
            end = working.pop(sentinel).ended()
            found.append(end)
            done |= set() if end.failed else {end.stage}
            for line in board.ended(end):
                print(line, flush=True)
    write_json(board.known, DURATIONS)
    print(f"{len(found) - board.unchanged} stages ran, {board.unchanged} had not changed, {clock(monotonic() - board.began)}")
    return found


def by_urgency(stages: list[str], needs: Graph) -> list[str]:
    """Stages with the longest chain of others after them first."""
    after: dict[str, int] = {}

    def depth(stage: str) -> int:
        if stage not in after:
            after[stage] = 1 + max((depth(other) for other, needed in needs.items() if stage in needed), default=0)
        return after[stage]

    return sorted(stages, key=lambda stage: (-depth(stage), stage))


def main(*arguments: str) -> None:
    at_once, *target = arguments if arguments and arguments[0][:1].isdecimal() else ("", *arguments)
    if len(target) > 1 or "".join(target).startswith("-") or (at_once and not (at_once.isdecimal() and int(at_once))):
        raise ConfigError("usage: make repro AT_ONCE=2, or any other number of stages that run beside each other")
    teacher_names(), arm_names()  # their errors come before anything starts
    LOGS.mkdir(parents=True, exist_ok=True)
    clear_lock()
    needs = up_to(target[0], graph()) if target else graph()
    code = Work(CODE).ended()  # by its hashes DVC sees which code changed
    if code.failed:
        raise ConfigError(f"{CODE}: {problem(CODE)}")
    found = run_all(outdated(needs), int(at_once) if at_once else default_at_once())
    if any(end.failed for end in found):
        raise ConfigError("a stage failed; fix what it names and run again: finished stages are kept")


if __name__ == "__main__":
    run_stage(main)
