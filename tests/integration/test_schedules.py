"""Schedules that workers fire: each time once, whatever clocks and other workers do; what was missed; the commands."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from syncline import db, schedules
from syncline.errors import ConfigurationError, RefusedError
from tests.projects import Bench, people, rows
from tests.workers import Workers

ALWAYS = "* * * * *"


@pytest.fixture(autouse=True)
def shop(connection: db.Connection) -> None:
    """Two sources with a stream each."""
    db.call(connection, "create_stream", "shop", "people")
    db.call(connection, "create_stream", "files", "visits")


def move(connection: db.Connection, name: str, by: str) -> None:
    """Let the schedule be settled this much earlier or later than it is, as if nobody had looked since."""
    statement = "update syncline.schedules set settled_at = settled_at + %s::interval where name = %s"
    connection.execute(statement, (by, name))


def runs_of(connection: db.Connection, name: str) -> list[dict[str, Any]]:
    return connection.execute("select * from syncline.runs where schedule = %s order by run_id", (name,)).fetchall()


def end_runs(connection: db.Connection) -> None:
    connection.execute("update syncline.runs set status = 'succeeded' where status = 'queued'")


# firing


def test_a_due_schedule_asks_for_its_run(connection: db.Connection) -> None:
    """What is due is asked for with all that the schedule says; what is not due is not."""
    schedules.create_schedule(
        connection, "due", ALWAYS, "UTC", ["shop"], ["people"], {"streams": ["people"]}, max_attempts=5, timeout=90
    )
    schedules.create_schedule(connection, "later", "0 0 1 1 *", sources=["files"])
    assert schedules.fire_due(connection) is not None
    assert runs_of(connection, "due") == []
    move(connection, "due", "-1 minute")
    wait = schedules.fire_due(connection)
    assert wait is not None
    assert 0 < wait <= 60
    (run,) = runs_of(connection, "due")
    wanted = {
        "status": "queued",
        "trigger": "scheduler",
        "triggered_by": "schedule due",
        "sources": ["shop"],
        "entities": ["people"],
        "options": {"streams": ["people"]},
        "max_attempts": 5,
        "timeout": timedelta(seconds=90),
    }
    assert {name: run[name] for name in wanted} == wanted
    row = schedules.get_schedule(connection, "due")
    assert (row["last_run"], row["last_status"], row["missed"], row["missed_runs"]) == (run["run_id"], "queued", 0, 0)
    assert row["last_scheduled_for"] <= row["last_fired_at"] < row["next_at"]
    assert runs_of(connection, "later") == []


def test_firing_and_triggering_at_once(connection: db.Connection) -> None:
    """One who fires a schedule and one who triggers it wait for each other in one order, whoever is first."""
    schedules.create_schedule(connection, "due", ALWAYS, sources=["shop"])
    move(connection, "due", "-1 minute")
    waiting = """
        select count(*) as sessions from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'
    """

    def wait_for(sessions: int) -> None:
        until = time.monotonic() + 10
        while connection.execute(waiting).fetchone() != {"sessions": sessions}:
            assert time.monotonic() < until
            time.sleep(0.02)

    dsn = connection.info.dsn
    with ThreadPoolExecutor(2) as pool, db.connect(dsn) as first, db.connect(dsn) as second:
        with db.connect(dsn) as queue, queue.transaction():
            queue.execute("select pg_advisory_xact_lock(syncline.lock_class('claim'), 0)")
            triggered = pool.submit(schedules.trigger_schedule, first, "due")
            wait_for(1)
            fired = pool.submit(db.call_value, second, "fire_schedule", "due")
            wait_for(2)
        assert triggered.result(timeout=10) == fired.result(timeout=10)


def test_nothing_to_fire(connection: db.Connection) -> None:
    """Without a schedule that workers fire there is nothing to wait for."""
    assert schedules.fire_due(connection) is None
    schedules.create_schedule(connection, "a", ALWAYS)
    schedules.pause_schedule(connection, "a")
    move(connection, "a", "-1 day")
    assert schedules.fire_due(connection) is None
    # As a job of pg_cron does that began just before.
    assert db.call_value(connection, "fire_schedule", "a") is None
    assert runs_of(connection, "a") == []


def test_each_time_is_fired_once_by_eight_workers(database: str, connection: db.Connection) -> None:
    """Eight workers that look at the same moment, over and over, fire each time once."""
    # A run that waits would be found by the next request, and hide that there was one.
    connection.execute(
        """
        create function syncline.take_at_once() returns trigger language plpgsql
        as $$ begin new.status := 'succeeded'; return new; end $$;
        create trigger take_at_once before insert on syncline.runs
        for each row execute function syncline.take_at_once();
        """
    )
    names = ["one", "two", "three", "four"]
    for name in names:
        schedules.create_schedule(connection, name, "0 0 * * *", sources=["shop"])
    opened = [db.connect(database) for _ in range(8)]
    try:
        with ThreadPoolExecutor(8) as pool:
            for count in range(1, 11):
                for name in names:
                    move(connection, name, "-1 day")
                for _ in pool.map(schedules.fire_due, opened * 2):
                    pass
                assert [len(runs_of(connection, name)) for name in names] == [count] * 4
    finally:
        for each in opened:
            each.close()


def test_a_second_worker_waits_for_the_first(database: str, connection: db.Connection) -> None:
    """A worker waits for another that fires at this moment, and fires nothing then; if that is undone, it fires."""
    schedules.create_schedule(connection, "a", "0 0 * * *")
    for is_undone in (False, True):
        move(connection, "a", "-1 day")
        due = schedules.previous_time("0 0 * * *", "UTC", datetime.now(UTC))
        end_runs(connection)
        with db.connect(database) as other, ThreadPoolExecutor(1) as pool:
            with connection.transaction(force_rollback=is_undone):
                assert db.call_value(connection, "fire_schedule", "a", due) is not None
                waiting = pool.submit(db.call_value, other, "fire_schedule", "a", due)
                wait_for_lock(connection, other.info.backend_pid)
            assert (waiting.result(10) is not None) == is_undone
    assert len(runs_of(connection, "a")) == 2


def wait_for_lock(connection: db.Connection, pid: int) -> None:
    for _ in range(500):
        row = connection.execute("select cardinality(pg_blocking_pids(%s)) as count, pg_sleep(0.02)", (pid,)).fetchone()
        if row is not None and row["count"]:
            return
    raise AssertionError("it did not wait")


def test_after_downtime_the_latest_time_is_fired_once(connection: db.Connection) -> None:
    """What was due while nobody looked is fired once, for its latest time; the others are counted, and logged."""
    schedules.create_schedule(connection, "a", "*/10 * * * *")
    move(connection, "a", "-5 hours")
    (missed,) = schedules.missed(connection)
    assert missed["name"] == "a"
    assert 29 <= missed["missed"] <= 30
    assert timedelta(minutes=2) <= datetime.now(UTC) - missed["scheduled_for"] <= timedelta(minutes=13)
    schedules.fire_due(connection)
    assert len(runs_of(connection, "a")) == 1
    row = schedules.get_schedule(connection, "a")
    assert row["missed_runs"] in {29, 30}
    assert datetime.now(UTC) - row["last_scheduled_for"] < timedelta(minutes=11)
    assert schedules.missed(connection) == []
    (event,) = connection.execute("select * from syncline.log_events where event = 'schedule_missed'").fetchall()
    assert event["detail"] == {"schedule": "a", "missed": row["missed_runs"], "run_id": row["last_run"]}
    end_runs(connection)
    schedules.fire_due(connection)
    assert len(runs_of(connection, "a")) == 1


def test_a_request_that_waits_already_is_found(connection: db.Connection) -> None:
    """A schedule whose last run still waits in the queue makes no second one."""
    schedules.create_schedule(connection, "a", "0 0 * * *")
    first = schedules.trigger_schedule(connection, "a")
    move(connection, "a", "-1 day")
    schedules.fire_due(connection)
    assert [run["run_id"] for run in runs_of(connection, "a")] == [first]
    assert schedules.get_schedule(connection, "a")["last_run"] == first


def test_a_clock_that_went_back_stops_nothing(connection: db.Connection) -> None:
    """What was settled by a clock ahead of this one is settled until now; for some seconds nothing is fired again."""
    schedules.create_schedule(connection, "a", ALWAYS)
    move(connection, "a", "2 hours")
    assert schedules.fire_due(connection) is not None
    assert runs_of(connection, "a") == []
    settled_at = schedules.get_schedule(connection, "a")["settled_at"]
    assert abs(datetime.now(UTC) - settled_at) < timedelta(seconds=30)
    move(connection, "a", "-1 minute")
    schedules.fire_due(connection)
    assert len(runs_of(connection, "a")) == 1
    # pg_cron calls without a time: it has to get through at once.
    end_runs(connection)
    move(connection, "a", "2 hours")
    assert db.call_value(connection, "fire_schedule", "a") is not None
    assert db.call_value(connection, "fire_schedule", "a") is None
    ahead = "update syncline.schedules set settled_at = clock_timestamp() + interval '5 seconds' returning settled_at"
    row = connection.execute(ahead).fetchone()
    schedules.fire_due(connection)
    assert row is not None
    assert schedules.get_schedule(connection, "a")["settled_at"] == row["settled_at"]


def test_due_by_the_clock_of_its_zone(connection: db.Connection) -> None:
    """A schedule is due when the clock of its own zone says so, by the database's clock."""
    zones = ["Pacific/Kiritimati", "Asia/Kathmandu", "America/St_Johns", "UTC"]
    for zone in zones:
        name = zone.lower().replace("/", "-")
        schedules.create_schedule(connection, name, "30 6 * * *", zone)
        row = schedules.get_schedule(connection, name)
        local = connection.execute("select %s at time zone %s as local", (row["next_at"], zone)).fetchone()
        assert local is not None
        assert (local["local"].hour, local["local"].minute, local["local"].second) == (6, 30, 0)
        assert timedelta(0) < row["next_at"] - datetime.now(UTC) <= timedelta(days=1)
        move(connection, name, "-1 day")
    schedules.fire_due(connection)
    fired = [schedules.get_schedule(connection, zone.lower().replace("/", "-")) for zone in zones]
    assert [row["next_at"] - row["last_scheduled_for"] for row in fired] == [timedelta(days=1)] * 4


def test_workers_fire_and_work_it(bench: Bench) -> None:
    """Of two real workers one fires what comes due, by the minute, and works its run: the data is published."""
    bench.sync("files")
    with Workers(bench.root, bench.dsn) as workers:
        workers.start()
        workers.start()
        with bench.connect() as connection:
            schedules.create_schedule(connection, "hourly", "0 * * * *", sources=["shop"])
            move(connection, "hourly", "-1 hour")
        bench.wait_until("select exists (select from syncline.runs where schedule = 'hourly')", 15)
        bench.wait_until("select last_status = 'succeeded' from syncline.schedule_status", 60)
        # Time for the other one to look, too.
        time.sleep(6)
    (run,) = bench.query("select * from syncline.runs where schedule = 'hourly'")
    assert (run["trigger"], run["triggered_by"], run["attempt"]) == ("scheduler", "schedule hourly", 1)
    assert bench.current() == rows(people(50))


# missed


def test_missed_after_two_minutes(connection: db.Connection) -> None:
    """A time that nobody fired is missed after two minutes, unless the schedule was paused or made since."""
    schedules.create_schedule(connection, "a", ALWAYS)
    assert schedules.missed(connection) == []
    move(connection, "a", "-90 seconds")
    assert schedules.missed(connection) == []
    move(connection, "a", "-3 minutes")
    (row,) = schedules.missed(connection)
    assert (row["name"], row["last_error"]) == ("a", None)
    assert row["missed"] in {2, 3}
    schedules.pause_schedule(connection, "a")
    assert schedules.missed(connection) == []
    schedules.resume_schedule(connection, "a")
    assert schedules.missed(connection) == []
    assert schedules.get_schedule(connection, "a")["resumed_at"] is not None


def test_new_times_owe_nothing(connection: db.Connection) -> None:
    """Times that a schedule has only since it was changed or resumed are neither fired nor missed."""
    schedules.create_schedule(connection, "a", "0 0 1 1 *")
    move(connection, "a", "-1 day")
    schedules.set_schedule(connection, "a", cron=ALWAYS)
    schedules.fire_due(connection)
    schedules.pause_schedule(connection, "a")
    move(connection, "a", "-1 day")
    schedules.resume_schedule(connection, "a")
    schedules.fire_due(connection)
    assert (runs_of(connection, "a"), schedules.missed(connection)) == ([], [])
    move(connection, "a", "-1 hour")
    before = schedules.get_schedule(connection, "a")["settled_at"]
    schedules.set_schedule(connection, "a", max_attempts=1)
    schedules.resume_schedule(connection, "a")
    assert schedules.get_schedule(connection, "a")["settled_at"] == before


def test_a_run_that_is_refused_is_tried_until_it_is_not(connection: db.Connection) -> None:
    """A schedule whose source is gone says so, stays missed, disturbs no other, and fires once the source is back."""
    schedules.create_schedule(connection, "a", ALWAYS, sources=["shop"])
    schedules.create_schedule(connection, "b", ALWAYS, sources=["files"])
    connection.execute("update syncline.streams set is_declared = false where source = 'shop'")
    for name in ("a", "b"):
        move(connection, name, "-10 minutes")
    schedules.fire_due(connection)
    schedules.fire_due(connection)
    assert (len(runs_of(connection, "a")), len(runs_of(connection, "b"))) == (0, 1)
    (row,) = schedules.missed(connection)
    assert (row["name"], row["last_error"]) == ("a", "there is no source named 'shop'")
    events = connection.execute("select * from syncline.log_events where event = 'schedule_fail'").fetchall()
    assert [event["detail"] for event in events] == [{"schedule": "a", "message": "there is no source named 'shop'"}]
    connection.execute("update syncline.streams set is_declared = true")
    schedules.fire_due(connection)
    assert len(runs_of(connection, "a")) == 1
    assert (schedules.missed(connection), schedules.get_schedule(connection, "a")["last_error"]) == ([], None)


def test_an_expression_that_python_refuses_stops_no_other(connection: db.Connection) -> None:
    """A day that does not exist, which SQL let through, is noted on its schedule; the others are fired."""
    db.call(connection, "create_schedule", "a", "0 0 30 2 *")
    schedules.create_schedule(connection, "b", ALWAYS)
    move(connection, "b", "-1 minute")
    assert schedules.fire_due(connection) is not None
    assert len(runs_of(connection, "b")) == 1
    row = schedules.get_schedule(connection, "a")
    assert row["last_error"] == "'0 0 30 2 *' is no cron expression: bad day-of-month"
    assert (row["next_at"], row["missed"]) == (None, 0)


# what is refused


@pytest.fixture(params=["sql", "python"])
def create(request: pytest.FixtureRequest, connection: db.Connection) -> Iterator[Any]:
    """create_schedule, in SQL and in Python."""

    def call(name: str, cron: str, *arguments: Any) -> None:
        if request.param == "python":
            schedules.create_schedule(connection, name, cron, *arguments)
        else:
            db.call(connection, "create_schedule", name, cron, *arguments)

    return call


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("* * * * * *", "has six fields"),
        ("0 */5 * * * *", "has six fields"),
        ("* * * *", "is no cron expression"),
        ("", "is no cron expression"),
        ("@daily", "is no cron expression"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day.of.*month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day.of.*week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        ("* * * * FRI-MON", "day.of.*week"),
        ("every day at three o'clock", "cron expression"),
        ("'; select 1; -- * * *", "cron expression"),
        ("٣ * * * *", "minute"),
    ],
)
def test_bad_expressions_are_refused(create: Any, connection: db.Connection, cron: str, message: str) -> None:
    """What is no cron expression is refused with the reason, in SQL and in Python, and leaves nothing."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        create("a", cron)
    assert "minute, hour, day of the month" in (caught.value.hint or "") or "A field is" in (caught.value.hint or "")
    assert schedules.list_schedules(connection) == []


@pytest.mark.parametrize("zone", ["Europe/Praha", "", "CEST+2", "../etc/passwd", "posix/UTC"])
def test_bad_zones_are_refused(create: Any, connection: db.Connection, zone: str) -> None:
    """What is no time zone by name is refused, in SQL and in Python."""
    with pytest.raises(ConfigurationError, match="there is no time zone named"):
        create("a", ALWAYS, zone)
    assert schedules.list_schedules(connection) == []


@pytest.mark.parametrize("name", ["", "Nightly", "a b", "x" * 51, "a'b", "ä", "a\nb"])
def test_bad_names_are_refused(create: Any, name: str) -> None:
    """A name that is no plain word is refused."""
    with pytest.raises(ConfigurationError, match="a schedule cannot be named"):
        create(name, ALWAYS)


def test_what_does_not_exist_is_refused(connection: db.Connection) -> None:
    """Unknown sources, streams and options, and options that no schedule can have, are refused with what there is."""
    for arguments, message in [
        ({"sources": ["shpo"]}, "there is no source named 'shpo'"),
        ({"options": {"streams": ["visit"]}}, "there is no stream named 'visit'"),
        ({"sources": ["shop"], "options": {"streams": ["files.visits"]}}, "there is no stream named 'files.visits'"),
        ({"options": {"dryrun": True}}, "a run has no option named 'dryrun'"),
        ({"options": {"push": True}}, "a schedule can neither push nor adopt"),
        ({"max_attempts": 0}, "the schedule a has no attempt"),
        ({"timeout": 0}, "the schedule a has no attempt, or no time for one"),
    ]:
        with pytest.raises(ConfigurationError, match=message) as caught:
            schedules.create_schedule(connection, "a", ALWAYS, **arguments)  # type: ignore[arg-type]
        assert caught.value.hint
    with pytest.raises(ConfigurationError, match="are a JSON object"):
        db.call(connection, "create_schedule", p_name="a", p_cron=ALWAYS, p_options="[1]")
    schedules.create_schedule(connection, "a", ALWAYS, "UTC", ["shop"], options={"streams": ["people", "shop.people"]})
    with pytest.raises(RefusedError, match="there is a schedule named 'a' already"):
        schedules.create_schedule(connection, "a", ALWAYS)
    with pytest.raises(ConfigurationError, match="there is no stream named 'people'"):
        schedules.set_schedule(connection, "a", sources=["files"])


@pytest.mark.parametrize(
    "function",
    ["set_schedule", "pause_schedule", "resume_schedule", "delete_schedule", "trigger_schedule", "fire_schedule"],
)
def test_unknown_names_are_refused(connection: db.Connection, function: str) -> None:
    """Each function refuses a name that there is not, and says which there are."""
    with pytest.raises(ConfigurationError, match="there is no schedule named 'nightly'") as caught:
        db.call(connection, function, "nightly")
    assert caught.value.hint == "There is none yet: `syncline schedule create`."
    schedules.create_schedule(connection, "daily", ALWAYS)
    with pytest.raises(ConfigurationError) as caught:
        db.call(connection, function, "nightly")
    assert caught.value.hint == "There are: daily."


@pytest.mark.parametrize("change", ["name = 'A B'", "max_attempts = 0", "timeout = '0 s'", "options = '[]'"])
def test_the_table_keeps_nonsense_out(connection: db.Connection, change: LiteralString) -> None:
    """What comes past the functions still meets the table's own checks."""
    schedules.create_schedule(connection, "a", ALWAYS)
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(sql.SQL("update syncline.schedules set " + change))


# the commands


def test_commands(bench: Bench) -> None:
    """A schedule is made, shown, changed, paused, resumed, triggered and deleted by commands."""
    said = (
        "nightly shop --cron * --zone Europe/Prague --entity people --stream people --dry-run --retries 4 --timeout 600"
    )
    arguments = ["0 3 * * *" if word == "*" else word for word in said.split()]
    made = bench.call("schedule", "create", *arguments, "--json")
    assert (made.returncode, made.stderr) == (0, "")
    shown = json.loads(made.stdout)
    wanted = {
        "name": "nightly",
        "cron": "0 3 * * *",
        "zone": "Europe/Prague",
        "sources": ["shop"],
        "entities": ["people"],
        "options": {"streams": ["people"], "dry_run": True},
        "max_attempts": 5,
        "timeout": 600,
        "is_paused": False,
        "fired_by": "worker",
        "missed": 0,
        "last_run": None,
    }
    assert {name: shown[name] for name in wanted} == wanted
    said = "nightly files shop --zone UTC --no-dry-run --full-refresh --all-entities --timeout 0 --retries 0 --json"
    changed = bench.call("schedule", "set", *said.split(), "--cron", "*/5 * * * *")
    shown = json.loads(changed.stdout)
    wanted |= {"cron": "*/5 * * * *", "zone": "UTC", "sources": ["files", "shop"], "entities": [], "max_attempts": 1}
    wanted |= {"options": {"streams": ["people"], "full_refresh": True}, "timeout": None}
    assert {name: shown[name] for name in wanted} == wanted
    assert (
        bench.call("schedule", "set", "nightly", "--all-streams", "--no-full-refresh", "--all-sources").returncode == 0
    )
    (listed,) = json.loads(bench.call("schedule", "list", "--json").stdout)["schedules"]
    assert (listed["options"], listed["sources"], listed["cron"]) == ({}, [], "*/5 * * * *")

    assert bench.call("schedule", "pause", "nightly").stdout == "nightly is paused\n"
    assert "paused" in bench.call("schedule", "list").stdout
    assert "fired by workers: pg_cron is not in this database" in bench.call("schedule", "resume", "nightly").stdout
    run_id = json.loads(bench.call("schedule", "trigger", "nightly", "--json").stdout)["run_id"]
    assert bench.query("select run_id, trigger, schedule, sources from syncline.runs") == [
        {"run_id": run_id, "trigger": "cli", "schedule": "nightly", "sources": ["files", "shop"]}
    ]
    assert json.loads(bench.call("schedule", "sync", "--json").stdout) == {"done": {}}
    assert bench.call("schedule", "delete", "nightly").stdout == "nightly is deleted\n"
    assert json.loads(bench.call("schedule", "list", "--json").stdout) == {"schedules": []}
    assert bench.call("schedule", "list").stdout == "no schedules: `syncline schedule create`\n"


def test_the_list_shows_what_is_wrong(bench: Bench) -> None:
    """The list shows the last run and how it ended, how many times were missed, and why one cannot be fired."""
    bench.call("schedule", "create", "good", "shop", "--cron", "* * * * *")
    bench.call("schedule", "create", "bad", "files", "--cron", "* * * * *")
    with bench.connect() as connection:
        schedules.trigger_schedule(connection, "good")
        connection.execute("update syncline.runs set status = 'failed'")
        connection.execute("update syncline.schedules set settled_at = settled_at - interval '10 minutes'")
        db.call(connection, "note_schedule_error", "bad", "there is no source named 'files'")
    lines = bench.call("schedule", "list").stdout.splitlines()
    bad, good = ([cell for cell in line.split("  ") if cell] for line in lines[1:3])
    assert (bad[0].strip(), good[0].strip()) == ("bad", "good")
    assert [cell.strip() for cell in good[5:7]] == ["1", "failed"]
    assert int(lines[2].split()[-1]) in {8, 9}
    assert lines[3] == "bad cannot be fired: there is no source named 'files'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "a", "--cron", "0 0 * * * *"], "has six fields"),
        (["create", "a", "--cron", "0 0 31 2 *"], "is no cron expression"),
        (["create", "a", "--cron", "0 0 * * *", "nowhere"], "there is no source named 'nowhere'"),
        (["create", "a", "--cron", "0 0 * * *", "--entity", "nobody"], "there is no entity named 'nobody'"),
        (["create", "a", "--cron", "0 0 * * *", "--stream", "nothing"], "there is no stream named 'nothing'"),
        (["create", "a", "--cron", "0 0 * * *", "--zone", "Mars"], "there is no time zone named 'Mars'"),
        (["create", "a"], "Missing option '--cron'"),
        (["set", "a", "--cron", "0 0 * * *"], "there is no schedule named 'a'"),
        (["set", "a", "shop", "--all-sources"], "there is no schedule named 'a'"),
        (["trigger", "a"], "there is no schedule named 'a'"),
    ],
)
def test_commands_that_are_refused(bench: Bench, arguments: list[str], message: str) -> None:
    """A wrong name, expression or option ends in exit code 2 and says what is wrong."""
    ended = bench.call("schedule", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr
