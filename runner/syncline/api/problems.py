"""Errors as problem details (RFC 9457): one shape for all that can go wrong, with what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from syncline.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailableError,
    LockedError,
    RefusedError,
    SynclineError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5
"""Seconds after which to ask again for what was not to be had just now."""

_log = structlog.get_logger(__name__)


class ProblemDetails(BaseModel):
    """What went wrong, where, and what to do next."""

    type: str = Field(description="What kind of problem, for programs.", examples=["urn:syncline:unknown"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no run 17"])
    hint: str | None = Field(default=None, description="What to do next.")
    request_id: str | None = Field(default=None, description="As in the header X-Request-Id; the log names it, too.")
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="Of a request that does not fit: each place (`loc`) and what is wrong there (`msg`)."
    )


class Problem(Exception):  # noqa: N818 (the word of RFC 9457)
    """An answer that is no success. `kind` is the end of its `type`."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        hint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.errors = errors

    def body(self, request_id: str | None) -> bytes:
        content = {
            "type": f"urn:syncline:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint,
            "request_id": request_id,
            "errors": self.errors,
        }
        return msgspec.json.encode({name: value for name, value in content.items() if value is not None})

    def response(self, request_id: str | None) -> Response:
        return Response(self.body(request_id), self.status, headers=self.headers, media_type=MEDIA_TYPE)


def defect() -> Problem:
    """What is told of an error that nobody foresaw: nothing, but where to look."""
    return Problem(
        500, "defect", "something went wrong inside Syncline", "The log says what, under this request id. Report it."
    )


def of_error(error: SynclineError) -> Problem:
    """Return the error as a problem; its words are for people, and hold no secret and no record's value."""
    if isinstance(error, ConfigurationError):
        return Problem(422, "unprocessable", error.message, error.hint)
    if isinstance(error, RefusedError):
        return Problem(409, "refused", error.message, error.hint)
    retry = {"Retry-After": str(RETRY_AFTER)}
    if isinstance(error, DatabaseUnavailableError):
        # Its words name the host.
        return Problem(503, "unavailable", "the database does not answer", "Try again.", headers=retry)
    if isinstance(error, LockedError):
        return Problem(503, "locked", error.message, error.hint, headers=retry)
    if isinstance(error, DatabaseError):
        return defect()
    return Problem(500, "failed", error.message, error.hint)


@contextmanager
def unknown_is_404() -> Iterator[None]:
    """Turn a ConfigurationError, where it can only mean that there is no such thing, into a problem 404."""
    try:
        yield
    except ConfigurationError as error:
        raise Problem(404, "unknown", error.message, error.hint) from None


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document these problems of an endpoint, for OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Make the app answer every error as a problem."""
    app.add_exception_handler(Problem, _answer)  # type: ignore[arg-type]
    app.add_exception_handler(SynclineError, _answer_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _answer_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _answer_http)  # type: ignore[arg-type]


def request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def _answer(request: Request, problem: Problem) -> Response:
    return problem.response(request_id(request))


def _answer_error(request: Request, error: SynclineError) -> Response:
    problem = of_error(error)
    mask = request.app.state.syncline.project.mask
    problem.detail, problem.hint = mask(problem.detail), mask(problem.hint) if problem.hint else None
    if problem.status >= 500:
        _log.error("request_failed", request_id=request_id(request), message=mask(error.message))
    return _answer(request, problem)


def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    # Neither what was sent nor pydantic's context goes back: both may hold what is secret.
    found = [{"loc": [str(part) for part in item["loc"]], "msg": item["msg"]} for item in error.errors()]
    first = found[0] if found else {"loc": [], "msg": "it cannot be read"}
    is_json = not any(item["type"] == "json_invalid" for item in error.errors())
    status, kind = (422, "unprocessable") if is_json else (400, "malformed")
    detail = f"{'.'.join(first['loc'])}: {first['msg']}"
    return _answer(
        request, Problem(status, kind, detail, "/api/v1/openapi.json says what is taken here.", errors=found)
    )


def _answer_http(request: Request, error: HTTPException) -> Response:
    kinds = {404: "unknown", 405: "method", 401: "unauthorized", 403: "forbidden"}
    detail = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not for {request.url.path}"}
    kind = kinds.get(error.status_code, "refused")
    said = detail.get(error.status_code, str(error.detail))
    return _answer(
        request,
        Problem(error.status_code, kind, said, "/api/v1/openapi.json says what there is.", headers=error.headers),
    )
