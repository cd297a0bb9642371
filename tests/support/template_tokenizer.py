"""Tokenizers in the shape of real ones: byte-level, with the special tokens that a chat template writes."""

import re

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = re.compile(r"<[|｜][^|｜<>\s{}']+[|｜]>|</?s>|<(?:start|end)_of_turn>|<eos>|<bos>|\[/?(?:INST|SYSTEM_PROMPT|THINK)\]")
BOS, EOS = "<|test_bos|>", "<|test_eos|>"


def tokenizer_for(template: str) -> PreTrainedTokenizerFast:
    """No merges: every byte is a token. Special tokens are special in the tokenizer's file alone, as in Llama 3."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(each, normalized=False) for each in sorted({BOS, EOS, *SPECIAL.findall(template)})])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)
    made.chat_template = template
    return made
