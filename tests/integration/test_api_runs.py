"""Runs over HTTP: requested, listed, read, cancelled, tried again, followed, and what is said where that cannot be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncline import control
from syncline.api.events import _Follower
from tests.projects import Bench
from tests.serving import Client, in_process, serving, token

RUNS = "/api/v1/runs"


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    with in_process(bench) as made:
        yield made


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The problem that an answer is: all of them have this shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = answer.json()
    assert content["status"] == status
    assert content["type"].startswith("urn:syncline:")
    assert content["request_id"] == answer.headers["x-request-id"]
    assert content["title"]
    return content


def test_a_requested_run_waits_in_the_queue(client: Client, bench: Bench) -> None:
    """POST /runs answers 202 with the run, which the queue holds with all that was asked for."""
    wanted = {"source": "shop", "streams": ["shop.people"], "entities": ["people"], "dry_run": True, "row_limit": 5}
    wanted |= {"max_attempts": 5, "timeout": 90, "triggered_by": "ada", "publish": "each", "full_refresh": True}
    answer = client.post(RUNS, json=wanted, headers={"X-Request-Id": "button-17"})
    assert answer.status_code == 202, answer.text
    report = answer.json()
    assert answer.headers["location"] == f"{RUNS}/{report['run_id']}"
    assert answer.headers["x-request-id"] == "button-17"
    assert (report["status"], report["trigger"], report["request_id"]) == ("queued", "api", "button-17")
    assert report["triggered_by"] == "ada (SYNCLINE_SECRET_KEY)"
    (row,) = bench.runs()
    assert row["sources"] == ["shop"]
    assert row["entities"] == ["people"]
    assert row["options"] == {
        "streams": ["shop.people"], "dry_run": True, "limit": 5, "full_refresh": True, "publish": "each"
    }  # fmt: skip
    assert row["max_attempts"] == 5
    assert row["timeout"].total_seconds() == 90
    assert not row["is_foreground"]
    assert client.get(answer.headers["location"]).json()["run_id"] == report["run_id"]


def test_identical_requests_are_one_run(client: Client, bench: Bench) -> None:
    """The same request twice gives the run that waits already; another request gives another run."""
    first = client.post(RUNS, json={"source": "shop"}).json()["run_id"]
    assert client.post(RUNS, json={"sources": ["shop"]}).json()["run_id"] == first
    assert client.post(RUNS, json={"source": "shop", "dry_run": True}).json()["run_id"] != first
    assert client.post(RUNS, json={}).json()["sources"] == ["files", "shop"]
    assert len(bench.runs()) == 3


@pytest.mark.parametrize(
    ("wanted", "said", "known"),
    [
        ({"source": "shopp"}, "there is no source named 'shopp'", "files, shop"),
        ({"source": "shop", "streams": ["shop.poeple"]}, "there is no stream named 'shop.poeple'", "shop.people"),
        ({"source": "shop", "streams": ["visits"]}, "there is no stream named 'visits'", "people"),
        ({"entities": ["poeple"]}, "there is no entity named 'poeple'", "people, prices, visits"),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(
    client: Client, bench: Bench, wanted: dict[str, Any], said: str, known: str
) -> None:
    """Sources, streams of the chosen sources, and entities that the project has not are problems 422."""
    content = problem(client.post(RUNS, json=wanted), 422)
    assert content["detail"] == said
    assert known in content["hint"]
    assert bench.runs() == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"sorce": "shop"},
        {"source": 7},
        {"source": "shop", "sources": ["files"]},
        {"row_limit": 0},
        {"timeout": -1},
        {"max_attempts": 0},
        {"publish": "some"},
        {"source": "nul\x00"},
        [],
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, bench: Bench, wanted: Any) -> None:
    """A body that does not fit is a problem 422 that names the place and quotes nothing of the body."""
    content = problem(client.post(RUNS, json=wanted), 422)
    assert content["errors"][0]["loc"][0] == "body"
    assert bench.runs() == []


def test_a_body_that_is_no_json_is_malformed(client: Client) -> None:
    """A body that is no JSON, or no text, is a problem 400 that says where or why."""
    for body, said in (
        (b"{nonsense", "the body is no JSON (at character 1)"),
        (b'{"source": ', "the body is no JSON (at character 11)"),
        (b'{"source": "\xff"}', "the body is no JSON: it is not UTF-8"),
        (b"[" * 100_000, "the body cannot be read"),
    ):
        content = problem(client.post(RUNS, content=body, headers={"content-type": "application/json"}), 400)
        assert (content["type"], content["detail"]) == ("urn:syncline:malformed", said)


@pytest.mark.parametrize("path", ["/api/v1/runs", "/api/v1/entities/people/build", "/api/v1/schedules"])
@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain; charset=utf-8"])
def test_a_body_without_its_type_is_told_which_to_send(
    client: Client, bench: Bench, path: str, kind: str | None
) -> None:
    """A body that is not said to be JSON is a problem 415, whatever it holds."""
    content = problem(client.post(path, content=b"{}", headers={"content-type": kind} if kind else {}), 415)
    assert content["type"] == "urn:syncline:media_type"
    assert (kind or "nothing").partition(";")[0] in content["detail"]
    assert content["hint"] == "Send Content-Type: application/json."
    assert bench.runs() == []


def test_an_unknown_parameter_is_told_with_the_known_ones(client: Client, bench: Bench) -> None:
    """A query parameter that an endpoint has not is a problem 422, and so is a source that never was."""
    content = problem(client.get(RUNS, params={"limit": 1, "colour": "red"}), 422)
    assert content["detail"] == "there is no query parameter 'colour' here"
    assert content["hint"] == "Known here: before, kind, limit, source, status, trigger."
    assert content["errors"][0]["loc"] == ["query", "colour"]
    assert problem(client.post(f"{RUNS}/1/cancel?force=1"), 422)["hint"] == "Known here: none."
    content = problem(client.get(RUNS, params={"source": "funny"}), 422)
    assert (content["detail"], content["hint"]) == ("there is no source named 'funny'", "Known here: files, shop.")
    assert client.get(RUNS, params={"source": "shop"}).json()["runs"] == []
    bench.query("insert into syncline.streams (source, stream) values ('former', 'notes') returning 1")
    assert client.get(RUNS, params={"source": "former"}).json()["runs"] == []
    assert client.get("/healthz?at=1").status_code == 200


def test_an_ordinary_model_is_no_entity(client: Client, bench: Bench) -> None:
    """What is built as a table or view is refused like a name that there is not; a schedule of it, too."""
    bench.write_model("board_sheets", "select 1 as sheet_id")
    operator = token(bench, "operator")
    with in_process(bench) as api:
        for path, more in (("runs", {}), ("schedules", {"name": "a", "cron": "0 0 * * *"})):
            answer = api.post(f"/api/v1/{path}", json={"entities": ["board_sheets"]} | more, headers=operator)
            content = problem(answer, 422)
            assert content["detail"] == "there is no entity named 'board_sheets'"
            assert content["hint"] == "Known here: people, prices, visits."
        problem(api.post("/api/v1/entities/board_sheets/build", headers=operator), 404)
        ended = bench.call("schedule", "create", "a", "--cron", "0 0 * * *", "--entity", "board_sheets")
        assert (ended.returncode, "Known here: people, prices, visits" in ended.stderr) == (2, True), ended.stderr
        # One that was built is known, whatever its file looks like.
        bench.query("insert into syncline.entities (entity, schema_name) values ('board_sheets', 'public') returning 1")
        assert api.post("/api/v1/entities/board_sheets/build", headers=operator).status_code == 202
    assert len(bench.runs()) == 1


@pytest.mark.parametrize("option", ["force_overwrite", "allow_mass_delete"])
def test_guards_are_set_aside_by_admins_alone(client: Client, bench: Bench, option: str) -> None:
    """What sets a guard aside needs an admin, to request it and to try such a run again."""
    operator = token(bench, "operator")
    content = problem(client.post(RUNS, json={"source": "shop", option: True}, headers=operator), 403)
    assert option in content["detail"]
    assert client.post(RUNS, json={"source": "shop"}, headers=operator).status_code == 202
    run_id = client.post(RUNS, json={"source": "shop", option: True}).json()["run_id"]
    assert bench.value("select options from syncline.runs where run_id = %s", run_id) == {option: True}
    client.post(f"{RUNS}/{run_id}/cancel")
    problem(client.post(f"{RUNS}/{run_id}/retry", headers=operator), 403)
    assert client.post(f"{RUNS}/{run_id}/retry").status_code == 202


def test_viewers_read_and_change_nothing(client: Client, bench: Bench) -> None:
    """A viewer's token reads runs, and is refused wherever something would change."""
    viewer = token(bench, "viewer")
    assert client.get(RUNS, headers=viewer).json() == {"runs": [], "next_before": None}
    for path in ["/runs", "/runs/1/cancel", "/runs/1/retry", "/publish", "/rollback", "/entities/people/build"]:
        problem(client.post(f"/api/v1{path}", json={}, headers=viewer), 403)
    problem(client.post("/api/v1/streams/shop/people/records", json=[], headers=viewer), 403)
    assert bench.runs() == []


def test_runs_are_listed_by_what_they_are(client: Client, bench: Bench) -> None:
    """GET /runs filters by status, trigger, source and kind, and goes on before a number."""
    client.post(RUNS, json={"source": "shop"})
    client.post(RUNS, json={"source": "files"})
    client.post(RUNS, json={"source": "files", "dry_run": True})
    client.post(f"{RUNS}/2/cancel")

    def listed(**wanted: Any) -> list[int]:
        return [run["run_id"] for run in client.get(RUNS, params=wanted).json()["runs"]]

    assert listed() == [3, 2, 1]
    assert listed(status="queued") == [3, 1]
    assert listed(status=["queued", "cancelled"]) == [3, 2, 1]
    assert listed(source="files") == [3, 2]
    assert listed(kind="dry run") == [3]
    assert listed(trigger="cli") == []
    assert listed(before=3) == [2, 1]
    page = client.get(RUNS, params={"limit": 2}).json()
    assert page["next_before"] == 2
    assert client.get(RUNS, params={"limit": 2, "before": 2}).json()["next_before"] is None
    for wrong in ({"limit": 201}, {"status": "done"}, {"before": 2**63}, {"source": "a\x00"}):
        problem(client.get(RUNS, params=wrong), 422)


def test_unknown_runs(client: Client) -> None:
    """A run that there is not is a problem 404, for whatever is asked of it."""
    for path in ("", "/events"):
        assert problem(client.get(f"{RUNS}/17{path}"), 404)["detail"] == "there is no run 17"
    for path in ("/cancel", "/retry"):
        assert problem(client.post(f"{RUNS}/17{path}"), 404)["detail"] == "there is no run 17"
    problem(client.get(f"{RUNS}/0"), 422)
    problem(client.get(f"{RUNS}/{2**63}"), 422)
    problem(client.get(f"{RUNS}/last-successful"), 404)


def test_cancel_and_retry(client: Client, bench: Bench) -> None:
    """A queued run is cancelled by name of the token; one that has ended is requested once more, and not before."""
    run_id = client.post(RUNS, json={"source": "shop", "dry_run": True}).json()["run_id"]
    problem(client.post(f"{RUNS}/{run_id}/retry"), 409)
    answer = client.post(f"{RUNS}/{run_id}/cancel", headers=token(bench, "operator"))
    assert answer.status_code == 202
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["errors"][0]["message"] == "cancelled by the-operator"
    problem(client.post(f"{RUNS}/{run_id}/cancel"), 409)
    retried = client.post(f"{RUNS}/{run_id}/retry", headers={"X-Request-Id": "again"}).json()
    assert retried["run_id"] != run_id
    assert (retried["retry_of"], retried["options"], retried["request_id"]) == (run_id, {"dry_run": True}, "again")


def test_a_text_that_no_database_holds_is_refused(client: Client) -> None:
    """Half a surrogate pair is valid JSON and no text: a problem 422."""
    for body in (b'{"source": "\\ud800"}', b'{"triggered_by": "\\ud800"}', b'{"triggered_by": "\\u0000"}'):
        problem(client.post(RUNS, content=body, headers={"content-type": "application/json"}), 422)


def test_a_request_is_one_line_of_the_log(client: Client) -> None:
    """The log has method, route, status and caller of a request under its id, and no value that was sent."""
    with capture_logs() as captured:
        client.get(f"{RUNS}/17", params={"note": "hidden-word"}, headers={"X-Request-Id": "look-1"})
        client.post(RUNS, json={"source": "hidden-word"}, headers={"X-Request-Id": "look-2"})
        client.get("/hidden-word", headers={"X-Request-Id": "look-3"})
        until = time.monotonic() + 5
        # What was asked before may be logged only now.
        while len(logged := [line for line in captured if line["request_id"].startswith("look-")]) < 3:
            assert time.monotonic() < until, captured
            time.sleep(0.01)
    shown = [(line["method"], line["route"], line["status"], line["request_id"]) for line in logged]
    assert sorted(shown) == [
        ("GET", "/api/v1/runs/{run_id}", 422, "look-1"),
        ("GET", "unknown", 404, "look-3"),
        ("POST", "/api/v1/runs", 422, "look-2"),
    ]
    assert {line["caller"] for line in logged} == {"SYNCLINE_SECRET_KEY", None}
    assert "hidden-word" not in str(captured)


def test_no_get_changes_anything(client: Client, bench: Bench) -> None:
    """A GET of every path that takes a POST is refused, and the queue stays empty."""
    known = {"run_id": 1, "entity": "people", "source": "shop", "stream": "people", "name": "nightly"}
    known |= {"conflict_id": 1, "key": "1", "column": "name"}
    for path, methods in client.get("/api/v1/openapi.json").json()["paths"].items():
        if "get" not in methods:
            filled = path.format(**known)
            answer = client.get(filled)
            assert answer.status_code in (404, 405, 422), filled
            assert answer.headers["content-type"] == "application/problem+json"
    assert bench.runs() == []


def test_what_is_not_there_is_a_problem(client: Client) -> None:
    """Unknown paths and wrong methods are problems, too."""
    problem(client.get("/api/v1/nothing"), 404)
    answer = client.delete(RUNS)
    problem(answer, 405)
    assert answer.headers["allow"] == "GET, POST"
    assert client.put("/api/v1/schedules/nightly").headers["allow"] == "DELETE, GET, PATCH"
    assert client.post("/healthz").headers["allow"] == "GET"


@pytest.mark.parametrize("given", ["", "a b", "x" * 101, "ein-Höcker"])
def test_a_request_id_that_is_none_is_replaced(client: Client, given: str) -> None:
    """An id with blanks, beyond ASCII or too long is answered with a new one."""
    answer = client.get(RUNS, headers={b"X-Request-Id": given.encode()})
    assert len(answer.headers["x-request-id"]) == 36


def test_events_of_a_run_that_ended(client: Client, bench: Bench) -> None:
    """The events of a run come as a list or as server-sent events, after the one named, and at last its report."""
    run_id = bench.sync("shop", request_id="from-here")["run_id"]
    listed = client.get(f"{RUNS}/{run_id}/events", headers={"accept": "application/json"}).json()["events"]
    assert listed[0]["event"] == "sync_start"
    assert listed[-1]["event"] == "sync_ok"
    assert {event["request_id"] for event in listed} == {"from-here"}
    answer = client.get(f"{RUNS}/{run_id}/events", headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    sent = parse_events(answer.text)
    assert [event["id"] for event in sent] == [str(event["event_id"]) for event in listed] + [None]
    assert [event["data"] for event in sent[:-1]] == listed
    assert sent[-1]["event"] == "end"
    assert sent[-1]["data"] == client.get(f"{RUNS}/{run_id}").json()
    half = listed[len(listed) // 2]["event_id"]
    rest = client.get(f"{RUNS}/{run_id}/events", headers={"last-event-id": str(half)})
    assert [event["id"] for event in parse_events(rest.text)][:-1] == [
        str(event["event_id"]) for event in listed if event["event_id"] > half
    ]
    last = client.get(f"{RUNS}/last-successful", params={"source": "shop"}).json()
    assert last["run_id"] == run_id
    problem(client.get(f"{RUNS}/last-successful", params={"source": "files"}), 404)
    problem(client.get(f"{RUNS}/last-successful", params={"source": "nowhere"}), 422)


def parse_events(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append({"id": fields.get("id"), "event": fields["event"], "data": json.loads(fields["data"])})
    return found


def test_a_run_is_followed_while_a_worker_works_it(bench: Bench) -> None:
    """A run requested over HTTP is taken by a worker; a follower sees its events as they come, then its end."""
    with serving(bench) as client:
        run_id = client.post(RUNS, json={"source": "shop"}).json()["run_id"]
        worker = bench.start("worker", "--burst")
        try:
            with client.stream("GET", f"{RUNS}/{run_id}/events") as answer:
                sent = parse_events("".join(answer.iter_text()))
            worker.communicate(timeout=60)
        finally:
            worker.kill()
            worker.communicate()
    names = [event["event"] for event in sent]
    assert names[0] == "sync_start"
    assert names[-2:] == ["sync_ok", "end"]
    ids = [event["id"] for event in sent[:-1]]
    assert len(set(ids)) == len(ids)
    assert sent[-1]["data"]["status"] == "succeeded"
    assert len(bench.current()) == 50


def test_late_events_are_not_lost(client: Client, bench: Bench) -> None:
    """An event that is committed after a later one is still sent, and none twice."""
    run_id = client.post(RUNS, json={"source": "shop"}).json()["run_id"]
    with bench.connect() as one, bench.connect() as two:
        for connection in (one, two):
            connection.execute(f"set syncline.run_id = {run_id}")
        follower = _Follower(client.state, run_id, 0)
        with one.transaction():
            control.log(one, "info", "early")
            control.log(two, "info", "late")
            assert [event["event"] for event in follower.look()[1]] == ["late"]
        assert [event["event"] for event in follower.look()[1]] == ["early"]
        assert follower.look()[1] == []


def test_followers_are_bounded(client: Client, bench: Bench) -> None:
    """Where as many follow as may, the next is told to come again, and lists still come."""
    run_id = client.post(RUNS, json={"source": "shop"}).json()["run_id"]
    state = client.state
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(state.followers.take())
        answer = client.get(f"{RUNS}/{run_id}/events")
        assert problem(answer, 503)["type"] == "urn:syncline:busy"
        assert answer.headers["retry-after"]
        assert client.get(f"{RUNS}/{run_id}/events", headers={"accept": "application/json"}).status_code == 200
