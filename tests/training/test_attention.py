"""Attention by lengths against attention under a packed mask, on tiny models of real architectures."""

from typing import Any

import numpy as np
import pytest

from distillery.core.errors import ConfigError
from distillery.training.packed_dataset import collate, collate_with_lengths

LENGTHS = [[20, 25, 19], [40, 24]]
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
}
NARROW = {"sliding_window": 7, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "phi3": {},
    "olmo2": {},
    "gemma3_text": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "mistral": {"sliding_window": 7},
    "qwen2 with a window": NARROW,
    "gemma3_text with a window": NARROW,
}


def model_of(kind: str, attention: str):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import distillery.training.attention  # noqa: F401

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind.split()[0], **(SHAPE | KINDS.get(kind, {})))
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for parameter in model.parameters():  # fresh models are so near to zero that nothing would show
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def rows():
    """Two windows of three and two documents."""
    rng = np.random.default_rng(0)
    found = []
    for lengths in LENGTHS:
        ids = rng.integers(1, 128, sum(lengths))
        found.append({"input_ids": ids, "labels": ids, "position_ids": np.concatenate([np.arange(n) for n in lengths])})
    return found


def test_batches_carry_the_boundaries_of_documents():
    batch = collate_with_lengths(rows())
    assert batch["cu_seq_lens_q"].tolist() == [0, 20, 45, 64, 104, 128] == batch["cu_seq_lens_k"].tolist()
    assert str(batch["cu_seq_lens_q"].dtype) == "torch.int32"
    assert batch["max_length_q"] == batch["max_length_k"] == 40
    assert batch.keys() - collate(rows()).keys() == {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}


@pytest.mark.parametrize("batch_of", [collate, collate_with_lengths])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_equal_those_under_a_mask(kind, batch_of):
    masked, ours = model_of(kind, "sdpa"), model_of(kind, "varlen")
    losses = [masked(**collate(rows()), use_cache=False).loss, ours(**batch_of(rows()), use_cache=False).loss]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    pairs = zip(masked.parameters(), ours.parameters(), strict=True)
    assert max(float((one.grad - other.grad).abs().max()) for one, other in pairs) < 1e-4


def test_rows_without_positions_are_one_document_each():
    import torch

    masked, ours = model_of("llama", "sdpa"), model_of("llama", "varlen")
    ids = torch.tensor(np.stack([row["input_ids"] for row in rows()]))
    assert (masked(input_ids=ids).logits - ours(input_ids=ids).logits).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["bloom", "codegen", "llama4_text"])
def test_models_with_attention_of_another_kind_are_refused(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    from distillery.training.trainer import refuse_other_attention

    small = {"n_layer": 1, "n_embd": 32, "n_head": 2, "rotary_dim": 8, "n_positions": 64}
    shape = SHAPE | {"num_local_experts": 2} if kind == "llama4_text" else {"vocab_size": 64, "hidden_size": 32} | small
    with pytest.raises(ConfigError, match=f"train.attention: varlen is not for {kind}"):
        refuse_other_attention(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)))
    refuse_other_attention(model_of("llama", "sdpa"))


def test_values_may_be_of_another_width_than_queries():
    import torch

    from distillery.training.attention import varlen

    query, key, value = (torch.ones(1, 2, 6, size) for size in (8, 8, 4))
    assert varlen(None, query, key, value, None, position_ids=torch.arange(6)[None])[0].shape == (1, 6, 2, 4)


def test_what_it_cannot_compute_is_refused():
    model = model_of("gemma2", "varlen")  # soft caps
    with pytest.raises(ConfigError, match="varlen has no attention sinks, soft caps or dropout"):
        model(**collate(rows()), use_cache=False)
