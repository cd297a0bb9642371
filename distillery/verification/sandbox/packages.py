"""Installed packages that programs and tests may import, and where they are."""

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from distillery.core.errors import SandboxError


def folders_of(names: Iterable[str]) -> dict[str, Path]:
    """The folders and modules of packages and of all that these require, by their names for ``import``.

    Raises SandboxError for a package that is not installed.
    """
    found: dict[str, Path] = {}
    for each in required(names).values():
        for file in each.files or ():
            top = file.parts[0]
            if top not in found and not top.endswith((".dist-info", ".pth", "__pycache__")) and ".." not in file.parts:
                found[top] = Path(str(each.locate_file(top)))
    return dict(sorted(found.items()))


def required(names: Iterable[str]) -> dict[str, Distribution]:
    """Packages and, again and again, what they require without extras."""
    found: dict[str, Distribution] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            found[key] = distribution(name)
        except PackageNotFoundError:
            raise SandboxError(
                f"verify.sandbox.packages: {name} is not installed; `pip install {name}`, or remove it"
            ) from None
        wanted = map(Requirement, found[key].requires or ())
        todo += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found
