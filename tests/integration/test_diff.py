"""Diff: each row that differs, once, by field, in the numbers that the build counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from syncline import db, preview
from syncline.errors import RefusedError
from tests.driver import PEOPLE, Driver, people, person

KINDS = ("inserted", "updated", "deleted")


def shown(driver: Driver, limit: int | None = None, sample: int | None = None) -> list[dict[str, Any]]:
    """The rows that differ, by field."""
    return [dict(row) for row in db.call(driver.connection, "diff_fields", "people", limit, sample)]


def agrees(driver: Driver) -> list[dict[str, Any]]:
    """Assert that the rows shown are as many as the build counted, by field and whole; return them."""
    rows = shown(driver)
    summary = preview.summary(driver.connection, "people")
    counted = Counter(row["change"] for row in rows)
    assert {kind: counted[kind] for kind in KINDS} == summary.counts
    whole = db.call(driver.connection, "diff", "people", None)
    assert [(row["change"], row["_key"]) for row in whole] == [(row["change"], row["_key"]) for row in rows]
    return rows


def test_an_update_shows_the_fields_that_changed(driver: Driver) -> None:
    """Of an update old and new hold what differs, null included; of an insert or a delete one side holds the row."""
    driver.sync([person(1, age=None), person(2), person(3)])
    driver.load([person(1, name="other"), person(2), person(4)], allow_mass_delete=True)
    driver.build()
    deleted, inserted, updated = agrees(driver)
    assert (deleted["_key"], deleted["old"]["name"], deleted["new"]) == ("3", "name 3", None)
    assert (inserted["_key"], inserted["old"], inserted["new"]["name"]) == ("4", None, "name 4")
    assert (updated["_key"], updated["unique_key"]) == ("1", {"email": "p1@example.com"})
    assert (updated["old"], updated["new"]) == ({"name": "name 1", "age": None}, {"name": "other", "age": 21})


def test_a_changed_unique_key_is_another_row(driver: Driver) -> None:
    """A record with another unique key shows as a row deleted and one inserted, both with its key."""
    driver.sync(people(3))
    driver.load([person(1, email="new@example.com"), person(2), person(3)])
    driver.build()
    assert [(row["change"], row["_key"]) for row in agrees(driver)] == [("deleted", "1"), ("inserted", "1")]


def test_a_row_that_comes_from_another_record(driver: Driver) -> None:
    """Where a unique key moves to another record, the row is updated, and its origin key is one of the fields."""
    driver.sync([person(1), person(2)])
    driver.load([person(1, email="p2@example.com"), person(2, email="p1@example.com")])
    driver.build()
    moved = {row["unique_key"]["email"]: row for row in agrees(driver)}
    row = moved["p1@example.com"]
    assert (row["change"], row["_key"], row["old"]["_key"], row["new"]["_key"]) == ("updated", "2", "1", "2")


def test_unique_keys_that_are_null_pair_up(driver: Driver) -> None:
    """Rows without a unique key are matched with each other, and those that are equal are not shown."""
    columns = PEOPLE | {"email": ("text", False)}
    sql = driver.sql(columns)
    driver.sync([person(number, email=None) for number in range(1, 6)], sql=sql)
    driver.load(
        [person(1, email=None), person(2, email=None, name="b"), *(person(n, email=None) for n in (4, 5, 6, 7))]
    )
    driver.build(sql=sql)
    rows = agrees(driver)
    assert all(row["unique_key"] == {"email": None} for row in rows)
    assert {row["_key"] for row in rows} <= {"2", "3", "6", "7"}


def of_tags(driver: Driver) -> str:
    """The SQL of an entity with a row for each of a record's tags."""
    each = "jsonb_array_elements_text(payload::jsonb -> 'tags') with ordinality as t (tag, place)"
    return f"select _key, t.tag from {driver.relation}, {each}"


def test_several_rows_of_a_key(driver: Driver) -> None:
    """Of a record that gives several rows, those that stay are not shown, wherever in it they are."""
    sql = of_tags(driver)
    driver.sync([{"id": 1, "tags": ["a", "b", "c", "c"]}, {"id": 2, "tags": ["x"]}], sql=sql, unique_key=[])
    driver.load([{"id": 1, "tags": ["c", "b"]}, {"id": 2, "tags": ["x", "y"]}])
    driver.build(sql=sql, unique_key=[])
    rows = [(row["change"], row["_key"], (row["old"] or row["new"])["tag"]) for row in agrees(driver)]
    assert sorted(rows) == [("deleted", "1", "a"), ("deleted", "1", "c"), ("inserted", "2", "y")]


def test_a_number_written_otherwise_is_a_change(driver: Driver) -> None:
    """1.0 and 1.00 are two values to readers, and an update by field."""
    columns = PEOPLE | {"price": ("numeric", False)}
    driver.sync([person(1, price="1.0")], sql=driver.sql(columns))
    driver.load([person(1, price="1.00")])
    driver.build(sql=driver.sql(columns))
    agrees(driver)
    query = "select old ->> 'price' as old, new ->> 'price' as new from syncline.diff_fields('people')"
    assert driver.connection.execute(query).fetchall() == [{"old": "1.0", "new": "1.00"}]


def test_a_new_column(driver: Driver) -> None:
    """A column that came is named, and its values are updates from null; rows without one are not shown."""
    columns = PEOPLE | {"city": ("text", False)}
    driver.sync([person(1, city="Oslo"), person(2), person(3, city="Rome")])
    driver.load([person(1, city="Oslo"), person(2), person(3, name="c", city="Rome"), person(4)])
    driver.build(sql=driver.sql(columns))
    rows = {row["_key"]: row for row in agrees(driver)}
    assert (rows["1"]["old"], rows["1"]["new"]) == ({"city": None}, {"city": "Oslo"})
    assert rows["3"]["new"] == {"city": "Rome", "name": "c"}
    assert {key: row["change"] for key, row in rows.items()} == {"1": "updated", "3": "updated", "4": "inserted"}
    summary = preview.summary(driver.connection, "people")
    assert (summary.columns_added, summary.columns_dropped) == (["city"], [])


def test_names_that_mean_something_to_sql(driver: Driver) -> None:
    """Columns may be called what the query itself uses, and hold per cent signs and quotes."""
    names = ["t", "whole", "side", "identity", "image", "content", "active", 'a "b" %s']
    listed = ", ".join("payload ->> 'name' as \"{}\"".format(name.replace('"', '""')) for name in names)
    sql = f"select _key, payload ->> 'email' as \"side key\", {listed} from {driver.relation}"
    driver.sync(people(3), sql=sql, unique_key=["side key"])
    driver.load([person(1, name="new"), person(2), person(3)])
    driver.build(sql=sql, unique_key=["side key"])
    (row,) = agrees(driver)
    assert row["new"] == dict.fromkeys(names, "new")


def test_the_first_candidate_and_the_first_publish(driver: Driver) -> None:
    """With nothing published before, every row is inserted, whether it waits or was the first publish."""
    driver.load(people(12))
    build = driver.build()
    assert len(agrees(driver)) == 12
    assert [row["_key"] for row in shown(driver, sample=2)] == ["1", "10"]
    driver.publish(build)
    assert preview.summary(driver.connection, "people").shows == "last publish"
    assert [row["change"] for row in agrees(driver)] == ["inserted"] * 12


def test_the_last_publish(driver: Driver) -> None:
    """Without a candidate the last publish is shown, with the counts of its build, also after a run without changes."""
    driver.sync(people(5))
    driver.sync([person(1, name="b"), *people(5)[2:], person(6)])
    before = agrees(driver)
    assert [row["change"] for row in before] == ["deleted", "inserted", "updated"]
    driver.load([person(1, name="b"), *people(5)[2:], person(6)])
    assert driver.build() is None
    assert agrees(driver) == before


def test_a_candidate_that_was_overtaken_is_not_shown(driver: Driver) -> None:
    """What the other table holds is no last publish where a later run found nothing to change."""
    driver.sync(people(3))
    driver.load([person(1, name="b"), person(2), person(3)])
    driver.build()
    driver.load(people(3))
    assert driver.build() is None
    with pytest.raises(RefusedError, match="nothing to compare"):
        shown(driver)


def test_limit_and_sample(driver: Driver) -> None:
    """A limit is of all rows, a sample of each kind; both come first by kind and key."""
    driver.sync(people(40))
    driver.load([*(person(n, name="b") for n in range(1, 31)), *(person(n) for n in range(41, 61))])
    driver.build()
    rows = agrees(driver)
    assert preview.summary(driver.connection, "people").counts == {"inserted": 20, "updated": 30, "deleted": 10}
    assert shown(driver, limit=15) == rows[:15]
    assert shown(driver, sample=2) == [*rows[:2], *rows[10:12], *rows[30:32]]
    assert shown(driver, sample=0) == []


def test_a_candidate_without_rows(driver: Driver) -> None:
    """A column that is null everywhere changes no row: the candidate is there, and shows its column."""
    driver.sync(people(3))
    driver.build(sql=driver.sql(PEOPLE | {"city": ("text", False)}))
    assert agrees(driver) == []
    assert preview.summary(driver.connection, "people").columns_added == ["city"]
