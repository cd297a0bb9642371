"""What every stage does around its own work: run as a command, and record its metrics.

A stage's metrics are an output that DVC hashes: an exact reproduction gives the same bytes. What differs from run to run
(clock, host, device, versions of libraries, what came out of the ledger) goes into a file of its own under ``.runs/``,
which nothing hashes and the report page shows where it exists.
"""

import json
import os
import platform
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from distillery.core.errors import UserError
from distillery.core.files import write_json, write_text
from distillery.core.processes import collect_rarely
from distillery.core.progress import forget

METRICS, RUNS = Path("metrics"), Path(".runs")
ROOT = Path(__file__).resolve().parents[2]
LOGS = Path(os.environ.get("DVC_ROOT", ".")) / ".logs"
Metrics = dict[str, Any]


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; packages that are not installed are omitted."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu() -> str:
    """The CPU's name as the system reports it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def built_for_cpu() -> bool:
    """Whether torch is its build for CPUs; by its file, since importing it takes seconds."""
    spec = find_spec("torch")
    assert spec and spec.origin
    found = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return not any(found.get(kind) for kind in ("cuda", "hip", "xpu"))


def device() -> str:
    """The accelerator that torch sees, else the CPU."""
    if built_for_cpu():
        return cpu()
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu()


def run_path(metrics: str | Path) -> Path:
    """Where the run information of the stage with these metrics is."""
    return RUNS / Path(metrics).relative_to(METRICS).with_suffix(".js")


def write_run(info: Metrics, metrics: str | Path) -> None:
    """Writes run information as a script, which a page opened from disk may load where it may not load JSON."""
    name = str(Path(metrics).relative_to(METRICS).with_suffix(""))
    write_text(f"runs[{json.dumps(name)}] =\n{json.dumps(info, indent=2)};\n", run_path(metrics))


def read_run(metrics: str | Path) -> Metrics | None:
    """The run information that was written with these metrics; None where the stage did not run here."""
    path = run_path(metrics)
    return json.loads(path.read_text().partition("=\n")[2].rstrip(";\n")) if path.exists() else None


@contextmanager
def record_metrics(path: str | Path, *packages: str, device: str | None = None) -> Iterator[tuple[Metrics, Metrics]]:
    """Yields two dicts to fill, a stage's metrics and its run information; writes both when the block succeeds."""
    metrics: Metrics = {}
    run: Metrics = {}
    start = time.monotonic()
    yield metrics, run
    write_json(metrics, path)
    about = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 2),
        "host": platform.node(),
        "device": device or cpu(),
        "versions": versions(*packages),
    }
    write_run(about | run, path)


def run_stage(main: Callable[..., None]) -> None:
    """Runs a stage's ``main`` with the command line's arguments; any error ends as a clear line and exit code 1.

    A `UserError` is shown alone. Anything else is a bug or a system failure: its traceback goes to a file that the line names.
    ``--help`` shows what the module says about itself.
    """
    module, parameters = module_name(), signature(main).parameters.values()
    stage = module.rpartition(".")[2]
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{(sys.modules['__main__'].__doc__ or '').strip()}\n\n{usage(module, parameters)}")
        return
    if not accepts(parameters, len(sys.argv) - 1):
        sys.exit(usage(module, parameters))
    collect_rarely()
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit("\n".join(f"{stage}: {line}" for line in str(error).splitlines()))
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(f"{stage}: interrupted; what was done is kept")
    except Exception as error:
        sys.exit(f"{stage}: {_brief(error)}; traceback in {write_traceback('-'.join([stage, *sys.argv[1:]]))}")
    finally:
        forget()


def module_name() -> str:
    """The module that runs as a command, from the path of its file."""
    path = Path(sys.argv[0]).with_suffix("")
    parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ("stages", path.name)
    return ".".join(parts).removesuffix(".__main__")


def accepts(parameters: Iterable[Parameter], count: int) -> bool:
    """Whether a function with these parameters takes so many arguments."""
    required = sum(each.default is each.empty and each.kind is not each.VAR_POSITIONAL for each in parameters)
    return required <= count and (count <= len(list(parameters)) or any(p.kind is p.VAR_POSITIONAL for p in parameters))


def usage(module: str, parameters: Iterable[Parameter]) -> str:
    """How the command is called; what may be left out is in brackets."""
    names = []
    for each in parameters:
        repeated = " ..." if each.kind is each.VAR_POSITIONAL else ""
        optional = repeated or each.default is not each.empty
        names.append(f"[{each.name.upper()}{repeated}]" if optional else each.name.upper())
    return " ".join([f"usage: python -m {module}", *names])


def write_traceback(name: str) -> Path:
    """Saves the traceback of the current exception; returns its file."""
    path = LOGS / f"{name.replace('/', '_')}.log"
    write_text(traceback.format_exc(), path)
    return path


def _brief(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename or 'disk'}: {error.strerror}; outputs are written completely or not at all"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
