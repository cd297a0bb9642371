"""tokenise: a teacher's verified traces as the student's tokenizer sees them, once, memory-mapped.

One row a verified query, sorted by query id. ``ids.npy`` holds all dialogues end to end; dialogue i is
``ids[offsets[i]:offsets[i + 1]]``, its first ``prompts[i]`` tokens being the prompt. For n-grams, lengths and packing.

The system prompt is left out, as in the study: it is asked with at distillation and evaluation, and not trained on.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from stages import locks, provenance
from stages.provenance import say
from stages.tables import QUERY, TRACE, DataError, read, whole_folder, write
from stages.verifiers import PASS

INDEX = pa.schema([("query_id", pa.string()), ("prompt_tokens", pa.int32()), ("response_tokens", pa.int32())])


def render(tokenizer: Any, messages: list[dict[str, str]], response: str) -> tuple[list[int], int]:
    """Token ids of a whole dialogue and how many of them are the prompt.

    Raises DataError where the chat template changes the response (some drop the thinking).
    """
    dialogue = [*messages, {"role": "assistant", "content": response}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(dialogue, tokenize=False)
    if not whole.startswith(prompt) or response not in whole[len(prompt) :]:
        raise DataError("the student's chat template changes or drops the response; give the base another template")
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    boundary = sum(start < len(prompt) for start, _ in encoded.offset_mapping)
    return encoded.input_ids, boundary


def verified(traces: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The trace that each query is answered with: its first that passes."""
    chosen: dict[str, dict[str, Any]] = {}
    for trace in traces:
        if trace["verdict"] == PASS:
            chosen.setdefault(trace["query_id"], trace)
    return dict(sorted(chosen.items()))


def main(teacher: str) -> None:
    from transformers import AutoTokenizer

    lock = locks.read("base")
    tokenizer = AutoTokenizer.from_pretrained(lock.id, revision=lock.hub_revision)
    with provenance.record(f"metrics/tokenise/{teacher}.json", "tokenizers", "transformers") as metrics:
        queries = {query["id"]: query for query in read("data/queries", QUERY).to_pylist()}
        traces = verified(read(f"data/traces/{teacher}", TRACE).to_pylist())
        rendered = [render(tokenizer, queries[key]["messages"], trace["text"]) for key, trace in traces.items()]
        kind = np.uint16 if len(tokenizer) < 2**16 else np.uint32
        lengths = [len(ids) for ids, _ in rendered]
        with whole_folder(f"data/tokens/{teacher}") as folder:
            np.save(folder / "ids.npy", np.concatenate([np.array(ids, kind) for ids, _ in rendered] or [np.empty(0, kind)]))
            np.save(folder / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
            np.save(folder / "prompts.npy", np.array([prompt for _, prompt in rendered], np.int32))
            rows = [
                {"query_id": key, "prompt_tokens": prompt, "response_tokens": len(ids) - prompt}
                for key, (ids, prompt) in zip(traces, rendered, strict=True)
            ]
            write(rows, folder / "index", INDEX)
        metrics.update(traces=len(rows), tokens=sum(lengths), provenance={"models": locks.brief(lock)})
    say(f"tokenise@{teacher}", f"{len(rows)} verified traces, {sum(lengths)} tokens")


if __name__ == "__main__":
    provenance.run(main)
