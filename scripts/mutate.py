"""Mutation testing: small changes to result-critical code, each of which some test must detect.

    python scripts/mutate.py [--count 60] [--seed 0] [--workers 2]

A mutant is one operator, comparison, constant, condition or call changed in one of the modules in TARGETS, drawn at random. The
fast tests of its module run in a copy of the project, then, where they notice nothing, the slow ones, too; each result is
printed with the mutant's line. Whether a surviving mutant is equivalent to the original must be judged by hand.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
LIB, TESTS = "distillery", "tests"
TARGETS: dict[str, list[str]] = {
    "stages/distill.py": ["verification/test_distiller.py", "generation/test_released_traces.py"],
    f"{LIB}/verification/distiller.py": ["verification/test_distiller.py"],
    f"{LIB}/generation/ledger.py": ["generation/test_ledger.py", "verification/test_distiller.py"],
    f"{LIB}/generation/cached_engine.py": ["generation/test_ledger.py", "verification/test_distiller.py"],
    f"{LIB}/core/journal.py": ["core/test_journal.py", "generation/test_ledger.py", "verification/test_ledger_cli.py"],
    f"{LIB}/core/record_file.py": ["core/test_journal.py", "generation/test_ledger.py"],
    f"{LIB}/verification/math_verifier.py": ["verification/test_math_verifier.py"],
    f"{LIB}/verification/math_compare.py": ["verification/test_math_verifier.py"],
    f"{LIB}/verification/math_text.py": ["verification/test_math_verifier.py"],
    f"{LIB}/verification/science_verifier.py": ["verification/test_judge.py", "verification/test_math_verifier.py"],
    f"{LIB}/verification/code_verifier.py": ["verification/test_code_verifier.py", "verification/test_real_code.py"],
    f"{LIB}/verification/choice_verifier.py": ["verification/test_choice_verifier.py"],
    f"{LIB}/verification/code_blocks.py": ["verification/test_code_verifier.py"],
    f"{LIB}/verification/output_comparison.py": ["verification/test_code_verifier.py"],
    f"{LIB}/verification/program_check.py": ["verification/test_code_verifier.py"],
    f"{LIB}/verification/code_tests.py": ["verification/test_code_verifier.py", "verification/test_real_code.py"],
    f"{LIB}/verification/ifeval_verifier.py": ["verification/test_ifeval_verifier.py"],
    f"{LIB}/verification/reward_verifier.py": ["verification/test_reward_verifier.py"],
    f"{LIB}/verification/agreement.py": ["verification/test_agreement.py"],
    f"{LIB}/verification/router.py": ["verification"],
    f"{LIB}/verification/verdict.py": ["verification"],
    f"{LIB}/generation/openai_engine.py": ["generation/test_openai_engine.py"],
    f"{LIB}/generation/server_answers.py": ["generation/test_server_answers.py", "generation/test_openai_engine.py"],
    "stages/collect.py": ["corpus/test_collect.py"],
    "stages/clean.py": ["corpus/test_cleaning.py", "mini"],
    "stages/decontaminate.py": ["corpus/test_decontamination.py", "mini"],
    "stages/curate.py": ["corpus/test_curation.py", "stages/test_traces_to_windows.py"],
    "stages/pack.py": ["training/test_packing.py", "stages/test_traces_to_windows.py"],
    f"{LIB}/training/packing.py": ["training/test_packing.py", "training/test_launch.py"],
    "stages/tokenise.py": ["training/test_tokenization.py", "stages/test_traces_to_windows.py"],
    f"{LIB}/core/formats.py": ["core/test_response_parts.py"],
    f"{LIB}/core/response_parts.py": ["core/test_response_parts.py"],
    f"{LIB}/core/chat_template.py": [
        "core/test_chat_template.py",
        "core/test_public_templates.py",
        "training/test_tokenization.py",
    ],
    f"{LIB}/training/leakage.py": ["training/test_leakage.py"],
    f"{LIB}/generation/released_traces.py": ["generation/test_released_traces.py"],
    f"{LIB}/training/tokenization.py": ["training/test_tokenization.py", "stages/test_traces_to_windows.py"],
    "stages/score.py": ["stages/test_results.py"],
    f"{LIB}/evaluation/metrics.py": ["evaluation/test_metrics.py", "stages/test_results.py"],
    "stages/compare.py": ["evaluation/test_comparison.py", "evaluation/test_paired_statistics.py", "stages/test_results.py"],
    f"{LIB}/evaluation/paired_statistics.py": ["evaluation"],
}
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NO_TESTS = 5
"""Pytest's exit code where no test is selected."""
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One changed node: its position and its text before and after."""

    path: str
    line: int
    start: int
    end: int
    before: str
    after: str


def changes(node: ast.AST) -> list[ast.AST]:
    """The mutations of a node, one at a time."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        return [ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        return [ast.Compare(node.left, [SWAPS[type(node.ops[0])](), *node.ops[1:]], node.comparators)]
    if isinstance(node, ast.BoolOp):
        return [ast.BoolOp(SWAPS[type(node.op)](), node.values)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        return [node.operand]
    if isinstance(node, ast.IfExp):
        return [ast.IfExp(node.test, node.orelse, node.body)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        return [ast.Call(ast.Name(CALLS[node.func.id]), node.args, node.keywords)]
    if isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        return [ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)]
    return []


def decides_nothing(node: ast.AST) -> bool:
    """Annotations and settings classes, text for people, ``strict`` of ``zip`` (it checks what cannot be otherwise)."""
    match node:
        case ast.AnnAssign() | ast.JoinedStr() | ast.keyword(arg="strict") | ast.Compare(left=ast.Name(id="__name__")):
            return True
        case ast.Call(func=ast.Name(id="log" | "Progress" | "print")):
            return True
    return False


def without_effect(tree: ast.AST) -> set[int]:
    """Nodes within what decides no result; decorators (caching, threads) and arguments' annotations are among them."""
    found: set[int] = set()
    for node in ast.walk(tree):
        aside: list[ast.AST] = list(getattr(node, "decorator_list", []))
        aside += [node] if decides_nothing(node) else []
        aside += [node.annotation] if isinstance(node, ast.arg) and node.annotation else []
        found |= {id(inner) for each in aside for inner in ast.walk(each)}
    return found


def mutants_of(path: str) -> list[Mutant]:
    """Every mutant of a module."""
    source = (ROOT / path).read_text()
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    skipped, found = without_effect(tree := ast.parse(source)), []
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, ast.expr):
            continue
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = source.encode()[start:end].decode()
        for changed in changes(node):
            after = f"({ast.unparse(ast.fix_missing_locations(changed))})"
            found.append(Mutant(path, node.lineno, start, end, before, after))
    return found


def is_killed(mutant: Mutant, copy: Path) -> bool:
    """Whether a test fails with the mutant in place."""
    path = copy / mutant.path
    source = path.read_bytes()
    path.write_bytes(source[: mutant.start] + mutant.after.encode() + source[mutant.end :])
    tests = [f"{TESTS}/{name}" for name in TARGETS[mutant.path]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        return any(
            subprocess.run([*command, "-m", marked], cwd=copy, capture_output=True, timeout=300).returncode not in (0, NO_TESTS)
            for marked in ("not slow", "slow")
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_bytes(source)


def copies(count: int, folder: Path) -> "SimpleQueue[Path]":
    """Copies of the project's files, one per worker."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    ready: SimpleQueue[Path] = SimpleQueue()
    for i in range(count):
        for name in filter(lambda name: (ROOT / name).is_file(), names.stdout.splitlines()):
            (folder / str(i) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / str(i) / name)
        ready.put(folder / str(i))
    return ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--workers", type=int, default=2, help="mutants tested in parallel")
    options = parser.parse_args()
    by_path = {path: mutants_of(path) for path in TARGETS}
    rng = random.Random(options.seed)
    drawn: list[Mutant] = []
    while len(drawn) < options.count:  # draw a module first, so that long ones do not dominate
        mutant = rng.choice(by_path[rng.choice([path for path, found in by_path.items() if found])])
        drawn += [mutant] if mutant not in drawn else []
    survivors = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as threads:
        ready = copies(options.workers, Path(folder))

        def test(mutant: Mutant) -> bool:
            copy = ready.get()
            try:
                return is_killed(mutant, copy)
            finally:
                ready.put(copy)

        for number, (mutant, killed) in enumerate(zip(drawn, threads.map(test, drawn), strict=True), 1):
            what = f"{mutant.path}:{mutant.line}: {' '.join(mutant.before.split())}  ->  {mutant.after}"
            print(f"{number}/{len(drawn)} {'killed  ' if killed else 'SURVIVED'} {what}", flush=True)
            survivors += [] if killed else [what]
    print(f"{len(survivors)} of {len(drawn)} survived (seed {options.seed})")


if __name__ == "__main__":
    main()
