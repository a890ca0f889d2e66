"""Says of a request that failed what went wrong, and whether to try it again."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Set
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from syncline.errors import SourceError


class TemporaryError(Exception):
    """Worth another attempt, after `wait` seconds if the server said so. Its message holds no secret."""

    def __init__(self, place: str, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.place = place
        self.wait = wait


def answered(response: httpx.Response) -> str:
    return f"answered {response.status_code} {response.reason_phrase}".rstrip()


def check_status(response: httpx.Response, place: str, accepted: Set[int]) -> None:
    status = response.status_code
    what = answered(response)
    if response.is_success or status in accepted:
        return
    if status in {401, 403}:
        raise SourceError(f"{place}: {what}", "Check the source's `auth` and what its credentials may read.")
    if status == 404:
        raise SourceError(f"{place}: not found: {what}", "Check base_url and path.")
    if status == 429 or status >= 500:
        raise TemporaryError(place, what, retry_after(response))
    raise SourceError(f"{place}: {what}", "Check method, params and headers.")


def retry_after(response: httpx.Response) -> float | None:
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


def explain(error: httpx.HTTPError, place: str, timeout: float) -> Exception:  # noqa: PLR0911 (a table)
    """Return what to raise for `error`. Its own text is not shown: it may hold a header or part of the answer."""
    cause = _os_error(error)
    match error:
        case httpx.ConnectError() if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE" in str(error):
            why = f": {cause.verify_message}" if isinstance(cause, ssl.SSLCertVerificationError) else ""
            return SourceError(
                f"{place}: the server's certificate is not trusted{why}",
                "Check base_url and the clock, or set ca_file.",
            )
        case httpx.ConnectTimeout():
            return TemporaryError(place, f"no connection within {timeout:g} s")
        case httpx.TimeoutException():
            return TemporaryError(place, f"no answer within {timeout:g} s")
        case httpx.ConnectError():
            return TemporaryError(place, f"the connection failed: {_reason(cause)}")
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            how = "reset" if isinstance(cause, ConnectionResetError | BrokenPipeError) else "before the answer's end"
            return TemporaryError(place, f"the connection was cut: {how}")
        case httpx.ProxyError():
            return TemporaryError(place, "the proxy refused the connection")
        case httpx.DecodingError():
            return TemporaryError(place, "the answer's compression is broken")
        case _:
            return SourceError(f"{place}: the request failed ({type(error).__name__})", "Check base_url and headers.")


def _os_error(error: BaseException | None) -> OSError | None:
    """Return what the operating system said, at the bottom of what was raised from it."""
    found = None
    while error is not None:
        found = error if isinstance(error, OSError) else found
        error = error.__cause__ or error.__context__
    return found


def _reason(cause: OSError | None) -> str:
    match cause:
        case socket.gaierror():
            return "the host was not found"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionResetError():
            return "reset"
        case ssl.SSLError():
            return "no TLS could be agreed on"
        case _:
            return (cause.strerror if cause is not None else None) or "out of reach"
