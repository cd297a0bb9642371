"""Starts the engine that a setting asks for."""

from functools import partial

from stages.engines import Engine, ServerSettings, VllmSettings
from stages.locks import Lock


def start(lock: Lock, settings: VllmSettings | ServerSettings, beside: bool = False) -> Engine:
    """The engine of a model. ``beside`` another engine, a model is loaded in a process of its own."""
    if isinstance(settings, ServerSettings):
        from stages.engines.server import ServerEngine

        return ServerEngine(settings)
    copies, devices = settings.data_parallel_size, settings.tensor_parallel_size * settings.pipeline_parallel_size
    if copies == 1 and not beside:
        return load(lock, settings)
    from stages.engines.apart import ApartEngine

    return ApartEngine(partial(load, lock, settings), copies, devices if copies > 1 else None)


def load(lock: Lock, settings: VllmSettings) -> Engine:
    """The model in this process."""
    from stages.engines.vllm import VllmEngine

    return VllmEngine(lock.id, lock.hub_revision, settings)
