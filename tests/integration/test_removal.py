"""Dropping entities and streams for good."""

from __future__ import annotations

import pytest

from syncline import db
from syncline.errors import ConfigurationError, RefusedError
from tests.driver import Driver, people


def names(driver: Driver) -> set[str]:
    rows = driver.connection.execute("select relname from pg_class where relname like 'people%'").fetchall()
    return {row["relname"] for row in rows}


def test_an_entity_and_its_stream_leave_nothing(driver: Driver) -> None:
    """After both are dropped no table, view or row of them is left, and a new first load begins anew."""
    driver.sync(people(3))
    driver.sync(people(2))
    db.call(driver.connection, "drop_entity", "people")
    assert not {name for name in names(driver) if name.startswith(("people_v", "people_c", "people_n", "people_d"))}
    db.call(driver.connection, "drop_stream", "files", "people")
    assert names(driver) == set()
    for table in ("entities", "builds", "streams", "loads", "row_errors"):
        assert driver.connection.execute(f"select from syncline.{table}").fetchall() == []
    db.call(driver.connection, "create_stream", "files", "people")
    driver.sync(people(1))
    assert list(driver.current()) == ["1"]


def test_what_is_read_is_not_dropped(driver: Driver) -> None:
    """A stream that feeds an entity, and an entity that a view reads, are refused, and everything stays."""
    driver.sync(people(3))
    with pytest.raises(RefusedError, match="feeds people"):
        db.call(driver.connection, "drop_stream", "files", "people")
    driver.connection.execute("create view elsewhere as select name from people_current")
    with pytest.raises(ConfigurationError, match="elsewhere"):
        db.call(driver.connection, "drop_entity", "people")
    assert len(driver.current()) == 3
    with pytest.raises(ConfigurationError, match="no entity nobody"):
        db.call(driver.connection, "drop_entity", "nobody")
