"""transformers' Trainer over packed windows: the part of a training that determines its weights.

A hash of this file is in the identity of every training (`distillery.training.store`): what does not change the weights
(progress, figures, messages) belongs into the worker, so that no finished training is repeated for it.
"""

from pathlib import Path
from typing import Any

from distillery.core.chat_template import ChatTemplate
from distillery.core.model_locks import Lock
from distillery.training.config import Train
from distillery.training.launch import on_cpu
from distillery.training.packed_dataset import Windows, accumulation, collate


def trainer_arguments(settings: Train, output: Path, ranks: int, seed: int) -> Any:
    from transformers import TrainingArguments

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
        deepspeed=settings.deepspeed,
        save_steps=settings.checkpoint_every,
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


def base_model(settings: Train, base: Lock) -> Any:
    """The model that every student starts from, without a KV cache, which training does not need."""
    from transformers import AutoModelForCausalLM

    chosen = {"dtype": settings.dtype, "attn_implementation": settings.attention}
    model = AutoModelForCausalLM.from_pretrained(base.id, revision=base.hub_revision, **chosen)
    model.config.use_cache = False
    return model


def trainer_of(settings: Train, base: Lock, windows: Windows, chosen: Any, callbacks: list[Any]) -> Any:
    """The Trainer, printing nothing of its own."""
    from transformers import PrinterCallback, Trainer

    model = base_model(settings, base)
    trainer = Trainer(model=model, args=chosen, train_dataset=windows, data_collator=collate, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    return trainer


def save(trainer: Any, base: Lock, folder: Path) -> None:
    """Saves the student, with the token that ends a turn as its EOS token. Every rank calls it: ZeRO 3 gathers."""
    from transformers import AutoTokenizer

    config, tokenizer = trainer.model.config, AutoTokenizer.from_pretrained(base.id, revision=base.hub_revision)
    if base.template_text is not None:
        tokenizer.chat_template = base.template_text
    tokenizer.eos_token = ChatTemplate(tokenizer, arguments=base.template_arguments).end_of_turn
    config.use_cache = True
    config.eos_token_id = trainer.model.generation_config.eos_token_id = tokenizer.eos_token_id
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(folder)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle with absolute paths in it
