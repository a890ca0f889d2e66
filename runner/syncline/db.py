"""Connects to Postgres and turns its errors into Syncline's, with no value of a record in their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_loads

from syncline.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailableError,
    LockedError,
    LostClaimError,
    MissingRightsError,
    RefusedError,
    RunError,
    SynclineError,
)

Connection = psycopg.Connection[DictRow]

# Several times quicker than the standard library's, which reports and log events are read with by the thousand.
set_json_loads(msgspec.json.decode)

OLDEST_SERVER, NEWEST_SERVER = 15, 18

# The texts of these classes of SQLSTATE can quote values; those of the others name objects only.
CLASSES_WITH_VALUES = frozenset({"22", "23", "P0", "XX"})

SESSION: dict[str, Any] = {"autocommit": True, "row_factory": dict_row, "prepare_threshold": None}
"""How every session of ours is opened, whether alone or in a pool."""

# Nobody is there, or there is no room: the same may be asked again later.
UNAVAILABLE = frozenset({"53300", "57P01", "57P02", "57P03"})

MISSING_RIGHTS = "42501"

_KEEPALIVES = {"idle": 15, "interval": 5, "count": 3}

_HINTS = {
    "53100": "The disk is full: free some space, then run again.",
    "28P01": "Check user and password in DATABASE_URL.",
    "28000": "Check user and password in DATABASE_URL.",
    "3D000": "Create the database, or check its name in DATABASE_URL.",
    "42501": "Let the owner grant it: select syncline.grant_roles(owner, runner, reader); docs/how-to/production.md.",
    "57P01": "The database was shut down in the middle: run again once it is up.",
    "57P02": "The database crashed in the middle: run again once it is up.",
}


def connect(dsn: str, *, run: tuple[int, int] | None = None, timeout: int = 10, name: str | None = None) -> Connection:
    """Open a connection, in autocommit mode; transactions are opened with `connection.transaction()`.

    `run` is (run id, attempt) of the run it works for: every function that writes then first shows that the run is
    still its own. `name` is what the server calls the session. Raises ConfigurationError where the address is wrong,
    DatabaseError where nobody answers.
    """
    with translated():
        connection = psycopg.Connection[DictRow].connect(
            session_dsn(dsn, run=run, timeout=timeout, name=name), **SESSION
        )
    check_server(connection)
    return connection


def session_dsn(dsn: str, *, run: tuple[int, int] | None = None, timeout: int = 10, name: str | None = None) -> str:
    """Return the connection string of a session of ours: times in UTC and ISO style, its name, and its run.

    Raises ConfigurationError where the address is wrong.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "DATABASE_URL is no connection string", "Write postgresql://user:password@host:5432/database."
        ) from None
    # psycopg reads times in ISO style alone, and a database may say otherwise.
    options = [str(given.get("options") or ""), "-c TimeZone=UTC", "-c DateStyle=ISO,YMD", "-c IntervalStyle=postgres"]
    options += session_options(run)
    # A peer that is gone without a word is noticed within 30 seconds, here as there.
    options += [f"-c tcp_keepalives_{setting}={value}" for setting, value in _KEEPALIVES.items()]
    for setting, value in _KEEPALIVES.items():
        given.setdefault(f"keepalives_{setting}", value)
    given.setdefault("connect_timeout", timeout)
    name = name or (None if run is None else f"syncline run {run[0]}")
    # Workers and runs are found by their names, whatever the address says.
    given["application_name"] = name or given.get("application_name") or "syncline"
    given["options"] = " ".join(filter(None, options))
    return make_conninfo("", **given)


def session_options(run: tuple[int, int] | None) -> list[str]:
    """Return the settings of every session of a run or of none, dbt's too, as libpq's `options` take them."""
    options = [
        # A session whose client is gone must not work on: it would hold the run's row and its locks.
        "-c client_connection_check_interval=1s",
        # Plans of many small steps look dear, and would be compiled for longer than they run.
        "-c jit=off",
    ]
    return options if run is None else [*options, f"-c syncline.run_id={run[0]}", f"-c syncline.attempt={run[1]}"]


def check_server(connection: Connection) -> None:
    """Close the connection and raise ConfigurationError where the server is not supported or a pooler is in between."""
    major = connection.info.server_version // 10000
    if not OLDEST_SERVER <= major <= NEWEST_SERVER:
        connection.close()
        raise ConfigurationError(
            f"the server is Postgres {major}", f"Syncline works with Postgres {OLDEST_SERVER} to {NEWEST_SERVER}."
        )
    # The server reports this setting by itself, and hardly one has it as its default: it shows that ours came through.
    if connection.info.parameter_status("DateStyle") != "ISO, YMD":
        connection.close()
        raise pooler_error("drops the settings of a session")


def pooler_error(what: str) -> ConfigurationError:
    """Return the error for a pooler that does this: locks and settings of a session get lost in it."""
    return ConfigurationError(
        f"DATABASE_URL leads to a pooler (such as PgBouncer), which {what}",
        "Give the address of Postgres itself: with a pooler in between, two workers could work one run.",
    )


def call(connection: Connection, function: str, *arguments: Any, **named: Any) -> list[DictRow]:
    """Call a function of the control plane and return its rows; errors are translated."""
    with translated():
        return connection.execute(_calling(function, arguments, named), (*arguments, *named.values())).fetchall()


def call_exact(connection: Connection, function: str, *arguments: Any, **named: Any) -> list[DictRow]:
    """As `call`, with JSON as the text that it is: a numeric must not lose digits on its way through a float."""
    with translated(), connection.cursor() as cursor:
        set_json_loads(msgspec.Raw, cursor)
        return cursor.execute(_calling(function, arguments, named), (*arguments, *named.values())).fetchall()


def _calling(function: str, arguments: Iterable[Any], named: Iterable[str]) -> LiteralString:
    places = ", ".join(["%s" for _ in arguments] + [f"{name} => %s" for name in named])
    return f"select * from syncline.{function}({places})"  # noqa: S608


def call_value(connection: Connection, function: str, *arguments: Any, **named: Any) -> Any:
    """Call a function of the control plane that gives one value."""
    rows = call(connection, function, *arguments, **named)
    return next(iter(rows[0].values())) if rows else None


@contextmanager
def translated() -> Iterator[None]:
    """Raise what psycopg raises inside as a SynclineError."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from None


def translate(error: psycopg.Error) -> SynclineError:
    """Return the error in Syncline's words. States SYnxx are our own: n is the exit code."""
    state = error.sqlstate
    message = (error.diag.message_primary or "").strip()
    if state is None and "unsupported startup parameter" in str(error):
        return pooler_error("refuses the settings of a session")
    if state is None:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        what = "refuses the connection" if "FATAL:" in said else "does not answer"
        return DatabaseUnavailableError(
            f"the database {what}: {said}",
            "Check that it runs and that DATABASE_URL is right: `syncline doctor`.",
        )
    if state.startswith("SY"):
        kinds: dict[str, type[SynclineError]] = {"1": RunError, "2": ConfigurationError, "3": RefusedError}
        kind = LostClaimError if state == "SY101" else kinds[state[2]]
        return kind(message, error.diag.message_hint)
    if state in ("55P03", "40P01"):  # a deadlock ends by trying again, too
        return LockedError("a lock could not be had in time", "Try again.")
    if state[:2] in CLASSES_WITH_VALUES:
        place = ".".join(filter(None, [error.diag.schema_name, error.diag.table_name, error.diag.constraint_name]))
        message = f"a value was refused{' by ' + place if place else ''}"
    kind = DatabaseUnavailableError if state in UNAVAILABLE or state[:2] == "08" else DatabaseError
    if state == MISSING_RIGHTS:
        kind = MissingRightsError
    return kind(f"the database refused (SQLSTATE {state}): {message}", _HINTS.get(state))
