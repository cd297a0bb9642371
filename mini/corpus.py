"""Writes the small world's queries, with dirt planted so that cleaning has work, and its benchmarks."""

import json
from pathlib import Path
from random import Random
from typing import Any

from distillery.core.errors import DataError
from distillery.core.files import atomic_dir, write_json_lines
from mini import problems
from mini.chat_problems import comparison
from mini.config import Benchmark, Corpus, load
from mini.judge_data import PERFECT, another, rated, talked
from mini.problems import Problem
from mini.sampling import draw

WORLD = Path("mini/world")
TRIES = 1000
LABELLED = 240
KINDS = {"story": problems.story, "program": problems.program}


def query(problem: Problem, tell: bool = True) -> dict[str, Any]:
    """A row of the corpus; without ``tell`` an instruction's constraints are left out."""
    return {
        "messages": problem.messages(),
        "category": problem.category,
        "source": problem.source,
        "difficulty": str(problem.level),
        "ground_truth": problem.ground_truth,
        "test_cases": problem.test_cases,
        "constraints": problem.constraints if tell else None,
    }


def dirt(rng: Random, params: Corpus, clean: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that cleaning must find: duplicates (some with other white space), URLs, tables and garbage."""

    def spoiled(change) -> dict[str, Any]:
        row = query(problems.story(rng, rng.randint(1, 3)))
        row["messages"][0]["content"] = change(row["messages"][0]["content"])
        return row

    garbage = (
        lambda text: "",
        lambda text: text[: len(text) // 2].rsplit(" ", 1)[0] + " then",
        lambda text: "☃☂★☆♞♜" * 5 + text[:12],
        lambda text: "```\n" + text,
    )
    rows = [
        json.loads(json.dumps(row).replace(" now ?", rng.choice([" now ?", "  now  ?"])))
        for row in rng.sample(clean, params.duplicates)
    ]
    rows += [spoiled(lambda text: f"see https://example.org/{rng.randint(1, 99)} . {text}") for _ in range(params.urls)]
    rows += [spoiled(lambda text: f"| a | b |\n|---|---|\n| 1 | 2 |\n{text}") for _ in range(params.tables)]
    return rows + [spoiled(garbage[i % len(garbage)]) for i in range(params.garbage)]


def benchmark(name: str, params: Benchmark) -> list[dict[str, str]]:
    """Questions of one benchmark, so many of each level, no two the same."""
    rng = Random(f"benchmark/{name}")
    rows: dict[str, dict[str, str]] = {}
    for level, count in params.levels.items():
        wanted = len(rows) + count
        for _ in range(TRIES * count):
            if len(rows) == wanted:
                break
            problem = KINDS[params.kind](rng, int(level))
            rows[problem.turns[0]] = {"question": problem.turns[0], "answer": problem.ground_truth or "", "level": level}
        if len(rows) < wanted:
            raise DataError(f"mini/params.yaml: benchmarks.{name}: no {count} different questions of level {level}")
    return list(rows.values())


def twins(rng: Random, params: Corpus, questions: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Benchmark questions that got into the corpus: as they are, in other case and spacing, or lightly reworded."""
    changes = (
        lambda text: text,
        lambda text: text.upper().replace(" . ", " .  "),
        lambda text: text.replace("how many", "so how many").replace("gets", "receives").replace("what is", "tell me"),
    )
    return [
        {
            "messages": [{"role": "user", "content": changes[i % len(changes)](row["question"])}],
            "category": "math",
            "source": "mini/twins",
            "difficulty": row["level"],
            "ground_truth": row["answer"],
        }
        for i, row in enumerate(rng.sample(questions, params.twins))
    ]


def labelled(rng: Random, count: int) -> list[dict[str, Any]]:
    """Responses, right and wrong, for what a judge or the reward model decides, each with its label."""
    rows = []
    for i in range(count):
        problem = comparison(rng, 1) if i % 2 else talked(rng)
        reply, label = problem.reply, True
        if i % 2 and rng.random() < 0.5:
            reply, label = another(rng, problem), False
        elif not i % 2:
            reply, ratings = rated(rng, problem)
            label = ratings == PERFECT
        rows.append(query(problem) | {"response": f"<think> </think> <answer> {reply} </answer>", "label": label})
    return rows


def main() -> None:
    params = load(Corpus, "corpus")
    benchmarks = load(dict[str, Benchmark], "benchmarks")
    rng = Random(f"corpus/{params.seed}")
    with atomic_dir(WORLD / "benchmarks") as folder:
        questions = {name: benchmark(name, each) for name, each in benchmarks.items()}
        for name, rows in questions.items():
            write_json_lines(rows, folder / f"{name}.jsonl")
    clean = [query(draw(rng), tell=rng.random() < 0.5) for _ in range(params.queries)]
    rows = clean + dirt(rng, params, clean) + twins(rng, params, [row for each in questions.values() for row in each])
    rng.shuffle(rows)
    write_json_lines(rows, WORLD / "queries.jsonl")
    write_json_lines(labelled(Random(f"labels/{params.seed}"), LABELLED), WORLD / "labels.jsonl")
    print(f"corpus: {len(rows)} queries, {sum(map(len, questions.values()))} benchmark questions")


if __name__ == "__main__":
    main()
