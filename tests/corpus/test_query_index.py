"""Queries are found by what they ask."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core.chat import identify
from distillery.core.schemas import QUERY
from distillery.corpus.query_index import HALVES, Places, QueryIndex, bare

KEPT = pa.schema([QUERY.field("id"), QUERY.field("messages")])
ASKED, SYSTEM, OTHER = ({"role": role, "content": text} for role, text in (("user", "a ?"), ("system", "s"), ("system", "o")))


def index_of(folder, *parts):
    """An index of parts of queries, given by their messages."""
    rows = ([{"id": identify(messages), "messages": messages} for messages in part] for part in parts)
    return QueryIndex((pa.Table.from_pylist(part, KEPT) for part in rows), folder / "messages.arrow")


@pytest.mark.parametrize(
    ("held", "asked", "place"),
    [
        ([[ASKED]], [ASKED], 0),
        ([[ASKED]], [SYSTEM, ASKED], 0),
        ([[SYSTEM, ASKED]], [ASKED], 0),
        ([[SYSTEM, ASKED]], [OTHER, ASKED], 0),
        ([[SYSTEM, ASKED], [ASKED]], [ASKED], 1),
        ([[SYSTEM, ASKED], [ASKED]], [OTHER, ASKED], 1),
        ([[SYSTEM, ASKED], [OTHER, ASKED]], [OTHER, ASKED], 1),
        ([[SYSTEM, ASKED], [OTHER, ASKED]], [ASKED], None),
        ([[ASKED]], [ASKED, ASKED], None),
        ([], [ASKED], None),
    ],
)
def test_a_system_prompt_is_looked_past_where_that_names_one_query(tmp_path, held, asked, place):
    index = index_of(tmp_path, held)
    assert index.find(asked) == place
    assert place is None or index.messages_of(place) == held[place]


def test_messages_are_read_across_parts_and_the_id_counts(tmp_path):
    parts = [[[{"role": "user", "content": f"{part} {row}"}] for row in range(3)] for part in range(4)]
    index = index_of(tmp_path, *parts)
    every = [messages for part in parts for messages in part]
    assert [index.find(messages) for messages in every] == list(range(12)) and index.count == 12
    assert [index.messages_of(place) for place in range(12)] == every
    constrained = {"id": identify([ASKED]), "messages": [ASKED, {"role": "user", "content": "briefly"}]}
    index = QueryIndex([pa.Table.from_pylist([constrained], KEPT)], tmp_path / "constrained.arrow")
    assert index.find([ASKED]) == 0 and index.messages_of(0) == constrained["messages"]


def test_nothing_is_found_where_there_are_no_parts(tmp_path):
    assert index_of(tmp_path).find([ASKED]) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_places_are_those_of_a_dictionary(ids, wanted):
    known = {key: place for place, key in enumerate(ids) if ids.count(key) == 1}
    assert Places(np.array(ids, HALVES)).find("".join(f"{half:016x}" for half in wanted)) == known.get(wanted)


def test_bare_leaves_out_system_prompts_alone():
    assert bare([SYSTEM, ASKED]) == [ASKED]
