"""Looks for what an installation lacks that is to run by itself, and says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from syncline import db, schedules
from syncline.api.settings import read_settings
from syncline.config import Project
from syncline.doctor import Finding
from syncline.errors import SynclineError
from syncline.migrate import is_up_to_date

CONNECTIONS_OF_A_WORKER = 10
"""Its claim, its watch over the run, four streams with a reserve, and dbt's threads."""

CONNECTIONS_OF_THE_API = 15

CLOCKS_APART = 5.0
"""Seconds between this machine's clock and the database's from which times in logs and reports mislead."""

_CUT_OFF = {
    "statement_timeout": "ends long builds",
    "transaction_timeout": "ends long builds",
    "idle_in_transaction_session_timeout": "ends loads that wait for a slow source",
    "idle_session_timeout": "ends workers that wait",
}
_KEEP_ON = {
    "autovacuum": "tables grow without end",
    "track_counts": "tables grow without end",
    "fsync": "a crash can destroy the database",
    "full_page_writes": "a crash can destroy the database",
}
_SHORTEST_TIMEOUT = 3_600_000
"""A timeout of so many milliseconds cuts off no usual run."""

Facts = Mapping[str, Any]


def examine(project: Project) -> Iterator[Finding]:
    """Yield a finding for each thing that production needs beyond what `doctor.examine` looks at, in production."""
    dsn = project.database_url
    yield _judge(
        "a database of your own",
        dsn is not None,
        "" if dsn else "there is no DATABASE_URL: the embedded server is for trying out",
        "Set DATABASE_URL to postgresql://user:password@host:5432/database.",
    )
    yield from _examine_secrets(project)
    if dsn is None:
        return
    try:
        with db.connect(dsn) as connection:
            if not _is_known(connection):
                return
            before = datetime.now(UTC)
            facts = db.call_value(connection, "production_facts")
            yield _examine_clock(before, facts["at"], datetime.now(UTC))
            yield from _examine_rights(facts)
            yield _examine_encryption(connection, facts)
            yield from _examine_server(facts)
            yield from _examine_work(connection, facts)
            yield _examine_tokens(project, facts)
    except SynclineError as error:
        yield Finding("the database", False, project.mask(error.message), error.hint)
    yield Finding("backups", True, "Syncline cannot see them. The database holds all there is: back it up whole")


def _is_known(connection: db.Connection) -> bool:
    """Return whether the control schema is there, of this release; where it is not, the doctor has said why."""
    try:
        return is_up_to_date(connection)
    except SynclineError:
        return False


def _judge(what: str, is_well: bool, detail: str, hint: str) -> Finding:
    return Finding(what, is_well, detail, None if is_well else hint)


def _examine_secrets(project: Project) -> Iterator[Finding]:
    try:
        read_settings(project)
        yield Finding("settings of the API", True)
    except SynclineError as error:
        yield Finding("settings of the API", False, error.message, error.hint)
    # Those that are set the doctor has looked at.
    if not project.environment.get("SYNCLINE_ALERT_URLS", "").strip(" \t\r\n,"):
        yield Finding(
            "alerts",
            False,
            "nobody is told when runs fail",
            "Set SYNCLINE_ALERT_URLS, then try `syncline alerts test`: docs/how-to/alerts.md.",
        )


def _examine_clock(before: datetime, at: str, after: datetime) -> Finding:
    theirs = datetime.fromisoformat(at)
    apart = max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)
    return _judge(
        "clocks",
        apart < CLOCKS_APART,
        "" if apart < CLOCKS_APART else f"this machine's and the database's are {apart:.0f} s apart",
        "Let NTP set both.",
    )


def _examine_rights(facts: Facts) -> Iterator[Finding]:
    user, lacking = facts["user"], facts["lacking_rights"]
    yield _judge(
        "rights in the database",
        not lacking,
        f"{user} lacks {', '.join(lacking[:3])}{' and more' if len(lacking) > 3 else ''}" if lacking else "",
        f"As {facts['owner']}: select syncline.grant_roles('{facts['owner']}', '{user}', 'READER');",
    )
    too_much = "is a superuser" if facts["is_superuser"] else "owns the control schema" if facts["is_owner"] else ""
    yield _judge(
        "roles",
        not too_much,
        f"{user} {too_much}: a secret that leaks gives all away" if too_much else f"{user} works runs and no more",
        "Let workers and API use a role of their own: docs/how-to/production.md#roles.",
    )


def _examine_encryption(connection: db.Connection, facts: Facts) -> Finding:
    host = connection.info.host
    is_near = not host or host.startswith("/") or host in ("localhost", "127.0.0.1", "::1")
    is_well = is_near or facts["is_encrypted"]
    return _judge(
        "encryption to the database",
        is_well,
        "" if is_well else "the connection crosses the network as it is",
        "Add ?sslmode=verify-full&sslrootcert=system, or the server's own certificate, to DATABASE_URL.",
    )


def _examine_server(facts: Facts) -> Iterator[Finding]:
    settings = facts["settings"]
    for name, harm in _CUT_OFF.items():
        value = int(settings.get(name, 0))
        if 0 < value < _SHORTEST_TIMEOUT:
            yield Finding(
                name,
                False,
                f"{name} is {value / 1000:g} s: it {harm}",
                f"alter role {facts['user']} set {name} = 0;",
            )
    for name, harm in _KEEP_ON.items():
        if settings.get(name) == "off":
            yield Finding(name, False, f"{name} is off: {harm}", f"alter system set {name} = on; then reload.")
    workers = max(facts["workers"], 1)
    needed = workers * CONNECTIONS_OF_A_WORKER + CONNECTIONS_OF_THE_API
    who = f"{facts['workers']} workers" if facts["workers"] > 1 else "one worker"
    yield _judge(
        "connections",
        needed <= facts["max_connections"],
        f"{facts['max_connections']} may be open, {facts['connections']} are; {who} and the API take up to {needed}",
        "Raise max_connections, or run fewer workers.",
    )


def _examine_work(connection: db.Connection, facts: Facts) -> Iterator[Finding]:
    yield _judge(
        "workers",
        facts["workers"] > 0,
        f"{facts['workers']} at work" if facts["workers"] else "none is running: what is requested waits",
        "Start one: systemctl start syncline-worker@1, or `syncline worker`.",
    )
    known = schedules.list_schedules(connection)
    active = [row for row in known if not row["is_paused"]]
    yield _judge(
        "schedules",
        bool(active),
        ", ".join(f"{row['name']} ({row['cron']}, by {row['fired_by']})" for row in active) or "none is active",
        "Make one: syncline schedule create default --cron '0 */6 * * *'.",
    )
    missed = [row for row in active if row["missed"]]
    if missed:
        names = ", ".join(f"{row['name']} ({row['missed']})" for row in missed)
        yield Finding("missed runs", False, f"not fired in time: {names}", "Look at `syncline schedule list`.")
    yield _examine_pg_cron(active, facts["pg_cron"])


_WHY_NOT_PG_CRON = {
    "absent": "it is not here",
    "elsewhere": "it works in another database",
    "no rights": "the owner of the schema syncline may not use it",
}


def _examine_pg_cron(active: Sequence[Mapping[str, Any]], state: str) -> Finding:
    """Whether pg_cron fires what is left to it: in the copy of a database it does not."""
    if state == "ready":
        return Finding("pg_cron", True, "it fires schedules")
    why = _WHY_NOT_PG_CRON[state]
    left = ", ".join(row["name"] for row in active if row["fired_by"] == "pg_cron")
    return _judge(
        "pg_cron",
        not left,
        f"{why}, and these schedules are left to it: {left}" if left else f"{why}: workers fire schedules",
        "Hand them over to workers: `syncline schedule sync`.",
    )


def _examine_tokens(project: Project, facts: Facts) -> Finding:
    has_key = bool(project.environment.get("SYNCLINE_SECRET_KEY"))
    return _judge(
        "tokens of the API",
        has_key or bool(facts["live_tokens"]),
        "" if has_key or facts["live_tokens"] else "nobody could call the API",
        "Make one: syncline token create NAME --role operator.",
    )
