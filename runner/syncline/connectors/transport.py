"""Fetches one page over HTTP: authorization, retries, redirects within the origin, a limit on size."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx
import msgspec
import stamina
from stamina.instrumentation import LoggingOnRetryHook, set_on_retry_hooks

from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError

_MAX_REDIRECTS = 5

# At INFO, httpx logs each address with its query, which may hold a key; at DEBUG, httpcore logs links to next pages.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# Where structlog is installed, stamina would write to stdout, which is for a command's answer.
set_on_retry_hooks([LoggingOnRetryHook])


class BearerAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bearer"):
    """A token in the header `Authorization`."""

    token: str

    def __repr__(self) -> str:
        return "BearerAuth(...)"

    def apply(self, request: httpx.Request) -> None:
        request.headers["Authorization"] = f"Bearer {self.token}"


class ApiKeyAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="api_key"):
    """A key in a header or query parameter."""

    api_key: str
    name: str = "Authorization"
    location: Literal["header", "query"] = "header"

    def __repr__(self) -> str:
        return "ApiKeyAuth(...)"

    def apply(self, request: httpx.Request) -> None:
        if self.location == "header":
            request.headers[self.name] = self.api_key
        else:
            request.url = request.url.copy_set_param(self.name, self.api_key)


class BasicAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="http_basic"):
    """A user's name and password, as HTTP basic authentication."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "BasicAuth(...)"

    def apply(self, request: httpx.Request) -> None:
        next(httpx.BasicAuth(self.username, self.password).auth_flow(request))


Auth = BearerAuth | ApiKeyAuth | BasicAuth


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long to go on for one page.

    `timeout` (seconds) is to connect, and between two parts of an answer. Of `attempts` in all, the waits between
    (seconds) begin with `backoff` and double, with some chance in them; `max_wait` is for those together, and again
    for those that the server asks for.
    """

    timeout: float
    attempts: int
    backoff: float
    max_wait: float
    max_response_bytes: int


class TemporaryError(Exception):
    """Worth another attempt, after `wait` seconds if the server said so. Its message holds no secret."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Transport:
    """Sends requests to one API. Threads may share it."""

    def __init__(self, limits: Limits, auth: Auth | None) -> None:
        self._limits = limits
        self._auth = auth
        self._client = httpx.Client(timeout=limits.timeout, headers={"User-Agent": "syncline"})

    def close(self) -> None:
        self._client.close()

    def build_request(self, method: str, url: httpx.URL, headers: Mapping[str, str], json: Any) -> httpx.Request:
        return self._client.build_request(method, url, headers=headers, json=json)

    def fetch(self, request: httpx.Request, place: str) -> tuple[httpx.Response, bytes]:
        """Return the answer's head and its body, at most `max_response_bytes`.

        Busy servers (429, 5xx) and broken connections are tried again. Raises SourceError, which begins with `place`,
        for everything else that is no success, and when the attempts or the waits are used up.
        """
        attempts, waited = 0, 0.0

        def is_retried(error: Exception) -> bool | float:
            nonlocal waited
            if not isinstance(error, TemporaryError) or error.wait is None:
                return isinstance(error, TemporaryError)
            waited += error.wait
            return error.wait if waited <= self._limits.max_wait else False

        retrying = stamina.retry_context(
            on=is_retried,
            attempts=self._limits.attempts,
            timeout=None,
            wait_initial=self._limits.backoff,
            wait_jitter=self._limits.backoff,
            wait_max=self._limits.max_wait / max(self._limits.attempts - 1, 1),
        )
        try:
            for attempt in retrying:
                attempts = attempt.num
                with attempt:
                    return self._send(request, place)
        except TemporaryError as error:
            tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
            wait = f"; it asks to wait {error.wait:.0f} s" if waited > self._limits.max_wait and error.wait else ""
            raise SourceUnavailableError(
                f"{place}: {error}, after {tries}{wait}", "Run it again later; `retries` and `max_wait` set how long."
            ) from None
        raise AssertionError("stamina gives at least one attempt")

    def _send(self, request: httpx.Request, place: str) -> tuple[httpx.Response, bytes]:
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                if self._auth is not None:
                    self._auth.apply(request)
                with closing(self._client.send(request, stream=True)) as response:
                    if response.next_request is None:
                        _check_status(response, place)
                        return response, self._read(response, place)
                    _check_redirect(request.url, response.next_request.url, place)
                    request = response.next_request
        except httpx.HTTPError as error:
            raise _explain(error, place, self._limits.timeout) from None
        raise SourceError(f"{place}: redirected more than {_MAX_REDIRECTS} times", "Check base_url and path.")

    def _read(self, response: httpx.Response, place: str) -> bytes:
        parts, size = [], 0
        for part in response.iter_bytes():
            size += len(part)
            if size > self._limits.max_response_bytes:
                raise SourceError(
                    f"{place}: the answer is longer than {self._limits.max_response_bytes} bytes",
                    "Ask for smaller pages with a paginator, or raise max_response_bytes.",
                )
            parts.append(part)
        return b"".join(parts)


def is_same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return _origin(one) == _origin(other)


def display(url: httpx.URL) -> str:
    """Return the address for people: without its query and user, which may be secret."""
    return str(url.copy_with(query=None, fragment=None, userinfo=b""))


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a header that cannot be sent; its value may be secret and is not shown."""
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"the header {name} has a line break or another character that no header can hold",
                "Check the variable that it comes from.",
            )


def check_auth(auth: Auth | None) -> None:
    """Raise ConfigurationError for credentials that no header can hold."""
    request = httpx.Request("GET", "http://localhost")
    match auth:
        case BearerAuth():
            check_headers({"Authorization": auth.token})
        case ApiKeyAuth(location="header"):
            check_headers({auth.name: auth.api_key})
        case BasicAuth():
            auth.apply(request)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _check_redirect(source: httpx.URL, target: httpx.URL, place: str) -> None:
    if not is_same_origin(source, target):
        raise SourceError(
            f"{place}: redirected to another host, {target.scheme}://{target.netloc.decode('ascii')}",
            "Credentials are not sent on to others: if it is right, make it the base_url.",
        )


def _check_status(response: httpx.Response, place: str) -> None:
    status = response.status_code
    answered = f"answered {status} {response.reason_phrase}".rstrip()
    if status in {401, 403}:
        raise SourceError(f"{place}: {answered}", "Check the source's `auth` and what its credentials may read.")
    if status == 404:
        raise SourceError(f"{place}: not found: {answered}", "Check base_url and path.")
    if status == 429 or status >= 500:
        raise TemporaryError(answered, _retry_after(response))
    if not response.is_success:
        raise SourceError(f"{place}: {answered}", "Check method, params and headers.")


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the server asks to wait for."""
    value: str = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


def _explain(error: httpx.HTTPError, place: str, timeout: float) -> Exception:
    """Return what to raise for `error`. Its own text is not shown: it may hold a header or part of the answer."""
    match error:
        case httpx.ConnectError() if "CERTIFICATE" in str(error):
            return SourceError(f"{place}: the server's certificate is not trusted", "Check base_url and the clock.")
        case httpx.TimeoutException():
            return TemporaryError(f"no answer within {timeout:g} s")
        case httpx.ConnectError():
            return TemporaryError("the connection failed")
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return TemporaryError("the connection was cut")
        case _:
            return SourceError(f"{place}: the request failed ({type(error).__name__})", "Check base_url and headers.")
