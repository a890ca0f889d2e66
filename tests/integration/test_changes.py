"""What is remembered of what was published: changes, history, marks, references; and views that are made anew."""

from __future__ import annotations

from typing import Any

import pytest

from syncline import db
from tests.projects import PEOPLE, SOURCES, Bench, people, person


def model(bench: Bench, *replaced: tuple[str, str], **config: Any) -> None:
    """Write the model people with this configuration, and texts of it replaced."""
    settings = "".join(f", {name}={value!r}" for name, value in config.items()).replace("True", "true")
    text = PEOPLE.replace("unique_key='email'", f"unique_key='email'{settings}")
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    bench.write_model("people", text)


def changes(bench: Bench) -> list[tuple[Any, ...]]:
    found = bench.query("select * from syncline.list_changes('people') order by change_id")
    return [(each["change"], each["_key"], each["old"], each["new"], each["is_rollback"]) for each in found]


def history(bench: Bench, key: str) -> list[tuple[Any, bool]]:
    """The names that the key had, oldest first, and whether each is still there."""
    query = "select name, _valid_to is null as is_there from people_history where _key = %s order by _valid_from"
    return [(row["name"], row["is_there"]) for row in bench.query(query, key)]


def test_each_publish_leaves_what_it_changed(bench: Bench) -> None:
    """A row for each changed row, old and new by field, with run and time; none for the first publish."""
    bench.sync()
    assert changes(bench) == []
    bench.api.records["people"] = [person(1, name="other", age=99), *people(51)[2:]]
    run_id = bench.sync()["run_id"]
    told = {(kind, key): (old, new) for kind, key, old, new, _ in changes(bench)}
    assert set(told) == {("updated", "1"), ("deleted", "2"), ("inserted", "51")}
    assert told["updated", "1"] == ({"name": "name 1", "age": 21}, {"name": "other", "age": 99})
    assert told["deleted", "2"][0]["email"] == "p2@example.com"
    assert told["inserted", "51"][1]["name"] == "name 51"
    assert {each["run_id"] for each in bench.query("select run_id from syncline.list_changes()")} == {run_id}


def test_what_was_not_published_leaves_no_changes(bench: Bench) -> None:
    """A dry run, a candidate that was overtaken and a run that failed count for nothing."""
    bench.sync()
    bench.api.records["people"][0]["name"] = "tried"
    bench.sync(dry_run=True)
    bench.api.records["people"][0]["name"] = "meant"
    bench.sync()
    assert [(old, new) for _, _, old, new, _ in changes(bench)] == [({"name": "name 1"}, {"name": "meant"})]


def test_a_rollback_writes_the_inverse(bench: Bench) -> None:
    """Changes and history tell both ways, and each time can be read as it was."""
    model(bench, history=True)
    bench.sync()
    bench.api.records["people"] = [person(1, name="other"), *people(50)[2:]]
    bench.sync()
    bench.call("rollback")
    assert [(kind, key, back) for kind, key, _, _, back in changes(bench)] == [
        ("deleted", "2", False),
        ("updated", "1", False),
        ("inserted", "2", True),
        ("updated", "1", True),
    ]
    assert history(bench, "1") == [("name 1", False), ("other", False), ("name 1", True)]
    times = bench.query("select published_at from syncline.publications order by publication_id")
    counts = [
        bench.value("select count(*) from people_as_of(%s) where name = 'other' or _key = '2'", each["published_at"])
        for each in times
    ]
    assert counts == [1, 1, 1]
    assert bench.value("select name from people_as_of(%s) where _key = '1'", times[1]["published_at"]) == "other"


def test_history_that_is_asked_for_later_begins_then(bench: Bench) -> None:
    """Turned on where nothing else changes, it holds all that is current; off and on again, it leaves out no end."""
    bench.sync()
    model(bench, history=True)
    bench.sync()
    assert history(bench, "1") == [("name 1", True)]
    model(bench)
    bench.sync()
    bench.api.records["people"][0]["name"] = "unseen"
    bench.sync()
    assert history(bench, "1") == [("name 1", True)]
    model(bench, history=True)
    bench.sync()
    assert history(bench, "1") == [("name 1", False), ("unseen", True)]


def test_history_keeps_what_a_column_was(bench: Bench) -> None:
    """A column that is added, retyped or dropped costs the history nothing."""
    model(bench, history=True, on_schema_change="recreate")
    bench.sync()
    model(
        bench,
        ("typed('age', 'integer') }} as age", "typed('age', 'text') }} as age"),
        ("    {{ typed('kind', 'text') }} as kind,\n", ""),
        history=True,
        on_schema_change="recreate",
    )
    bench.write(bench.models / "models.yml", "models: []\n")
    bench.sync()
    columns = [
        row["column_name"]
        for row in bench.query("select * from information_schema.columns where table_name = 'people_history'")
    ]
    assert "kind" in columns
    assert any(name.startswith("age_until_") for name in columns)
    now = bench.query("select age, kind from people_history where _key = '1' and _valid_to is null")
    assert now == [{"age": "21", "kind": None}]
    assert bench.query("select kind from people_history where _key = '1' and _valid_to is not null") == [
        {"kind": "guest"}
    ]


def test_a_table_of_somebody_else_is_not_taken_for_a_history(bench: Bench) -> None:
    """Where there is one of that name, the model is refused, and the table stays as it is."""
    with bench.connect() as connection:
        connection.execute("create table people_history as select 1 as mine")
    model(bench, history=True)
    failed = bench.fail()
    assert "people_history is there already" in failed.message
    assert failed.exit_code == 2
    assert bench.query("select * from people_history") == [{"mine": 1}]


def test_redacted_streams_leave_no_values_in_changes(bench: Bench) -> None:
    """Which fields changed is told, what they were is not."""
    bench.write(
        bench.models / "sources.yml", SOURCES.replace("path: /people, key: id", "path: /people, key: id, redact: true")
    )
    bench.sync()
    bench.api.records["people"][0]["name"] = "secret"
    bench.sync()
    assert [(old, new) for _, _, old, new, _ in changes(bench)] == [({"name": None}, {"name": None})]


def test_changes_are_pruned_by_age(bench: Bench) -> None:
    """Those of publishes that are older go, and only those."""
    bench.sync()
    for name in ("first", "second"):
        bench.api.records["people"][0]["name"] = name
        bench.sync()
    with bench.connect() as connection:
        past = "update syncline.publications set published_at = now() - interval '9 days' where publication_id <= 2"
        connection.execute(past)
    with bench.connect() as connection:
        assert db.call_value(connection, "prune_changes", "8 days") == 1
    assert [new for _, _, _, new, _ in changes(bench)] == [{"name": "second"}]


def test_a_row_without_a_record_is_marked(bench: Bench) -> None:
    """With `on_missing: mark` it stays, with the time since when; it loses the mark when its record is back."""
    model(bench, on_missing="mark")
    bench.sync()
    everybody = bench.api.records["people"]
    bench.api.records["people"] = everybody[1:]
    bench.sync()
    marked = bench.current()["1"]["_missing_since"]
    assert marked is not None
    assert bench.current()["2"]["_missing_since"] is None
    bench.sync(full_refresh=True)
    assert bench.current()["1"]["_missing_since"] == marked
    bench.verify()
    bench.api.records["people"] = everybody
    bench.sync()
    assert bench.current()["1"]["_missing_since"] is None


def test_a_view_is_made_anew_where_the_model_says_so(bench: Bench) -> None:
    """With `on_schema_change: recreate` a column can go and change its type; owner, grants, options, comments stay."""
    model(bench, on_schema_change="recreate")
    bench.sync()
    with bench.connect() as connection:
        for statement in (
            "grant select on people_current to pg_monitor",
            "grant select (name) on people_current to public",
            "alter view people_current set (security_barrier = true)",
            "comment on view people_current is 'what readers read'",
            "comment on column people_current.name is 'the name'",
        ):
            connection.execute(statement)
    before = facts(bench)
    model(
        bench,
        ("typed('age', 'integer') }} as age", "typed('age', 'text') }} as years"),
        on_schema_change="recreate",
    )
    bench.sync()
    assert facts(bench) == before
    assert "age" not in bench.current()["1"]
    assert bench.current()["1"]["years"] == "21"
    bench.call("rollback")
    assert bench.current()["1"]["age"] == 21
    assert facts(bench) == before


def facts(bench: Bench) -> dict[str, Any]:
    """Owner, grants, options and comments of the current view."""
    (found,) = bench.query("""
        select
            pg_get_userbyid(relowner) as owner,
            array(select acl::text from unnest(relacl) as acl order by 1) as grants,
            reloptions,
            obj_description(oid) as comment,
            (
                select jsonb_build_array(attacl::text, col_description(attrelid, attnum))
                from pg_attribute where attrelid = pg_class.oid and attname = 'name'
            ) as name
        from pg_class where oid = 'people_current'::regclass
    """)
    return found


def test_a_view_that_others_read_is_not_made_anew(bench: Bench) -> None:
    """Where another view reads it, the change is refused with that view's name, and nothing is lost."""
    model(bench, on_schema_change="recreate")
    bench.sync()
    with bench.connect() as connection:
        connection.execute("create view adults as select name from people_current where age > 17")
    model(bench, ("    {{ typed('age', 'integer') }} as age,\n", ""), on_schema_change="recreate")
    failed = bench.fail()
    assert "adults" in (failed.hint or "")
    assert "age is gone" in failed.message
    assert failed.exit_code == 2
    assert "age" in bench.current()["1"]


@pytest.mark.parametrize("config", [{"on_missing": "forget"}, {"history": "yes"}, {"external_ref": {"kind": "x"}}])
def test_unknown_values_of_settings_are_refused(bench: Bench, config: dict[str, Any]) -> None:
    """A setting with a value that it cannot have names the model and what it can be."""
    model(bench, **config)
    failed = bench.fail()
    assert "people" in failed.message
    assert failed.exit_code == 2


REFERRING = """
{{ config(materialized='versioned', unique_key='visit_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as visit_id,
    {{ external_id('person', 'shop', typed('by', 'text')) }} as person_ref
from {{ source('files', 'visits') }}
"""


def test_references_do_not_depend_on_what_is_loaded_first(bench: Bench) -> None:
    """A record that refers to another has its id before that was loaded, and the same after."""
    bench.write_model("visits", REFERRING)
    bench.write_lines("visits.jsonl", [{"id": 1, "by": 7}, {"id": 2, "by": 1000}])
    bench.sync("files")
    before = {row["visit_id"]: row["person_ref"] for row in bench.current("visits").values()}
    model(bench, external_ref={"type": "person", "metadata": ["name"]})
    bench.sync("shop", "files")
    known = bench.query("select * from syncline.list_references('person', 'shop', '7')")
    assert [(row["ref_id"], row["metadata"]) for row in known] == [(before[1], {"name": "name 7"})]
    assert {row["visit_id"]: row["person_ref"] for row in bench.current("visits").values()} == before
    assert bench.query("select * from syncline.list_references('person', 'shop', '1000')") == []
    assert bench.value("select count(distinct ref_id) from syncline.external_refs") == 50


def test_references_are_never_issued_again(bench: Bench) -> None:
    """One that is gone is kept and counted, cleaned when asked, and has its old id when its record is back."""
    model(bench, external_ref="person")
    bench.sync()
    everybody = bench.api.records["people"]
    first = bench.query("select * from syncline.list_references(p_external_key => '1')")[0]
    bench.api.records["people"] = everybody[1:]
    bench.sync()
    assert bench.query("select known, gone, gone_for_90_days from syncline.reference_status") == [
        {"known": 50, "gone": 1, "gone_for_90_days": 0}
    ]
    bench.api.records["people"] = everybody
    bench.sync()
    back = bench.query("select * from syncline.list_references(p_external_key => '1')")[0]
    assert back == first
    bench.api.records["people"] = everybody[1:]
    bench.sync()
    with bench.connect() as connection:
        assert db.call_value(connection, "prune_references", "1 day") == 0
        assert db.call_value(connection, "prune_references", "0 days") == 1
    bench.api.records["people"] = everybody
    bench.sync()
    assert bench.query("select ref_id from syncline.list_references(p_external_key => '1')") == [
        {"ref_id": first["ref_id"]}
    ]


def test_an_external_id_tells_its_parts_apart(bench: Bench) -> None:
    """Types, sources and keys that run together otherwise give other ids; ids are UUIDs of version 8."""
    made = [
        bench.value("select syncline.external_id(%s, %s, %s)::text", *parts)
        for parts in (("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ('a","b', "c", ""), ("a", "b", "C"))
    ]
    assert len(set(made)) == len(made)
    assert all(each[14] == "8" and each[19] in "89ab" for each in made)
