"""Entities, status, health and schedules over HTTP."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from syncline import schedules
from tests.integration.test_api_runs import problem
from tests.projects import Bench, people, person
from tests.roles import three_roles
from tests.serving import KEY, Client, in_process, serving, token

API = "/api/v1"
NDJSON = {"accept": "application/x-ndjson"}


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    with in_process(bench) as made:
        yield made


def test_a_candidate_is_compared_published_and_taken_back(client: Client, bench: Bench) -> None:
    """Diff shows what a dry run would change, publish makes exactly that current, rollback takes it back and holds."""
    bench.sync("shop")
    bench.api.records["people"] = [person(1, name="other"), *people(50)[1:], person(51)]
    bench.sync("shop", dry_run=True)
    (shown,) = client.get(f"{API}/entities").json()["entities"]
    assert (shown["entity"], shown["candidate_state"], shown["rows_total"]) == ("people", "checked", 50)
    assert shown["is_in_project"]

    diff = client.get(f"{API}/entities/people/diff").json()
    assert (diff["shows"], diff["has_more"]) == ("candidate", False)
    changes = {row["_key"]: row for row in diff["rows"]}
    assert {key: row["change"] for key, row in changes.items()} == {"1": "updated", "51": "inserted"}
    assert (changes["1"]["old"], changes["1"]["new"]) == ({"name": "name 1"}, {"name": "other"})
    assert (changes["51"]["old"], changes["51"]["new"]["name"]) == (None, "name 51")
    assert changes["1"]["unique_key"] == {"email": "p1@example.com"}
    assert diff["counts"] == {"inserted": 1, "updated": 1, "deleted": 0}
    assert (diff["columns_added"], diff["columns_dropped"]) == ([], [])
    limited = client.get(f"{API}/entities/people/diff", params={"limit": 1}).json()
    assert (len(limited["rows"]), limited["has_more"], limited["counts"]) == (1, True, diff["counts"])
    lines = client.get(f"{API}/entities/people/diff", headers=NDJSON)
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in lines.text.splitlines()] == diff["rows"]

    published = client.post(f"{API}/entities/people/publish", headers={"X-Request-Id": "let-it-out"})
    assert published.status_code == 200, published.text
    assert list(published.json()["published"]) == ["people"]
    assert bench.current()["1"]["name"] == "other"
    assert client.get(f"{API}/entities/people/diff").json()["shows"] == "last publish"
    problem(client.post(f"{API}/publish"), 409)

    back = client.post(f"{API}/rollback", headers=token(bench, "operator"))
    assert back.json() == {"rolled_back": ["people"]}
    assert bench.current()["1"]["name"] == "name 1"
    assert client.get(f"{API}/status").json()["entities"][0]["held_at"]
    problem(client.post(f"{API}/entities/people/rollback"), 409)
    assert client.post(f"{API}/publish").json() == {"published": {}}
    events = bench.query("select event, request_id, detail from syncline.log_events where run_id is null order by 1")
    assert {event["event"] for event in events} >= {"published", "rolled_back"}
    assert {"entities": ["people"], "by": "the-operator"} in [event["detail"] for event in events]
    assert "let-it-out" in [event["request_id"] for event in events]


def test_unknown_entities(client: Client) -> None:
    """What is asked of an entity that there is not is a problem 404; of one that was never built, 404 too."""
    for path in ("build", "publish", "rollback"):
        problem(client.post(f"{API}/entities/nobody/{path}"), 404)
    problem(client.get(f"{API}/entities/nobody/diff"), 404)
    problem(client.get(f"{API}/entities/people/diff"), 404)
    problem(client.get(f"{API}/entities/peo%00ple/diff"), 422)
    problem(client.post(f"{API}/rollback"), 409)


def test_a_build_is_a_run_of_two_steps(client: Client, bench: Bench) -> None:
    """POST /entities/E/build requests a run that builds and checks the entity, and publishes nothing."""
    answer = client.post(f"{API}/entities/people/build", json={"full_refresh": True, "max_attempts": 1})
    assert answer.status_code == 202, answer.text
    report = answer.json()
    assert report["entities_asked_for"] == ["people"]
    assert report["options"] == {"steps": ["build", "check"], "full_refresh": True}
    assert report["kind"] == "build"
    assert client.post(f"{API}/entities/people/build").json()["run_id"] != report["run_id"]
    problem(
        client.post(f"{API}/entities/people/build", json={"allow_mass_delete": True}, headers=token(bench, "operator")),
        403,
    )


def test_status_and_row_errors_are_those_of_the_commands(client: Client, bench: Bench) -> None:
    """GET /status, /streams and /row-errors give what the commands print with --json."""
    bench.api.records["people"] = [*people(20), person(21, age="old")]
    bench.sync("shop")
    printed = json.loads(bench.call("status", "--json").stdout)
    status = client.get(f"{API}/status").json()
    assert [row["entity"] for row in status["entities"]] == [row["entity"] for row in printed["entities"]]
    assert [(row["stream"], row["live_records"]) for row in status["streams"]] == [
        (row["stream"], row["live_records"]) for row in printed["streams"]
    ]
    assert client.get(f"{API}/streams").json()["streams"] == status["streams"]
    printed = json.loads(bench.call("errors", "--json").stdout)["errors"]
    (error,) = client.get(f"{API}/row-errors", params={"entity": "people"}).json()["errors"]
    assert (error["_key"], error["value"]) == ("21", "old") == (printed[0]["_key"], printed[0]["value"])
    assert client.get(f"{API}/row-errors", params={"stream": "files.visits"}).json() == {"errors": []}
    for wrong in ({"entity": "nobody"}, {"stream": "none"}, {"run": 17}, {"limit": 0}):
        problem(client.get(f"{API}/row-errors", params=wrong), 422)


def test_schedules_are_made_changed_fired_and_deleted(client: Client, bench: Bench) -> None:
    """A schedule's whole life over HTTP; each change shows in the list."""
    wanted = {"name": "nightly", "cron": "0 3 * * *", "zone": "Europe/Prague", "sources": ["shop"], "timeout": 60}
    made = client.post(f"{API}/schedules", json=wanted | {"streams": ["people"], "dry_run": True})
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"{API}/schedules/nightly"
    assert made.json()["options"] == {"streams": ["people"], "dry_run": True}
    assert made.json()["timeout"] == 60
    assert made.json()["next_at"]
    problem(client.post(f"{API}/schedules", json=wanted), 409)

    changed = client.patch(f"{API}/schedules/nightly", json={"cron": "*/15 * * * *", "dry_run": False, "timeout": 0})
    assert changed.json()["cron"] == "*/15 * * * *"
    assert changed.json()["options"] == {"streams": ["people"]}
    assert changed.json()["timeout"] is None
    assert client.post(f"{API}/schedules/nightly/pause").json()["is_paused"] is True
    assert client.post(f"{API}/schedules/nightly/resume").json()["is_paused"] is False
    run = client.post(f"{API}/schedules/nightly/trigger", headers=token(bench, "operator"))
    assert run.status_code == 202
    assert (run.json()["schedule"], run.json()["trigger"]) == ("nightly", "api")
    assert run.json()["triggered_by"] == "the-operator"
    assert client.get(f"{API}/schedules/nightly").json()["last_run"] == run.json()["run_id"]
    assert client.post(f"{API}/schedules/sync").json() == {"synced": {}}
    assert client.delete(f"{API}/schedules/nightly").status_code == 204
    assert client.get(f"{API}/schedules").json() == {"schedules": []}


def test_what_is_wrong_with_a_schedule(client: Client, bench: Bench) -> None:
    """Unknown schedules are problems 404, wrong ones 422; what sets a guard aside in them needs an admin."""
    operator = token(bench, "operator")
    base = {"name": "nightly", "cron": "0 3 * * *"}
    for wrong in (
        {"cron": "0 0 3 * * *"},
        {"cron": "often"},
        {"zone": "Mars/Olympus"},
        {"name": "Not This"},
        {"sources": ["nowhere"]},
        {"streams": ["nothing"]},
        {"entities": ["nobody"]},
        {"cron": "\x00"},
    ):
        problem(client.post(f"{API}/schedules", json=base | wrong), 422)
    problem(client.post(f"{API}/schedules", json=base | {"allow_mass_delete": True}, headers=operator), 403)
    assert client.post(f"{API}/schedules", json=base | {"allow_mass_delete": True}).status_code == 201
    problem(client.patch(f"{API}/schedules/nightly", json={"sources": ["shop"]}, headers=operator), 403)
    problem(client.post(f"{API}/schedules/nightly/trigger", headers=operator), 403)
    assert bench.runs() == []
    assert client.post(f"{API}/schedules/nightly/trigger").status_code == 202
    problem(client.patch(f"{API}/schedules/nightly", json={"cron": "x"}), 422)
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/trigger")):
        problem(client.request(method, f"{API}/schedules/weekly{path}", json={}), 404)


def test_health_needs_no_token(client: Client, bench: Bench) -> None:
    """Everybody may ask whether the API lives; whether it can work is judged by the database and its schema."""
    client.headers.pop("authorization")
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json()["status"] == "ready"
    problem(client.get(f"{API}/status"), 401)
    bench.query("delete from syncline.function_files where name = 'runs.sql' returning 1")
    assert problem(client.get("/readyz"), 503)["type"] == "urn:syncline:not_migrated"
    assert client.get("/healthz").status_code == 200


def test_a_control_schema_that_cannot_be_used_is_not_ready(client: Client, bench: Bench) -> None:
    """A control schema of a newer release, or one that the database user may not use, is a 503 that says what to do."""
    bench.query("insert into syncline.migrations values (9999, '9999_newer_breaking.sql', true) returning 1")
    content = problem(client.get("/readyz"), 503)
    assert content["type"] == "urn:syncline:not_migrated"
    assert "newer release" in content["detail"]
    assert "Upgrade" in content["hint"]
    bench.query("delete from syncline.migrations where migration_id = 9999 returning 1")
    with three_roles(bench.dsn) as roles, in_process(bench, dsn=roles.dsn(roles.reader)) as other:
        content = problem(other.get("/readyz"), 503)
    assert "may not use the schema syncline" in content["detail"]
    assert "grant_roles" in content["hint"]


def test_missing_rights_say_who_grants_them(bench: Bench) -> None:
    """What the database user may not do is a 503 in the database's words, with what grants it; it is no defect."""
    with three_roles(bench.dsn) as roles, in_process(bench, dsn=roles.dsn(roles.reader)) as client:
        with bench.connect() as connection:
            connection.execute(f"grant usage on schema syncline to {roles.reader}")
        for path in ("/readyz", f"{API}/status", f"{API}/runs", f"{API}/schedules"):
            content = problem(client.get(path), 503)
            assert content["type"] == "urn:syncline:not_granted"
            assert "SQLSTATE 42501" in content["detail"]
            assert "permission denied for" in content["detail"]
            assert "grant_roles" in content["hint"]


def test_a_database_that_is_gone_is_unavailable(client: Client, bench: Bench) -> None:
    """Without its database the API says 503 and when to ask again, lives on, and works once it is back."""
    with psycopg.connect(bench.dsn, dbname="postgres", autocommit=True) as admin:
        name = sql.Identifier(psycopg.conninfo.conninfo_to_dict(bench.dsn)["dbname"])  # type: ignore[arg-type]
        admin.execute(sql.SQL("alter database {} allow_connections false").format(name))
        bench_sessions = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
        admin.execute(bench_sessions, (psycopg.conninfo.conninfo_to_dict(bench.dsn)["dbname"],))
        try:
            for path in (f"{API}/runs", "/readyz"):
                answer = client.get(path, timeout=30)
                content = problem(answer, 503)
                assert content["type"] == "urn:syncline:unavailable"
                assert answer.headers["retry-after"]
            assert client.get("/healthz").status_code == 200
        finally:
            admin.execute(sql.SQL("alter database {} allow_connections true").format(name))
    until_back = [client.get("/readyz", timeout=30).status_code for _ in range(8)]
    assert until_back[-1] == 200


def test_a_defect_tells_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is a problem 500 without a word of it, and the server lives on."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(schedules, "list_schedules", fail)
    answer = client.get(f"{API}/schedules")
    assert problem(answer, 500)["type"] == "urn:syncline:defect"
    assert "hunter2" not in answer.text
    assert client.get("/healthz").status_code == 200


def test_serve_says_where_and_stops_at_once(bench: Bench) -> None:
    """`syncline serve` prints its address, answers with the key of its environment, and ends with code 0 on SIGTERM."""
    with serving(bench) as client:
        assert client.get(f"{API}/status").status_code == 200
        assert client.get("/readyz").status_code == 200
        told_at = time.monotonic()
    assert client.process.returncode == 0
    assert time.monotonic() - told_at < 20


def test_serve_refuses_to_be_open(bench: Bench) -> None:
    """On an address that others reach, serve needs a token, and TLS in front; a port that is taken is told."""
    open_ = bench.cli("serve", "--host", "0.0.0.0", "--port", "0", SYNCLINE_SECRET_KEY="")
    assert (open_.returncode, open_.stdout) == (3, "")
    assert "there is no token" in open_.stderr
    plain = bench.cli("serve", "--host", "0.0.0.0", "--port", "0", SYNCLINE_SECRET_KEY=KEY)
    assert plain.returncode == 3
    assert "--behind-tls" in plain.stderr
    with serving(bench) as client:
        taken = bench.cli("serve", "--port", str(client.base_url.port), SYNCLINE_SECRET_KEY=KEY)
    assert taken.returncode == 2
    (said,) = [line for line in taken.stderr.splitlines() if "cannot listen" in line]
    assert said.count("127.0.0.1") == 1


def test_serve_starts_with_an_event_where_its_log_is_json(bench: Bench) -> None:
    """Without --json too, nothing but JSON lines is written, and it begins with where it is, and that no token is."""
    process = subprocess.Popen(
        bench.command("serve", "--port", "0"),
        cwd=bench.root,
        env=bench.environment | {"SYNCLINE_LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    lines = [process.stderr.readline(), process.stderr.readline()]
    try:
        with Client(json.loads(lines[0])["url"]) as client:
            assert client.get("/healthz").status_code == 200
    finally:
        process.terminate()
    output, rest = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, ""), rest
    start, missing, *_ = [json.loads(line) for line in lines + rest.splitlines()]
    assert (start["event"], missing["event"]) == ("serve_start", "no_token")
    assert start["url"].startswith("http://127.0.0.1:")


def test_followers_do_not_keep_a_server_from_stopping(bench: Bench) -> None:
    """A server that is told to stop ends the events that are followed, and does not wait for the runs."""
    with serving(bench) as client:
        run_id = client.post(f"{API}/runs", json={"source": "shop"}).json()["run_id"]
        with client.stream("GET", f"{API}/runs/{run_id}/events") as answer:
            pieces = answer.iter_text()
            assert next(pieces).startswith(":")
            began = time.monotonic()
            client.process.terminate()
            assert list(pieces) == []
            assert time.monotonic() - began < 10
