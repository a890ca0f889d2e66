"""Runs that other systems ask for with signed messages: Standard Webhooks, a plain HMAC, QStash."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jwt
import structlog
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from qstash import Receiver
from qstash.errors import SignatureError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.concurrency import run_in_threadpool

from syncline import db
from syncline.api import answers, problems
from syncline.api.access import ADMIN_OPTIONS, RequestId
from syncline.api.problems import Problem
from syncline.api.runs import PREFIX, check_entities, check_known, located
from syncline.api.settings import ApiSettings
from syncline.api.state import State, of_request

TOLERANCE = 300
"""Seconds that the sender's clock and ours may differ, and that a message may take; as Standard Webhooks has it."""

router = APIRouter(prefix="/api/v1", tags=["triggers"])

_log = structlog.get_logger(__name__)


class Message(NamedTuple):
    """A message that its sender signed. `sender` and `message_id` tell a repeat."""

    sender: str
    message_id: str
    trigger: str
    triggered_by: str


class Requested(BaseModel):
    """What became of a signed message."""

    run_id: int = Field(examples=[7])
    status: answers.Status = Field(examples=["queued"])
    is_repeat: bool = Field(description="Whether the message came before; then this is the run that it started.")


Source = Annotated[str, Path(max_length=200, description="The source to sync.", examples=["agency"])]

_ANSWERS: dict[int | str, dict[str, Any]] = {
    **located(202),
    200: {"model": Requested, "description": "The message came before: nothing was started."} | located(200)[200],
    **problems.responses(401, 403, 404, 413, 415, 429),
}
_BODY = {
    "requestBody": {
        "required": False,
        "description": "What to build and load; other members are not looked at.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "entities": {"type": "array", "items": {"type": "string"}},
                        "streams": {"type": "array", "items": {"type": "string"}},
                    },
                },
                "example": {"entities": ["talents"]},
            }
        },
    }
}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


_WEBHOOK_HEADERS = [
    _header("webhook-id", "The message's id, the same in a repeat."),
    _header("webhook-timestamp", "Seconds since 1970."),
    _header("webhook-signature", "`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; several by spaces."),
    _header("x-sync-timestamp", "Without the three above: seconds since 1970."),
    _header("x-sync-signature", "`sha256=` and hex of HMAC-SHA256 over `timestamp.body`."),
]
_QSTASH_HEADERS = [_header("upstash-signature", "QStash's token: its signature, the address and the body's hash.")]


@router.post(
    "/webhooks/{source}",
    status_code=202,
    response_model=Requested,
    responses=_ANSWERS,
    openapi_extra=_BODY | {"parameters": _WEBHOOK_HEADERS},
)
async def receive_webhook(request: Request, source: Source, request_id: RequestId) -> answers.Json:
    """Request a run for a message signed with one of SYNCLINE_WEBHOOK_SECRETS. A repeat starts nothing."""
    return await _receive(request, source, request_id, verify_webhook)


@router.post(
    "/qstash/{source}",
    status_code=202,
    response_model=Requested,
    responses=_ANSWERS,
    openapi_extra=_BODY | {"parameters": _QSTASH_HEADERS},
)
async def receive_qstash(request: Request, source: Source, request_id: RequestId) -> answers.Json:
    """Request a run for a call of QStash, by a schedule there or at once. A repeat starts nothing."""
    return await _receive(request, source, request_id, verify_qstash)


Verify = Callable[[ApiSettings, Mapping[str, str], str, bytes], Message]


async def _receive(request: Request, source: str, request_id: str, verify: Verify) -> answers.Json:
    state = of_request(request)
    body = await request.body()
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    try:
        message = verify(state.settings, request.headers, path, body)
    except Problem as problem:
        _log.warning("message_refused", request_id=request_id, reason=problem.detail)
        raise
    request.state.caller = message.triggered_by
    return await run_in_threadpool(_request_run, state, source, request_id, message, request.headers, body)


def _request_run(
    state: State, source: str, request_id: str, message: Message, headers: Mapping[str, str], body: bytes
) -> answers.Json:
    if source not in state.project.sources:
        known = ", ".join(sorted(state.project.sources)) or "none"
        raise Problem(404, "unknown", f"there is no source named {source!r}", f"Known here: {known}.")
    wanted = _wanted(headers, body)
    streams = state.project.sources[source].streams.values()
    check_entities(state, wanted["entities"])
    check_known("stream", wanted["streams"], [name for stream in streams for name in (stream.name, stream.label)])
    options = {"streams": wanted["streams"]} if wanted["streams"] else {}
    with state.connection(request_id) as connection:
        (row,) = db.call(
            connection,
            "request_run_once",
            p_sender=message.sender,
            p_message_id=message.message_id,
            p_source=source,
            p_entities=wanted["entities"],
            p_options=json.dumps(options),
            p_trigger=message.trigger,
            p_triggered_by=message.triggered_by,
            p_request_id=request_id,
        )
    answer = {name: row[name] for name in ("run_id", "status", "is_repeat")}
    location = {"Location": f"{PREFIX}/{row['run_id']}"}
    return answers.Json(answer, 200 if row["is_repeat"] else 202, headers=location)


def _wanted(headers: Mapping[str, str], body: bytes) -> dict[str, list[str]]:
    """Return the entities and streams that the body names. Senders have bodies of their own: the rest is theirs.

    A body without a type is taken for JSON.
    """
    kind = problems.content_type(headers) or "application/json"
    content: Any = None
    if body.strip():
        if kind != "application/json" and not kind.endswith("+json"):
            raise problems.json_wanted(headers)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise Problem(400, "malformed", "the body is no JSON", "Send a JSON object, or nothing.") from None
    given = content if isinstance(content, dict) else {}
    set_aside = [name for name in ADMIN_OPTIONS if given.get(name)]
    if set_aside:
        raise Problem(
            403,
            "forbidden",
            f"{' and '.join(set_aside)} {'needs' if len(set_aside) == 1 else 'need'} the role admin, "
            "which no signed message has",
            "Leave that out, or call POST /api/v1/runs with an admin's token.",
        )
    wanted = {name: given.get(name) or [] for name in ("entities", "streams")}
    for name, names in wanted.items():
        if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
            raise Problem(422, "unprocessable", f"{name} is no list of names", f'Write {{"{name}": ["one"]}}.')
    return wanted


def verify_webhook(settings: ApiSettings, headers: Mapping[str, str], _: str, body: bytes) -> Message:
    """Return the message where one of the secrets signed it: by Standard Webhooks, else by x-sync-signature.

    Raises a problem 401 with what does not fit, 503 where no secret is set.
    """
    if not settings.webhook_secrets:
        raise _not_configured("webhooks", "SYNCLINE_WEBHOOK_SECRETS")
    if "webhook-signature" in headers or "x-sync-signature" not in headers:
        return _verify_standard(settings, headers, body)
    return _verify_plain(settings, headers, body)


def _verify_standard(settings: ApiSettings, headers: Mapping[str, str], body: bytes) -> Message:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    missing = [name for name in names if not headers.get(name)]
    if missing:
        raise _refused(f"the header {missing[0]} is missing", f"Send {', '.join(names)}, as Standard Webhooks has it.")
    _check_time(headers["webhook-timestamp"])
    for secret in settings.webhook_secrets:
        try:
            Webhook(secret).verify(body, {name: headers[name] for name in names}, json_parse=False)
        except (WebhookVerificationError, ValueError):
            # ValueError: a signature that is no base64, or a body that is no text.
            continue
        return Message("webhook", _short(headers["webhook-id"]), "webhook", "webhook")
    raise _wrong_key("SYNCLINE_WEBHOOK_SECRETS")


def _verify_plain(settings: ApiSettings, headers: Mapping[str, str], body: bytes) -> Message:
    timestamp = headers.get("x-sync-timestamp", "")
    if not timestamp:
        raise _refused("the header x-sync-timestamp is missing", "Send the seconds since 1970, and sign them too.")
    _check_time(timestamp)
    given = headers["x-sync-signature"].strip().lower().encode()
    signed = timestamp.encode("latin-1") + b"." + body
    # All are compared, so that the time does not tell which one fits.
    fits = [
        hmac.compare_digest(given, f"sha256={hmac.new(secret, signed, hashlib.sha256).hexdigest()}".encode())
        for secret in settings.webhook_secrets
    ]
    if not any(fits):
        raise _wrong_key("SYNCLINE_WEBHOOK_SECRETS")
    return Message("signature", hashlib.sha256(signed).hexdigest(), "webhook", "webhook")


def verify_qstash(settings: ApiSettings, headers: Mapping[str, str], path: str, body: bytes) -> Message:
    """Return the message where QStash signed it for this address and body, with the current key or the next.

    Raises a problem 401 with what does not fit, 503 where a variable is not set.
    """
    if not settings.qstash_keys:
        raise _not_configured("QStash", "QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY")
    if not settings.public_url:
        raise _not_configured("QStash", "SYNCLINE_PUBLIC_URL, the address that QStash calls and signs,")
    signature = headers.get("upstash-signature", "")
    if not signature:
        raise _refused("the header upstash-signature is missing", "Let QStash call this address.")
    reasons = []
    for key in settings.qstash_keys:
        try:
            # One key at a time: of two, the receiver would tell only why the second does not fit.
            Receiver(key, key).verify(signature=signature, body=body.decode(), url=settings.public_url + path)
        except (SignatureError, KeyError, ValueError) as error:
            reasons.append(str(error))
            continue
        claims = jwt.decode(signature, options={"verify_signature": False})
        trigger = "scheduler" if headers.get("upstash-schedule-id") else "webhook"
        return Message("qstash", _short(str(claims.get("jti") or signature)), trigger, "qstash")
    raise _qstash_problem(reasons)


def _qstash_problem(reasons: list[str]) -> Problem:
    """Return what is wrong in our own words: those of the library quote hashes and addresses."""
    known = {
        "expired": ("the signature has expired", "Send it again; check this machine's clock."),
        "not yet valid": ("the signature is of the future", "Check this machine's clock."),
        "Invalid subject": ("the signature is for another address", "Set SYNCLINE_PUBLIC_URL to where QStash calls."),
        "Invalid body": ("the body is not the one that was signed", "Let nothing between QStash and here change it."),
    }
    for words, (detail, hint) in known.items():
        if any(words in reason for reason in reasons):
            return _refused(detail, hint)
    return _wrong_key("QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY")


def _check_time(text: str) -> None:
    if not re.fullmatch(r"[1-9][0-9]{0,11}", text):
        raise _refused("the timestamp is no number of seconds", "Send the seconds since 1970.")
    age = time.time() - int(text)
    if abs(age) > TOLERANCE:
        detail = "the timestamp is too old" if age > 0 else "the timestamp is of the future"
        raise _refused(detail, f"Sign when you send; the clocks may differ by {TOLERANCE} s.")


def _short(message_id: str) -> str:
    """Return an id that the table takes, whatever its length."""
    is_short = len(message_id) <= 200 and message_id.isprintable()
    return message_id if is_short else hashlib.sha256(message_id.encode()).hexdigest()


def _wrong_key(variables: str) -> Problem:
    return _refused("no key that is set here made this signature", f"Compare the sender's key with {variables}.")


def _refused(detail: str, hint: str) -> Problem:
    return Problem(401, "unauthorized", detail, hint, headers={"WWW-Authenticate": 'Signature realm="syncline"'})


def _not_configured(what: str, variables: str) -> Problem:
    return Problem(
        503, "not_configured", f"{what} is not set up here", f"Set {variables} in the environment or in .env."
    )
