"""The child that runs a model's code: a whole program, or functions that answer calls."""

import atexit
import builtins
import contextlib
import operator
import sys
import types

from values import decode, encode, receive, send

OPERATIONS = {each.__name__: each for each in (len, iter, next, str, repr, bool)}
OPERATIONS |= {each.__name__: each for each in (operator.getitem, operator.setitem, operator.delitem)}  # type: ignore[misc]
ARITHMETIC = {
    name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "neg", "abs")
}
ARITHMETIC |= {"and": operator.and_, "or": operator.or_, "xor": operator.xor}
VIEWS: "tuple[type, ...]" = (type({}.keys()), type({}.values()), type({}.items()))


def program(source, name, prelude=""):
    """Runs a program's text, after the imports of ``prelude``, as a module of that name; returns its namespace."""
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    module = types.ModuleType(name)
    module.__dict__.update(__builtins__=__builtins__, __file__="/tmp/solution.py")
    sys.modules[name] = module
    exec(prelude, module.__dict__)
    exec(compile(source, "solution.py", "exec"), module.__dict__)
    return module.__dict__


def be_program(source, prelude, arguments):
    """A whole program that reads standard input and writes standard output, and ends as it would under the interpreter."""
    sys.argv = ["solution.py", *arguments]
    sys.set_int_max_str_digits(0)
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
    """A function by its name, of the module, or a method of its class Solution or else of another class of it."""
    if name in namespace:
        return namespace[name]
    own = [
        each for each in namespace.values() if isinstance(each, type) and each.__module__ == "solution" and name in vars(each)
    ]
    return getattr(namespace.get("Solution", own[-1] if own else None)(), name)


def operate(kind, operations, arguments):
    """LeetCode's tests of a class: the results of its constructor and then its methods, None for the constructor."""
    made = kind(*arguments[0])
    return [None, *(getattr(made, name)(*given) for name, given in zip(operations[1:], arguments[1:], strict=True))]


def call_of(target, arguments, named):
    """Calls a function; a class with operations in LeetCode's form is constructed and they are called."""
    lists = len(arguments) == 2 and all(isinstance(each, list) and each for each in arguments)
    if isinstance(target, type) and lists and arguments[0][0] == target.__name__:
        return operate(target, *arguments)
    value = target(*arguments, **named)
    return [*value] if isinstance(value, VIEWS) else value  # type: ignore[misc]


def be_functions(source, prelude, reader, writer):
    """Loads the program and answers calls of its functions with what they return and how they changed their arguments.

    The first message asks what some names are in the program: functions and classes, or values.
    """
    names = receive(reader)["names"]
    sys.set_int_max_str_digits(0)
    namespace = program(source, "solution", prelude)
    handles: list[object] = []
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
            elif "arithmetic" in call:
                value = ARITHMETIC[call["arithmetic"]](handles[call["on"]], *arguments)
            else:
                target = handles[call["on"]] if "on" in call else find(namespace, call["fn"])
                value = call_of(target, arguments, named)
            answer = {"value": encode(value, handles), "args": [encode(argument, handles) for argument in arguments]}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)[:200]}
        send(writer, answer)


def describe(value, handles):
    """What a name of the program refers to, so that tests can use it too."""
    return {} if callable(value) else {"value": encode(value, handles)}
