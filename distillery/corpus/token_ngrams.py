"""Token n-grams that occur too often in a data set of billions of tokens, counted exactly within a set memory limit.

Two passes. The first adds every n-gram's hash to a sketch of small counters, which may overcount but never undercount.
The second counts exactly those that the sketch reports as too frequent. N-grams are identified by 64-bit hashes.

A sketch is blocks of 64 saturating counters of 8 bits, one cache line; a hash has two counters in one block: the
smaller is its count, and only counters that equal it are incremented (conservative update).
"""

from collections.abc import Callable, Iterable

import numpy as np
from numba import njit

BLOCK = 64
MOST = 254
MULTIPLIER = -7046029254386353131
Responses = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Concatenated token ids; where each response begins in them, and where it ends: int64, (responses,)."""


class LimitError(ValueError):
    """More repeats than a counter can hold, or more n-grams than fit in the memory limit."""


@njit(cache=True, nogil=True, inline="always")
def _mix(value):
    value ^= (value >> 32) & 0xFFFFFFFF
    value *= -2960836687051489843
    return value ^ ((value >> 29) & 0x7FFFFFFFF)


@njit(cache=True, nogil=True)
def hashes(ids: np.ndarray, begin: int, end: int, n: int, power: int, out: np.ndarray) -> int:
    """Writes the hash of every n-gram of ``ids[begin:end]`` to ``out``; how many there are."""
    value, count = np.int64(0), 0
    for i in range(begin, end):
        value = value * MULTIPLIER + np.int64(ids[i]) + 1
        if i - begin >= n:
            value -= power * (np.int64(ids[i - n]) + 1)
        if i - begin >= n - 1:
            out[count] = _mix(value)
            count += 1
    return count


@njit(cache=True)
def power_of(n: int) -> int:
    power = 1
    for _ in range(n):
        power *= MULTIPLIER
    return power


@njit(cache=True, nogil=True, inline="always")
def _counters(key, blocks):
    start = ((key >> 12) & (blocks - 1)) * BLOCK
    first = key & (BLOCK - 1)
    second = (key >> 6) & (BLOCK - 1)
    return start + first, start + (second if second != first else (second ^ 1))


@njit(cache=True, nogil=True)
def add(ids: np.ndarray, begins: np.ndarray, ends: np.ndarray, n: int, sketch: np.ndarray, buffer: np.ndarray) -> None:
    """Adds every response's n-grams to the sketch."""
    power, blocks = power_of(n), len(sketch) // BLOCK
    for row in range(len(begins)):
        for k in range(hashes(ids, begins[row], ends[row], n, power, buffer)):
            a, b = _counters(buffer[k], blocks)
            left, right = sketch[a], sketch[b]
            least = min(left, right)
            if least < 255:
                if left == least:
                    sketch[a] = least + 1
                if right == least:
                    sketch[b] = least + 1


@njit(cache=True, nogil=True)
def _slot(table: np.ndarray, key: int) -> int:
    mask = len(table) - 1
    at = (key >> 20) & mask
    while table[at] != 0 and table[at] != key:
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def count(ids, begins, ends, n, sketch, most, keys, counts, held, guilty, buffer):
    """Counts exactly the n-grams that the sketch reports as too frequent, until the table is three quarters full.

    Marks in ``guilty`` the responses that hold one. Returns the numbers of responses processed and of n-grams held.
    """
    power, blocks = power_of(n), len(sketch) // BLOCK
    for row in range(len(begins)):
        if held > len(keys) * 3 // 4 - (ends[row] - begins[row]):
            return row, held
        for k in range(hashes(ids, begins[row], ends[row], n, power, buffer)):
            a, b = _counters(buffer[k], blocks)
            if min(sketch[a], sketch[b]) > most:
                key = buffer[k] if buffer[k] != 0 else np.int64(1)
                at = _slot(keys, key)
                held += keys[at] == 0
                keys[at] = key
                counts[at] += 1
                guilty[row] = True
    return len(begins), held


@njit(cache=True, nogil=True)
def confirm(ids, begins, ends, n, most, keys, counts, guilty, buffer):
    """Unmarks the responses in ``guilty`` that hold no n-gram counted over ``most`` times."""
    power = power_of(n)
    for row in range(len(begins)):
        if guilty[row]:
            guilty[row] = False
            for k in range(hashes(ids, begins[row], ends[row], n, power, buffer)):
                key = buffer[k] if buffer[k] != 0 else np.int64(1)
                at = _slot(keys, key)
                if keys[at] == key and counts[at] > most:
                    guilty[row] = True
                    break


@njit(cache=True, nogil=True)
def _grown(keys, counts, size):
    new_keys, new_counts = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for i in range(len(keys)):
        if keys[i]:
            at = _slot(new_keys, keys[i])
            new_keys[at], new_counts[at] = keys[i], counts[i]
    return new_keys, new_counts


def _buffer(responses: Responses) -> np.ndarray:
    _, begins, ends = responses
    return np.empty(int((ends - begins).max(initial=0)) + 1, np.int64)


def repeated(shards: Callable[[], Iterable[Responses]], n: int, most: int, megabytes: int) -> list[np.ndarray]:
    """For each shard, which responses hold an n-gram that occurs more than ``most`` times over all shards: bool arrays.

    ``shards`` is iterated three times; ``megabytes`` is the size of the sketch, and the limit for the exact counts.
    Raises LimitError where ``most`` is more than a counter can hold, or the exact counts need more.
    """
    if not 0 < most <= MOST:
        raise LimitError(f"max_repeats must be between 1 and {MOST}, not {most}")
    size = 1 << (megabytes * 2**20).bit_length() - 1
    sketch = np.zeros(size, np.uint8)
    for ids, begins, ends in shards():
        add(ids, begins, ends, n, sketch, _buffer((ids, begins, ends)))
    keys, counts, held = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64), 0
    marks = []
    for ids, begins, ends in shards():
        guilty, done = np.zeros(len(begins), bool), 0
        buffer = _buffer((ids, begins, ends))
        while True:
            rest = slice(done, None)
            some, held = count(ids, begins[rest], ends[rest], n, sketch, most, keys, counts, held, guilty[rest], buffer)
            done += some
            if done == len(begins):
                break
            if 32 * len(keys) > size and len(keys) > 1 << 20:
                raise LimitError(f"over {held} n-grams repeat too often for {megabytes} MB; raise curate.memory")
            keys, counts = _grown(keys, counts, 2 * len(keys))
        marks.append(guilty)
    for (ids, begins, ends), guilty in zip(shards(), marks, strict=True):
        confirm(ids, begins, ends, n, most, keys, counts, guilty, _buffer((ids, begins, ends)))
    return marks


@njit(cache=True, nogil=True)
def repetition(ids: np.ndarray, begins: np.ndarray, ends: np.ndarray, n: int) -> np.ndarray:
    """The share of each response's n-grams that occurred earlier in it, float64, (responses,)."""
    power = power_of(n)
    shares = np.zeros(len(begins))
    longest = 1
    for row in range(len(begins)):
        longest = max(longest, ends[row] - begins[row])
    buffer = np.empty(longest, np.int64)
    size = 1
    while size < 2 * longest:
        size *= 2
    table, owner = np.zeros(size, np.int64), np.full(size, -1, np.int64)
    for row in range(len(begins)):
        found = hashes(ids, begins[row], ends[row], n, power, buffer)
        again = 0
        for k in range(found):
            at = (buffer[k] >> 20) & (size - 1)
            while owner[at] == row and table[at] != buffer[k]:
                at = (at + 1) & (size - 1)
            again += owner[at] == row
            table[at], owner[at] = buffer[k], row
        shares[row] = again / found if found else 0.0
    return shares
