"""The HTTP connector against a real server on loopback: whole answers, or an error that says what to do."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from syncline.config import convert
from syncline.connectors import Context, Fetch
from syncline.connectors.http.connector import HttpConnector, HttpSource, HttpStream
from syncline.errors import ConfigurationError, SourceError
from tests.http_api import SECRET, STREAM, Answer, Api, Reply, Request, ids, rows


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


# What is asked


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "bearer", "token": SECRET}, "authorization", f"Bearer {SECRET}"),
        ({"type": "api_key", "name": "X-Key", "api_key": SECRET}, "x-key", SECRET),
        (
            {"type": "http_basic", "username": "ada", "password": SECRET},
            "authorization",
            "Basic " + base64.b64encode(f"ada:{SECRET}".encode()).decode(),
        ),
    ],
    ids=["bearer", "api_key", "http_basic"],
)
def test_auth_by_header(api: Api, auth: dict[str, str], header: str, value: str) -> None:
    """Each kind of credentials arrives in its header."""
    api.read(auth=auth)
    assert api.requests[0].headers[header] == value


def test_auth_by_query(api: Api) -> None:
    """A key in the query goes with every page, links included, once."""
    links = {"1": f"/v1/talents?page=2&key={SECRET}", "2": "/v1/talents?page=3", "3": None}

    def answer(request: Request) -> Reply:
        page = request.query.get("page", "1")
        return Reply({"data": [{"id": int(page)}], "next": links[page]})

    api.answer = answer
    auth = {"type": "api_key", "name": "key", "api_key": SECRET, "location": "query"}
    assert ids(api.read({"paginator": {"type": "json_link"}}, auth=auth)) == [1, 2, 3]
    assert [request.query for request in api.requests] == [
        {"key": SECRET},
        {"page": "2", "key": SECRET},
        {"page": "3", "key": SECRET},
    ]


@pytest.mark.parametrize("token", [SECRET + "\n", SECRET + "é"])
def test_credentials_that_no_header_can_hold(api: Api, token: str) -> None:
    """A token with a line break is refused before anything is sent, and is not shown."""
    with pytest.raises(ConfigurationError, match="line break") as caught:
        api.read(auth={"type": "bearer", "token": token})
    assert SECRET not in str(caught.value)
    assert api.requests == []


def test_request(api: Api) -> None:
    """Path, params, headers, method and body come from source and stream; the stream's win."""
    stream = {
        "method": "POST",
        "json": {"query": "all"},
        "params": {"a": 2, "c": True, "d": ["x", "y"]},
        "headers": {"X-B": "2"},
    }
    api.read(stream, params={"a": 1, "b": "ä&"}, headers={"X-A": "1", "X-B": "1"})
    (request,) = api.requests
    assert (request.method, request.path, json.loads(request.body)) == ("POST", "/v1/talents", {"query": "all"})
    assert request.query == {"a": "2", "b": "ä&", "c": "true", "d": "y"}
    assert (request.headers["x-a"], request.headers["x-b"]) == ("1", "2")


def test_user_in_the_address(api: Api) -> None:
    """A user and password in base_url are sent as basic authentication, and are not shown."""
    api.answer = lambda request: Reply(status=404)
    api.fail(base_url=api.url.replace("//", f"//ada:{SECRET}@"))
    assert api.requests[0].headers["authorization"].startswith("Basic ")


def test_logs_hold_no_secret(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Neither credentials nor query values reach a log, at any level, retries included."""
    caplog.set_level(logging.DEBUG)
    api.answer = lambda request: Reply(status=503)
    auth = {"type": "api_key", "name": "key", "api_key": SECRET, "location": "query"}
    api.fail({"params": {"other": SECRET}, "headers": {"X-Key": SECRET}}, auth=auth, retries=2)
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert "answered 503" in logged
    assert SECRET not in logged


def test_settings_show_no_secret() -> None:
    """Credentials do not appear where settings are shown."""
    for auth in (
        {"type": "bearer", "token": SECRET},
        {"type": "api_key", "api_key": SECRET},
        {"type": "http_basic", "username": "ada", "password": SECRET},
    ):
        assert SECRET not in repr(convert({"base_url": "https://x", "auth": auth}, HttpSource, "source"))


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "api.example.org"},
        {"base_url": "file:///etc/passwd"},
        {"base_url": "https://x/v1?key=1"},
        {"base_url": "https://x", "auth": {"type": "bearer", "token": "x", "tokn": "y"}},
        {"base_url": "https://x", "paginator": {"type": "page_number", "base_page": 1, "page_size": 3}},
        {"base_url": "https://x", "retries": 0},
    ],
)
def test_wrong_settings(settings: dict[str, Any]) -> None:
    """Wrong settings are found before anything is sent."""
    with pytest.raises(ConfigurationError):
        HttpConnector(convert(settings, HttpSource, "source"), Path())


# Where the records are


@pytest.mark.parametrize(
    ("body", "selector", "records"),
    [
        (b' [ {"id": 1.10} , {"id":2}]\n', None, [b'{"id": 1.10}', b'{"id":2}']),
        (b'\xef\xbb\xbf[{"id":1}]', None, [b'{"id":1}']),
        (b'{"data": [{"id":1}], "n": 1}', None, [b'{"id":1}']),
        (b'{"a": {"b c": [{"id":1}], "x": []}, "x": [1]}', "$.a.b c", [b'{"id":1}']),
        (b'{"a": {"id": 1}}', "a", [b'{"id": 1}']),
        (b'{"id": 1}', "$", [b'{"id": 1}']),
        (b'{"a": null}', "a", []),
        (b"[]", None, []),
        (b'{"data": []}', None, []),
    ],
)
def test_records(api: Api, body: bytes, selector: str | None, records: list[bytes]) -> None:
    """The records are found at the top, in the one array there, or where data_selector says; to the byte."""
    api.answer = lambda request: Reply(body)
    assert api.read({"data_selector": selector} if selector else {}) == records


@pytest.mark.parametrize("bad", [b"[" * 10_000 + b"]" * 10_000, b'{"id": NaN}', b'{"id": "\\x"}', b'{"id": "\xff"}'])
@pytest.mark.parametrize("wrap", [b'[{"id":1},%s,{"id":3}]', b'{"total": 3, "data": [{"id":1},%s,{"id":3}]}'])
def test_bad_record_costs_no_other(api: Api, bad: bytes, wrap: bytes) -> None:
    """A record that is broken or nested too deep is yielded raw between its neighbours."""
    api.answer = lambda request: Reply(wrap % bad)
    assert api.read() == [b'{"id":1}', bad, b'{"id":3}']


@pytest.mark.parametrize(
    ("body", "selector", "message"),
    [
        (b'{"a": [], "b": []}', None, "2 arrays of objects at its top"),
        (b'{"error": "no"}', None, "0 arrays of objects at its top"),
        (b'{"a": []}', "b", "has no 'b'"),
        (b'{"a": []}', "a.b", "has no 'a.b'"),
        (b'{"a": 1}', "a", "neither an array nor an object"),
        (b'[{"id":1},{"id":2}', None, "cut off"),
        (b'{"data":[{"id":1}]', None, "cut off"),
        (b"[1] 2", None, "the end is expected"),
        (b"", None, "answered 200 with application/json, and no JSON"),
    ],
)
def test_answers_without_records(api: Api, body: bytes, selector: str | None, message: str) -> None:
    """An answer whose records cannot be told, or that is not whole JSON, is an error."""
    api.answer = lambda request: Reply(body)
    assert message in api.fail({"data_selector": selector} if selector else {}).message


def test_html_instead_of_json(api: Api) -> None:
    """A login page is an error with status, content type and address, without the query."""
    api.answer = lambda request: Reply(b"<html>Log in</html>", headers={"Content-Type": "text/html"})
    error = api.fail({"params": {"token": SECRET}})
    assert "answered 200 with text/html" in error.message
    assert f"GET {api.url}/v1/talents:" in error.message


def test_no_content(api: Api) -> None:
    """204 has no records; whether that is right is the loader's to say."""
    api.answer = lambda request: Reply(status=204)
    assert api.read() == []


# Pages


def paged(total: int, size: int = 2) -> Answer:
    def answer(request: Request) -> Reply:
        first = (int(request.query["page"]) - 1) * size + 1
        return Reply({"pages": -(-total // size), "data": rows(first, min(first + size - 1, total))})

    return answer


@pytest.mark.parametrize("total", [0, 1, 4, 5])
def test_page_number(api: Api, total: int) -> None:
    """Pages are read up to the first empty one, or to the number of pages where that is told."""
    api.answer = paged(total)
    assert ids(api.read({"paginator": {"type": "page_number", "base_page": 1}})) == list(range(1, total + 1))
    api.requests.clear()
    assert ids(api.read(paginator={"type": "page_number", "base_page": 1, "total_path": "pages"})) == list(
        range(1, total + 1)
    )
    assert len(api.requests) == max(-(-total // 2), 1)


def test_page_number_stays_below_the_maximum(api: Api) -> None:
    """`maximum_page` ends the load there, as in dlt."""
    api.answer = paged(10)
    assert ids(api.read({"paginator": {"type": "page_number", "base_page": 1, "maximum_page": 3}})) == [1, 2, 3, 4]


@pytest.mark.parametrize("empty", [2, 3])
def test_page_number_with_an_empty_page(api: Api, empty: int) -> None:
    """An empty page where there should be more is half an answer."""
    api.answer = lambda request: (
        Reply({"pages": 3, "data": []}) if request.query["page"] == str(empty) else paged(6)(request)
    )
    error = api.fail({"paginator": {"type": "page_number", "base_page": 1, "total_path": "pages"}})
    assert f"page {empty} is empty, and there should be 3 pages" in error.message


def test_total_that_is_missing(api: Api) -> None:
    """A total_path that leads nowhere is an error, not an end."""
    api.answer = paged(6)
    assert (
        "leads to no number"
        in api.fail({"paginator": {"type": "page_number", "base_page": 1, "total_path": "meta.pages"}}).message
    )


def sliced(total: int, cap: int = 100, told: int | None = None) -> Answer:
    def answer(request: Request) -> Reply:
        offset, limit = int(request.query["start"]), min(int(request.query["limit"]), cap)
        found = rows(offset + 1, min(offset + limit, total))
        return Reply({"meta": {"total": total if told is None else told}, "data": found})

    return answer


@pytest.mark.parametrize("cap", [100, 2])
@pytest.mark.parametrize("total", [0, 3, 6, 7])
def test_offset(api: Api, total: int, cap: int) -> None:
    """Records are counted to the total or the first empty page; an API that caps the limit loses none."""
    api.answer = sliced(total, cap)
    paginator = {"type": "offset", "limit": 3, "offset_param": "start"}
    assert ids(api.read({"paginator": paginator})) == list(range(1, total + 1))
    assert ids(api.read({"paginator": {**paginator, "total_path": "meta.total"}})) == list(range(1, total + 1))


def test_offset_with_fewer_records_than_told(api: Api) -> None:
    """Fewer records than the API says there are is half an answer."""
    api.answer = sliced(5, told=9)
    paginator = {"type": "offset", "limit": 3, "offset_param": "start", "total_path": "meta.total"}
    assert "5 records came, and there should be 9" in api.fail({"paginator": paginator}).message


def test_offset_stays_below_the_maximum(api: Api) -> None:
    """`maximum_offset` ends the load there."""
    api.answer = sliced(9)
    paginator = {"type": "offset", "limit": 3, "offset_param": "start", "maximum_offset": 6}
    assert ids(api.read({"paginator": paginator})) == [1, 2, 3, 4, 5, 6]


def test_cursor(api: Api) -> None:
    """Each answer's cursor asks for the next; an empty page in between is no end."""
    pages = {"": ([1, 2], "a b"), "a b": ([], 3), "3": ([4], None)}

    def answer(request: Request) -> Reply:
        found, following = pages[request.query.get("after", "")]
        return Reply({"data": [{"id": number} for number in found], "meta": {"next": following}})

    api.answer = answer
    paginator = {"type": "cursor", "cursor_path": "meta.next", "cursor_param": "after"}
    assert ids(api.read({"paginator": paginator})) == [1, 2, 4]


def test_json_link(api: Api) -> None:
    """Links are followed, relative and absolute, as they are: the stream's own params are not added again."""
    links = {"/v1/talents": "/v1/b?page=2", "/v1/b": f"{api.url}/v1/c", "/v1/c": None}
    api.answer = lambda request: Reply({"data": [{"id": request.path}], "links": {"next": links[request.path]}})
    records = api.read({"params": {"x": 1}, "paginator": {"type": "json_link", "next_url_path": "links.next"}})
    assert [json.loads(record)["id"] for record in records] == ["/v1/talents", "/v1/b", "/v1/c"]
    assert [request.query for request in api.requests] == [{"x": "1"}, {"page": "2"}, {}]


def test_header_link(api: Api) -> None:
    """The header Link with rel=next is followed."""

    def answer(request: Request) -> Reply:
        page = int(request.query.get("page", "1"))
        links = f'<{api.url}/v1/talents?page=1>; rel="first"'
        if page < 3:
            links += f', <?page={page + 1}>; rel="next"'
        return Reply(rows(page, page), headers={"Link": links})

    api.answer = answer
    assert ids(api.read({"paginator": {"type": "header_link"}})) == [1, 2, 3]


def test_single_page_is_the_default(api: Api) -> None:
    """Without a paginator one request is made; the stream's paginator takes the place of the source's."""
    api.read()
    assert len(api.requests) == 1
    api.answer = lambda request: Reply(rows(1, 1))
    api.read({"paginator": {"type": "single_page"}}, paginator={"type": "page_number", "base_page": 1})
    assert len(api.requests) == 2


# Circles


@pytest.mark.parametrize(
    "paginator",
    [{"type": "page_number", "base_page": 1}, {"type": "offset", "limit": 2}],
    ids=["page_number", "offset"],
)
def test_page_that_comes_again(api: Api, paginator: dict[str, Any]) -> None:
    """An API that does not know the parameter gives its first page for ever; that is noticed."""
    api.answer = lambda request: Reply({"at": time.time_ns(), "data": rows(1, 2)})
    assert "two pages in a row have the same records" in api.fail({"paginator": paginator}).message


@pytest.mark.parametrize(
    ("paginator", "following"),
    [
        ({"type": "cursor", "cursor_path": "next"}, ["a", "b", "a"]),
        ({"type": "json_link"}, ["/v1/a", "/v1/b", "/v1/a"]),
        ({"type": "json_link"}, ["/v1/talents"]),
    ],
)
def test_pages_that_go_round_in_a_circle(api: Api, paginator: dict[str, str], following: list[str]) -> None:
    """A cursor or address that was there before is an error."""
    api.answer = lambda request: Reply({"data": rows(len(api.requests), len(api.requests)), "next": following.pop(0)})
    assert "go round in a circle" in api.fail({"paginator": paginator}).message


def test_circle_behind_many_pages(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last pages are remembered: a circle is noticed once all of it lies among them."""
    monkeypatch.setattr("syncline.connectors.http.reading._REMEMBERED", 3)
    api.answer = lambda request: Reply(
        {"data": rows(len(api.requests), len(api.requests)), "next": "abcdefagag"[len(api.requests) - 1]}
    )
    assert "go round in a circle" in api.fail({"paginator": {"type": "cursor", "cursor_path": "next"}}).message
    assert len(api.requests) == 9


# Refusals and failures


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [(401, "answered 401", "auth"), (403, "answered 403", "auth"), (404, "not found", "path"), (400, "400", "params")],
)
def test_refusals_are_not_retried(api: Api, status: int, message: str, hint: str) -> None:
    """A refusal is an error at once, with what to check, and shows neither credentials nor query."""
    api.answer = lambda request: Reply({"error": SECRET}, status)
    error = api.fail({"params": {"key": SECRET}}, auth={"type": "bearer", "token": SECRET})
    assert message in error.message
    assert hint in (error.hint or "")
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_servers_are_asked_again(api: Api, status: int) -> None:
    """A failure in the middle of the pages is tried again, and no page comes twice."""

    def answer(request: Request) -> Reply:
        is_first = sum(one.query == request.query for one in api.requests) == 1
        return Reply(status=status) if is_first and request.query["page"] == "2" else paged(5)(request)

    api.answer = answer
    assert ids(api.read({"paginator": {"type": "page_number", "base_page": 1, "total_path": "pages"}})) == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert len(api.requests) == 4


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after(api: Api, form: str) -> None:
    """The wait that the server asks for is kept, as seconds or as a date."""
    times: list[float] = []

    def answer(request: Request) -> Reply:
        times.append(time.monotonic())
        value = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
        return Reply([], 429, {"Retry-After": value}) if len(times) == 1 else Reply(rows(1, 1))

    api.answer = answer
    assert ids(api.read()) == [1]
    assert times[1] - times[0] >= 0.9


def test_retry_after_longer_than_the_longest_wait(api: Api) -> None:
    """A server that asks for a wait of an hour ends the load now, not in an hour."""
    api.answer = lambda request: Reply(status=429, headers={"Retry-After": "3600"})
    message = api.fail().message
    assert "answered 429 Too Many Requests, after 1 attempt; it asks to wait 3600 s" in message


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Retry-After": "soon"}])
def test_busy_for_ever(api: Api, headers: dict[str, str]) -> None:
    """When all attempts are used up, the error counts them."""
    api.answer = lambda request: Reply(status=429, headers=headers)
    assert "after 3 attempts" in api.fail(retries=3).message
    assert len(api.requests) == 3


def test_connection_cut_within_the_body(api: Api) -> None:
    """A body that ends before its length is no page: it is fetched again, and in the end an error."""
    whole = json.dumps(rows(1, 3)).encode()
    api.answer = lambda request: Reply(whole[:12], length=len(whole)) if len(api.requests) == 1 else Reply(whole)
    assert ids(api.read()) == [1, 2, 3]
    api.answer = lambda request: Reply(whole[:12], length=len(whole))
    assert "the connection was cut: before the answer's end, after 2 attempts" in api.fail(retries=2).message


def test_no_server(api: Api) -> None:
    """A server that is not there is an error that counts the attempts."""
    assert (
        "the connection failed: refused, after 2 attempts" in api.fail(base_url="http://127.0.0.1:9", retries=2).message
    )


def test_no_answer_in_time(api: Api) -> None:
    """A server that does not answer is not waited for longer than the timeout."""
    api.answer = lambda request: time.sleep(0.3) or Reply([])
    assert "no answer within 0.05 s, after 2 attempts" in api.fail(timeout=0.05, retries=2).message


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_answer_over_the_limit(api: Api, encoding: str) -> None:
    """An answer that is too long, once unpacked, is refused and not held."""
    body = json.dumps(rows(1, 100_000)).encode()
    packed = gzip.compress(body) if encoding == "gzip" else body
    api.answer = lambda request: Reply(packed, headers={"Content-Encoding": encoding})
    assert len(api.read()) == 100_000
    assert "longer than 100000 bytes" in api.fail(max_response_bytes=100_000).message
    assert len(api.requests) == 2


# Other hosts


def test_redirect_within_the_origin(api: Api) -> None:
    """A redirect to the same host and port is followed, with credentials."""
    api.answer = lambda request: (
        Reply(status=307, headers={"Location": "/v2/talents?a=1"})
        if request.path == "/v1/talents"
        else Reply(rows(1, 1))
    )
    assert ids(api.read(auth={"type": "bearer", "token": SECRET})) == [1]
    assert [request.headers["authorization"] for request in api.requests] == [f"Bearer {SECRET}"] * 2
    api.answer = lambda request: Reply(status=302, headers={"Location": request.path})
    assert "redirected more than" in api.fail().message


def test_redirect_to_another_host(api: Api) -> None:
    """A redirect elsewhere is an error, and the other host is never asked."""
    other = Api()
    try:
        api.answer = lambda request: Reply(status=302, headers={"Location": f"{other.url}/x?token={SECRET}"})
        error = api.fail(auth={"type": "bearer", "token": SECRET})
        assert f"redirected to another host, {other.url}" in error.message
        assert other.requests == []
    finally:
        other.close()


@pytest.mark.parametrize("link", ["http://127.0.0.1:9/x", "https://127.0.0.1/x", "//elsewhere.example/x"])
def test_link_to_another_host(api: Api, link: str) -> None:
    """A next page on another host is an error: credentials would go with it."""
    api.answer = lambda request: Reply({"data": rows(1, 1), "next": link})
    assert "the next page is on another host" in api.fail({"paginator": {"type": "json_link"}}).message


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_certificate_that_is_not_trusted(api: Api, tmp_path: Path) -> None:
    """A server that cannot prove who it is gets no request and no second attempt."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        certificate,
        *subject,
    ]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    api.server.socket = context.wrap_socket(api.server.socket, server_side=True)
    assert "certificate is not trusted" in api.fail(base_url=api.url.replace("http:", "https:")).message
    assert api.requests == []


# Increments


INCREMENTAL = {"cursor_path": "meta.at", "start_param": "since"}


def changes(*pages: list[Any]) -> Answer:
    def answer(request: Request) -> Reply:
        number = int(request.query["page"]) - 1
        found = pages[number] if number < len(pages) else []
        return Reply([{"id": number, "n": place, "meta": {"at": at}} for place, at in enumerate(found)])

    return answer


def increment(api: Api, cursor: dict[str, Any] | None = None, **incremental: Any) -> list[dict[str, Any] | None]:
    stream = {"paginator": {"type": "page_number", "base_page": 1}, "incremental": {**INCREMENTAL, **incremental}}
    return [page.cursor for page in api.read_pages(stream, cursor)]


def test_increment_asks_from_where_it_was(api: Api) -> None:
    """The first load asks with the initial value, later ones with the saved one, on every page."""
    api.answer = changes(["2024-02-01"])
    assert increment(api, initial_value="2024-01-01")[-1] == {"value": "2024-02-01"}
    assert increment(api, {"value": "2024-02-01"}, initial_value="2024-01-01")[-1] == {"value": "2024-02-01"}
    increment(api)
    assert [request.query.get("since") for request in api.requests[::2]] == ["2024-01-01", "2024-02-01", None]


@pytest.mark.parametrize(
    ("values", "highest"),
    [([9, 10, 2.5], 10), (["9", "10"], "9"), ([3, None], 3), ([10**20, 1e3], 10**20)],
)
def test_increment_keeps_the_greatest_value(api: Api, values: list[Any], highest: Any) -> None:
    """Numbers compare as numbers, strings by their characters; a record without a value is passed over."""
    api.answer = changes(values)
    assert increment(api)[-1] == {"value": highest}


@pytest.mark.parametrize(
    ("values", "highest"),
    [
        (["2026-01-01T12:00:00+02:00", "2026-01-01T11:00:00Z"], "2026-01-01T11:00:00Z"),
        (["2026-01-01T10:00:00.5Z", "2026-01-01T10:00:00Z"], "2026-01-01T10:00:00.5Z"),
        (["2026-01-01T10:00:00.123456789Z", "2026-01-01T10:00:00.123456788Z"], "2026-01-01T10:00:00.123456789Z"),
        (["2026-01-02", "2026-01-01T23:59:59Z"], "2026-01-02"),
        (["2026-01-01 10:00:00", "2026-01-01T09:00:00"], "2026-01-01 10:00:00"),
        (["v10", "v9"], "v9"),
    ],
)
def test_increment_compares_times_as_times(api: Api, values: list[str], highest: str) -> None:
    """Whatever the zone and the precision; the cursor is as the source wrote it. Other text compares as text."""
    api.answer = changes(values)
    assert increment(api)[-1] == {"value": highest}
    api.answer = changes(*[[value] for value in reversed(values)])
    assert increment(api)[-1] == {"value": highest}


@pytest.mark.parametrize(
    ("last", "lag", "asked"),
    [
        (100, 7, "93"),
        (2.5, 1, "1.5"),
        ("2026-03-01T00:00:30Z", 60, "2026-02-28T23:59:30Z"),
        ("2026-03-01T00:00:30.250+01:00", 0.5, "2026-03-01T00:00:29.750+01:00"),
        ("2026-03-01T00:00:30.123456", 1, "2026-03-01T00:00:29.123456"),
        ("2026-03-01 00:00:30", 31, "2026-02-28 23:59:59"),
        ("2026-03-01", 1, "2026-02-28"),
    ],
)
def test_lag(api: Api, last: Any, lag: float, asked: str) -> None:
    """The start lies so much before the last value, written as the source writes it, and not before the first."""
    api.answer = changes([last])
    assert increment(api, {"value": last}, lag=lag)[-1] == {"value": last}
    increment(api, {"value": last}, lag=lag, initial_value=last)
    assert [request.query["since"] for request in api.requests[::2]] == [asked, str(last)]


def test_lag_of_no_time(api: Api) -> None:
    """A cursor that is neither a number nor a time has nothing before it."""
    with pytest.raises(ConfigurationError, match="no lag can be taken"):
        increment(api, {"value": "v9"}, lag=1)


@pytest.mark.parametrize(
    ("end", "values", "kept"),
    [
        (5, [4, 5, 6], 2),
        ("2026-01-31", ["2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z", None], 2),
        ("2026-01-31T10:00:00Z", ["2026-01-31T11:00:00+01:00", "2026-01-31T11:00:01+01:00"], 1),
        ("b", ["a", "b", "c"], 2),
    ],
)
def test_end_of_the_range(api: Api, end: Any, values: list[Any], kept: int) -> None:
    """Records after end_value are dropped, unless the API was told; a date is included with all its day."""
    api.answer = changes(values)
    stream = {"paginator": "single_page", "params": {"page": 1}, "incremental": {**INCREMENTAL, "end_value": end}}
    (page,) = api.read_pages(stream)
    assert (len(page.records), page.cursor) == (
        kept,
        {"value": [v for v in values if v is not None][kept - 1 - (None in values)]},
    )
    (page,) = api.read_pages({**stream, "incremental": {**stream["incremental"], "end_param": "until"}})
    assert len(page.records) == len(values)
    assert api.requests[-1].query["until"] == str(end)


def test_range_that_does_not_fit_the_cursor(api: Api) -> None:
    """A range of times and a cursor of numbers cannot be compared."""
    api.answer = changes([1])
    with pytest.raises(ConfigurationError, match="ends at something that is no number"):
        increment(api, end_value="2026-01-31")


def test_placeholders_of_an_increment(api: Api) -> None:
    """The start may go into path, params, headers and body; a parameter without a value yet is left out."""
    stream = {
        "path": "/changes/{incremental.initial_value}",
        "method": "POST",
        "params": {"filter": "at > {incremental.start_value}", "sort": "{id}"},
        "headers": {"X-Since": "{incremental.last_value}"},
        "json": {"since": "{incremental.start_value}", "query": "{ a { b } }", "until": "{incremental.end_value}"},
        "incremental": {"cursor_path": "at", "initial_value": "2026/1"},
        "paginator": "single_page",
    }
    api.read_pages(stream, {"value": 7})
    stream["incremental"] = {"cursor_path": "at"}
    with pytest.raises(ConfigurationError, match="its path needs a value"):
        api.read_pages(stream)
    api.read_pages({**stream, "path": "/changes"})
    first, second = api.requests
    assert first.path == "/v1/changes/2026%2F1"
    assert first.query == {"filter": "at > 7", "sort": "{id}"}
    assert json.loads(first.body) == {"since": 7, "query": "{ a { b } }", "until": None}
    assert first.headers["x-since"] == "7"
    assert second.query == {"sort": "{id}"}


def test_increment_that_asks_with_nothing(api: Api) -> None:
    """An increment that does not say where it begins is a wrong setting."""
    with pytest.raises(ConfigurationError, match="has no start_param"):
        api.read_pages({"incremental": {"cursor_path": "at"}})


def test_increment_moves_the_cursor_with_its_last_page(api: Api) -> None:
    """Records may come newest first: a load that is cut off must not go on from the first page's greatest value."""
    api.answer = changes([9, 8], [7, 6])
    assert increment(api, {"value": 5}) == [None, None, {"value": 9}]
    api.answer = changes([6, 7], [8, 9])
    assert increment(api, {"value": 5}, row_order="asc") == [{"value": 7}, {"value": 9}, {"value": 9}]


def test_increment_without_changes(api: Api) -> None:
    """An increment without records keeps the cursor."""
    api.answer = changes()
    assert increment(api, {"value": 5}) == [{"value": 5}]
    assert increment(api) == [None]


@pytest.mark.parametrize("values", [[1, "2"], ["2", 1], [True], [[1]]])
def test_increment_of_mixed_values(api: Api, values: list[Any]) -> None:
    """Values that cannot be compared are an error."""
    api.answer = changes(values)
    with pytest.raises(SourceError, match="not all strings or all numbers"):
        increment(api)


def test_is_increment() -> None:
    """A stream brings increments if and only if it says how."""
    connector = HttpConnector(HttpSource(base_url="https://x"), Context(Path()))
    assert connector.is_increment(STREAM, convert({"path": "x", "incremental": INCREMENTAL}, HttpStream, "stream"))
    assert not connector.is_increment(STREAM, HttpStream(path="x"))
    connector.close()


def test_streams_are_read_side_by_side(api: Api) -> None:
    """One connector serves the threads of all its streams."""
    api.answer = paged(40)
    connector = HttpConnector(HttpSource(base_url=f"{api.url}/v1"), Context(Path()))
    shape = convert({"path": "talents", "paginator": {"type": "page_number", "base_page": 1}}, HttpStream, "stream")
    fetch = Fetch(stream=STREAM, settings=shape)
    found: list[list[int]] = []

    def work() -> None:
        found.append(ids([record for page in connector.read(fetch) for record in page.records]))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connector.close()
    assert found == [list(range(1, 41))] * 6
