"""Training configuration."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from distillery.core.config import NonNegative, NonNegativeFloat, Positive, Section

VARLEN = "varlen"


@dataclass(frozen=True)
class Lora(Section):
    """Low-rank adapters (arXiv 2106.09685) in place of full fine-tuning; the student is saved with them merged in."""

    rank: Positive
    """The adapters' rank."""
    alpha: Positive
    """Their scale: alpha / rank."""
    dropout: Annotated[float, Ge(0), Lt(1)]
    """The share of an adapter's inputs that is dropped."""
    targets: Annotated[str, MinLen(1)] | Annotated[list[str], MinLen(1)]
    """The modules that get one, by name, as a pattern, or ``all-linear``."""


@dataclass(frozen=True)
class Train(Section):
    """How every student is trained. `distillery.training.store` says which of these settings change a training's identity."""

    processes: Positive
    """Ranks per machine: GPUs, or processes where there is none."""
    deepspeed: str
    """DeepSpeed's configuration file, which chooses the ZeRO stage and offloading."""
    dtype: Literal["float32", "bfloat16"]
    """The model's data type; gradients are accumulated in float32 either way."""
    learning_rate: Annotated[float, Gt(0), Le(1)]
    """The peak, reached after warm-up; decays to 0 by a cosine."""
    warmup: Annotated[float, Ge(0), Lt(1)]
    """The share of steps during which the learning rate rises."""
    epochs: Positive
    """Passes over the data."""
    seeds: Annotated[tuple[NonNegative, ...], MinLen(1)]
    """One student per arm for each: its order of the data, dropout and adapters. With several, comparisons count
    the variance between them; another one trains one more student per arm."""
    global_batch: Positive
    """Windows per optimizer step, whatever the number of ranks."""
    micro_batch: Positive
    """Windows per forward pass of one rank; 1 with flash attention."""
    weight_decay: Annotated[float, Ge(0), Le(1)]
    """AdamW's weight decay."""
    max_grad_norm: NonNegativeFloat
    """The norm that gradients are clipped to; 0: no clipping, and the same weights on every CPU (`core.cpu_kernels`)."""
    gradient_checkpointing: bool
    """Whether activations are computed again in the backward pass, which takes a third more time and much less memory."""
    checkpoint_minutes: NonNegativeFloat
    """Minutes between checkpoints; 0: one after every step. The last two are kept until the training is finished."""
    attention: str
    """``varlen`` (`distillery.training.attention`), or transformers' own: ``sdpa``, ``flash_attention_2``, ..."""
    liger: bool
    """Whether Liger's fused kernels are used."""
    sequence_parallel: Positive
    """Ranks that share each window (DeepSpeed Ulysses, arXiv 2309.14509), for windows too long for one GPU; 1: none."""
    lora: Lora | None
    """Low-rank adapters; null: every weight is trained."""
    report_to: Literal["wandb", "mlflow", "trackio"] | None
    """A tracker that shows the training as well, beside DVCLive; it must be installed."""
    hostfile: str | None
    """DeepSpeed's list of machines; null to train on this one."""
    packed: bool
    """Whether windows hold several documents; without, each holds one, for models whose documents see each other."""
    system_prompt: str | None
    """What every prompt trained on opens with; ``pipeline``: the pipeline's own; null: nothing, as in the study."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: must differ, got {list(self.seeds)}")

    @property
    def attends_by_lengths(self) -> bool:
        """Whether attention keeps documents apart by their lengths, and not by a mask."""
        return self.attention == VARLEN or "flash" in self.attention
