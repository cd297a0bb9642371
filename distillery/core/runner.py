"""Runs a function on every part of a table: in threads on this machine's cores, or as tasks on a Ray cluster.

``runner: ray`` in params.yaml sends the parts to the cluster at ``RAY_ADDRESS``, whose nodes must see this folder under
the same path. The function is the same, and so are the bytes that it writes. Threads are enough on one machine: Arrow and
numba kernels release the GIL.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

from distillery.core import config
from distillery.core.errors import ConfigError, DataError, UserError
from distillery.core.progress import Progress

CODE = Path(__file__).resolve().parents[2]
Runner = Literal["native", "ray"]
Work = Callable[[int], dict[str, Any]]


def map_parts(stage: str, work: Work, parts: int) -> list[dict[str, Any]]:
    """The results of ``work`` on each part's number, in order, with progress.

    ``work`` must be picklable with cloudpickle. The first exception that it raises ends the run and is raised here.
    """
    runner = config.load(Runner, "runner")
    results: dict[int, dict[str, Any]] = {}
    progress = Progress(stage, "parts", parts)
    for part, result in _on_ray(work, parts) if runner == "ray" else _in_threads(work, parts):
        results[part] = result
        progress.update(len(results))
    return [results[part] for part in range(parts)]


def sum_counts(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Counts of all parts added up, sorted by name."""
    names = sorted({name for count in counts for name in count})
    return {name: sum(count.get(name, 0) for count in counts) for name in names}


def _in_threads(work: Work, parts: int) -> Iterator[tuple[int, dict[str, Any]]]:
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        futures = {pool.submit(work, part): part for part in range(parts)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _on_ray(work: Work, parts: int) -> Iterator[tuple[int, dict[str, Any]]]:
    import ray

    _join_cluster()
    task = ray.remote(_in_folder)
    waiting = [task.remote(work, part, Path.cwd()) for part in range(parts)]
    while waiting:
        ready, waiting = ray.wait(waiting)
        part, result, error = ray.get(ready[0])
        if error is not None:
            raise error
        yield part, result


def _in_folder(work: Work, part: int, folder: Path) -> tuple[int, dict[str, Any], Exception | None]:
    """One part on another machine. Expected errors are returned as values: Ray would wrap them in its own traceback."""
    os.chdir(folder)
    try:
        return part, work(part), None
    except (UserError, OSError) as error:
        return part, {}, error


def _join_cluster() -> None:
    """Connects to the cluster, once per process. Raises ConfigError or DataError where there is none."""
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise ConfigError("params.yaml: runner: ray needs the cluster's address in the variable RAY_ADDRESS")
    environment = {"env_vars": {"PYTHONPATH": str(CODE)}}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise DataError(f"no Ray cluster answers at RAY_ADDRESS={address}: {' '.join(str(error).split())}") from None
