"""Who calls: tokens of the database and SYNCLINE_SECRET_KEY, the roles they give, and what is said to others."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncline import tokens
from syncline.api.problems import Problem, request_id
from syncline.api.state import State, of_request
from syncline.tokens import ROLES, Found, Role

REMEMBERED = 3.0
"""Seconds that a token is not looked up again: a revoked one is let in no longer than that."""

_BEARER = HTTPBearer(scheme_name="Bearer", description="A token, or SYNCLINE_SECRET_KEY.", auto_error=False)
_HEADER = APIKeyHeader(name="x-sync-secret", scheme_name="x-sync-secret", description="The same.", auto_error=False)

_SENDING = "Send it as `Authorization: Bearer TOKEN` or as `x-sync-secret: TOKEN`; `syncline token create` makes one."


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is let in: a token's name, or SYNCLINE_SECRET_KEY, and its role."""

    name: str
    role: Role


def require(role: Role) -> Callable[..., Awaitable[Caller]]:
    """Return the dependency that lets callers of this role and above in; others get a problem 401 or 403."""

    async def authorize(
        request: Request, _: Annotated[object, Security(_BEARER)], __: Annotated[object, Security(_HEADER)]
    ) -> Caller:
        caller = await _identify(request)
        request.state.caller = caller.name
        request.state.is_token_proven = True
        if ROLES.index(caller.role) < ROLES.index(role):
            raise Problem(
                403,
                "forbidden",
                f"this needs the role {role}; this token's is {caller.role}",
                f"Use a token of the role {role}: `syncline token create NAME --role {role}`.",
                headers={"WWW-Authenticate": 'Bearer realm="syncline", error="insufficient_scope"'},
            )
        return caller

    return authorize


def presented(headers: Headers) -> str | None:
    """Return the secret that a request shows."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    given = credentials.strip() if scheme.lower() == "bearer" else ""
    return given or headers.get("x-sync-secret", "").strip() or None


class TokenExpiry:
    """Adds the header Syncline-Token-Expires to answers to a token that expires within 14 days."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_dated(message: Message) -> None:
            expires = scope.get("state", {}).get("token_expires")
            if expires and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Syncline-Token-Expires"] = expires
            await send(message)

        await self._app(scope, receive, send_dated)


async def _identify(request: Request) -> Caller:
    given = presented(request.headers)
    if given is None:
        raise _unauthorized("this needs a token", _SENDING)
    state = of_request(request)
    if _is_secret_key(given, state.settings.secret_key):
        return Caller("SYNCLINE_SECRET_KEY", "admin")
    parsed = tokens.parse(given)
    found = await _find(request, state, *parsed) if parsed else None
    if parsed is None or found is None or not found.is_secret(parsed[1]):
        # One answer, whether there is such a token or its secret is another.
        raise _unauthorized("the token is not known", "Check it; `syncline token list` shows the tokens there are.", "")
    if found.state != "live":
        said = f"the token {found.name} {'was revoked' if found.state == 'revoked' else 'has expired'}"
        raise _unauthorized(said, "Make a new one: `syncline token create`.", f"the token is {found.state}")
    if found.is_expiring and found.expires_at:
        request.state.token_expires = found.expires_at.isoformat(timespec="seconds")
    return Caller(found.name, found.role)


def _is_secret_key(given: str, key: str | None) -> bool:
    # Digests are of one length, so that not even that of the key shows.
    wanted = hashlib.sha256((key or "").encode()).digest()
    return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), wanted) and key is not None


async def _find(request: Request, state: State, token_id: int, secret: str) -> Found | None:
    """Return the token, as it was at most REMEMBERED seconds ago."""
    found, until = state.remembered_tokens.get(token_id, (None, 0.0))
    began = time.monotonic()
    if found is None or until < began:
        found = await run_in_threadpool(_look_up, state, request_id(request), token_id, secret)
        if found is not None:
            # Only what there is: what is not would fill the memory.
            state.remembered_tokens[token_id] = (found, began + REMEMBERED)
    return found


def _look_up(state: State, named: str | None, token_id: int, secret: str) -> Found | None:
    with state.connection(named) as connection:
        found = tokens.find_token(connection, token_id)
        if found and found.state == "live" and found.is_touch_due and found.is_secret(secret):
            tokens.touch_token(connection, token_id)
    return found


def _unauthorized(detail: str, hint: str, description: str | None = None) -> Problem:
    challenge = 'Bearer realm="syncline"'
    if description is not None:
        challenge += ', error="invalid_token"' + (f', error_description="{description}"' if description else "")
    return Problem(401, "unauthorized", detail, hint, headers={"WWW-Authenticate": challenge})
