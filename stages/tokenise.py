"""tokenise: a teacher's verified traces as the student's tokenizer sees them, once, in memory-mapped shards.

For n-grams, lengths and packing. The system prompt is left out, as in the study: it is asked with at distillation and
evaluation, and not trained on.
"""

from functools import cache
from typing import Any

import numpy as np

from stages import locks, provenance
from stages.provenance import say
from stages.runner import each_part
from stages.shards import ShardWriter, chosen
from stages.tables import QUERY, TRACE, DataError, aligned, read_part, whole_folder

ROWS_AT_ONCE = 256
Dialogue = tuple[list[dict[str, str]], str]


@cache
def load(model: str, revision: str | None) -> Any:
    """The tokenizer, which neither cuts nor pads, whatever its file says."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def special_tokens(tokenizer: Any) -> list[str]:
    """As they are spelt: the tokenizer takes such a text for the token, wherever it stands."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]


def spells(tokens: list[str], dialogue: Dialogue) -> bool:
    """Whether anything that was said in a dialogue spells one of the tokens."""
    messages, response = dialogue
    return any(token in text for text in (response, *(message["content"] for message in messages)) for token in tokens)


def rendered(tokenizer: Any, messages: list[dict[str, str]], response: str) -> tuple[str, str]:
    """The prompt as the chat template writes it, and the whole dialogue. Raises DataError where it changes the response."""
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": response}], tokenize=False)
    if not whole.startswith(prompt) or response not in whole[len(prompt) :]:
        raise DataError("the student's chat template changes or drops the response; give the base another template")
    return prompt, whole


def tokenised(tokenizer: Any, dialogues: list[Dialogue]) -> list[tuple[list[int], int]]:
    """The token ids of each whole dialogue and how many of them are the prompt.

    Raises DataError where the tokenizer does not read back what it wrote.
    """
    if not dialogues:
        return []
    backend = tokenizer.backend_tokenizer
    texts = [rendered(tokenizer, *dialogue) for dialogue in dialogues]
    whole = [each.ids for each in backend.encode_batch_fast([text for _, text in texts], add_special_tokens=False)]
    prompts = [each.ids for each in backend.encode_batch_fast([prompt for prompt, _ in texts], add_special_tokens=False)]
    again = backend.decode(whole[0], skip_special_tokens=False)
    if backend.encode(again, add_special_tokens=False).ids != whole[0]:
        raise DataError("the student's tokenizer does not read back what it decodes; give the base another tokenizer")
    return [
        (ids, len(prompt) if ids[: len(prompt)] == prompt else boundary(backend, *text))
        for ids, prompt, text in zip(whole, prompts, texts, strict=True)
    ]


def boundary(backend: Any, prompt: str, whole: str) -> int:
    """How many tokens begin within the prompt, where its end falls inside a token."""
    return sum(start < len(prompt) for start, _ in backend.encode(whole, add_special_tokens=False).offsets)


def main(teacher: str) -> None:
    lock = locks.read("base")
    model, revision = lock.id, lock.hub_revision
    vocabulary = len(load(model, revision))
    with provenance.record(f"metrics/tokenise/{teacher}.json", "daft", "tokenizers", "transformers") as metrics:
        queries, traces = aligned("data/queries", f"data/traces/{teacher}")
        with whole_folder(f"data/tokens/{teacher}") as folder:

            def work(part: int) -> dict[str, Any]:
                tokenizer = load(model, revision)
                special = special_tokens(tokenizer)
                table = read_part(queries[part], QUERY)
                messages = dict(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
                answered = chosen(read_part(traces[part], TRACE).select(["query_id", "verdict", "text"]))
                with ShardWriter(folder, part, np.uint16 if vocabulary <= 2**16 else np.uint32) as shard:
                    for batch in answered.to_batches(ROWS_AT_ONCE):
                        names, texts = batch["query_id"].to_pylist(), batch["text"].to_pylist()
                        dialogues = [(messages[name], text) for name, text in zip(names, texts, strict=True)]
                        for name, dialogue, found in zip(names, dialogues, tokenised(tokenizer, dialogues), strict=True):
                            shard.add(name, *found, spells(special, dialogue))
                return {"traces": len(answered), "tokens": shard.tokens}

            said = each_part(f"tokenise@{teacher}", work, len(queries))
        metrics.update({name: sum(part[name] for part in said) for name in ("traces", "tokens")})
        metrics["provenance"] = {"models": locks.brief(lock)}
    say(f"tokenise@{teacher}", f"{metrics['traces']} verified traces, {metrics['tokens']} tokens")


if __name__ == "__main__":
    provenance.run(main)
