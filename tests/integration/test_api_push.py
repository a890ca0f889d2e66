"""Records pushed over HTTP: all or none of a body, whatever its size, and what is said of one that is no good."""

from __future__ import annotations

import gzip
import json
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_api_runs import problem
from tests.projects import Bench, people, person
from tests.serving import KEY, Client, in_process, serving, token

PEOPLE = "/api/v1/streams/shop/people/records"
LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    with in_process(bench) as made:
        yield made


def memory(pid: int) -> int:
    """The process' resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def lines(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_a_json_array_and_json_lines_are_loaded(client: Client, bench: Bench) -> None:
    """Both forms merge as increments; the answer has the load's counts, and the run says who pushed."""
    headers = token(bench, "operator") | {"X-Request-Id": "till-4", "content-type": "application/json"}
    answer = client.post(PEOPLE, content=json.dumps(people(3)), headers=headers)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert (result["load"]["read"], result["load"]["new"], result["load"]["kind"]) == (3, 3, "increment")
    assert (result["row_errors"], result["run"]) == (0, None)
    (row,) = bench.runs()
    assert (row["run_id"], row["trigger"], row["triggered_by"]) == (result["run_id"], "api", "the-operator")
    assert row["request_id"] == "till-4"
    again = client.post(PEOPLE, content=lines([person(3), person(4), person(2, name="other")]), headers=LINES).json()
    assert (again["load"]["read"], again["load"]["new"], again["load"]["changed"]) == (3, 1, 1)
    assert bench.live().keys() == {"1", "2", "3", "4"}


def test_gzip_is_taken(client: Client, bench: Bench) -> None:
    """A packed body is unpacked as it comes, of several members, too."""
    packed = gzip.compress(lines(people(2000))) + gzip.compress(lines([person(2001)]))
    answer = client.post(PEOPLE, content=packed, headers=LINES | {"content-encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["load"]["read"] == 2001
    cut = client.post(PEOPLE, content=packed[:-4], headers=LINES | {"content-encoding": "gzip"})
    problem(cut, 400)
    problem(client.post(PEOPLE, content=lines(people(2)), headers=LINES | {"content-encoding": "gzip"}), 400)
    problem(client.post(PEOPLE, content=b"", headers=LINES | {"content-encoding": "br"}), 415)
    assert len(bench.live()) == 2001


def test_a_full_push_closes_the_others(client: Client, bench: Bench) -> None:
    """`full=true` says that these are all there are; far fewer are refused, unless an admin lets them through."""
    client.post(PEOPLE, json=people(50))
    result = client.post(PEOPLE, params={"full": True}, json=people(40)).json()
    assert (result["load"]["kind"], result["load"]["gone"]) == ("full", 10)
    content = problem(client.post(PEOPLE, params={"full": True}, json=people(2)), 409)
    assert "allow_mass_delete (role admin)" in content["hint"]
    assert "--" not in content["hint"]
    assert "max_delete_ratio" in content["detail"] + content["hint"]
    assert len(bench.live()) == 40
    wanted = {"full": True, "allow_mass_delete": True}
    problem(client.post(PEOPLE, params=wanted, json=people(2), headers=token(bench, "operator")), 403)
    assert client.post(PEOPLE, params=wanted, json=people(2)).json()["load"]["gone"] == 38


def test_a_run_follows_where_it_is_asked_for(client: Client, bench: Bench) -> None:
    """`run=true` requests a run that builds, checks and publishes what was pushed, and fetches nothing."""
    result = client.post(PEOPLE, params={"run": True}, json=people(2)).json()
    assert result["run"]["status"] == "queued"
    assert result["run"]["options"] == {"streams": ["shop.people"], "steps": ["build", "check", "publish"]}
    assert len(bench.runs()) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'[{"id": 1}, {"id": 2', "is cut off"),
        (b'[{"id": 1}] more', "no valid JSON"),
        (b'{"id": 1}\n{"id": ', "is cut off"),
        (b"<html>", "is no JSON"),
        (b"hello", "is no JSON"),
        (b'{"id": 1}\nhello', "is no JSON"),
        (b"tru", "is cut off"),
    ],
)
def test_what_is_no_json_is_malformed(client: Client, bench: Bench, body: bytes, said: str) -> None:
    """A body that is no JSON, or cut off within it, is a problem 400 that quotes nothing of it; nothing is written."""
    content = problem(client.post(PEOPLE, content=body, headers={"content-type": "application/json"}), 400)
    assert said in content["detail"]
    assert "the request's body" in content["detail"]
    assert bench.value("select count(*) from raw_shop.people_json") == 0
    assert [run["status"] for run in bench.runs()] == ["failed"]


def test_bad_records_cost_nobody_else(client: Client, bench: Bench) -> None:
    """A record without a key is a row error; the others are loaded."""
    result = client.post(PEOPLE, json=[*people(20), {"name": "nobody"}]).json()
    assert (result["load"]["new"], result["load"]["rejected"], result["row_errors"]) == (20, 1, 1)
    (error,) = client.get("/api/v1/row-errors", params={"stream": "shop.people"}).json()["errors"]
    assert (error["row_number"], error["severity"]) == (21, "error")


def test_what_cannot_be_pushed(client: Client, bench: Bench) -> None:
    """Unknown streams, streams that are not active and other types of content are problems; no run is begun."""
    content = problem(client.post("/api/v1/streams/shop/poeple/records", json=[]), 404)
    assert "shop.people" in content["hint"]
    problem(client.post("/api/v1/streams/shopp/people/records", json=[]), 404)
    problem(client.post(PEOPLE, data={"id": "1"}), 415)
    problem(client.post(PEOPLE), 415)
    content = problem(client.post(PEOPLE, params={"runn": True}, json=[]), 422)
    assert "'runn'" in content["detail"]
    assert content["hint"] == "Known here: allow_mass_delete, full, run."
    assert bench.runs() == []


def test_a_body_that_is_too_large_is_refused(bench: Bench) -> None:
    """What is larger than SYNCLINE_MAX_PUSH, packed or not, is a problem 413; nothing is written."""
    with in_process(bench, max_push=100_000) as client:
        body = lines(people(2000))

        def pieces() -> Iterator[bytes]:
            yield from (body[start : start + 10_000] for start in range(0, len(body), 10_000))

        problem(client.post(PEOPLE, content=body, headers=LINES), 413)
        problem(client.post(PEOPLE, content=pieces(), headers=LINES), 413)
        packed = gzip.compress(body)
        assert len(packed) < 100_000
        problem(client.post(PEOPLE, content=packed, headers=LINES | {"content-encoding": "gzip"}), 413)
        assert bench.value("select count(*) from raw_shop.people_json") == 0
        assert client.post(PEOPLE, content=lines(people(20)), headers=LINES).status_code == 200


def test_a_refusal_is_seen_by_those_who_send_first(client: Client, bench: Bench) -> None:
    """A sender of megabytes that reads no answer before it has sent all still learns that its token is too low."""
    viewer = token(bench, "viewer") | LINES
    for _ in range(5):
        problem(client.post(PEOPLE, content=b"x" * 8_000_000, headers=viewer), 403)


@pytest.mark.parametrize("length", [None, 10_000_000])
def test_a_body_that_is_cut_off_writes_nothing(client: Client, bench: Bench, length: int | None) -> None:
    """A sender that goes away in the middle, whole lines or not, leaves nothing behind but a failed run."""
    body = lines(people(3000))
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    head = f"POST {PEOPLE} HTTP/1.1\r\nHost: {client.base_url.host}\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/x-ndjson\r\n{framing}\r\n\r\n"
    with client.connect() as sender:
        sender.sendall(head.encode())
        sender.sendall(body if length else b"%x\r\n%s\r\n" % (len(body), body))
        bench.wait_until("select exists (select from syncline.steps where step = 'load' and status = 'running')")
        time.sleep(0.3)
    bench.wait_until("select exists (select from syncline.runs where status = 'failed')")
    assert bench.value("select count(*) from raw_shop.people_json") == 0
    (run,) = bench.runs()
    assert "the body was cut off" in run["error"]["message"]
    assert client.post(PEOPLE, content=body, headers=LINES).json()["load"]["new"] == 3000


def test_a_busy_source_is_waited_for(client: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push waits for a run of the source, and is told to come again where that takes too long."""
    from syncline.api import streams

    with bench.connect() as other:
        run_id = other.execute("select syncline.request_run(array['shop']) as it").fetchone()
        assert run_id
        other.execute("select syncline.claim_run(%s)", (run_id["it"],))
        monkeypatch.setattr(streams, "WAIT_SECONDS", 0.5)
        answer = client.post(PEOPLE, json=people(2))
        assert problem(answer, 503)["type"] == "urn:syncline:busy"
        assert answer.headers["retry-after"]
        monkeypatch.setattr(streams, "WAIT_SECONDS", 30.0)
        later = threading.Timer(0.5, lambda: other.execute("select syncline.finish_run('succeeded')"))
        later.start()
        assert client.post(PEOPLE, json=people(2)).json()["load"]["new"] == 2
        later.join()


def test_a_push_can_be_cancelled(client: Client, bench: Bench) -> None:
    """A push that is cancelled while it comes ends as refused, and nothing of it is there."""
    is_cancelled = threading.Event()

    def body() -> Iterator[bytes]:
        yield lines(people(3000))
        while not is_cancelled.is_set():
            time.sleep(0.05)
        for _ in range(200):
            yield lines(people(500))
            time.sleep(0.05)

    def cancel() -> None:
        bench.wait_for_step("load")
        (run,) = bench.runs()
        client.post(f"/api/v1/runs/{run['run_id']}/cancel").raise_for_status()
        is_cancelled.set()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    content = problem(client.post(PEOPLE, content=body(), headers=LINES), 409)
    canceller.join()
    assert content["detail"] == "cancelled by SYNCLINE_SECRET_KEY"
    assert [run["status"] for run in bench.runs()] == ["cancelled"]
    assert bench.value("select count(*) from raw_shop.people_json") == 0


def test_pushes_beside_each_other_are_all_kept(client: Client, bench: Bench) -> None:
    """Pushes to one stream at once wait for each other, and none is lost."""
    answers: list[int] = []

    def push(number: int) -> None:
        answers.append(client.post(PEOPLE, json=[person(number)], timeout=60).status_code)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
    assert len(bench.live()) == 6


def test_a_large_push_takes_no_memory(bench: Bench) -> None:
    """200 MB of records come through a server whose memory stays flat."""
    filler = "x" * 2000
    page = 1000

    def body() -> Iterator[bytes]:
        for first in range(0, 97_000, page):
            yield lines([person(number, note=filler) for number in range(first + 1, first + page + 1)])

    with serving(bench) as client:
        client.post(PEOPLE, json=people(10))
        before = memory(client.process.pid)
        highest = [before]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                highest.append(memory(client.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        answer = client.post(PEOPLE, content=body(), headers=LINES, timeout=300)
        done.set()
        watcher.join()
    assert answer.status_code == 200, answer.text
    assert answer.json()["load"]["read"] == 97_000
    grown = (max(highest) - before) / 1e6
    print(f"memory grew by {grown:.0f} MB, to {max(highest) / 1e6:.0f} MB")
    assert grown < 60
