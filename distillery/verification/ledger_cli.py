"""python -m distillery.verification.ledger_cli OWNER [--compact]: what a ledger holds, and its files merged into one."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from distillery.core.stage import run_stage
from distillery.core.text_table import format_table
from distillery.generation.ledger import ROOT, Ledger
from distillery.verification.verdict_store import Verdicts

USAGE = "usage: python -m distillery.verification.ledger_cli OWNER [--compact]    (OWNER: a teacher, judge, evaluate-NAME)"


def show(owner: str, root: Path) -> Iterator[str]:
    """Completions, tokens and engine seconds, by verdict and attempt."""
    with closing(Ledger(owner, root)) as ledger, closing(Verdicts(owner, root)) as verdicts:
        yield from _tables(f"{root / owner}", ledger, dict(verdicts.last()))


def _tables(where: str, ledger: Ledger, judged: dict[str, str]) -> Iterator[str]:
    counts: Counter[tuple[str, str]] = Counter()
    attempts: Counter[tuple[int, str]] = Counter()
    for key, entry in ledger.every():
        verdict = judged.get(key, "unverified")
        for field, value in (("rows", 1), ("tokens", entry.completion_tokens), ("cut", entry.finish_reason == "length")):
            counts[verdict, field] += value
        counts[verdict, "seconds"] += round(1000 * entry.seconds)
        attempts[entry.attempt, verdict] += 1
    names = sorted({verdict for verdict, _ in counts})
    yield f"{where}: {attempts.total()} completions in {len(ledger.journal.files)} files"
    rows = [
        [v, *(str(counts[v, field]) for field in ("rows", "cut", "tokens")), f"{counts[v, 'seconds'] / 1000:.1f}"]
        for v in names
    ]
    yield from format_table(["verdict", "rows", "cut", "tokens", "engine s"], rows)
    yield ""
    numbers = sorted({attempt for attempt, _ in attempts})
    yield from format_table(["attempt", *names], [[str(n), *(str(attempts[n, v]) for v in names)] for n in numbers])


def compact(owner: str, root: Path) -> str:
    """Merges the files of completions and of verdicts, each record once. Raises DataError while another run uses them."""
    with closing(Ledger(owner, root)) as ledger, closing(Verdicts(owner, root)) as verdicts:
        merged = [
            f"{before} files into new ones, of {after} {what}"
            for what, journal in (("completions", ledger.journal), ("verdicts", verdicts.journal))
            for before, after in [journal.compact()]
        ]
        lost = [*ledger.journal.damaged, *verdicts.journal.damaged]
    return "\n".join([f"ledger: {owner}: merged {', '.join(merged)}", *(f"ledger: damaged, left out: {each}" for each in lost)])


def main(*arguments: str) -> None:
    owners, options = [a for a in arguments if not a.startswith("-")], [a for a in arguments if a.startswith("-")]
    if len(owners) != 1 or options not in ([], ["--compact"]):
        sys.exit(USAGE)
    (owner,) = owners
    if not (ROOT / owner).is_dir():
        there = ", ".join(sorted(path.name for path in ROOT.glob("*") if path.is_dir())) or "nothing yet"
        sys.exit(f"ledger: {ROOT / owner}: no such ledger; there is {there}")
    if options:
        print(compact(owner, ROOT))
    print("\n".join(show(owner, ROOT)))


if __name__ == "__main__":
    run_stage(main)
