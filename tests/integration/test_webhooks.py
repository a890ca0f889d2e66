"""Signed messages: which are believed, what they start, that each starts it once, and what others are told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs

from syncline import db
from syncline.api.problems import Problem
from syncline.api.settings import ApiSettings
from syncline.api.signatures import verify_qstash, verify_webhook
from tests.driver import Driver
from tests.serving import Client, in_process

CURRENT, NEXT, OTHER = (f"{name}-secret-of-a-sender-0123456789".encode() for name in ("current", "next", "other"))
KEY, NEXT_KEY, OTHER_KEY = (f"sig_{name}_signing_key_0123456789abcdef" for name in ("current", "next", "other"))
PUBLIC = "https://sync.example.com"
HOOK, QSTASH = "/api/v1/webhooks/files", "/api/v1/qstash/files"


@pytest.fixture
def api(driver: Driver) -> Iterator[Client]:
    (driver.root / "models" / "people.sql").write_text("{{ config(materialized='versioned') }} select 1\n")
    secrets: dict[str, Any] = {"webhook_secrets": (CURRENT, NEXT), "qstash_keys": (KEY, NEXT_KEY)}
    with in_process(driver, as_admin=False, public_url=PUBLIC, **secrets) as opened:
        yield opened


def standard(body: bytes = b"", secret: bytes = CURRENT, message_id: str = "msg_1", age: float = 0) -> dict[str, str]:
    """Headers as the reference implementation of Standard Webhooks signs them."""
    sent = datetime.fromtimestamp(int(time.time() - age), UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(sent.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, sent, body.decode()),
    }


def plain(body: bytes = b"", secret: bytes = CURRENT, age: float = 0) -> dict[str, str]:
    timestamp = str(int(time.time() - age))
    signature = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"x-sync-timestamp": timestamp, "x-sync-signature": f"sha256={signature}"}


def qstash(body: bytes = b"", key: str = KEY, path: str = QSTASH, **claims: Any) -> dict[str, str]:
    """The header that QStash sends: a token over address and body."""
    now = int(time.time())
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
    said = {
        "iss": "Upstash",
        "sub": PUBLIC + path,
        "iat": now,
        "nbf": now,
        "exp": now + 300,
        "jti": f"jwt_{time.monotonic_ns()}",
        "body": digest,
    }
    return {"upstash-signature": jwt.encode(said | claims, key, algorithm="HS256")}


def runs(driver: Driver) -> list[dict[str, Any]]:
    return [dict(row) for row in driver.connection.execute("select * from syncline.runs order by run_id").fetchall()]


def refused(answer: httpx.Response, status: int = 401) -> str:
    """What a refusal says: a problem, with a hint."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["hint"]
    return str(answer.json()["detail"])


# what is believed


@pytest.mark.parametrize("secret", [CURRENT, NEXT])
@pytest.mark.parametrize("sign", [standard, plain])
def test_a_webhook_starts_a_run(driver: Driver, api: Client, sign: Any, secret: bytes) -> None:
    """A message signed with the current secret or the next puts a run in the queue, whose number it answers."""
    answer = api.post(HOOK, headers=sign(b"", secret) | {"x-request-id": "from-the-sender"})
    assert answer.status_code == 202, answer.text
    (run,) = runs(driver)
    assert answer.json() == {"run_id": run["run_id"], "status": "queued", "is_repeat": False}
    assert answer.headers["location"] == f"/api/v1/runs/{run['run_id']}"
    found = {name: run[name] for name in ("sources", "entities", "options", "trigger", "triggered_by", "request_id")}
    assert found == {
        "sources": ["files"],
        "entities": [],
        "options": {},
        "trigger": "webhook",
        "triggered_by": "webhook",
        "request_id": "from-the-sender",
    }


@pytest.mark.parametrize("key", [KEY, NEXT_KEY])
@pytest.mark.parametrize(("headers", "trigger"), [({}, "webhook"), ({"upstash-schedule-id": "scd_1"}, "scheduler")])
def test_qstash_starts_a_run(driver: Driver, api: Client, key: str, headers: dict[str, str], trigger: str) -> None:
    """A call that QStash signed with either key starts a run; by a schedule there, it counts as scheduled."""
    body = b'{"entities": ["people"]}'
    answer = api.post(QSTASH, headers=qstash(body, key) | headers, content=body)
    assert answer.status_code == 202, answer.text
    (run,) = runs(driver)
    assert (run["trigger"], run["triggered_by"], run["entities"]) == (trigger, "qstash", ["people"])


def test_several_signatures_in_one_header_are_one_message(driver: Driver, api: Client) -> None:
    """While a sender changes its secret, it signs with both: one that fits is enough."""
    headers = standard(secret=OTHER)
    headers["webhook-signature"] += " " + standard()["webhook-signature"]
    assert api.post(HOOK, headers=headers).status_code == 202


def test_the_body_says_what_to_sync(driver: Driver, api: Client) -> None:
    """Entities and streams of a JSON body are the run's; what else the sender tells is its own business."""
    body = json.dumps({"type": "contact.updated", "entities": ["people"], "streams": ["files.people"]}).encode()
    assert api.post(HOOK, headers=standard(body), content=body).status_code == 202
    (run,) = runs(driver)
    assert (run["entities"], run["options"]) == (["people"], {"streams": ["files.people"]})


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 202),
        (b"[1]", "application/json", 202),
        (b'"text"', "application/vnd.sender+json; charset=utf-8", 202),
        (b"<xml/>", "application/xml", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b" ", "text/plain", 202),
        (b"{}", "", 202),
        (b"text", "", 400),
        (b"{cut off", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"entities": "people"}', "application/json", 422),
        (b'{"entities": [1]}', "application/json", 422),
        (b'{"entities": ["nobody"]}', "application/json", 422),
        (b'{"streams": ["other.people"]}', "application/json", 422),
        (b'{"force_overwrite": true}', "application/json", 403),
        (b'{"allow_mass_delete": true}', "application/json", 403),
    ],
)
def test_bodies_of_senders(driver: Driver, api: Client, body: bytes, kind: str, status: int) -> None:
    """Any body is a message; one that asks for what there is not, or for what needs an admin, starts nothing."""
    answer = api.post(HOOK, headers=plain(body) | {"content-type": kind}, content=body)
    if status != 202:
        refused(answer, status)
    assert answer.status_code == status, answer.text
    assert len(runs(driver)) == (status == 202)


def test_a_sender_that_hangs_up_is_no_error(driver: Driver, api: Client) -> None:
    """A connection that goes in the middle of a message is a 400, no error of the log, and runs nothing."""
    for path in (HOOK, QSTASH, "/api/v1/runs"):
        with capture_logs() as captured:
            with api.connect() as link:
                link.sendall(
                    f"POST {path} HTTP/1.1\r\nHost: {api.base_url.host}\r\nContent-Type: application/json\r\n"
                    'Content-Length: 100\r\n\r\n{"entities": ["peo'.encode()
                )
            until = time.monotonic() + 5
            while not (told := [line for line in captured if line["method"] == "POST"]):
                assert time.monotonic() < until
                time.sleep(0.01)
        # The line of a request before, such as a look whether the server is up, may come late.
        assert [(line["event"], line["status"], line["log_level"]) for line in told] == [("request", 400, "info")]
    assert runs(driver) == []


def test_the_how_to_page_signs_as_printed(driver: Driver, api: Client) -> None:
    """What the page on webhooks has for a shell starts a run."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "webhooks.md").read_text(encoding="utf-8")
    script = re.search(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert script
    printed = script[1].replace("webhooks/agency", "webhooks/files").replace("talents", "people")
    variables = {"SYNCLINE_URL": api.url, "WEBHOOK_SECRET": CURRENT.decode()}
    ended = subprocess.run(
        ["bash", "-euc", printed], env=os.environ | variables, capture_output=True, text=True, check=True, timeout=30
    )
    (run,) = runs(driver)
    assert json.loads(ended.stdout)["run_id"] == run["run_id"]
    assert run["entities"] == ["people"]


# once


@pytest.mark.parametrize("place", [HOOK, QSTASH])
def test_a_repeat_answers_the_same_run_and_starts_nothing(driver: Driver, api: Client, place: str) -> None:
    """A delivery that comes again, signed anew or not, gets 200 and the run it started, whatever became of it."""
    headers = standard() if place == HOOK else qstash()
    first = api.post(place, headers=headers)
    driver.connection.execute("update syncline.runs set status = 'succeeded'")
    later = standard(age=-2) if place == HOOK else headers
    for again in (headers, later):
        answer = api.post(place, headers=again)
        assert (answer.status_code, answer.headers["location"]) == (200, first.headers["location"])
        assert answer.json() == {"run_id": first.json()["run_id"], "status": "succeeded", "is_repeat": True}
    assert len(runs(driver)) == 1


def test_a_plain_signature_is_taken_once(driver: Driver, api: Client) -> None:
    """Without an id of its own, timestamp and body are what a message is told by."""
    headers = plain()
    assert [api.post(HOOK, headers=headers).status_code for _ in range(3)] == [202, 200, 200]
    driver.connection.execute("update syncline.runs set status = 'succeeded'")
    assert api.post(HOOK, headers=plain(age=5)).status_code == 202
    assert len(runs(driver)) == 2


def test_repeats_at_the_same_moment_start_one_run(driver: Driver, api: Client) -> None:
    """Ten deliveries of one message at once: one run, and all are answered with it."""
    headers = standard()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: api.post(HOOK, headers=headers), range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert len(runs(driver)) == 1


def test_a_message_starts_one_run_of_each_source(driver: Driver) -> None:
    """A sender that gives one message the same id at two addresses starts both sources, each once."""
    file = driver.root / "models" / "sources.yml"
    declared = json.loads(file.read_text())
    other = json.loads(json.dumps(declared["sources"][0]).replace("files", "other"))
    file.write_text(json.dumps({"sources": [*declared["sources"], other]}))
    with in_process(driver, as_admin=False, webhook_secrets=(CURRENT,)) as api:
        places = [HOOK, "/api/v1/webhooks/other"]
        answers = [api.post(place, headers=standard()) for place in places + places]
    assert [answer.status_code for answer in answers] == [202, 202, 200, 200]
    numbers = [answer.json()["run_id"] for answer in answers]
    assert numbers == numbers[:2] * 2
    assert [(run["run_id"], run["sources"]) for run in runs(driver)] == [
        (numbers[0], ["files"]),
        (numbers[1], ["other"]),
    ]


def test_a_message_whose_run_was_refused_may_come_again(driver: Driver, api: Client) -> None:
    """A message counts as seen only together with its run: what failed can be delivered again."""
    with driver.connection.transaction():
        driver.connection.execute("update syncline.streams set is_declared = false")
    refused(api.post(HOOK, headers=standard()), 422)
    driver.connection.execute("update syncline.streams set is_declared = true")
    assert api.post(HOOK, headers=standard()).status_code == 202


def test_old_messages_are_forgotten(driver: Driver, api: Client) -> None:
    """Messages are kept for a week, far longer than a signature holds, and go as new ones come."""
    api.post(HOOK, headers=standard(message_id="old"))
    api.post(HOOK, headers=standard(message_id="recent"))
    driver.connection.execute(
        "update syncline.messages set received_at = received_at - interval '8 days' where message_id = 'old'"
    )
    api.post(HOOK, headers=standard(message_id="new"))
    kept = driver.connection.execute("select message_id from syncline.messages order by 1").fetchall()
    assert [row["message_id"] for row in kept] == ["new", "recent"]
    assert db.call_value(driver.connection, "prune_messages", "0 seconds") == 2


def test_long_and_strange_ids_are_told_apart(driver: Driver, api: Client) -> None:
    """An id of any length is kept as something short, and two long ones are two."""
    for message_id in ("m" * 3000 + "1", "m" * 3000 + "2"):
        assert api.post(HOOK, headers=standard(message_id=message_id)).status_code == 202
    kept = driver.connection.execute("select max(length(message_id)) as longest, count(*) from syncline.messages")
    assert kept.fetchone() == {"longest": 64, "count": 2}


# what others are told


def test_webhooks_that_do_not_fit_are_refused_in_clear_words(driver: Driver, api: Client) -> None:
    """A wrong key, a wrong time, a changed body, a missing or mangled header: each is told, none starts a run."""
    wrong_key = "no key that is set here made this signature"
    cases: list[tuple[dict[str, str], str]] = [
        (standard(secret=OTHER), wrong_key),
        (plain(secret=OTHER), wrong_key),
        (standard(b"other body"), wrong_key),
        (plain(b"other body"), wrong_key),
        (standard() | {"webhook-id": "msg_2"}, wrong_key),
        (standard() | {"webhook-timestamp": str(int(time.time()) - 60)}, wrong_key),
        (plain() | {"x-sync-timestamp": str(int(time.time()) - 60)}, wrong_key),
        (standard() | {"webhook-signature": "v1,not base64"}, wrong_key),
        (standard() | {"webhook-signature": "garbage"}, wrong_key),
        (plain() | {"x-sync-signature": "sha256="}, wrong_key),
        (standard(age=301), "the timestamp is too old"),
        (plain(age=301), "the timestamp is too old"),
        (standard(age=-320), "the timestamp is of the future"),
        (plain(age=-320), "the timestamp is of the future"),
        (standard() | {"webhook-timestamp": "soon"}, "the timestamp is no number of seconds"),
        (standard() | {"webhook-timestamp": "1e99"}, "the timestamp is no number of seconds"),
        ({}, "the header webhook-id is missing"),
        ({"webhook-signature": "v1,x"}, "the header webhook-id is missing"),
        ({"x-sync-signature": "sha256=00"}, "the header x-sync-timestamp is missing"),
    ]
    said = [refused(api.post(HOOK, headers=headers)) for headers, _ in cases]
    assert said == [words for _, words in cases]
    assert (
        refused(api.post(HOOK, headers=standard() | {"content-type": "application/json"}, content=b"\xff")) == wrong_key
    )
    assert runs(driver) == []
    assert driver.connection.execute("select * from syncline.messages").fetchall() == []


def test_calls_that_qstash_did_not_sign_so_are_refused_in_clear_words(driver: Driver, api: Client) -> None:
    """A wrong key, time, address, body or issuer, another algorithm, no signature: each is told, none starts a run."""
    wrong_key = "no key that is set here made this signature"
    now = int(time.time())
    unsigned = {"upstash-signature": jwt.encode({"iss": "Upstash", "sub": PUBLIC + QSTASH}, "", algorithm="none")}
    cases = [
        (qstash(key=OTHER_KEY), wrong_key),
        (qstash(iss="Somebody"), wrong_key),
        (unsigned, wrong_key),
        ({"upstash-signature": "garbage"}, wrong_key),
        (qstash(exp=now - 10), "the signature has expired"),
        (qstash(key=NEXT_KEY, exp=now - 10), "the signature has expired"),
        (qstash(nbf=now + 100), "the signature is of the future"),
        (qstash(path="/api/v1/qstash/other"), "the signature is for another address"),
        (qstash(sub="https://elsewhere.example.com" + QSTASH), "the signature is for another address"),
        (qstash(b"other body"), "the body is not the one that was signed"),
        ({}, "the header upstash-signature is missing"),
    ]
    said = [refused(api.post(QSTASH, headers=headers)) for headers, _ in cases]
    assert said == [words for _, words in cases]
    assert refused(api.post(QSTASH + "?x=1", headers=qstash())) == "the signature is for another address"
    assert runs(driver) == []


def test_an_unknown_source_is_told_to_known_senders_alone(driver: Driver, api: Client) -> None:
    """Who cannot sign learns nothing of the sources; who can is told which there are."""
    assert refused(api.post("/api/v1/webhooks/nothing")) == refused(api.post(HOOK))
    answer = api.post("/api/v1/webhooks/nothing", headers=standard())
    assert refused(answer, 404) == "there is no source named 'nothing'"
    assert answer.json()["hint"] == "Known here: files."


@pytest.mark.parametrize(
    ("place", "settings", "variable"),
    [
        (HOOK, {}, "SYNCLINE_WEBHOOK_SECRETS"),
        (QSTASH, {"public_url": PUBLIC}, "QSTASH_CURRENT_SIGNING_KEY"),
        (QSTASH, {"qstash_keys": (KEY,)}, "SYNCLINE_PUBLIC_URL"),
    ],
)
def test_what_is_not_set_up_says_which_variable_is_missing(
    driver: Driver, place: str, settings: dict[str, Any], variable: str
) -> None:
    """Without its variables an address believes nobody, and says which one to set."""
    with in_process(driver, as_admin=False, **settings) as api:
        answer = api.post(place, headers=standard() | qstash())
    refused(answer, 503)
    assert variable in answer.json()["hint"]


def test_refused_messages_count_as_refused_authorizations(driver: Driver) -> None:
    """Who guesses signatures is slowed down like who guesses tokens."""
    with in_process(driver, as_admin=False, webhook_secrets=(CURRENT,), failure_limit=3) as api:
        statuses = [api.post(HOOK, headers=standard(secret=OTHER)).status_code for _ in range(5)]
    assert statuses == [401] * 3 + [429] * 2


def test_signatures_are_compared_in_constant_time(driver: Driver, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of signature go through the comparison whose time tells nothing, one for each secret."""
    compared: list[object] = []
    compare = hmac.compare_digest

    def counted(one: Any, other: Any) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for headers in (plain(secret=OTHER), standard(secret=OTHER), plain()):
        api.post(HOOK, headers=headers)
    assert len(compared) == 6


# whatever is sent

SETTINGS = ApiSettings(webhook_secrets=(CURRENT,), qstash_keys=(KEY,), public_url=PUBLIC)
NAMES = (
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-sync-timestamp",
    "x-sync-signature",
    "upstash-signature",
)
# What a header can hold, as the server hands it on: bytes read as Latin-1.
HEADER = st.text(st.characters(max_codepoint=255), max_size=60) | st.just(str(int(time.time())))


@given(
    st.dictionaries(st.sampled_from(NAMES), HEADER),
    st.binary(max_size=60),
    st.sampled_from([verify_webhook, verify_qstash]),
)
def test_whatever_is_sent_is_refused_and_breaks_nothing(headers: dict[str, str], body: bytes, verify: Any) -> None:
    """Headers and bodies of any bytes end in a problem 401, in no other error."""
    with pytest.raises(Problem) as caught:
        verify(SETTINGS, headers, QSTASH, body)
    assert caught.value.status == 401


@given(st.data(), st.text(max_size=40), st.sampled_from([standard, plain, qstash]))
def test_a_change_of_any_part_is_noticed(data: st.DataObject, text: str, sign: Any) -> None:
    """A message is taken as it was signed; with one character of body, time or id changed it is not."""
    parts = sign(text.encode()) | {"body": text}
    verify = verify_qstash if sign is qstash else verify_webhook
    assert verify(SETTINGS, parts, QSTASH, text.encode())
    place = data.draw(st.sampled_from([name for name in parts if not name.endswith("-signature")]))
    part = parts[place]
    at = data.draw(st.integers(0, len(part)))
    letter = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    parts[place] = part[:at] + letter + part[at + data.draw(st.integers(0, 1)) :]
    assume(parts[place] != part)
    with pytest.raises(Problem):
        verify(SETTINGS, parts, QSTASH, parts["body"].encode())


@given(st.integers(0, 31), st.integers(1, 255))
def test_a_change_of_the_signature_is_noticed(at: int, change: int) -> None:
    """With any one byte of the HMAC changed, no message is taken."""
    hexed, based = plain(), standard()
    for headers, name, prefix, decode, encode in (
        (hexed, "x-sync-signature", "sha256=", bytes.fromhex, bytes.hex),
        (based, "webhook-signature", "v1,", base64.b64decode, lambda raw: base64.b64encode(raw).decode()),
    ):
        signature = bytearray(decode(headers[name].removeprefix(prefix)))
        signature[at] ^= change
        with pytest.raises(Problem):
            verify_webhook(SETTINGS, headers | {name: prefix + encode(bytes(signature))}, HOOK, b"")
