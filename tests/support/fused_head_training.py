"""`distillery.training.worker` for a model whose loss reads the head's weight itself, as fused losses such as Liger's do.

Run by torchrun: -m tests.support.fused_head_training ARM SEEDS.
"""

from typing import Any

import torch
from transformers import Qwen3ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from distillery.core.stage import run_stage
from distillery.training import worker


def forward(self: Any, input_ids: Any, labels: Any = None, num_items_in_batch: Any = None, **more: Any) -> Any:
    """The loss without a call of the head: under ZeRO 3 nothing gathers its weight but the model itself."""
    hidden = self.model(input_ids=input_ids, **more).last_hidden_state
    logits = torch.nn.functional.linear(hidden, self.lm_head.weight)
    loss = None
    if labels is not None:
        targets = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
        loss = losses / num_items_in_batch
    return CausalLMOutputWithPast(loss=loss, logits=logits)


if __name__ == "__main__":
    Qwen3ForCausalLM.forward = forward
    run_stage(worker.main)
