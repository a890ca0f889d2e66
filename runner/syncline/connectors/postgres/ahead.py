"""Reads ahead in a thread of its own, so that waiting for the source and working on its records go on together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 4
"""Items that wait at most: memory stays flat."""


class _End(Generic[T]):
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def read_ahead(start: Callable[[threading.Event], Iterator[T]]) -> Iterator[T]:
    """Yield what the iterator yields that `start` returns; it runs in the thread, and ends soon after the event is set.

    What it raises is raised here. When this generator is closed, the thread has ended.
    """
    stopped = threading.Event()
    items: queue.Queue[T | _End[T]] = queue.Queue(DEPTH)

    def hand_over(item: T | _End[T]) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                items.put(item, timeout=0.2)
                return

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in start(stopped):
                hand_over(item)
                if stopped.is_set():
                    return
        except BaseException as raised:
            error = raised
        hand_over(_End(error))

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()
