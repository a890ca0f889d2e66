"""Checks over the changed rows: what they read, what makes them read all, and that dbt alone always does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.projects import PEOPLE, Bench, Watcher, people, person

NARROWED = """
models:
  - name: people
    description: People.
    columns:
      - name: name
        description: Called.
        data_tests: [not_null]
      - name: kind
        description: What kind of person.
        data_tests:
          - accepted_values: {arguments: {values: [guest, member]}}
  - name: visits
    description: Visits.
    columns:
      - name: visit_id
        description: Whose.
        data_tests:
          - relationships: {arguments: {to: ref('people'), field: person_id}}
"""

ON_KIND = """
models:
  - name: people
    description: People.
    columns:
      - name: kind
        description: What kind of person.
        data_tests:
          - {test}
"""

CUSTOM_TEST = """
{% test known_kind(model, column_name) %}
select _key from {{ model }} where {{ column_name }} not in ('guest', 'member')
{% endtest %}
"""

OWN_TEST = """
{% test not_null(model, column_name) %}
select _key, {{ column_name }} from {{ model }}
where not exists (
    {{ dbt.test_not_null(model, column_name) }}
) and {{ column_name }} = 'stranger'
{% endtest %}
"""

OWN_DEFAULT = """
{% macro default__test_not_null(model, column_name) %}
select _key, {{ column_name }} from {{ model }} where {{ column_name }} = 'stranger'
{% endmacro %}
"""


@pytest.fixture
def shop(bench: Bench) -> Bench:
    """Fifty people and two visits, checked and published twice, so that both versions are written."""
    bench.write(bench.models / "models.yml", NARROWED)
    bench.sync("shop", "files")
    bench.api.records["people"][48] = person(49, age=9)
    bench.sync("shop")
    return bench


def plant(bench: Bench, key: str, assignment: str = "kind = 'stranger'", entity: str = "people") -> None:
    """Change a row in both versions behind the engine's back: only a check that reads all can see it."""
    for version in (1, 2):
        bench.query(f"update {entity}_v{version} set {assignment} where _key = %s returning 1", key)


def change(bench: Bench, number: int = 3, **changes: Any) -> None:
    bench.api.records["people"][number - 1] = person(number, **changes)


def test_unchanged_rows_are_not_read(shop: Bench) -> None:
    """Where a test passed on what is published, it reads the changed rows alone, of all three kinds."""
    plant(shop, "7")
    plant(shop, "8", "name = null")
    change(shop, age=77)
    shop.sync()
    assert shop.current()["3"]["age"] == 77
    assert shop.current()["7"]["kind"] == "stranger"


def test_where_nothing_changed_nothing_is_read(shop: Bench) -> None:
    """A build that wrote nothing keeps a version whose tests have passed."""
    plant(shop, "7")
    shop.sync()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "stranger"}, "accepted_values on people.kind: 1 rows, for instance _key 3"),
        ({"name": None}, "not_null on people.name: 1 rows, for instance _key 3"),
    ],
)
def test_a_changed_row_that_fails_is_named(shop: Bench, changes: dict[str, Any], message: str) -> None:
    """A narrowed test finds what the whole one would, in the same words, and again in the next run."""
    change(shop, **changes)
    assert message in shop.fail().message
    assert message in shop.fail().message
    change(shop)
    shop.sync()


def test_a_changed_child_without_a_parent_is_named(shop: Bench) -> None:
    """A relationships test reads the children that changed, where the parent is published by another run."""
    plant(shop, "2", "visit_id = 900", "visits")
    shop.write_lines("visits.jsonl", [{"id": 1, "place": "new"}, {"id": 2, "place": "there"}])
    shop.sync("files")
    shop.write_lines("visits.jsonl", [{"id": 1, "place": "new"}, {"id": 2, "place": "there"}, {"id": 77}])
    assert "relationships on visits.visit_id: 1 rows, for instance _key 77" in shop.fail("files").message


def test_unchanged_children_of_a_parent_that_went_are_named(shop: Bench) -> None:
    """Of the unchanged children those are read whose parent was deleted, in runs of the parent and of both."""
    plant(shop, "2", "visit_id = 900", "visits")
    change(shop, age=78)
    shop.sync()
    del shop.api.records["people"][0]
    message = "relationships on visits.visit_id: 1 rows, for instance _key 1"
    assert message in shop.fail().message
    shop.write_lines("visits.jsonl", [{"id": 1, "place": "here"}, {"id": 2, "place": "there"}, {"id": 4}])
    assert message in shop.fail("shop", "files").message


def test_types_that_differ_in_what_is_equal_read_all(bench: Bench) -> None:
    """A parent whose value changes only in case, which its type citext does not tell, loses a child of type text."""
    with bench.connect() as connection:
        connection.execute("create extension citext")
    bench.write_model("people", PEOPLE.replace("typed('name', 'text') }}", "typed('name', 'text') }}::citext"))
    test = "relationships: {arguments: {to: ref('people'), field: name}}"
    models = f"models:\n  - name: visits\n    columns:\n      - name: place\n        data_tests:\n          - {test}\n"
    bench.write(bench.models / "models.yml", models)
    bench.write_lines("visits.jsonl", [{"id": 1, "place": "name 1"}])
    bench.sync("shop", "files")
    change(bench, 1, name="Name 1")
    assert "relationships on visits.place: 1 rows, for instance _key 1" in bench.fail("shop", "files").message


def test_a_changed_test_reads_all(shop: Bench) -> None:
    """With another definition a test has passed nowhere; with another name it is the same test."""
    plant(shop, "7")
    change(shop, age=77)
    renamed = NARROWED.replace("- accepted_values: {", "- accepted_values: {name: kinds, ")
    shop.write(shop.models / "models.yml", renamed)
    shop.sync()
    shop.write(shop.models / "models.yml", NARROWED.replace("member]", "member, vip]"))
    assert "1 rows, for instance _key 7" in shop.fail().message


def test_a_test_that_failed_reads_all(shop: Bench) -> None:
    """A test of severity warn that found rows finds them all again, whatever was published meanwhile."""
    values = "values: [guest, member]}"
    shop.write(shop.models / "models.yml", NARROWED.replace(values, values + ", config: {severity: warn}"))
    change(shop, kind="stranger")
    assert shop.sync()["status"] == "succeeded"
    plant(shop, "7")
    change(shop, kind="stranger", age=77)
    shop.write(shop.models / "models.yml", NARROWED)
    assert "accepted_values on people.kind: 2 rows, for instance _key 3, 7" in shop.fail().message


def test_the_delta_of_a_failed_candidate_is_not_that_of_what_is_published(shop: Bench) -> None:
    """What was published with a warning is read whole again, though a candidate that failed has changed delta since."""
    values = "values: [guest, member]}"
    shop.write(shop.models / "models.yml", NARROWED.replace(values, values + ", config: {severity: warn}"))
    change(shop, kind="stranger")
    shop.sync()
    change(shop, 5, name=None)
    assert "not_null on people.name" in shop.fail().message
    change(shop, 5)
    watcher = Watcher()
    assert shop.run(watcher=watcher)["errors"] == []
    assert any("accepted_values on people.kind: 1 rows, for instance _key 3" in note for note in watcher.notes)


def test_a_full_refresh_reads_all(shop: Bench) -> None:
    """--full-refresh is the way to be sure: here it finds a row that is kept though its record is gone."""
    shop.write_model("people", PEOPLE.replace("unique_key=", "on_missing='keep', unique_key="))
    del shop.api.records["people"][49]
    shop.sync()
    plant(shop, "50")
    change(shop, age=77)
    shop.sync()
    assert "1 rows, for instance _key 50" in shop.fail(full_refresh=True).message


def test_dbt_alone_reads_all(shop: Bench) -> None:
    """Without a run nothing is narrowed, and nothing is remembered."""
    plant(shop, "7")
    before = shop.query("select * from syncline.passes order by 1, 2")
    nodes = shop.engine.dbt.build(["people"], None)
    assert [node["failures"] for node in nodes if node.get("test") == "accepted_values"] == [1]
    assert shop.query("select * from syncline.passes order by 1, 2") == before


def test_passes_stay_true_through_a_rollback(shop: Bench) -> None:
    """After a rollback what passed on the older build counts, and what passed on the other is forgotten."""
    change(shop, 5, age=55)
    shop.sync()
    taken = shop.value("select current_build from syncline.entities where entity = 'people'")
    assert shop.call("rollback").returncode == 0
    plant(shop, "7")
    change(shop, age=77)
    shop.sync()
    assert shop.query("select 1 from syncline.passes where %s in (build_id, parent_build)", taken) == []
    change(shop, age=77, kind="alien")
    assert "1 rows, for instance _key 3" in shop.fail().message


@pytest.mark.parametrize(
    "test",
    [
        "accepted_values: {arguments: {values: [guest, member]}, config: {where: age > 0}}",
        'accepted_values: {arguments: {values: [guest, member]}, config: {fail_calc: "coalesce(sum(n_records), 0)"}}',
        "accepted_values: {arguments: {values: [\"'guest'\", \"lower('MEMBER')\"], quote: false}}",
        "known_kind",
    ],
)
def test_what_may_hang_on_more_than_single_rows_reads_all(bench: Bench, test: str) -> None:
    """Conditions, other counts, expressions and custom tests see every row each time."""
    bench.write(bench.macros / "known_kind.sql", CUSTOM_TEST)
    try:
        bench.write(bench.models / "models.yml", ON_KIND.replace("{test}", test))
        bench.sync()
        plant(bench, "7")
        change(bench, age=77)
        assert "_key 7" in bench.fail().message
    finally:
        (bench.macros / "known_kind.sql").unlink()


def test_a_singular_test_reads_all(bench: Bench) -> None:
    """A test that is written as SQL sees every row each time."""
    bench.write(bench.tests / "kinds.sql", "select _key from {{ ref('people') }} where kind = 'stranger'")
    bench.sync()
    plant(bench, "7")
    change(bench, age=77)
    assert "_key 7" in bench.fail().message


@pytest.mark.parametrize("macro", [OWN_TEST, OWN_DEFAULT])
def test_a_project_may_have_a_test_of_dbts_name(bench: Bench, macro: str) -> None:
    """A project's own not_null, or its own SQL for dbt's, is what runs, and reads all."""
    bench.write(bench.macros / "own.sql", macro)
    try:
        bench.write(bench.models / "models.yml", ON_KIND.replace("{test}", "not_null"))
        bench.sync()
        plant(bench, "7")
        change(bench, age=77)
        assert "_key 7" in bench.fail().message
    finally:
        (bench.macros / "own.sql").unlink()


def test_expressions_read_all(bench: Bench) -> None:
    """A test on an expression instead of a column sees every row each time."""
    test = "not_null: {arguments: {column_name: \"nullif(kind, 'stranger')\"}}"
    models = f"models:\n  - name: people\n    description: People.\n    data_tests:\n      - {test}\n"
    bench.write(bench.models / "models.yml", models)
    bench.sync()
    plant(bench, "7")
    change(bench, age=77)
    assert "not_null on people" in bench.fail().message


def test_failures_that_are_stored_are_the_same(shop: Bench) -> None:
    """A narrowed test that stores what it finds stores whole rows."""
    columns = "data_tests:\n          - not_null: {config: {store_failures: true, schema: audit}}"
    shop.write(shop.models / "models.yml", NARROWED.replace("data_tests: [not_null]", columns))
    shop.sync()
    plant(shop, "7", "name = null")
    change(shop, name=None)
    assert "not_null on people.name: 1 rows, for instance _key 3" in shop.fail().message
    (stored,) = shop.query(
        "select table_schema, table_name from information_schema.tables where table_name ~ '^not_null'"
    )
    rows = shop.query(f"select * from {stored['table_schema']}.{stored['table_name']}")
    assert [(row["_key"], row["person_id"]) for row in rows] == [("3", 3)]


def test_all_people_can_be_new(bench: Bench) -> None:
    """On the first build, and where a version is written with other columns, a test reads all."""
    bench.write(bench.models / "models.yml", NARROWED)
    bench.api.records["people"] = [*people(49), person(50, kind="stranger")]
    assert "_key 50" in bench.fail("shop").message
    bench.api.records["people"] = people(50)
    bench.sync()
    plant(bench, "7", "name = null")
    bench.write_model("people", PEOPLE.replace("as name,", "as name,\n    length('x') as letters,"))
    bench.sync()
    assert bench.current()["7"]["name"] == "name 7"
