"""The control plane's functions that a run calls, under their own names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from syncline import db
from syncline.db import Connection


def request_run(
    connection: Connection,
    sources: list[str],
    entities: list[str],
    options: Mapping[str, Any],
    trigger: str,
    triggered_by: str | None = None,
    request_id: str | None = None,
) -> int:
    """Put a run in the queue, or find the identical one that waits there; return its number."""
    arguments = (sources, entities, json.dumps(options), trigger, triggered_by, request_id)
    run_id: int = db.call_value(connection, "request_run", *arguments)
    return run_id


def claim_run(connection: Connection, run_id: int) -> tuple[int, int] | None:
    """Claim the run for this connection's session; return (run id, attempt), None where another is in its way.

    The session holds the run's advisory lock from then on, and its writing functions work for the run.
    """
    rows = db.call(connection, "claim_run", run_id)
    if not rows:
        return None
    run = (rows[0]["run_id"], rows[0]["attempt"])
    with db.translated():
        connection.execute(
            "select set_config('syncline.run_id', %s, false), set_config('syncline.attempt', %s, false)",
            (str(run[0]), str(run[1])),
        )
    return run


def blocking_runs(connection: Connection, run_id: int) -> list[int]:
    """Return the running runs that a queued run waits for."""
    return [row["blocking_runs"] for row in db.call(connection, "blocking_runs", run_id)]


def join_queue(connection: Connection, run_id: int) -> None:
    """Note that this session waits for the run, which identical requests may share."""
    db.call(connection, "join_queue", run_id)


def leave_queue(connection: Connection, run_id: int) -> bool:
    """Wait for the run no longer; True where it was cancelled, since nobody else waits for it."""
    return bool(db.call_value(connection, "leave_queue", run_id))


def begin_step(connection: Connection, step: str) -> None:
    db.call(connection, "begin_step", step)


def finish_step(connection: Connection, step: str, status: str = "succeeded") -> None:
    db.call(connection, "finish_step", step, status)


def finish_run(connection: Connection, status: str, error: Mapping[str, Any] | None = None) -> None:
    """End the session's run and give its lock back."""
    db.call(connection, "finish_run", status, json.dumps(error) if error else None)


def run_report(connection: Connection, run_id: int) -> dict[str, Any]:
    """Return the run as one object."""
    report: dict[str, Any] = db.call_value(connection, "run_report", run_id)
    return report


def log(connection: Connection, level: str, event: str, **detail: Any) -> None:
    """Write a log event for the session's run; `detail` never holds a value of a record."""
    db.call(connection, "log", level, event, json.dumps(detail))


def lock_entities(connection: Connection, entities: Iterable[str]) -> None:
    """Take the entities' locks for this session, in name order."""
    db.call(connection, "lock_entities", sorted(entities))


def unlock_entities(connection: Connection, entities: Iterable[str]) -> None:
    db.call(connection, "unlock_entities", sorted(entities))


def pin_loads(connection: Connection) -> dict[str, int]:
    """Pin the newest load of every stream for the session's run."""
    pinned: dict[str, int] = db.call_value(connection, "pin_loads")
    return pinned


def known_entities(connection: Connection) -> set[str]:
    """Return the entities that were built before, published or not."""
    with db.translated():
        return {row["entity"] for row in connection.execute("select entity from syncline.entity_status")}


def register_entities(connection: Connection, parents: Mapping[str, Iterable[str]]) -> None:
    """Note which entities each entity reads."""
    rows = [{"entity": name, "parents": list(read)} for name, read in parents.items()]
    db.call(connection, "register_entities", json.dumps(rows))


def check_error_ratio(connection: Connection, entity: str, max_ratio: float) -> None:
    """Raise RefusedError where too many of the entity's records have errors."""
    db.call(connection, "check_error_ratio", entity, max_ratio)


def mark_checked(connection: Connection, entities: Iterable[str]) -> list[int]:
    """Mark the run's candidates of these entities as checked; return their numbers."""
    return [row["mark_checked"] for row in db.call(connection, "mark_checked", list(entities))]


def withdraw_candidates(connection: Connection, run_id: int, entities: list[str] | None = None) -> None:
    """Point next back at what is published for the run's candidates: of these entities, or of all."""
    db.call(connection, "withdraw_candidates", run_id, entities)


def announce(connection: Connection, publication_id: int) -> None:
    """Tell listeners that a publication, and what is downstream of it, is there."""
    db.call(connection, "announce", publication_id)


def models_behind(connection: Connection, models: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the ordinary models that are behind what is published, with the stamp of what they would be built from."""
    declared = [{"model": name, **model, "entities": sorted(model["entities"])} for name, model in models.items()]
    return {row["model"]: row["stamp"] for row in db.call(connection, "models_behind", json.dumps(declared))}


def save_models(connection: Connection, stamps: Mapping[str, str]) -> None:
    """Note what models were built from."""
    db.call(connection, "save_models", json.dumps(stamps))


def publishable(connection: Connection, entities: Iterable[str], *, is_held: bool) -> dict[str, int]:
    """Return the checked candidates of these entities that are held, or are not: entity to build."""
    rows = db.call(connection, "publishable", list(entities), is_held)
    return {row["entity"]: row["build_id"] for row in rows}


def prune_stream(connection: Connection, source: str, stream: str, keep: int) -> int:
    """Delete the revisions that nothing needs any more; return their number."""
    pruned: int = db.call_value(connection, "prune_stream", source, stream, keep)
    return pruned
