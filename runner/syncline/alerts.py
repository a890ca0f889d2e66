"""Tells people what goes wrong, once, and when it is well again: incidents of the database, sent through apprise."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from syncline import db, schedules
from syncline.config import Project, model_names, parse_duration
from syncline.errors import ConfigurationError, SynclineError
from syncline.notices import Notice, describe, moment, span

if TYPE_CHECKING:
    from apprise.plugins.base import NotifyBase

LOST_SECONDS = 60.0
"""A database that is back sooner was no incident."""

LONGEST_PAUSE = 3600.0

_SEPARATOR = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")


@dataclass(frozen=True, slots=True)
class Target:
    """One address that messages go to; `digest` stands for it where the address, which is secret, must not be."""

    number: int
    digest: str
    notifier: NotifyBase

    def send(self, notice: Notice) -> bool:
        """Send the message; return whether it was taken. Raises nothing."""
        from apprise import NotifyFormat, NotifyType

        kind = NotifyType.SUCCESS if notice.is_over else NotifyType.WARNING
        try:
            return bool(
                self.notifier.notify(
                    body=notice.body, title=notice.title, notify_type=kind, body_format=NotifyFormat.TEXT
                )
            )
        except Exception:
            # Whatever a service does, no worker ends of it.
            return False


class Alerts:
    """Looks for incidents and sends what is due. Raises ConfigurationError for an address that makes no sense."""

    def __init__(self, project: Project, *, lost_seconds: float = LOST_SECONDS) -> None:
        self._project = project
        self._place = place_of(project)
        self._targets = read_targets(project)
        self._loss = _Loss(self._place, self._targets, lost_seconds)
        self._log = structlog.get_logger("syncline.alerts")

    def check(self, connection: db.Connection) -> None:
        """Open and close incidents by what the tables say, and send what is due.

        A message that cannot be sent is tried again later. Raises DatabaseError.
        """
        self._loss.tell_recovery()
        missed = [{**row, "scheduled_for": row["scheduled_for"].isoformat()} for row in schedules.missed(connection)]
        bounds = json.dumps(bounds_of(self._project))
        db.call(connection, "check_incidents", p_bounds=bounds, p_missed=json.dumps(missed))
        if self._targets:
            self._send_due(connection)

    def database_lost(self, error: SynclineError) -> None:
        """Note that the database cannot be reached; once it could not for LOST_SECONDS, tell of it."""
        self._loss.note(self._project.mask(error.message))

    def database_back(self) -> None:
        """Note that the database can be reached; tell of it where its loss was told."""
        self._loss.end()

    def _send_due(self, connection: db.Connection) -> None:
        repeat = self._project.alerts.repeat_after
        failing: set[str] = set()
        for incident in db.call(connection, "claim_notices", parse_duration(repeat) if repeat else None):
            notice = describe(self._place, incident)
            told = set(incident["told"])
            for target in self._targets:
                if target.digest in told | failing:
                    continue
                (told if target.send(notice) else failing).add(target.digest)
            waiting = [target.number for target in self._targets if target.digest not in told]
            db.call(connection, "finish_notice", incident["incident_id"], incident["notice"], sorted(told), not waiting)
            ids = {name: incident[name] for name in ("incident_id", "kind", "subject", "notice")}
            if waiting:
                self._log.warning("alert_failed", **ids, addresses=waiting)
            else:
                self._log.info("alert_sent", **ids)


class _Loss:
    """The loss of the database, which no table can hold: kept in the process, told once."""

    def __init__(self, place: str, targets: list[Target], lost_seconds: float) -> None:
        self._place = place
        self._targets = targets
        self._lost_seconds = lost_seconds
        self._began: tuple[float, datetime] | None = None
        self._told: set[str] = set()
        self._recovery: Notice | None = None
        self._tries = 0
        self._try_at = 0.0

    def note(self, message: str) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = (now, datetime.now(UTC))
        if now - self._began[0] < self._lost_seconds:
            return
        if self._recovery is not None:
            # It went again before all had heard that it was back.
            self._recovery, self._told = None, set()
            self._pause(0)
        body = [
            f"{message} (seen from {socket.gethostname()})",
            f"Open since {moment(self._began[1])}.",
            "Next: start it, or look at the network: `syncline doctor`. Workers go on by themselves.",
        ]
        notice = Notice(f"{self._place}: the database cannot be reached", "\n".join(body))
        self._told |= self._send(notice, [target for target in self._targets if target.digest not in self._told])

    def end(self) -> None:
        if self._began is None:
            return
        lasted = span(time.monotonic() - self._began[0])
        body = f"It could not be reached since {moment(self._began[1])}, for {lasted}, from {socket.gethostname()}."
        self._began = None
        if self._told:
            self._recovery = Notice(f"{self._place}: recovered: the database can be reached", body, is_over=True)
            self._pause(0)
            self.tell_recovery()

    def tell_recovery(self) -> None:
        """Send what is left to say of a loss that is over, to those who were told of it."""
        if self._recovery is None:
            return
        self._told -= self._send(self._recovery, [target for target in self._targets if target.digest in self._told])
        if not self._told:
            self._recovery = None
            self._pause(0)

    def _send(self, notice: Notice, targets: list[Target]) -> set[str]:
        """Send to these, unless the pause after the last try is not over; return the digests of those who have it."""
        if not targets or time.monotonic() < self._try_at:
            return set()
        self._pause(self._tries + 1)
        return {target.digest for target in targets if target.send(notice)}

    def _pause(self, tries: int) -> None:
        self._tries = tries
        self._try_at = time.monotonic() + min(LONGEST_PAUSE, 15.0 * 2**tries) if tries else 0.0


def bounds_of(project: Project) -> dict[str, Any]:
    """Return what `check_incidents` measures by: seconds and shares; what is not watched is null or not there."""
    alerts = project.alerts
    stale = alerts.stale_bounds(model_names(project.root))
    return {
        "slower_than": parse_duration(alerts.slower_than).total_seconds() if alerts.slower_than else None,
        "error_ratio": alerts.error_ratio,
        "stale_after": {name: bound.total_seconds() for name, bound in stale.items()},
    }


def place_of(project: Project) -> str:
    """Return where an incident is, for titles: the project and its target."""
    return f"Syncline {project.name} ({project.target})"


def read_targets(project: Project) -> list[Target]:
    """Return what SYNCLINE_ALERT_URLS names; raises ConfigurationError naming the place of one that makes no sense."""
    given = project.environment.get("SYNCLINE_ALERT_URLS", "").strip(" \t\r\n,")
    return [_target(number, url) for number, url in enumerate(_split(given), start=1)]


def send_test(project: Project) -> dict[int, bool]:
    """Send a test message to each address; return whether it was taken, by the address' place in the setting."""
    body = f"This is a test, sent from {socket.gethostname()} at {moment(datetime.now(UTC))}. Nothing is wrong."
    notice = Notice(f"{place_of(project)}: a test", body, is_over=True)
    return {target.number: target.send(notice) for target in read_targets(project)}


def open_incidents(connection: db.Connection) -> Iterable[Mapping[str, Any]]:
    """Return what is wrong at the moment, oldest first."""
    with db.translated():
        return connection.execute("select * from syncline.open_incidents order by incident_id").fetchall()


def _split(given: str) -> list[str]:
    return [url.strip(" \t\r\n,") for url in _SEPARATOR.split(given)] if given else []


def _target(number: int, url: str) -> Target:
    import logging

    from apprise import Apprise

    # It writes addresses, and what services answer, to its log.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    notifier = Apprise.instantiate(url)
    if notifier is None:
        raise ConfigurationError(
            f"SYNCLINE_ALERT_URLS: apprise does not know what address {number} is",
            "Write it as https://appriseit.com/services/ shows for your service; `syncline alerts test` tries it.",
        )
    return Target(number, hashlib.sha256(url.encode()).hexdigest()[:16], notifier)
