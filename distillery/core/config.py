"""Settings: each section of params.yaml becomes a frozen dataclass, and anything unexpected in it is an error.

The error names the file and the key: ``params.yaml: train.learning_rte: unknown key (did you mean learning_rate?)``.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache, partial
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

import yaml
from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

from distillery.core.errors import ConfigError

PARAMS = Path("params.yaml")
STAGES = Path(__file__).resolve().parents[2] / "stages"
CONF = Path(__file__).resolve().parents[2] / "conf"
T = TypeVar("T")
Positive = Annotated[int, Gt(0)]
NonNegative = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Gt(0), Lt(1)]
ModelType = Literal["float32", "bfloat16", "float16"]


class Loader(yaml.SafeLoader):
    """Reads YAML 1.2, as DVC does: PyYAML takes ``1e-5`` for text, ``on`` for true, ``010`` for 8, one of two equal keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, (key, _) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value in names[:place]:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark)
        return node


SCALARS: dict[str, tuple[str, Any]] = {
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+", int),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", None),
    "null": (r"~|null|Null|NULL|", None),
}


def _scalar(read: Any, _: Any, node: yaml.ScalarNode) -> Any:
    return read(node.value)


Loader.yaml_implicit_resolvers = {}
for kind, (pattern, read) in SCALARS.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{pattern})$"), None)
    if read:
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", partial(_scalar, read))
Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])


class Section:
    """Base of every section's dataclass: strict types, no unknown keys."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


@overload
def load(kind: type[T], section: str, path: Path = PARAMS) -> T: ...


@overload
def load(kind: Any, section: str, path: Path = PARAMS) -> Any: ...


def load(kind: Any, section: str, path: Path = PARAMS) -> Any:
    """Reads one section, given by its dotted name, as ``kind``: a Section dataclass or a plain type.

    Raises ConfigError with one line per mistake, each naming file and key.
    """
    return parse(kind, _find(read_params(path), section, path), section, path)


def parse(kind: Any, value: Any, section: str, path: Path = PARAMS) -> Any:
    """Checks a value that was read from ``section`` of ``path`` against ``kind``."""
    if infinite := list(_infinite(value, section)):
        raise ConfigError("\n".join(f"{path}: {key}: {number} is not a finite number" for key, number in infinite))
    try:
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(kind, section, path, mistake) for mistake in _causes(error.errors()))) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _infinite(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """The infinities and NaNs inside a value, and where they are."""
    if isinstance(value, float) and not isfinite(value):
        yield key, value
    named = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in named:
        yield from _infinite(inner, f"{key}.{name}")


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """The complete file; every section must belong to a stage or be one that stages share."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; write it with `python -m distillery.core.profiles mini`")
    try:
        content = deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(section, str) for section in content):
        raise ConfigError(f"{path}: must be sections, each a name with its settings")
    if path.name == PARAMS.name and path.resolve().parent == Path.cwd():
        known = known_sections()
        for section in content:
            if section not in known:
                raise ConfigError(f"{path}: {section}: unknown section{suggestion(section, known)}")
    return content


@lru_cache(1)
def _parsed(text: str) -> dict[str, Any]:
    """Each section is loaded by itself, from the same text."""
    return yaml.load(text, Loader) or {}


@cache
def known_sections() -> frozenset[str]:
    """What params.yaml may hold: sections of the files that it is composed from, arms, and sections of stages."""
    files = (CONF / "common.yaml", *(CONF / "profiles").glob("*.yaml"))
    named = {section for path in files for section in yaml.load(path.read_text(), Loader)}
    return frozenset(named | {"arms", "arm"} | {stage.stem for stage in STAGES.glob("*.py")})


def _causes(mistakes: list[Any]) -> list[Any]:
    """The mistakes without those that follow from another: a list is too short once a wrong item is left out."""
    places = [mistake["loc"] for mistake in mistakes]

    def follows(mistake: Any) -> bool:
        size = len(mistake["loc"])
        return mistake["type"] == "too_short" and any(len(loc) > size and loc[:size] == mistake["loc"] for loc in places)

    return [mistake for mistake in mistakes if not follows(mistake)]


def _find(content: Any, section: str, path: Path) -> Any:
    walked = []
    for key in section.split("."):
        walked.append(key)
        if not isinstance(content, dict) or key not in content:
            raise ConfigError(f"{path}: {'.'.join(walked)}: missing")
        content = content[key]
    return content


def _explain(kind: type, section: str, path: Path, mistake: Any) -> str:
    location = tuple(step for step in mistake["loc"] if not re.match(r"kind:|constrained-|literal\[|\[key\]$", str(step)))
    key = ".".join([section, *map(str, location)])
    if mistake["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{path}: {key}: unknown key{suggestion(str(location[-1]), _names(kind, location[:-1]))}"
    if mistake["type"] in ("missing", "missing_argument"):
        return f"{path}: {key}: missing"
    if mistake["type"] == "union_tag_invalid":
        known = mistake["ctx"]["expected_tags"].replace("kind:", "")
        given = mistake["input"].get("kind") if isinstance(mistake["input"], dict) else mistake["input"]
        return f"{path}: {key}.kind: {given!r} is none of {known}"
    if mistake["type"] == "value_error":
        return f"{path}: {key}.{mistake['ctx']['error']}"  # raised by a section itself, and begins with the field
    return f"{path}: {key}: {mistake['msg']}, got {mistake['input']!r}"


def _names(kind: Any, location: tuple) -> set[str]:
    """The field names of the dataclass that a location inside ``kind`` refers to; empty if none."""
    for step in location:
        if not is_dataclass(kind):
            return set()
        kind = {field.name: field.type for field in fields(kind)}.get(step)
    return {field.name for field in fields(kind)} if is_dataclass(kind) else set()


def suggestion(word: str, known: Collection[str]) -> str:
    """`` (did you mean ...?)``, or nothing."""
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""
