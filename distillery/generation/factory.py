"""Starts the engine that a setting asks for."""

from functools import partial

from distillery.core.model_locks import Lock
from distillery.generation.config import ServerSettings, VllmSettings
from distillery.generation.engine import Engine


def start(lock: Lock, settings: VllmSettings | ServerSettings, in_subprocess: bool = False) -> Engine:
    """The engine of a model; with ``in_subprocess``, even a single copy runs in a process of its own."""
    if isinstance(settings, ServerSettings):
        from distillery.generation.openai_engine import ServerEngine

        return ServerEngine(settings)
    copies, devices = settings.data_parallel_size, settings.tensor_parallel_size * settings.pipeline_parallel_size
    if copies == 1 and not in_subprocess:
        return load(lock, settings)
    from distillery.generation.subprocess_engine import SubprocessEngine

    return SubprocessEngine(partial(load, lock, settings), copies, devices if copies > 1 else None)


def load(lock: Lock, settings: VllmSettings) -> Engine:
    """The model in this process."""
    from distillery.generation.vllm_engine import VllmEngine

    return VllmEngine(lock.id, lock.hub_revision, settings)
