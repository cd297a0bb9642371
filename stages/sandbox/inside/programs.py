"""What a child is: a whole program, a program's functions, or tests that call another sandbox's functions."""

import builtins
import json
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
    """A whole program that reads standard input and writes standard output."""
    sys.argv = ["solution.py"]
    program(source, "__main__", prelude)


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
    """What a name of the program stands for, so that tests can have it too."""
    return {} if callable(value) else {"value": encode(value, handles)}


class Unsupported(BaseException):
    """The tests want something of the program's objects that cannot be had from here: nobody can tell how they would end."""


class Handle:
    """Stands for an object that only the program has: its attributes, methods and items are asked for there.

    An object of the program's must not say what it equals, so only the same object is equal, and all else unsupported.
    """

    def __init__(self, number, ask):
        self.__dict__.update(_number=number, _ask=ask)

    def __getattr__(self, name):
        return self._ask({"on": self._number, "get": name})

    def __setattr__(self, name, value):
        self._ask({"on": self._number, "set": name}, value)

    def __call__(self, *arguments, **named):
        return self._ask({"on": self._number}, *arguments, **named)

    def __eq__(self, other):
        if isinstance(other, Handle) and other._number == self._number:
            return True
        raise Unsupported("an object of the program's is compared")

    def __hash__(self):
        return hash(self._number)


def _through(name):
    return lambda self, *arguments: self._ask({"on": self._number, "apply": name}, *arguments)


for _name in OPERATIONS:
    setattr(Handle, f"__{_name}__", _through(_name))


def be_tests(source, names, entry, reader, writer):
    """Runs tests whose functions are answered by another sandbox: every call goes out, its result comes back.

    ``names`` are those of the program, each with what `describe` said of it there. ``entry`` names a function of the
    tests to call and, after it, what to hand over.
    """

    def handle(number):
        return Handle(number, ask)

    def encoded(value):
        if isinstance(value, Handle):
            return {"h": value._number}
        found: list[Any] = []
        plain = encode(value, found)
        if not all(isinstance(each, Handle) for each in found):
            raise Unsupported("only plain values can be handed to the program")
        return json.loads(json.dumps(plain), object_hook=lambda d: {"h": found[d["h"]]._number} if "h" in d else d)

    def ask(about, *arguments, **named):
        sent = list(map(encoded, arguments))
        send(writer, about | {"args": sent, "kwargs": {k: encoded(v) for k, v in named.items()}})
        answer = receive(reader)
        if "error" in answer:
            kind = getattr(builtins, answer["error"], Exception)
            raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else Exception)(answer["message"])
        for mine, before, after in zip(arguments, sent, answer["args"], strict=False):
            if before != after:
                replace(mine, decode(after, handle))
        return decode(answer["value"], handle)

    def stand_in(name):
        return lambda *arguments, **named: ask({"fn": name}, *arguments, **named)

    def bring(name, about):
        if "module" in about:
            return __import__(about["module"])
        return decode(about["value"], handle) if "value" in about else stand_in(name)

    module = types.ModuleType("solution")
    module.__dict__.update({name: bring(name, about) for name, about in names.items()})
    sys.modules["solution"] = module
    namespace = {"__name__": "tests", "__builtins__": __builtins__} | {name: module.__dict__[name] for name in names}
    receive(reader)
    try:
        exec(compile(source, "tests.py", "exec"), namespace)
        if entry:
            namespace[entry[0]](*(namespace[name] for name in entry[1:]))
        send(writer, {"passed": True})
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"[:200]
        unsupported = isinstance(error, Unsupported) or "Handle" in told
        send(writer, {"passed": False, "unsupported" if unsupported else "error": told})


def replace(mine, theirs):
    """Makes a list, dictionary or set of ours what the other side made of its copy."""
    if type(mine) is not type(theirs):
        return
    if isinstance(mine, list):
        mine[:] = theirs
    elif isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(theirs)
