"""python -m distillery.core.profiles NAME: writes params.yaml, flat and complete: conf/common.yaml with a profile over it."""

import sys
from pathlib import Path
from typing import Any

import yaml

from distillery.core.files import write_text
from distillery.core.stage import run_stage

CONF = Path("conf")


def names() -> list[str]:
    return sorted(path.stem for path in (CONF / "profiles").glob("*.yaml"))


def merge(below: Any, above: Any) -> Any:
    """Merges mappings key by key; for anything else the overriding value is used."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: merge(below[key], value) if key in below else value for key, value in above.items()}


def with_arms(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with an arm per teacher where they name no arms, after the teachers."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found[key] = value
        if key == "teachers":
            found["arms"], found["arm"] = settings.get("arms", value), settings.get("arm", {})
    return found


def compose(name: str) -> str:
    """The text of params.yaml for a profile."""
    common, profile = (yaml.safe_load(path.read_text()) for path in (CONF / "common.yaml", CONF / "profiles" / f"{name}.yaml"))
    # Anchors are expanded, so that every setting appears where it applies and can be changed alone.
    yaml.SafeDumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]
    settings = with_arms(merge(common, profile))
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
    header = f"# Written by `python -m distillery.core.profiles {name}` from conf/. Change it there, or here for an experiment."
    return f"{header}\n{body}"


def main(*arguments: str) -> None:
    if len(arguments) != 1 or arguments[0] not in names():
        sys.exit(f"usage: python -m distillery.core.profiles {{{','.join(names())}}}")
    write_text(compose(arguments[0]), "params.yaml")
    print(f"profile: params.yaml is now the profile {arguments[0]}")


if __name__ == "__main__":
    run_stage(main)
