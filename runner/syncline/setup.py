"""Takes a project from configured to running by itself: its schedule and its first run. May be repeated."""

from __future__ import annotations

import re
from dataclasses import dataclass

from syncline import control, db, schedules
from syncline.errors import ConfigurationError

NAME = "default"
"""The schedule that set-up makes: of all sources."""

USUAL_CRON = "0 */6 * * *"

_EVERY = re.compile(r"(\d{1,4})\s*([mhd])")
_STEPS = {"m": (60, "*/{0} * * * *"), "h": (24, "0 */{0} * * *")}


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The schedule as it is now: what was done to it (made, changed, unchanged), and who fires it."""

    done: str
    cron: str
    fired_by: str


def cron_of(every: str) -> str:
    """Return the cron expression for `15m`, `6h` or `1d`; raises ConfigurationError where none says that evenly."""
    match = _EVERY.fullmatch(every.strip())
    number, unit = (int(match.group(1)), match.group(2)) if match else (0, "")
    if (number, unit) in ((1, "d"), (24, "h")):
        return "0 0 * * *"
    if (number, unit) in ((1, "h"), (60, "m")):
        return "0 * * * *"
    if unit in _STEPS:
        whole, form = _STEPS[unit]
        if 0 < number < whole and whole % number == 0:
            return "* * * * *" if (number, unit) == (1, "m") else form.format(number)
    raise ConfigurationError(
        f"every {every!r} is no time that a schedule can keep",
        "Write minutes that make an hour (5m, 15m, 30m), hours that make a day (1h, 6h, 12h), 1d, or --cron.",
    )


def make_schedule(connection: db.Connection, cron: str | None, created_by: str) -> Scheduled:
    """Make the schedule, or give it these times; without `cron` one that is there keeps its own.

    Raises ConfigurationError where the expression is none.
    """
    known = {row["name"]: row for row in schedules.list_schedules(connection)}.get(NAME)
    if known is None:
        made = cron or USUAL_CRON
        fired_by = schedules.create_schedule(connection, NAME, made, created_by=created_by)
        return Scheduled("made", made, fired_by)
    if cron is None or cron == known["cron"]:
        return Scheduled("unchanged", known["cron"], known["fired_by"])
    return Scheduled("changed", cron, schedules.set_schedule(connection, NAME, cron=cron))


def needs_first_run(connection: db.Connection) -> bool:
    """Return whether no run has succeeded yet."""
    return not db.call(connection, "run_reports", 1, ["succeeded"])


def count_workers(connection: db.Connection) -> int:
    """Return how many workers are connected to the database."""
    workers: int = db.call_value(connection, "production_facts")["workers"]
    return workers


def request_first_run(connection: db.Connection, requested_by: str) -> int:
    """Ask the workers for a run of all sources; return its number."""
    return control.request_run(connection, [], [], {}, "cli", requested_by)
