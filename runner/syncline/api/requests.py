"""Gives every request an id, logs one line for it, and answers what nobody foresaw without a word of it."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import anyio
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncline.api import problems

DISCARDED_SECONDS, DISCARDED_BYTES = 2.0, 16 << 20
"""So much of a body that was refused is still taken."""

_SANE = re.compile(r"[\x21-\x7e]{1,100}")

_log = structlog.get_logger("syncline.api")


class RequestLog:
    """The outermost layer: header X-Request-Id, `request.state.request_id`, a log line, and the last resort."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SANE.fullmatch(given) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0
        body = _Body(receive)

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            elif status >= 400 and not message.get("more_body") and "expect" not in headers:
                await body.discard()
            await send(message)

        try:
            await self._app(scope, body.receive, send_named)
        except Exception as error:
            _log.error("request_failed", request_id=request_id, exc_info=error)
            if status:
                return  # the server sees that the answer is not whole, and cuts the connection
            answer = problems.defect().response(request_id)
            await answer(scope, receive, send_named)
        finally:
            _log.info("request", **_line(scope, status, began))


class _Body:
    """A request's body. Where the answer comes before its end, what still arrives has to be taken from the connection.

    Else that is reset when it is closed, and many a sender never sees why its body was refused.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_whole = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_whole = not message.get("more_body")
        return message

    async def discard(self) -> None:
        """Read what still comes, within reason."""
        size = 0
        with anyio.move_on_after(DISCARDED_SECONDS):
            while not self._is_whole and size < DISCARDED_BYTES:
                size += len((await self.receive()).get("body", b""))


def _line(scope: Scope, status: int, began: float) -> dict[str, Any]:
    route = scope.get("route")
    return {
        "method": scope["method"],
        # Never the path itself nor its query: they may hold what is secret.
        "route": getattr(route, "path", None) or "unknown",
        "status": status,
        "ms": round((time.perf_counter() - began) * 1000, 1),
        "request_id": scope["state"]["request_id"],
        "caller": scope["state"].get("caller"),
    }
