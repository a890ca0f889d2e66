"""Database roles for tests: owner, runner and reader, with passwords of their own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of three roles, and the connection strings to one database as each of them and as an administrator."""

    admin: str
    owner: str
    runner: str
    reader: str

    def dsn(self, role: str) -> str:
        return make_conninfo(self.admin, user=role, password=role)

    def grant(self, dsn: str | None = None) -> None:
        """Hand out the rights, as the administrator where nobody else is named."""
        with psycopg.connect(dsn or self.admin, autocommit=True) as connection:
            connection.execute("select syncline.grant_roles(%s, %s, %s)", (self.owner, self.runner, self.reader))

    def query(self, role: str, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.dsn(role), autocommit=True) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[arg-type]


@contextmanager
def three_roles(dsn: str, form: str = "%s") -> Iterator[Roles]:
    """Make three roles on the server of this database, named so; drop them and what they own there at the end."""
    number = f"{os.getpid()}_{next(_numbers)}"
    names = [form % f"{duty}_{number}" for duty in ("owner", "runner", "reader")]
    with psycopg.connect(dsn, autocommit=True) as admin:
        for name in names:
            statement = sql.SQL("create role {} login password {}")
            admin.execute(statement.format(sql.Identifier(name), sql.Literal(name)))
    yield Roles(dsn, *names)
    with psycopg.connect(dsn, autocommit=True) as admin:
        for name in names:
            admin.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
        for name in names:
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
