"""The small world beyond arithmetic: functions to write, instructions to follow, things to compare, small talk."""

import json
from random import Random
from typing import Any

from mini.problems import NAMES, THINGS, Problem, Step, chain

STUFFS = ["iron", "wood", "stone", "glass", "sand", "salt", "gold", "clay"]
ENDINGS = ["thanks", "goodbye", "please", "done"]


def code(rng: Random, level: int) -> Problem:
    """A function of one argument to write; three tests say whether it is right."""
    steps = chain(rng, min(level, 2), rng.randint(1, 30))
    verbs = {"+": "adds", "-": "takes", "*": "times"}
    body, thoughts = "x", list[str]()
    for step in steps:
        body = f"( {body} {step.op} {step.right} )" if thoughts else f"{body} {step.op} {step.right}"
        thoughts.append(f"{verbs[step.op]} {step.right} ;")
    inputs = sorted(rng.sample(range(20), 3))
    outputs = [eval_chain(steps, value) for value in inputs]
    tests = {"fn_name": "f", "inputs": [[value] for value in inputs], "outputs": outputs}
    steps_text = " then ".join(f"{verbs[step.op]} {step.right}" for step in steps)
    question = f"write a function f ( x ) that {steps_text} ."
    reply = f"def f ( x ) : return {body}"
    return Problem((question,), tuple(thoughts), "code", "mini/functions", reply, test_cases=json.dumps(tests))


def eval_chain(steps: tuple[Step, ...], value: int) -> int:
    """The result of a chain of operations from another start."""
    for step in steps:
        value = {"+": value + step.right, "-": value - step.right, "*": value * step.right}[step.op]
    return value


def instruction(rng: Random, _level: int) -> Problem:
    """Words to write under constraints that IFEval's checkers can check."""
    thing, times, ending = rng.choice(THINGS), rng.randint(1, 5), rng.choice(ENDINGS)
    question = f"write the word {thing} {times} times and end with {ending} ."
    constraints: list[dict[str, Any]] = [
        {"id": "keywords:frequency", "kwargs": {"keyword": thing, "frequency": times, "relation": "at least"}},
        {"id": "startend:end_checker", "kwargs": {"end_phrase": ending}},
    ]
    thoughts = (f"{times} times {thing} ;", f"end {ending} ;")
    reply = " ".join([thing] * times + [ending])
    return Problem((question,), thoughts, "if", "mini/instructions", reply, constraints=json.dumps(constraints))


def comparison(rng: Random, _level: int) -> Problem:
    """Science whose answer is a word: a judge has to say whether it is the right one."""
    (a, b), (x, y) = rng.sample(STUFFS, 2), rng.sample(range(1, 60), 2)
    heavier = a if x > y else b
    question = f"which is heavier , {x} kg of {a} or {y} kg of {b} ?"
    return Problem((question,), (f"{min(x, y)} < {max(x, y)} ;",), "science", "mini/comparisons", heavier, heavier)


def chat(rng: Random, _level: int) -> Problem:
    """Small talk: only a reward model can say how good a reply is."""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    talks = (
        (f"hello , i am {name} .", f"hello {name} , how can i help ?"),
        (f"my friend {name} likes {thing} .", f"how nice that {name} likes {thing} ."),
        (f"say goodbye to {name} .", f"goodbye {name} ."),
    )
    said, reply = rng.choice(talks)
    return Problem((said,), (f"be kind to {name} ;",), "other", "mini/chat", reply)
