"""The API's settings, from the environment or `.env`, and whether it may be reached from outside with them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from syncline.config import Project
from syncline.errors import ConfigurationError, RefusedError

SHORTEST_SECRET = 16
"""Characters of a secret that people choose; those that Syncline makes have 256 bits."""

FAILURES = 30
"""Refused authorizations a minute from one address; what is tried above is not looked at."""

MAX_BODY, MAX_PUSH, RATE_LIMIT = 10**6, 10**9, 600

_SIZE = re.compile(r"(\d+)\s*([kmg]i?)?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """How the API is secured. Sizes are in bytes; `rate_limit` and `failure_limit` are a minute, 0 is no limit."""

    secret_key: str | None = field(default=None, repr=False)
    cors_origins: tuple[str, ...] = ()
    max_body: int = MAX_BODY
    max_push: int = MAX_PUSH
    rate_limit: int = RATE_LIMIT
    failure_limit: int = FAILURES
    webhook_secrets: tuple[bytes, ...] = field(default=(), repr=False)
    qstash_keys: tuple[str, ...] = field(default=(), repr=False)
    public_url: str | None = None


def read_settings(project: Project) -> ApiSettings:
    """Read the settings. Raises ConfigurationError naming the variable, never its value where that is secret."""
    given = project.environment
    return ApiSettings(
        secret_key=_secret("SYNCLINE_SECRET_KEY", given),
        cors_origins=tuple(_origin(origin) for origin in _listed("SYNCLINE_CORS_ORIGINS", given)),
        max_body=_size("SYNCLINE_MAX_BODY", given, MAX_BODY),
        max_push=_size("SYNCLINE_MAX_PUSH", given, MAX_PUSH),
        rate_limit=_count("SYNCLINE_RATE_LIMIT", given, RATE_LIMIT),
        webhook_secrets=tuple(_webhook_secret(secret) for secret in _listed("SYNCLINE_WEBHOOK_SECRETS", given)),
        qstash_keys=_qstash_keys(given),
        public_url=_address("SYNCLINE_PUBLIC_URL", given),
    )


def check_exposure(settings: ApiSettings, host: str, has_tokens: bool, behind_tls: bool) -> None:
    """Raise RefusedError where the API would be reached from outside with no token to ask for, or unencrypted."""
    if is_loopback(host):
        return
    if not settings.secret_key and not has_tokens:
        raise RefusedError(
            f"the API would listen on {host}, and there is no token to ask for",
            "Set SYNCLINE_SECRET_KEY, or make one with `syncline token create`.",
        )
    if not behind_tls:
        raise RefusedError(
            f"the API would listen on {host}, and tokens would cross the network unencrypted",
            "Listen on 127.0.0.1, or put a proxy with TLS in front and say so with --behind-tls.",
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _listed(name: str, given: Mapping[str, str]) -> list[str]:
    return [item.strip() for item in given.get(name, "").split(",") if item.strip()]


def _secret(name: str, given: Mapping[str, str]) -> str | None:
    value = given.get(name, "").strip()
    if value and len(value) < SHORTEST_SECRET:
        raise ConfigurationError(
            f"{name} has {len(value)} characters: too few to be a secret",
            f"Set at least {SHORTEST_SECRET}, by chance: openssl rand -base64 32.",
        )
    if not value.isascii() or not value.isprintable():
        raise ConfigurationError(f"{name} has characters that no header can carry", "Use ASCII letters and digits.")
    return value or None


def _origin(text: str) -> str:
    try:
        address = urlsplit(text)
        _ = address.port
    except ValueError:
        address = urlsplit("")
    is_origin = (
        address.scheme in ("http", "https") and address.hostname and f"{address.scheme}://{address.netloc}" == text
    )
    if not is_origin or "*" in text or "@" in text:
        raise ConfigurationError(
            f"SYNCLINE_CORS_ORIGINS: {text!r} is no origin",
            "Write each as browsers do, with no path and no *: https://app.example.com,https://admin.example.com.",
        )
    return text.lower()


def _size(name: str, given: Mapping[str, str], default: int) -> int:
    text = given.get(name, "").strip()
    if not text:
        return default
    match = _SIZE.fullmatch(text)
    size = int(match.group(1)) * _UNITS[(match.group(2) or "").lower()] if match else 0
    if size < 1:
        raise ConfigurationError(f"{name}: {text!r} is no size", "Write a number and a unit: 500 kB, 1 MB, 2 GiB.")
    return size


def _count(name: str, given: Mapping[str, str], default: int) -> int:
    text = given.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ConfigurationError(f"{name}: {text!r} is no number", "Write requests a minute: 600. 0 is no limit.")
    return int(text)


def _webhook_secret(text: str) -> bytes:
    """Return a secret's bytes: `whsec_` and base64, as senders show it, or the text itself."""
    encoded = text.removeprefix("whsec_")
    try:
        secret = (
            base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True) if encoded != text else text.encode()
        )
    except binascii.Error:
        raise ConfigurationError(
            "SYNCLINE_WEBHOOK_SECRETS: what follows whsec_ is no base64", "Copy the whole secret from the sender."
        ) from None
    if len(secret) < SHORTEST_SECRET:
        raise ConfigurationError(
            f"SYNCLINE_WEBHOOK_SECRETS: a secret of {len(secret)} bytes is too short",
            f"Use at least {SHORTEST_SECRET}, by chance; separate the current and the next one by a comma.",
        )
    return secret


def _qstash_keys(given: Mapping[str, str]) -> tuple[str, ...]:
    names = ("QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY")
    return tuple(key for key in (_secret(name, given) for name in names) if key)


def _address(name: str, given: Mapping[str, str]) -> str | None:
    text = given.get(name, "").strip().rstrip("/")
    if not text:
        return None
    try:
        address = urlsplit(text)
        is_address = (
            address.scheme in ("http", "https") and address.hostname and not address.query and not address.fragment
        )
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigurationError(
            f"{name} is no address that others can call", "Write where the API is reached: https://sync.example.com."
        )
    return text
