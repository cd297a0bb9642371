"""assets: fixes every model that the run uses, by revision and by the hash of each of its files."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from stages import params, provenance
from stages.locks import FOLDER, Lock
from stages.params import ParamsError, Section
from stages.provenance import say
from stages.sources import Origin, check_watched, files_of, is_local, pinned
from stages.tables import whole_folder, write_json

WEIGHTS = (".safetensors", ".json", ".txt", ".jinja", ".model")


@dataclass(frozen=True)
class Model(Section):
    """A model by path or hub id; ``revision`` pins a hub id and is null for a path."""

    id: str
    revision: str | None


# ``base`` becomes the students, ``scorer`` gives perplexity, ``embedder`` finds benchmark twins. The judge and the
# reward model verify, the constraint writer says what instructions ask for: null where no category needs them.
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
        raise ParamsError(f"{model.id}: role {role}: no .safetensors file there; only safetensors weights are used")
    return Lock(role, model.id, digest_of(files), True, files)


def lock_hub(role: str, model: Model) -> Lock:
    """Locks a hub model by its commit; hashes come from the hub, nothing is downloaded yet."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(model.id, revision=model.revision, files_metadata=True)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise ParamsError(
            f"role {role}: {model.id}: neither a folder nor to be had from the hub: {' '.join(str(error).split())}"
        ) from None
    files = {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id or "" for f in info.siblings or []}
    return Lock(role, model.id, str(info.sha), False, {k: v for k, v in files.items() if k.endswith(WEIGHTS)})


def lock(role: str, model: Model) -> Lock:
    return lock_path(role, model) if Path(model.id).is_dir() else lock_hub(role, model)


def lock_traces(role: str, traces: Origin) -> Lock:
    """Locks a released data set by the hashes of its files, or by its commit on the hub."""
    if not is_local(traces.source):
        return Lock(role, traces.source, str(pinned(traces).revision), False, {})
    check_watched(Path(traces.source), f"{role.replace('-', '.', 1)}.traces.source")
    files = {str(path): sha256(path) for path in files_of(Path(traces.source))}
    return Lock(role, traces.source, digest_of(files), True, files)


def digest_of(files: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, sha in files.items()).encode()).hexdigest()[:16]


def check_listed(teachers: list[str], pipeline: str) -> None:
    """DVC cannot list one path a teacher by itself: every teacher needs its lines in dvc.yaml's joint stages."""
    for i, teacher in enumerate(teachers):
        if pipeline.count(f"${{teachers[{i}]}}") != pipeline.count("${teachers[0]}"):
            raise ParamsError(
                f"dvc.yaml: teacher {teacher!r} is number {i + 1}, but the joint stages list fewer: "
                f"add lines with ${{teachers[{i}]}} beside those with ${{teachers[{i - 1}]}}"
            )


def main() -> None:
    roles, teachers = params.load(dict[str, Model | None], "assets"), params.load(list[str], "teachers")
    released: dict[str, Origin | None] = {}
    if twice := sorted({teacher for teacher in teachers if teachers.count(teacher) > 1}):
        raise ParamsError(f"params.yaml: teachers: {twice[0]!r} stands there twice")
    for role in NEEDED:
        params.load(Model, f"assets.{role}")
    for role in OPTIONAL:
        params.load(Model | None, f"assets.{role}")
    check_listed(teachers, Path("dvc.yaml").read_text())
    for teacher in teachers:
        roles[f"teacher-{teacher}"] = params.load(Model | None, f"teacher.{teacher}.model")
        traces = params.load(Origin | None, f"teacher.{teacher}.traces")
        if (roles[f"teacher-{teacher}"] is None) == (traces is None):
            raise ParamsError(f"params.yaml: teacher.{teacher}: needs a model or traces, and not both; set the other null")
        released[f"teacher-{teacher}"] = traces
    with provenance.record("metrics/assets.json", "huggingface_hub") as metrics:
        locks = {role: lock(role, model) if model else None for role, model in roles.items()}
        locks |= {role: lock_traces(role, traces) for role, traces in released.items() if traces}
        with whole_folder(FOLDER) as folder:
            for role, each in locks.items():
                write_json(asdict(each) if each else None, folder / f"{role}.json")
        metrics["models"] = sum(map(bool, locks.values()))
    say("assets", ", ".join(f"{role} {each.revision[:8] if each else 'none'}" for role, each in locks.items()))


if __name__ == "__main__":
    provenance.run(main)
