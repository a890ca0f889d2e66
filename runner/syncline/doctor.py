"""Looks for what is wrong with a project and its database, and says how to mend it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from syncline import db
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


def examine(project: Project, open_database: Callable[[], str]) -> Iterator[Finding]:
    """Yield a finding for each thing that a run needs; `open_database` gives the connection string."""
    for source in project.sources.values():
        yield _try(f"settings of source {source.name}", partial(check_settings, source))
        yield _try(f"variables of source {source.name}", partial(_resolve, project, source.name))
    if not project.sources:
        yield Finding("sources", False, "the project declares none", "Declare one in dbt_project/models/sources.yml.")
    missing = [name for name in ("profiles.yml",) if not (project.root / name).exists()]
    yield Finding(
        "dbt's profile", not missing, ", ".join(missing), "Copy profiles.yml from a project of `syncline init`."
    )
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
        row = connection.execute(
            "select has_database_privilege(current_database(), 'create') as can_create, current_user as name"
        ).fetchone()
        assert row is not None
        yield Finding(
            "rights",
            row["can_create"],
            "" if row["can_create"] else f"{row['name']} may not create schemas",
            f"grant create on database {connection.info.dbname} to {row['name']};",
        )
        yield _examine_sessions(dsn, connection)
        yield from _examine_schema(project, connection)


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


def _examine_schema(project: Project, connection: db.Connection) -> Iterator[Finding]:
    try:
        is_current = is_up_to_date(connection, project)
    except SynclineError as error:
        yield Finding("control schema", False, error.message, error.hint)
        return
    yield Finding("control schema", True, "" if is_current else "not up to date; the next command brings it up to date")
    if is_current:
        engine = db.call_value(connection, "engine_version")
        found = _macros_engine(project)
        yield Finding(
            "engine's macros",
            found == engine,
            "" if found == engine else f"the macros are of engine {found}, the control schema is of {engine}",
            "Run `syncline init --upgrade`.",
        )
        yield from _examine_left_over(project, connection)


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
