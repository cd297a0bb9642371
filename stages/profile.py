"""python -m stages.profile NAME: writes params.yaml, flat and complete, composed from conf/params.yaml and a profile."""

import sys
from pathlib import Path

import yaml

from stages.tables import write_text

CONF = Path("conf")


def names() -> list[str]:
    return sorted(path.stem for path in (CONF / "profile").glob("*.yaml"))


def composed(name: str) -> str:
    """The text of params.yaml for a profile."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF.resolve())):
        config = OmegaConf.to_container(compose("params", overrides=[f"profile={name}"]), resolve=True)
    body = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
    return f"# Written by `python -m stages.profile {name}` from conf/. Change it there, or here for an experiment.\n{body}"


def main(*arguments: str) -> None:
    if len(arguments) != 1 or arguments[0] not in names():
        sys.exit(f"usage: python -m stages.profile {{{','.join(names())}}}")
    write_text(composed(arguments[0]), "params.yaml")
    print(f"profile: params.yaml is now the profile {arguments[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
