"""Starts an entity from a table of the database, so that its first run shows what differs from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from syncline import check, control, db
from syncline.config import Project, Stream
from syncline.dbt import Entity
from syncline.discovery.names import column_name, singular
from syncline.errors import ConfigurationError, RunError, first_of
from syncline.migrate import is_up_to_date, migrate
from syncline.paths import user_name
from syncline.pipeline import Engine, claim, fail_run, publish_candidates


def adopt(engine: Engine, table: str, name: str, key: Sequence[str] = ()) -> dict[str, Any]:
    """Publish the table's rows as the first version of the entity; the table stays as it is.

    `key` are the columns that hold the stream's key, in its order; by default those named after it. Return the entity,
    its key, and what syncline.adopt found: rows, errors, missing and ignored columns, loaded. A run of its own, which
    fails as runs do. Raises RefusedError where the entity is published already or the rows cannot be its,
    ConfigurationError where table, entity or a column is not there.
    """
    models = engine.dbt.parse()
    entity = models.entities.get(name)
    if entity is None:
        known = ", ".join(sorted(models.entities)) or "none"
        raise ConfigurationError(
            f"there is no entity named {name!r}",
            f"Known entities: {known}. `syncline discover` writes models; adopt takes the rows of one.",
        )
    streams = _streams(engine.project, entity)
    with db.connect(engine.dsn) as connection:
        if not is_up_to_date(connection, engine.project):
            migrate(connection, engine.project)
        found = {item["name"]: item["column"] for item in db.call_value(connection, "adoptable_columns", table)}
        key = _check_key(streams, list(key)) if key else _find_key(table, entity, streams, found)
        run_id = control.request_run(
            connection,
            sorted({stream.source for stream in streams}),
            [name],
            {"adopt": table, "key": key},
            "cli",
            user_name(),
            is_foreground=True,
            max_attempts=1,
        )
        claimed = claim(connection, run_id, 0, lambda _: None)
        if claimed is None:
            raise RunError(f"run {run_id} was worked by another process", "Look at `syncline runs`.")
        try:
            facts = _work(engine, connection, (claimed["run_id"], claimed["attempt"]), entity, streams, table, key)
        except BaseException as error:
            fail_run(connection, run_id, error, engine.project.mask)
            raise
        control.finish_run(connection, "succeeded")
    return {"entity": name, "table": table, "key": key, "run_id": run_id, **facts}


def _work(
    engine: Engine,
    connection: db.Connection,
    claimed: tuple[int, int],
    entity: Entity,
    streams: Sequence[Stream],
    table: str,
    key: list[str],
) -> dict[str, Any]:
    control.lock_entities(connection, [entity.name])
    try:
        db.call(connection, "open_adoption", entity.name, table, key, list(entity.streams))
        control.begin_step(connection, "build")
        # The model itself, as of no load: it makes the tables, the indexes and the views, and says the columns.
        errors = check.model_errors(engine.dbt.build([entity.name], claimed, is_exact=True))
        if errors:
            raise first_of(errors)
        is_redacted = any(stream.common.redact for stream in streams)
        facts: dict[str, Any] = db.call_value(connection, "adopt", entity.name, table, key, is_redacted)
        control.finish_step(connection, "build")
        control.begin_step(connection, "publish")
        publish_candidates(engine, connection, [entity.name])
        control.finish_step(connection, "publish")
    finally:
        if not connection.broken:
            control.unlock_entities(connection, [entity.name])
    return facts


def _streams(project: Project, entity: Entity) -> list[Stream]:
    known = {stream.label: stream for source in project.sources.values() for stream in source.streams.values()}
    return [known[label] for label in entity.streams if label in known]


def _check_key(streams: Sequence[Stream], key: list[str]) -> list[str]:
    for stream in streams:
        _refuse_content_key(stream)
        if stream.key and len(stream.key) != len(key):
            raise ConfigurationError(
                f"the key of {stream.label} is ({', '.join(stream.key)}), and --key names {len(key)} columns",
                "Name the columns that hold these fields, in their order.",
            )
    return key


def _find_key(table: str, entity: Entity, streams: Sequence[Stream], found: Mapping[str, str]) -> list[str]:
    """Return the table's columns that are named after the fields of the stream's key."""
    if not streams or not streams[0].key:
        if streams:
            _refuse_content_key(streams[0])
        raise ConfigurationError(f"nothing says what the key of {entity.name} is", "Name the columns with --key.")
    key = []
    for path in streams[0].key:
        plain = column_name(path)
        wanted = (path, plain, f"{singular(entity.name)}_{plain}", f"{singular(streams[0].name)}_{plain}")
        column = next((found[name] for name in wanted if name in found), None)
        if column is None:
            raise ConfigurationError(
                f"{table} has no column named after {path}, the key of {streams[0].label}",
                "Name the column that holds it with --key.",
            )
        key.append(column)
    return key


def _refuse_content_key(stream: Stream) -> None:
    if stream.common.key is not None and not stream.key:
        raise ConfigurationError(
            f"the records of {stream.label} have no key but their content, which no row of a table holds",
            "Give the stream a `key`, or start it without the table.",
        )
