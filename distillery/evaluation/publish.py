"""``python -m distillery.evaluation.publish ORG WHAT ... [--push] [--public]`` (`make publish`): results to a hub organisation.

WHAT is ``data:ARM``, ``student:ARM/SEED`` or ``report``. Without ``--push`` it only says what it would do. Repositories are
private unless ``--public``. Every file is searched for secrets and for paths of this machine first; where one is found, nothing
is pushed.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from distillery.core.arms import arm_names, arms
from distillery.core.errors import ConfigError, DataError
from distillery.core.progress import log
from distillery.core.stage import run_stage
from distillery.evaluation.model_card import model_card

CARD, PUSH, PUBLIC, MOST_NAMED = "README.md", "--push", "--public", 10
SECRETS = {
    "a token of the hub": r"\bhf_[A-Za-z0-9]{30,}",
    "an API key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a key of AWS": r"\bAKIA[0-9A-Z]{16}\b",
    "a token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{30,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
PATHS = r"(?<![\w/.:])/(?:home|root|Users)/[\w.-]+"
BINARY = (".safetensors", ".png", ".bin")
ORGANISATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class Upload:
    """A folder to push: its repository, and files that are made for it, by name."""

    folder: Path
    repository: str
    kind: Literal["dataset", "model", "space"]
    made: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def upload_of(what: str, organisation: str) -> Upload:
    """What a name on the command line stands for. Raises ConfigError for an unknown one, DataError where it is missing."""
    kind, _, name = what.partition(":")
    if kind == "report" and not name:
        space = "---\ntitle: Whose traces teach best\nsdk: static\n---\n"
        return existing(Upload(Path("data/report"), f"{organisation}/traces-report", "space", {CARD: space}))
    if kind == "data" and name in arm_names():
        return existing(Upload(Path(f"data/parallel/{name}"), f"{organisation}/traces-{name}", "dataset"))
    arm, _, seed = name.partition("/")
    if kind == "student" and arm in arm_names() and seed.isdecimal():
        folder = Path(f"models/students/{arm}/{seed}")
        upload = existing(Upload(folder, f"{organisation}/student-{arm}-{seed}", "model"))
        return replace(upload, made={CARD: model_card(arm, arms()[arm], int(seed))})
    names = ", ".join(arm_names())
    raise ConfigError(f"{what!r} is none of report, data:ARM, student:ARM/SEED, for the arms {names}")


def existing(upload: Upload) -> Upload:
    if not upload.folder.is_dir():
        raise DataError(f"{upload.folder}: missing; run `dvc repro` or `dvc pull` first")
    return upload


def texts_of(path: Path) -> Iterator[str]:
    """A file's text piece by piece; a parquet file's rows as JSON."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(1000):
            yield "\n".join(json.dumps(row, ensure_ascii=False) for row in batch.to_pylist())
    elif path.suffix not in BINARY:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file


def findings(texts: Iterator[str]) -> Iterator[str]:
    """What should not leave this machine, in words; secrets are not repeated."""
    for text in texts:
        for name, pattern in SECRETS.items():
            if re.search(pattern, text):
                yield name
        for found in set(re.findall(PATHS, text)):
            yield f"the path {found}"


def problems(upload: Upload) -> Iterator[str]:
    """One line per file and finding."""
    for path in upload.files():
        for found in sorted(set(findings(texts_of(path)))):
            yield f"{path}: {found}"
    for name, text in upload.made.items():
        for found in sorted(set(findings(iter([text])))):
            yield f"{name} of {upload.repository}: {found}"


def plan(upload: Upload, public: bool) -> str:
    files = upload.files()
    size = sum(path.stat().st_size for path in files) / 1e6
    where = f"the {'public' if public else 'private'} {upload.kind} {upload.repository}"
    return f"{upload.folder} to {where}: {len(files) + len(upload.made)} files, {size:.1f} MB"


def push(upload: Upload, public: bool) -> str:
    """Pushes as one commit; its address. Raises DataError where the hub refuses."""
    from huggingface_hub import CommitOperationAdd, HfApi

    hub, kind = HfApi(), upload.kind
    added = [CommitOperationAdd(str(path.relative_to(upload.folder)), path) for path in upload.files()]
    added += [CommitOperationAdd(name, text.encode()) for name, text in upload.made.items()]
    sdk = "static" if kind == "space" else None
    try:
        hub.create_repo(upload.repository, repo_type=kind, private=not public, exist_ok=True, space_sdk=sdk)
        done = hub.create_commit(upload.repository, added, commit_message="Results", repo_type=kind)
    except Exception as error:  # the client raises what its HTTP library does
        why = " ".join(str(error).split())[:300]
        raise DataError(f"{upload.repository}: not pushed: {why}; is HF_TOKEN set, with the right to write there?") from None
    return str(done.commit_url)


def main(*arguments: str) -> None:
    flags = {each for each in arguments if each.startswith("--")}
    names = [each for each in arguments if not each.startswith("--")]
    if len(names) < 2 or flags - {PUSH, PUBLIC}:
        raise ConfigError("usage: make publish ORG=my-org WHAT='data:adaptive student:adaptive/0 report' [PUSH=1] [PUBLIC=1]")
    if not ORGANISATION.fullmatch(names[0]) or names[0] == "report":
        raise ConfigError(f"ORG={names[0]}: not an organisation's name; usage: make publish ORG=my-org WHAT=...")
    uploads = [upload_of(what, names[0]) for what in names[1:]]
    for upload in uploads:
        log("publish", plan(upload, PUBLIC in flags))
    if found := [line for upload in uploads for line in problems(upload)]:
        more = [f"and {len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
        raise DataError("\n".join([*found[:MOST_NAMED], *more, "nothing was pushed"]))
    if PUSH not in flags:
        log("publish", "nothing was pushed; PUSH=1 does it")
        return
    for upload in uploads:
        log("publish", push(upload, PUBLIC in flags))


if __name__ == "__main__":
    run_stage(main)
