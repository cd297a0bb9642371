"""Values and frames that are sent in and out of a sandbox: plain JSON, with tags where JSON has no such type."""

import builtins
import json
import os
import struct

LARGEST_INT = 2**53
LONGEST_INT = 100_000
"""Hexadecimal digits."""
DEEPEST = 200
BUILTIN_TYPES = {each: name for name, each in vars(builtins).items() if isinstance(each, type)}


def encode(value, handles, depth=0):
    """A Python value as JSON; what JSON cannot represent stays here, and is sent as a handle number."""
    if depth > DEEPEST:
        raise ValueError("a value nested too deeply")
    deeper = (handles, depth + 1)
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -LARGEST_INT < value < LARGEST_INT else {"i": hex(value)}
    if kind is float:
        return {"f": value.hex()}
    if kind is list:
        return [encode(item, *deeper) for item in value]
    if isinstance(value, tuple):
        return {"t": [encode(item, *deeper) for item in tuple.__iter__(value)]}
    if kind in (set, frozenset):
        return {"s": sorted((encode(item, *deeper) for item in value), key=json.dumps), "frozen": kind is frozenset}
    if isinstance(value, dict):
        return {"d": [[encode(k, *deeper), encode(v, *deeper)] for k, v in dict.items(value)]}
    if kind is complex:
        return {"c": [value.real.hex(), value.imag.hex()]}
    if kind in (bytes, bytearray):
        return {"b": bytes(value).hex()}
    if isinstance(value, int):
        return encode(int.__index__(value), *deeper)
    if isinstance(value, float):
        return {"f": float.hex(value)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, type) and value in BUILTIN_TYPES:
        return {"n": BUILTIN_TYPES[value]}
    handles.append(value)
    return {"h": len(handles) - 1}


def decode(value, of_handle, depth=0):
    """The value behind ``encode``'s JSON; ``of_handle`` gives the object that a handle's number stands for.

    Raises ValueError or TypeError where the JSON is not ``encode``'s.
    """
    if depth > DEEPEST:
        raise ValueError("a value nested too deeply")
    deeper = (of_handle, depth + 1)
    if isinstance(value, list):
        return [decode(item, *deeper) for item in value]
    if not isinstance(value, dict):
        return value
    if "i" in value:
        if len(value["i"]) > LONGEST_INT:
            raise ValueError("a number with too many digits")
        return int(value["i"], 16)
    if "f" in value:
        return float.fromhex(value["f"])
    if "t" in value:
        return tuple(decode(item, *deeper) for item in value["t"])
    if "s" in value:
        return (frozenset if value.get("frozen") else set)(decode(item, *deeper) for item in value["s"])
    if "d" in value:
        return {decode(k, *deeper): decode(v, *deeper) for k, v in value["d"]}
    if "c" in value:
        return complex(*map(float.fromhex, value["c"]))
    if "b" in value:
        return bytes.fromhex(value["b"])
    if "n" in value:
        return getattr(builtins, value["n"])
    return of_handle(value["h"])


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def read_exactly(fd, size):
    data = b""
    while len(data) < size:
        piece = os.read(fd, min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return data


def send(fd, message):
    data = json.dumps(message).encode()
    write_all(fd, struct.pack(">I", len(data)) + data)


def receive(fd):
    (size,) = struct.unpack(">I", read_exactly(fd, 4))
    return json.loads(read_exactly(fd, size))
