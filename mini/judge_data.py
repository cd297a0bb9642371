"""What the small world's helpers learn: to judge answers, to write constraints down, and to rate replies."""

import json
from pathlib import Path
from random import Random

from mini.chat_problems import ENDINGS, STUFFS, chat, comparison, instruction
from mini.problems import Problem, dialogue, story

PROMPTS = Path("mini/prompts")
PERFECT = (4.0, 4.0, 4.0)


def prompts() -> dict[str, str]:
    """The prompts that the pipeline will ask with, by name."""
    return {path.stem: path.read_text(encoding="utf-8").strip() for path in sorted(PROMPTS.glob("*.txt"))}


def assist(rng: Random, texts: dict[str, str]) -> tuple[str, str]:
    """A prompt of the judge's or the constraint writer's, and the right answer to it."""
    kind = rng.choices(("science", "math", "constraints"), (3, 2, 3))[0]
    if kind == "constraints":
        problem = instruction(rng, 1)
        return texts[kind].replace("{query}", problem.turns[-1]), spaced(problem.constraints or "")
    problem = comparison(rng, 1) if kind == "science" else story(rng, rng.randint(1, 3))
    right = rng.random() < 0.5
    answer = problem.reply if right else another(rng, problem)
    asked = texts[kind].replace("{question}", problem.turns[-1])
    asked = asked.replace("{reference}", problem.ground_truth or "").replace("{answer}", answer)
    if kind == "math":
        return asked, f"Verdict: {'yes' if right else 'no'}"
    return asked, f"Rating: {5 if right else 2 if ' or ' in answer else 0}"


def spaced(constraints: str) -> str:
    """JSON with every punctuation mark a word of its own, as a tokenizer with one token per word can write it."""
    text = json.dumps(json.loads(constraints))
    for sign in "[]{}":
        text = text.replace(sign, f" {sign} ")
    return " ".join(text.replace('":', '" :').replace(",", " ,").split())


def another(rng: Random, problem: Problem) -> str:
    """A wrong answer of the right kind."""
    if problem.category == "science":
        wrong = rng.choice([stuff for stuff in STUFFS if stuff != problem.reply])
        return f"{problem.reply} or {wrong}" if rng.random() < 0.2 else wrong
    right = int(problem.ground_truth or 0)
    return f"\\boxed{{ {rng.choice([n for n in range(60) if n != right])} }}"


def rated(rng: Random, problem: Problem | None = None) -> tuple[str, tuple[float, ...]]:
    """A reply to a problem of chat or dialogue, good or spoilt, and its coherence, correctness and helpfulness."""
    problem = problem or talked(rng)
    words, ratings, spoil = problem.reply.split(), PERFECT, rng.random()
    if spoil > 0.75:
        rng.shuffle(words)
        ratings = (0.0, 1.0, 0.0)
    elif spoil > 0.5 and problem.ground_truth:
        words, ratings = another(rng, problem).split(), (4.0, 0.0, 1.0)
    elif spoil > 0.5:
        words[rng.randrange(len(words))] = rng.choice(ENDINGS)
        ratings = (2.0, 1.0, 1.0)
    reply = " ".join(words)
    return reply, PERFECT if reply == problem.reply else ratings


def talked(rng: Random) -> Problem:
    """A problem that the reward model rates."""
    return dialogue(rng, rng.randint(1, 2)) if rng.random() < 0.6 else chat(rng, 1)
