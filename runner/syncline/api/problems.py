"""Errors as problem details (RFC 9457): one shape for all that can go wrong, with what to do next."""

from __future__ import annotations

import re
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
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path

from syncline.api.paths import routed
from syncline.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailableError,
    LockedError,
    MissingRightsError,
    RefusedError,
    SynclineError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5
"""Seconds after which to ask again for what was not to be had just now."""

_DOCUMENT = "/api/v1/openapi.json says what is taken here."

_WORDS = {
    "--allow-mass-delete": "allow_mass_delete (role admin)",
    "`syncline run --dry-run`": "POST /api/v1/runs and dry_run",
    "`syncline run`": "POST /api/v1/runs",
    "`syncline runs`": "GET /api/v1/runs",
    "`syncline status`": "GET /api/v1/status",
    "`syncline errors`": "GET /api/v1/row-errors",
    "`syncline history`": "GET /api/v1/changes",
    "`syncline conflicts list`": "GET /api/v1/conflicts",
    "`syncline conflicts list --overrides`": "GET /api/v1/overrides",
    "`syncline publish`": "POST /api/v1/publish",
    "`syncline schedule create`": "POST /api/v1/schedules",
    "`syncline schedule list`": "GET /api/v1/schedules",
    "`syncline schedule set`": "PATCH /api/v1/schedules/NAME",
}
"""What hints name of the command line, and what does the same here. What is left, such as `migrate`, is not here."""

_WORD = re.compile("|".join(map(re.escape, _WORDS)))

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
        self.hint = hint and _WORD.sub(lambda found: _WORDS[found[0]], hint)
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
    if isinstance(error, DatabaseError):
        return _of_database_error(error)
    return Problem(500, "failed", error.message, error.hint)


def _of_database_error(error: DatabaseError) -> Problem:
    retry = {"Retry-After": str(RETRY_AFTER)}
    if isinstance(error, DatabaseUnavailableError):
        # Its words name the host.
        return Problem(503, "unavailable", "the database does not answer", "Try again.", headers=retry)
    if isinstance(error, LockedError):
        return Problem(503, "locked", error.message, error.hint, headers=retry)
    if isinstance(error, MissingRightsError):
        return Problem(503, "not_granted", error.message, error.hint)
    return defect()


def content_type(headers: Mapping[str, str]) -> str:
    """Return what a body is said to be, without its parameters; empty where nothing is said."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def json_wanted(headers: Mapping[str, str]) -> Problem:
    """What is told of a body that is said to be something else than JSON."""
    said = content_type(headers) or "nothing: it has no Content-Type"
    return Problem(415, "media_type", f"the body is not taken as {said}", "Send Content-Type: application/json.")


def cut_off() -> Problem:
    return Problem(400, "malformed", "the body was cut off; nothing was changed", "Send it again.")


async def check_query(request: Request) -> None:
    """Raise a problem 422 for a query parameter that the endpoint has not, with those that it has."""
    if not request.query_params:
        return
    operation = request.app.openapi()["paths"][request.scope["route"].path_format][request.method.lower()]
    known = sorted(item["name"] for item in operation.get("parameters", []) if item["in"] == "query")
    for name in request.query_params:
        if name not in known:
            said = f"there is no query parameter {name[:100]!r} here"
            errors = [{"loc": ["query", name[:100]], "msg": "it is not known"}]
            raise Problem(422, "unprocessable", said, f"Known here: {', '.join(known) or 'none'}.", errors=errors)


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
    app.add_exception_handler(ClientDisconnect, _answer_gone)


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
    if isinstance(error.body, bytes) and error.body:
        return _answer(request, json_wanted(request.headers))  # what is JSON by its type was read
    # Neither what was sent nor pydantic's context goes back: both may hold what is secret.
    found = [{"loc": [str(part) for part in item["loc"]], "msg": item["msg"]} for item in error.errors()]
    for item in error.errors():
        if item["type"] == "json_invalid":
            said = f"the body is no JSON (at character {item['loc'][-1]})"
            return _answer(request, Problem(400, "malformed", said, _DOCUMENT, errors=found))
    first = found[0] if found else {"loc": [], "msg": "it cannot be read"}
    detail = f"{'.'.join(first['loc'])}: {first['msg']}"
    return _answer(request, Problem(422, "unprocessable", detail, _DOCUMENT, errors=found))


def _answer_gone(request: Request, _: Exception) -> Response:
    return _answer(request, cut_off())  # for the log: nobody is there any more


def _answer_http(request: Request, error: HTTPException) -> Response:
    if error.status_code == 400:
        return _answer(request, _malformed(error.__cause__))
    kinds = {404: "unknown", 405: "method", 401: "unauthorized", 403: "forbidden"}
    detail = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not for {request.url.path}"}
    kind = kinds.get(error.status_code, "refused")
    said = detail.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)) or [headers.get("Allow", "")])
    return _answer(
        request, Problem(error.status_code, kind, said, "/api/v1/openapi.json says what there is.", headers=headers)
    )


def _malformed(cause: BaseException | None) -> Problem:
    """What is told of a body that could not be read, for this reason."""
    if isinstance(cause, ClientDisconnect):
        return cut_off()
    if isinstance(cause, UnicodeError):
        return Problem(400, "malformed", "the body is no JSON: it is not UTF-8", "Send it in UTF-8.")
    return Problem(400, "malformed", "the body cannot be read", _DOCUMENT)


def _methods(request: Request) -> set[str]:
    """Return the methods of all that is at the request's path: each endpoint knows its own alone."""
    paths = request.app.openapi()["paths"]
    fitting = [known for path, known in paths.items() if compile_path(routed(path))[0].match(request.scope["path"])]
    return {method.upper() for known in fitting for method in known}
