"""The child that runs a model's code: a whole program, or functions that answer calls."""

import atexit
import builtins
import contextlib
import operator
import sys
import types
from typing import Any

from values import decode, encode, receive, send

OPERATIONS: dict[str, Any] = {each.__name__: each for each in (len, iter, next, str, repr, bool)}
OPERATIONS |= {each.__name__: each for each in (operator.getitem, operator.setitem, operator.delitem)}


def program(source, name, prelude=""):
    """Runs a program's text, after the imports of ``prelude``, as a module of that name; returns its namespace."""
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = __builtins__
    sys.modules[name] = module
    exec(prelude, module.__dict__)
    exec(compile(source, "solution.py", "exec"), module.__dict__)
    return module.__dict__


def be_program(source, prelude):
    """A whole program that reads standard input and writes standard output, and ends as it would under the interpreter."""
    sys.argv = ["solution.py"]
    try:
        program(source, "__main__", prelude)
    finally:
        finish()


def finish():
    """What the interpreter does at the end of a program: waits for its threads, runs its exit handlers, flushes.

    The process ends by `os._exit` afterwards, which does none of it.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(AttributeError, ValueError):  # a stream that the program removed or closed
            stream.flush()  # type: ignore[union-attr]


def find(namespace, name):
    """A function by its name, of the module or of its class Solution."""
    if name in namespace:
        return namespace[name]
    return getattr(namespace["Solution"](), name)


def be_functions(source, prelude, reader, writer):
    """Loads the program and answers calls of its functions with what they return and how they changed their arguments.

    The first message asks what some names are in the program: functions and classes, or values.
    """
    names = receive(reader)["names"]
    namespace, handles = program(source, "solution", prelude), list[Any]()
    send(writer, {name: describe(namespace[name], handles) for name in names if name in namespace})
    while True:
        call = receive(reader)
        try:
            arguments = [decode(value, handles.__getitem__) for value in call["args"]]
            named = {key: decode(value, handles.__getitem__) for key, value in call["kwargs"].items()}
            if "set" in call:
                setattr(handles[call["on"]], call["set"], arguments[0])
                value = None
            elif "get" in call:
                value = getattr(handles[call["on"]], call["get"])
            elif "apply" in call:
                value = OPERATIONS[call["apply"]](handles[call["on"]], *arguments)
            else:
                target = handles[call["on"]] if "on" in call else find(namespace, call["fn"])
                value = target(*arguments, **named)
            answer = {"value": encode(value, handles), "args": [encode(argument, handles) for argument in arguments]}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)[:200]}
        send(writer, answer)


def describe(value, handles):
    """What a name of the program refers to, so that tests can use it too."""
    return {} if callable(value) else {"value": encode(value, handles)}
