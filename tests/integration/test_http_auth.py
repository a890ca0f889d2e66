"""Credentials of the HTTP connector against a real server: cookies, OAuth 2 tokens, certificates, proxies, budgets."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from syncline import db
from syncline.config import convert
from syncline.connectors import Context
from syncline.connectors.http.connector import HttpConnector, HttpSource
from syncline.errors import ConfigurationError
from tests.http_api import SECRET, Api, Reply, Request, ids, rows

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


def test_auth_by_cookie(api: Api) -> None:
    """A key in a cookie goes with every request."""
    api.read(auth={"type": "api_key", "name": "session", "api_key": SECRET, "location": "cookie"})
    assert api.requests[0].headers["cookie"] == f"session={SECRET}"


def test_param_is_query(api: Api) -> None:
    """`param` is dlt's other word for `query`."""
    api.read(auth={"type": "api_key", "name": "key", "api_key": SECRET, "location": "param"})
    assert api.requests[0].query == {"key": SECRET}


# OAuth 2


class Login:
    """An API whose tokens are given at /token: each is `token-<n>`, good for `life` seconds."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.given = 0
        self.life: Any = 3600
        self.revoked: set[str] = set()
        self.lock = threading.Lock()
        api.answer = self.answer

    def answer(self, request: Request) -> Reply:
        if request.path == "/token":
            with self.lock:
                self.given += 1
                return Reply({"access_token": f"token-{self.given}", "expires_in": self.life})
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token.startswith("token-") or token in self.revoked:
            return Reply(status=401)
        page = int(request.query.get("page", "0"))
        return Reply({"pages": 3, "data": rows(page, page)})

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "type": "oauth2_client_credentials",
            "access_token_url": f"{self.api.url}/token",
            "client_id": "ada",
            "client_secret": SECRET,
        }

    def read(self, **auth: Any) -> list[int]:
        paginator = {"type": "page_number", "total_path": "pages"}
        return ids(self.api.read({"paginator": paginator}, auth={**self.settings, **auth}))


@pytest.fixture
def login(api: Api) -> Login:
    return Login(api)


def test_token_for_a_client(login: Login) -> None:
    """Id and secret are exchanged once for all pages."""
    assert login.read(access_token_request_data={"scope": "read all"}) == [0, 1, 2]
    asked = [request for request in login.api.requests if request.path == "/token"]
    assert [request.method for request in asked] == ["POST"]
    form = {name: values[0] for name, values in parse_qs(asked[0].body.decode()).items()}
    assert form == {
        "client_id": "ada",
        "client_secret": SECRET,
        "grant_type": "client_credentials",
        "scope": "read all",
    }


def test_token_is_renewed_before_it_expires(login: Login) -> None:
    """A token whose life is over by the next page is not used for it."""
    login.life = 0.001
    assert login.read() == [0, 1, 2]
    assert login.given >= 3


@pytest.mark.parametrize("life", [None, "3600"])
def test_token_whose_life_is_told_otherwise(login: Login, life: str | None) -> None:
    """A life that is not told, or told as text, is a life."""
    login.life = life
    assert login.read() == [0, 1, 2]
    assert login.given == 1


def test_token_that_is_refused_early(login: Login) -> None:
    """On 401 one other token is tried; a second refusal is the end."""
    login.revoked = {"token-1"}
    assert login.read() == [0, 1, 2]
    login.revoked = {f"token-{n}" for n in range(20)}
    login.given = 0
    assert "answered 401" in login.api.fail(auth=login.settings, concurrency=1).message
    assert login.given == 2


def test_token_that_threads_share(login: Login) -> None:
    """However many pages are under way, one token is asked for."""
    paginator = {"type": "page_number", "total_path": "pages"}
    login.api.read({"paginator": paginator}, auth=login.settings, concurrency=8)
    assert login.given == 1


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply({"error": "invalid_client", "error_description": SECRET}, 401), "answered 401 .*invalid_client"),
        (Reply({"error": "invalid scope: " + SECRET}, 400), "/token: answered 400 Bad Request$"),
        (Reply({"token": SECRET}), "the answer holds no access_token"),
        (Reply(b"<html>"), "the answer holds no access_token"),
        (Reply(status=503), "no access token from .*answered 503.*after 2 attempts"),
        (Reply(status=302, headers={"Location": "/login"}), "answered 302"),
    ],
)
def test_login_that_fails(api: Api, login: Login, reply: Reply, message: str) -> None:
    """What the token endpoint says is told by its code, and never the secret."""
    api.answer = lambda request: reply if request.path == "/token" else Reply([])
    error = api.fail(auth=login.settings, retries=2)
    assert_matches(message, error.message)
    assert error.hint


def assert_matches(pattern: str, text: str) -> None:
    import re

    assert re.search(pattern, text), text


def test_oauth_settings_show_no_secret(login: Login) -> None:
    """Nor do they where they are shown."""
    assert SECRET not in repr(convert({"base_url": "https://x", "auth": login.settings}, HttpSource, "source"))


def test_token_address_that_is_none(api: Api) -> None:
    """A token address that is none is found before anything is sent."""
    auth = {"type": "oauth2_client_credentials", "access_token_url": "login", "client_id": "a", "client_secret": "b"}
    with pytest.raises(ConfigurationError, match="access_token_url is no address"):
        api.read(auth=auth)


# Certificates


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "certificate.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", file, "-out", tmp_path / "c", *name]
    subprocess.run(made, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "c").read_bytes())
    return file


def serve_tls(api: Api, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    api.server.socket = context.wrap_socket(api.server.socket, server_side=True)
    return api.url.replace("http:", "https:")


@needs_openssl
def test_certificate_of_ones_own(api: Api, certificate: Path) -> None:
    """With ca_file a private authority is trusted; without it the error says why it is not."""
    url = serve_tls(api, certificate)
    error = api.fail(base_url=url, retries=1)
    assert "certificate is not trusted: self-signed certificate" in error.message
    assert "ca_file" in (error.hint or "")
    api.answer = lambda request: Reply(rows(1, 2))
    assert ids(api.read(base_url=url, ca_file=str(certificate))) == [1, 2]


def test_certificates_that_cannot_be_read(api: Api, tmp_path: Path) -> None:
    """A ca_file that is not there, or no certificate, is a wrong setting."""
    (tmp_path / "empty.pem").write_text("nothing")
    for file in ("missing.pem", "empty.pem"):
        with pytest.raises(ConfigurationError, match="cannot be read as certificates"):
            api.read(ca_file=str(tmp_path / file))


# Proxies


def test_proxy_of_the_environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names gets the request, whole address and all."""
    monkeypatch.setenv("HTTP_PROXY", api.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    api.answer = lambda request: Reply(rows(1, 2))
    assert ids(api.read(base_url="http://api.invalid/v1")) == [1, 2]
    assert api.requests[0].headers["host"] == "api.invalid"


# Budgets


class Budget(Context):
    """Takes the requests of a connector out of the budget that is in a database."""

    def __init__(self, dsn: str) -> None:
        super().__init__(Path())
        self.dsn = dsn
        self.waits: list[float] = []

    def reserve(self, budget: str, requests: int, seconds: float) -> float:
        with db.connect(self.dsn) as connection:
            self.waits.append(float(db.call_value(connection, "reserve_request", budget, requests, seconds)))
        return self.waits[-1]


def test_no_more_requests_than_the_budget_has(api: Api, database: str) -> None:
    """Two connectors share one host's budget: of five requests with two a half second, the fifth waits a second."""
    at: list[float] = []

    def answer(request: Request) -> Reply:
        at.append(time.monotonic())
        return Reply([])

    api.answer = answer
    for count in (3, 2):
        context = Budget(database)
        settings = {"base_url": api.url, "rate_limit": {"requests": 2, "seconds": 0.5}}
        connector = HttpConnector(convert(settings, HttpSource, "source"), context)
        for _ in range(count):
            api.read_with(connector)
        assert len(context.waits) == count
        connector.close()
    assert at[4] - at[0] >= 0.9


# Messages


def test_retries_say_what_why_and_when(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """One line for each wait: the page, the cause, the number of the attempt and the seconds until then."""
    api.answer = lambda request: Reply(status=503) if len(api.requests) == 1 else Reply([])
    with caplog.at_level(logging.WARNING):
        api.read({"params": {"key": SECRET}})
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        f"agency.talents: GET {api.url}/v1/talents: answered 503 Service Unavailable; attempt 2 in 0.0 s"
    )


def test_host_that_is_not_found(api: Api) -> None:
    """A host without an address is named as such."""
    message = api.fail(base_url="http://nowhere.invalid", retries=1).message
    assert (
        "GET http://nowhere.invalid/talents: the connection failed: the host was not found, after 1 attempt" in message
    )
