"""Which traces each arm takes, from the curated traces of its teachers.

Draws are by hash: of the seed and a query's id, so that they depend neither on the order of rows nor on other queries, and
the queries of a smaller share are among those of a larger one.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillery.core.arms import Arm
from distillery.core.schemas import CURATED, PASS, SHARED
from distillery.corpus.arrow_text import as_before, combine_chunks

ORDER = pa.field("order", pa.uint64())
"""A query's place when queries are drawn."""
EVERY = 2**64 - 1


def shared(curated: dict[str, pa.Table], window: int) -> pa.Table:
    """SHARED: the ids for which every teacher has a verified trace, sorted, and whether each one's first fits the window.

    A query trains every student or none, so that students learn from the same queries.
    """
    verified = {teacher: firsts(table) for teacher, table in curated.items()}
    first, *others = verified.values()
    ids = combine_chunks(first["query_id"])
    for other in others:
        ids = ids.filter(pc.is_in(ids, value_set=combine_chunks(other["query_id"])))
    trains = np.ones(len(ids), bool)
    for table in verified.values():
        place = pc.index_in(ids, combine_chunks(table["query_id"])).to_numpy()
        trains &= table["dialogue_tokens"].to_numpy()[place] <= window
    return pa.table([ids, pa.array(trains)], SHARED)


def firsts(table: pa.Table) -> pa.Table:
    """The first verified trace of each query; ``table`` sorted by query and attempt."""
    verified = table.filter(pc.field("verdict") == PASS)
    return verified.filter(pa.array(~as_before(verified["query_id"])))


def hashes(seed: int, salt: str, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A random 64-bit number for each id (32 hexadecimal digits), uint64, by seed and salt: splitmix64 of a part of the id."""
    start = int.from_bytes(hashlib.sha256(f"{seed} {salt}".encode()).digest()[:8], "big")
    mixed = np.fromiter((int(each[16:], 16) ^ start for each in ids.to_pylist()), np.uint64, len(ids))
    mixed += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def taken(arm: Arm, curated: dict[str, pa.Table], common: pa.Table, window: int, seed: int) -> pa.Table:
    """What an arm takes of one part, before its share of the queries is cut: CURATED with ``trains`` and ORDER, by query.

    Of a query that trains, only traces that fit the window count; each teacher has at least one.
    """
    traces = pa.concat_tables([curated[teacher].select(CURATED.names) for teacher in arm.teachers])
    if arm.verified:
        traces = traces.filter(pc.field("verdict") == PASS)
    place = pc.index_in(combine_chunks(traces["query_id"]), combine_chunks(common["query_id"]))
    traces, place = traces.filter(pc.is_valid(place)), place.drop_null().to_numpy()
    trains = common["trains"].to_numpy()[place]
    fits = ~trains | (traces["dialogue_tokens"].to_numpy() <= window)
    traces, place, trains = traces.filter(pa.array(fits)), place[fits], trains[fits]
    order = np.lexsort((*reversed(preferences(arm, traces, seed)), place))
    best = order[rank_within(place[order]) < arm.per_query]
    chosen = traces.take(pa.array(best)).append_column("trains", pa.array(trains[best]))
    return chosen.append_column(ORDER, pa.array(hashes(seed, "queries", chosen["query_id"])))


def preferences(arm: Arm, traces: pa.Table, seed: int) -> list[np.ndarray]:
    """What an arm sorts a query's traces by, (traces,) each, the most important first; least is best."""
    attempts = traces["attempt"].to_numpy()
    teachers = combine_chunks(traces["teacher"])
    drawn = np.zeros(len(traces), np.uint64)
    for teacher in arm.teachers if len(arm.teachers) > 1 else ():
        here = pc.equal(teachers, teacher).to_numpy(zero_copy_only=False)
        drawn[here] = hashes(seed, teacher, traces["query_id"].filter(pa.array(here)))
    ties = [attempt_ranks(traces), drawn, attempts]
    if arm.take == "first":
        return ties
    measured = traces["fit" if arm.take == "best_fit" else "response_tokens"].to_numpy()
    return [measured if arm.take == "shortest" else -measured, *ties]


def attempt_ranks(traces: pa.Table) -> np.ndarray:
    """How many traces of the same query and teacher come before each, (traces,); ``traces`` has each teacher's in order."""
    keys = combine_chunks(pc.binary_join_element_wise(traces["query_id"], traces["teacher"], "-"))
    return rank_within(pc.dictionary_encode(keys).indices.to_numpy())


def rank_within(groups: np.ndarray) -> np.ndarray:
    """How many equal values come directly before each, (values,); equal values are neighbours."""
    rows = np.arange(len(groups))
    starts = np.append(True, groups[1:] != groups[:-1])[: len(groups)]
    return rows - np.maximum.accumulate(np.where(starts, rows, 0))


@dataclass
class Drawn:
    """The training queries of an arm over all parts: their places in the draw, and the response tokens of their traces."""

    order: list[np.ndarray] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)

    def add(self, chosen: pa.Table) -> None:
        """Adds a part's traces."""
        training = chosen.filter(pc.field("trains"))
        grouped = training.group_by(ORDER.name).aggregate([("response_tokens", "sum")])
        self.order.append(grouped[ORDER.name].to_numpy())
        self.tokens.append(grouped["response_tokens_sum"].to_numpy())

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order, tokens = np.concatenate(self.order), np.concatenate(self.tokens)
        places = np.argsort(order)
        return order[places], tokens[places]


def last_drawn(drawn: Drawn, share: float, tokens: int | None) -> int:
    """The last place in the draw that an arm takes: its share of the queries, at least one, and no more tokens than it may.

    The query that would exceed the tokens is left out, unless it is the first.
    """
    order, lengths = drawn.sorted()
    if not len(order) or (share == 1 and tokens is None):
        return EVERY
    count = max(1, round(share * len(order)))
    if tokens is not None:
        count = min(count, max(1, int(np.searchsorted(np.cumsum(lengths), tokens, "right"))))
    return EVERY if count == len(order) else int(order[count - 1])


def limits(arms: dict[str, Arm], drawn: dict[str, Drawn]) -> dict[str, int]:
    """For each arm the last place in the draw that it takes."""
    found = {name: last_drawn(drawn[name], arm.share, None) for name, arm in arms.items()}
    equal = [tokens_until(drawn[name], found[name]) for name, arm in arms.items() if arm.tokens == "equal"]
    for name, arm in arms.items():
        if arm.tokens is not None:
            most = min(equal) if arm.tokens == "equal" else arm.tokens
            found[name] = last_drawn(drawn[name], arm.share, most)
    return found


def tokens_until(drawn: Drawn, last: int) -> int:
    order, tokens = drawn.sorted()
    return int(tokens[order <= np.uint64(last)].sum())


def is_cut(arm: Arm) -> bool:
    """Whether an arm takes fewer queries than there are."""
    return arm.share < 1 or arm.tokens is not None


def within(chosen: pa.Table, last: int) -> pa.Table:
    """The traces of queries that were drawn."""
    return chosen.filter(pc.field(ORDER.name) <= pa.scalar(last, pa.uint64()))


def sum_tokens(tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Traces, queries and response tokens that train."""
    counts = {"traces": 0, "queries": 0, "response_tokens": 0}
    for table in tables:
        training = table.filter(pc.field("trains"))
        counts["traces"] += len(training)
        counts["queries"] += len(pc.unique(training["query_id"]))
        counts["response_tokens"] += pc.sum(training["response_tokens"]).as_py() or 0
    return counts
