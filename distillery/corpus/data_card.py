"""The card of a released data set: front matter that `datasets` and the hub read, then what a reader wants to know."""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

UNSTATED = "not stated"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
LARGEST = "n>10M"


@dataclass(frozen=True)
class Contents:
    """What a data set holds: rows by category and by source, and the licence of each source (None: not stated)."""

    categories: dict[str, int]
    sources: dict[str, int]
    licences: dict[str, str | None]

    @property
    def rows(self) -> int:
        return sum(self.categories.values())


def size_of(rows: int) -> str:
    """The hub's name for the size of a data set."""
    return next((name for limit, name in SIZES if rows < limit), LARGEST)


def features_of(schema: pa.Schema) -> list[dict[str, Any]]:
    """A schema's columns as `datasets` writes them, so that a null in JSON lines has a type."""
    return [{"name": field.name} | kind_of(field.type) for field in schema]


def kind_of(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"list": kind_of(kind.value_type)["struct"]}
    if pa.types.is_struct(kind):
        return {"struct": features_of(pa.schema(kind))}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind))}


def front_matter(
    name: str, contents: Contents, features: list[dict[str, Any]], language: list[str], files: str
) -> dict[str, Any]:
    """What the hub shows and `datasets` loads by: a configuration for all rows, and one per category that has any."""
    held = [category for category, count in contents.categories.items() if count]
    stated = {contents.licences.get(source) for source in contents.sources}
    (licence,) = stated if len(stated) == 1 else (None,)
    everything = {"config_name": "default", "default": True, "data_files": [f"{category}/*.{files}" for category in held]}
    return {
        "pretty_name": f"Reasoning traces: {name}",
        "license": licence or "other",
        "language": language,
        "size_categories": [size_of(contents.rows)],
        "task_categories": ["text-generation"],
        "tags": ["reasoning", "distillation"],
        "configs": [everything, *({"config_name": each, "data_files": f"{each}/*.{files}"} for each in held)],
        "dataset_info": [{"config_name": each, "features": features} for each in ("default", *held)],
    }


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ("---",) * len(head), *rows))


def card(
    name: str, about: str, contents: Contents, facts: dict[str, Any], schema: pa.Schema, language: list[str], files: str
) -> str:
    """The card as Markdown; ``facts`` are listed as they are, ``schema`` is the rows'."""
    head = front_matter(name, contents, features_of(schema), language, files)
    yaml.SafeDumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]  # the hub's reader knows no anchors
    matter = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    categories = table(("category", "instances"), list(contents.categories.items()))
    by_source = [(source, count, contents.licences.get(source) or UNSTATED) for source, count in contents.sources.items()]
    lines = "\n".join(f"- **{fact}**: {value}" for fact, value in facts.items())
    return f"""---
{matter}---

# Reasoning traces: {name}

{about} Companion data sets contain other responses to the same queries.

{categories}

{table(("source", "instances", "licence"), by_source)}

Queries are under the licences of their sources; responses are under the terms of the model that wrote them.

## Columns

`messages` has `role`, `content` and, in the last turn, `reasoning_content`: what the model thought before its answer.
`conversations` is the study's form (`from`, `value`): its last turn has thought and answer in one text, as a student learns
them, and in `info` source, category, reference, score, model and perplexity. `system` is what `messages` starts with.

## Training on it

Each of these trains on `conversations`: thought and answer in one text. A chat template that writes `reasoning_content` can
take `messages` instead; the others would drop the thoughts without a word.

{snippets(name)}
{lines}
"""


def snippets(name: str) -> str:
    """How other libraries read the data set, from the folder that holds it, or by its id on the hub."""
    described = {
        "hf_hub_url": name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "assistant"},
    }
    return f"""TRL, with the loss on the last turn:

```python
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

ROLES = {{"human": "user", "assistant": "assistant"}}


def dialogue(row):
    turns = [{{"role": ROLES[turn["from"]], "content": turn["value"]}} for turn in row["conversations"]]
    system = [{{"role": "system", "content": row["system"]}}] if row["system"] else []
    return {{"prompt": system + turns[:-1], "completion": turns[-1:]}}


data = load_dataset("{name}", split="train")
data = data.map(dialogue, remove_columns=data.column_names)
settings = SFTConfig("student", max_length=32768, packing=True)
SFTTrainer("Qwen/Qwen3-1.7B", args=settings, train_dataset=data).train()
```

LLaMA-Factory, in `dataset_info.json`, where it is run beside the folder:

```json
{json.dumps({name: described}, indent=2)}
```

axolotl:

```yaml
datasets:
  - path: {name}
    type: chat_template
    field_messages: conversations
    message_property_mappings: {{role: from, content: value}}
```

DVC, in another project: `dvc get <this repository> data/parallel/{name}`.
"""
