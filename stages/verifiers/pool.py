"""Verifies many responses at once, each in a process that can be killed, and each pair of texts only once."""

from collections import defaultdict
from concurrent.futures import TimeoutError
from multiprocessing import get_context
from queue import Empty, SimpleQueue
from threading import Lock

from pebble import ProcessExpired, ProcessPool

from stages.params import ParamsError
from stages.processes import die_with_parent
from stages.verifiers import FAIL, PASS, Item, Rule, Verdict, VerifyParams, math

VERIFIERS = {math.NAME}
PLANNED = {"sandbox", "ifeval", "judge", "reward"}


class PoolVerifier:
    """The `Verifier` of every category. Answers come as they are ready."""

    def __init__(self, params: VerifyParams):
        for category, rule in params.rules.items():
            if rule.verifier not in VERIFIERS | PLANNED:
                known = ", ".join(sorted(VERIFIERS | PLANNED))
                raise ParamsError(f"params.yaml: verify.rules.{category}.verifier: {rule.verifier!r} is none of {known}")
        self.timeout = params.timeout
        self.rules: dict[str, Rule] = {str(category): rule for category, rule in params.rules.items()}
        self.pool = ProcessPool(
            params.processes, max_tasks=2000, context=get_context("forkserver"), initializer=die_with_parent
        )
        self.ready: SimpleQueue[tuple[str, Verdict]] = SimpleQueue()
        self.lock = Lock()
        self.waiting: dict[tuple[str, str], list[Item]] = defaultdict(list)
        self.known: dict[tuple[str, str], Verdict] = {}

    def submit(self, item: Item) -> None:
        immediate = self._immediate(item)
        if immediate is not None:
            self.ready.put((item.key, self._decide(item, immediate)))
            return
        pair = (item.ground_truth or "", item.answer or "")
        with self.lock:
            if pair in self.known:
                self.ready.put((item.key, self._decide(item, self.known[pair])))
                return
            self.waiting[pair].append(item)
            first = len(self.waiting[pair]) == 1
        if first:
            future = self.pool.schedule(math.compare, args=pair, timeout=self.timeout)
            future.add_done_callback(lambda done: self._settle(pair, done))

    def poll(self, wait: float = 0.0) -> list[tuple[str, Verdict]]:
        """What is ready; with ``wait``, blocks up to so many seconds for the first."""
        done: list[tuple[str, Verdict]] = []
        try:
            done.append(self.ready.get(timeout=wait) if wait else self.ready.get_nowait())
            while True:
                done.append(self.ready.get_nowait())
        except Empty:
            return done

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()

    def _immediate(self, item: Item) -> Verdict | None:
        """The verdicts that need no process: form, missing pieces, and Math-Verify's sound shortcuts."""
        rule = self.rules.get(item.category)
        if rule is None or rule.verifier not in VERIFIERS:
            what = "no rule" if rule is None else f"verifier {rule.verifier!r} is not built yet"
            return math.unknown(f"category {item.category}: {what}", hopeless=True)
        if item.answer is None:
            return math.judge(False, "no answer in the form that was asked for")
        if not item.ground_truth:
            return math.unknown("the query has no ground truth", hopeless=True)
        if len(item.answer) > math.LONGEST or len(item.ground_truth) > math.LONGEST:
            return math.unknown(f"longer than {math.LONGEST} characters")
        return math.shortcut(item.ground_truth, item.answer)

    def _settle(self, pair: tuple[str, str], done) -> None:
        try:
            verdict = done.result()
        except TimeoutError:
            verdict = math.unknown(f"timed out after {self.timeout:g} s")
        except ProcessExpired as error:
            verdict = math.unknown(f"the verifying process died (exit code {error.exitcode})")
        except Exception as error:
            verdict = math.unknown(f"{type(error).__name__}: {error}")
        with self.lock:
            self.known[pair] = verdict
            settled = self.waiting.pop(pair)
        for item in settled:
            self.ready.put((item.key, self._decide(item, verdict)))

    def _decide(self, item: Item, verdict: Verdict) -> Verdict:
        """Applies the category's threshold to the score."""
        if verdict.score is None:
            return verdict
        passed = verdict.score >= self.rules[item.category].threshold
        return Verdict(verdict.score, PASS if passed else FAIL, verdict.reason, verdict.verifier)
