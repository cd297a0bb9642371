"""transformers' Trainer over packed windows: the part of a training that determines its weights.

A hash of this file is in the identity of every training (`distillery.training.store`): what does not change the weights
(progress, figures, messages) belongs into the worker, so that no finished training is repeated for it.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, Trainer, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from distillery.core.chat_template import ChatTemplate
from distillery.core.errors import ConfigError
from distillery.core.model_locks import Lock
from distillery.training import attention  # noqa: F401 (registers varlen)
from distillery.training.config import VARLEN, Lora, Train
from distillery.training.launch import on_cpu
from distillery.training.packed_dataset import IGNORED, Windows, accumulation, collate, collate_with_lengths

ADAPTERS = "adapters"


class StudentTrainer(Trainer):
    """transformers' Trainer, with its own way to share windows between ranks (DeepSpeed Ulysses).

    Every rank of a group reads the same windows and takes its part of them; the loss is the mean per target token, as without
    groups. transformers' own way loses one step per epoch after the first, cannot resume within an epoch, and takes the mean
    per window, whatever the number of its targets.
    """

    def __init__(self, shared: int, **rest: Any) -> None:
        """``shared``: ranks that share each window; 1: none do."""
        self.shared = shared
        super().__init__(**rest)
        self.groups, self.place = self.args.world_size // shared, self.args.process_index % shared
        if shared > 1:
            self.loss_is_scaled_for_ga = self.model_accepts_loss_kwargs = True
            self.accelerator.deepspeed_ulysses_dl_adapter = lambda loader, model: loader

    def get_sp_size(self) -> int:
        """1: for the Trainer's count of steps a group is one rank."""
        return 1

    def get_train_dataloader(self) -> Any:
        loader = super().get_train_dataloader()
        if self.shared > 1:
            sampler = loader.batch_sampler
            sampler.num_processes, sampler.process_index = self.groups, self.args.process_index // self.shared
        return loader

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        count = super()._get_num_items_in_batch(batch_samples, device)
        return count if count is None else count // self.shared

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if self.shared == 1:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**self.part_of(inputs), num_items_in_batch=num_items_in_batch)
        # DeepSpeed adds up the gradients of all ranks and divides them by the number of groups.
        loss = outputs.loss * self.groups
        return (loss, outputs) if return_outputs else loss

    def part_of(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """This rank's part of windows, each (rows, window / shared); its last target is the next part's first token."""
        targets = torch.nn.functional.pad(inputs["labels"], (0, 1), value=IGNORED)[:, 1:]
        whole = {name: inputs[name] for name in ("input_ids", "position_ids")} | {"labels": targets, "shift_labels": targets}
        return {name: tensor.chunk(self.shared, dim=1)[self.place].contiguous() for name, tensor in whole.items()}

    def training_step(self, *arguments: Any) -> Any:
        return super().training_step(*arguments) * self.shared  # the log takes the mean over all ranks


def trainer_arguments(settings: Train, deepspeed: dict[str, Any], output: Path, ranks: int, seed: int) -> Any:
    """``deepspeed``: the content of its configuration file. When to write a checkpoint is a callback's decision."""
    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=accumulation(settings, ranks),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        bf16=settings.dtype == "bfloat16",
        gradient_checkpointing=settings.gradient_checkpointing,
        deepspeed=deepspeed,
        parallelism_config=sequence_parallelism(settings, ranks) if settings.sequence_parallel > 1 else None,
        save_strategy="no",
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        use_liger_kernel=settings.liger,
        dataloader_drop_last=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        use_cpu=on_cpu(),
    )


def sequence_parallelism(settings: Train, ranks: int) -> Any:
    """accelerate's settings for DeepSpeed Ulysses."""
    from accelerate import ParallelismConfig
    from accelerate.utils import DeepSpeedSequenceParallelConfig

    handler = DeepSpeedSequenceParallelConfig(sp_seq_length_is_variable=True)
    handler.sp_attn_implementation = settings.attention  # given to the constructor, ours is an unknown name
    groups = ranks // settings.sequence_parallel
    return ParallelismConfig(
        sp_backend="deepspeed", sp_size=settings.sequence_parallel, sp_handler=handler, dp_replicate_size=groups
    )


def base_model(settings: Train, base: Lock) -> Any:
    """The model that every student starts from, without a KV cache, which training does not need."""
    chosen = {"dtype": settings.dtype, "attn_implementation": settings.attention}
    model = AutoModelForCausalLM.from_pretrained(base.id, revision=base.hub_revision, **chosen)
    model.config.use_cache = False
    if settings.attention == VARLEN:
        refuse_other_attention(model)
    return with_adapters(model, settings.lora) if settings.lora else model


def refuse_other_attention(model: Any) -> None:
    """Raises ConfigError for a model that needs more than causal attention to its document or a window of it."""
    text = model.config.get_text_config()
    chunked = "chunked_attention" in (getattr(text, "layer_types", None) or ()) or getattr(text, "attention_chunk_size", None)
    if chunked or not model._supports_attention_backend:
        why = f"varlen is not for {text.model_type}, whose attention is of another kind; take sdpa"
        raise ConfigError(f"params.yaml: train.attention: {why}")


def with_adapters(model: Any, lora: Lora) -> Any:
    """The model with peft's adapters, of which alone are trained. Raises ConfigError where no module has such a name."""
    from peft import LoraConfig, get_peft_model

    chosen = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, chosen)
    except (ValueError, re.error) as error:
        raise ConfigError(f"params.yaml: train.lora.targets: {error}") from None
    ends = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, _ in adapted.named_parameters() if ".lora_" in name}
    if model.config.tie_word_embeddings and ends & {"lm_head", "embed_tokens"}:
        raise ConfigError("params.yaml: train.lora.targets: head and embeddings are one tensor in this base; leave them out")
    return adapted


def trainer_of(settings: Train, base: Lock, windows: Windows, chosen: Any, callbacks: list[Any]) -> StudentTrainer:
    """The Trainer, printing nothing of its own."""
    collator = collate_with_lengths if settings.attends_by_lengths and settings.sequence_parallel == 1 else collate
    model = base_model(settings, base)
    about = {"model": model, "args": chosen, "train_dataset": windows, "data_collator": collator, "callbacks": callbacks}
    trainer = StudentTrainer(settings.sequence_parallel, **about)
    trainer.remove_callback(PrinterCallback)
    return trainer


def save(trainer: StudentTrainer, settings: Train, base: Lock, folder: Path) -> None:
    """Saves the student, with the token that ends a turn as its EOS token. Every rank calls it: ZeRO 3 gathers."""
    tokenizer = AutoTokenizer.from_pretrained(base.id, revision=base.hub_revision)
    if base.template_text is not None:
        tokenizer.chat_template = base.template_text
    tokenizer.eos_token = ChatTemplate(tokenizer, arguments=base.template_arguments).end_of_turn
    if settings.lora is None:
        prepare_for_use(trainer.model, tokenizer)
        trainer.save_model(str(folder))
    else:
        trainer.save_model(str(folder / ADAPTERS))
    if trainer.is_world_process_zero():
        if settings.lora is not None:
            save_merged(settings, base, tokenizer, folder)
        tokenizer.save_pretrained(folder)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle with absolute paths in it


def prepare_for_use(model: Any, tokenizer: Any) -> None:
    """Switches the KV cache on again; generation ends where the tokenizer's EOS token is."""
    model.config.use_cache = True
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id


def save_merged(settings: Train, base: Lock, tokenizer: Any, folder: Path) -> None:
    """Adds the trained adapters to the base's weights, in main memory, and saves the sum as an ordinary checkpoint."""
    from peft import PeftModel

    unset_hf_deepspeed_config()  # under ZeRO 3 loading would wait for the other ranks
    model = AutoModelForCausalLM.from_pretrained(base.id, revision=base.hub_revision, dtype=settings.dtype)
    merged = PeftModel.from_pretrained(model, folder / ADAPTERS).merge_and_unload()
    prepare_for_use(merged, tokenizer)
    merged.save_pretrained(folder)
    shutil.rmtree(folder / ADAPTERS)
