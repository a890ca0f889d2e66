"""What is remembered of what was published: changes, history, marks, references; and views that are made anew."""

from __future__ import annotations

from typing import Any

import pytest

from syncline import db
from tests.projects import PEOPLE, SOURCES, Bench, people, person
from tests.roles import three_roles


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


def redact(bench: Bench, is_on: bool) -> None:
    """Say whether the stream people is redacted."""
    on = SOURCES.replace("path: /people, key: id", "path: /people, key: id, redact: true")
    bench.write(bench.models / "sources.yml", on if is_on else SOURCES)


def test_either_side_of_a_change_may_be_redacted(bench: Bench) -> None:
    """Values of a redacted build show neither when it comes, nor when it goes, nor when it is rolled back."""
    bench.sync()
    for is_on, name in ((True, "first secret"), (False, "plain")):
        redact(bench, is_on)
        bench.api.records["people"][0]["name"] = name
        bench.sync()
    bench.call("rollback")
    assert [(old, new) for _, _, old, new, _ in changes(bench)] == [({"name": None}, {"name": None})] * 3
    with bench.connect() as connection:
        assert db.call(connection, "lift_holds") == [{"lift_holds": "people"}]
    redact(bench, True)
    bench.sync()
    bench.call("rollback")
    assert all(new == {"name": None} for _, _, _, new, _ in changes(bench))


def test_changes_of_what_no_model_is_known_of_hold_no_values(bench: Bench) -> None:
    """What was published before models were kept may be redacted: the fields are told, not what they were."""
    bench.sync()
    with bench.connect() as connection:
        connection.execute("delete from syncline.models where entity = 'people'")
    bench.api.records["people"] = [person(1, name="other"), *people(51)[1:]]
    bench.sync()
    bench.call("rollback")
    told = {(kind, key, back): (old, new) for kind, key, old, new, back in changes(bench)}
    assert told["updated", "1", False] == ({"name": None}, {"name": None})
    assert told["updated", "1", True] == ({"name": None}, {"name": None})
    assert told["inserted", "51", False][0] is None
    assert set(told["deleted", "51", True][0].values()) == {None}
    bench.sync()
    assert bench.query(
        "select count(*) as values from syncline.changes where jsonb_path_exists(new, '$.* ? (@ != null)')"
    ) == [{"values": 0}]


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
    """With `on_missing: mark` it stays, with the time since when; it loses the mark when its record is back.

    Where its values came from is told as before.
    """
    model(bench, on_missing="mark")
    bench.sync()
    everybody = bench.api.records["people"]
    origin = "select stream, path, row_number, load_id, run_id from syncline.lineage('people', '1', 'name')"
    came_from = bench.query(origin)
    assert came_from[0]["load_id"]
    bench.api.records["people"] = everybody[1:]
    bench.sync()
    assert bench.query(origin) == came_from
    assert {row["rule"] for row in bench.query("select rule from syncline.lineage('people', '1')")} == {
        "kept: its record is gone",
        "missing since",
    }
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


VISITORS = """
{{ config(
    materialized='versioned', unique_key='visitor_id',
    external_ref={'type': 'person', 'source': 'shop', 'key': 'by', 'metadata': 'place'}
) }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as visitor_id,
    {{ typed('by', 'text') }} as by,
    {{ typed('place', 'text') }} as place
from {{ source('files', 'visits') }}
"""


def reference(bench: Bench, key: str) -> tuple[str, bool, Any]:
    """Whose the reference is, whether its record is gone, and what is kept with it."""
    (found,) = bench.query("select * from syncline.list_references('person', 'shop', %s)", key)
    return found["entity"], found["gone_at"] is not None, found["metadata"]


@pytest.fixture
def shared(bench: Bench) -> Bench:
    """A project in which two entities have records of one type: people 1 to 50, visitors 1 and 2."""
    bench.write_model("visits", VISITORS)
    bench.write_lines("visits.jsonl", [{"id": 1, "by": 1, "place": "a"}, {"id": 2, "by": 2, "place": "b"}])
    model(bench, external_ref={"type": "person", "source": "shop", "metadata": ["name"]})
    bench.sync("shop", "files")
    return bench


def test_a_reference_goes_to_another_entity_that_has_its_record(shared: Bench) -> None:
    """Only when the last entity that has the record loses it is it gone; a rollback gives it back."""
    assert reference(shared, "1") == ("visits", False, {"place": "a"})
    shared.write_lines("visits.jsonl", [{"id": 2, "by": 2, "place": "b"}])
    shared.sync("files", allow_mass_delete=True)
    assert reference(shared, "1") == ("people", False, {"name": "name 1"})
    assert reference(shared, "2") == ("visits", False, {"place": "b"})
    shared.call("rollback", "visits")
    assert reference(shared, "1") == ("visits", False, {"place": "a"})
    shared.call("publish")
    with shared.connect() as connection:
        db.call(connection, "lift_holds")
    shared.sync("files", allow_mass_delete=True)
    shared.api.records["people"] = people(50)[1:]
    shared.sync()
    assert reference(shared, "1") == ("people", True, {"name": "name 1"})


def test_entities_that_lose_a_record_together_leave_it_gone(shared: Bench) -> None:
    """One publish takes it from both, whoever is asked first; one that moves between them stays."""
    shared.write_lines("visits.jsonl", [{"id": 2, "by": 51, "place": "b"}])
    shared.api.records["people"] = [*people(50)[2:], person(52)]
    shared.sync("shop", "files", allow_mass_delete=True)
    assert reference(shared, "1")[1]
    assert reference(shared, "2")[1]
    assert reference(shared, "51") == ("visits", False, {"place": "b"})
    shared.write_lines("visits.jsonl", [{"id": 2, "by": 52, "place": "b"}])
    shared.api.records["people"] = [*people(50)[2:], person(51)]
    shared.sync("shop", "files", allow_mass_delete=True)
    assert reference(shared, "51") == ("people", False, {"name": "name 51"})
    assert reference(shared, "52") == ("visits", False, {"place": "b"})


def test_a_dropped_entity_does_not_keep_a_reference_from_ending(shared: Bench) -> None:
    """What it had falls to the entity that has the record too, and is gone when that loses it."""
    with shared.connect() as connection:
        db.call(connection, "drop_entity", "visits")
    (shared.models / "visits.sql").unlink()
    shared.api.records["people"] = people(50)[1:]
    shared.sync()
    assert reference(shared, "1")[:2] == ("people", True)
    assert reference(shared, "2")[:2] == ("visits", False)


@pytest.mark.parametrize("writes", [False, True])
def test_another_external_ref_counts_for_all_rows(bench: Bench, writes: bool) -> None:
    """Its type, key and metadata are applied at once, whether rows change or not; a rollback goes back to what was."""
    counts = "select type, source, known - gone as live, gone from syncline.reference_status order by 1, 2"
    model(bench, external_ref="person")
    bench.sync()

    def change(**config: Any) -> list[dict[str, Any]]:
        if writes:
            bench.api.records["people"][0]["age"] += 1
        model(bench, **config)
        bench.sync()
        return bench.query(counts)

    change(external_ref={"type": "person", "metadata": ["name"]})
    assert bench.value("select count(*) from syncline.external_refs where metadata ? 'name'") == 50
    person_gone = {"type": "person", "source": "shop", "live": 0, "gone": 50}
    assert change(external_ref={"type": "guest"}) == [
        {"type": "guest", "source": "shop", "live": 50, "gone": 0},
        person_gone,
    ]
    by_email = change(external_ref={"type": "guest", "key": "email"})
    assert by_email == [{"type": "guest", "source": "shop", "live": 50, "gone": 50}, person_gone]
    if writes:
        bench.call("rollback")
        assert bench.query(counts) == by_email
        assert (
            bench.value(
                "select count(*) from syncline.external_refs where strpos(external_key, '@') > 0 and gone_at is null"
            )
            == 0
        )
        with bench.connect() as connection:
            db.call(connection, "lift_holds")
    assert change() == [{"type": "guest", "source": "shop", "live": 0, "gone": 100}, person_gone]


@pytest.mark.parametrize("config", [{"key": "code"}, {"metadata": ["name", "nmae"]}])
def test_an_external_ref_of_a_column_that_is_not_there_is_refused(bench: Bench, config: dict[str, Any]) -> None:
    """The build says which column the model lacks, before anything is written."""
    bench.sync()
    bench.api.records["people"][0]["name"] = "other"
    model(bench, external_ref={"type": "person"} | config)
    failed = bench.fail()
    assert "people has no column" in failed.message
    assert ("code" if "key" in config else "nmae, which its external_ref names as metadata") in failed.message
    assert failed.exit_code == 2
    assert bench.query("select * from syncline.builds where state <> 'current'") == []


def test_who_does_not_own_the_references_writes_them_without_a_word(bench: Bench) -> None:
    """A runner may write them all and not analyze them: a publish neither fails nor warns."""
    bench.write_model("visits", VISITORS)
    bench.write_lines("visits.jsonl", [{"id": 1, "by": 1, "place": "a"}])
    bench.sync("files", dry_run=True)
    build = bench.value("select next_build from syncline.entities where entity = 'visits'")
    with three_roles(bench.dsn) as roles:
        roles.grant()
        said: list[str | None] = []
        with db.connect(roles.dsn(roles.runner)) as connection:
            connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
            db.call_value(connection, "publish", [build])
        assert said == []
        assert reference(bench, "1") == ("visits", False, {"place": "a"})


def test_references_follow_the_keys_in_delta_alone(bench: Bench) -> None:
    """Neither the entity's rows nor all references are read where one row of many changes."""
    bench.api.records["people"] = people(20_000)
    model(bench, external_ref="person")
    bench.sync()
    with bench.connect() as connection:
        connection.execute("analyze people_v1")
    bench.api.records["people"] = [person(1, name="other"), *people(20_000)[2:]]
    bench.sync()
    bench.api.records["people"] = [person(1, name="another"), *people(20_000)[3:]]
    before = reads(bench)
    bench.sync()
    assert reads(bench) - before < 100
    assert bench.value("select count(*) from syncline.external_refs where gone_at is not null") == 2
    assert bench.value("select reltuples from pg_class where oid = 'syncline.external_refs'::regclass") == 20_000


def reads(bench: Bench) -> int:
    """How many references statements have read or found by an index."""
    bench.query("select pg_stat_force_next_flush()")
    counted = "coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)"
    return int(
        bench.value(f"select {counted} from pg_stat_user_tables where relid = 'syncline.external_refs'::regclass")
    )


def test_an_external_id_tells_its_parts_apart(bench: Bench) -> None:
    """Types, sources and keys that run together otherwise give other ids; ids are UUIDs of version 8."""
    made = [
        bench.value("select syncline.external_id(%s, %s, %s)::text", *parts)
        for parts in (("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ('a","b', "c", ""), ("a", "b", "C"))
    ]
    assert len(set(made)) == len(made)
    assert all(each[14] == "8" and each[19] in "89ab" for each in made)


def test_columns_may_have_the_names_that_a_build_uses(bench: Bench) -> None:
    """Aliases of the engine's own queries do not take the place of columns of the same name."""
    names = ("t", "r", "base", "made", "active", "before", "after", "place", "row_hash", "patched", "settled", "found")
    columns = "".join(f"    {{{{ typed('name', 'text') }}}} as {name},\n" for name in names)
    model(bench, ("    _key,\n", "    _key,\n" + columns), history=True, on_missing="keep")
    bench.sync()
    for name in ("t", "base"):
        with bench.connect() as connection:
            db.call(connection, "set_override", "people", "1", name, '"mine"')
        bench.sync()
        assert bench.current()["1"][name] == "mine"
    bench.api.records["people"] = bench.api.records["people"][1:]
    bench.sync()
    with bench.connect() as connection:
        db.call(connection, "lift_override", "people", "1", "t")
    bench.sync()
    assert (bench.current()["1"]["t"], bench.current()["1"]["base"]) == ("name 1", "mine")
    assert len(bench.query("select * from syncline.lineage('people', '2')")) > len(names)


def test_a_column_takes_another_type_though_no_old_value_fits(bench: Bench) -> None:
    """Records that are typed anew leave no errors for what stood there before."""
    model(bench, on_schema_change="recreate")
    bench.sync()
    model(
        bench, ("typed('born', 'date') }} as born", "typed('age', 'integer') }} as born"), on_schema_change="recreate"
    )
    bench.sync()
    assert bench.current()["1"]["born"] == 21
    assert bench.errors() == []


def test_history_agrees_with_current_after_a_column_and_back(bench: Bench) -> None:
    """A column that a rollback takes away, or that the model drops, is null in the history from then on."""
    model(bench, history=True, on_schema_change="recreate")
    bench.sync()
    model(
        bench,
        ("    _key,\n", "    _key,\n    {{ typed('age', 'text') }} as years,\n"),
        history=True,
        on_schema_change="recreate",
    )
    bench.sync()
    bench.call("rollback")
    now = "select name, years from people_history where _key = '1' and _valid_to is null"
    assert bench.query(now) == [{"name": "name 1", "years": None}]


def test_a_rollback_of_the_publish_that_began_a_history_is_in_it(bench: Bench) -> None:
    """The history says what is current, though the model that is back asked for none."""
    bench.sync()
    bench.api.records["people"][0]["name"] = "bad"
    model(bench, history=True)
    bench.sync()
    bench.call("rollback")
    assert history(bench, "1") == [("bad", False), ("name 1", True)]


def test_what_an_override_displaces_is_what_it_takes_the_place_of(bench: Bench) -> None:
    """Set between a dry run and its publish, it gives back what was published then."""
    model(bench, on_missing="keep")
    bench.sync()
    bench.api.records["people"][0]["name"] = "new"
    bench.sync(dry_run=True)
    with bench.connect() as connection:
        db.call(connection, "set_override", "people", "1", "name", '"mine"')
    assert bench.cli("publish").returncode == 0
    bench.sync()
    assert bench.current()["1"]["name"] == "mine"
    bench.api.records["people"] = bench.api.records["people"][1:]
    bench.sync()
    with bench.connect() as connection:
        db.call(connection, "lift_override", "people", "1", "name")
    bench.sync()
    assert bench.current()["1"]["name"] == "new"


def test_people_decide_while_a_build_is_at_work(bench: Bench) -> None:
    """An override does not wait for a build's transaction, and a build does not wait for an override's."""
    bench.sync()
    with bench.connect() as building, bench.connect() as deciding, building.transaction():
        building.execute("select syncline.open_entity('people', 'public', '[\"email\"]')")
        deciding.execute("set lock_timeout = '2s'")
        db.call(deciding, "set_override", "people", "1", "name", '"mine"')
    with bench.connect() as deciding, deciding.transaction():
        db.call(deciding, "lift_override", "people", "1", "name")
        with bench.connect() as building:
            building.execute("set lock_timeout = '2s'")
            building.execute("select syncline.open_entity('people', 'public', '[\"email\"]')")


def test_a_dry_run_makes_no_history(bench: Bench) -> None:
    """What a model newly asks for is made by the first run that may publish, though no row changes."""
    bench.sync()
    model(bench, history=True, external_ref="person")
    bench.sync(dry_run=True)
    assert bench.value("select to_regclass('people_history')") is None
    assert bench.query("select * from syncline.external_refs") == []
    bench.sync()
    assert bench.value("select count(*) from people_history") == 50
    assert bench.value("select count(*) from syncline.external_refs") == 50


def test_an_override_that_does_not_fit_any_more_is_told_once(bench: Bench) -> None:
    """After a column took another type it is one open warning, however many builds there are."""
    model(bench, on_schema_change="recreate")
    bench.sync()
    with bench.connect() as connection:
        db.call(connection, "set_override", "people", "1", "born", '"1999-12-31"')
    bench.sync()
    model(
        bench, ("typed('born', 'date') }} as born", "typed('age', 'integer') }} as born"), on_schema_change="recreate"
    )
    for _ in range(3):
        bench.sync()
        bench.api.records["people"][5]["age"] += 1
    assert [error["message"] for error in bench.errors()] == ["the override does not fit the column any more"]
    assert bench.current()["1"]["born"] == 21
