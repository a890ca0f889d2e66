"""What the property tests drive: a stream whose loads come from memory, and runs around builds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from syncline import control, db
from syncline.config import Stream
from syncline.connectors import Connector, Fetch, Page
from syncline.errors import SourceUnavailableError
from syncline.load import LoadOptions, load_stream
from tests.driver import Driver

PAGE_RECORDS = 3
"""Records of a page: few, so that a load of a handful has several."""


@dataclass(frozen=True)
class Unreadable:
    """A record that the connector itself calls bad."""

    content: bytes


Line = bytes | Unreadable


class MemoryConnector(Connector):
    """Hands over the lines it was made with, as a full load or as an increment; can be cut off and gone on with."""

    def __init__(self, lines: Sequence[Line], is_increment: bool, cut_after: int | None = None) -> None:
        self._lines = lines
        self._is_increment = is_increment
        self._cut_after = cut_after

    def is_increment(self, stream: Stream, settings: Any) -> bool:
        return self._is_increment

    def read(self, fetch: Fetch) -> Iterator[Page]:
        for start in range(fetch.position or 0, len(self._lines), PAGE_RECORDS):
            if self._cut_after is not None and start >= self._cut_after:
                raise SourceUnavailableError("the source went away")
            lines = self._lines[start : start + PAGE_RECORDS]
            yield Page(
                [line.content if isinstance(line, Unreadable) else line for line in lines],
                {place: "too short" for place, line in enumerate(lines) if isinstance(line, Unreadable)},
                position=start + PAGE_RECORDS,
            )


class Subject(Driver):
    """A driver whose loads may be increments and whose builds belong to runs."""

    @property
    def people(self) -> Stream:
        return self.project.sources["files"].streams["people"]

    def add_stream(self, name: str, **settings: Any) -> Stream:
        """Make one more stream of the source; settings are those that every stream may have."""
        db.call(self.connection, "create_stream", "files", name)
        common = msgspec.convert({"key": "id"} | settings, type(self.people.common))
        return replace(self.people, name=name, common=common)

    def load_lines(
        self,
        lines: Sequence[Line],
        stream: Stream | None = None,
        *,
        is_increment: bool = False,
        cut_after: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Load these lines, page by page; return the load's row."""
        return load_stream(
            self.project,
            self.project.sources["files"],
            MemoryConnector(lines, is_increment, cut_after),
            stream or self.people,
            self.connection,
            LoadOptions(**({"allow_mass_delete": True} | options)),
        )

    def prune(self, stream: Stream, keep: int, max_age: str = "30 days") -> None:
        db.call(self.connection, "prune_stream", stream.source, stream.name, keep, max_age)

    @contextmanager
    def run(self, **options: Any) -> Iterator[int]:
        """Work a run in this session: its loads are pinned, and it ends well or as failed."""
        run_id = control.request_run(self.connection, ["files"], [], options, "manual")
        control.claim_run(self.connection, run_id)
        control.pin_loads(self.connection)
        try:
            yield run_id
        except BaseException:
            control.finish_run(self.connection, "failed")
            raise
        else:
            control.finish_run(self.connection, "succeeded")
        finally:
            self.connection.execute("select set_config('syncline.run_id', '', false)")

    def rows(self, query: str) -> list[dict[str, Any]]:
        return [dict(row) for row in self.connection.execute(query).fetchall()]
