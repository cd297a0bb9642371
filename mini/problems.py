"""The small world's language: word problems with a known number of steps, and three ways to reason about them.

A problem of arithmetic is a chain of one-step operations on small whole numbers, so its difficulty is its number of steps
and its answer is known exactly; code, instructions and chat are in mini/chat_problems.py. Everything is written in a closed
vocabulary of whole words and whole numbers, which is what a model of a quarter of a million parameters can learn in a
minute (docs/log.md has the measurements).
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

LARGEST = 120
NAMES = ["Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "Jana", "Kofi", "Lena"]
THINGS = ["apples", "books", "coins", "cards", "cups", "eggs", "keys", "nuts", "pens", "rings", "shells", "stamps"]


@dataclass(frozen=True)
class Step:
    """One operation: ``left op right = result``."""

    left: int
    op: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.result} ;"

    def inverse(self) -> "Step":
        """The step that undoes this one: 7 + 5 = 12 is checked by 12 - 5 = 7."""
        undo = {"+": "-", "-": "+", "*": "/", "/": "*"}[self.op]
        return Step(self.result, undo, self.right, self.left)


@dataclass(frozen=True)
class Problem:
    """A question (with the turns before it, if any), the steps that solve it, and the reply that is right.

    Its reference is the ground truth, the test cases or the constraints, depending on the category.
    """

    turns: tuple[str, ...]
    steps: tuple["Step | str", ...]
    category: str
    source: str
    reply: str
    ground_truth: str | None = None
    test_cases: str | None = None
    constraints: str | None = None

    @property
    def level(self) -> int:
        return len(self.steps)

    def messages(self) -> list[dict[str, str]]:
        """The question as chat messages; turns alternate and the last is the user's."""
        roles = ("user", "assistant")
        return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(self.turns)]


def sum_(turns: tuple[str, ...], steps: tuple[Step, ...], category: str, source: str) -> Problem:
    """A problem whose answer is the number that its steps end in."""
    answer = str(steps[-1].result)
    return Problem(turns, steps, category, source, f"\\boxed{{ {answer} }}", answer)


def _apply(value: int, op: str, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand}[op]


def chain(rng: Random, levels: int, start: int) -> tuple[Step, ...]:
    """Steps from ``start`` whose every value stays between 0 and 59."""
    steps: list[Step] = []
    value = start
    while len(steps) < levels:
        op = rng.choice("++--*")
        operand = 2 if op == "*" else rng.randint(1, 9)
        result = _apply(value, op, operand)
        if 0 <= result < 60:
            steps.append(Step(value, op, operand, result))
            value = result
    return tuple(steps)


def _tell(step: Step, name: str, thing: str) -> str:
    if step.op == "*":
        return f"then the {thing} double ."
    return f"then {name} gets {step.right} more ." if step.op == "+" else f"then {name} gives away {step.right} ."


def story(rng: Random, level: int) -> Problem:
    """A word problem about somebody's things."""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    steps = chain(rng, level, rng.randint(1, 30))
    events = " ".join(_tell(step, name, thing) for step in steps)
    question = f"{name} has {steps[0].left} {thing} . {events} how many {thing} now ?"
    return sum_((question,), steps, "math", "mini/story")


def program(rng: Random, level: int) -> Problem:
    """What a small function returns: a substitute for the code benchmark."""
    steps = chain(rng, level, rng.randint(1, 30))
    verbs = {"+": "adds", "-": "takes", "*": "times"}
    body = " then ".join(f"{verbs[step.op]} {step.right}" for step in steps)
    return sum_((f"the function f {body} . what is f of {steps[0].left} ?",), steps, "math", "mini/program")


def science(rng: Random, _level: int) -> Problem:
    """One formula with small whole numbers: density, speed or force."""
    a, b = rng.randint(2, 9), rng.randint(2, 12)
    questions = (
        (f"a block has mass {a * b} and volume {a} . what is its density ?", Step(a * b, "/", a, b)),
        (f"a car goes {a * b} m in {a} s . what is its speed ?", Step(a * b, "/", a, b)),
        (f"a mass of {a} speeds up by {b} . what is the force ?", Step(a, "*", b, a * b)),
    )
    question, step = rng.choice(questions)
    return sum_((question,), (step,), "science", "mini/formulas")


def dialogue(rng: Random, level: int) -> Problem:
    """A question, its answer, and a follow-up that builds on it."""
    first = story(rng, level)
    name = first.turns[0].split()[0]
    (step,) = chain(rng, 1, int(str(first.ground_truth)))
    thing = first.turns[0].split()[3]
    turns = (first.turns[0], f"{name} has {step.left} {thing} .", f"{_tell(step, name, thing)} how many {thing} now ?")
    return sum_(turns, (step,), "multiturn", "mini/dialogue")


def _steps(problem: Problem) -> str:
    return " ".join(map(str, problem.steps))


def _plain(problem: Problem) -> str:
    """Numbers without signs: which operation it was is left to the reader."""
    return " ".join(str(step).replace(f" {step.op} ", " ", 1) if isinstance(step, Step) else step for step in problem.steps)


def _checks(problem: Problem) -> str:
    return " ".join(str(step.inverse() if isinstance(step, Step) else step) for step in reversed(problem.steps))


def _verbose(problem: Problem) -> str:
    return f"let me see . {_steps(problem)} let me check : {_checks(problem)} that is right ."


def _adaptive(problem: Problem) -> str:
    if problem.level < 2:
        return _steps(problem)
    return f"{_steps(problem)} check : {_checks(problem)} ok ."


STYLES: dict[str, Callable[[Problem], str]] = {"plain": _plain, "verbose": _verbose, "adaptive": _adaptive}


def respond(problem: Problem, style: str) -> str:
    """A right response in a teacher's style, in the study's form: thoughts, then the answer."""
    return f"<think> {STYLES[style](problem)} </think> <answer> {problem.reply} </answer>"


def answer_briefly(problem: Problem) -> str:
    """What the base model has seen: the steps and the result, in no particular form."""
    return f"{_steps(problem)} so {problem.ground_truth or problem.reply} ."
