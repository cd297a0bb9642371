"""Model locks: which model each role uses, down to the hashes of its files.

Under models/locks, one file per role: ``roles/base.json``, ``teachers/NAME.json``.
"""

from dataclasses import dataclass
from pathlib import Path

from distillery.core.files import read_json

FOLDER = Path("models/locks")


def teacher_role(name: str) -> str:
    return f"teachers/{name}"


@dataclass(frozen=True)
class Lock:
    """``id`` is a path or a hub id; ``revision`` a hub commit, or for a path a hash over ``files`` (name to sha256)."""

    role: str
    id: str
    revision: str
    local: bool
    files: dict[str, str]

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
