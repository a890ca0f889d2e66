"""Schedules that pg_cron fires: its jobs follow the schedules, and where it cannot, workers take over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from syncline import db, schedules
from syncline.errors import SynclineError
from syncline.migrate import migrate
from tests import pg_cron

pytestmark = pytest.mark.skipif(
    not pg_cron.is_installed(), reason="pg_cron is not here: apt-get install postgresql-15 postgresql-15-cron"
)

ROLES = ("app", "other")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server with pg_cron; two roles that may log in."""
    with pg_cron.cluster() as dsn, psycopg.connect(dsn, autocommit=True) as admin:
        for role in ROLES:
            admin.execute(f"create role {role} login")  # type: ignore[arg-type]
        yield dsn


@pytest.fixture
def cron_dsn(server: str) -> str:
    """The database that pg_cron works in, without a job or anything of Syncline's."""
    dsn = make_conninfo(server, dbname=pg_cron.DATABASE)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("set client_min_messages = warning")
        admin.execute("drop extension if exists pg_cron")
        admin.execute("drop schema if exists syncline, raw_shop cascade")
        admin.execute("create extension pg_cron")
        for role in ROLES:
            admin.execute(f"grant create on database {pg_cron.DATABASE} to {role}")  # type: ignore[arg-type]
            admin.execute(f"revoke pg_read_all_settings from {role}")  # type: ignore[arg-type]
    return dsn


@pytest.fixture
def connection(cron_dsn: str) -> Iterator[db.Connection]:
    with db.connect(cron_dsn) as opened:
        prepare(opened)
        yield opened


def prepare(connection: db.Connection) -> None:
    """Make the control schema with one source."""
    migrate(connection)
    db.call(connection, "create_stream", "shop", "people")


def grant_pg_cron(admin: psycopg.Connection[Any]) -> None:
    """Let app make jobs, and read the time zone that newer releases of pg_cron go by."""
    admin.execute("grant usage on schema cron to app")
    admin.execute("grant pg_read_all_settings to app")


def jobs(connection: db.Connection) -> list[dict[str, Any]]:
    statement = (
        "select jobname::text as name, schedule, command, active, database, username from cron.job order by jobname"
    )
    return connection.execute(statement).fetchall()


def job(name: str, cron: str, user: str = "postgres") -> dict[str, Any]:
    return {
        "name": f"syncline:{name}",
        "schedule": cron,
        "command": f"select syncline.fire_schedule('{name}')",
        "active": True,
        "database": pg_cron.DATABASE,
        "username": user,
    }


def runs_of(connection: db.Connection, schedule: str) -> list[dict[str, Any]]:
    return connection.execute("select * from syncline.runs where schedule = %s order by run_id", (schedule,)).fetchall()


def wait_for_runs(connection: db.Connection, schedule: str, number: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while len(runs_of(connection, schedule)) < number:
        assert time.monotonic() < until, (
            runs_of(connection, schedule),
            connection.execute("select * from cron.job_run_details").fetchall(),
        )
        time.sleep(0.2)
        # A waiting run is found instead of a second one being made.
        connection.execute("update syncline.runs set status = 'cancelled' where status = 'queued'")


def test_pg_cron_fires_every_minute_until_it_is_paused(connection: db.Connection) -> None:
    """A schedule of every minute asks for a run each minute, once; a paused one for none any more."""
    assert db.call_value(connection, "pg_cron_state") == "ready"
    for name in ("steady", "paused"):
        options = {"dry_run": name == "paused"}
        fired_by = schedules.create_schedule(connection, name, "* * * * *", sources=["shop"], options=options)
        assert fired_by == "pg_cron"
    assert schedules.fire_due(connection) is None
    for name in ("steady", "paused"):
        wait_for_runs(connection, name, 1, 75)
    (run,) = runs_of(connection, "steady")
    assert (run["trigger"], run["triggered_by"], run["sources"]) == ("scheduler", "schedule steady", ["shop"])
    row = schedules.get_schedule(connection, "steady")
    assert row["last_run"] == run["run_id"]
    assert row["last_scheduled_for"].second == 0
    assert 0 <= (row["last_fired_at"] - row["last_scheduled_for"]).total_seconds() < 30
    assert (row["missed"], row["last_error"]) == (0, None)

    schedules.pause_schedule(connection, "paused")
    assert jobs(connection) == [job("steady", "* * * * *")]
    wait_for_runs(connection, "steady", 2, 75)
    assert len(runs_of(connection, "paused")) == 1
    failed = "select return_message from cron.job_run_details where status = 'failed'"
    assert connection.execute(failed).fetchall() == []


def test_jobs_follow_the_schedules(connection: db.Connection) -> None:
    """A job is made, changed, taken away and made again with its schedule."""
    schedules.create_schedule(connection, "nightly", "0  3 * * mon-fri")
    assert jobs(connection) == [job("nightly", "0 3 * * mon-fri")]
    assert schedules.set_schedule(connection, "nightly", cron="30 3 * * *") == "pg_cron"
    assert jobs(connection) == [job("nightly", "30 3 * * *")]
    schedules.pause_schedule(connection, "nightly")
    assert jobs(connection) == []
    schedules.set_schedule(connection, "nightly", cron="45 3 * * *")
    assert jobs(connection) == []
    assert schedules.resume_schedule(connection, "nightly") == "pg_cron"
    assert jobs(connection) == [job("nightly", "45 3 * * *")]
    schedules.delete_schedule(connection, "nightly")
    assert jobs(connection) == []


def test_what_pg_cron_cannot_do_workers_do(connection: db.Connection) -> None:
    """Another time zone and expressions that pg_cron takes otherwise, or not at all, go to workers, and it says why."""
    assert schedules.create_schedule(connection, "a", "0 3 * * *", "Etc/UTC") == "pg_cron"
    for cron, zone, reason in [
        ("0 3 * * *", "Europe/Prague", "pg_cron goes by the time of GMT"),
        ("0 3 L * *", "UTC", "pg_cron does not know this expression"),
        ("0 3 * * MON#1", "UTC", "pg_cron does not know this expression"),
        ("5/15 * * * *", "UTC", "pg_cron does not know this expression"),
        ("0 3 1 * 1", "UTC", "pg_cron may take the day of the month and the day of the week together otherwise"),
    ]:
        assert schedules.set_schedule(connection, "a", cron=cron, zone=zone) == "worker"
        assert schedules.get_schedule(connection, "a")["reason"] == reason
        assert jobs(connection) == []
        assert schedules.fire_due(connection) is not None
    assert schedules.set_schedule(connection, "a", cron="0 3 1-7,15 */2 *", zone="GMT") == "pg_cron"
    assert schedules.get_schedule(connection, "a")["reason"] is None


def test_what_pg_cron_refuses_workers_do(connection: db.Connection) -> None:
    """A job that the server does not take, here by a trigger of an administrator, goes to workers, with its words."""
    connection.execute(
        """
        create function cron.refuse() returns trigger language plpgsql
        as $$ begin raise exception 'no jobs here'; end $$;
        create trigger refuse before insert on cron.job for each row execute function cron.refuse();
        """
    )
    schedules.create_schedule(connection, "a", "0 3 * * *")
    row = schedules.get_schedule(connection, "a")
    assert (row["fired_by"], row["reason"]) == ("worker", "pg_cron refuses it: no jobs here")
    assert schedules.sync_schedules(connection) == {}
    connection.execute("drop function cron.refuse() cascade")
    assert schedules.sync_schedules(connection) == {"a": "scheduled"}


def test_sync_repairs_what_others_did_to_the_jobs(connection: db.Connection) -> None:
    """A deleted, a changed, a switched-off, a moved and a foreign job are put right; other people's jobs stay."""
    for name in ("deleted", "changed", "off", "moved", "right", "sleeping"):
        schedules.create_schedule(connection, name, "0 3 * * *")
    schedules.pause_schedule(connection, "sleeping")
    connection.execute("select cron.schedule('vacuum', '0 10 * * *', 'vacuum')")
    connection.execute("select cron.unschedule('syncline:deleted')")
    connection.execute("select cron.schedule('syncline:changed', '0 4 * * *', 'select 1')")
    connection.execute("select cron.schedule('syncline:nobodys', '0 4 * * *', 'select 1')")
    connection.execute("select cron.schedule('syncline:sleeping', '0 4 * * *', 'select 1')")
    connection.execute("update cron.job set active = false where jobname = 'syncline:off'")
    connection.execute("update cron.job set database = 'postgres' where jobname = 'syncline:moved'")
    assert schedules.sync_schedules(connection) == {
        "changed": "rescheduled",
        "deleted": "scheduled",
        "moved": "rescheduled",
        "nobodys": "unscheduled",
        "off": "rescheduled",
        "sleeping": "unscheduled",
    }
    assert [row for row in jobs(connection) if row["name"] != "vacuum"] == [
        job(name, "0 3 * * *") for name in ("changed", "deleted", "moved", "off", "right")
    ]
    assert [row["command"] for row in jobs(connection) if row["name"] == "vacuum"] == ["vacuum"]
    assert schedules.sync_schedules(connection) == {}


def test_workers_take_over_where_pg_cron_is_dropped(connection: db.Connection) -> None:
    """Once pg_cron is gone, the next worker that looks takes its schedules; once it is back, sync gives them back."""
    schedules.create_schedule(connection, "a", "* * * * *")
    assert schedules.fire_due(connection) is None
    connection.execute("drop extension pg_cron")
    waits = schedules.fire_due(connection)
    assert waits is not None
    assert 0 < waits <= 60
    assert schedules.get_schedule(connection, "a")["reason"] == "pg_cron is not in this database"
    connection.execute("create extension pg_cron")
    assert schedules.sync_schedules(connection) == {"a": "scheduled"}
    assert jobs(connection) == [job("a", "* * * * *")]
    assert schedules.fire_due(connection) is None


def test_pg_cron_in_another_database(server: str, cron_dsn: str) -> None:
    """Where the server's pg_cron works in another database, workers fire, whoever asks."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("create database neighbour owner app")
    try:
        for user in ("app", "postgres"):
            with db.connect(make_conninfo(server, dbname="neighbour", user=user)) as connection:
                if user == "app":
                    prepare(connection)
                    assert schedules.create_schedule(connection, "a", "0 3 * * *") == "worker"
                assert db.call_value(connection, "pg_cron_state") == "elsewhere"
                (row,) = schedules.list_schedules(connection)
                assert row["reason"] == "pg_cron works in another database of this server"
                assert schedules.fire_due(connection) is not None
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute("drop database neighbour with (force)")


def test_a_role_without_rights_leaves_it_to_workers(cron_dsn: str) -> None:
    """An owner that may not use pg_cron gets worker-fired schedules; with the right, sync hands them to pg_cron."""
    with (
        db.connect(make_conninfo(cron_dsn, user="app")) as connection,
        psycopg.connect(cron_dsn, autocommit=True) as admin,
    ):
        prepare(connection)
        assert db.call_value(connection, "pg_cron_state") == "no rights"
        assert schedules.create_schedule(connection, "a", "* * * * *") == "worker"
        assert schedules.get_schedule(connection, "a")["reason"] == "the database user app may not make jobs of pg_cron"
        connection.execute("update syncline.schedules set settled_at = settled_at - interval '1 minute'")
        assert schedules.fire_due(connection) is not None
        assert len(runs_of(connection, "a")) == 1

        grant_pg_cron(admin)
        assert db.call_value(connection, "pg_cron_state") == "ready"
        assert schedules.sync_schedules(connection) == {"a": "scheduled"}
        assert jobs(connection) == [job("a", "* * * * *", "app")]

        admin.execute("revoke usage on schema cron from app")
        assert schedules.fire_due(connection) is not None
        # Its job is still there, and still fires: each minute has one run all the same.
        assert schedules.get_schedule(connection, "a")["fired_by"] == "worker"


def test_all_jobs_are_the_owners(cron_dsn: str) -> None:
    """Whoever calls the functions, the jobs are those of the schema's owner, so that sync finds them."""
    with psycopg.connect(cron_dsn, autocommit=True) as admin:
        grant_pg_cron(admin)
    with db.connect(make_conninfo(cron_dsn, user="app")) as owner:
        prepare(owner)
        owner.execute("grant usage on schema syncline to other")
        owner.execute("grant select, insert, update, delete on all tables in schema syncline to other")
        owner.execute("grant execute on all functions in schema syncline to other")
        with db.connect(make_conninfo(cron_dsn, user="other")) as caller:
            assert schedules.create_schedule(caller, "a", "* * * * *") == "pg_cron"
            assert schedules.get_schedule(caller, "a")["created_by"] == "other"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                jobs(caller)
            assert jobs(owner) == [job("a", "* * * * *", "app")]
            schedules.delete_schedule(caller, "a")
        assert jobs(owner) == []


def test_a_job_of_somebody_else_fires_nothing_twice(connection: db.Connection) -> None:
    """However many jobs call fire_schedule within a minute, that minute has one run."""
    schedules.create_schedule(connection, "a", "0 0 1 1 *")
    connection.execute("update syncline.schedules set settled_at = settled_at - interval '1 hour'")
    while time.time() % 60 > 50:
        time.sleep(1)
    first = db.call_value(connection, "fire_schedule", "a")
    assert first is not None
    connection.execute("update syncline.runs set status = 'cancelled'")
    assert db.call_value(connection, "fire_schedule", "a") is None
    assert len(runs_of(connection, "a")) == 1


def test_a_refused_run_is_noted_and_missed(connection: db.Connection) -> None:
    """A job whose schedule's source is gone ends well, and the schedule says why no run came of it."""
    schedules.create_schedule(connection, "a", "* * * * *", sources=["shop"])
    connection.execute("update syncline.streams set is_declared = false")
    connection.execute("update syncline.schedules set settled_at = settled_at - interval '1 hour'")
    assert db.call_value(connection, "fire_schedule", "a") is None
    (row,) = schedules.missed(connection)
    assert (row["name"], row["last_error"]) == ("a", "there is no source named 'shop'")
    assert row["missed"] >= 57
    with pytest.raises(SynclineError, match="there is no source named 'shop'"):
        schedules.trigger_schedule(connection, "a")
