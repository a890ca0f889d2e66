"""Tokens of the API: made, listed, revoked, and told apart without their secrets being kept anywhere."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from syncline import db
from syncline.db import Connection
from syncline.errors import ConfigurationError

Role = Literal["viewer", "operator", "admin"]

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
"""From the least to the most: each may do what those before it may."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_TOKEN = re.compile(r"sync_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})")

_CHALLENGE = secrets.token_bytes(32)
"""Of this process: what the database proves is of no use elsewhere."""


@dataclass(frozen=True, slots=True)
class Created:
    """A new token, with its secret: it is shown once and cannot be had again."""

    token_id: int
    token: str
    expires_at: datetime | None
    replaced_until: datetime | None


@dataclass(frozen=True, slots=True)
class Found:
    """A token as the database knows it, without its secret. `proof` tells whether a secret is its own."""

    token_id: int
    name: str
    role: Role
    state: Literal["live", "expired", "revoked"]
    expires_at: datetime | None
    is_expiring: bool
    is_touch_due: bool
    proof: bytes

    def is_secret(self, secret: str) -> bool:
        """Return whether this is the token's secret, in the same time whatever it is."""
        return hmac.compare_digest(self.proof, _prove(secret))


def create_token(
    connection: Connection,
    name: str,
    role: Role,
    *,
    expires_in: timedelta | None = None,
    replaces: str | None = None,
    overlap: timedelta = timedelta(0),
    created_by: str | None = None,
) -> Created:
    """Make a token; the one it replaces ends after the overlap.

    Raises ConfigurationError where the name is not usable or the replaced one not live, RefusedError where a live token
    has the name or the database user may not.
    """
    if not _NAME.fullmatch(name) or name == "SYNCLINE_SECRET_KEY":
        raise ConfigurationError(
            f"{name!r} is no usable name of a token",
            "Use letters, digits and . _ @ -, at most 63, a letter or a digit first.",
        )
    secret = secrets.token_urlsafe(32)
    (row,) = db.call(connection, "create_token", name, _digest(secret), role, expires_in, replaces, overlap, created_by)
    token = f"sync_{row['token_id']}_{secret}"
    return Created(row["token_id"], token, row["expires_at"], row["replaced_until"])


def list_tokens(connection: Connection) -> list[dict[str, Any]]:
    """Return all tokens, oldest first, without what they are compared by."""
    return [dict(row) for row in db.call(connection, "list_tokens")]


def has_live_token(connection: Connection) -> bool:
    """Return whether any token would be let in."""
    return any(row["state"] == "live" for row in list_tokens(connection))


def revoke_token(connection: Connection, name: str, revoked_by: str | None = None) -> int:
    """Revoke the live token of this name, for good; return its number.

    Raises ConfigurationError where there is none, RefusedError where the database user may not.
    """
    token_id: int = db.call_value(connection, "revoke_token", name, revoked_by)
    return token_id


def parse(token: str) -> tuple[int, str] | None:
    """Return the number and the secret of a token; None where the text is none."""
    match = _TOKEN.fullmatch(token)
    return (int(match.group(1)), match.group(2)) if match else None


def find_token(connection: Connection, token_id: int) -> Found | None:
    """Return the token of that number, revoked and expired ones too."""
    rows = db.call(connection, "find_token", token_id, _CHALLENGE)
    return Found(token_id=token_id, **rows[0]) if rows else None


def touch_token(connection: Connection, token_id: int) -> None:
    """Note that the token was used, and log once a day that it expires soon."""
    db.call(connection, "touch_token", token_id)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _prove(secret: str) -> bytes:
    return hashlib.sha256(_digest(secret) + _CHALLENGE).digest()
