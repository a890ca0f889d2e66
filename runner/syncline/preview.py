"""What the candidates of a run would change: counts, a sample or every row, read while they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from syncline import db

PIECE_BYTES = 1 << 16

_CHANGES = "select change, _key, unique_key::text, old::text, new::text from syncline.diff_fields(%s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to show of an entity: rows by kind as its build counted them, and columns that came or went."""

    entity: str
    shows: str
    counts: dict[str, int]
    columns: list[str]
    columns_added: list[str]
    columns_dropped: list[str]


def summary(connection: db.Connection, entity: str) -> Summary:
    """Return what a diff of the entity shows. Raises RefusedError where there is nothing to compare."""
    row = db.call(connection, "diff_summary", entity)[0]
    counts = {kind: row[kind] for kind in ("inserted", "updated", "deleted")}
    return Summary(entity, row["shows"], counts, row["columns"], row["columns_added"], row["columns_dropped"])


def changes(connection: db.Connection, entity: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the changed rows as they come: change, _key, unique_key, old and new; of an update what differs."""
    with db.translated(), connection.cursor() as cursor:
        yield from map(decoded, cursor.stream(_CHANGES, (entity, limit, None)))


def whole_rows(connection: db.Connection, shown: Summary) -> Iterator[dict[str, Any]]:
    """Yield the changed rows whole: change, _key, old and new with all columns, and what they show."""
    query = "select change, _key, old::text, new::text from syncline.diff(%s)"
    with db.translated(), connection.cursor() as cursor:
        for row in cursor.stream(query, (shown.entity,)):
            yield decoded(row) | {"shows": shown.shows}


def decoded(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its JSON as it is: a numeric must not lose digits on its way through a float."""
    for name in row.keys() & {"unique_key", "old", "new"}:
        row[name] = None if row[name] is None else msgspec.Raw(row[name].encode())
    return row


def in_pieces(lines: Iterable[Any]) -> Iterator[bytes]:
    """Yield JSON lines, some together: one write each would cost more than the lines."""
    piece = bytearray()
    for line in lines:
        piece += msgspec.json.encode(line) + b"\n"
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a run made of an entity: what it would change, and rows of it; no `summary` where that is nothing."""

    entity: str
    row_errors: int
    conflicts: int
    counts: dict[str, int]
    summary: Summary | None
    changes: Iterable[dict[str, Any]]


class Preview:
    """Reads what a run would change once the run says that its candidates stand, and keeps it until it is shown.

    `sample` is how many rows of each kind are kept in memory; with None the server keeps all of them for this session.
    """

    def __init__(self, dsn: str, sample: int | None) -> None:
        self.candidates: list[Candidate] | None = None
        self._dsn = dsn
        self._sample = sample
        self._opened = ExitStack()

    def __enter__(self) -> Preview:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def look(self, run_id: int) -> None:
        """Read the run's candidates, in one transaction that ends here: what comes later changes nothing of it."""
        connection = self._opened.enter_context(db.connect(self._dsn))
        with db.translated(), connection.transaction():
            self.candidates = [self._read(connection, row) for row in db.call(connection, "preview", run_id)]

    def _read(self, connection: db.Connection, row: dict[str, Any]) -> Candidate:
        counts = {kind: row[kind] for kind in ("inserted", "updated", "deleted")}
        shown = summary(connection, row["entity"]) if row["is_there"] else None
        rows = self._rows(connection, row["entity"]) if shown else ()
        return Candidate(row["entity"], row["row_errors"], row["conflicts"], counts, shown, rows)

    def _rows(self, connection: db.Connection, entity: str) -> Iterable[dict[str, Any]]:
        if self._sample is not None:
            return [decoded(row) for row in connection.execute(_CHANGES, (entity, None, self._sample))]
        # Held over the end of the transaction, it locks no table and needs no memory here.
        cursor = self._opened.enter_context(connection.cursor(name=f"changes of {entity}", withhold=True))
        cursor.itersize = 1000
        cursor.execute(_CHANGES, (entity, None, None))
        return map(decoded, cursor)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield every changed row as it is printed: entity, change, key, unique_key, old and new."""
        with db.translated():
            for candidate in self.candidates or []:
                for row in candidate.changes:
                    yield {"entity": candidate.entity, "change": row["change"], "key": row["_key"]} | {
                        name: row[name] for name in ("unique_key", "old", "new")
                    }
