"""Bounds how many requests of a kind go on at once: those that last hold more than a moment's worth."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from syncline.api.problems import RETRY_AFTER, Problem


class Slots:
    """So many at once, and no more: who comes then is told to come again."""

    def __init__(self, count: int, what: str) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._count = count
        self._what = what

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a slot until the block ends; raises a problem 503 where none is free."""
        self._acquire()
        try:
            yield
        finally:
            self._free.release()

    def held_by(self, response: Response) -> Response:
        """Let the answer hold a slot until it is sent, or cut off; raises a problem 503 where none is free."""
        self._acquire()
        return _Holder(response, self._free)

    def _acquire(self) -> None:
        if not self._free.acquire(blocking=False):
            raise Problem(
                503,
                "busy",
                f"{self._count} {self._what} are under way, and no more are taken",
                "Try again in a moment.",
                headers={"Retry-After": str(RETRY_AFTER)},
            )


class _Holder(Response):
    """Sends another answer, then gives its slot back."""

    def __init__(self, response: Response, slot: threading.BoundedSemaphore) -> None:
        super().__init__()
        self._response = response
        self._slot = slot
        self.background = response.background
        self.status_code = response.status_code
        self.raw_headers = response.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._response(scope, receive, send)
        finally:
            self._slot.release()
