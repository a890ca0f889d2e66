"""Says in Syncline's words what dbt says of a model or a test that failed: message, hint, SQLSTATE, file and line."""

from __future__ import annotations

import re
from typing import Any

import psycopg

_DETAIL = re.compile(r"DETAIL:\s+SQLSTATE (\w{5})")
_HINT = re.compile(r"^[ \t]*HINT:[ \t]*(\S.*)$", re.MULTILINE)
_HEADING = re.compile(r"(Database|Compilation|Runtime|Parsing|Dependency) Error(?: in \w+ \S+ \((?P<file>[^)]+)\))?")
_LINE = re.compile(r"^\s*line (\d+)\s*$", re.MULTILINE)

_NAMES_OBJECTS = re.compile(
    r"(column|relation|function|operator|schema|table|type) .* (does not exist|is ambiguous)|syntax error"
)
_NO_RELATION = re.compile(r'relation ".*" does not exist')
_ABOUT_THE_SERVER = re.compile(
    r"(server closed the connection|terminating connection|connection .{0,40}(refused|closed|lost)|could not connect"
    r"|SSL connection has been closed|the database system is \w+( \w+)?|No space left on device|out of (shared )?memory"
    r"|canceling statement due to \w+( \w+)?|connection already closed)",
    re.IGNORECASE,
)


def explain(message: str) -> dict[str, Any]:
    """Split what dbt says into message, hint and SQLSTATE; syncline.build has taken values out of it."""
    detail, hint, line = _DETAIL.search(message), _HINT.search(message), _LINE.search(message)
    state = detail.group(1) if detail else None
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = next(iter(lines), "dbt gives no reason")
    heading = _HEADING.match(text)
    if heading and len(lines) > 1:
        text = lines[1]
        if heading.group(1) == "Compilation" and state is None:
            state = "SY200"  # as our own states say it: the model or its configuration is wrong
            if heading["file"]:
                text += f", in {heading['file']}" + (f" line {line.group(1)}" if line else "")
    return {"message": text, "hint": hint.group(1).strip() if hint else None, "state": state}


def explain_model(message: str, name: str, file: str, compiled: str | None) -> dict[str, Any]:
    """As `explain`, of the model in `file`; where Postgres cannot read its SQL, the hint names the line."""
    explained = explain(message)
    if explained["hint"] is None and (explained["state"] or "42")[:2] == "42":
        line = _find_line(compiled) if compiled else None
        place = f"mend {file}" if line is None else f"mend {file}: it is in line {line} of what it compiles to"
        is_unmade = _NO_RELATION.search(explained["message"])
        more = " A staging model that it reads has to say `materialized='ephemeral'`." if is_unmade else ""
        explained["hint"] = f"Nothing was published: {place}, see `dbt compile --select {name}`.{more}"
    return explained


def explain_test(message: str) -> dict[str, Any]:
    """As `explain`, of a test, whose messages may quote values: only what names objects or the server is kept."""
    named = _NAMES_OBJECTS.search(message) or _ABOUT_THE_SERVER.search(message)
    return {"message": named.group(0) if named else "its SQL failed", "hint": None, "state": None}


def _find_line(compiled: str) -> int | None:
    """The line at which Postgres stops when it reads the SQL, which it does not run; libpq's variables say where."""
    head = "explain "
    try:
        with psycopg.connect(autocommit=False) as connection:
            connection.read_only = True
            connection.execute((head + compiled).encode())
    except psycopg.Error as error:
        position = error.diag.statement_position
        if position is not None and (error.sqlstate or "").startswith("42"):
            return compiled[: int(position) - 1 - len(head)].count("\n") + 1
    return None
