"""Sends every item to its category's verifier, keeps verdicts in the ledger, and applies the category's threshold."""

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from distillery.core.errors import ConfigError, EngineError
from distillery.core.model_locks import Lock
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.factory import as_served, start
from distillery.generation.ledger import ROOT, Ledger
from distillery.verification.code_verifier import CodeVerifier
from distillery.verification.config import NO_ROLES, Roles, Rule, VerifyParams
from distillery.verification.futures import done
from distillery.verification.judge import EngineThread, Judge, JudgeSettings, prompt
from distillery.verification.process_pool import Pool
from distillery.verification.registry import Resources, entry_of
from distillery.verification.verdict import Item, Verdict, scored, unknown
from distillery.verification.verdict_store import Verdicts


class Router:
    """The `Verifies` of every kind of item. Verdicts that ``verdicts`` holds are reused.

    ``rules`` are by the items' category, those of the settings unless others are given. ``prompts`` is the folder of the
    judge's prompts, ``ledger`` the one that keeps what it answers. Without ``second_opinion`` no judge is asked to confirm
    a fail.
    """

    def __init__(
        self,
        settings: VerifyParams,
        roles: Roles = NO_ROLES,
        prompts: str = "",
        verdicts: Verdicts | None = None,
        ledger: Path = ROOT,
        rules: Mapping[str, Rule] | None = None,
        second_opinion: bool = True,
    ):
        self.rules: dict[str, Rule] = {str(kind): rule for kind, rule in (settings.rules if rules is None else rules).items()}
        self.verdicts = verdicts
        entries = {rule.verifier: entry_of(rule.verifier, f"verify.rules.{kind}.verifier") for kind, rule in self.rules.items()}
        asking = ("always", "fallback") if second_opinion else ("always",)
        asks = {name for name, entry in entries.items() if entry.judge in asking}
        self.judge: Judge | None = None
        if asks and settings.judge and roles.judge:
            self.judge = open_judge(settings.judge, roles.judge, prompts, ledger)
        prepare = tuple(entry.prepare for _, entry in sorted(entries.items()) if entry.prepare)
        self.pool = Pool(settings.processes, settings.timeout, prepare)
        strict = all(rule.threshold == 1 for rule in self.rules.values() if rule.verifier == "code")
        resources = {
            name: Resources(settings, self.pool, self.judge if name in asks else None, roles.reward, strict) for name in entries
        }
        try:
            self.versions = {name: entry.version(resources[name]) for name, entry in entries.items()}
            self.verifiers = {name: entry.open(resources[name]) for name, entry in entries.items()}
        except ConfigError:
            self.pool.close()
            raise
        self.ready: SimpleQueue[tuple[Item, str, Verdict]] = SimpleQueue()
        self.dead: EngineError | None = None
        self.reached = 0
        self.remembered = 0

    @property
    def notices(self) -> list[str]:
        """What a user should know about verification here: a line on the sandbox, where there is code."""
        return [verifier.notice for verifier in self.verifiers.values() if isinstance(verifier, CodeVerifier)]

    def submit(self, item: Item) -> None:
        rule = self.rules.get(item.category)
        if rule is None:
            self.ready.put((item, "", unknown("none", f"no rule for the category {item.category}", hopeless=True)))
            return
        version = self.versions[rule.verifier]
        known = self.verdicts.find(version, item) if self.verdicts else None
        if known:
            self.remembered += 1
        self.reached += not known
        future = done(known) if known else self._verify(rule.verifier, item)
        future.add_done_callback(partial(self._settle, item, version, rule))

    def poll(self, wait: float) -> list[tuple[str, Verdict]]:
        """What is ready; blocks up to ``wait`` seconds for the first.

        Raises EngineError where a verifier's model cannot be loaded: without it an entire category would be inconclusive.
        """
        found: list[tuple[str, Verdict]] = []
        try:
            ready = self.ready.get(timeout=wait) if wait else self.ready.get_nowait()
            while True:
                item, version, verdict = ready
                if version and self.verdicts:
                    self.verdicts.add(version, item, verdict)
                found.append((item.key, verdict))
                ready = self.ready.get_nowait()
        except Empty:
            if self.verdicts:
                self.verdicts.journal.sync_if_due()
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

    def _settle(self, item: Item, version: str, rule: Rule, ended: "Future[Verdict]") -> None:
        error = ended.exception()
        if isinstance(error, EngineError):
            self.dead = error
        verdict = unknown(rule.verifier, f"{type(error).__name__}: {error}") if error else ended.result()
        self.ready.put((item, version, verdict.at(rule.threshold)))


def open_judge(settings: JudgeSettings, lock: Lock, prompts: str, root: Path) -> Judge:
    """The judge; its engine starts only when asked for something that its ledger does not hold."""
    texts = {name: prompt(prompts, name) for name in ("math", "science")}
    served, real = as_served(lock, settings.engine), partial(start, lock, settings.engine, in_subprocess=True)
    engine = LedgerEngine(Ledger("judge", root), settings.engine.max_model_len, real, served.renamed)
    return Judge(EngineThread(engine), served.identity, settings.sampling, texts)
