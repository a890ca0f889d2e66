"""Writes what happens to standard error: JSON lines for programs, readable lines for people, no secrets in either."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from syncline import db
from syncline.config import Project
from syncline.errors import ConfigurationError, SynclineError

FORMATS = ("json", "text")
LEVELS = ("debug", "info", "warning", "error")

PROGRESS_SECONDS = 10.0
"""How often a stream's progress is a line, at most."""

FRAMES = 8
"""How many places of an error's way are shown, the innermost last."""

# They name addresses with their queries at these levels, and apprise answers of others.
_QUIET = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    # Its warnings name addresses too.
    "urllib3": logging.ERROR,
    "requests": logging.WARNING,
    "requests_oauthlib": logging.WARNING,
    "oauthlib": logging.WARNING,
    "charset_normalizer": logging.WARNING,
    "apprise": logging.CRITICAL + 1,
}

Change = Callable[[str], str]

_prune_lock = threading.Lock()
_pruned_at: dict[str, float] = {}


def configure(
    *, as_json: bool | None = None, mask: Change | None = None, environment: Mapping[str, str] | None = None
) -> bool:
    """Send structlog's and logging's events, uvicorn's too, to standard error, one line each; return whether in JSON.

    JSON where `as_json` or SYNCLINE_LOG_FORMAT says so, or where standard error is no terminal. SYNCLINE_LOG_LEVEL
    says which. `mask` takes secrets out of texts. Raises ConfigurationError for a format or a level that there is not.
    """
    given = os.environ if environment is None else environment
    form = _choice("SYNCLINE_LOG_FORMAT", given, FORMATS, "text" if sys.stderr.isatty() else "json")
    level = getattr(logging, _choice("SYNCLINE_LOG_LEVEL", given, LEVELS, "info").upper())
    is_json = form == "json" if as_json is None else as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _place_errors,
        _Masking(mask),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
        if is_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[_on_one_line, *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # The API writes a line for each request itself, without the query.
    logging.getLogger("uvicorn.access").disabled = True
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, quiet))
    return is_json


def prune_daily(connection: db.Connection, project: Project) -> int:
    """Prune once a day in each process; return the number of log events."""
    now, place = time.monotonic(), str(project.root)
    with _prune_lock:
        if now - _pruned_at.get(place, -float("inf")) < 24 * 3600:
            return 0
        pruned = prune(connection, project)["log_events"]
        # Only now: what failed is tried again with the next look.
        _pruned_at[place] = now
    return pruned


def prune(connection: db.Connection, project: Project) -> dict[str, int]:
    """Delete log events, closed row errors, changes and closed conflicts that are older than the project keeps them.

    Return how many of each.
    """
    ages = {
        "log_events": ("prune_log", project.keep_log),
        "row_errors": ("prune_errors", project.keep_errors),
        "changes": ("prune_changes", project.keep_changes),
        "conflicts": ("prune_conflicts", project.keep_changes),
    }
    return {name: db.call_value(connection, function, age) for name, (function, age) in ages.items()}


class LogWatcher:
    """Writes what a run, given as its row, does: log events that carry its ids."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        ids = {name: run[name] for name in ("run_id", "request_id", "triggered_by")}
        self._log = structlog.get_logger("syncline.run").bind(**ids)
        self._lock = threading.Lock()
        self._progress: dict[str, float] = {}

    def event(self, level: str, name: str, detail: Mapping[str, Any]) -> None:
        if name == "sync_start":
            # Of a run that was requested only now.
            self._log = self._log.bind(run_id=detail["run_id"])
        self._log.log(getattr(logging, level.upper()), name, **detail)

    def waiting(self, blocking: list[int]) -> None:
        self._log.info("run_waiting", blocking=blocking)

    def step(self, name: str) -> None:
        self._log.info("step", step=name)

    def stream_progress(self, label: str, records: int) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._progress.setdefault(label, now) < PROGRESS_SECONDS:
                return
            self._progress[label] = now
        self._log.info("stream_progress", stream=label, records=records)

    def stream_done(self, label: str, load: Mapping[str, Any]) -> None:
        pass  # the event stream_loaded says it

    def entities(self, names: list[str]) -> None:
        self._log.info("entities", entities=names)

    def entity(self, name: str, status: str) -> None:
        if status != "building":
            self._log.log(logging.ERROR if status == "failed" else logging.INFO, f"entity_{status}", entity=name)

    def note(self, text: str) -> None:
        self._log.info("note", message=text)


class _Masking:
    """Takes secrets out of every text of an event, however deep."""

    def __init__(self, mask: Change | None) -> None:
        self._mask = mask

    def __call__(self, _: Any, __: str, event: EventDict) -> EventDict:
        if self._mask is None:
            return event
        return {name: value if name.startswith("_") else self._masked(value) for name, value in event.items()}

    def _masked(self, value: Any) -> Any:
        assert self._mask is not None
        if isinstance(value, str):
            return self._mask(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {str(key): self._masked(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._masked(item) for item in value]
        return self._mask(str(value))


def _on_one_line(_: Any, __: str, event: EventDict) -> EventDict:
    """Join the lines of what others say, such as psycopg's pool."""
    if isinstance(event["event"], str):
        event["event"] = " ".join(event["event"].split())
    return event


def _place_errors(_: Any, __: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and its way: the words of an error that is not ours may quote values."""
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    error = _exception(given)
    if error is None:
        return event
    event["error"] = type(error).__name__
    if isinstance(error, SynclineError):
        event["error_message"] = error.message
    event["at"] = _places(error.__traceback__)
    return event


def _exception(given: Any) -> BaseException | None:
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1] if isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def _choice(name: str, given: Mapping[str, str], known: tuple[str, ...], default: str) -> str:
    value = given.get(name, "").strip().lower() or default
    if value not in known:
        raise ConfigurationError(f"{name} is {value!r}", f"It may be {', '.join(known)}.")
    return value
