"""python -m distillery.generation.ledger_cli OWNER [--compact]: what a ledger holds, and its files merged into one."""

import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from distillery.core.journal import OPEN, Journal, alive, parse_record
from distillery.core.text_table import format_table
from distillery.generation.ledger import ROOT, Ledger

USAGE = "usage: python -m distillery.generation.ledger_cli OWNER [--compact]    (OWNER: a teacher, judge, evaluate-NAME)"


def verdicts(folder: Path) -> dict[str, str]:
    """The last verdict on each completion, by the completion's key."""
    records = filter(None, (parse_record(line) for line, _ in Journal(folder / "verdicts").refresh()))
    by_time = sorted((record.get("at", 0.0), record["completion"], record["verdict"]) for record in records)
    return {completion: verdict for _, completion, verdict in by_time}


def show(owner: str, root: Path) -> Iterator[str]:
    """Completions, tokens and engine seconds, by verdict and attempt."""
    ledger, judged = Ledger(owner, root), verdicts(root / owner)
    counts: Counter[tuple[str, str]] = Counter()
    attempts: Counter[tuple[int, str]] = Counter()
    for key, entries in ledger.entries.items():
        for entry in entries:
            verdict = judged.get(key, "unverified")
            for field, value in (("rows", 1), ("tokens", entry.completion_tokens), ("cut", entry.finish_reason == "length")):
                counts[verdict, field] += value
            counts[verdict, "seconds"] += round(1000 * entry.seconds)
            attempts[entry.attempt, verdict] += 1
    names = sorted({verdict for verdict, _ in counts})
    yield f"{root / owner}: {sum(map(len, ledger.entries.values()))} completions in {len(ledger.journal.files())} files"
    rows = [
        [v, *(str(counts[v, field]) for field in ("rows", "cut", "tokens")), f"{counts[v, 'seconds'] / 1000:.1f}"]
        for v in names
    ]
    yield from format_table(["verdict", "rows", "cut", "tokens", "engine s"], rows)
    yield ""
    numbers = sorted({attempt for attempt, _ in attempts})
    yield from format_table(["attempt", *names], [[str(n), *(str(attempts[n, v]) for v in names)] for n in numbers])


def compact(owner: str, root: Path) -> str:
    """Merges the files of completions and of verdicts, each record once. Refuses while another run writes."""
    merged = []
    for folder in (root / owner, root / owner / "verdicts"):
        if busy := [path for path in folder.glob(f"{OPEN}*.jsonl") if alive(path)]:
            sys.exit(f"ledger: {busy[0]} is being written; wait for that run to end, or remove `{OPEN}` from its name")
        journal = Journal(folder)
        before, after = journal.compact(_whole(journal))
        merged.append(f"{before} files into one of {after} {'completions' if folder.name == owner else 'verdicts'}")
    return f"ledger: {owner}: merged {', '.join(merged)}"


def _whole(journal: Journal) -> Iterator[bytes]:
    """Every line once; truncated lines are dropped."""
    seen: set[bytes] = set()
    for line, _ in journal.refresh():
        digest = blake2b(line, digest_size=16).digest()
        if digest not in seen and line.endswith(b"}\n"):
            seen.add(digest)
            yield line


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
    main(*sys.argv[1:])
