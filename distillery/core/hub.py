"""The hub: is everything there that a run will ask for, and is it on this disk.

``python -m distillery.core.hub`` (`make fetch`) downloads the files of every locked model, several at once; a download that was
cut goes on where it stopped. Then GPU nodes can run with HF_HUB_OFFLINE=1.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from distillery.core import model_locks
from distillery.core.errors import ConfigError
from distillery.core.files import read_json
from distillery.core.model_locks import FOLDER, Lock
from distillery.core.progress import log
from distillery.core.stage import run_stage

AT_ONCE, PAUSES = 8, (1, 4, 15, 60, 120)
T = TypeVar("T")


class Named(NamedTuple):
    """A model or data set as params.yaml names it under ``key``; ``kind`` is "model" or "dataset"."""

    key: str
    kind: str
    id: str
    revision: str | None


def check(named: Iterable[Named]) -> None:
    """Asks for one small file of each. Raises ConfigError with a line for every one that cannot be had, and what to do."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = [problem for problem in pool.map(problem_of, named) if problem]
    if problems:
        raise ConfigError("\n".join(problems))


def problem_of(named: Named) -> str | None:
    """Why a repository cannot be had; None where it can."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RevisionNotFoundError

    at = f"params.yaml: {named.key}: {named.id}"
    try:
        info = patiently(partial(HfApi().repo_info, named.id, repo_type=named.kind, revision=named.revision))
        if files := sorted(each.rfilename for each in getattr(info, "siblings", None) or []):
            url = hf_hub_url(named.id, files[0], repo_type=named.kind, revision=info.sha)
            patiently(partial(get_hf_file_metadata, url))
    except GatedRepoError:
        return f"{at}: gated; accept its terms on its page on the hub, and set HF_TOKEN to a token of that account"
    except HFValidationError:
        return f"{at}: no such folder or file here, and no id of the hub, which is organisation/name"
    except RevisionNotFoundError:
        return f"{at}: has no revision {named.revision!r}"
    except Exception as error:
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403, 404):
            return f"{at}: no such {named.kind} is to be seen; check its spelling, and set HF_TOKEN if it is private"
        return f"{at}: the hub does not answer: {' '.join(str(error).split())[:200]}"
    return None


class Patience:
    """Pauses between questions to a hub that is busy or away, for a few minutes in all; its ``Retry-After`` is obeyed."""

    def __init__(self) -> None:
        self.pauses = iter(PAUSES)

    def wait(self, error: Exception) -> None:
        """Sleeps, so that the question can be asked again. Raises ``error`` where that is of no use, or was done enough."""
        pause = next(self.pauses, None)
        if pause is None or not passes(error):
            raise error
        time.sleep(wanted_pause(error) or pause)


def patiently(ask: Callable[[], T]) -> T:
    """Asks again where the hub is busy or away."""
    patience = Patience()
    while True:
        try:
            return ask()
        except Exception as error:
            patience.wait(error)


def passes(error: Exception) -> bool:
    """Whether an error may pass: too many requests, a server's own fault, no connection."""
    import httpx2

    for each in causes(error):
        response = getattr(each, "response", None)
        if response is not None:
            return bool(response.status_code == 429 or response.status_code >= 500)
        if isinstance(each, httpx2.TransportError | ConnectionError | TimeoutError):
            return True
    return False


def wanted_pause(error: Exception) -> float | None:
    """Seconds that the hub asks for; None where it names none."""
    for each in causes(error):
        response = getattr(each, "response", None)
        after = response.headers.get("retry-after", "") if response is not None else ""
        if after.isdecimal():
            return float(after)
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from: the clients say "not in the cache" where the hub was away."""
    while error is not None:
        yield error
        error = error.__cause__


def locked() -> list[Lock]:
    """The hub models of all locks, each once. Raises ConfigError where nothing is locked yet."""
    paths = sorted(Path(FOLDER).rglob("*.json"))
    if not paths:
        raise ConfigError(f"{FOLDER}: nothing is locked yet; run `dvc repro assets assets_teacher`")
    locks = [model_locks.Lock(**found) for path in paths if (found := read_json(path))]
    return list({(lock.id, lock.revision): lock for lock in locks if not lock.local and lock.files}.values())


def download(lock: Lock) -> str:
    from huggingface_hub import snapshot_download

    fetched = partial(snapshot_download, lock.id, revision=lock.revision, allow_patterns=sorted(lock.files))
    return patiently(fetched)


def main() -> None:
    locks = locked()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done, (lock, folder) in enumerate(zip(locks, pool.map(download, locks), strict=True), 1):
            log("fetch", f"{done}/{len(locks)} {lock.id}@{lock.revision[:8]}: {len(lock.files)} files in {folder}")
    log("fetch", "all locked models are on this disk; HF_HUB_OFFLINE=1 keeps every stage off the hub")


if __name__ == "__main__":
    run_stage(main)
