"""What the doctor says of poolers, and of what an installation lacks that is to run by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from syncline import db
from syncline.errors import ConfigurationError
from syncline.production import _examine_clock, _examine_encryption, _examine_server
from tests.pgbouncer import PROGRAM, pooled
from tests.projects import Bench
from tests.roles import Roles, three_roles

SECRET = "a-secret-key-of-the-tests-that-must-not-show"

needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="needs Debian's package pgbouncer")


def examine(bench: Bench, *arguments: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the doctor; return its exit code and its findings by name."""
    ended = bench.cli("doctor", "--json", *arguments, **environment)
    assert ended.stdout, ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    findings = json.loads(ended.stdout)["findings"]
    assert all(finding["hint"] for finding in findings if not finding["is_well"]), findings
    return ended.returncode, {finding["what"]: finding for finding in findings}


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("ignores_options", [False, True])
def test_a_pooler_is_refused_by_every_command(bench: Bench, mode: str, ignores_options: bool) -> None:
    """PgBouncer refuses the session's settings, or drops them: the error says what it is and what to do instead."""
    with pooled(bench.dsn, mode, ignores_options=ignores_options) as dsn:
        with pytest.raises(ConfigurationError, match="leads to a pooler") as caught:
            db.connect(dsn)
        assert "address of Postgres itself" in str(caught.value.hint)
        code, findings = examine(bench, DATABASE_URL=dsn)
        assert (code, "pooler" in findings["database"]["detail"]) == (2, True)
        assert bench.cli("run", DATABASE_URL=dsn).returncode == 2


@needs_pgbouncer
@pytest.mark.parametrize(("mode", "is_well"), [("transaction", False), ("session", True)])
def test_sessions_that_get_lost_are_noticed(bench: Bench, mode: str, is_well: bool) -> None:
    """Where settings seem to come through, two connections show whether a session's server goes to others."""
    with bench.connect() as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("alter database {} set datestyle = 'ISO, YMD'").format(name))
    with pooled(bench.dsn, mode, ignores_options=True) as dsn:
        code, findings = examine(bench, DATABASE_URL=dsn)
    assert findings["sessions"]["is_well"] == is_well
    assert code == (0 if is_well else 2)
    assert ("between its transactions" in findings["sessions"]["detail"]) != is_well


@pytest.fixture
def migrated(bench: Bench) -> Bench:
    """A project whose streams the database knows."""
    ended = bench.call("migrate")
    assert ended.returncode == 0, ended.stderr
    return bench


def test_what_an_empty_installation_lacks(migrated: Bench) -> None:
    """Without workers, schedule, tokens, alerts and roles each of them is named, and the exit code is 2."""
    code, findings = examine(migrated, "--production")
    assert code == 2
    missing = {name for name, finding in findings.items() if not finding["is_well"]}
    assert missing >= {"workers", "schedules", "tokens of the API", "alerts", "roles"}
    assert findings["backups"]["detail"]
    assert examine(migrated)[0] == 0


def test_the_embedded_server_is_no_production(migrated: Bench) -> None:
    """Without DATABASE_URL the findings say so, and look no further."""
    (migrated.root / ".env").write_text("SHOP_API_URL=http://127.0.0.1:9/\nSHOP_API_TOKEN=x\n")
    try:
        code, findings = examine(migrated, "--production", DATABASE_URL="")
        assert (code, findings["database"]["is_well"]) == (2, True)
        assert "embedded" in findings["a database of your own"]["detail"]
    finally:
        assert migrated.cli("stop", DATABASE_URL="").returncode == 0
    _, findings = examine(migrated, "--production", DATABASE_URL="host=/nowhere")
    assert not findings["the database"]["is_well"]


@pytest.fixture
def roles(migrated: Bench) -> Iterator[Roles]:
    with three_roles(migrated.dsn) as made:
        made.grant()
        yield made


def test_an_installation_that_has_all(migrated: Bench, roles: Roles) -> None:
    """With roles, a worker, a schedule, a key and alerts, nothing is missing; a right taken away is named."""
    with migrated.connect() as connection:
        connection.execute("alter system set fsync = on")
        connection.execute("alter system set full_page_writes = on")
        connection.execute("select pg_reload_conf()")
        db.call(connection, "create_schedule", "default", "0 */6 * * *")
    environment = {
        "DATABASE_URL": roles.dsn(roles.runner),
        "SYNCLINE_SECRET_KEY": SECRET,
        "SYNCLINE_ALERT_URLS": "json://127.0.0.1:9/",
    }
    try:
        with db.connect(environment["DATABASE_URL"], name="syncline worker"):
            code, findings = examine(migrated, "--production", **environment)
            assert {name: finding for name, finding in findings.items() if not finding["is_well"]} == {}
            assert code == 0
        with migrated.connect() as connection:
            connection.execute(f"revoke update on syncline.runs from {roles.runner}")
        _, findings = examine(migrated, "--production", **environment)
        assert "update on syncline.runs" in findings["rights in the database"]["detail"]
        assert "grant_roles" in findings["rights in the database"]["hint"]
        assert not findings["workers"]["is_well"]
    finally:
        with psycopg.connect(migrated.dsn, autocommit=True) as connection:
            connection.execute("alter system reset fsync")
            connection.execute("alter system reset full_page_writes")
            connection.execute("select pg_reload_conf()")


@pytest.mark.parametrize("arguments", [[], ["--production"]])
def test_a_runner_before_the_first_migration(bench: Bench, empty_database: str, arguments: list[str]) -> None:
    """What it may not make is one finding, whose hint is to migrate as the owner and then to hand out the rights."""
    with three_roles(empty_database) as made:
        ended = bench.cli("doctor", "--json", *arguments, DATABASE_URL=made.dsn(made.runner))
        findings = json.loads(ended.stdout)["findings"]
        (found,) = [f for f in findings if f["what"] in ("rights", "control schema")]
        assert (ended.returncode, found["is_well"], "may not make it" in found["detail"]) == (2, False, True)
        assert found["hint"].index("syncline migrate") < found["hint"].index("grant_roles(")
        assert f"'{made.runner}'" in found["hint"]


def test_an_old_control_schema_is_one_finding(migrated: Bench, roles: Roles) -> None:
    """The runner is sent to the owner; for the owner it is well, but not in production."""
    with migrated.connect() as connection:
        connection.execute("update syncline.function_files set fingerprint = 'older' where name = 'runs.sql'")

    def judge(role: str, *arguments: str) -> dict[str, Any]:
        ended = migrated.cli("doctor", "--json", *arguments, DATABASE_URL=roles.dsn(role))
        found: dict[str, Any]
        (found,) = [f for f in json.loads(ended.stdout)["findings"] if f["what"] == "control schema"]
        return found

    for arguments in ((), ("--production",)):
        found = judge(roles.runner, *arguments)
        assert (found["is_well"], f"DATABASE_URL of {roles.owner}" in found["hint"]) == (False, True)
    assert judge(roles.owner)["is_well"]
    assert judge(roles.owner, "--production")["hint"] == "Run `syncline migrate`."


def test_a_runner_that_was_granted_nothing(migrated: Bench) -> None:
    """A schema that is there and may not be used is one finding with the grant that mends it."""
    with three_roles(migrated.dsn) as made:
        code, findings = examine(migrated, "--production", DATABASE_URL=made.dsn(made.runner))
    assert (code, "rights" in findings) == (2, False)
    assert f"'{made.runner}'" in findings["control schema"]["hint"]


@pytest.mark.parametrize("arguments", [[], ["--production"]])
def test_addresses_for_alerts(migrated: Bench, arguments: list[str]) -> None:
    """An address that apprise does not know is found without --production too; those that it knows are counted."""
    code, findings = examine(migrated, *arguments, SYNCLINE_ALERT_URLS="nonsense")
    assert (code, "address 1" in findings["alerts"]["detail"]) == (2, True)
    _, findings = examine(migrated, *arguments, SYNCLINE_ALERT_URLS="json://127.0.0.1:9/")
    assert (findings["alerts"]["is_well"], findings["alerts"]["detail"]) == (True, "1 address")


def test_schedules_left_to_a_pg_cron_that_is_not_here(migrated: Bench) -> None:
    """In a copy of a database they are named with what hands them over, which then mends it."""
    with migrated.connect() as connection:
        db.call(connection, "create_schedule", "default", "0 */6 * * *")
        connection.execute("update syncline.schedules set fired_by = 'pg_cron'")
    _, findings = examine(migrated, "--production")
    assert (findings["pg_cron"]["is_well"], "default" in findings["pg_cron"]["detail"]) == (False, True)
    assert "`syncline schedule sync`" in findings["pg_cron"]["hint"]
    assert migrated.call("schedule", "sync").returncode == 0
    _, findings = examine(migrated, "--production")
    assert findings["pg_cron"]["is_well"]


def test_a_weak_key_and_a_missed_schedule(migrated: Bench) -> None:
    """A short SYNCLINE_SECRET_KEY, a wrong alert address and runs that were not fired are findings of their own."""
    with migrated.connect() as connection:
        db.call(connection, "create_schedule", "default", "* * * * *")
        connection.execute("update syncline.schedules set settled_at = now() - interval '1 hour'")
    given = {"SYNCLINE_SECRET_KEY": "short", "SYNCLINE_ALERT_URLS": "nonsense"}
    code, findings = examine(migrated, "--production", **given)
    assert code == 2
    assert "SYNCLINE_SECRET_KEY" in findings["settings of the API"]["detail"]
    assert not findings["alerts"]["is_well"]
    assert "default" in findings["missed runs"]["detail"]


def test_timeouts_of_the_server_that_cut_off_runs(migrated: Bench) -> None:
    """Timeouts set for the role or the database are found with what they would end."""
    with migrated.connect() as connection:
        name = sql.Identifier(connection.info.dbname)
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(sql.SQL("alter database {} set {} = '60s'").format(name, sql.Identifier(setting)))
    _, findings = examine(migrated, "--production")
    assert "60 s" in findings["statement_timeout"]["detail"]
    assert "set idle_in_transaction_session_timeout = 0" in findings["idle_in_transaction_session_timeout"]["hint"]


@pytest.mark.parametrize(("seconds", "is_well"), [(0, True), (3, True), (60, False), (-60, False)])
def test_clocks_apart(seconds: int, is_well: bool) -> None:
    """Clocks further apart than a few seconds are told, whichever is ahead."""
    now = datetime.now(UTC)
    finding = _examine_clock(now, (now + timedelta(seconds=seconds)).isoformat(), now)
    assert (finding.is_well, ("60 s apart" in finding.detail)) == (is_well, not is_well)


def test_too_few_connections(connection: db.Connection) -> None:
    """More workers than the server has connections for are told, by the server's own numbers; without any, one's."""
    facts = db.call_value(connection, "production_facts")
    for workers, who in ((0, "one worker and"), (1, "one worker and"), (2, "2 workers and")):
        (finding,) = _examine_server(facts | {"settings": {}, "workers": workers})
        assert who in finding.detail
    well = {finding.what: finding.is_well for finding in _examine_server(facts | {"settings": {}})}
    crowded = {finding.what: finding.is_well for finding in _examine_server(facts | {"workers": 1000})}
    assert (well["connections"], crowded["connections"]) == (True, False)


def test_an_unencrypted_connection_over_the_network(connection: db.Connection) -> None:
    """A socket on this machine needs no encryption; a connection across the network does."""

    class Remote:
        class info:  # noqa: N801
            host = "db.example.com"

    facts = db.call_value(connection, "production_facts")
    if connection.info.host.startswith("/"):
        assert _examine_encryption(connection, facts).is_well
    assert not _examine_encryption(Remote(), facts | {"is_encrypted": False}).is_well  # type: ignore[arg-type]
    assert _examine_encryption(Remote(), facts | {"is_encrypted": True}).is_well  # type: ignore[arg-type]
