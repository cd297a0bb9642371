"""Training throughput: tokens and FLOPs per second, model FLOPs utilization (MFU), and memory.

FLOPs are 6 per active parameter and token (4 where it is not trained), and per token 12 x layers x width x half the
document's length for attention, whose width is heads x head size (Chowdhery et al., arXiv 2204.02311, appendix B, causal);
MFU is of a GPU's dense bfloat16 peak.
"""

import resource
from typing import Any

import numpy as np

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
PEAKS = {"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


def active_parameters(model: Any, trained: bool = False) -> int:
    """Parameters that a token passes through: of experts, only as many as are chosen for it; or those ``trained`` of them."""
    counted = {name: each for name, each in model.named_parameters() if each.requires_grad or not trained}
    total = sum(size_of(each) for each in counted.values())
    experts = sum(size_of(each) for name, each in counted.items() if ".experts." in name)
    if not experts:
        return total
    text = model.config.get_text_config()
    count = next(getattr(text, name) for name in EXPERTS if hasattr(text, name))
    return total - experts + experts * int(text.num_experts_per_tok) // int(count)


def size_of(parameter: Any) -> int:
    """Its elements, on all ranks together under ZeRO 3."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def attention_width(config: Any) -> int:
    """Heads times head size; 0 for a model without attention."""
    text = config.get_text_config()
    heads = int(getattr(text, "num_attention_heads", None) or 0)
    return heads * int(getattr(text, "head_dim", None) or text.hidden_size // heads) if heads else 0


def flops(parameters: int, trained: int, layers: int, width: int, positions: np.ndarray) -> float:
    """The operations of one forward and backward pass over windows, given their position ids (windows, window).

    ``trained``: how many of the active parameters are trained.
    """
    tokens, attended = positions.size, float(positions.sum(dtype=np.float64) + positions.size)
    return (4.0 * parameters + 2.0 * trained) * tokens + 12.0 * layers * width * attended


def peak_flops() -> float | None:
    """This GPU's dense bfloat16 operations per second, None where unknown."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for model, peak in PEAKS.items() if model in name), None)


def peak_memory() -> float:
    """The most memory that this rank held, in MiB: the GPU's where there is one."""
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def throughput(tokens: float, operations: float, seconds: float, ranks: int) -> dict[str, Any]:
    """Throughput of all ``ranks`` together; MFU is None where the GPU's peak is unknown."""
    seconds, peak = max(seconds, 1e-9), peak_flops()
    return {
        "tokens_per_second": round(tokens / seconds, 1),
        "flops_per_second": float(f"{operations / seconds:.4g}"),
        "mfu": round(operations / seconds / ranks / peak, 4) if peak else None,
    }
