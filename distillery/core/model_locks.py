"""Model locks: which model each role uses, down to the hashes of its files.

Under models/locks, one file per role: ``roles/base.json``, ``teachers/NAME.json``.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillery.core.files import read_json
from distillery.core.formats import STUDY

FOLDER = Path("models/locks")


def teacher_role(name: str) -> str:
    return f"teachers/{name}"


@dataclass(frozen=True)
class Lock:
    """``id`` is a path or a hub id; ``revision`` a hub commit, or for a path a hash over ``files`` (name to sha256).

    ``content`` is a hash over what determines a hub model's answers (weights, configuration, tokenizer, template), which stays
    when a commit changes something else; empty for a path.

    ``response_format`` names how the model writes (`core.formats`). ``template`` is the path of a chat template in place of
    its own, ``template_arguments`` what the template is called with. ``special_markers`` are the markers of thoughts that are
    special tokens in its tokenizer. ``served`` is what an engine's settings change about its answers; no file holds it.
    """

    role: str
    id: str
    revision: str
    local: bool
    files: dict[str, str]
    response_format: str = STUDY
    template: str | None = None
    template_arguments: dict[str, Any] = field(default_factory=dict)
    special_markers: list[str] = field(default_factory=list)
    served: dict[str, Any] = field(default_factory=dict)
    content: str = ""

    @property
    def template_text(self) -> str | None:
        return None if self.template is None else Path(self.template).read_text(encoding="utf-8")

    @property
    def weights(self) -> str:
        """What a score depends on beside the text: the model's content, however it is prompted."""
        return self.content or self.revision

    @property
    def identity(self) -> str:
        """What the model's answers depend on beside messages and sampling: its content, and how it is prompted.

        Models with special markers have keys of their own: completions of before such tokens were kept lack the markers.
        """
        return self._identity(self.weights)

    @property
    def renamed(self) -> dict[str, str]:
        """The identity that the ledger's first version had for this one, by the commit; empty where it was the same."""
        return {self.identity: self._identity(self.revision)} if self.content else {}

    def _identity(self, model: str) -> str:
        asked = {"template": self.template_text, "arguments": self.template_arguments, "markers": bool(self.special_markers)}
        asked |= {"served": self.served} if self.served else {}
        if not any(asked.values()):
            return model
        return f"{model}+{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]}"

    @property
    def hub_revision(self) -> str | None:
        """The revision to load; None for a path."""
        return None if self.local else self.revision


def read(role: str) -> Lock:
    return Lock(**read_json(path_of(role)))


def path_of(role: str) -> Path:
    return FOLDER / f"{role if '/' in role else f'roles/{role}'}.json"


def read_optional(role: str) -> Lock | None:
    """The lock of an optional role; None where the profile omits it."""
    found = read_json(path_of(role))
    return Lock(**found) if found else None


def brief(*locks: Lock) -> dict[str, str]:
    """For provenance: role to id and revision."""
    return {lock.role: f"{lock.id}@{lock.revision}" for lock in locks}
