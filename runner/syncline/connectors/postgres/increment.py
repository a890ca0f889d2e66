"""Follows a table by one of its columns: what to ask for, and how far the rows have come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from psycopg import sql

from syncline.connectors import Cursor, Fetch

Value = str | int | float

_TIMES = frozenset({"date", "timestamp without time zone", "timestamp with time zone"})


class ColumnIncremental(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reads the rows whose column is at least its greatest value so far, less `lag` (seconds for times).

    Rows without a value come every time, or never.
    """

    cursor_path: str
    initial_value: Value | None = None
    lag: Annotated[float, msgspec.Meta(ge=0)] = 0
    on_cursor_value_missing: Literal["include", "exclude"] = "include"


class Follower:
    """One reading, in the order of the column and then of the key."""

    def __init__(self, incremental: ColumnIncremental, kind: str, fetch: Fetch) -> None:
        self._incremental = incremental
        self._kind = kind
        self._key = [name for name in fetch.stream.key if name != incremental.cursor_path]
        names = [incremental.cursor_path, *self._key]
        # Rows that share a value of the column are told apart by their key alone.
        self._is_resumable = bool(fetch.stream.key)
        self._read = msgspec.json.Decoder(_shape(names)).decode
        self._highest: str | None = (fetch.cursor or {}).get("value")
        if fetch.position is not None:
            self._highest = fetch.position["value"]

    def clauses(self, fetch: Fetch) -> Iterable[sql.Composed]:
        """Yield the where and order by clauses that bring what the fetch is for, in the column's order."""
        column = sql.Identifier("_syncline_row", self._incremental.cursor_path)
        tests = []
        since = fetch.since
        if fetch.since is None and fetch.until is None:
            since = (fetch.cursor or {}).get("value", self._incremental.initial_value)
        if since is not None:
            lag = self._lag() if fetch.cursor else sql.SQL("")
            tests.append(sql.SQL("{} >= {}{}").format(column, self._literal(since), lag))
        if fetch.until is not None:
            tests.append(sql.SQL("{} <= {}").format(column, self._literal(fetch.until)))
        where = sql.SQL(" and ").join(tests) if tests else sql.SQL("true")
        if self._incremental.on_cursor_value_missing == "exclude":
            where = sql.SQL("({} and {} is not null)").format(where, column)
        elif fetch.since is None and fetch.until is None:
            where = sql.SQL("({} or {} is null)").format(where, column)
        order = [column, *(sql.Identifier("_syncline_row", name) for name in self._key)]
        if fetch.position is not None:
            # Rows without a value come first, so those are behind.
            last = [self._literal(fetch.position["value"]), *map(sql.Literal, fetch.position["key"])]
            beyond = sql.SQL("({}) > ({})").format(sql.SQL(", ").join(order), sql.SQL(", ").join(last))
            where = sql.SQL("{} and {}").format(where, beyond)
        yield sql.SQL("where {}").format(where)
        yield sql.SQL("order by {} nulls first{}").format(
            column, sql.SQL("").join(sql.SQL(", {}").format(name) for name in order[1:])
        )

    def follow(self, records: list[bytes]) -> None:
        """Take the last row's value in: the rows come in its order."""
        value = self._last(records)[0]
        if value is not None:
            self._highest = value

    def cursor(self) -> Cursor | None:
        return None if self._highest is None else {"value": self._highest}

    def position(self, records: list[bytes]) -> dict[str, Any] | None:
        """Return where to go on after these rows; None before the first value."""
        value, *key = self._last(records)
        return None if not self._is_resumable or value is None or None in key else {"value": value, "key": key}

    def _last(self, records: list[bytes]) -> list[str | None]:
        """Return the last row's value and key as texts: a number keeps all its digits."""
        return [_text(raw) for raw in msgspec.structs.astuple(self._read(records[-1]))]

    def _literal(self, value: Value) -> sql.Composed:
        return sql.SQL("{}::{}").format(sql.Literal(str(value)), sql.SQL(self._kind))

    def _lag(self) -> sql.Composable:
        lag = self._incremental.lag
        if not lag:
            return sql.SQL("")
        if self._kind in _TIMES:
            return sql.SQL(" - {}").format(sql.SQL("make_interval(secs => {})").format(sql.Literal(lag)))
        return sql.SQL(" - {}").format(sql.Literal(lag))


def _shape(names: list[str]) -> type[msgspec.Struct]:
    fields = [(f"at{place}", msgspec.Raw) for place in range(len(names))]
    return msgspec.defstruct("Last", fields, rename={f"at{place}": name for place, name in enumerate(names)})


def _text(raw: msgspec.Raw) -> str | None:
    text = bytes(raw)
    if text == b"null":
        return None
    return msgspec.json.decode(text, type=str) if text[:1] == b'"' else text.decode()
