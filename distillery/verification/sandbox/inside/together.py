"""The child that runs tests in one process with the program.

They share everything, so a hostile program could forge what is reported here: a pass counts only where the pipeline has
other reasons to trust it (`verification.program_check`). That a test fails can always be believed.
"""

import contextlib
import io
import sys
from pathlib import Path

from programs import find, program
from values import receive, send

REASON = 200


def be_together(source, prelude, scripts, most, reader, writer):
    """Runs tests and reports, in their order, whether each passed, and why not.

    ``scripts``: ``[text, entry, names, modules]`` each, where ``entry`` is a function of the text to call and the names of its
    arguments, and ``names`` are the solution's; or one text alone, whose tests pytest finds.
    """
    receive(reader)
    namespace = program(source, "solution", prelude)
    Path("/tmp/solution.py").write_text(source, encoding="utf-8", errors="replace")
    sys.path.insert(0, "/tmp")
    outcomes = by_pytest(scripts, most) if isinstance(scripts, str) else run_all(scripts, namespace)
    send(writer, {"outcomes": outcomes})


def run_all(scripts, solution):
    """Runs each text once, then its entries, with the program's names where the text has none of its own."""
    ready: dict[str, dict] = {}
    outcomes = []
    for text, entry, names, modules in scripts:
        try:
            if text not in ready or not entry:
                own = {name: __import__(name) for name in modules}
                ready[text] = {"__name__": "tests"} | dict(named(solution, names)) | own
                exec(compile(text, "tests.py", "exec"), ready[text])
            if entry:
                ready[text][entry[0]](*(ready[text][name] for name in entry[1:]))
            outcomes.append([True, ""])
        except (Exception, SystemExit) as error:
            outcomes.append([False, f"{type(error).__name__}: {error}"[:REASON]])
    return outcomes


def named(solution, names):
    """The solution's functions of these names, methods included, as far as it has them."""
    for name in names:
        with contextlib.suppress(Exception):
            yield name, find(solution, name)


def load_pytest():
    """Imports pytest with its plugins, so that children need not: that takes longer than most programs' tests."""
    import pytest

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main(["--version"])


def by_pytest(text, most):
    """The outcomes of the first tests that pytest finds in a text."""
    import pytest

    Path("/tmp/test_solution.py").write_text(text, encoding="utf-8", errors="replace")
    results = Results(most)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        options = "-q -s -p no:cacheprovider --rootdir=/tmp --tb=line /tmp/test_solution.py"
        pytest.main(options.split(), plugins=[results])
    return results.outcomes or [[False, results.error or "pytest found no tests"]]


class Results:
    """A plugin of pytest's that keeps the first tests and how each ended."""

    def __init__(self, most):
        self.most, self.outcomes, self.error = most, [], ""

    def pytest_collection_modifyitems(self, items):
        del items[self.most :]

    def pytest_collectreport(self, report):
        if report.failed:
            self.error = last_line(report.longreprtext)

    def pytest_runtest_logreport(self, report):
        """One outcome per test that ran; a test that its own marks skip says nothing about the program."""
        if not report.skipped and (report.when == "call" or not report.passed):
            self.outcomes.append([report.passed, "" if report.passed else last_line(report.longreprtext)])


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][-REASON:] if lines else ""
