"""Profiles of the property tests, and databases that are made in a few hundredths of a second."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.properties.subject import Subject

Clones = Callable[[], AbstractContextManager[Subject]]

THOROUGH = 20
"""How many times as many examples the thorough profile runs as the default one."""

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

_numbers = itertools.count(1)

# An example clones a database or runs whole loads and builds: what it takes says nothing about its health.
_COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
settings.register_profile("default", **_COMMON)
settings.register_profile("thorough", **_COMMON)
# The same examples every time: a change is judged by what it changes, not by luck.
settings.register_profile("ci", derandomize=True, phases=[Phase.explicit, Phase.generate], **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a property the time to shrink what it finds, and the thorough profile all that it needs."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(7200 if IS_THOROUGH else 900))


def examples(count: int) -> int:
    """Return how many examples the profile in force runs, where the default one runs `count`."""
    return count * (THOROUGH if IS_THOROUGH else 1)


@pytest.fixture(scope="session")
def clones(server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clones]:
    """Makes a project with an empty stream and no entity on a database of its own, as often as asked."""
    root = tmp_path_factory.mktemp("subject")
    prepared = f"syncline_subject_{os.getpid()}"
    with psycopg.connect(server_dsn, autocommit=True) as admin:

        def create(name: str, template: str) -> str:
            statement = sql.SQL("create database {} template {}")
            admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
            return make_conninfo(server_dsn, dbname=name)

        def drop(name: str) -> None:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

        @contextmanager
        def clone() -> Iterator[Subject]:
            name = f"{prepared}_{next(_numbers)}"
            try:
                with Subject(create(name, prepared), root) as subject:
                    yield subject
            finally:
                drop(name)

        with Subject(create(prepared, template), root):
            pass
        yield clone
        drop(prepared)
