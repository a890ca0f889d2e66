"""Readers of current while publishes go on: no error, no mix of two versions, no long wait; and what a view keeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, sql

from syncline import db
from syncline import publish as publishing
from syncline.errors import LockedError, RunError
from tests.driver import PEOPLE, Driver, person

PUBLISHES = 20
ROWS = 400
COLUMNS = PEOPLE | {"generation": ("bigint", True)}
READ = "select name, age, generation from public.people_current where age >= 0"

Reading = Callable[[psycopg.Connection[Any], list[list[Any]]], None]


def row(driver: Driver, query: str, *arguments: Any) -> dict[str, Any]:
    return dict(driver.connection.execute(query, arguments).fetchone() or {})  # type: ignore[arg-type]


def value(driver: Driver, query: str, *arguments: Any) -> Any:
    return next(iter(row(driver, query, *arguments).values()))


def sync(driver: Driver, generation: int, marked: int = ROWS) -> None:
    """Publish a generation that the first `marked` rows carry; the others stay as they are."""
    records = [person(n, generation=generation if n <= marked else 0) for n in range(1, ROWS + 1)]
    driver.sync(records, sql=driver.sql(COLUMNS))


def read_prepared(connection: psycopg.Connection[Any], seen: list[list[Any]]) -> None:
    """Read with one prepared statement, each time in a transaction of its own."""
    connection.autocommit = True
    seen.append(connection.execute(READ, prepare=True).fetchall())


def read_in_transaction(connection: psycopg.Connection[Any], seen: list[list[Any]]) -> None:
    """Read three times in one open transaction: what it has read stays in place until it ends."""
    with connection.transaction():
        reads = [connection.execute(READ, prepare=True).fetchall() for _ in range(3)]
        time.sleep(0.002)
        reads.append(connection.execute(READ, prepare=True).fetchall())
    assert all(sorted(read) == sorted(reads[0]) for read in reads)
    seen.extend(reads)


def read_repeatably(connection: psycopg.Connection[Any], seen: list[list[Any]]) -> None:
    """Read twice at isolation level repeatable read."""
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        first = connection.execute(READ, prepare=True).fetchall()
        assert sorted(first) == sorted(connection.execute(READ, prepare=True).fetchall())
    seen.append(first)


def read_by_cursor(connection: psycopg.Connection[Any], seen: list[list[Any]]) -> None:
    """Read some rows at a time through a cursor of the server."""
    with connection.transaction(), connection.cursor(name="reader") as cursor:
        cursor.execute(READ)
        found: list[Any] = []
        while batch := cursor.fetchmany(100):
            found += batch
    seen.append(found)


@contextmanager
def reading(dsn: str, readings: list[Reading]) -> Iterator[list[list[Any]]]:
    """Let a thread for each reading read again and again until the block ends; yields all that they saw."""
    done = threading.Event()
    seen: list[list[Any]] = []
    errors: list[BaseException] = []

    def work(read: Reading) -> None:
        try:
            with psycopg.connect(dsn) as connection:
                while not done.is_set():
                    read(connection, seen)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(read,)) for read in readings]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    assert errors == []


@pytest.mark.parametrize("marked", [20, ROWS], ids=["some rows change", "all rows change"])
def test_readers_see_one_version_and_no_error(driver: Driver, marked: int) -> None:
    """While 20 publishes go on, readers with prepared statements and open transactions see each version whole."""
    sync(driver, 1, marked)
    readings = [read_prepared, read_in_transaction, read_repeatably, read_by_cursor]
    with reading(driver.dsn, readings) as seen:
        for generation in range(2, PUBLISHES + 2):
            sync(driver, generation, marked)
            time.sleep(0.02)
    assert value(driver, "select count(*) from syncline.publications") == PUBLISHES + 1
    for rows in seen:
        assert len(rows) == ROWS
        assert len({generation for _, _, generation in rows if generation}) == 1
    assert len({max(generation for _, _, generation in rows) for rows in seen}) > PUBLISHES / 2
    assert driver.verify() == []


def test_readers_go_on_through_a_rollback(driver: Driver) -> None:
    """Rolling back swaps views as a publish does: readers see the one version or the other."""
    sync(driver, 1)
    with reading(driver.dsn, [read_prepared, read_in_transaction, read_prepared, read_by_cursor]) as seen:
        for generation in range(2, 6):
            sync(driver, generation)
            publishing.rollback(driver.connection)
            driver.connection.execute("select syncline.lift_holds()")
    assert seen
    assert all(len(rows) == ROWS and len({row[2] for row in rows}) == 1 for rows in seen)


def test_readers_go_on_where_a_column_is_added(driver: Driver) -> None:
    """A new column is appended to the view; prepared statements over named columns read on."""
    sync(driver, 1)
    with reading(driver.dsn, [read_prepared, read_in_transaction, read_prepared, read_by_cursor]) as seen:
        for count in range(1, 6):
            added = {f"more_{place}": ("text", False) for place in range(count)}
            driver.load([person(n, generation=count + 1) for n in range(1, ROWS + 1)])
            driver.publish(driver.build(driver.sql(COLUMNS | added)))
    assert all(len(rows) == ROWS and len({row[2] for row in rows}) == 1 for rows in seen)


def test_a_long_reader_makes_publish_fail_by_name(driver: Driver) -> None:
    """A reader that keeps the view longer than the patience is named by pid; current is as it was, others read on."""
    sync(driver, 1)
    driver.load([person(n, generation=2) for n in range(1, ROWS + 1)])
    build = driver.build(driver.sql(COLUMNS))
    assert build
    driver.check(build)
    before = driver.current()
    with psycopg.connect(driver.dsn, application_name="a long report") as holder, psycopg.connect(driver.dsn) as other:
        holder.execute(READ)
        waits: list[float] = []
        done = threading.Event()

        def read() -> None:
            other.autocommit = True
            while not done.is_set():
                start = time.monotonic()
                other.execute(READ).fetchall()
                waits.append(time.monotonic() - start)

        thread = threading.Thread(target=read)
        thread.start()
        started = time.monotonic()
        with pytest.raises(RunError) as caught:
            publishing.publish(driver.connection, [build], patience=1)
        took = time.monotonic() - started
        done.set()
        thread.join(10)
        assert caught.value.exit_code == 1
        assert f"pid {holder.info.backend_pid} (a long report" in caught.value.message
        assert "people" in caught.value.message
        assert "syncline publish" in (caught.value.hint or "")
        assert 1 <= took < 3
        # Each try queues readers for the 100 ms that it waits, and no longer.
        assert max(waits) < 0.8
        assert driver.current() == before
        assert value(driver, "select state from syncline.builds where build_id = %s", build) == "checked"
    publishing.publish(driver.connection, [build], patience=1)
    assert {row["generation"] for row in driver.current().values()} == {2}


def test_a_long_reader_keeps_no_build_waiting(driver: Driver) -> None:
    """A build needs no lock on what is published: it goes through while a transaction that read current is open."""
    sync(driver, 1)
    sync(driver, 2)
    driver.load([person(n, generation=3) for n in range(1, ROWS + 1)])
    driver.connection.execute("set statement_timeout = '5s'")
    with psycopg.connect(driver.dsn) as holder:
        holder.execute(READ)
        build = driver.build(driver.sql(COLUMNS))
    driver.publish(build)
    assert {found["generation"] for found in driver.current().values()} == {3}


def test_a_build_keeps_no_reader_waiting(driver: Driver) -> None:
    """Until its transaction ends, a build holds no lock that a reader of current would wait for."""
    sync(driver, 1)
    sync(driver, 2)
    driver.load([person(n, generation=3) for n in range(1, ROWS + 1)])
    with driver.connection.transaction(), psycopg.connect(driver.dsn) as reader:
        driver.build(driver.sql(COLUMNS))
        reader.execute("set lock_timeout = '1s'")
        assert len(reader.execute(READ).fetchall()) == ROWS


def test_a_lock_in_the_way_is_tried_again(driver: Driver) -> None:
    """A reader that ends within the patience only delays the publish."""
    sync(driver, 1)
    driver.load([person(n, generation=2) for n in range(1, ROWS + 1)])
    build = driver.build(driver.sql(COLUMNS))
    assert build
    driver.check(build)
    with psycopg.connect(driver.dsn) as holder:
        holder.execute(READ)
        timer = threading.Timer(0.5, holder.rollback)
        timer.start()
        publishing.publish(driver.connection, [build], patience=10)
        timer.join()
    assert {row["generation"] for row in driver.current().values()} == {2}


def test_nothing_is_compiled(driver: Driver) -> None:
    """No session compiles its statements, whatever the server does: a publish has no time for it, from psql neither."""
    assert driver.connection.execute("show jit").fetchall() == [{"jit": "off"}]
    query = "select proname from pg_proc where proconfig @> '{jit=off}' and pronamespace = 'syncline'::regnamespace"
    found = {row["proname"] for row in driver.connection.execute(query)}
    assert found == {"publish", "rollback", "lineage"}


def test_one_try_waits_a_tenth_of_a_second(driver: Driver) -> None:
    """The SQL function itself gives up after 100 ms, so that no reader queues longer."""
    sync(driver, 1)
    driver.load([person(n, generation=2) for n in range(1, ROWS + 1)])
    build = driver.build(driver.sql(COLUMNS))
    driver.check(build)
    with psycopg.connect(driver.dsn) as holder:
        holder.execute(READ)
        started = time.monotonic()
        with pytest.raises(LockedError), driver.connection.transaction():
            db.call_value(driver.connection, "publish", [build], False)
        assert time.monotonic() - started < 0.6


# What a view keeps


VIEW = """
select
    pg_get_userbyid(relowner) as owner,
    coalesce(reloptions, '{}') as options,
    array(select acl::text from unnest(relacl) as acl order by 1) as grants,
    obj_description(oid) as comment
from pg_class where oid = 'public.people_current'::regclass
"""


@pytest.fixture
def roles(driver: Driver) -> Iterator[tuple[str, str]]:
    """An owner and a reader; roles belong to the whole server, so they get names of their own."""
    name = driver.connection.info.dbname
    owner, reader = f"{name}_owner", f"{name}_reader"
    for role in (owner, reader):
        driver.connection.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
    yield owner, reader
    for role in (owner, reader):
        driver.connection.execute(sql.SQL("drop owned by {}; drop role {}").format(*[sql.Identifier(role)] * 2))


def execute(driver: Driver, statement: str, *names: str) -> None:
    driver.connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", ["security_invoker = true", "security_barrier = true, security_invoker = false", ""]
)
def test_a_view_keeps_options_owner_and_grants(driver: Driver, roles: tuple[str, str], options: str) -> None:
    """Publishes, one with a new column, and a rollback leave options, owner, grants and comment as they were."""
    owner, reader = roles
    sync(driver, 1)
    if options:
        execute(driver, f"alter view people_current set ({options})")
    execute(driver, "grant usage, create on schema public to {}", owner)
    execute(driver, "alter default privileges in schema public grant select on tables to {}, {}", owner, reader)
    execute(driver, "grant select on people_v1, people_v2 to {}, {}", owner, reader)
    execute(driver, "alter view people_current owner to {}", owner)
    execute(driver, "grant select (name) on people_current to {} with grant option", reader)
    execute(driver, "grant select on people_current to public")
    execute(driver, "comment on view people_current is 'Our people.'")
    before = row(driver, VIEW)
    assert before["owner"] == owner
    for change in ("two", "three", "a column", "back"):
        if change == "back":
            publishing.rollback(driver.connection)
        else:
            added = {"city": ("text", False)} if change == "a column" else {}
            driver.load([person(n, name=change, generation=2) for n in range(1, 30)], allow_mass_delete=True)
            driver.publish(driver.build(driver.sql(COLUMNS | added)))
        assert row(driver, VIEW) == before, change
        execute(driver, "set role {}", reader)
        found = value(driver, "select distinct name from people_current")
        driver.connection.execute("reset role")
        assert found == ("three" if change == "back" else change)
    columns = "select attacl::text from pg_attribute where attrelid = 'people_current'::regclass and attname = 'name'"
    assert reader in value(driver, columns)


def test_views_on_current_stay(driver: Driver) -> None:
    """A view that others made on current is no obstacle, and shows what is published."""
    sync(driver, 1)
    driver.connection.execute("create view report as select count(*), max(generation) as newest from people_current")
    for generation in (2, 3, 4):
        sync(driver, generation)
        assert row(driver, "select * from report") == {"count": ROWS, "newest": generation}
