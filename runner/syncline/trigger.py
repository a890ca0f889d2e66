"""Asks a Syncline elsewhere, through its API, for a run, and follows that run to its end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from syncline.errors import ConfigurationError, RefusedError, RunError, SynclineError

PATH = "/api/v1"
"""Where the API is at an address, which may be given with it or without."""

ENDED = frozenset({"succeeded", "failed", "cancelled", "abandoned"})

# Another address, or the same one later, may answer these; every other 4xx says the same everywhere.
_TRY_ELSEWHERE = frozenset({408, 425, 429})
_LONGEST_PAUSE = 30.0

OnChange = Callable[[datetime, str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the run is asked to do. No sources mean all that are declared there."""

    sources: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    dry_run: bool = False
    full_refresh: bool = False
    triggered_by: str | None = None

    def as_json(self) -> dict[str, Any]:
        wanted = {
            "sources": list(self.sources),
            "entities": list(self.entities),
            "dry_run": self.dry_run,
            "full_refresh": self.full_refresh,
            "triggered_by": self.triggered_by,
        }
        return {name: value for name, value in wanted.items() if value}


@dataclass(slots=True)
class Triggered:
    """A run that was asked for: where, its newest report, and when it was first seen in each status."""

    url: str
    report: dict[str, Any]
    statuses: list[dict[str, str]] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.report["status"] in ENDED

    def as_json(self) -> dict[str, Any]:
        return {**self.report, "url": self.url, "statuses": self.statuses}


def read_addresses(text: str) -> list[str]:
    """Return the addresses in a comma-separated list, each without /api/v1 at its end; raises ConfigurationError."""
    addresses = [part.strip().rstrip("/").removesuffix(PATH) for part in text.split(",") if part.strip()]
    if not addresses:
        raise ConfigurationError("there is no address", "Give the API's: https://sync.example.com")
    for number, address in enumerate(addresses, 1):
        which = "what is given" if len(addresses) == 1 else f"address {number}"
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ConfigurationError(f"{which} is no address of an API", "Write https://host, with a path or none.")
        if url.userinfo:
            raise ConfigurationError(
                f"{which} holds a user or password", "Give the token in SYNCLINE_TOKEN, and the bare address."
            )
    return addresses


class Client:
    """Speaks to the API at any of several addresses of one installation: the first that answers."""

    def __init__(self, addresses: Iterable[str], token: str, *, timeout: float = 30) -> None:
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigurationError("the token has characters that no token has", "Copy it again, without line ends.")
        self._addresses = list(addresses)
        self._http = httpx.Client(timeout=timeout, headers={"Authorization": f"Bearer {token}"})

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def trigger(self, wanted: Wanted) -> Triggered:
        """Ask for a run at the first address that answers.

        Raises ConfigurationError or RefusedError where one refuses the request, RunError where none answers.
        """
        # The same id at each address: where an answer was lost, the log shows both as one request.
        headers = {"X-Request-Id": str(uuid.uuid4())}
        url, report = self._ask("POST", f"{PATH}/runs", json=wanted.as_json(), headers=headers)
        return Triggered(url, report)

    def follow(self, run: Triggered, on_change: OnChange, *, interval: float, timeout: float) -> None:
        """Ask for the run every `interval` seconds until it has ended; `on_change` gets each status and step as text.

        Outages are waited out, too. Raises RunError where the run has not ended after `timeout` seconds.
        """
        until = time.monotonic() + timeout
        seen: dict[str, str] = {}
        is_out = False
        while True:
            _note_changes(run, seen, on_change)
            if run.has_ended:
                return
            if time.monotonic() + interval > until:
                raise RunError(
                    f"run {run.report['run_id']} is still {run.report['status']} after {timeout:g} s",
                    "It goes on there: give --timeout more seconds.",
                )
            time.sleep(interval)
            try:
                run.url, run.report = self._ask("GET", f"{PATH}/runs/{run.report['run_id']}")
                is_out = False
            except UnreachableError as error:
                if not is_out:
                    on_change(datetime.now(UTC), error.message)
                is_out = True

    def _ask(self, method: str, path: str, **options: Any) -> tuple[str, dict[str, Any]]:
        failures = []
        for address in list(self._addresses):
            try:
                answer = self._http.request(method, address + path, **options)
                if answer.status_code == 429:
                    time.sleep(_pause(answer))
                    answer = self._http.request(method, address + path, **options)
            except httpx.HTTPError as error:
                failures.append(f"{address}: {_describe(error)}")
                continue
            if answer.is_server_error or answer.status_code in _TRY_ELSEWHERE:
                failures.append(f"{address}: answers {answer.status_code}{_detail(answer)}")
                continue
            # The one that answers is asked first from here on.
            self._addresses = [address, *(other for other in self._addresses if other != address)]
            return address, _read(address, answer)
        raise UnreachableError("nobody answers: " + "; ".join(failures), "Check the addresses, and that the API runs.")


class UnreachableError(RunError):
    """None of the addresses gave an answer: they may later."""


def _read(address: str, answer: httpx.Response) -> dict[str, Any]:
    """Return the run's report; raises where the answer is a refusal, or none of this API."""
    if answer.is_success:
        report = _json(answer)
        if isinstance(report.get("run_id"), int) and isinstance(report.get("status"), str):
            return report
    elif answer.is_client_error:
        raise _refusal(address, answer)
    raise ConfigurationError(
        f"{address} answers {answer.status_code} with no report of a run",
        "Give the address that `syncline serve` is reached at.",
    )


def _refusal(address: str, answer: httpx.Response) -> SynclineError:
    message = f"{address} refuses ({answer.status_code}){_detail(answer)}"
    hint = _json(answer).get("hint")
    if answer.status_code == 409:
        return RefusedError(message, hint)
    if answer.status_code in (401, 403):
        hint = hint or "Set SYNCLINE_TOKEN to a token with the role operator: `syncline token create`."
    if answer.status_code == 404:
        hint = hint or "Give the address that `syncline serve` is reached at."
    return ConfigurationError(message, hint)


def _detail(answer: httpx.Response) -> str:
    """Return what a problem document says; what is no such document is not repeated."""
    problem = _json(answer)
    text = problem.get("detail") or problem.get("title")
    return f": {text}" if isinstance(text, str) else ""


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _pause(answer: httpx.Response) -> float:
    """Return how many seconds a busy server asks to wait, within reason."""
    seconds = answer.headers.get("Retry-After", "")
    return min(float(seconds), _LONGEST_PAUSE) if seconds.isdecimal() else 1.0


def _describe(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error).strip() or type(error).__name__


def _note_changes(run: Triggered, seen: dict[str, str], on_change: OnChange) -> None:
    now = datetime.now(UTC)
    status = run.report["status"]
    # A run that ends between two looks shows its steps first, as it went.
    if seen.get("") != status and status not in ENDED:
        _note_status(run, now, seen, on_change)
    steps: list[Mapping[str, Any]] = run.report.get("steps") or []
    for step in steps:
        if seen.get(step["name"]) != step["status"]:
            seen[step["name"]] = step["status"]
            on_change(now, f"{step['name']} {step['status']}")
    if seen.get("") != status:
        _note_status(run, now, seen, on_change)


def _note_status(run: Triggered, now: datetime, seen: dict[str, str], on_change: OnChange) -> None:
    status = seen[""] = run.report["status"]
    run.statuses.append({"status": status, "at": now.isoformat()})
    on_change(now, status)
