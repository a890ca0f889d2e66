"""Looks for what is wrong with a project and its database, and says how to mend it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from syncline import db
from syncline.alerts import read_targets
from syncline.config import Project, model_names
from syncline.connectors import check_settings, open_connector, stream_settings
from syncline.errors import SynclineError
from syncline.migrate import is_up_to_date
from syncline.scaffold import MACROS

_ENGINE = re.compile(r"'engine':\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what it is, whether it is well, and what to do where it is not."""

    what: str
    is_well: bool
    detail: str = ""
    hint: str | None = None


def examine(project: Project, open_database: Callable[[], str], *, is_production: bool = False) -> Iterator[Finding]:
    """Yield a finding for each thing that a run needs; `open_database` gives the connection string.

    In production a control schema that the next command would bring up to date is not well: nobody gives one there.
    """
    for source in project.sources.values():
        yield _try(f"settings of source {source.name}", partial(check_settings, source))
        yield _try(f"variables of source {source.name}", partial(_resolve, project, source.name))
    if not project.sources:
        yield Finding("sources", False, "the project declares none", "Declare one in dbt_project/models/sources.yml.")
    missing = [name for name in ("profiles.yml",) if not (project.root / name).exists()]
    yield Finding(
        "dbt's profile", not missing, ", ".join(missing), "Copy profiles.yml from a project of `syncline init`."
    )
    yield from _examine_alerts(project)
    try:
        dsn = open_database()
        connection = db.connect(dsn)
    except SynclineError as error:
        yield Finding("database", False, error.message, error.hint)
        return
    with connection:
        version = connection.info.server_version
        yield Finding(
            "database",
            True,
            f"Postgres {version // 10000}.{version % 10000}, {'yours' if project.database_url else 'embedded'}",
        )
        place = _place(connection)
        if place["may_use"]:
            yield _examine_rights(place)
        yield _examine_sessions(dsn, connection)
        yield from _examine_schema(project, connection, place, is_production=is_production)


def _examine_alerts(project: Project) -> Iterator[Finding]:
    """Whether each address is one; that there is any, production alone needs."""
    try:
        targets = read_targets(project)
    except SynclineError as error:
        yield Finding("alerts", False, error.message, error.hint)
        return
    if targets:
        yield Finding("alerts", True, "1 address" if len(targets) == 1 else f"{len(targets)} addresses")


def _place(connection: db.Connection) -> dict[str, Any]:
    """Return who the user is, and what it may do in the database and its control schema, if there is one."""
    # Before the first migration there is no function that could be called.
    row = connection.execute(
        """
        select
            current_user as name, current_database() as database, pg_get_userbyid(nspowner) as owner,
            pg_get_userbyid(datdba) as database_owner,
            has_database_privilege(pg_database.oid, 'create') as may_create,
            coalesce(has_schema_privilege(pg_namespace.oid, 'usage'), has_database_privilege(pg_database.oid, 'create'))
                as may_use,
            coalesce(pg_has_role(nspowner, 'usage'), has_database_privilege(pg_database.oid, 'create')) as may_migrate
        from pg_database left join pg_namespace on nspname = 'syncline'
        where datname = current_database()
        """
    ).fetchone()
    assert row is not None
    return row


def _examine_rights(place: Mapping[str, Any]) -> Finding:
    name, owner = place["name"], place["owner"]
    if place["may_create"]:
        return Finding("rights", True)
    by_itself = f"grant create on database {place['database']} to {name};"
    hint = by_itself if place["may_migrate"] else f"As {owner}: {_grant(owner, name)}"
    return Finding("rights", False, f"{name} may not create schemas", hint)


def _grant(owner: str, runner: str) -> str:
    return f"select syncline.grant_roles('{owner}', '{runner}', 'READER');"


def _examine_sessions(dsn: str, connection: db.Connection) -> Finding:
    """Whether a connection keeps its session while another is at work: in a pooler's transaction mode it does not."""
    what = "sessions"
    try:
        with db.translated():
            connection.execute("select set_config('syncline.probe', 'ours', false)")
            with db.connect(dsn) as other, other.transaction():
                other.execute("select 1")
                row = connection.execute("select current_setting('syncline.probe', true) as it").fetchone()
    except SynclineError as error:
        return Finding(what, False, error.message, error.hint)
    if row != {"it": "ours"}:
        lost = db.pooler_error("gives a session's server to others between its transactions")
        return Finding(what, False, lost.message, lost.hint)
    return Finding(what, True, "each connection keeps its own")


def _examine_schema(
    project: Project, connection: db.Connection, place: Mapping[str, Any], *, is_production: bool
) -> Iterator[Finding]:
    what = "control schema"
    try:
        is_known = is_up_to_date(connection)
        is_current = is_known and is_up_to_date(connection, project)
    except SynclineError as error:
        yield Finding(what, False, error.message, error.hint)
        return
    if is_current:
        yield Finding(what, True)
    elif is_known:
        yield Finding(what, True, "it lacks streams; the next command makes them")
    elif place["may_migrate"] and not is_production:
        yield Finding(what, True, "not up to date; the next command brings it up to date")
    else:
        yield _judge_old_schema(place)
    if is_known:
        engine = db.call_value(connection, "engine_version")
        found = _macros_engine(project)
        yield Finding(
            "engine's macros",
            found == engine,
            "" if found == engine else f"the macros are of engine {found}, the control schema is of {engine}",
            "Run `syncline init --upgrade`.",
        )
        yield from _examine_left_over(project, connection)


def _judge_old_schema(place: Mapping[str, Any]) -> Finding:
    """A control schema that is not of this release, or not there, and who mends that."""
    name, owner = place["name"], place["owner"]
    if owner is not None:
        is_other = "" if place["may_migrate"] else f", and {name} may not change it: it belongs to {owner}"
        return Finding(
            "control schema",
            False,
            f"it is not of this release{is_other}",
            f"Run `syncline migrate` with a DATABASE_URL of {owner}." if is_other else "Run `syncline migrate`.",
        )
    if place["may_create"]:
        return Finding(
            "control schema",
            False,
            "it is not there yet",
            f"Run `syncline migrate` as the role that is to own it; where that is not {name}, then "
            f"{_grant('OWNER', name)} docs/how-to/production.md says more.",
        )
    owner = place["database_owner"]
    return Finding(
        "control schema",
        False,
        f"it is not there yet, and {name} may not make it",
        f"Run `syncline migrate` with a DATABASE_URL of {owner}, then as {owner}: {_grant(owner, name)} Where one role "
        f"is to do all: grant create on database {place['database']} to {name};",
    )


def _examine_left_over(project: Project, connection: db.Connection) -> Iterator[Finding]:
    """What is kept for entities and streams that are gone from the project: no fault, but it takes room."""
    entities = {row["entity"] for row in connection.execute("select entity from syncline.entity_status")}
    rows = connection.execute("select source || '.' || stream as label from syncline.stream_status")
    left = sorted(entities - model_names(project.root)) + sorted({row["label"] for row in rows} - project.stream_labels)
    if left:
        yield Finding("left over", True, f"{', '.join(left)}: not in the project")


def _macros_engine(project: Project) -> int | None:
    for folder in (MACROS.as_posix(), "dbt_project/macros"):
        file = project.root / folder / "versioned.sql"
        if file.exists():
            match = _ENGINE.search(file.read_text(encoding="utf-8"))
            return int(match.group(1)) if match else None
    return None


def _resolve(project: Project, name: str) -> None:
    source = project.sources[name]
    open_connector(project, source).close()
    for stream in source.streams.values():
        stream_settings(project, source, stream)


def _try(what: str, action: Callable[[], object]) -> Finding:
    try:
        action()
    except SynclineError as error:
        return Finding(what, False, error.message, error.hint)
    return Finding(what, True)
