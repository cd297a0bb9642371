"""Starts the engine that a setting asks for."""

from dataclasses import replace
from functools import partial

from distillery.core.model_locks import Lock
from distillery.generation.config import ServerSettings, VllmSettings
from distillery.generation.engine import Engine

CHANGES_ANSWERS = ("quantization", "kv_cache_dtype", "hf_overrides", "rope_scaling", "enable_lora")
"""vLLM's arguments that make another model of the same weights; parallelism, memory and speculation do not."""


def start(lock: Lock, settings: VllmSettings | ServerSettings, in_subprocess: bool = False) -> Engine:
    """The engine of a model; with ``in_subprocess``, even a single copy runs in a process of its own."""
    if isinstance(settings, ServerSettings):
        from distillery.generation.openai_engine import ServerEngine

        return ServerEngine(settings, lock)
    copies, devices = settings.data_parallel_size, settings.tensor_parallel_size * settings.pipeline_parallel_size
    if copies == 1 and not in_subprocess:
        return load(lock, settings)
    from distillery.generation.subprocess_engine import SubprocessEngine

    return SubprocessEngine(partial(load, lock, settings), copies, devices if copies > 1 else None)


def as_served(lock: Lock, settings: VllmSettings | ServerSettings) -> Lock:
    """The lock with what the engine's settings change about the answers, so that it is part of their keys."""
    if isinstance(settings, ServerSettings):
        return replace(lock, served=settings.extra_body | ({} if settings.system_role else {"system_role": False}))
    return replace(lock, served={name: settings.arguments[name] for name in CHANGES_ANSWERS if name in settings.arguments})


def load(lock: Lock, settings: VllmSettings) -> Engine:
    """The model in this process."""
    from distillery.generation.vllm_engine import VllmEngine

    return VllmEngine(lock, settings)
