"""The versioned build: what it writes, what it keeps, what it refuses."""

from __future__ import annotations

import pytest

from syncline.errors import ConfigurationError, RefusedError
from tests.driver import PEOPLE, Driver, people, person, typed


def test_first_build_is_not_published(driver: Driver) -> None:
    """A build alone never publishes: current is there, and empty."""
    driver.load(people(3))
    driver.build()
    assert driver.current() == {}
    assert list(driver.next()) == ["1", "2", "3"]


def test_second_build_writes_only_what_changed(driver: Driver) -> None:
    """In place, the build touches the keys of delta and of the change, and no other row."""
    driver.sync(people(100))
    driver.sync([*people(99), person(100, name="b")])
    driver.sync([*people(98), person(99, name="c"), person(100, name="b")])
    build = driver.last_build()
    assert not build["is_written_anew"]
    assert driver.delta() == {"99"}
    assert (build["rows_inserted"], build["rows_updated"], build["rows_deleted"], build["rows_unchanged"]) == (
        0,
        1,
        0,
        99,
    )
    assert driver.verify() == []
    assert driver.current()["100"]["name"] == "b"


def test_nothing_changed_writes_nothing(driver: Driver) -> None:
    """Where no row comes out otherwise, there is no candidate, and a reordered record is no change."""
    driver.sync(people(5))
    driver.load([dict(reversed(record.items())) for record in people(5)])
    assert driver.build() is None
    assert driver.verify() == []


def test_bad_optional_value_is_null_with_a_warning(driver: Driver) -> None:
    """A value that does not fit becomes null and is named with column, row, value and message."""
    driver.sync([person(1), person(2, age="old")])
    assert driver.current()["2"]["age"] is None
    (error,) = driver.errors()
    assert (error["_key"], error["row_number"], error["column_name"], error["value"]) == ("2", 2, "age", "old")
    assert (error["severity"], error["message"]) == ("warning", "not a valid integer")


def test_bad_required_value_keeps_the_last_good_row(driver: Driver) -> None:
    """A rejected record leaves the row that is published, and is tried again with the next record."""
    driver.sync(people(2))
    driver.sync([person(1), person(2, email=None, name="bad")])
    assert driver.current()["2"]["name"] == "name 2"
    assert driver.errors()[0]["severity"] == "error"
    driver.sync([person(1), person(2, name="good")])
    assert driver.current()["2"]["name"] == "good"
    assert driver.errors() == []


def test_collision_the_row_already_published_wins(driver: Driver) -> None:
    """A record that takes another's unique key is rejected whole, whatever its key sorts as."""
    driver.sync([person(5)])
    driver.sync([person(1, email="p5@example.com"), person(5)])
    assert list(driver.current()) == ["5"]
    assert driver.errors()[0]["message"] == "another record has this email"
    driver.sync([person(1, email="p5@example.com")])
    assert list(driver.current()) == ["1"]


def test_collision_on_the_first_build_the_lowest_key_wins(driver: Driver) -> None:
    """With nothing published the lowest key keeps the unique key."""
    driver.sync([person(2, email="x"), person(1, email="x"), person(3)])
    assert list(driver.current()) == ["1", "3"]


def test_swapped_unique_keys_go_through(driver: Driver) -> None:
    """Two records that exchange their unique keys collide with nobody."""
    driver.sync([person(1, email="a"), person(2, email="b")])
    driver.sync([person(1, email="b"), person(2, email="a")])
    assert driver.errors() == []
    assert {key: row["email"] for key, row in driver.current().items()} == {"1": "b", "2": "a"}


def test_unnesting_gives_several_rows_for_a_key(driver: Driver) -> None:
    """One record gives a row for each element, and one that lost an element loses that row."""
    tags = typed("tag", "text", required=True, record="item")
    sql = (
        f"select _key, {typed('id', 'bigint')} as id, {tags} as tag from {driver.relation}"
        " cross join lateral jsonb_path_query(payload, '$.tags[*]') as t(item)"
    )
    settings = {"sql": sql, "unique_key": ["id", "tag"]}
    driver.load([person(1, tags=[{"tag": "a"}, {"tag": "b"}]), person(2, tags=[])])
    driver.publish(driver.build(**settings))
    assert driver.last_build()["rows_total"] == 2
    driver.load([person(1, tags=[{"tag": "b"}, {"tag": "c"}]), person(2, tags=[{"tag": "a"}])])
    driver.publish(driver.build(**settings))
    rows = driver.connection.execute("select id, tag from people_current order by 1, 2").fetchall()
    assert [tuple(row.values()) for row in rows] == [(1, "b"), (1, "c"), (2, "a")]
    build = driver.last_build()
    assert (build["rows_inserted"], build["rows_deleted"], build["rows_unchanged"]) == (2, 1, 1)


def test_on_missing_keep_leaves_rows_of_gone_records(driver: Driver) -> None:
    """With keep a record that is gone leaves its row, in delta builds and in full ones."""
    driver.sync(people(3), on_missing="keep")
    driver.sync([person(1, name="x"), person(3)], on_missing="keep")
    assert list(driver.current()) == ["1", "2", "3"]
    driver.sync([person(1, name="y"), person(3)], on_missing="keep", indexes=[{"columns": ["name"]}])
    assert list(driver.current()) == ["1", "2", "3"]


def test_new_column_is_added_and_old_rows_are_typed_anew(driver: Driver) -> None:
    """A model that gains a column rewrites the version, and the view appends the column."""
    driver.sync([person(1, city="Rome"), person(2)])
    columns = {"id": ("bigint", True), "city": ("text", False), "name": ("text", False), "age": ("integer", False)}
    driver.sync([person(1, city="Rome"), person(2)], sql=driver.sql(columns | {"email": ("text", True)}))
    assert driver.current()["1"]["city"] == "Rome"
    assert list(driver.current()["1"]) == ["id", "name", "age", "email", "city"]


def test_dropped_column_is_refused_with_the_dependents(driver: Driver) -> None:
    """A change that a view cannot take is refused, names who reads it, and changes nothing."""
    driver.sync(people(1))
    driver.connection.execute("create view report as select name from people_current")
    with pytest.raises(ConfigurationError, match="name is gone") as caught:
        driver.build(driver.sql({"email": ("text", True)}))
    assert "report" in (caught.value.hint or "")
    assert list(driver.current()) == ["1"]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("select _key, count(*) as email from {0} group by 1", "aggregate"),
        ("select distinct _key, payload ->> 'email' as email from {0}", "distinct"),
        ("select _key, (row_number() over ())::text as email from {0}", "window"),
        ("select a._key, a.payload ->> 'email' as email from {0} as a join {0} as b using (_key)", "joins"),
        ("select _key, payload ->> 'email' as email from {0} limit 1", "limit"),
        ("select _key, payload ->> 'email' as email from {0} union all select _key, 'x' from {0}", "union"),
        ("select _key, (select max(_key) from {0}) as email from {0}", "subquery|aggregate"),
        ("select _key, (select relname::text from pg_class limit 1) as email from {0}", "pg_class"),
    ],
)
def test_sql_that_is_not_row_local_is_refused(driver: Driver, sql: str, reason: str) -> None:
    """What makes a row from more than one record is refused, unless the model says delta: full."""
    driver.load(people(2))
    with pytest.raises(ConfigurationError, match=reason) as caught:
        driver.build(sql.format(driver.relation))
    assert "cannot be built by changed keys" in caught.value.message


@pytest.mark.parametrize(
    "sql",
    [
        "with s as (select * from {0}), t as (select _key, {1} as email from s) select * from t where email <> ''",
        "select _key, (select max(x) from jsonb_array_elements_text(payload -> 'tags') as x) as email from {0}",
        "select _key, payload ->> 'email' as email from {0} where payload ->> 'kind' in ('a', 'b', 'c', 'd', 'e')",
        "select _key, payload ->> 'email' as email from {0} order by 1",
        "select _key, payload ->> 'email' || n as email from {0} cross join generate_series(1, 2) as n",
    ],
)
def test_row_local_sql_is_taken(driver: Driver, sql: str) -> None:
    """CTEs, lateral unnesting, filters and constants within a record are row-local."""
    driver.load(people(2))
    assert driver.build(sql.format(driver.relation, typed("email", "text"))) is not None


def test_whole_models_compare_their_result(driver: Driver) -> None:
    """With delta: full an aggregate is built, and only the keys that changed are written."""
    sql = (
        "select min(_key) as _key, payload ->> 'name' as name, count(*) as people"
        f" from {driver.relation} group by payload ->> 'name'"
    )
    settings = {"sql": sql, "unique_key": ["name"], "delta": "full"}
    driver.load([person(1, name="a"), person(2, name="a"), person(3, name="b")])
    driver.publish(driver.build(**settings))
    driver.load([person(1, name="a"), person(3, name="b"), person(4, name="b")])
    driver.publish(driver.build(**settings))
    driver.load([person(1, name="a"), person(3, name="b")])
    driver.publish(driver.build(**settings))
    assert {row["name"]: row["people"] for row in driver.current().values()} == {"a": 1, "b": 1}
    assert driver.delta() == {"3"}
    assert driver.verify() == []


def test_volatile_functions_are_refused(driver: Driver) -> None:
    """A function that gives another value each time would make every build differ."""
    driver.load(people(1))
    with pytest.raises(ConfigurationError, match=r"random\(\)"):
        driver.build(f"select _key, random()::text as email from {driver.relation}")


def test_model_without_key_is_refused(driver: Driver) -> None:
    """Every entity passes _key through."""
    driver.load(people(1))
    with pytest.raises(ConfigurationError, match="no column _key"):
        driver.build(f"select payload ->> 'email' as email from {driver.relation}")


def test_mass_delete_is_refused_by_key(driver: Driver) -> None:
    """A model that would lose more keys than max_delete_ratio allows is refused, and nothing changes."""
    driver.sync(people(50))
    with pytest.raises(RefusedError, match="would lose 30 of its 50 keys"):
        driver.build(driver.sql() + " where (payload ->> 'id')::bigint <= 20", max_delete_ratio=0.3)
    assert len(driver.current()) == 50


def test_a_failing_value_is_named_without_its_value(driver: Driver) -> None:
    """SQL that fails on a value is reported by SQLSTATE: the value itself never leaves the database."""
    driver.load([person(1, name="s3cret")])
    with pytest.raises(ConfigurationError, match="22P02") as caught:
        driver.build(f"select _key, (payload ->> 'name')::integer as email from {driver.relation}")
    assert "s3cret" not in caught.value.message


def test_declared_indexes_are_on_both_versions(driver: Driver) -> None:
    """Indexes of the model are made with each version, named after it."""
    for _ in range(2):
        driver.sync([person(1, name=f"run {_}")], indexes=[{"columns": ["name", "age"]}])
    rows = driver.connection.execute("select tablename, indexdef from pg_indexes where indexdef like '%(name, age)%'")
    assert {row["tablename"] for row in rows} == {"people_v1", "people_v2"}


def test_rows_without_a_unique_key_are_counted_as_what_they_are(driver: Driver) -> None:
    """A null in the unique key is equal to itself when changes are counted: an update is one."""
    columns = {**PEOPLE, "email": ("text", False)}
    driver.sync([person(1, email=None), person(2, email=None), person(3)], sql=driver.sql(columns))
    driver.sync([person(1, email=None, name="new"), person(2, email=None), person(3)], sql=driver.sql(columns))
    build = driver.last_build()
    assert (build["rows_inserted"], build["rows_updated"], build["rows_deleted"], build["rows_unchanged"]) == (
        0,
        1,
        0,
        2,
    )
