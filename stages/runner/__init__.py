"""Runs a function on every part of a table, through Daft: on this machine's cores, or on a Ray cluster's.

``runner: ray`` in params.yaml sends the parts to the cluster at ``RAY_ADDRESS``, whose nodes must see this folder under
the same path. The function is the same, and so are the bytes that it writes.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from stages import params
from stages.provenance import say
from stages.tables import DataError

CODE = Path(__file__).resolve().parents[2]
EVERY = 5.0
Work = Callable[[int], dict[str, Any]]


def each_part(stage: str, work: Work, parts: int) -> list[dict[str, Any]]:
    """What ``work`` says of each part, in their order, with a line of progress now and then.

    ``work`` takes a part's number and returns what JSON can hold; it runs in threads or on another machine. Raises
    DataError or OSError where it does.
    """
    runner = params.load(Literal["native", "ray"], "runner")
    frame = _frame(_reporting(work, Path.cwd()), parts, runner)
    said: dict[int, dict[str, Any]] = {}
    begun = last = time.monotonic()
    for row in frame.iter_rows(results_buffer_size=1):
        answer = json.loads(row["said"])
        if "error" in answer:
            raise DataError(answer["error"]) if answer["errno"] is None else OSError(answer["errno"], answer["error"])
        said[row["part"]] = answer["said"]
        now = time.monotonic()
        if now - last > EVERY:
            last = now
            say(stage, f"{len(said)}/{parts} parts, {(now - begun) / len(said) * (parts - len(said)):.0f} s left")
    return [said[part] for part in range(parts)]


def total(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Counts of all parts added up, sorted by name."""
    names = sorted({name for count in counts for name in count})
    return {name: sum(count.get(name, 0) for count in counts) for name in names}


def _reporting(work: Work, folder: Path) -> Callable[[int], str]:
    """``work`` in this project's folder, its answer or its error as JSON: exceptions change their type on a cluster."""

    def report(part: int) -> str:
        if Path.cwd() != folder:
            os.chdir(folder)
        try:
            return json.dumps({"said": work(part)})
        except (DataError, OSError) as error:
            return json.dumps({"error": str(getattr(error, "strerror", None) or error), "errno": getattr(error, "errno", None)})

    return report


def _one_by_one(report: Callable[[int], str]) -> Callable[[Any], list[str]]:
    """Daft gives each thread a batch at a time, so batches of one share the parts out."""

    def report_all(parts: Any) -> list[str]:
        return [report(part) for part in parts.to_pylist()]

    return report_all


def _frame(report: Callable[[int], str], parts: int, runner: str) -> Any:
    import daft

    if runner == "ray":
        _join_cluster()
    numbers = daft.from_pydict({"part": list(range(parts))})
    numbers = numbers.into_partitions(parts) if runner == "ray" else numbers
    told = daft.func.batch(return_dtype=daft.DataType.string(), batch_size=1)(_one_by_one(report))
    return numbers.with_column("said", told(daft.col("part")))


def _join_cluster() -> None:
    """Has Daft run on the cluster, once a process. Raises ParamsError or DataError where there is none."""
    import daft
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise params.ParamsError("params.yaml: runner: ray needs the cluster's address in the variable RAY_ADDRESS")
    environment = {"env_vars": {"PYTHONPATH": str(CODE)}}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
        daft.set_runner_ray()
    except ConnectionError as error:
        raise DataError(f"no Ray cluster answers at RAY_ADDRESS={address}: {' '.join(str(error).split())}") from None
