"""What all requests of one API process share: the project, a pool of connections, and one engine."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request
from psycopg import Connection as AnyConnection
from psycopg.rows import DictRow
from psycopg_pool import ConnectionPool

from syncline import control, db
from syncline.api.settings import ApiSettings
from syncline.api.slots import Slots
from syncline.config import Project, entity_names, model_names
from syncline.db import Connection
from syncline.errors import LockedError, RefusedError
from syncline.pipeline import Engine
from syncline.tokens import Found

CONNECTIONS = 10
"""The most that the pool opens. A request holds one for milliseconds; pushes and publishing open their own."""

PATIENCE = 5.0
"""Seconds that a request waits for a connection before it is told that the database does not answer."""


ENGINE_PATIENCE = 30.0
"""Seconds that a request to publish waits for another one."""


@dataclass(slots=True, repr=False)
class State:
    """What requests share; `request.app.state.syncline` and the dependency `Shared` give it.

    `followers`, `pushes` and `downloads` are what lasts longer than a moment; all followers look with the same few
    threads. `remembered_tokens` are those looked up just now, by their numbers, each until when.
    """

    project: Project
    dsn: str
    settings: ApiSettings
    pool: ConnectionPool[AnyConnection[DictRow]] = field(init=False)
    models: set[str] = field(init=False)
    entities: set[str] = field(init=False)
    followers: Slots = field(default_factory=lambda: Slots(64, "followers"), init=False)
    pushes: Slots = field(default_factory=lambda: Slots(8, "pushes"), init=False)
    downloads: Slots = field(default_factory=lambda: Slots(4, "downloads"), init=False)
    looks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4), init=False)
    remembered_tokens: dict[int, tuple[Found, float]] = field(default_factory=dict, init=False)
    _stops_at: float | None = field(default=None, init=False)
    _engine: Engine | None = field(default=None, init=False)
    _engine_lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.models = model_names(self.project.root)
        self.entities = entity_names(self.project.root)
        self.pool = ConnectionPool(
            db.session_dsn(self.dsn, timeout=5, name="syncline serve"),
            connection_class=AnyConnection[DictRow],
            kwargs=db.SESSION,
            min_size=2,
            max_size=CONNECTIONS,
            timeout=PATIENCE,
            max_idle=300,
            # A database that was restarted costs a look, not a failed request.
            check=ConnectionPool.check_connection,
            configure=db.check_server,
            open=False,
            name="syncline",
        )

    @contextmanager
    def connection(self, request_id: str | None = None) -> Iterator[Connection]:
        """Lend a connection; what it logs belongs to `request_id`. Raises DatabaseUnavailableError."""
        with db.translated(), self.pool.connection() as connection:
            if request_id is None:
                yield connection
                return
            _name_request(connection, request_id)
            try:
                yield connection
            finally:
                if not connection.broken:
                    _name_request(connection, "")

    @contextmanager
    def own_connection(self, request_id: str) -> Iterator[Connection]:
        """Open a connection beside the pool, for what may wait long for others; close it afterwards."""
        with db.connect(self.dsn) as connection:
            _name_request(connection, request_id)
            yield connection

    def known_entities(self, wanted: Iterable[str]) -> set[str]:
        """Return the names of the entities; the database is asked where any that is wanted is none by its file."""
        if not self.entities.issuperset(wanted):
            with self.connection() as connection:
                return self.entities | (control.known_entities(connection) & self.models)
        return self.entities

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Lend the engine, whose dbt process starts with its first use and serves one caller at a time.

        Raises LockedError where others use it for too long.
        """
        if not self._engine_lock.acquire(timeout=ENGINE_PATIENCE):
            raise LockedError("another request publishes just now", "Try again.")
        try:
            if self._engine is None:
                self._engine = Engine(self.project, self.dsn)
            try:
                yield self._engine
            except RefusedError:
                raise  # of what was asked for, not of the engine
            except BaseException:
                # Its dbt may be out of step, or gone: the next caller gets a new one.
                self._close_engine()
                raise
        finally:
            self._engine_lock.release()

    def stop(self, grace: float) -> None:
        """Note that the API is to stop, and that what is under way has so many seconds left."""
        self._stops_at = self._stops_at or time.monotonic() + grace

    @property
    def is_stopping(self) -> bool:
        return self._stops_at is not None

    @property
    def seconds_left(self) -> float:
        return math.inf if self._stops_at is None else self._stops_at - time.monotonic()

    def close(self) -> None:
        self.pool.close()
        with self._engine_lock:
            self._close_engine()

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.dbt.close()
            self._engine = None


def _name_request(connection: Connection, request_id: str) -> None:
    connection.execute("select set_config('syncline.request_id', %s, false)", (request_id,))


def of_request(request: Request) -> State:
    state: State = request.app.state.syncline
    return state


async def _share(request: Request) -> State:
    return of_request(request)  # a dependency that is no coroutine costs a thread


Shared = Annotated[State, Depends(_share)]
