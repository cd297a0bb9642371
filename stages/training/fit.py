"""``python -m stages.training.fit TEACHER`` is what every rank of a training runs, started by the train stage."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stages import locks, params, provenance
from stages.locks import Lock
from stages.messages import end_of_turn
from stages.processes import die_with_parent
from stages.provenance import device, say
from stages.throughput import flops, peak_memory, throughput
from stages.training import Train, accumulation, checkpoints_of, last_whole, on_cpu, step_of
from stages.training.watch import Watcher, live, write_curve
from stages.training.windows import Windows, collate

PACKAGES = ("torch", "transformers", "deepspeed", "accelerate")


def arguments(settings: Train, output: Path, ranks: int, seed: int) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=accumulation(settings, ranks),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
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
    """The model that every student starts from, without a cache of keys and values, which training has no use for."""
    from transformers import AutoModelForCausalLM

    chosen = {"dtype": settings.dtype, "attn_implementation": settings.attention}
    model = AutoModelForCausalLM.from_pretrained(base.id, revision=base.hub_revision, **chosen)
    model.config.use_cache = False
    return model


def trainer_of(settings: Train, base: Lock, windows: Windows, chosen: Any, callbacks: list[Any]) -> Any:
    """transformers' Trainer over the windows, printing nothing of its own."""
    from transformers import PrinterCallback, Trainer

    model = base_model(settings, base)
    trainer = Trainer(model=model, args=chosen, train_dataset=windows, data_collator=collate, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    return trainer


def figures(model: Any, windows: Windows, settings: Train, trained: float, seconds: float, ranks: int) -> dict[str, Any]:
    """Tokens, throughput and memory of a run that did the share ``trained`` of all steps, the rest being an earlier run's."""
    size = sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())
    tokens = windows.ids.size * settings.epochs
    a_pass = flops(size, model.config.num_hidden_layers, model.config.hidden_size, windows.positions)
    return {
        "tokens": tokens,
        "target_share": round(float(np.mean(windows.targets)), 4),
        **throughput(tokens * trained, a_pass * settings.epochs * trained, seconds, ranks),
        "peak_memory_mib": peak_memory(),
    }


def save(trainer: Any, base: Lock, output: Path) -> None:
    """The student, with the token that ends a turn as its end, and its loss curve. Every rank calls it: ZeRO 3 gathers."""
    from transformers import AutoTokenizer

    config, tokenizer = trainer.model.config, AutoTokenizer.from_pretrained(base.id, revision=base.hub_revision)
    tokenizer.eos_token = end_of_turn(tokenizer)
    config.use_cache = True
    config.eos_token_id = trainer.model.generation_config.eos_token_id = tokenizer.eos_token_id
    trainer.save_model(str(output / "student"))
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(output / "student")
        write_curve(trainer.state.log_history, output / "loss.csv")


def fit(teacher: str, settings: Train) -> None:
    """Trains; the first rank saves the student, its loss curve and the run's figures among the checkpoints."""
    import deepspeed
    import torch
    from transformers import set_seed

    seed, base = params.load(int, "seed"), locks.read("base")
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    output = checkpoints_of(teacher, settings, base, seed)
    resume = last_whole(output)
    set_seed(seed)
    deepspeed.init_distributed()  # ZeRO 3 counts the ranks while it loads the model
    windows, watcher = Windows(Path(f"data/packed/{teacher}"), settings.global_batch), Watcher(teacher)
    callbacks = [watcher, *([live(teacher, bool(resume))] if rank == 0 else [])]
    trainer = trainer_of(settings, base, windows, arguments(settings, output, ranks, seed), callbacks)
    with provenance.record(output / f"run-{rank}.json", *PACKAGES, device=device()) as metrics:
        if resume and rank == 0:
            say(f"train@{teacher}", f"going on from {resume.name}")
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        steps = trainer.state.global_step
        metrics.update(steps=steps, ranks=ranks, resumed=bool(resume), windows=len(windows.ids))
        trained = 1 - step_of(resume) / steps if resume else 1.0
        metrics.update(figures(trainer.model, windows, settings, trained, watcher.seconds, ranks))
        metrics["provenance"] = {"models": locks.brief(base)}
    save(trainer, base, output)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def leave() -> None:
    """Ends a rank whose work is on disk, at once: torn down bit by bit, libraries' threads now and then abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main(teacher: str) -> None:
    die_with_parent()
    fit(teacher, params.load(Train, "train"))
    leave()


if __name__ == "__main__":
    provenance.run(main)
