"""Rows of rollouts that others made, as the fields that our verifiers read, with the verdict that they carry.

Known by their fields: our own (``text`` or ``response`` with a ``category``), NeMo Gym (``responses_create_params`` and
``response``), verifiers (``prompt``, ``completion``, ``answer``, ``reward``), OpenThoughts (``problem``,
``deepseek_reasoning``, ``deepseek_solution``), and dialogues (``messages`` or ``conversations``) that end with the response.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from distillery.core.chat import UNWRITABLE
from distillery.core.errors import DataError
from distillery.core.files import scan_json_lines
from distillery.core.formats import STUDY, WRITTEN
from distillery.core.schemas import CATEGORIES

Row = Mapping[str, Any]
CARRIED = ("verdict", "label", "correct", "is_correct", "verified", "reward", "score", "verify_score")
"""Fields that say whether a response is right, the first that a row has."""
RIGHT, WRONG = ("pass", "right", "correct", "true"), ("fail", "wrong", "incorrect", "false")
REFERENCES = ("ground_truth", "answer", "expected_answer", "final_answer", "ground_truth_solution", "solution", "target")
TESTS = ("test_cases", "tests", "verification_info", "unit_tests")
CONSTRAINTS = ("constraints", "instruction_id_list", "verifier_metadata")
DOMAINS = {"mathematics": "math", "programming": "code", "coding": "code", "instruction_following": "if", "chat": "other"}
ROLES = {"human": "user", "gpt": "assistant", "from": "user"}


@dataclass(frozen=True)
class Rollout:
    """A response with its query: the fields of an item, and whether it is said to be right (None: nothing is said)."""

    fields: dict[str, Any]
    text: str
    claimed: bool | None


def read(source: str) -> Iterator[tuple[str, Row]]:
    """(where, row) of a JSON lines or parquet file, a folder of them, or a data set on the hub.

    Raises DataError for a line that is no JSON object, and where there is nothing by that name.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix in (".jsonl", ".parquet"))
        if not files:
            raise DataError(f"{source}: no .jsonl or .parquet file there")
        for file in files:
            yield from read(str(file))
    elif path.suffix == ".parquet" and path.exists():
        import pyarrow.parquet as pq

        rows = (row for batch in pq.ParquetFile(path).iter_batches(1000) for row in batch.to_pylist())
        yield from ((f"{source}:{number}", row) for number, row in enumerate(rows, 1))
    elif path.exists() or path.suffix == ".jsonl":
        yield from ((scanned.where, scanned.checked()) for scanned in scan_json_lines(path))
    else:
        yield from from_hub(source)


def from_hub(source: str) -> Iterator[tuple[str, Row]]:
    """The rows of every split of a data set on the hub, streamed."""
    from datasets import load_dataset

    try:
        splits = load_dataset(source, streaming=True)
    except Exception as error:  # the library raises whatever its parts do
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{source}: no file or folder, and not read from the hub: {type(error).__name__}: {why}") from None
    for name, rows in splits.items():
        yield from ((f"{source}/{name}:{number}", row) for number, row in enumerate(rows, 1))


def text_of(content: Any) -> str:
    """The text of a message's content, which may be a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return "" if content is None else str(content)


def whole(message: Row) -> str:
    """A response with its thought, which some keep in a field of its own."""
    thought = message.get("reasoning_content") or message.get("reasoning")
    said = text_of(message.get("content", message.get("value")))
    return WRITTEN[STUDY].format(thought=thought, answer=said) if thought else said


def turns_of(row: Row) -> list[dict[str, Any]]:
    """The dialogue of a row, as roles and contents, whatever its fields are called; empty where it has none."""
    for name in ("messages", "conversations", "prompt", "input"):
        found = row.get(name)
        if isinstance(found, str):
            try:
                found = json.loads(found) if found.lstrip().startswith("[") else [{"role": "user", "content": found}]
            except ValueError:
                found = [{"role": "user", "content": found}]
        if isinstance(found, list) and found and all(isinstance(turn, Mapping) for turn in found):
            return [dict(turn) | {"role": role_of(turn)} for turn in found]
    for name in ("problem", "question", "instruction"):
        if isinstance(row.get(name), str):
            return [{"role": "user", "content": row[name]}]
    return []


def role_of(turn: Row) -> str:
    role = str(turn.get("role", turn.get("from", "user")))
    return ROLES.get(role, role)


def ours(row: Row) -> tuple[list[dict[str, Any]], str] | None:
    text = row.get("text", row.get("response"))
    return (turns_of(row), text) if isinstance(text, str) and ("category" in row or not turns_of(row)) else None


def nemo_gym(row: Row) -> tuple[list[dict[str, Any]], str] | None:
    """Its response is of OpenAI's Responses API: reasoning items with summaries, and messages of output texts."""
    asked, answered = row.get("responses_create_params"), row.get("response")
    if not isinstance(asked, Mapping) or not isinstance(answered, Mapping):
        return None
    items = [item for item in answered.get("output") or [] if isinstance(item, Mapping)]
    thoughts = "".join(
        text_of(item.get("summary")) or text_of(item.get("content")) for item in items if item.get("type") == "reasoning"
    )
    said = "".join(text_of(item.get("content")) for item in items if item.get("type") == "message")
    return turns_of(asked), whole({"reasoning_content": thoughts, "content": said})


def of_verifiers(row: Row) -> tuple[list[dict[str, Any]], str] | None:
    said = row.get("completion")
    if said is None or "prompt" not in row:
        return None
    if isinstance(said, list) and said and isinstance(said[-1], Mapping):
        return turns_of({"prompt": row["prompt"]}), whole(said[-1])
    return (turns_of({"prompt": row["prompt"]}), said) if isinstance(said, str) else None


def open_thoughts(row: Row) -> tuple[list[dict[str, Any]], str] | None:
    if "deepseek_solution" not in row:
        return None
    return turns_of(row), whole({"reasoning_content": row.get("deepseek_reasoning"), "content": row["deepseek_solution"]})


def dialogue(row: Row) -> tuple[list[dict[str, Any]], str] | None:
    turns = turns_of(row)
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        return None
    return turns[:-1], whole(turns[-1])


KINDS: tuple[Callable[[Row], tuple[list[dict[str, Any]], str] | None], ...] = (
    nemo_gym,
    open_thoughts,
    of_verifiers,
    ours,
    dialogue,
)


def rollout_of(row: Row, where: str) -> Rollout:
    """A row as a rollout. Raises DataError, naming file and line, for one that has no response, or texts that are none."""
    found = next(filter(None, (kind(row) for kind in KINDS)), None)
    if found is None:
        raise DataError(f"{where}: no response; its fields are {', '.join(islice(map(str, row), 12))}")
    turns, text = found
    inner = {**flat(row.get("verifier_metadata")), **flat(row.get("info")), **flat(row.get("metadata")), **row}
    messages = [{"role": turn["role"], "content": text_of(turn.get("content", turn.get("value")))} for turn in turns]
    fields = {
        "messages": messages,
        "ground_truth": first_text(inner, REFERENCES),
        "test_cases": first_text(inner, TESTS),
        "constraints": first_text(inner, CONSTRAINTS[:1]) or constraints_of(inner),
    }
    texts = [text, *(each["content"] for each in messages), *(value for value in fields.values() if isinstance(value, str))]
    if any(UNWRITABLE.search(each) for each in texts):
        raise DataError(f"{where}: null byte or lone surrogate in a text")
    return Rollout(fields | {"category": category_of(inner, fields, where)}, text, claimed(row))


def flat(value: Any) -> dict[str, Any]:
    """A field that holds further fields, as an object or as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, Mapping) else {}


def first_text(row: Row, names: tuple[str, ...]) -> str | None:
    """The first of these fields that is there, as text."""
    for name in names:
        value = row.get(name)
        if value not in (None, "", [], {}) and not isinstance(value, bool):
            return value if isinstance(value, str) else json.dumps(value)
    return None


def constraints_of(row: Row) -> str | None:
    """IFEval's two fields as our one."""
    if not isinstance(names := row.get("instruction_id_list"), list):
        return None
    return json.dumps({"instruction_id_list": names, "kwargs": row.get("kwargs") or [{} for _ in names]})


def category_of(row: Row, fields: Mapping[str, Any], where: str) -> str:
    """The category that a row names, or else the one that its reference implies. Raises DataError for neither."""
    for name in ("category", "domain", "task"):
        said = str(row.get(name) or "").lower()
        if said in CATEGORIES or said in DOMAINS:
            return DOMAINS.get(said, said)
    implied = {"test_cases": "code", "constraints": "if", "ground_truth": "math"}
    for name, category in implied.items():
        if fields[name]:
            return category
    raise DataError(f"{where}: no reference ({', '.join(REFERENCES)}), tests or constraints, and no category that needs none")


def claimed(row: Row) -> bool | None:
    """Whether a row says that its response is right; a number is right from 1 on."""
    for name in CARRIED:
        value = row.get(name)
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value >= 1
        if isinstance(value, str) and value.lower() in (
            "pass",
            "right",
            "correct",
            "true",
            "fail",
            "wrong",
            "incorrect",
            "false",
        ):
            return value.lower() in ("pass", "right", "correct", "true")
    return None
