"""The small world's distribution: how often each kind of problem occurs, and its complete vocabulary."""

from collections.abc import Callable
from random import Random

from mini.chat_problems import chat, code, comparison, instruction
from mini.judge_data import assist, rated
from mini.problems import LARGEST, NAMES, STYLES, THINGS, Problem, answer_briefly, dialogue, program, respond, science, story

MIXTURE: tuple[tuple[Callable[[Random, int], Problem], int], ...] = (
    (story, 8),
    (program, 3),
    (science, 2),
    (dialogue, 2),
    (comparison, 1),
    (code, 2),
    (instruction, 1),
    (chat, 1),
)
SHORT = (dialogue, code)


def draw(rng: Random, largest_level: int = 4) -> Problem:
    """A random problem of any kind, at most ``largest_level`` steps long."""
    kinds, weights = zip(*MIXTURE, strict=True)
    (kind,) = rng.choices(kinds, weights)
    return kind(rng, rng.randint(1, 2 if kind in SHORT else largest_level))


def vocabulary(system_prompt: str, prompts: dict[str, str]) -> list[str]:
    """Every word of the small world, in a fixed order."""
    rng = Random(0)
    words = {str(n) for n in range(LARGEST + 1)} | set(system_prompt.split()) | set(NAMES) | set(THINGS)
    for _ in range(3000):
        problem = draw(rng)
        asked, answer = assist(rng, prompts)
        spoilt, _ = rated(rng, problem)
        texts = [*problem.turns, answer_briefly(problem), *(respond(problem, style) for style in STYLES), asked, answer, spoilt]
        words.update(word for text in texts for word in text.split())
    return sorted(words)
