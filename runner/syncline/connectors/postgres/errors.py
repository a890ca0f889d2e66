"""Says what another Postgres refused, by SQLSTATE: its texts may quote values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from syncline.db import CLASSES_WITH_VALUES
from syncline.errors import SourceError, SourceUnavailableError

# A connection that is refused has no SQLSTATE in libpq, only a text.
_SIGNS = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("pg_hba.conf", "28000"),
    ('FATAL:  role "', "28000"),
    ('FATAL:  database "', "3D000"),
)

# By SQLSTATE or its class, the longer first: whether it may pass, what happened ({} is the server's text), what to do.
_KNOWN = {
    "": (True, "the database does not answer: {}", "Check that it runs and that the source's `dsn` is right."),
    "28": (False, "the database refused the user or its password", "Check the source's `dsn`."),
    "3D000": (False, "there is no such database", "Check the source's `dsn`."),
    "42P01": (False, "there is no such table", "Was it dropped or renamed? Check `table` and `schema`."),
    "42703": (False, "{}", "Was it dropped or renamed? Check `columns`, `incremental` and `key`."),
    "42501": (False, "{}", "Grant the source's user the right to select."),
    "57014": (False, "a statement took longer than allowed", "Raise `statement_timeout`, or read less at a time."),
    "55P03": (True, "a lock could not be had in time", "Somebody changes the table: run again later."),
    "40001": (
        True,
        "the replica cancelled the query, which stood in the way of what it has to replay",
        "Run again; hot_standby_feedback or a longer max_standby_streaming_delay on the replica prevents it.",
    ),
    "08": (True, "the connection was lost", "Run again."),
    "53": (True, "the database is short of resources (SQLSTATE {state})", "Run again later."),
    "57": (True, "the database ended the session (SQLSTATE {state})", "Run again."),
    "22": (
        False,
        "a value was refused (SQLSTATE {state})",
        "Was the cursor's column retyped? `syncline reset-cursor` begins anew.",
    ),
}


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Raise what psycopg raises inside as SourceError, or SourceUnavailableError where it may pass, with the place."""
    try:
        yield
    except psycopg.Error as error:
        raise _explain(place, error) from None


def _explain(place: str, error: psycopg.Error) -> SourceError:
    text = (error.diag.message_primary or next(iter(str(error).strip().splitlines()), "")).strip()
    state = error.sqlstate or next((state for sign, state in _SIGNS if sign in text), "")
    for code in (state, state[:2]):
        if code in _KNOWN:
            may_pass, message, hint = _KNOWN[code]
            kind = SourceUnavailableError if may_pass else SourceError
            return kind(f"{place}: {message.format(text, state=state)}", hint)
    said = "" if state[:2] in CLASSES_WITH_VALUES else f": {text}"
    return SourceError(f"{place}: the database refused (SQLSTATE {state}){said}", "Check the stream's settings.")
