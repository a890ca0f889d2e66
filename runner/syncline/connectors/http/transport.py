"""Fetches one page over HTTP: authorization, budgets, retries, redirects within the origin, limits on size and time."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Set
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from syncline.connectors.http.addresses import display, is_same_origin
from syncline.connectors.http.auth import AccessToken, Auth, OAuth2Auth, explain_refusal
from syncline.connectors.http.faults import TemporaryError, answered, check_status, explain, retry_after
from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError

_MAX_REDIRECTS = 5

_log = logging.getLogger(__name__)

# At INFO, httpx logs each address with its query, which may hold a key; at DEBUG, httpcore logs links to next pages.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long to go on for one page, and how many requests to have under way at once.

    `timeout` (seconds) is to connect, and between two parts of an answer; `max_response_seconds` is for all parts
    together. Of `attempts` in all, the waits between (seconds) begin with `backoff` and double, with some chance in
    them; `max_wait` is for those together, and again for those that the server asks for.
    """

    timeout: float
    attempts: int
    backoff: float
    max_wait: float
    max_response_bytes: int
    max_response_seconds: float
    concurrency: int


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many requests in so many seconds, in any window, over all workers."""

    requests: Annotated[int, msgspec.Meta(ge=1)]
    seconds: Annotated[float, msgspec.Meta(gt=0)]


def _log_retry(details: RetryDetails) -> None:
    error = details.caused_by
    place, what = (
        (error.place, str(error)) if isinstance(error, TemporaryError) else (details.name, type(error).__name__)
    )
    _log.warning("%s: %s; attempt %d in %.1f s", place, what, details.retry_num + 1, details.wait_for)


# Stamina's own line names neither page nor cause; where structlog is installed it goes to stdout, too, which is for a
# command's answer.
set_on_retry_hooks([_log_retry])


class Transport:
    """Sends requests to one API, `limits.concurrency` at a time. Threads may share it.

    `reserve` takes one request out of the API's budget and returns the seconds to wait before it is sent.
    """

    def __init__(
        self,
        limits: Limits,
        auth: Auth | None,
        ca_file: Path | None = None,
        reserve: Callable[[httpx.URL], float] = lambda _: 0.0,
    ) -> None:
        self._limits = limits
        self._auth = auth
        self._reserve = reserve
        self._slots = threading.BoundedSemaphore(limits.concurrency)
        self._is_closed = False
        self._client = httpx.Client(
            timeout=limits.timeout,
            headers={"User-Agent": "syncline"},
            verify=_trust(ca_file) if ca_file else _usual_trust(),
        )
        self._token = AccessToken(auth, self._exchange) if isinstance(auth, OAuth2Auth) else None

    def close(self) -> None:
        """Give back the connections; what is still under way is not tried again."""
        self._is_closed = True
        self._client.close()

    def build_request(self, method: str, url: httpx.URL, headers: Mapping[str, str], json: Any) -> httpx.Request:
        return self._client.build_request(method, url, headers=headers, json=json)

    def fetch(
        self, request: httpx.Request, place: str, accepted: Set[int] = frozenset()
    ) -> tuple[httpx.Response, bytes]:
        """Return the answer's head and its body, at most `max_response_bytes`.

        A status in `accepted` is an answer, too. Busy servers (429, 5xx) and broken connections are tried again. Raises
        SourceError, which begins with `place`, for everything else that is no success, and SourceUnavailableError when
        the attempts or the waits are used up.
        """
        attempts, waited = 0, 0.0

        def is_retried(error: Exception) -> bool | float:
            nonlocal waited
            if not isinstance(error, TemporaryError) or self._is_closed:
                return False
            if error.wait is None:
                return True
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
                    return self._send(request, place, accepted)
        except TemporaryError as error:
            tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
            wait = f"; it asks to wait {error.wait:.0f} s" if waited > self._limits.max_wait and error.wait else ""
            raise SourceUnavailableError(
                f"{place}: {error}, after {tries}{wait}", "Run it again later; `retries` and `max_wait` set how long."
            ) from None
        raise AssertionError("stamina gives at least one attempt")

    def _send(self, request: httpx.Request, place: str, accepted: Set[int]) -> tuple[httpx.Response, bytes]:
        token = self._authorize(request, place)
        for _ in range(_MAX_REDIRECTS + 1):
            response, body = self._exchange_once(request, place, accepted)
            if response.status_code == 401 and token is not None:
                # The server may end a token's life early; a second refusal is about what the token may do.
                self._authorize(request, place, rejected=token)
                response, body = self._exchange_once(request, place, accepted)
            if response.next_request is None:
                check_status(response, place, accepted)
                return response, body
            _check_redirect(request.url, response.next_request.url, place)
            request = response.next_request
            token = self._authorize(request, place)
        raise SourceError(f"{place}: redirected more than {_MAX_REDIRECTS} times", "Check base_url and path.")

    def _authorize(self, request: httpx.Request, place: str, rejected: str | None = None) -> str | None:
        """Put the credentials on the request; return the access token among them."""
        if self._token is None:
            if self._auth is not None and not isinstance(self._auth, OAuth2Auth):
                self._auth.apply(request)
            return None
        try:
            token = self._token.get(rejected)
        except _TokenError as error:
            raise SourceError(f"{place}: {error}", "Check the source's `auth`: client_id and client_secret.") from None
        except ValueError as error:
            raise SourceError(f"{place}: {self._token_place()}: {error}", "Check access_token_url.") from None
        except TemporaryError as error:
            raise TemporaryError(place, f"{error.place}: {error}", error.wait) from None
        request.headers["Authorization"] = f"Bearer {token}"
        return token

    def _exchange(self, request: httpx.Request) -> bytes:
        """Return the body of the token endpoint's answer; raises _TokenError where it refuses."""
        place = self._token_place()
        response, body = self._exchange_once(request, place, {400, 401, 403})
        status = response.status_code
        if status == 429 or status >= 500:
            raise TemporaryError(place, answered(response), retry_after(response))
        if not response.is_success:
            raise _TokenError(f"{place}: {answered(response)}{explain_refusal(body)}")
        return body

    def _token_place(self) -> str:
        assert isinstance(self._auth, OAuth2Auth)
        return f"no access token from {display(httpx.URL(self._auth.access_token_url))}"

    def _exchange_once(self, request: httpx.Request, place: str, wanted: Set[int]) -> tuple[httpx.Response, bytes]:
        """Send one request; read the body of a success, and of the other statuses that are `wanted`."""
        time.sleep(max(self._reserve(request.url), 0.0))
        try:
            with self._slots, closing(self._client.send(request, stream=True)) as response:
                if response.is_success or response.status_code in wanted:
                    return response, self._read(response, place)
                return response, b""
        except httpx.HTTPError as error:
            raise explain(error, place, self._limits.timeout) from None

    def _read(self, response: httpx.Response, place: str) -> bytes:
        limits = self._limits
        until = time.monotonic() + limits.max_response_seconds
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > limits.max_response_bytes:
            raise _too_long(place, limits)
        parts, size = [], 0
        for part in response.iter_bytes():
            size += len(part)
            if size > limits.max_response_bytes:
                raise _too_long(place, limits)
            if time.monotonic() > until:
                raise TemporaryError(place, f"the answer takes longer than {limits.max_response_seconds:g} s")
            parts.append(part)
        return b"".join(parts)


class _TokenError(Exception):
    """The token endpoint's refusal, in words without secrets."""


@cache
def _usual_trust() -> ssl.SSLContext:
    """Return what to trust; made once, since to read all authorities takes longer than a request."""
    return httpx.create_ssl_context()


def _trust(ca_file: Path) -> ssl.SSLContext:
    """Return what to trust: the usual authorities, and those in the file."""
    context = httpx.create_ssl_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            f"ca_file {ca_file.name} cannot be read as certificates", "It is a file of certificates in PEM form."
        ) from None
    return context


def _check_redirect(source: httpx.URL, target: httpx.URL, place: str) -> None:
    if not is_same_origin(source, target):
        raise SourceError(
            f"{place}: redirected to another host, {target.scheme}://{target.netloc.decode('ascii')}",
            "Credentials are not sent on to others: if it is right, make it the base_url.",
        )


def _too_long(place: str, limits: Limits) -> SourceError:
    return SourceError(
        f"{place}: the answer is longer than {limits.max_response_bytes} bytes",
        "Ask for smaller pages with a paginator, or raise max_response_bytes.",
    )
