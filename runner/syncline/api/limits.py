"""What a caller may send: how much, how often, and from which pages of a browser."""

from __future__ import annotations

import hashlib
import math
import re
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncline.api.auth import TokenExpiry, presented
from syncline.api.problems import Problem
from syncline.api.settings import ApiSettings

COUNTED = 10_000
"""The most addresses, and tokens, that are counted at a time; the one that was silent longest goes first."""

PIECE = 256 * 1024
"""Bytes that are unpacked at a time: a small body may hold a huge one."""

_PUSH = re.compile(r".*/api/v1/streams/[^/]+/[^/]+/records")


def install(app: FastAPI, settings: ApiSettings) -> None:
    """Put the limits around the app: origins, then rates, then sizes."""
    # The one added last is asked first.
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(TokenExpiry)
    app.add_middleware(RateLimit, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["authorization", "x-sync-secret", "content-type", "x-request-id", "last-event-id"],
            expose_headers=["x-request-id", "location", "retry-after", "syncline-token-expires"],
        )


def too_large(limit: int, variable: str) -> Problem:
    return Problem(
        413,
        "too_large",
        f"the body is larger than {limit:,} bytes",
        f"Send less at a time, or raise {variable}.",
        # What still comes of the body is not read.
        headers={"Connection": "close"},
    )


class BodyLimit:
    """Refuses bodies that are too large: by their length where it is told, else as soon as more has come."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_push = scope["method"] == "POST" and _PUSH.fullmatch(scope["path"]) is not None
        limit = self._settings.max_push if is_push else self._settings.max_body
        problem = too_large(limit, "SYNCLINE_MAX_PUSH" if is_push else "SYNCLINE_MAX_BODY")
        answer = problem.response(scope.get("state", {}).get("request_id"))
        told = Headers(scope=scope).get("content-length", "")
        if told.isdecimal() and int(told) > limit:
            await answer(scope, receive, send)
            return
        received, has_answered = 0, False

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise problem
            return message

        async def send_once(message: Message) -> None:
            nonlocal has_answered
            # The app may make something else of the exception than what it says.
            if received <= limit or has_answered:
                has_answered = True
                await send(message)

        try:
            await self._app(scope, receive_limited, send_once)
        except Problem:
            if has_answered or received <= limit:
                raise
        if received > limit and not has_answered:
            await answer(scope, receive, send)


async def gunzip(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Yield what a gzipped body holds, in pieces; raise a problem 413 beyond the limit, 400 where it is not whole."""
    unpacked, inflate, is_open = 0, zlib.decompressobj(wbits=31), True
    async for chunk in chunks:
        rest = chunk
        while rest:
            if not is_open:
                # One file after another is one stream, as gzip itself has it.
                inflate, is_open = zlib.decompressobj(wbits=31), True
            try:
                piece = inflate.decompress(rest, PIECE)
            except zlib.error:
                raise _malformed("the body is no gzip") from None
            unpacked += len(piece)
            if unpacked > limit:
                raise too_large(limit, "SYNCLINE_MAX_PUSH")
            if piece:
                yield piece
            is_open = not inflate.eof
            rest = inflate.unconsumed_tail if is_open else inflate.unused_data
    if is_open:
        raise _malformed("the gzipped body was cut off")


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed", detail, "Send it again, whole, or without Content-Encoding.")


@dataclass(slots=True)
class Bucket:
    """So many a minute, as many at once; what is not used comes back with time."""

    size: int
    left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self._at = float(self.size), time.monotonic()

    def wait(self) -> float:
        """Return the seconds until one may be taken; 0 is now."""
        now = time.monotonic()
        self.left = min(self.size, self.left + (now - self._at) * self.size / 60)
        self._at = now
        return max(0.0, (1 - self.left) * 60 / self.size)

    def take(self) -> None:
        self.left -= 1


class RateLimit:
    """Counts requests by token, those without a proven one by address, and refused authorizations more strictly.

    A token is proven once it was let in: whoever makes tokens up is counted by address.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings
        self._proven: Buckets[bytes] = OrderedDict()
        self._addresses: Buckets[str] = OrderedDict()
        self._failures: Buckets[str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        token = _fingerprint(presented(Headers(scope=scope)))
        address = _address(scope)
        bucket = self._bucket(token, address)
        wait, wait_after_failures = bucket.wait() if bucket else 0, self._wait_after_failures(token, address)
        if max(wait, wait_after_failures) > 0:
            if wait_after_failures > wait:
                problem = _too_many_refused(wait_after_failures, self._settings.failure_limit)
            else:
                problem = _too_many(wait)
            answer = problem.response(scope.get("state", {}).get("request_id"))
            await answer(scope, receive, self._counted(send, bucket))
            return
        if bucket:
            bucket.take()

        async def send_learned(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._learn(scope, message["status"], token, address)
            await send(message)

        await self._app(scope, receive, self._counted(send_learned, bucket))

    def _bucket(self, token: bytes | None, address: str) -> Bucket | None:
        if not self._settings.rate_limit:
            return None
        if token and token in self._proven:
            return _of(self._proven, token, self._settings.rate_limit)
        return _of(self._addresses, address, self._settings.rate_limit)

    def _wait_after_failures(self, token: bytes | None, address: str) -> float:
        if token in self._proven or address not in self._failures:
            return 0
        return self._failures[address].wait()

    def _learn(self, scope: Scope, status: int, token: bytes | None, address: str) -> None:
        if status == 401:
            if token:
                self._proven.pop(token, None)
            if self._settings.failure_limit:
                _of(self._failures, address, self._settings.failure_limit).take()
        elif token and scope.get("state", {}).get("is_token_proven"):
            # A caller alone proves nothing: a signature names one too, whatever token came with it.
            _of(self._proven, token, self._settings.rate_limit or 1)

    def _counted(self, send: Send, bucket: Bucket | None) -> Send:
        """Tell what is left, in the headers that the IETF's draft has for it."""

        async def send_counted(message: Message) -> None:
            if bucket and message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = f'"requests";q={bucket.size};w=60'
                headers["RateLimit"] = f'"requests";r={max(0, int(bucket.left))};t={math.ceil(bucket.wait()) or 1}'
            await send(message)

        return send_counted


Who = TypeVar("Who", str, bytes)
Buckets = OrderedDict[Who, Bucket]


def _of(buckets: Buckets[Who], who: Who, size: int) -> Bucket:
    bucket = buckets.setdefault(who, Bucket(size))
    buckets.move_to_end(who)
    if len(buckets) > COUNTED:
        buckets.popitem(last=False)
    return bucket


def _fingerprint(secret: str | None) -> bytes | None:
    return hashlib.sha256(secret.encode()).digest() if secret else None


def _address(scope: Scope) -> str:
    host = scope["client"][0] if scope.get("client") else ""
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if not isinstance(found, IPv6Address):
        return host
    # One customer of a provider has as many as 2^64.
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))


def _too_many(wait: float) -> Problem:
    return _wait_problem("too many requests", wait, "SYNCLINE_RATE_LIMIT is how many a minute are taken.")


def _too_many_refused(wait: float, limit: int) -> Problem:
    return _wait_problem(
        "too many refused authorizations from this address",
        wait,
        f"so many a minute are taken from one address: {limit}. Check the token, or the signature.",
    )


def _wait_problem(detail: str, wait: float, hint: str) -> Problem:
    seconds = max(1, math.ceil(wait))
    headers = {"Retry-After": str(seconds)}
    return Problem(429, "too_many", detail, f"Ask again in {seconds} s; {hint}", headers=headers)
