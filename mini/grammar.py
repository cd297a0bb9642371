"""The small world's language: word problems with a known number of steps, and three ways to reason about them.

A problem is a chain of one-step operations on small whole numbers, so its difficulty is its number of steps and its
answer is known exactly. Everything is written in a closed vocabulary of whole words and whole numbers, which is what
a model of a quarter of a million parameters can learn in a minute (docs/log.md has the measurements).
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
    """A question (with the turns before it, if any), the steps that solve it, and where it belongs."""

    turns: tuple[str, ...]
    steps: tuple[Step, ...]
    category: str
    source: str

    @property
    def answer(self) -> int:
        return self.steps[-1].result

    @property
    def level(self) -> int:
        return len(self.steps)

    def messages(self) -> list[dict[str, str]]:
        """The question as chat messages; turns alternate and the last is the user's."""
        roles = ("user", "assistant")
        return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(self.turns)]


def _apply(value: int, op: str, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand}[op]


def _chain(rng: Random, levels: int, start: int) -> tuple[Step, ...]:
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
    steps = _chain(rng, level, rng.randint(1, 30))
    told = " ".join(_tell(step, name, thing) for step in steps)
    question = f"{name} has {steps[0].left} {thing} . {told} how many {thing} now ?"
    return Problem((question,), steps, "math", "mini/story")


def program(rng: Random, level: int) -> Problem:
    """What a small function returns: stands for the code benchmark."""
    steps = _chain(rng, level, rng.randint(1, 30))
    verbs = {"+": "adds", "-": "takes", "*": "times"}
    body = " then ".join(f"{verbs[step.op]} {step.right}" for step in steps)
    return Problem((f"the function f {body} . what is f of {steps[0].left} ?",), steps, "math", "mini/program")


def science(rng: Random, _level: int) -> Problem:
    """One formula with small whole numbers: density, speed or force."""
    a, b = rng.randint(2, 9), rng.randint(2, 12)
    questions = (
        (f"a block has mass {a * b} and volume {a} . what is its density ?", Step(a * b, "/", a, b)),
        (f"a car goes {a * b} m in {a} s . what is its speed ?", Step(a * b, "/", a, b)),
        (f"a mass of {a} speeds up by {b} . what is the force ?", Step(a, "*", b, a * b)),
    )
    question, step = rng.choice(questions)
    return Problem((question,), (step,), "science", "mini/formulas")


def dialogue(rng: Random, level: int) -> Problem:
    """A question, its answer, and a follow-up that builds on it."""
    first = story(rng, level)
    name = first.turns[0].split()[0]
    (step,) = _chain(rng, 1, first.answer)
    thing = first.turns[0].split()[3]
    turns = (first.turns[0], f"{name} has {first.answer} {thing} .", f"{_tell(step, name, thing)} how many {thing} now ?")
    return Problem(turns, (step,), "multiturn", "mini/dialogue")


def _plain(problem: Problem) -> str:
    return " ".join(map(str, problem.steps))


def _verbose(problem: Problem) -> str:
    checks = " ".join(str(step.inverse()) for step in reversed(problem.steps))
    return f"let me see . {_plain(problem)} let me check : {checks} that is right ."


def _adaptive(problem: Problem) -> str:
    if problem.level < 3:
        return _plain(problem)
    checks = " ".join(str(step.inverse()) for step in reversed(problem.steps))
    return f"{_plain(problem)} check : {checks} ok ."


STYLES: dict[str, Callable[[Problem], str]] = {"plain": _plain, "verbose": _verbose, "adaptive": _adaptive}


def respond(problem: Problem, style: str) -> str:
    """A right response in a teacher's style, in the study's form: thoughts, then the answer."""
    return f"<think> {STYLES[style](problem)} </think> <answer> \\boxed{{ {problem.answer} }} </answer>"


def answer_briefly(problem: Problem) -> str:
    """What the base model has seen: the steps and the result, in no particular form."""
    return f"{_plain(problem)} so {problem.answer} ."


MIXTURE: tuple[tuple[Callable[[Random, int], Problem], int], ...] = ((story, 8), (program, 3), (science, 2), (dialogue, 2))


def draw(rng: Random, largest_level: int = 4) -> Problem:
    """A random problem of any kind, at most ``largest_level`` steps long."""
    kinds, weights = zip(*MIXTURE, strict=True)
    (kind,) = rng.choices(kinds, weights)
    return kind(rng, rng.randint(1, 2 if kind is dialogue else largest_level))


def vocabulary(system_prompt: str) -> list[str]:
    """Every word that the small world can say, in a fixed order."""
    rng = Random(0)
    words = {str(n) for n in range(LARGEST + 1)} | set(system_prompt.split()) | set(NAMES) | set(THINGS)
    for _ in range(2000):
        problem = draw(rng)
        texts = [*problem.turns, answer_briefly(problem), *(respond(problem, style) for style in STYLES)]
        words.update(word for text in texts for word in text.split())
    return sorted(words)
