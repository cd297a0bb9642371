"""A tiny base, and its training that nothing disturbs."""

import pytest

from mini.judge_data import prompts
from mini.tokenizer import build
from tests.support.training_runs import VOCABULARY, WINDOW, finished, prepare


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "head_dim": 16,
        "max_position_embeddings": WINDOW,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=VOCABULARY, **shape, **heads)).save_pretrained(folder)
    build("", prompts()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("plain"), base)
    finished(folder)
    return folder
