"""Whether documents in one window see each other, on tiny models of real architectures."""

import numpy as np
import pytest

from distillery.core.errors import DataError
from distillery.training.leakage import DOCUMENTS, TOKENS, TOLERANCE, LeakageCheck, difference, pieces
from distillery.training.packed_dataset import Windows

SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "pad_token_id": 0,
}


def model_of(kind: str, **more):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SHAPE | {"num_hidden_layers": 2} | more)))
    for parameter in model.parameters():  # fresh models are so near to zero that nothing would show
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def windows(tmp_path):
    """Two windows of three and two documents."""
    rng = np.random.default_rng(0)
    lengths = [[20, 25, 19], [40, 24]]
    positions = np.array([np.concatenate([np.arange(n) for n in row]) for row in lengths], np.uint16)
    np.save(tmp_path / "ids.npy", rng.integers(1, 128, positions.shape).astype(np.uint16))
    np.save(tmp_path / "targets.npy", np.ones(positions.shape, bool))
    np.save(tmp_path / "positions.npy", positions)
    return Windows(tmp_path, 1)


def test_the_first_documents_are_compared(windows, monkeypatch):
    assert [len(each["input_ids"]) for each in pieces(windows)] == [20, 25, 19]
    monkeypatch.setattr("distillery.training.leakage.DOCUMENTS", 4)
    monkeypatch.setattr("distillery.training.leakage.TOKENS", 22)
    assert [len(each["input_ids"]) for each in pieces(windows)] == [20, 22, 19, 22]
    assert DOCUMENTS * TOKENS <= 2048, "seconds, whatever the model"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "phi3", "gemma2", "olmo2", "qwen3_moe"])
def test_documents_of_attention_models_do_not_see_each_other(windows, kind):
    moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32} if kind == "qwen3_moe" else {}
    assert difference(model_of(kind, **moe), pieces(windows)) < 1e-5


@pytest.mark.parametrize(("found", "refused"), [(1e-3, False), (1.1e-3, True), (float("nan"), False)])
def test_only_what_exceeds_the_tolerance_is_refused(windows, monkeypatch, found, refused):
    monkeypatch.setattr("distillery.training.leakage.difference", lambda *_: found)
    model = model_of("llama")
    if refused:
        with pytest.raises(DataError, match="see each other"):
            LeakageCheck(windows, "float32").on_train_begin(None, None, None, model=model)
    else:
        LeakageCheck(windows, "float32").on_train_begin(None, None, None, model=model)
        assert not model.training


MAMBA = {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1}
SINKS = {"num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(("kind", "more"), [("mamba2", MAMBA), ("gpt_oss", SINKS)])
def test_a_model_whose_documents_see_each_other_is_refused(windows, kind, more):
    """A state along the sequence; attention with sinks."""
    model = model_of(kind, **more)
    assert difference(model, pieces(windows)) > TOLERANCE["float32"]
    with pytest.raises(DataError, match=r"see each other in this model: .* set train\.packed to false"):
        LeakageCheck(windows, "float32").on_train_begin(None, None, None, model=model)
