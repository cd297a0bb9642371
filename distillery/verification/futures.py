"""Chained futures, so that verifiers can wait for each other without blocking."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def done(value: A) -> "Future[A]":
    """A future that holds its value already."""
    future: Future[A] = Future()
    future.set_result(value)
    return future


def then(first: "Future[A]", follow: "Callable[[A], B | Future[B]]") -> "Future[B]":
    """The future of ``follow`` applied to another's value; it may return a value or a future."""
    out: Future[B] = Future()

    def settle(earlier: "Future[A]") -> None:
        try:
            value = follow(earlier.result())
        except BaseException as error:
            out.set_exception(error)
            return
        if isinstance(value, Future):
            value.add_done_callback(copy)
        else:
            out.set_result(value)

    def copy(later: "Future[B]") -> None:
        error = later.exception()
        if error is None:
            out.set_result(later.result())
        else:
            out.set_exception(error)

    first.add_done_callback(settle)
    return out
