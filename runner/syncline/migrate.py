"""Brings the control schema, its functions and the streams' tables up to date."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from syncline import db
from syncline.config import Project
from syncline.errors import ConfigurationError
from syncline.paths import bundle

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+?(_breaking)?\.sql")

_BOOKKEEPING = """
create schema if not exists syncline;
create table if not exists syncline.migrations (
    migration_id integer primary key,
    name text not null,
    is_breaking boolean not null,
    applied_at timestamptz not null default now()
);
create table if not exists syncline.function_files (
    name text primary key,
    fingerprint text not null,
    applied_at timestamptz not null default now()
);
comment on table syncline.migrations is 'The migrations that were applied.';
comment on table syncline.function_files is 'The files of functions and views as they were last applied.';
"""


@dataclass(slots=True)
class Applied:
    """What a migration did: names of migrations and function files, labels of streams."""

    migrations: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.migrations or self.functions or self.streams)


def migrate(connection: db.Connection, project: Project | None = None) -> Applied:
    """Apply what is missing, in one transaction under an advisory lock, so that racing calls wait for each other.

    Raises ConfigurationError where the database has a breaking migration that this release does not know.
    """
    applied = Applied()
    with db.translated(), _pinned(connection):
        connection.execute("select pg_advisory_xact_lock(1937337955, 0)")
        connection.execute("set local lock_timeout = '10s'; set local client_min_messages = warning")
        if not _is_control_up_to_date(connection):
            _check_owner(connection)
            connection.execute(_BOOKKEEPING)
            _apply_migrations(connection, applied)
            _apply_functions(connection, applied)
        if project is not None:
            _create_streams(connection, project, applied)
        if applied:
            connection.execute("select syncline.renew_grants()")
    return applied


def is_up_to_date(connection: db.Connection, project: Project | None = None) -> bool:
    """Return whether `migrate` would do nothing; raises as it does."""
    with db.translated(), _pinned(connection):
        if not _is_control_up_to_date(connection):
            return False
        if project is None:
            return True
        query = "select source || '.' || stream as label from syncline.streams where is_declared"
        declared = {row["label"] for row in connection.execute(query)}
    return declared == project.stream_labels


@contextmanager
def _pinned(connection: db.Connection) -> Iterator[None]:
    """Open a transaction that finds nothing by a name without schema but what is Postgres' own.

    The owner's session would else run what the runner, who may create in public, put in the way there.
    """
    with connection.transaction():
        connection.execute("set local search_path = pg_catalog, pg_temp")
        yield


def _is_control_up_to_date(connection: db.Connection) -> bool:
    """Return whether the control schema has all migrations and functions of this release."""
    place = _control_schema(connection)
    if place is not None and not place["may_use"]:
        raise ConfigurationError(
            f"the database user {place['name']} may not use the schema syncline",
            f"As {place['owner']}: select syncline.grant_roles('{place['owner']}', '{place['name']}'); "
            "docs/how-to/production.md says more.",
        )
    if connection.execute("select to_regclass('syncline.function_files') as it").fetchone() == {"it": None}:
        return False
    _check_known(connection)
    known = {row["name"]: row["fingerprint"] for row in connection.execute("select * from syncline.function_files")}
    if known != {file.name: _fingerprint(connection, file) for file in _function_files()}:
        return False
    done = {row["name"] for row in connection.execute("select name from syncline.migrations")}
    return {file.name for file in _migration_files()} <= done


def _check_owner(connection: db.Connection) -> None:
    place = _control_schema(connection)
    if place is not None and not place["may_change"]:
        raise ConfigurationError(
            f"the control schema is not of this release, and {place['name']} may not change it: "
            f"it belongs to {place['owner']}",
            f"Run `syncline migrate` with a DATABASE_URL of {place['owner']} first.",
        )


def _control_schema(connection: db.Connection) -> dict[str, Any] | None:
    """Return who owns the control schema and what the session's user may do there; None where there is none."""
    return connection.execute(
        """
        select
            current_user as name, pg_get_userbyid(nspowner) as owner,
            has_schema_privilege(oid, 'usage') as may_use, pg_has_role(nspowner, 'usage') as may_change
        from pg_namespace where nspname = 'syncline'
        """
    ).fetchone()


def _check_known(connection: db.Connection) -> None:
    known = {file.name for file in _migration_files()}
    for row in connection.execute("select name from syncline.migrations where is_breaking order by migration_id"):
        if row["name"] not in known:
            raise ConfigurationError(
                f"the control schema is of a newer release (it has {row['name']})",
                "Upgrade this installation: pip install --upgrade syncline.",
            )


def _apply_migrations(connection: db.Connection, applied: Applied) -> None:
    done = {row["name"] for row in connection.execute("select name from syncline.migrations")}
    for file in _migration_files():
        match = _NAME.fullmatch(file.name)
        if file.name in done or match is None:
            continue
        # The row goes in first: a race that got past the lock would show here.
        connection.execute(
            "insert into syncline.migrations (migration_id, name, is_breaking) values (%s, %s, %s)",
            (int(match.group(1)), file.name, match.group(2) is not None),
        )
        _execute_file(connection, file)
        applied.migrations.append(file.name)


def _apply_functions(connection: db.Connection, applied: Applied) -> None:
    known = {row["name"]: row["fingerprint"] for row in connection.execute("select * from syncline.function_files")}
    # Bodies name functions of other files; order between files is of no account.
    connection.execute("set local check_function_bodies = off")
    for file in _function_files():
        fingerprint = _fingerprint(connection, file)
        if known.pop(file.name, None) == fingerprint:
            continue
        _execute_file(connection, file)
        connection.execute(
            """
            insert into syncline.function_files (name, fingerprint) values (%s, %s)
            on conflict (name) do update set fingerprint = excluded.fingerprint, applied_at = now()
            """,
            (file.name, fingerprint),
        )
        applied.functions.append(file.name)
    for name in known:
        connection.execute("delete from syncline.function_files where name = %s", (name,))


def _create_streams(connection: db.Connection, project: Project, applied: Applied) -> None:
    rows = connection.execute("select source || '.' || stream as label from syncline.streams").fetchall()
    known = {row["label"] for row in rows}
    for source in project.sources.values():
        for stream in source.streams.values():
            if stream.label not in known:
                connection.execute("select syncline.create_stream(%s, %s)", (source.name, stream.name))
                applied.streams.append(stream.label)
    connection.execute("select syncline.declare_streams(%s)", (sorted(project.stream_labels),))


def _execute_file(connection: db.Connection, file: Path) -> None:
    try:
        connection.execute(sql.SQL(file.read_text(encoding="utf-8")))
    except psycopg.errors.DuplicateTable as error:
        raise ConfigurationError(
            f"{file.name}: {error.diag.message_primary}",
            "The schema `syncline` holds tables of something else: use another database, or move them.",
        ) from None


def _fingerprint(connection: db.Connection, file: Path) -> str:
    # Some functions are defined by what the server can do.
    major = connection.info.server_version // 10000
    return hashlib.sha256(file.read_bytes() + str(major).encode()).hexdigest()


def _migration_files() -> list[Path]:
    return sorted((bundle() / "sql" / "migrations").glob("*.sql"))


def _function_files() -> list[Path]:
    return sorted((bundle() / "sql" / "functions").glob("*.sql"))
