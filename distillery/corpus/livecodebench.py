"""LiveCodeBench's tests: public ones as JSON, private ones as JSON within a pickle, compressed, in base64.

A pickle is a program. It is never run: its opcodes are parsed, and only those that build a single string are accepted.
"""

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Iterable
from typing import Any

from distillery.core.errors import DataError

LARGEST = 1 << 30
TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}
AROUND = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}


def sole_text(pickled: bytes) -> str:
    """The string that a pickle holds. Raises DataError where it holds, or does, anything else."""
    texts: list[str] = []
    try:
        for opcode, value, _ in pickletools.genops(pickled):
            if opcode.name in TEXTS:
                texts.append(str(value))
            elif opcode.name not in AROUND:
                raise DataError(f"its pickle holds more than a text ({opcode.name}), and is not run")
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"its pickle cannot be read: {error}") from None
    if len(texts) != 1:
        raise DataError(f"its pickle holds {len(texts)} texts, not one")
    return texts[0]


def unpacked(packed: str) -> str:
    """Private tests as JSON text. Raises DataError where they are not in this encoding, or unpack to over 1 GiB."""
    try:
        stream = zlib.decompressobj()
        pickled = stream.decompress(base64.b64decode(packed, validate=True), LARGEST)
    except (binascii.Error, zlib.error) as error:
        raise DataError(f"not base64 of zlib data: {error}") from None
    if not stream.eof:
        raise DataError(f"cut, or over {LARGEST >> 20} MiB when unpacked")
    return sole_text(pickled)


def listed(value: Any) -> list[dict[str, Any]]:
    """One column's tests: a list, its JSON, or its packed JSON. Raises DataError for anything else."""
    if isinstance(value, str):
        text = value if value.lstrip().startswith("[") else unpacked(value) if value.strip() else "[]"
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON: {error}") from None
    if not isinstance(value or [], list) or not all(isinstance(test, dict) for test in value or []):
        raise DataError("not a list of tests")
    return value or []


def cases_of(columns: Iterable[Any], metadata: Any) -> str:
    """All columns' tests in our form (`verification.code_tests`), as JSON; the function's name, if any, is in ``metadata``."""
    tests = [test for column in columns for test in listed(column)]
    if not tests:
        raise DataError("no tests")
    about = json.loads(metadata or "{}") if isinstance(metadata, str) else metadata or {}
    name = about.get("func_name") if isinstance(about, dict) else None
    if any(test.get("testtype") == "functional" for test in tests) and not name:
        raise DataError("tests of a function, and no func_name")
    inputs = [_arguments(test["input"]) if name else test["input"] for test in tests]
    outputs = [test["output"] for test in tests]
    return json.dumps({"inputs": inputs, "outputs": outputs, "fn_name": name, "usual": True})


def _arguments(text: str) -> list[Any]:
    """A call's arguments, one line of JSON per argument."""
    return [json.loads(line) for line in text.split("\n") if line.strip()]
