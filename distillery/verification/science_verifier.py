"""Science: options as multiple choice, numbers with their units as mathematics; else a judge rates the answer from 0 to 5."""

import re
from concurrent.futures import Future

from distillery.verification.choice_verifier import is_choice, verdict_of
from distillery.verification.futures import done, then
from distillery.verification.judge import Judge, JudgeReply
from distillery.verification.math_compare import compare
from distillery.verification.math_text import final_expression, normalize, number_of, split_unit
from distillery.verification.verdict import Item, Verdict, scored, unknown

NAME = "science"
BEST = 5
RATING = re.compile(r"Rating: ?([0-5])(?: ?/ ?5)?\.?", re.IGNORECASE)


def numbers(gold: str, answer: str) -> Verdict | None:
    """The verdict where both sides are plain numbers whose units agree or are left out on one side, else None."""
    expected, candidate = final_expression(gold) or gold, final_expression(answer) or ""
    if any(number_of(split_unit(normalize(each))[0]) is None for each in (expected, candidate)):
        return None
    found = compare(expected, candidate, lambda *_: None)
    return None if found is None else scored(NAME, found, "equal numbers" if found else f"{candidate} is not {expected}")


class ScienceVerifier:
    """Without a judge, anything but options and plain numbers is inconclusive."""

    def __init__(self, judge: Judge | None):
        self.judge = judge

    def verify(self, item: Item) -> "Future[Verdict]":
        if not item.ground_truth:
            return done(unknown(NAME, "the query has no ground truth", hopeless=True))
        if is_choice(item.ground_truth, item.question):
            chosen = verdict_of(item.ground_truth, item.answer or "", item.question)
            if self.judge is None or chosen.score is not None:
                return done(chosen)
        verdict = numbers(item.ground_truth, item.answer or "")
        if verdict:
            return done(verdict)
        if self.judge is None:
            return done(unknown(NAME, "no judge is configured; set verify.judge", hopeless=True))
        return then(self.judge.ask("science", RATING, item), self._rated)

    def _rated(self, said: JudgeReply) -> Verdict:
        if said.words is None:
            return unknown(NAME, said.why).after(said.seconds)
        return scored(NAME, int(said.words) / BEST, f"the judge rates it {said.words} of {BEST}").after(said.seconds)

    def close(self) -> None: ...
