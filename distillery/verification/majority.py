"""Without a reference: an answer counts as right if most of several answers to its query agree with it.

Self-consistency (Wang et al., arXiv 2203.11171) as a verifier. What most answers agree on is often right and can be wrong, in
the way that the teacher tends to be; so such traces carry the verifier ``majority``, and are counted apart. Answers agree where
their normalized forms are equal (`math_text.key_of`): numbers and short expressions, not prose.
"""

from collections import Counter
from concurrent.futures import Future

from distillery.core.schemas import FAIL, MAJORITY, PASS
from distillery.verification.futures import done
from distillery.verification.math_text import key_of
from distillery.verification.verdict import Item, Verdict, unknown

TOO_FEW = unknown(MAJORITY, "too few answers to agree")


def verdicts(answers: list[str | None], threshold: float) -> list[Verdict]:
    """A verdict on each of the answers to one query. An answer's score is the share of all that agree with it.

    The most frequent one passes from ``threshold`` on, all others fail; without one, or with two as frequent, nothing is known.
    """
    keys = [key_of(answer) for answer in answers]
    counts = Counter(key for key in keys if key is not None).most_common(2)
    most = counts[0][1] if counts else 0
    if most < max(2, threshold * len(answers)) or (len(counts) > 1 and counts[1][1] == most):
        return [unknown(MAJORITY, f"no majority: at most {most} of {len(answers)} answers agree")] * len(answers)
    return [verdict_of(keys.count(key) if key else 0, len(keys), key == counts[0][0]) for key in keys]


def verdict_of(same: int, count: int, wins: bool) -> Verdict:
    """The verdict on an answer with which ``same`` of ``count`` agree."""
    reason = f"{same} of {count} answers agree" if wins else f"another answer has the majority; {same} of {count} have this one"
    return Verdict(round(same / count, 6), PASS if wins else FAIL, reason, MAJORITY)


class LoneAnswer:
    """What verifies an answer without the others to its query: nothing can."""

    def verify(self, item: Item) -> "Future[Verdict]":
        return done(unknown(MAJORITY, "a majority needs several answers to one query", hopeless=True))

    def close(self) -> None:
        """Nothing to do."""
