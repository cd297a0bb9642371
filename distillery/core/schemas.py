"""Schemas of the tables on disk, and the values that their columns may take."""

from typing import Literal

import pyarrow as pa

CATEGORIES = ("math", "code", "science", "if", "multiturn", "other")
Category = Literal["math", "code", "science", "if", "multiturn", "other"]
PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
"""The three verdicts; ``unknown`` is what reports call inconclusive."""
MAJORITY = "majority"
"""The verifier of answers without a reference, which pass where most answers to their query agree with them."""

MALFORMED = pa.schema([("where", pa.string()), ("reason", pa.string()), ("row", pa.string())])

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

QUERY = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("category", pa.string()),
        ("source", pa.string()),
        ("difficulty", pa.string()),
        ("ground_truth", pa.string()),
        ("test_cases", pa.string()),
        ("constraints", pa.string()),
    ]
)

SIMILARITY = pa.schema([("id", pa.string()), ("benchmark_item", pa.string()), ("cosine", pa.float32())])

REJECTED_QUERY = QUERY.append(pa.field("reason", pa.string()))

TRACE = pa.schema(
    [
        ("query_id", pa.string()),
        ("teacher", pa.string()),
        ("attempt", pa.int32()),
        ("seed", pa.int64()),
        ("text", pa.string()),
        ("format", pa.string()),
        ("think_start", pa.int32()),
        ("think_end", pa.int32()),
        ("answer_start", pa.int32()),
        ("answer_end", pa.int32()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("verify_score", pa.float64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("verifier", pa.string()),
        ("model_revision", pa.string()),
        ("engine", pa.string()),
    ]
)

PERPLEXITY = pa.schema(
    [("query_id", pa.string()), ("attempt", pa.int32()), ("perplexity", pa.float64()), ("fit", pa.float64())]
)
"""``perplexity`` over query and response; ``fit``: mean log probability per token of the response alone."""

SHARED = pa.schema([("query_id", pa.string()), ("trains", pa.bool_())])

TAKEN = pa.schema([("query_id", pa.string()), ("teacher", pa.string()), ("attempt", pa.int32()), ("trains", pa.bool_())])
"""What an arm takes, by query; one that does not train is too long for a window, for some teacher."""

CURATED = pa.schema(
    [
        *TRACE,
        ("perplexity", pa.float64()),
        ("fit", pa.float64()),
        ("response_tokens", pa.int32()),
        ("dialogue_tokens", pa.int32()),
    ]
)
