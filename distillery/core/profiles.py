"""python -m distillery.core.profiles NAME [--limit N]: writes params.yaml, flat and complete.

It is conf/common.yaml with a profile over it. With a limit the study is tried out on N queries: at most N of every benchmark's
questions, two samples each, one training seed.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from distillery.core.errors import ConfigError
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


def limited(settings: dict[str, Any], limit: int) -> dict[str, Any]:
    """The settings for a trial with so many queries, spread over the sources."""
    sources, benchmarks = settings["collect"]["sources"], settings["evaluate"]["benchmarks"]
    most = -(-limit // len(sources))
    few = {
        "collect": {"sources": {name: {"limit": min(each.get("limit") or most, most)} for name, each in sources.items()}},
        "evaluate": {
            "benchmarks": {name: {"questions": limit, "samples": min(each["samples"], 2)} for name, each in benchmarks.items()}
        },
        "train": {"seeds": settings["train"]["seeds"][:1]},
    }
    return dict(merge(settings, few))


def compose(name: str, limit: int | None = None) -> str:
    """The text of params.yaml for a profile, for a trial where there is a limit."""
    common, profile = (yaml.safe_load(path.read_text()) for path in (CONF / "common.yaml", CONF / "profiles" / f"{name}.yaml"))
    # Anchors are expanded, so that every setting appears where it applies and can be changed alone.
    yaml.SafeDumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]
    settings = with_arms(merge(common, profile))
    if limit:
        settings = limited(settings, limit)
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
    command = f"python -m distillery.core.profiles {name}{f' --limit {limit}' if limit else ''}"
    header = f"# Written by `{command}` from conf/. Change it there, or here for an experiment."
    return f"{header}\n{body}"


def main(*arguments: str) -> None:
    name, *options = arguments or [""]
    limit = int(options[1]) if len(options) == 2 and options[0] == "--limit" and options[1].isdecimal() else None
    if name and name not in names():
        raise ConfigError(f"no profile {name!r} in conf/profiles; there are {', '.join(names())}")
    if not name or (options and not limit):
        sys.exit(f"usage: python -m distillery.core.profiles {{{','.join(names())}}} [--limit QUERIES]")
    write_text(compose(name, limit), "params.yaml")
    print(f"profile: params.yaml is now the profile {name}{f', with at most {limit} queries' if limit else ''}")


if __name__ == "__main__":
    run_stage(main)
