"""Whether a program could tamper with tests that run in its own process.

Tests in pytest's style share objects, exceptions, files and patched builtins with the program, so they are run in one
process with it. A hostile program could then make wrong answers right: replace what the tests use, compare equal to
everything, read the expected values off the stack, or end the process in its favour. `suspicion` is a list of what is allowed,
checked on the syntax tree: modules that compute, no access to attributes by computed names, no operators of its own, nothing
stored into what the program did not make. A program that needs more is not hostile; its passes just need other evidence.
"""

import ast
import builtins
import decimal
import importlib
import random
import re
import string
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType

MODULES = frozenset(
    """abc array base64 binascii bisect calendar cmath collections collections.abc contextlib copy csv dataclasses datetime
    decimal difflib enum fractions functools hashlib heapq html io itertools json keyword math numbers operator pprint queue
    random re secrets statistics string struct sys textwrap time typing unicodedata uuid zlib
    numpy numpy.linalg numpy.random""".split()
)
OF_SYS = frozenset("maxsize setrecursionlimit getrecursionlimit float_info stdin stdout stderr exit argv".split())
FORBIDDEN_BUILTINS = frozenset("eval exec compile open globals locals vars dir delattr breakpoint help memoryview".split())
FORBIDDEN = frozenset(
    """open open_code attrgetter methodcaller FileIO Formatter make_dataclass update_wrapper assigned updated setcontext
    DefaultContext ctypes load save savez savetxt fromfile tofile memmap fromregex genfromtxt loadtxt setbufsize seterrcall
    set_printoptions setflags gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await ag_frame ag_code ag_await tb_frame tb_next
    tb_lasti f_back f_globals f_locals f_builtins f_code f_trace func_globals mro register""".split()
)
LOOKUPS = frozenset({"getattr", "setattr", "hasattr"})
CLASSES_OF_CLASSES = frozenset("ABCMeta EnumMeta EnumType Enum IntEnum StrEnum Flag IntFlag ReprEnum".split())
"""Called, they make classes whose methods have computed names; a program may only derive from them."""
SPECIAL_NAMES = frozenset("__name__ __doc__ __file__ __slots__ __all__ __version__ __author__ __hash__".split())
SPECIAL_ATTRIBUTES = frozenset(
    """__init__ __post_init__ __new__ __name__ __qualname__ __doc__ __len__ __str__ __repr__ __iter__ __next__ __getitem__
    __setitem__ __delitem__ __enter__ __exit__ __call__ __contains__ __hash__ __init_subclass__""".split()
)
METHODS = (SPECIAL_ATTRIBUTES | {"__bool__", "__reversed__", "__missing__", "__format__", "__copy__", "__deepcopy__"}) - {
    "__contains__"
}
"""Special methods that a program may define; none of them lets an object equal, or contain, everything."""
_USES_ARRAYS = re.compile(r"\bnumpy\b|\bnp\.|\.all\(|\bapprox\b")
_IMPORTS_ALL = re.compile(r"^\s*from\s+solution\s+import\s+\*", re.MULTILINE)
OTHERS_NAMES = frozenset(dir(builtins)) | sys.stdlib_module_names | {"pytest", "raises", "approx", "fixture", "mark"}
SHARED = frozenset(
    name
    for kind in (Counter, Fraction, random.Random, string.Template, decimal.Context)
    for name in vars(kind)
    if not name.startswith("__")
)
"""Attributes of classes and objects that tests use too, and that could be replaced."""


def suspicion(program: str, tests: str = "") -> str | None:
    """What in a program could tamper with tests in the same process, or None.

    numpy's arrays may be used where the tests do not use numpy themselves: for its functions, an empty array is close to
    everything. Raises SyntaxError where the program does not parse.
    """
    tree = ast.parse(program)
    modules = dict(_modules(tree))
    if _USES_ARRAYS.search(tests) and any(name.split(".")[0] == "numpy" for name in [*modules.values(), *_sources(tree)]):
        return "numpy, like the tests"
    if _IMPORTS_ALL.search(tests) and (hidden := sorted(_made(tree) & OTHERS_NAMES)):
        return f"a {hidden[0]} of its own, which the tests import"
    parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        found = _of_node(node, modules) or _of_use(node, parents.get(id(node)), modules)
        if found:
            return found
    return None


def _of_use(node: ast.AST, parent: ast.AST | None, modules: dict[str, str]) -> str | None:
    """What is wrong with where a node stands: some names and values are harmless in certain places only."""
    if isinstance(node, ast.Name):
        if node.id in modules and not isinstance(parent, ast.Attribute):
            return f"the module {node.id} as a value"
        if node.id in LOOKUPS | {"type"} and not (isinstance(parent, ast.Call) and parent.func is node):
            return node.id
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    if name in CLASSES_OF_CLASSES and not isinstance(parent, ast.ClassDef | ast.keyword):
        return name
    if _is_class_of(node) and not isinstance(parent, ast.Compare) and getattr(parent, "attr", "") != "__name__":
        return "the class of a value"
    return None


def _is_class_of(node: ast.AST) -> bool:
    """``type(x)`` and ``x.__class__``: the class of a class makes classes."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "type"
    return isinstance(node, ast.Attribute) and node.attr == "__class__"


def _made(tree: ast.Module) -> set[str]:
    """Names that a program makes at its top level, imports under their own names left out."""
    made: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
        elif isinstance(node, ast.alias) and node.asname and node.asname != node.name:
            made.add(node.asname)
    return made | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}


def _sources(tree: ast.AST) -> Iterator[str]:
    """Modules that names are imported from."""
    return (node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))


def _modules(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names that modules have in the program, and their own names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2


def _of_node(node: ast.AST, modules: dict[str, str]) -> str | None:
    match node:
        case ast.Import():
            return next((alias.name for alias in node.names if alias.name not in MODULES), None)
        case ast.ImportFrom():
            return _of_import(node)
        case ast.Attribute():
            return _of_attribute(node, modules)
        case ast.Name(id=name):
            return name if name in FORBIDDEN | FORBIDDEN_BUILTINS or (_special(name) and name not in SPECIAL_NAMES) else None
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name if _special(name) and name not in METHODS else None
        case ast.keyword(arg=str(name)):
            return name if _special(name) or name in FORBIDDEN else None
        case ast.Call(func=ast.Name(id=name)) if name in LOOKUPS:
            return None if len(node.args) > 1 and _plain_name(node.args[1], name == "setattr") else f"{name} of a computed name"
        case ast.Subscript(ctx=ast.Store() | ast.Del()):
            return f"a change of {root}" if (root := _root(node)) in modules else None
    return None


def _of_import(node: ast.ImportFrom) -> str | None:
    if node.module not in MODULES or node.level:
        return node.module or "a relative import"
    source = importlib.import_module(node.module)
    for alias in node.names:
        if alias.name == "*" and node.module in ("sys", "operator", "io"):
            return f"{node.module}.*"
        if alias.name != "*" and (found := _of_module(source, node.module, alias.name)):
            return found
    return None


def _of_module(source: ModuleType, module: str, name: str) -> str | None:
    """What is wrong with a module's attribute: other modules are reached through many, and containers could be changed."""
    value = getattr(source, name, None)
    allowed = name in OF_SYS if module == "sys" else not name.startswith("_") and name not in FORBIDDEN
    if isinstance(value, ModuleType):
        allowed = allowed and f"{module}.{name}" in MODULES
    return None if allowed and not isinstance(value, dict | list | set) else f"{module}.{name}"


def _of_attribute(node: ast.Attribute, modules: dict[str, str]) -> str | None:
    name = node.attr
    if name in FORBIDDEN or (_special(name) and name not in SPECIAL_ATTRIBUTES | {"__class__"}):
        return name
    if not isinstance(node.ctx, ast.Load):
        root = _root(node)
        return f"a change of {root}.{name}" if root in modules or _special(name) or name in SHARED else None
    if isinstance(node.value, ast.Name) and node.value.id in modules:
        module = modules[node.value.id]
        return _of_module(importlib.import_module(module), module, name) if module in MODULES else module
    return None


def _plain_name(node: ast.expr, changed: bool) -> bool:
    plain = isinstance(node, ast.Constant) and isinstance(node.value, str)
    name = str(node.value) if isinstance(node, ast.Constant) else ""
    return plain and not name.startswith("__") and name not in FORBIDDEN and not (changed and name in SHARED)


def _special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _root(node: ast.expr) -> str:
    """The name that a chain of attributes, items and calls begins with."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""
    return node.id
