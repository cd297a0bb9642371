"""A logits processor for vLLM that makes any model write the response of the format that the prompt names."""

from typing import Any

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from tests.support.response_texts import WRITES
from tests.support.template_tokenizer import tokenizer_for

TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}<|end_of_turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ opening }}{% endif %}"
)
TOKENIZER = tokenizer_for("".join([TEMPLATE, "<think></think><answer></answer><thought></thought>", *WRITES.values()]))
END = TOKENIZER.convert_tokens_to_ids("<|end_of_turn|>")


class Forced(AdapterLogitsProcessor):
    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        def force(prompt: list[int], output: list[int], logits: torch.Tensor) -> torch.Tensor:
            asked, _, opening = TOKENIZER.decode(prompt).partition("<|assistant|>")
            text = WRITES[asked.split("format ")[1].split("<|")[0]]
            wanted = [*TOKENIZER(text.removeprefix(opening), add_special_tokens=False).input_ids, END]
            forced = torch.full_like(logits, float("-inf"))
            forced[wanted[min(len(output), len(wanted) - 1)]] = 0.0
            return forced

        return force
