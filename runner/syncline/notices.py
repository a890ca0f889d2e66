"""What messages say of an incident: what, where, since when, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Notice:
    """One message: a title of one line, and a text."""

    title: str
    body: str
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class _Words:
    """How a kind of incident is told of; the functions take its subject and detail."""

    opened: Callable[[str, Mapping[str, Any]], str]
    facts: Callable[[str, Mapping[str, Any]], str]
    following: Callable[[str, Mapping[str, Any]], str]
    closed: Callable[[str, Mapping[str, Any]], str]


def describe(place: str, incident: Mapping[str, Any]) -> Notice:
    """Return the message on an incident as `claim_notices` gives it: opened, repeated or closed."""
    words = _KINDS[incident["kind"]]
    subject, detail = incident["subject"], incident["detail"]
    since = f"since {moment(incident['opened_at'])}"
    if incident["notice"] == "closed":
        lasted = span((incident["closed_at"] - incident["opened_at"]).total_seconds())
        title = f"{place}: recovered: {words.closed(subject, detail)}"
        return Notice(title, f"{words.opened(subject, detail)}: {since}, for {lasted}.", is_over=True)
    still = "still: " if incident["notice"] == "repeated" else ""
    body = [words.facts(subject, detail), f"Open {since}.", f"Next: {words.following(subject, detail)}"]
    return Notice(f"{place}: {still}{words.opened(subject, detail)}", "\n".join(body))


def headline(kind: str, subject: str, detail: Mapping[str, Any]) -> str:
    """Return an incident in one line."""
    return _KINDS[kind].opened(subject, detail)


def moment(value: str | datetime | None) -> str:
    """Return a time in UTC, to the second."""
    if value is None:
        return "an unknown time"
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(seconds: float) -> str:
    """Return a time span in its two largest units."""
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    left = round(seconds)
    parts: list[str] = []
    for name, size in units:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def _failed(_: str, detail: Mapping[str, Any]) -> str:
    tried = f" after {detail['attempts']} attempts" if detail["attempts"] > 1 else ""
    what = "failed" if detail["status"] == "failed" else "was lost with the process that worked it"
    said = f": {detail['message']}" if detail["message"] else "."
    return f"Run {detail['run_id']} {what} at {moment(detail['at'])}{tried}{said}"


def _slow(_: str, detail: Mapping[str, Any]) -> str:
    took = "has been running for" if detail["status"] == "running" else "took"
    return (
        f"Run {detail['run_id']}, begun at {moment(detail['at'])}, {took} {span(detail['seconds'])}: "
        f"longer than {span(detail['bound'])}."
    )


def _erring(_: str, detail: Mapping[str, Any]) -> str:
    return (
        f"{detail['bad']:,} of {detail['live']:,} records ({detail['ratio']:.1%}) have row errors: "
        f"more than {detail['bound']:.1%}."
    )


def _missed(_: str, detail: Mapping[str, Any]) -> str:
    said = f": {detail['message']}" if detail.get("message") else "."
    return f"It was due at {moment(detail['at'])}, and nothing asked for its run{said}"


_KINDS = {
    "run_failed": _Words(
        opened=lambda subject, _: f"the run of {subject} failed",
        facts=_failed,
        following=lambda _, detail: detail["hint"] or "Look at `syncline runs`, then run again.",
        closed=lambda subject, _: f"{subject} was synced",
    ),
    "run_slow": _Words(
        opened=lambda subject, _: f"the run of {subject} is slow",
        facts=_slow,
        following=lambda *_: "`syncline runs --json` has the time of each step.",
        closed=lambda subject, _: f"{subject} was synced in time",
    ),
    "error_ratio": _Words(
        opened=lambda subject, _: f"many records of {subject} have errors",
        facts=_erring,
        following=lambda subject, detail: (
            f"`syncline errors --{'entity' if detail['is_entity'] else 'stream'} {subject}` shows them."
        ),
        closed=lambda subject, _: f"few records of {subject} have errors",
    ),
    "stale_entity": _Words(
        opened=lambda subject, _: f"{subject} is stale",
        facts=lambda subject, detail: (
            f"The sources of {subject} were last asked, with success, at {moment(detail['at'])}: "
            f"longer ago than {span(detail['bound'])}."
        ),
        following=lambda *_: "Look at `syncline runs` and `syncline status`, and whether a worker runs.",
        closed=lambda subject, _: f"{subject} is fresh",
    ),
    "missed_schedule": _Words(
        opened=lambda subject, _: f"the schedule {subject} was missed",
        facts=_missed,
        following=lambda *_: "Look at `syncline schedule list`, and whether a worker, or pg_cron, runs.",
        closed=lambda subject, _: f"the schedule {subject} is fired",
    ),
    "token_expiring": _Words(
        opened=lambda subject, _: f"the token {subject} expires soon",
        facts=lambda subject, detail: f"It ends at {moment(detail['at'])}; its role is {detail['role']}.",
        following=lambda subject, detail: (
            f"`syncline token create NEW --role {detail['role']} --replace {subject} --overlap 24h`, "
            "and give the new one to who uses it."
        ),
        closed=lambda subject, _: f"the token {subject} was renewed, or has ended",
    ),
}
