"""Released data sets of traces: as a source of queries, and in place of a teacher."""

import json
from functools import partial

import pyarrow as pa
import pytest

from distillery.core.chat import as_messages, identify
from distillery.core.formats import STUDY, TAGS
from distillery.core.model_locks import Lock
from distillery.core.response_parts import parts_of
from distillery.core.schemas import QUERY
from distillery.corpus.query_index import QueryIndex
from distillery.corpus.sources import Origin
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling
from distillery.generation.ledger import Ledger
from distillery.generation.released_traces import (
    NullEngine,
    dialogue_of,
    import_traces,
    read_released,
    usual_format,
)
from distillery.verification.distiller import Distill, Distiller, trace_rows
from stages.collect import Collect, Source
from stages.distill import ask_for
from tests.support.builders import collected
from tests.verification.test_distiller import Equal

COLUMNS = {
    "messages": "conversations",
    "category": "conversations.-1.info.category",
    "source": "conversations.-1.info.source",
    "ground_truth": "conversations.-1.info.ground_truth",
    "test_cases": "conversations.-1.info.test_case",
    "constraints": "conversations.-1.info.instruction_constrain",
}
LOCK = Lock("teacher-t", "released", "revision", True, {})
SAMPLING = Sampling(0.6, 0.95, 64)


def turn(who, value, **info):
    return {"from": who, "value": value, "info": info or None}


def said(think, answer):
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


MATH = [
    {
        "system": "",
        "conversations": [
            turn("human", "what is 2 + 3 ?", category="math"),
            turn("assistant", said("so", "5"), category="math", source="a", ground_truth="5", verify_score=1.0, ppl=2.1),
        ],
    },
    {
        "system": "be brief",
        "conversations": [
            turn("human", "what is 4 + 4 ?"),
            turn("assistant", said("so", "9"), category="math", source="a", ground_truth=8, verify_score="0.95", ppl=None),
        ],
    },
    {
        "system": None,
        "conversations": [
            turn("human", "what is 4  + 4 ?"),
            turn("assistant", said("so", "8"), category="math", ground_truth=8, test_case=None),
        ],
    },
    {"system": "", "conversations": []},
    {"system": "", "conversations": [turn("human", "only asked")]},
]
TALK = [
    {
        "system": "",
        "conversations": [
            turn("human", "hello"),
            turn("assistant", "hi"),
            turn("human", "how are you ?"),
            turn(
                "assistant", said("kind", "fine"), category="multiturn", instruction_constrain=[{"id": "x"}], test_case={"a": 1}
            ),
        ],
    }
]


@pytest.fixture
def folder(inside):
    """Two released files whose column types differ."""
    (inside / "params.yaml").write_text("world: set\n")
    (inside / "set").mkdir()
    for name, rows in (("math", MATH), ("multiturn", TALK)):
        (inside / f"set/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "set"


def queries_of(folder):
    return collected(Collect("skip", 1000, {"s": Source(folder, None, "train", None, COLUMNS)}))


def test_released_traces_are_a_source_of_queries(folder):
    queries, malformed = queries_of(folder)
    assert [query["messages"][-1]["content"] for query in queries] == [
        "what is 2 + 3 ?",
        "what is 4 + 4 ?",
        "what is 4  + 4 ?",
        "how are you ?",
    ]
    assert [query["ground_truth"] for query in queries] == ["5", "8", "8", None]
    assert (queries[3]["category"], queries[3]["constraints"], queries[3]["test_cases"]) == (
        "multiturn",
        '[{"id": "x"}]',
        '{"a": 1}',
    )
    assert [row["reason"].partition(":")[0] for row in malformed] == ["messages", "category"]


def indexed(queries, folder):
    """The queries as `distill` looks them up, in parts of one query."""
    folder.mkdir(exist_ok=True)
    parts = (pa.Table.from_pylist([query], pa.schema([QUERY.field("id"), QUERY.field("messages")])) for query in queries)
    return QueryIndex(parts, folder / "messages.arrow")


def distilled(folder, queries, ledger):
    """(counts, trace rows) of a run in which the released traces replace the teacher."""
    ask = partial(ask_for, LOCK, SAMPLING, "be brief")
    engine = LedgerEngine(Ledger("t", ledger), 4096, NullEngine)
    counts = import_traces(engine.ledger, Origin(folder, None, "train"), indexed(queries, ledger), ask, "key")
    distiller = Distiller(Distill(3, 1, 4), engine, Equal(), ask, STUDY)
    for _ in distiller.run([queries]):
        pass
    rows = list(trace_rows(distiller.take_settled(), "t"))
    engine.close()
    return counts, rows, distiller.settled


def test_released_traces_can_replace_a_teacher(folder, tmp_path):
    queries = {query["id"]: query for query in queries_of(folder)[0]}
    five, eight, _ = queries.values()
    counts, rows, settled = distilled(folder, [five, eight], tmp_path / "ledger")
    unreadable = {"unreadable: no dialogue and no question": 1, "unreadable: no response": 1}
    assert counts == {"taken": 3, "of other queries": 1} | unreadable
    got = {(row["query_id"], row["attempt"]): (parts_of(row)[1], row["verdict"]) for row in rows}
    assert got == {(five["id"], 1): ("5", "pass"), (eight["id"], 1): ("9", "fail"), (eight["id"], 2): ("8", "pass")}
    assert all(row["engine"] == "released set" and row["model_revision"] == "revision" for row in rows)
    assert settled == {("math", "pass"): 2}
    again = distilled(folder, [five, eight], tmp_path / "ledger")
    assert again[1] == rows, "a second run imports nothing twice"
    held = [entry for _, entry in Ledger("t", tmp_path / "ledger").every()]
    assert [(entry.prompt_tokens, entry.completion_tokens) for entry in held] == 3 * [(0, 0)], "it is not known how many"


def test_a_query_without_traces_is_unknown_and_a_fail_stays_a_fail(folder, tmp_path):
    queries = queries_of(folder)[0]
    strange = queries[0] | {"id": "f" * 32, "messages": [{"role": "user", "content": "what is 9 + 9 ?"}]}
    wrong = queries[0] | {"ground_truth": "6"}
    _, rows, settled = distilled(folder, [strange, wrong], tmp_path / "ledger")
    found = {row["query_id"]: (row["verdict"], row["reason"]) for row in rows}
    assert found["f" * 32] == ("unknown", "the released traces do not hold this query")
    assert found[wrong["id"]][0] == "fail" and settled == {("math", "unknown"): 1, ("math", "fail"): 1}


def test_queries_that_differ_by_their_system_prompt_keep_their_own_traces(folder, tmp_path):
    asked = lambda system: [turn("system", system), turn("human", "greet me")] if system else [turn("human", "greet me")]  # noqa: E731
    rows = [{"conversations": [*asked(s), turn("assistant", said("so", s or "hi"))]} for s in ("french", "german", "")]
    (tmp_path / "set/math.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [query | {"category": "other", "ground_truth": None} for query in queries_as(rows[:2])]
    ledger = Ledger("t", tmp_path / "l")
    ask = partial(ask_for, LOCK, SAMPLING, "")
    counts = import_traces(ledger, Origin(folder, None, "train"), indexed(queries, tmp_path), ask, "key")
    assert (counts["taken"], counts["of other queries"]) == (2, 2)
    assert len(list(ledger.every())) == 2


def queries_as(rows):
    for row in rows:
        messages = as_messages(row["conversations"][:-1])
        yield {"id": identify(messages), "messages": messages}


NATURAL = "<think>\nso\n</think>\n\n5"
ASKED = {"role": "user", "content": "2 + 3 ?"}


def part(text):
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, {"role": "assistant", "content": NATURAL}]},
        {"messages": [ASKED, {"role": "assistant", "content": "5", "reasoning_content": "so"}]},
        {"messages": [ASKED, {"role": "assistant", "content": "5", "reasoning": "so"}]},
        {"messages": [ASKED, {"role": "assistant", "content": [{"type": "thinking", "thinking": "so"}, part("5")]}]},
        {"messages": [ASKED, {"role": "assistant", "content": "5"}], "reasoning": "so"},
        {"messages": [{"role": "user", "content": [part("2 + 3 ?")]}, {"role": "assistant", "content": NATURAL}]},
        {"conversations": [{"from": "human", "value": "2 + 3 ?"}, {"from": "gpt", "value": NATURAL}]},
        {"problem": "2 + 3 ?", "generations": [NATURAL, NATURAL]},
        {"problem": "2 + 3 ?", "messages": [ASKED, {"role": "assistant", "content": "old"}], "generations": [NATURAL]},
        {"problem": "2 + 3 ?", "generated_solution": NATURAL},
        {"input": [ASKED], "output": NATURAL},
    ],
)
def test_rows_as_public_data_sets_have_them(row):
    asked, responses = dialogue_of(row)
    assert asked == [ASKED] and set(responses) == {NATURAL} and len(responses) == len(row.get("generations", [1]))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [ASKED, {"role": "tool", "content": "5"}]}, "tool"),
        ({"messages": [ASKED, {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]}, "tool"),
        ({"conversations": [{"from": "human", "value": "?"}, {"from": "observation", "value": "5"}]}, "tool"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "x"}]}]}, "not text"),
        ({"messages": ["text"]}, "role and a content"),
        ({"text": "5"}, "no dialogue"),
        ({}, "no dialogue"),
    ],
)
def test_rows_that_are_no_dialogue_of_texts_are_named(row, why):
    with pytest.raises(ValueError, match=why):
        dialogue_of(row)


def test_the_format_of_most_responses_is_the_teachers(folder, inside):
    assert usual_format(Origin(folder, None, "train"), "key") == STUDY
    rows = [{"problem": "2 + 3 ?", "generated_solution": NATURAL}] * 3
    (inside / "set/natural.jsonl").write_text("".join(json.dumps(row) + "\n" for row in 3 * rows))
    assert usual_format(Origin(folder, None, "train"), "key") == TAGS


@pytest.mark.parametrize("response", [" \n", "5 \x00 6", "5 \ud800"])
def test_a_response_that_is_blank_or_cannot_be_stored_is_none(tmp_path, response):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"problem": "a ?", "generations": [response]}) + "\n")
    (row,) = read_released(Origin(str(path), None, "train"), None)
    assert (row.responses, row.problem) == ([], "no response")
