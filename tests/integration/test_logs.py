"""Log events in the database are kept for as long as the project says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from syncline import control, db, logs
from syncline.config import read_project
from syncline.errors import ConfigurationError, DatabaseError
from tests.driver import Driver


def keep(driver: Driver, text: str) -> Any:
    """The project with this setting of keep_log."""
    given = {"name": "driven", "model-paths": ["models"], "vars": {"syncline": {"keep_log": text}}}
    (driver.root / "dbt_project.yml").write_text(json.dumps(given))
    return read_project(driver.root)


def ages(driver: Driver) -> list[int]:
    rows = driver.connection.execute("select detail from syncline.log_events order by event_id").fetchall()
    return [row["detail"]["days"] for row in rows]


def write(driver: Driver, *days: int) -> None:
    for age in days:
        control.log(driver.connection, "info", "aged", days=age)
    driver.connection.execute(
        "update syncline.log_events set logged_at = now() - make_interval(days => (detail ->> 'days')::integer)"
    )


def test_old_events_are_deleted_once_a_day(driver: Driver) -> None:
    """By default those of more than 30 days, by `keep_log` others; a worker does so once a day, a command each time."""
    write(driver, 0, 29, 31)
    assert logs.prune_daily(driver.connection, driver.project) == 1
    assert ages(driver) == [0, 29]
    project = keep(driver, "7d")
    assert logs.prune_daily(driver.connection, project) == 0
    assert logs.prune(driver.connection, project)["log_events"] == 1
    assert ages(driver) == [0]


def test_a_failure_to_delete_waits_for_no_day(driver: Driver) -> None:
    """Where the database refuses, the next look deletes."""
    write(driver, 31)
    with db.connect(driver.dsn) as lost:
        lost.close()
        with pytest.raises(DatabaseError):
            logs.prune_daily(lost, driver.project)
    assert logs.prune_daily(driver.connection, driver.project) == 1


def test_a_time_that_is_none_is_refused(driver: Driver) -> None:
    """`keep_log` is a number and a unit."""
    with pytest.raises(ConfigurationError, match="no duration"):
        keep(driver, "long")
