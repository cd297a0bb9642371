"""Sends every item to its category's verifier, remembers verdicts, and holds scores against the category's threshold."""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from stages import locks, sandbox
from stages.engines import EngineError
from stages.engines.start import start
from stages.ledger import ROOT, Ledger, LedgerEngine
from stages.ledger.verdicts import Verdicts, key_of
from stages.locks import Lock
from stages.params import ParamsError, Positive, Section
from stages.sandbox import Limits
from stages.verifiers import Category, Item, Verdict, Verifier, ifeval, judge, math, reward, science, scored, suites, unknown
from stages.verifiers import code as code_
from stages.verifiers.code import CodeVerifier
from stages.verifiers.futures import done
from stages.verifiers.ifeval import IfVerifier
from stages.verifiers.judge import EngineThread, Judge, JudgeSettings, prompt
from stages.verifiers.math import MathVerifier
from stages.verifiers.pool import Pool
from stages.verifiers.reward import RewardSettings, RewardVerifier
from stages.verifiers.science import ScienceVerifier

HERE = Path(__file__).parent
JUDGED = [judge.__file__, str(HERE / "futures.py")]
SOURCES: dict[str, list[str | None]] = {
    math.NAME: [math.__file__, *JUDGED],
    science.NAME: [science.__file__, math.__file__, *JUDGED],
    ifeval.NAME: [ifeval.__file__],
    reward.NAME: [reward.__file__],
    code_.NAME: [code_.__file__, suites.__file__, sandbox.__file__, *map(str, sorted(sandbox.INSIDE.glob("*.py")))],
}
PACKAGES = {
    math.NAME: ["math-verify"],
    science.NAME: [],
    ifeval.NAME: ["lm-eval"],
    reward.NAME: ["transformers"],
    code_.NAME: [],
}


@dataclass(frozen=True)
class Rule(Section):
    """How one category is verified: which verifier, and the score (0 to 1) from which on a response passes."""

    verifier: str
    threshold: float


@dataclass(frozen=True)
class VerifyParams(Section):
    """``rules`` a category; ``timeout`` in seconds a response for mathematics and constraints; ``processes`` that verify.

    ``sandbox`` limits programs; ``judge`` and ``reward`` are null where no category needs them.
    """

    rules: dict[Category, Rule]
    timeout: float
    processes: Positive
    sandbox: Limits
    judge: JudgeSettings | None
    reward: RewardSettings | None


@dataclass(frozen=True)
class Roles:
    """The locks of the models that verify, None where ``verify`` has no settings for them."""

    judge: Lock | None = None
    reward: Lock | None = None


NO_ROLES = Roles()


def roles_of(params: VerifyParams) -> Roles:
    """Reads the locks that the settings ask for. Raises ParamsError where a role has settings and no model."""
    found = {name: locks.read_optional(name) for name in ("judge", "reward")}
    for name, lock in found.items():
        if getattr(params, name) is not None and lock is None:
            raise ParamsError(
                f"params.yaml: assets.{name}: null, but verify.{name} has settings; name its model, or set both null"
            )
    return Roles(**{name: lock if getattr(params, name) else None for name, lock in found.items()})


class Route:
    """The `Verifies` of every category. Verdicts that ``verdicts`` holds are not reached again.

    ``prompts`` is the folder of the judge's prompts, ``ledger`` the one that keeps what it answers.
    """

    def __init__(
        self,
        params: VerifyParams,
        roles: Roles = NO_ROLES,
        prompts: str = "",
        verdicts: Verdicts | None = None,
        ledger: Path = ROOT,
    ):
        check_rules(params)
        self.rules: dict[str, Rule] = {str(category): rule for category, rule in params.rules.items()}
        self.params, self.roles, self.verdicts = params, roles, verdicts
        self.judge = open_judge(params.judge, roles.judge, prompts, ledger) if params.judge and roles.judge else None
        names = {rule.verifier for rule in self.rules.values()}
        prepare = [each for name, each in ((math.NAME, math.prepare), (ifeval.NAME, ifeval.checkers)) if name in names]
        self.pool = Pool(params.processes, params.timeout, tuple(prepare))
        self.verifiers = dict(self._open(names))
        self.versions = {name: self._version(name) for name in self.verifiers}
        self.ready: SimpleQueue[tuple[Item, str, Verdict]] = SimpleQueue()
        self.dead: EngineError | None = None
        self.reached = 0
        self.remembered = 0

    @property
    def notices(self) -> list[str]:
        """What a user should know of how things are verified here: a line on the sandbox, where there is code."""
        return [verifier.notice for verifier in self.verifiers.values() if isinstance(verifier, CodeVerifier)]

    def submit(self, item: Item) -> None:
        rule, began = self.rules.get(item.category), monotonic()
        if rule is None:
            self.ready.put((item, "", unknown("none", f"no rule for the category {item.category}", hopeless=True)))
            return
        key = key_of(self.versions[rule.verifier], item) if self.verdicts else ""
        known = self.verdicts.find(key) if self.verdicts else None
        if known:
            self.remembered += 1
        self.reached += not known
        future = done(known) if known else self._verify(rule.verifier, item)
        future.add_done_callback(lambda ended: self.ready.put((item, key, self._settled(rule, ended, began))))

    def poll(self, wait: float = 0.0) -> list[tuple[str, Verdict]]:
        """What is ready; with ``wait``, blocks up to so many seconds for the first.

        Raises EngineError where a verifier's model cannot be loaded: without it a whole category would pass unseen.
        """
        found: list[tuple[str, Verdict]] = []
        try:
            ready = self.ready.get(timeout=wait) if wait else self.ready.get_nowait()
            while True:
                item, key, verdict = ready
                if key and self.verdicts:
                    self.verdicts.add(key, item, verdict)
                found.append((item.key, verdict))
                ready = self.ready.get_nowait()
        except Empty:
            if self.dead:
                raise self.dead from None
            return found

    def close(self) -> None:
        for verifier in self.verifiers.values():
            verifier.close()
        self.pool.close()
        if self.judge:
            self.judge.close()
        if self.verdicts:
            self.verdicts.close()

    def _verify(self, name: str, item: Item) -> "Future[Verdict]":
        if item.answer is None:
            return done(scored(name, 0, "no answer in the form that was asked for"))
        return self.verifiers[name].verify(item)

    def _settled(self, rule: Rule, ended: "Future[Verdict]", began: float) -> Verdict:
        error = ended.exception()
        if isinstance(error, EngineError):
            self.dead = error
        verdict = unknown(rule.verifier, f"{type(error).__name__}: {error}") if error else ended.result()
        return verdict.at(rule.threshold, round(monotonic() - began, 4))

    def _open(self, names: set[str]) -> Iterable[tuple[str, Verifier]]:
        for name in sorted(names):
            if name == math.NAME:
                yield name, MathVerifier(self.pool, self.judge)
            elif name == science.NAME:
                yield name, ScienceVerifier(self.judge)
            elif name == ifeval.NAME:
                yield name, IfVerifier(self.pool)
            elif name == code_.NAME:
                all_count = all(rule.threshold == 1 for rule in self.rules.values() if rule.verifier == name)
                yield name, CodeVerifier(self.params.sandbox, self.params.processes, all_count)
            elif self.params.reward and self.roles.reward:
                yield name, RewardVerifier(self.roles.reward, self.params.reward)

    def _version(self, name: str) -> str:
        """What a verdict of this verifier depends on beside the item: its code, packages, settings and models."""
        about: list[Any] = [Path(str(path)).read_text(encoding="utf-8") for path in SOURCES[name]]
        about += [version(package) for package in PACKAGES.get(name, [])]
        if name in (math.NAME, science.NAME) and self.judge:
            about += [self.judge.revision, asdict(self.judge.sampling), self.judge.prompts]
        if name == reward.NAME and self.params.reward and self.roles.reward:
            about += [self.roles.reward.revision, asdict(self.params.reward.outputs), self.params.reward.max_tokens]
        if name == code_.NAME:
            about.append(asdict(self.params.sandbox))
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def check_rules(params: VerifyParams) -> None:
    """Raises ParamsError where a rule names no verifier, or one whose model has no settings."""
    for category, rule in params.rules.items():
        key = f"params.yaml: verify.rules.{category}.verifier"
        if rule.verifier not in SOURCES:
            raise ParamsError(f"{key}: {rule.verifier!r} is none of {', '.join(sorted(SOURCES))}")
        if rule.verifier == reward.NAME and params.reward is None:
            raise ParamsError(f"{key}: reward needs settings under verify.reward")


def open_judge(settings: JudgeSettings, lock: Lock, prompts: str, root: Path) -> Judge:
    """The judge, its engine not started before it is asked for something that its ledger does not hold."""
    texts = {name: prompt(prompts, name) for name in ("math", "science")}
    engine = LedgerEngine(
        Ledger("judge", root), settings.engine.max_model_len, lambda: start(lock, settings.engine, beside=True)
    )
    return Judge(EngineThread(engine), lock.revision, settings.sampling, texts)
