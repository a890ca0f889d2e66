"""Schedules: when the next run is due, what was missed, and firing those that pg_cron does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from syncline import db
from syncline.db import Connection
from syncline.errors import ConfigurationError

MISSED_AFTER = timedelta(minutes=2)
"""How late a schedule may be fired before its time counts as missed."""

MOST_MISSED = 1000
"""Missed times of one schedule are counted up to here."""

_FORM = "Write five fields: minute, hour, day of the month, month, day of the week, such as 0 */6 * * *."


def create_schedule(
    connection: Connection,
    name: str,
    cron: str,
    zone: str = "UTC",
    sources: Sequence[str] = (),
    entities: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    *,
    max_attempts: int = 3,
    timeout: float | None = None,
    created_by: str | None = None,
) -> str:
    """Make a schedule; return who fires it: `pg_cron` or `worker`.

    No sources are all that are declared; `options` are a run's; `timeout` is in seconds, for each attempt.
    Raises ConfigurationError where something named does not exist or makes no sense, RefusedError where the name is
    taken.
    """
    check_times(cron, zone)
    fired_by: str = db.call_value(
        connection,
        "create_schedule",
        p_name=name,
        p_cron=cron,
        p_zone=zone,
        p_sources=list(sources),
        p_entities=list(entities),
        p_options=json.dumps(options or {}),
        p_max_attempts=max_attempts,
        p_timeout=None if timeout is None else timedelta(seconds=timeout),
        p_created_by=created_by,
    )
    return fired_by


def set_schedule(
    connection: Connection,
    name: str,
    *,
    cron: str | None = None,
    zone: str | None = None,
    sources: Sequence[str] | None = None,
    entities: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    max_attempts: int | None = None,
    timeout: float | None = None,
) -> str:
    """Change what is given of a schedule, options as a whole; return who fires it: `pg_cron` or `worker`.

    A timeout of 0 takes it away. Raises as `create_schedule` does, and where there is no such schedule.
    """
    if cron is not None or zone is not None:
        known = get_schedule(connection, name)
        check_times(cron or known["cron"], zone or known["zone"])
    fired_by: str = db.call_value(
        connection,
        "set_schedule",
        p_name=name,
        p_cron=cron,
        p_zone=zone,
        p_sources=None if sources is None else list(sources),
        p_entities=None if entities is None else list(entities),
        p_options=None if options is None else json.dumps(options),
        p_max_attempts=max_attempts,
        p_timeout=None if timeout is None else timedelta(seconds=timeout),
    )
    return fired_by


def pause_schedule(connection: Connection, name: str) -> None:
    """Fire the schedule no more until it is resumed."""
    db.call(connection, "pause_schedule", name)


def resume_schedule(connection: Connection, name: str) -> str:
    """Fire a paused schedule again from its next time on; return who does: `pg_cron` or `worker`."""
    fired_by: str = db.call_value(connection, "resume_schedule", name)
    return fired_by


def delete_schedule(connection: Connection, name: str) -> None:
    """Delete a schedule; its runs stay."""
    db.call(connection, "delete_schedule", name)


def trigger_schedule(
    connection: Connection,
    name: str,
    trigger: str = "manual",
    triggered_by: str | None = None,
    request_id: str | None = None,
) -> int:
    """Ask for a schedule's run now, paused or not; return the run's number. Its next time stays."""
    run_id: int = db.call_value(connection, "trigger_schedule", name, trigger, triggered_by, request_id)
    return run_id


def sync_schedules(connection: Connection) -> dict[str, str]:
    """Make pg_cron's jobs agree with the schedules; return what was done, by name.

    That is `scheduled`, `rescheduled`, `unscheduled` or `fired by workers`.
    """
    return {row["name"]: row["done"] for row in db.call(connection, "sync_schedules")}


def list_schedules(connection: Connection) -> list[dict[str, Any]]:
    """Return the rows of `syncline.schedule_status` by name, with next_at, missed and missed_for.

    `next_at` is null for one that is paused or wrong; `missed` counts the times that passed without being fired,
    `missed_for` is the last of them.
    """
    statement = "select *, clock_timestamp() as seen_at from syncline.schedule_status order by name"
    with db.translated():
        rows = connection.execute(statement).fetchall()
    for row in rows:
        row.update(_expected(row, row.pop("seen_at")))
    return rows


def get_schedule(connection: Connection, name: str) -> dict[str, Any]:
    """Return one row of `list_schedules`; raises ConfigurationError where there is no such schedule."""
    for row in list_schedules(connection):
        if row["name"] == name:
            return row
    db.call(connection, "raise_unknown_schedule", name)
    raise AssertionError(name)


def missed(connection: Connection) -> list[dict[str, Any]]:
    """Return the schedules that were not fired when they should have been: name, scheduled_for, missed, last_error.

    `scheduled_for` is the last of the `missed` times; `last_error` says why, where the database knows.
    """
    return [
        {
            "name": row["name"],
            "scheduled_for": row["missed_for"],
            "missed": row["missed"],
            "last_error": row["last_error"],
        }
        for row in list_schedules(connection)
        if row["missed"]
    ]


def fire_due(connection: Connection) -> float | None:
    """Fire what is due, of the schedules that workers fire; return the seconds until the next one, None without any.

    However many call it, each time is fired once. What was due while nobody called is fired once for all.
    """
    waits = []
    for schedule in db.call(connection, "schedules_to_fire"):
        name, cron, zone, now = schedule["name"], schedule["cron"], schedule["zone"], schedule["checked_at"]
        try:
            _fire(connection, name, cron, zone, schedule["settled_at"], now)
            following = next_time(cron, zone, now)
        except ConfigurationError as error:
            db.call(connection, "note_schedule_error", name, error.message)
        else:
            if following is not None:
                waits.append((following - now).total_seconds())
    return min(waits, default=None)


def _fire(connection: Connection, name: str, cron: str, zone: str, settled_at: datetime, now: datetime) -> None:
    due = previous_time(cron, zone, now)
    if due is not None and due > settled_at:
        passed_over = count_times(cron, zone, settled_at, due) - 1
        db.call(connection, "fire_schedule", name, due, passed_over)


def _expected(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    nothing = {"next_at": None, "missed": 0, "missed_for": None}
    if row["is_paused"]:
        return nothing
    try:
        following = next_time(row["cron"], row["zone"], now)
        last = previous_time(row["cron"], row["zone"], now - MISSED_AFTER)
    except ConfigurationError:
        return nothing
    if last is None or last <= row["settled_at"]:
        return nothing | {"next_at": following}
    number = count_times(row["cron"], row["zone"], row["settled_at"], last)
    return {"next_at": following, "missed": number, "missed_for": last}


def check_times(cron: str, zone: str) -> None:
    """Raise ConfigurationError where the expression is none or never comes true, or the time zone is unknown."""
    if next_time(cron, zone, datetime.now(UTC)) is None:
        raise ConfigurationError(f"the cron expression {cron!r} never comes true", "There is no such day.")


def next_time(cron: str, zone: str, after: datetime) -> datetime | None:
    """Return the first time strictly after `after`, in UTC; None where there is none in 50 years.

    It goes by the clock of the zone, as Debian's cron does: where that is put forward, a time of day that is left out
    comes right after; where it is put back, a time of day comes once, and what has `*` as minute or hour goes on.
    Raises ConfigurationError for an expression that is none and for an unknown zone.
    """
    return next(_times(cron, zone, after), None)


def previous_time(cron: str, zone: str, until: datetime) -> datetime | None:
    """Return the last time up to `until`, itself included, in UTC; None where there is none in 50 years."""
    zone_info = _zone(zone)
    start = until
    if until.astimezone(zone_info).utcoffset() != (until - timedelta(hours=3)).astimezone(zone_info).utcoffset():
        # The clock was put forward or back: from behind that, a time of day is found whichever hour it fell in.
        start += timedelta(hours=3)
    # A second more: the simulation gives what is strictly before.
    start = (start + timedelta(seconds=1)).astimezone(zone_info).replace(microsecond=0)
    found = (time.astimezone(UTC) for time in _simulate(cron, start, reverse=True))
    return next((time for time in found if time <= until), None)


def count_times(cron: str, zone: str, after: datetime, until: datetime) -> int:
    """Return how many times lie after `after` and not after `until`, at most MOST_MISSED."""
    times = takewhile(lambda time: time <= until, _times(cron, zone, after))
    return sum(1 for _ in islice(times, MOST_MISSED))


def _times(cron: str, zone: str, after: datetime) -> Iterator[datetime]:
    """Return the times after `after`, in UTC and in order."""
    found = (time.astimezone(UTC) for time in _simulate(cron, after.astimezone(_zone(zone))))
    # Where the clock was put back, the simulation can begin with a time of day whose first hour is over.
    return (time for time in found if time > after)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"there is no time zone named {name!r}", "Write a name such as UTC or Europe/Prague."
        ) from None


def _simulate(cron: str, start: datetime, *, reverse: bool = False) -> CronSim:
    """Return the times in `start`'s zone, one after the other; with seconds, an expression is refused."""
    if len(cron.split()) == 6:
        raise ConfigurationError(f"the cron expression {cron!r} has six fields", f"{_FORM} There are no seconds.")
    try:
        return CronSim(cron, start, reverse=reverse)
    except CronSimError as error:
        reason = str(error)[:1].lower() + str(error)[1:]
        raise ConfigurationError(f"{cron!r} is no cron expression: {reason}", _FORM) from None
