"""The control plane's functions that a run calls, under their own names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
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
    *,
    is_foreground: bool = False,
    max_attempts: int = 3,
    timeout: float | None = None,
) -> int:
    """Put a run in the queue, or find the identical one that waits there; return its number.

    No sources are all that the project declares. Raises ConfigurationError where a source or an option is unknown.
    Only this process works a run in the foreground, and waits for it until `leave_queue`. `timeout` is in seconds, for
    each attempt.
    """
    run_id: int = db.call_value(
        connection,
        "request_run",
        p_sources=sources,
        p_entities=entities,
        p_options=json.dumps(options),
        p_trigger=trigger,
        p_triggered_by=triggered_by,
        p_request_id=request_id,
        p_max_attempts=max_attempts,
        p_timeout=timedelta(seconds=timeout) if timeout else None,
        p_is_foreground=is_foreground,
    )
    return run_id


def cancel_run(connection: Connection, run_id: int, requested_by: str | None = None) -> str:
    """Cancel a queued run, or ask the process that works it to stop; return its status now: cancelled or running.

    Raises ConfigurationError where there is no such run, RefusedError where it has ended.
    """
    status: str = db.call_value(connection, "cancel_run", run_id, requested_by)
    return status


def retry_run(connection: Connection, run_id: int, trigger: str, triggered_by: str, request_id: str) -> int:
    """Request a run once more that has ended; return the new run's number.

    Raises ConfigurationError where there is no such run, RefusedError where it has not ended or was a push.
    """
    retried: int = db.call_value(connection, "retry_run", run_id, trigger, triggered_by, request_id)
    return retried


def cancelled_by(connection: Connection, run_id: int) -> str | None:
    """Return who asked to cancel the running run."""
    name: str | None = db.call_value(connection, "cancelled_by", run_id)
    return name


def claim_run(
    connection: Connection, run_id: int | None = None, sources: list[str] | None = None
) -> dict[str, Any] | None:
    """Claim the run, or the oldest that is due of these sources, for this connection's session; return its row.

    None where none may start. The session holds the run's advisory lock from then on, and its writing functions work
    for the run.
    """
    rows = db.call(connection, "claim_run", run_id, sources)
    return rows[0] if rows else None


def session_run(connection: Connection) -> int | None:
    """Return the run that this connection's session works for."""
    run_id: int | None = db.call_value(connection, "session_run")
    return run_id


def hold_run(connection: Connection) -> None:
    """Raise LostClaimError where the session's run is not its own any more."""
    db.call(connection, "hold_run")


def seconds_until_due(connection: Connection, sources: list[str] | None) -> float | None:
    """Return how long until a queued run of these sources comes due that is not yet."""
    seconds: float | None = db.call_value(connection, "seconds_until_due", sources)
    return seconds


def is_run_alive(connection: Connection, run_id: int) -> bool:
    """Return whether a session holds the run's advisory lock."""
    return bool(db.call_value(connection, "is_run_alive", run_id))


def blocking_runs(connection: Connection, run_id: int) -> list[int]:
    """Return the running runs that a queued run waits for."""
    return [row["blocking_runs"] for row in db.call(connection, "blocking_runs", run_id)]


def leave_queue(connection: Connection, run_id: int) -> bool:
    """Wait for the run no longer; True where it was cancelled, since nobody else waits for it."""
    return bool(db.call_value(connection, "leave_queue", run_id))


def begin_step(connection: Connection, step: str) -> None:
    db.call(connection, "begin_step", step)


def finish_step(connection: Connection, step: str, status: str = "succeeded") -> None:
    db.call(connection, "finish_step", step, status)


def finish_run(connection: Connection, status: str, error: Mapping[str, Any] | None = None) -> str:
    """End the session's run and give its lock back; return its status: a failed one may be queued again."""
    ended: str = db.call_value(connection, "finish_run", status, json.dumps(error) if error else None)
    return ended


def hand_back_run(connection: Connection) -> None:
    """Put the session's run back in the queue, for another worker; this attempt does not count."""
    db.call(connection, "hand_back_run")


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


def known_sources(connection: Connection) -> set[str]:
    """Return the names of the sources that have streams in the database, declared or not any more."""
    with db.translated():
        return {row["source"] for row in connection.execute("select source from syncline.stream_status")}


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


def withdraw_lost_candidates(connection: Connection) -> None:
    """Withdraw the candidates of runs whose process is gone, where nobody is in the way; never waits long."""
    db.call(connection, "withdraw_lost_candidates")


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


def finish_replay(connection: Connection) -> None:
    """Note what became of the row errors that the session's run replayed."""
    db.call(connection, "finish_replay")


def prune_stream(connection: Connection, source: str, stream: str, keep: int) -> int:
    """Delete the revisions that nothing needs any more; return their number."""
    pruned: int = db.call_value(connection, "prune_stream", source, stream, keep)
    return pruned
