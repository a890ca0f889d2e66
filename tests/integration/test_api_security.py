"""Who the API lets in and what it takes of them: tokens, roles, sizes, rates, origins, and that no secret shows."""

from __future__ import annotations

import gzip
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from syncline import tokens
from syncline.api import auth, limits
from syncline.tokens import Created, Role, create_token, revoke_token
from tests.driver import Driver, people
from tests.serving import KEY, Client, bearer, in_process

OPEN = {"/healthz", "/readyz", "/api/v1/webhooks/{source}", "/api/v1/qstash/{source}"}
"""Routes that ask for no token: health, and those that ask for a signature."""

RECORDS = "/api/v1/streams/files/people/records"


ADMIN = bearer(KEY)


def make(driver: Driver, role: Role, **options: Any) -> Created:
    return create_token(driver.connection, f"a-{role}", role, **options)


@pytest.fixture
def api(driver: Driver) -> Iterator[Client]:
    with in_process(driver, as_admin=False) as opened:
        yield opened


# tokens and roles


def test_every_route_asks_for_a_token(api: Client) -> None:
    """Without one, and with a wrong one, each route but those named answers 401, and the document says so."""
    document = api.get("/api/v1/openapi.json").json()
    routes = [
        (method.upper(), path, described)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
        if path not in OPEN
    ]
    assert len(routes) > 20
    for method, path, described in routes:
        place = path.replace("{run_id}", "1").replace("{", "").replace("}", "")
        for headers in ({}, bearer("sync_1_" + "x" * 43), {"x-sync-secret": "wrong"}):
            answer = api.request(method, place, headers=headers)
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert [set(way) for way in described["security"]] == [{"Bearer"}, {"x-sync-secret"}], (method, path)
        assert "401" in described["responses"]
    assert {"Bearer", "x-sync-secret"} <= set(document["components"]["securitySchemes"])


@pytest.mark.parametrize(
    ("role", "statuses"),
    [
        ("viewer", {"read": 200, "run": 403, "set aside": 403}),
        ("operator", {"read": 200, "run": 202, "set aside": 403}),
        ("admin", {"read": 200, "run": 202, "set aside": 202}),
    ],
)
@pytest.mark.parametrize("header", ["authorization", "x-sync-secret"])
def test_each_role_may_what_those_below_it_may(
    driver: Driver, api: Client, role: Role, statuses: dict[str, int], header: str
) -> None:
    """A viewer reads, an operator also runs, an admin also sets guards aside; by either header."""
    token = make(driver, role).token
    headers = {header: f"Bearer {token}" if header == "authorization" else token}
    answers = {
        "read": api.get("/api/v1/runs", headers=headers),
        "run": api.post("/api/v1/runs", headers=headers, json={"source": "files"}),
        "set aside": api.post("/api/v1/runs", headers=headers, json={"source": "files", "allow_mass_delete": True}),
    }
    assert {name: answer.status_code for name, answer in answers.items()} == statuses
    for answer in answers.values():
        if answer.status_code == 403:
            assert "needs the role" in answer.json()["detail"]
    if role != "viewer":
        assert answers["run"].json()["triggered_by"] == f"a-{role}"


def test_the_answer_403_names_the_role_that_is_needed(driver: Driver, api: Client) -> None:
    """Who may not is told which role may, and how to get one."""
    answer = api.post("/api/v1/runs", headers=bearer(make(driver, "viewer").token), json={})
    assert answer.json()["detail"] == "this needs the role operator; this token's is viewer"
    assert "--role operator" in answer.json()["hint"]
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def test_a_wrong_secret_and_an_unknown_token_get_one_answer(driver: Driver, api: Client) -> None:
    """Nobody learns which tokens there are: wrong, unknown, mangled and revoked with a wrong secret look the same."""
    known = make(driver, "viewer")
    create_token(driver.connection, "gone", "viewer")
    revoke_token(driver.connection, "gone")
    wrong = [
        f"sync_{known.token_id}_{'x' * 43}",
        f"sync_{known.token_id + 1}_{'x' * 43}",
        f"sync_99999_{'x' * 43}",
        known.token[:-1],
        known.token + "x",
        known.token.upper(),
        KEY[:-1],
        "something",
        "pässwört".encode().decode("latin-1"),
    ]
    answers = []
    for token in wrong:
        answer = api.get("/api/v1/runs", headers={"x-sync-secret": token.encode("latin-1")})
        assert answer.status_code == 401
        body = answer.json()
        del body["request_id"]
        answers.append((body, answer.headers["www-authenticate"]))
    assert answers == [answers[0]] * len(wrong)
    assert 'error="invalid_token"' in answers[0][1]


def test_without_a_token_the_answer_says_how_to_send_one(api: Client) -> None:
    """No header, an empty one and another scheme are no token: the challenge names no error."""
    for headers in ({}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer"}, {"x-sync-secret": ""}):
        answer = api.get("/api/v1/runs", headers=headers)
        assert (answer.status_code, answer.json()["detail"]) == (401, "this needs a token")
        assert answer.headers["www-authenticate"] == 'Bearer realm="syncline"'
        assert "x-sync-secret" in answer.json()["hint"]


def test_expired_and_revoked_tokens_say_so(driver: Driver, api: Client) -> None:
    """Who shows the right secret of a token that has ended is told how it ended."""
    ended = make(driver, "viewer", expires_in=timedelta(seconds=0))
    revoked = make(driver, "admin")
    revoke_token(driver.connection, "a-admin")
    said = [api.get("/api/v1/runs", headers=bearer(token.token)).json()["detail"] for token in (ended, revoked)]
    assert said == ["the token a-viewer has expired", "the token a-admin was revoked"]


def test_a_revoked_token_is_let_in_for_seconds_at_most(driver: Driver, api: Client) -> None:
    """Revocation holds within five seconds, though a token is not looked up for each request."""
    headers = bearer(make(driver, "viewer").token)
    assert api.get("/api/v1/runs", headers=headers).status_code == 200
    revoke_token(driver.connection, "a-viewer")
    revoked_at = time.monotonic()
    while api.get("/api/v1/runs", headers=headers).status_code == 200:
        assert time.monotonic() - revoked_at < 5
        time.sleep(0.1)
    assert api.get("/api/v1/runs", headers=headers).json()["detail"] == "the token a-viewer was revoked"


def test_a_token_is_looked_up_once_in_a_while(driver: Driver, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred requests within a moment ask the database for their token once; wrong ones are remembered nowhere."""
    looked_up: list[int] = []
    find = tokens.find_token
    monkeypatch.setattr(tokens, "find_token", lambda *given: looked_up.append(given[1]) or find(*given))
    headers = bearer(make(driver, "viewer").token)
    monkeypatch.setattr(auth, "REMEMBERED", 60)
    for _ in range(100):
        assert api.get("/api/v1/runs", headers=headers).status_code == 200
    assert len(looked_up) == 1
    for number in range(5):
        api.get("/api/v1/runs", headers=bearer(f"sync_{1000 + number}_{'x' * 43}"))
    assert len(api.state.remembered_tokens) == 1


def test_secrets_are_compared_in_constant_time(driver: Driver, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent, the secret key and a token's secret are compared as digests of one length."""
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", counted)
    token = make(driver, "viewer").token
    for sent in ("", "x", KEY[:5], KEY, KEY + "x", token, token[:-1] + "~"):
        api.get("/api/v1/runs", headers={"x-sync-secret": sent})
    # Six with the key; the token's own secret twice, since its use is noted.
    assert len(compared) == 6 + 2
    assert set(compared) == {(32, 32)}


def test_without_a_secret_key_none_is_let_in_as_one(driver: Driver) -> None:
    """Where SYNCLINE_SECRET_KEY is not set, no text passes for it, the empty one included."""
    with in_process(driver, as_admin=False, secret_key=None) as api:
        for sent in ("", "None", KEY):
            assert api.get("/api/v1/runs", headers={"x-sync-secret": sent}).status_code == 401


def test_a_token_that_expires_soon_says_when(driver: Driver, api: Client) -> None:
    """In its last 14 days each answer to it says when it ends, refused ones too, and the log does so once a day."""
    ending = make(driver, "viewer", expires_in=timedelta(days=13))
    lasting = make(driver, "admin", expires_in=timedelta(days=15))
    for method, status in (("GET", 200), ("POST", 403)):
        answer = api.request(method, "/api/v1/runs", headers=bearer(ending.token), json={})
        assert answer.status_code == status
        assert answer.headers["syncline-token-expires"] == ending.expires_at.isoformat(timespec="seconds")  # type: ignore[union-attr]
    assert "syncline-token-expires" not in api.get("/api/v1/runs", headers=bearer(lasting.token)).headers
    query = "select event, request_id, detail ->> 'token' as token from syncline.log_events"
    (event,) = driver.connection.execute(query).fetchall()
    assert (event["event"], event["token"]) == ("token_expiring", "a-viewer")
    assert event["request_id"]


def test_without_a_database_the_answer_is_503(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that cannot be looked up is neither let in nor called wrong."""
    token = make(driver, "viewer").token
    monkeypatch.setattr("syncline.api.state.PATIENCE", 0.5)
    with in_process(driver, as_admin=False, dsn="postgresql://nobody@127.0.0.1:1/none") as api:
        answer = api.get("/api/v1/runs", headers=bearer(token))
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.headers["retry-after"]


# sizes


def test_a_body_that_is_too_large_by_its_length_is_not_read(driver: Driver) -> None:
    """A declared length beyond the limit is refused before the token is looked at, naming limit and variable."""
    with in_process(driver, as_admin=False, max_body=1000) as api:
        answer = api.post("/api/v1/runs", headers=ADMIN, content=b"x" * 1001)
        assert answer.status_code == 413
        problem = answer.json()
        assert problem["detail"] == "the body is larger than 1,000 bytes"
        assert "SYNCLINE_MAX_BODY" in problem["hint"]
        assert problem["request_id"] == answer.headers["x-request-id"]
        fitting = json.dumps({"source": "files"}).ljust(1000)
        headers = ADMIN | {"content-type": "application/json"}
        assert api.post("/api/v1/runs", headers=headers, content=fitting).status_code == 202


def test_a_body_in_chunks_is_counted_as_it_comes(driver: Driver) -> None:
    """Without a length, what has come is counted; on a real connection the answer comes long before the end."""
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(20_000):
            sent += 10_000
            yield b" " * 10_000

    with in_process(driver, max_body=100_000) as api:
        headers = {"content-type": "application/json"}
        answer = api.post("/api/v1/runs", headers=headers, content=body())
        assert answer.status_code == 413
        assert sent < 100_000_000
        fine = api.post("/api/v1/runs", headers=headers, content=iter([b'{"source"', b': "files"}']))
        assert fine.status_code == 202


def test_a_client_that_waits_for_100_continue_is_spared_the_body(driver: Driver) -> None:
    """Who asks before sending a body that is too large gets the refusal instead of a go-ahead."""
    with in_process(driver, max_body=1000) as api, api.connect() as link:
        link.sendall(
            f"POST /api/v1/runs HTTP/1.1\r\nHost: {api.base_url.host}\r\nx-sync-secret: {KEY}\r\n"
            "Content-Length: 50000000\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        link.settimeout(10)
        assert link.recv(4096).startswith(b"HTTP/1.1 413")


def test_pushes_have_a_limit_of_their_own(driver: Driver) -> None:
    """Records may be more than an ordinary body, up to their limit; beyond it nothing is loaded."""
    records = json.dumps(people(200)).encode()
    headers = ADMIN | {"content-type": "application/json"}
    with in_process(driver, as_admin=False, max_body=1000, max_push=len(records)) as api:
        assert api.post(RECORDS, headers=headers, content=records).status_code == 200
        assert len(driver.live()) == 200
    for content in (records + b" ", iter([records, b" "])):
        with in_process(driver, as_admin=False, max_body=10**6, max_push=len(records)) as api:
            driver.connection.execute("select syncline.reset_cursor('files', 'people')")
            answer = api.post(RECORDS + "?full=true", headers=headers, content=content)
            assert answer.status_code == 413
            assert "SYNCLINE_MAX_PUSH" in answer.json()["hint"]
    assert len(driver.live()) == 200


def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(driver: Driver) -> None:
    """What is gzipped counts unpacked: a bomb is refused and loads nothing; what fits is loaded."""
    headers = ADMIN | {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    bomb = gzip.compress(b'{"id": 1}\n' + b" " * 50_000_000)
    assert len(bomb) < 100_000
    with in_process(driver, as_admin=False, max_push=1_000_000) as api:
        answer = api.post(RECORDS, headers=headers, content=bomb)
        assert answer.status_code == 413, answer.text
        assert driver.live() == {}
        fitting = gzip.compress(b'{"id": 1}\n') + gzip.compress(b'{"id": 2}\n')
        assert api.post(RECORDS, headers=headers, content=fitting).status_code == 200
        assert set(driver.live()) == {"1", "2"}
        for broken in (bomb[:1000], b"no gzip at all", fitting[:-5]):
            assert api.post(RECORDS, headers=headers, content=broken).status_code in (400, 413)
        assert set(driver.live()) == {"1", "2"}


def test_a_bomb_is_unpacked_in_pieces() -> None:
    """However much a chunk holds, no piece of it is large."""
    import asyncio

    async def sizes() -> list[int]:
        async def chunks() -> Any:
            yield gzip.compress(b" " * 30_000_000)

        return [len(piece) async for piece in limits.gunzip(chunks(), 10**9)]

    found = asyncio.run(sizes())
    assert sum(found) == 30_000_000
    assert max(found) <= limits.PIECE


def test_a_body_that_is_cut_off_leaves_the_api_well(driver: Driver) -> None:
    """A connection that goes in the middle of a body does nothing, and the next request is answered."""
    with in_process(driver) as api:
        with api.connect() as link:
            link.sendall(
                f"POST /api/v1/runs HTTP/1.1\r\nHost: {api.base_url.host}\r\nx-sync-secret: {KEY}\r\n"
                'Content-Length: 100\r\nContent-Type: application/json\r\n\r\n{"source": "fi'.encode()
            )
        assert api.get("/api/v1/runs").json()["runs"] == []


# rates


def test_requests_above_the_rate_are_told_when_to_come_again(driver: Driver) -> None:
    """So many at once, then 429 with the seconds to wait; the headers count down; health is not counted."""
    with in_process(driver, as_admin=False, rate_limit=5) as api:
        headers = bearer(make(driver, "viewer").token)
        api.get("/api/v1/runs", headers=headers)
        answers = [api.get("/api/v1/runs", headers=headers) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == [
            f"r={n}" for n in (4, 3, 2, 1, 0, 0)
        ]
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=5;w=60'
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 12
        assert answers[-1].json()["type"] == "urn:syncline:too_many"
        assert "SYNCLINE_RATE_LIMIT" in answers[-1].json()["hint"]
        assert [api.get("/healthz").status_code for _ in range(20)] == [200] * 20


def test_a_rate_comes_back_with_time(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the seconds that the answer named, the next request is taken."""
    now = time.monotonic()
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    bucket = limits.Bucket(5)
    for _ in range(5):
        assert bucket.wait() == 0
        bucket.take()
    assert bucket.wait() == pytest.approx(12)
    now += 12
    assert bucket.wait() == 0
    bucket.take()
    now += 3600
    assert bucket.wait() == 0
    assert bucket.left == 5


def test_tokens_do_not_use_up_each_others_rate(driver: Driver) -> None:
    """Callers behind one address are counted by their tokens, once these were let in."""
    with in_process(driver, as_admin=False, rate_limit=4) as api:
        one, other = (bearer(make(driver, role).token) for role in ("viewer", "operator"))
        for headers in (one, other):
            api.get("/api/v1/runs", headers=headers)
        statuses = [api.get("/api/v1/runs", headers=one).status_code for _ in range(6)]
        assert statuses == [200] * 4 + [429] * 2
        assert api.get("/api/v1/runs", headers=other).status_code == 200


def test_made_up_tokens_are_counted_by_address(driver: Driver) -> None:
    """A new made-up token for each request is no way around the rate."""
    with in_process(driver, as_admin=False, rate_limit=10) as api:
        statuses = [api.get("/api/v1/runs", headers=bearer(f"made-up-{number}")).status_code for number in range(15)]
        assert statuses == [401] * 10 + [429] * 5


def test_refused_authorizations_are_counted_more_strictly(driver: Driver) -> None:
    """After some, the address waits before another guess is looked at; a proven token from there goes on."""
    with in_process(driver, as_admin=False, failure_limit=3) as api:
        headers = bearer(make(driver, "viewer").token)
        assert api.get("/api/v1/runs", headers=headers).status_code == 200
        guesses = [api.get("/api/v1/runs", headers=bearer(f"guess-{number}")) for number in range(6)]
        assert [answer.status_code for answer in guesses] == [401] * 3 + [429] * 3
        assert int(guesses[-1].headers["retry-after"]) >= 1
        assert guesses[-1].json()["detail"] == "too many refused authorizations from this address"
        assert "from one address: 3." in guesses[-1].json()["hint"]
        assert "SYNCLINE_RATE_LIMIT" not in guesses[-1].text
        # Even the right one is not looked at, where it was not let in before.
        assert api.get("/api/v1/runs", headers=bearer(make(driver, "admin").token)).status_code == 429
        assert api.get("/api/v1/runs", headers=headers).status_code == 200


def test_a_token_beside_a_signature_is_not_proven_by_it(driver: Driver) -> None:
    """Whoever can sign a message proves nothing of the token that comes with it: it is counted by address."""
    secret = b"secret-of-the-webhooks"
    with in_process(driver, as_admin=False, webhook_secrets=(secret,), rate_limit=10) as api:
        for number in range(5):
            at = str(int(time.time()))
            signature = hmac.new(secret, f"{at}.".encode(), "sha256").hexdigest()
            headers = bearer(f"made-up-{number}") | {"x-sync-timestamp": at, "x-sync-signature": f"sha256={signature}"}
            assert api.post("/api/v1/webhooks/files", headers=headers).status_code in (200, 202)
        statuses = [api.get("/api/v1/runs", headers=bearer(f"made-up-{number % 5}")).status_code for number in range(8)]
    assert statuses == [401] * 5 + [429] * 3


def test_no_limit_is_none(driver: Driver) -> None:
    """With SYNCLINE_RATE_LIMIT=0 nothing is counted and no header says so."""
    with in_process(driver, as_admin=False, rate_limit=0) as api:
        answers = [api.get("/api/v1/runs", headers=ADMIN) for _ in range(50)]
        assert {answer.status_code for answer in answers} == {200}
        assert "ratelimit" not in answers[0].headers


def test_what_is_counted_is_bounded(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses and tokens are forgotten, the longest silent first; a token that is proves itself again."""
    monkeypatch.setattr(limits, "COUNTED", 3)
    buckets: Any = limits.OrderedDict()
    for address in ("a", "b", "c", "a", "d"):
        limits._of(buckets, address, 5)
    assert list(buckets) == ["c", "a", "d"]
    with in_process(driver, as_admin=False, rate_limit=10) as api:
        tokens = [create_token(driver.connection, f"t{number}", "viewer").token for number in range(4)]
        left = [api.get("/api/v1/runs", headers=bearer(token)).headers["ratelimit"] for token in [*tokens, tokens[0]]]
    # Each is counted by address until it is proven; the first one is forgotten by then.
    assert [told.split(";")[1] for told in left] == ["r=9", "r=8", "r=7", "r=6", "r=5"]


def test_a_network_of_ipv6_is_one_address() -> None:
    """Whoever has 2^64 addresses is counted as one; an IPv4 address is the same in both its forms."""
    places = [limits._address({"client": (host, 1)}) for host in ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1")]
    assert places == ["2001:db8::", "2001:db8::", "2001:db8:0:1::"]
    assert limits._address({"client": ("::ffff:10.0.0.1", 1)}) == limits._address({"client": ("10.0.0.1", 1)})


# origins


def test_only_listed_origins_may_call_from_a_browser(driver: Driver) -> None:
    """The listed origin gets its preflight and sees the headers it needs, errors included; another gets neither."""
    asking = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-sync-secret,content-type,x-request-id,last-event-id",
    }
    with in_process(driver, as_admin=False, cors_origins=("https://app.example.com",)) as api:
        allowed = {"origin": "https://app.example.com"}
        preflight = api.options("/api/v1/runs", headers=allowed | asking)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
        for headers, status in ((ADMIN, 200), ({}, 401)):
            answer = api.get("/api/v1/runs", headers=allowed | headers)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
            exposed = answer.headers["access-control-expose-headers"].lower()
            assert [name for name in ("x-request-id", "location", "retry-after") if name not in exposed] == []
            assert "access-control-allow-credentials" not in answer.headers
        for other in ("https://app.example.com.evil.example", "http://app.example.com", "null"):
            assert api.options("/api/v1/runs", headers={"origin": other} | asking).status_code == 400
            assert (
                "access-control-allow-origin" not in api.get("/api/v1/runs", headers=ADMIN | {"origin": other}).headers
            )


def test_without_origins_no_browser_is_let_in(api: Client) -> None:
    """By default no answer carries a header that lets another page read it."""
    answer = api.get("/api/v1/runs", headers=ADMIN | {"origin": "https://app.example.com"})
    assert [name for name in answer.headers if name.startswith("access-control")] == []


# secrets


def test_no_secret_shows(driver: Driver) -> None:
    """Whatever is asked of `syncline serve`, with right and wrong secrets: no output, answer or table holds one."""
    operator, ending = make(driver, "operator"), make(driver, "viewer", expires_in=timedelta(days=3))
    wrong, hook, signing = (
        "wr0ng-that-must-not-show",
        "h00k-that-must-not-show",
        "s1gning-that-must-not-show-0123456789",
    )
    hidden = [KEY, operator.token[-43:], ending.token[-43:], wrong, hook, signing]
    set_here = {
        "DATABASE_URL": driver.dsn,
        "SYNCLINE_SECRET_KEY": KEY,
        "SYNCLINE_WEBHOOK_SECRETS": hook,
        "QSTASH_CURRENT_SIGNING_KEY": signing,
        "SYNCLINE_PUBLIC_URL": "https://sync.example.com",
        "SYNCLINE_LOG_LEVEL": "DEBUG",
    }
    command = [sys.executable, "-m", "syncline", "serve", "--port", "0", "--json"]
    # The environment of a process is readable, so that secrets may be in .env alone.
    (driver.root / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in set_here.items()))
    places: dict[str, str] = {}
    statuses: set[int] = set()
    log = driver.root / "serve.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command,
            cwd=driver.root,
            env=os.environ | {"DATABASE_URL": driver.dsn},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as server,
    ):
        try:
            assert server.stdout
            url = json.loads(server.stdout.readline())["url"]
            with httpx.Client(base_url=url, timeout=30) as api:
                for answer in ask_everything(api, [KEY, operator.token, ending.token, wrong], wrong):
                    statuses.add(answer.status_code)
                    if wrong not in answer.request.url.path:
                        places["answers"] = places.get("answers", "") + f"{answer.headers} {answer.text}\n"
        finally:
            server.terminate()
        places["stdout"] = server.communicate(timeout=30)[0]
    places["stderr"] = log.read_text()
    for table in ("log_events", "runs", "tokens", "messages"):
        places[table] = str(driver.connection.execute(f"select t::text from syncline.{table} as t").fetchall())  # type: ignore[arg-type]
    assert [(place, secret) for place, text in places.items() for secret in hidden if secret in text] == []
    assert "SYNCLINE_SECRET_KEY" in places["stderr"]
    assert statuses >= {200, 202, 401, 403, 404, 422}
    assert driver.connection.execute("select from syncline.log_events where event = 'token_expiring'").fetchall()


def ask_everything(api: httpx.Client, secrets: list[str], wrong: str) -> Iterator[httpx.Response]:
    """Ask what there is with each secret, and hide a wrong one wherever a request may hold it."""
    hidden = {"source": "files", "note": wrong}
    # Proven first: after so many wrong ones, others are not looked at.
    yield from [api.get("/api/v1/runs", headers=bearer(secret)) for secret in secrets]
    for secret in secrets:
        for headers in (bearer(secret), {"x-sync-secret": secret}, {"authorization": f"Basic {secret}"}):
            yield api.get("/api/v1/runs", headers=headers)
            yield api.get("/api/v1/status", headers=headers, params={"secret": secret})
            yield api.get("/metrics", headers=headers)
            yield api.get(f"/api/v1/runs/{wrong}", headers=headers)
            yield api.get(f"/{wrong}", headers=headers)
            yield api.post("/api/v1/runs", headers=headers, json={"source": "files"})
            yield api.post("/api/v1/runs", headers=headers, json=hidden)
            yield api.post("/api/v1/runs", headers=headers, content=f'{{"source": "{wrong}')
            yield api.post("/api/v1/webhooks/files", headers=headers | {"x-sync-signature": wrong}, json=hidden)
            signed = {
                "webhook-id": wrong,
                "webhook-timestamp": str(int(time.time())),
                "webhook-signature": f"v1,{wrong}",
            }
            yield api.post("/api/v1/webhooks/files", headers=headers | signed)
            yield api.post("/api/v1/qstash/files", headers=headers | {"upstash-signature": wrong})
