"""Batches for a model: rows of similar length, padded on the right, prepared ahead; and the devices that its copies run on."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


def one_ahead(prepare: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """``prepare(item)`` of each item in order; the next one is prepared in a thread while the caller works on the last."""
    coming: Future[U] | None = None
    with ThreadPoolExecutor(1) as pool:
        for item in items:
            following = pool.submit(prepare, item)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()


def by_length(lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Indices grouped by similar length, each group's padded size within ``batch_tokens``, or a single row."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not groups or (len(groups[-1]) + 1) * lengths[i] > batch_tokens:
            groups.append([])
        groups[-1].append(i)
    return groups


def padded(rows: list[list[int]], pad: int, device: Any) -> tuple[Any, Any]:
    """Token ids and attention mask of rows, both (rows, longest), on ``device``."""
    import torch

    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, mask


def devices() -> list[str]:
    """Every GPU, or else the CPU."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
