"""What a stage ran with and how it went: written beside its counts, so that every figure says where it came from."""

import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from pathlib import Path
from typing import Any

from stages.params import ParamsError
from stages.tables import DataError, write_json


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; a package that is not there is left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu() -> str:
    """The processor's name as the system gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device() -> str:
    """The accelerator that torch sees, else the processor."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu()


@contextmanager
def record(path: str | Path, *packages: str, device: str | None = None) -> Iterator[dict[str, Any]]:
    """Collects a stage's metrics in the dict that it yields, and writes them with provenance when the block ends well."""
    metrics: dict[str, Any] = {}
    start = time.monotonic()
    yield metrics
    metrics["provenance"] = {
        **metrics.pop("provenance", {}),
        "seconds": round(time.monotonic() - start, 2),
        "device": device or cpu(),
        "versions": versions(*packages),
    }
    write_json(metrics, path)


def say(stage: str, line: str) -> None:
    """Prints one line of progress or summary under the stage's name."""
    print(f"{stage}: {line}", flush=True)


def run(main: Callable[..., None]) -> None:
    """Runs a stage's ``main`` with the command line's arguments; a user's mistake ends as one clear line and exit code 1."""
    stage, wanted = Path(sys.argv[0]).stem, list(signature(main).parameters)
    if len(sys.argv) - 1 != len(wanted):
        sys.exit(" ".join([f"usage: python -m stages.{stage}", *map(str.upper, wanted)]))
    try:
        main(*sys.argv[1:])
    except (ParamsError, DataError) as error:
        sys.exit("\n".join(f"{stage}: {line}" for line in str(error).splitlines()))
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.errno is None:
            sys.exit(f"{stage}: {' '.join(str(error).split())}")
        sys.exit(f"{stage}: {error.filename or 'disk'}: {error.strerror}; outputs are written whole or not at all")
