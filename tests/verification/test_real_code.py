"""Reference solutions of MBPP and HumanEval pass, and every mutated one fails. Skipped if the data sets are missing."""

import ast
import gzip
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from distillery.core.schemas import FAIL, PASS
from distillery.verification.config import Rule
from distillery.verification.router import Router
from distillery.verification.verdict import Item
from tests.support.builders import LIMITS, verdicts_of, verify_params

SHARED = Path(__file__).resolve().parents[3] / "shared/data"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SHARED.exists(), reason="the data sets are missing")]


class Mutation(ast.NodeTransformer):
    """Replaces the value of the ``number``-th return statement."""

    def __init__(self, number: int):
        self.left = number

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.left -= 1
        if self.left == -1:
            return ast.parse("return ('spoilt',)").body[0]
        return node


def mbpp_tests(row: dict) -> str:
    return json.dumps({"asserts": row["test_list"], "setup": row.get("test_setup_code", "")})


def mbpp() -> list[dict]:
    return [json.loads(line) for line in (SHARED / "mbpp.jsonl").open()]


@pytest.fixture(scope="module")
def route():
    """With ten seconds per test: some reference solutions are slow."""
    limits = replace(LIMITS, seconds=10.0)
    made = Router(replace(verify_params(code=Rule("code", 0.9)), sandbox=limits))
    yield made
    made.close()


def test_mbpps_solutions_pass(route):
    rows = mbpp()
    found = verdicts_of(route, [Item(str(row["task_id"]), "code", row["code"], test_cases=mbpp_tests(row)) for row in rows])
    assert len(rows) == 974
    failed = {row["task_id"]: v.reason for row, v in zip(rows, found, strict=True) if v.verdict != PASS}
    assert failed == {}


def mutants(source: str) -> list[str]:
    """Versions of a program with one return changed."""
    tree = ast.parse(source)
    returns = sum(isinstance(node, ast.Return) for node in ast.walk(tree))
    return [ast.unparse(Mutation(i).visit(ast.parse(source))) for i in range(returns)]


def test_mutated_solutions_of_mbpp_fail(route):
    """Tests detect at least one mutant of each program, with few exceptions."""
    rows, items = mbpp(), []
    for row in rows:
        spoilt = mutants(row["code"])
        Random(row["task_id"]).shuffle(spoilt)
        items += [Item(f"{row['task_id']}-{i}", "code", each, test_cases=mbpp_tests(row)) for i, each in enumerate(spoilt[:4])]
    found = dict(zip([item.key for item in items], verdicts_of(route, items), strict=True))
    seen = {key.split("-")[0] for key, verdict in found.items() if verdict.verdict == FAIL}
    without = {str(row["task_id"]) for row in rows if not mutants(row["code"])}
    unseen = {str(row["task_id"]) for row in rows} - seen - without
    print(
        f"{len(rows)} programs, {len(items)} mutants; {len(without)} programs return nothing; none is caught in {len(unseen)}"
    )
    assert len(unseen) <= 5, unseen


def test_humanevals_solutions_pass(route):
    with gzip.open(SHARED / "humaneval.jsonl.gz") as lines:
        rows = [json.loads(line) for line in lines]
    tests = [json.dumps({"check": row["test"], "fn_name": row["entry_point"]}) for row in rows]
    items = [
        Item(row["task_id"], "code", row["prompt"] + row["canonical_solution"], test_cases=each)
        for row, each in zip(rows, tests, strict=True)
    ]
    assert [item.key for item, v in zip(items, verdicts_of(route, items), strict=True) if v.verdict != PASS] == []
    assert len(items) == 164
