"""assets: locks every model that the run uses, by revision and by the hash of each of its files.

``python -m stages.assets`` locks the models that all teachers share, ``python -m stages.assets TEACHER`` one teacher's.
"""

import hashlib
import json
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from distillery.core import config
from distillery.core.config import Section
from distillery.core.errors import ConfigError
from distillery.core.files import atomic_dir, write_json
from distillery.core.formats import FORMATS, is_marker, recognise
from distillery.core.hub import Named, check
from distillery.core.model_locks import FOLDER, Lock, teacher_role
from distillery.core.pins import DATA, MODEL, pin
from distillery.core.progress import log
from distillery.core.stage import run_stage
from distillery.core.teachers import teacher_names
from distillery.corpus.sources import Origin, check_watched, is_local, local_files, pinned
from distillery.generation.released_traces import usual_format

TEMPLATES = Path("conf/chat_templates")
CHAT_FILES = ("chat_template.jinja", "tokenizer_config.json", "tokenizer.json")
WEIGHTS = (".safetensors", ".json", ".txt", ".jinja", ".model")
"""How files end that determine a model's answers, outside of its folders; ``.bin`` in place of the first."""


@dataclass(frozen=True)
class Model(Section):
    """A model on disk or on the hub."""

    id: str
    """A path, or an id on the hub."""
    revision: str | None
    """The commit, branch or tag of a model on the hub; null for a path."""
    _: KW_ONLY
    format: str | None = None
    """How a teacher writes thought and answer, a name in distillery/core/formats.py; null: as its template says."""
    template: str | None = None
    """A chat template's file, under conf/chat_templates, in place of the model's own; null for its own."""
    template_arguments: dict[str, Any] = field(default_factory=dict)
    """What the chat template is called with, ``{enable_thinking: true}``."""


# ``base`` becomes the students, ``scorer`` gives perplexity, ``embedder`` finds benchmark twins. The judge and the
# reward model verify, the constraint writer extracts the constraints of instructions: null where no category needs them.
NEEDED = ("base", "scorer", "embedder")
OPTIONAL = ("judge", "reward", "constraint_writer")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_path(role: str, model: Model) -> Lock:
    """Locks a model folder by the hashes of its files."""
    folder = Path(model.id)
    files = {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.suffix in WEIGHTS}
    if not any(name.endswith(".safetensors") for name in files):
        raise ConfigError(f"{model.id}: role {role}: no .safetensors file there; only safetensors weights are used")
    return Lock(role, model.id, digest_of(files), True, files)


def lock_hub(role: str, model: Model) -> Lock:
    """Locks a hub model by the commit that its revision is pinned to; hashes come from the hub, nothing is downloaded yet."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        commit = pin(MODEL, model.id, model.revision, lambda: str(HfApi().model_info(model.id, revision=model.revision).sha))
        info = HfApi().model_info(model.id, revision=commit, files_metadata=True)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise ConfigError(
            f"role {role}: {model.id}: not a local folder, and not found on the hub: {' '.join(str(error).split())}"
        ) from None
    files = {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id or "" for f in info.siblings or []}
    weights = (*WEIGHTS, ".bin") if not any(name.endswith(".safetensors") for name in files) else WEIGHTS
    files = {name: digest for name, digest in sorted(files.items()) if name.endswith(weights)}
    content = digest_of({name: digest for name, digest in files.items() if "/" not in name})
    return Lock(role, model.id, str(info.sha), False, files, content=content)


def check_chat(role: str, model: Model) -> None:
    """Raises ConfigError where a model's template or format does not exist."""
    if model.template is not None and (not Path(model.template).is_file() or TEMPLATES not in Path(model.template).parents):
        raise ConfigError(f"params.yaml: role {role}: template: {model.template}: no such file under {TEMPLATES}")
    if model.format is not None and model.format not in FORMATS:
        raise ConfigError(f"params.yaml: role {role}: format: {model.format!r} is none of {', '.join(FORMATS)}")


def lock(role: str, model: Model) -> Lock:
    """Locks a model, and how it is prompted and writes. Raises ConfigError where a format or template is unknown."""
    check_chat(role, model)
    found = lock_path(role, model) if Path(model.id).is_dir() else lock_hub(role, model)
    chat = read_chat_files(found)
    if model.template is not None:
        chat["template"] = Path(model.template).read_text(encoding="utf-8")
    return replace(
        found,
        response_format=model.format or recognise(chat["template"]),
        template=model.template,
        template_arguments=model.template_arguments,
        special_markers=sorted(token for token in chat["special"] if is_marker(token)),
    )


def read_chat_files(lock: Lock) -> dict[str, Any]:
    """A model's chat template ("" without one) and its special tokens, from its tokenizer's files."""
    texts = {name: text_of(lock, name) for name in CHAT_FILES}
    settings, tokenizer = (json.loads(texts[name] or "{}") for name in ("tokenizer_config.json", "tokenizer.json"))
    template = texts["chat_template.jinja"] or settings.get("chat_template") or ""
    if isinstance(template, list):
        template = next((each["template"] for each in template if each["name"] == "default"), "")
    added = [*tokenizer.get("added_tokens", []), *settings.get("added_tokens_decoder", {}).values()]
    return {"template": template, "special": {token["content"] for token in added if token["special"]}}


def text_of(lock: Lock, name: str) -> str | None:
    """A small file of a model; None where it has none."""
    if name not in lock.files:
        return None
    if lock.local:
        return Path(lock.id, name).read_text(encoding="utf-8")
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(lock.id, name, revision=lock.revision)).read_text(encoding="utf-8")


def lock_traces(role: str, traces: Origin, key: str) -> Lock:
    """Locks a released data set by the hashes of its files, or by its commit on the hub; ``key`` names its setting."""
    name = usual_format(pinned(traces), key)
    if not is_local(traces.source):
        return Lock(role, traces.source, str(pinned(traces).revision), False, {}, name)
    check_watched(Path(traces.source), key)
    files = {str(path): sha256(path) for path in local_files(traces)}
    return Lock(role, traces.source, digest_of(files), True, files, name)


def digest_of(files: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, sha in files.items()).encode()).hexdigest()[:16]


def lock_teacher(name: str) -> Lock:
    """Locks a teacher: its model, or the released traces that take its place."""
    role, key = teacher_role(name), f"teacher.{name}"
    model, traces = config.load(Model | None, f"{key}.model"), config.load(Origin | None, f"{key}.traces")
    check_teacher(key, model, traces)
    return lock(role, model) if model else lock_traces(role, traces, f"{key}.traces.source")


def check_teacher(key: str, model: Model | None, traces: Origin | None) -> None:
    """Raises ConfigError where a teacher has neither a model nor released traces, or both."""
    if (model is None) == (traces is None):
        raise ConfigError(f"params.yaml: {key}: needs a model or traces, and not both; set the other null")


def lock_roles() -> dict[str, Lock | None]:
    """Locks the models that all teachers share."""
    roles = config.load(dict[str, Model | None], "assets")
    for role in NEEDED:
        config.load(Model, f"assets.{role}")
    for role in OPTIONAL:
        config.load(Model | None, f"assets.{role}")
    return {role: lock(role, model) if model else None for role, model in roles.items()}


def named() -> list[Named]:
    """Every model and data set that the profile names on the hub, without benchmarks that are switched off."""
    params = config.read_params()
    off = {name for name, task in params.get("evaluate", {}).get("benchmarks", {}).items() if not task.get("samples")}
    teachers = {f"teacher.{name}": each for name, each in params.get("teacher", {}).items() if name in teacher_names()}
    models = {f"assets.{role}": model for role, model in params["assets"].items()}
    models |= {f"{key}.model": each.get("model") for key, each in teachers.items()}
    origins = {f"{key}.traces": each.get("traces") for key, each in teachers.items()}
    origins |= {f"collect.sources.{name}": each for name, each in params.get("collect", {}).get("sources", {}).items()}
    origins |= {f"benchmarks.{name}": each for name, each in params.get("benchmarks", {}).items() if name not in off}
    found = [Named(key, MODEL, each["id"], each.get("revision")) for key, each in models.items() if each]
    data = [Named(key, DATA, each["source"], each.get("revision")) for key, each in origins.items() if each]
    return [each for each in found if not Path(each.id).is_dir()] + [each for each in data if not is_local(each.id)]


def main(teacher: str = "") -> None:
    if teacher:
        found = lock_teacher(teacher)
        write_json(asdict(found), FOLDER / f"{found.role}.json")
        log(f"assets@{teacher}", f"{found.id} {found.revision[:8]}")
        return
    check(named())
    locks = lock_roles()
    with atomic_dir(FOLDER / "roles") as folder:
        for role, each in locks.items():
            write_json(asdict(each) if each else None, folder / f"{role}.json")
    log("assets", ", ".join(f"{role} {each.revision[:8] if each else 'none'}" for role, each in locks.items()))


if __name__ == "__main__":
    run_stage(main)
