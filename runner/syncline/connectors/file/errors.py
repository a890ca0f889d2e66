"""Says in Syncline's words what went wrong in a store, and tries again where it may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError

ATTEMPTS = 5
FIRST_WAIT = 0.2
"""Seconds before the second attempt, with some chance in them; they double from there."""

T = TypeVar("T")


def patiently(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Return what the call gives; it is tried again where what failed may pass."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return call(*arguments, **options)
        except Exception as error:
            if not _is_temporary(error):
                raise
        time.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 (no secret)
    return call(*arguments, **options)


def explain(error: Exception, place: str) -> Exception:
    """Return what to raise for a store's error. Its own text is not shown: it may hold credentials."""
    if isinstance(error, SourceError | ConfigurationError):
        return error
    cause, status = _cause(error), _status(_cause(error))
    answered = f" (status {status})" if status else ""
    names = " ".join(kind.__name__ for kind in type(cause).__mro__)
    if _is_temporary(error):
        return SourceUnavailableError(f"{place} cannot be reached{answered}", "Run it again later, or check `path`.")
    if isinstance(cause, PermissionError) or status in {401, 403} or "Credential" in names or "Authent" in names:
        return SourceError(
            f"{place} may not be read with these credentials{answered}",
            "Check the source's `storage_options` and what its credentials may read.",
        )
    if isinstance(cause, FileNotFoundError) or status in {404, 410}:
        return SourceError(f"{place}: there is no such file or bucket", "Check `path` of the stream and of its source.")
    return SourceError(
        f"{place} cannot be read: the store refused{answered} ({type(cause).__name__})",
        "Check `path` and the source's `storage_options`.",
    )


def _cause(error: BaseException) -> BaseException:
    """Return what happened: fsspec says of every failure of a web server that there is no file."""
    cause = error.__cause__
    return _cause(cause) if isinstance(error, FileNotFoundError) and cause is not None else error


def _status(error: BaseException) -> int | None:
    answer = getattr(error, "response", None)
    if isinstance(answer, Mapping) and "ResponseMetadata" in answer:
        return int(answer["ResponseMetadata"]["HTTPStatusCode"])
    found = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((int(value) for value in found if isinstance(value, int)), None)


def _is_temporary(error: Exception) -> bool:
    """Return whether it may pass. Each store's package has errors of its own, told by their names: none is imported."""
    cause = _cause(error)
    status = _status(cause)
    if status is not None:
        return status in {408, 429} or 500 <= status < 600
    names = " ".join(kind.__name__ for kind in type(cause).__mro__)
    return any(word in names for word in ("Connection", "Timeout", "Disconnected", "Payload", "ServiceRequestError"))
