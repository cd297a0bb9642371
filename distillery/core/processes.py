"""A stage's own process, and those that it starts: none of these may outlive it."""

import atexit
import ctypes
import gc
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent dies, so that a killed run leaves nothing running behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def collect_rarely() -> None:
    """Looks for garbage less often, and not at exit.

    The libraries' imports create a million objects that live until the end. Looking through them, again and again, takes a
    fifth of the imports' time, and seconds when the process exits.
    """
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
