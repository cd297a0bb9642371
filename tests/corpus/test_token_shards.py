import numpy as np
import pyarrow as pa
import pytest

from distillery.core.errors import DataError
from distillery.core.schemas import TRACE
from distillery.corpus.token_shards import ShardWriter, candidates, index_type, open_shard


def written(folder, dialogues):
    with ShardWriter(folder, 0, np.uint16) as shard:
        for i, (ids, prompt) in enumerate(dialogues):
            shard.add(str(i), 1, ids, prompt, "template" if prompt == 2 else None)
    return folder / "ids-00000.npy"


def test_shards_round_trip(tmp_path):
    written(tmp_path, [([1, 2, 3], 1), ([4, 5], 2)])
    shard = open_shard(tmp_path, 0)
    assert (shard.ids.tolist(), shard.offsets.tolist(), shard.prompts.tolist()) == ([1, 2, 3, 4, 5], [0, 3, 5], [1, 2])
    assert shard.responses.tolist() == [2, 0] and shard.names.to_pylist() == ["0", "1"]
    assert shard.keys.to_pylist() == ["0-1", "1-1"]
    assert shard.flawed("template").tolist() == [False, True] and not shard.flawed("tokenizer").any()


def test_an_empty_shard(tmp_path):
    written(tmp_path, [])
    assert len(open_shard(tmp_path, 0).ids) == 0


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:130])])
def test_a_truncated_file_is_named(tmp_path, damage):
    path = written(tmp_path, [([1, 2, 3], 1)])
    damage(path)
    with pytest.raises(DataError, match=r"ids-00000.npy: cannot be read"):
        open_shard(tmp_path, 0)


def test_fewer_tokens_than_the_table_says_are_an_error(tmp_path):
    path = written(tmp_path, [([1, 2, 3], 1)])
    np.save(path, np.array([1, 2], np.uint16))
    with pytest.raises(DataError, match=r"ids-00000.npy: 2 tokens, its table has 3"):
        open_shard(tmp_path, 0)


def test_candidates_are_the_traces_that_pass_and_first_attempts_where_wanted():
    order = [("a", 1, "pass"), ("a", 2, "pass"), ("b", 1, "fail"), ("b", 2, "pass"), ("c", 1, "unknown"), ("c", 2, "fail")]
    traces = pa.Table.from_pylist([{"query_id": q, "attempt": a, "verdict": v} for q, a, v in order], TRACE)
    kept = [[(row["query_id"], row["attempt"]) for row in candidates(traces, all_).to_pylist()] for all_ in (False, True)]
    assert kept == [[("a", 1), ("a", 2), ("b", 2)], [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)]]
    assert len(candidates(TRACE.empty_table(), True)) == 0


@pytest.mark.parametrize(("count", "kind"), [(1, "uint16"), (2**16, "uint16"), (2**16 + 1, "uint32"), (2**32, "uint32")])
def test_numbers_have_the_smallest_type_of_at_least_two_bytes(count, kind):
    assert index_type(count) == np.dtype(kind)
