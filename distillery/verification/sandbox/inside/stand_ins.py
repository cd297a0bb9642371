"""The child that runs tests: the program under test is in another sandbox, and stand-ins here forward calls to it."""

import builtins
import json
import sys
import types
from typing import Any

from programs import ARITHMETIC, OPERATIONS
from values import decode, encode, receive, send


class Unsupported(BaseException):
    """The tests need something of the program's objects that is unavailable here: their outcome is inconclusive."""


class Handle:
    """A proxy for an object that only the program has: attributes, methods and items are requested there.

    The program's objects must not decide what they equal: only the same object is equal, all else is unsupported.
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


def _computed(name):
    """An operator of the program's object. A plain result could be faked, so that only a further object is accepted."""

    def apply(self, *arguments):
        value = self._ask({"on": self._number, "arithmetic": name}, *arguments)
        if not isinstance(value, Handle):
            raise Unsupported("an object of the program's is computed with")
        return value

    return apply


for _name in OPERATIONS:
    setattr(Handle, f"__{_name}__", _through(_name))
for _name in ARITHMETIC:
    setattr(Handle, f"__{_name}__", _computed(_name))


class Elsewhere:
    """The program in the other sandbox: every call goes out, its result and what it did to its arguments come back."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def ask(self, about, *arguments, **named):
        sent = list(map(encoded, arguments))
        send(self.writer, about | {"args": sent, "kwargs": {key: encoded(value) for key, value in named.items()}})
        answer = receive(self.reader)
        if "error" in answer:
            kind = getattr(builtins, answer["error"], Exception)
            raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else Exception)(answer["message"])
        for mine, before, after in zip(arguments, sent, answer["args"], strict=False):
            if before != after:
                replace(mine, decode(after, self.handle))
        return decode(answer["value"], self.handle)

    def handle(self, number):
        return Handle(number, self.ask)

    def stand_in(self, name, about):
        """The stand-in for a name of the program, by the program side's description of it."""
        if "module" in about:
            return __import__(about["module"])
        if "value" in about:
            return decode(about["value"], self.handle)
        return lambda *arguments, **named: self.ask({"fn": name}, *arguments, **named)


def encoded(value):
    """A value of the tests as it is sent; the program's own objects by their numbers."""
    if isinstance(value, Handle):
        return {"h": value._number}
    found: list[Any] = []
    plain = encode(value, found)
    if not all(isinstance(each, Handle) for each in found):
        raise Unsupported("only plain values can be handed to the program")
    return json.loads(json.dumps(plain), object_hook=lambda d: {"h": found[d["h"]]._number} if "h" in d else d)


def replace(mine, theirs):
    """Updates our list, dictionary or set to what the other side made of its copy."""
    if type(mine) is not type(theirs):
        return
    if isinstance(mine, list):
        mine[:] = theirs
    elif isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(theirs)


def be_tests(source, names, entry, reader, writer):
    """Runs tests and reports how they ended.

    ``names`` are those of the program, each with `describe`'s description of it. ``entry`` names a function of the
    tests to call and, after it, what to hand over.
    """
    program = Elsewhere(reader, writer)
    module = types.ModuleType("solution")
    module.__dict__.update({name: program.stand_in(name, about) for name, about in names.items()})
    sys.modules["solution"] = module
    namespace = {"__name__": "tests", "__builtins__": __builtins__} | {name: module.__dict__[name] for name in names}
    receive(reader)
    try:
        exec(compile(source, "tests.py", "exec"), namespace)
        if entry:
            namespace[entry[0]](*(namespace[name] for name in entry[1:]))
        send(writer, {"passed": True})
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"[:200]
        unsupported = isinstance(error, Unsupported) or "Handle" in message
        send(writer, {"passed": False, "unsupported" if unsupported else "error": message})
