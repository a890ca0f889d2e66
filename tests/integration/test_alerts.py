"""Alerts: every kind of incident is told once, stays told, ends, and recovers, whoever looks and whatever is down."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from syncline import control, db, schedules
from syncline.alerts import Alerts, send_test
from syncline.cli import main
from syncline.config import Project, read_project
from syncline.errors import ConfigurationError, DatabaseUnavailableError
from syncline.migrate import migrate
from syncline.tokens import create_token, revoke_token
from tests.driver import Driver, people, person
from tests.projects import TOKEN, Bench

SECRET = "p4ssw0rd-that-must-not-show"

Change = Callable[..., Project]

# apprise imports all services it knows, and one of them an old module.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


class Inbox:
    """A server on loopback that takes messages of apprise's json:// service; `is_down` makes it refuse them."""

    def __init__(self) -> None:
        inbox = self
        self.messages: list[dict[str, Any]] = []
        self.tries = 0
        self.is_down = False
        self.on_message: Callable[[], None] = lambda: None

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.tries += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                inbox.on_message()
                if not inbox.is_down:
                    inbox.messages.append(body)
                self.send_response(503 if inbox.is_down else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"json://syncline:{SECRET}@127.0.0.1:{self._server.server_port}/"

    @property
    def titles(self) -> list[str]:
        return [message["title"].removeprefix("Syncline driven (dev): ") for message in self.messages]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[Inbox]:
    made = Inbox()
    yield made
    made.close()


@pytest.fixture
def configured(driver: Driver, inbox: Inbox) -> Change:
    """Writes the project's settings of alerts, and gives the project with the inbox as its address."""

    def change(urls: str | None = None, **settings: Any) -> Project:
        given = {"name": "driven", "model-paths": ["models"], "vars": {"syncline": {"alerts": settings}}}
        (driver.root / "dbt_project.yml").write_text(json.dumps(given))
        (driver.root / "models" / "people.sql").write_text("select 1")
        (driver.root / ".env").write_text(f"SYNCLINE_ALERT_URLS={urls or inbox.url}\n")
        return read_project(driver.root)

    return change


def alerts(project: Project) -> Alerts:
    return Alerts(project, lost_seconds=0)


def check(driver: Driver, project: Project, times: int = 3) -> None:
    """Look several times, each as a process of its own would."""
    for _ in range(times):
        alerts(project).check(driver.connection)


def end_run(driver: Driver, status: str, *, seconds: float = 1, **options: Any) -> int:
    """Work a run that takes so long and ends so."""
    run_id = control.request_run(driver.connection, [], [], options, "api", max_attempts=1)
    assert control.claim_run(driver.connection, run_id)
    age_run(driver, run_id, seconds)
    error = {"message": "the source answered 401", "hint": "Check the token.", "exit_code": 1}
    control.finish_run(driver.connection, status, error if status == "failed" else None)
    return run_id


def age_run(driver: Driver, run_id: int, seconds: float) -> None:
    driver.connection.execute(
        "update syncline.runs set started_at = now() - make_interval(secs => %s) where run_id = %s", (seconds, run_id)
    )


def test_a_failed_run_is_told_once_and_so_is_its_recovery(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """Runs that go on failing are one incident; the message says what, when and what next; a success ends it."""
    project = configured()
    check(driver, project)
    assert inbox.messages == []
    first = end_run(driver, "failed")
    check(driver, project)
    end_run(driver, "failed")
    check(driver, project)
    assert inbox.titles == ["the run of files failed"]
    body = inbox.messages[0]["message"]
    assert f"Run {first} failed at {datetime.now(UTC):%Y-%m-%d}" in body
    assert "the source answered 401" in body
    assert "Next: Check the token." in body
    assert "Open since" in body
    end_run(driver, "succeeded")
    check(driver, project)
    assert inbox.titles[1:] == ["recovered: files was synced"]
    end_run(driver, "failed")
    check(driver, project)
    assert inbox.titles[2:] == ["the run of files failed"]


def test_only_what_answers_a_failed_run_ends_it(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """A load, a dry run or a part of a sync is no recovery of a sync; cancelled runs change nothing."""
    project = configured()
    end_run(driver, "failed")
    for options in ({"steps": ["load"]}, {"dry_run": True}, {"streams": ["people"]}):
        end_run(driver, "succeeded", **options)
    end_run(driver, "cancelled")
    check(driver, project)
    assert len(inbox.messages) == 1
    end_run(driver, "succeeded", full_refresh=True)
    check(driver, project)
    assert len(inbox.messages) == 2
    end_run(driver, "failed", steps=["load"])
    end_run(driver, "succeeded", steps=["load"])
    check(driver, project)
    assert len(inbox.messages) == 2


def test_failures_that_their_callers_see_are_no_incidents(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """Dry runs and trials are asked for by somebody who is told; an attempt that is tried again is no failure."""
    project = configured()
    end_run(driver, "failed", dry_run=True)
    end_run(driver, "failed", limit=5)
    run_id = control.request_run(driver.connection, [], [], {}, "api", max_attempts=2)
    control.claim_run(driver.connection, run_id)
    error = {"message": "it broke", "hint": None, "exit_code": 1}
    assert control.finish_run(driver.connection, "failed", error) == "queued"
    check(driver, project)
    assert inbox.messages == []


def test_a_lost_run_is_told(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """A run whose process is gone, with no attempt left, is an incident."""
    project = configured()
    run_id = control.request_run(driver.connection, [], [], {}, "api", max_attempts=1)
    with db.connect(driver.dsn) as worker:
        assert control.claim_run(worker, run_id)
    while control.is_run_alive(driver.connection, run_id):
        pass
    control.claim_run(driver.connection)
    check(driver, project)
    assert inbox.titles == ["the run of files failed"]
    assert "was lost with the process that worked it" in inbox.messages[0]["message"]


def test_runs_of_sources_that_are_gone_are_left(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """An incident of a source that the project has no more ends."""
    project = configured()
    end_run(driver, "failed")
    check(driver, project)
    driver.connection.execute("update syncline.streams set is_declared = false")
    check(driver, project)
    assert len(inbox.messages) == 2


def test_a_slow_run_is_told_while_it_runs(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """It is told before its end; its end alone does not mend it, a quick run does."""
    project = configured(slower_than="30m")
    run_id = control.request_run(driver.connection, [], [], {}, "api")
    with db.connect(driver.dsn) as worker:
        control.claim_run(worker, run_id)
        check(driver, project)
        assert inbox.messages == []
        age_run(driver, run_id, 2000)
        check(driver, project)
        assert inbox.titles == ["the run of files is slow"]
        assert "has been running for 33 min" in inbox.messages[0]["message"]
        control.finish_run(worker, "succeeded")
    check(driver, project)
    end_run(driver, "succeeded", seconds=1900)
    check(driver, project)
    assert len(inbox.messages) == 1
    end_run(driver, "succeeded", seconds=100)
    check(driver, project)
    assert inbox.titles[1:] == ["recovered: files was synced in time"]


def test_a_run_that_was_slow_is_told(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """Nobody looked while it ran; without a bound nothing is slow, and what was so is over."""
    check(driver, configured())
    end_run(driver, "succeeded", seconds=7300)
    check(driver, configured())
    assert inbox.messages == []
    check(driver, configured(slower_than="2h"))
    assert "took 2 h 1 min: longer than 2 h 0 min" in inbox.messages[0]["message"]
    check(driver, configured())
    assert len(inbox.messages) == 2


def test_many_row_errors_are_told_with_counts_alone(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """Of an entity and of a stream; the message has no value of a record."""
    project = configured(error_ratio=0.2)
    driver.load([*people(8), person(9, age="a-value"), b"another value"])
    driver.publish(driver.build())
    check(driver, project)
    assert inbox.messages == []
    driver.load([*people(6), *(person(n, age="a-value") for n in (7, 8, 9)), b"another value", b"and another"])
    driver.publish(driver.build())
    check(driver, project)
    assert sorted(inbox.titles) == ["many records of files.people have errors", "many records of people have errors"]
    entity, stream = sorted(inbox.messages, key=lambda message: "files.people" in message["title"])
    assert "3 of 9 records (33.3%) have row errors: more than 20.0%." in entity["message"]
    assert "`syncline errors --entity people`" in entity["message"]
    assert "2 of 9 records" in stream["message"]
    assert "value" not in json.dumps([entity["message"], stream["message"]])
    driver.load(people(9))
    driver.publish(driver.build())
    check(driver, project)
    assert len(inbox.messages) == 4


def test_a_stale_entity_is_told(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """By one bound for all, or by one of its own; a load that finds nothing new makes it fresh."""
    driver.sync(people(5))
    driver.connection.execute("update syncline.loads set started_at = now() - interval '3 hours'")
    check(driver, configured(stale_after="4h"))
    assert inbox.messages == []
    check(driver, configured(stale_after="2h"))
    check(driver, configured(stale_after={"people": "2h"}))
    assert inbox.titles == ["people is stale"]
    assert "longer ago than 2 h 0 min" in inbox.messages[0]["message"]
    driver.load(people(5))
    assert driver.build() is None
    check(driver, configured(stale_after="2h"))
    assert inbox.titles[1:] == ["recovered: people is fresh"]


def test_a_missed_schedule_is_told(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """A schedule that nobody fires is told; once it is fired it is well."""
    project = configured()
    schedules.create_schedule(driver.connection, "nightly", "*/5 * * * *")
    check(driver, project)
    assert inbox.messages == []
    driver.connection.execute(
        "update syncline.schedules set settled_at = now() - interval '1 hour', last_error = 'no right to run it'"
    )
    assert [row["name"] for row in schedules.missed(driver.connection)] == ["nightly"]
    check(driver, project)
    assert inbox.titles == ["the schedule nightly was missed"]
    assert "and nothing asked for its run: no right to run it" in inbox.messages[0]["message"]
    schedules.fire_due(driver.connection)
    check(driver, project)
    assert inbox.titles[1:] == ["recovered: the schedule nightly is fired"]


def test_a_token_that_ends_soon_is_told(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """Two weeks before; revoking it ends the incident; its secret is in no message."""
    project = configured()
    create_token(driver.connection, "far", "viewer", expires_in=timedelta(days=60))
    made = create_token(driver.connection, "near", "operator", expires_in=timedelta(days=10))
    check(driver, project)
    assert inbox.titles == ["the token near expires soon"]
    assert "--role operator --replace near" in inbox.messages[0]["message"]
    revoke_token(driver.connection, "near")
    check(driver, project)
    assert len(inbox.messages) == 2
    assert made.token not in json.dumps(inbox.messages)


def test_the_database_is_missed_once(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """A loss is told after its time, once, and its end once; a short loss is not told."""
    project = configured()
    patient = Alerts(project, lost_seconds=60)
    error = DatabaseUnavailableError(f"the database does not answer: {SECRET}")
    patient.database_lost(error)
    patient.database_back()
    assert inbox.messages == []
    eager = alerts(project)
    for _ in range(3):
        eager.database_lost(error)
    assert inbox.titles == ["the database cannot be reached"]
    assert "${SYNCLINE_ALERT_URLS}" in inbox.messages[0]["message"]
    eager.database_back()
    eager.database_back()
    assert inbox.titles[1:] == ["recovered: the database can be reached"]


def test_the_loss_of_the_database_is_told_again_and_again_until_it_is_heard(
    driver: Driver, inbox: Inbox, configured: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that is down gets the message, and the recovery, once it answers; the pauses grow."""
    now = time.monotonic()
    monkeypatch.setattr("syncline.alerts.time.monotonic", lambda: now)
    watching = alerts(configured())
    error = DatabaseUnavailableError("the database does not answer")
    inbox.is_down = True
    for seconds, tries in ((0, 1), (29, 1), (31, 2), (60, 2), (92, 3)):
        now += seconds
        watching.database_lost(error)
        now -= seconds
        assert inbox.tries == tries, seconds
    inbox.is_down = False
    now += 300
    watching.database_lost(error)
    assert inbox.titles == ["the database cannot be reached"]
    inbox.is_down = True
    watching.database_back()
    inbox.is_down = False
    watching.check(driver.connection)
    assert len(inbox.messages) == 1
    now += 31
    watching.check(driver.connection)
    watching.check(driver.connection)
    assert inbox.titles[1:] == ["recovered: the database can be reached"]


def test_many_who_look_send_once(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """Eight at a time open one incident and send one message, one recovery too."""
    project = configured()

    def look_all() -> None:
        start = threading.Barrier(8)

        def look() -> None:
            with db.connect(driver.dsn) as connection:
                start.wait()
                alerts(project).check(connection)
                alerts(project).check(connection)

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    end_run(driver, "failed")
    look_all()
    assert len(inbox.messages) == 1
    end_run(driver, "succeeded")
    look_all()
    assert len(inbox.messages) == 2


def test_an_address_that_is_down_is_tried_again_with_growing_pauses(
    driver: Driver, inbox: Inbox, configured: Change
) -> None:
    """Nothing is raised; the pause doubles; once it answers it gets the message."""
    project = configured()
    inbox.is_down = True
    end_run(driver, "failed")
    pauses = []
    for tries in range(1, 4):
        check(driver, project)
        assert inbox.tries == tries
        row = driver.connection.execute("select try_at - now() as pause from syncline.incidents").fetchone()
        assert row
        pauses.append(row["pause"].total_seconds())
        driver.connection.execute("update syncline.incidents set try_at = now()")
    assert pauses == [pytest.approx(30, abs=8), pytest.approx(60, abs=8), pytest.approx(120, abs=8)]
    inbox.is_down = False
    check(driver, project)
    assert len(inbox.messages) == 1


def test_who_has_a_message_does_not_get_it_again(
    driver: Driver, inbox: Inbox, other: Inbox, configured: Change
) -> None:
    """Of two addresses one is down: only that one is tried again; both hear of the recovery."""
    project = configured(f"{inbox.url}, {other.url}")
    other.is_down = True
    end_run(driver, "failed")
    check(driver, project)
    driver.connection.execute("update syncline.incidents set try_at = now()")
    other.is_down = False
    check(driver, project)
    assert (len(inbox.messages), len(other.messages), other.tries) == (1, 1, 2)
    end_run(driver, "succeeded")
    check(driver, project)
    assert (len(inbox.messages), len(other.messages)) == (2, 2)


def test_what_ends_before_it_was_told_is_not_told(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """Neither its beginning nor its end."""
    project = configured()
    inbox.is_down = True
    end_run(driver, "failed")
    check(driver, project)
    inbox.is_down = False
    end_run(driver, "succeeded")
    driver.connection.execute("update syncline.incidents set try_at = now()")
    check(driver, project)
    assert inbox.messages == []


def test_what_ends_while_it_is_told_is_told_to_be_over(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """The incident closes between the claim of its message and the note that it was sent."""
    project = configured()
    end_run(driver, "failed")

    def succeed() -> None:
        inbox.on_message = lambda: None
        with db.connect(driver.dsn) as connection:
            run_id = control.request_run(connection, [], [], {}, "api")
            control.claim_run(connection, run_id)
            control.finish_run(connection, "succeeded")
            db.call(connection, "check_incidents")

    inbox.on_message = succeed
    check(driver, project)
    assert inbox.titles == ["the run of files failed", "recovered: files was synced"]


def test_an_open_incident_is_told_again_where_that_is_wanted(driver: Driver, inbox: Inbox, configured: Change) -> None:
    """`repeat_after` says so."""
    end_run(driver, "failed")
    check(driver, configured(repeat_after="6h"))
    assert len(inbox.messages) == 1
    driver.connection.execute("update syncline.incidents set told_at = now() - interval '7 hours'")
    check(driver, configured())
    assert len(inbox.messages) == 1
    check(driver, configured(repeat_after="6h"))
    assert inbox.titles[1:] == ["still: the run of files failed"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"slower": "30m"}, "slower_than"),
        ({"slower_than": "long"}, "duration"),
        ({"repeat_after": "often"}, "duration"),
        ({"error_ratio": 2}, "error_ratio"),
        ({"stale_after": "soon"}, "duration"),
        ({"stale_after": {"peple": "2h"}}, "peple"),
    ],
)
def test_settings_that_make_no_sense_are_refused(configured: Change, settings: dict[str, Any], named: str) -> None:
    """An unknown setting, one that is none, and an entity that there is not: the error names them."""
    with pytest.raises(ConfigurationError) as caught:
        configured(**settings)
    assert named in f"{caught.value.message} {caught.value.hint}"


def test_an_address_that_is_none_is_refused_without_being_shown(configured: Change, inbox: Inbox) -> None:
    """The error says which one it is, by its place."""
    with pytest.raises(ConfigurationError) as caught:
        Alerts(configured(f"{inbox.url} nosuchservice://{SECRET}"))
    assert "address 2" in caught.value.message
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"


def test_a_worker_tells_of_a_run_that_fails_and_of_its_recovery(bench: Bench, inbox: Inbox) -> None:
    """The real worker: JSON lines with the run's ids and without secrets, a message, and one when it is well again."""
    bench.api.token = "another"
    first = ask(bench, "one")
    with (bench.root / "worker.log").open("w") as log:
        environment = bench.environment | {"SYNCLINE_ALERT_URLS": inbox.url}
        worker = subprocess.Popen(bench.command("worker"), cwd=bench.root, env=environment, stderr=log)
    try:
        wait_for(lambda: len(inbox.messages) == 1)
        bench.api.token = TOKEN
        second = ask(bench, "two")
        wait_for(lambda: len(inbox.messages) == 2)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    assert [message["title"].partition(": ")[2] for message in inbox.messages] == [
        "the run of shop failed",
        "recovered: shop was synced",
    ]
    text = (bench.root / "worker.log").read_text()
    assert SECRET not in text
    assert TOKEN not in text
    lines = [json.loads(line) for line in text.splitlines()]
    for run_id, request_id, ended in ((first, "one", "sync_fail"), (second, "two", "sync_ok")):
        events = [line for line in lines if line.get("run_id") == run_id]
        assert [events[0]["event"], events[-1]["event"]] == ["sync_start", ended]
        assert {(line["request_id"], line["triggered_by"]) for line in events} == {(request_id, "ada")}
    assert [line["notice"] for line in lines if line["event"] == "alert_sent"] == ["opened", "closed"]


def ask(bench: Bench, request_id: str) -> int:
    """Put a run of the shop, tried once, in the queue."""
    with bench.connect() as connection:
        migrate(connection, read_project(bench.root))
        return control.request_run(connection, ["shop"], [], {}, "api", "ada", request_id, max_attempts=1)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.1)


def test_commands_list_incidents_and_try_addresses(
    driver: Driver, inbox: Inbox, configured: Change, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`alerts list` shows what is open; `alerts test` sends a message, and says by its exit code whether it arrived."""
    project = configured()
    monkeypatch.chdir(driver.root)
    monkeypatch.setenv("DATABASE_URL", driver.dsn)
    end_run(driver, "failed")
    check(driver, project)
    listed = CliRunner().invoke(main, ["alerts", "list", "--json"])
    (incident,) = json.loads(listed.stdout)["incidents"]
    assert (incident["kind"], incident["subject"]) == ("run_failed", "files")
    assert "the run of files failed" in CliRunner().invoke(main, ["alerts", "list"]).stdout
    sent = CliRunner().invoke(main, ["alerts", "test"])
    assert (sent.exit_code, sent.stdout) == (0, "address 1: sent\n")
    assert inbox.titles[-1] == "a test"
    inbox.is_down = True
    sent = CliRunner().invoke(main, ["alerts", "test", "--json"])
    assert (sent.exit_code, json.loads(sent.stdout)) == (1, {"sent": {"1": False}})
    assert SECRET not in sent.stdout + sent.stderr
    assert send_test(project) == {1: False}
    (driver.root / ".env").write_text("")
    assert CliRunner().invoke(main, ["alerts", "test"]).exit_code == 2
