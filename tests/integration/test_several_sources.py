"""One entity of several sources, through dbt and the real pipeline: whose value wins, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from syncline import db
from syncline.errors import ConfigurationError, RefusedError
from tests.projects import Bench

SOURCES = """
sources:
  - name: files
    schema: raw_files
    config: {meta: {syncline: {connector: file, path: data}}}
    tables:
      - {name: sheet, config: {meta: {syncline: {path: sheet.jsonl, key: code}}}}
      - {name: crm, config: {meta: {syncline: {path: crm.jsonl, key: code}}}}
"""

SHEET = """
{{ config(materialized='ephemeral') }}
select
    _key,
    {{ typed('code', 'text', required=true) }} as code,
    {{ typed('name', 'text') }} as name,
    {{ typed('email', 'text') }} as email,
    {{ typed('tier', 'text') }} as tier,
    {{ typed('price', 'numeric') }} as price
from {{ source('files', 'sheet') }}
"""

CRM = """
{{ config(materialized='ephemeral') }}
select
    _key,
    {{ typed('code', 'text', required=true) }} as code,
    {{ typed('title', 'text') }} as name,
    {{ typed('contact.mail', 'text') }} as email,
    {{ typed('tier', 'text') }} as tier
from {{ source('files', 'crm') }}
"""

FIELDS = """
        'code': {},
        'name': {},
        'email': {'priority': ['crm', 'sheet']},
        'tier': {'authority': {'crm': 'reference'}},
        'price': {'priority': ['sheet']},
        'gross': {'authority': 'derived', 'value': 'price * 2'},
"""


def merged(fields: str = FIELDS, *, sources: str | None = None, **config: Any) -> str:
    """The model partners; `config` is its configuration."""
    settings = {"unique_key": "code"} | config
    listed = ", ".join(f"{name}={json.dumps(value)}" for name, value in settings.items()).replace("null", "none")
    given = sources or "{'sheet': ref('from_sheet'), 'crm': ref('from_crm')}"
    return (
        f"{{{{ config(materialized='versioned', {listed}) }}}}\n"
        f"{{{{ merged(sources={given}, fields={{{fields}}}) }}}}\n"
    )


@pytest.fixture
def partners(bench: Bench) -> Bench:
    """A project whose entity partners is merged from a sheet and a CRM."""
    for name in ("people", "visits", "prices"):
        (bench.models / f"{name}.sql").unlink()
    bench.write(bench.models / "models.yml", "models: []\n")
    bench.write(bench.models / "sources.yml", SOURCES)
    bench.write_model("from_sheet", SHEET)
    bench.write_model("from_crm", CRM)
    bench.write_model("partners", merged())
    sheet(bench, a={"name": "Alpha", "email": "a@sheet", "price": "2"}, b={"name": "Beta", "tier": "gold"})
    crm(
        bench, a={"title": "Alfa", "contact": {"mail": "a@crm"}, "tier": "silver"}, c={"title": "Gamma", "tier": "none"}
    )
    return bench


def sheet(bench: Bench, **rows: dict[str, Any]) -> None:
    bench.write_lines("sheet.jsonl", [{"code": code} | row for code, row in rows.items()])


def crm(bench: Bench, **rows: dict[str, Any]) -> None:
    bench.write_lines("crm.jsonl", [{"code": code} | row for code, row in rows.items()])


def sync(bench: Bench, **options: Any) -> dict[str, Any]:
    return bench.sync("files", allow_mass_delete=True, **options)


def row(code: str, **values: Any) -> dict[str, Any]:
    return {"code": code, "name": None, "email": None, "tier": None, "price": None, "gross": None} | values


def call(bench: Bench, function: str, *arguments: Any) -> Any:
    with bench.connect() as connection:
        return db.call_value(connection, function, *arguments)


def found(report: dict[str, Any]) -> int:
    """How many new conflicts the run tells of."""
    count: int = report["entities"]["partners"]["conflicts"]
    return count


def conflicts(bench: Bench) -> dict[tuple[str, str], tuple[Any, ...]]:
    rows = bench.query("select * from syncline.conflicts where state <> 'closed'")
    return {
        (found["_key"], found["column_name"]): (found["candidates"], found["winner"], found["rule"], found["state"])
        for found in rows
    }


def test_each_field_has_the_value_of_the_source_that_is_to_say_it(partners: Bench) -> None:
    """By priority and authority, over rows of one source, of the other and of both; disagreements are conflicts."""
    sync(partners)
    assert partners.current("partners") == {
        "a": row("a", name="Alpha", email="a@crm", tier="silver", price=2, gross=4),
        "b": row("b", name="Beta", tier="gold"),
        "c": row("c", name="Gamma", tier="none"),
    }
    assert conflicts(partners) == {
        ("a", "name"): ({"sheet": "Alpha", "crm": "Alfa"}, "sheet", "priority", "open"),
        ("a", "email"): ({"sheet": "a@sheet", "crm": "a@crm"}, "crm", "priority", "open"),
    }


def test_a_reference_fills_new_rows_and_no_others(partners: Bench) -> None:
    """What a reference says later changes nothing until a run with force_overwrite; a source of truth always counts."""
    sync(partners)
    crm(partners, a={"title": "Alfa", "contact": {"mail": "a@crm"}, "tier": "bronze"}, d={"tier": "new"})
    sync(partners)
    now = partners.current("partners")
    assert (now["a"]["tier"], now["d"]["tier"]) == ("silver", "new")
    sync(partners, force_overwrite=True)
    assert partners.current("partners")["a"]["tier"] == "bronze"
    sheet(partners, a={"name": "Alpha", "tier": "gold"})
    sync(partners)
    assert partners.current("partners")["a"]["tier"] == "gold"
    assert conflicts(partners)["a", "tier"] == ({"sheet": "gold", "crm": "bronze"}, "sheet", "authority", "open")


def test_a_conflict_counts_and_closes_by_itself(partners: Bench) -> None:
    """It is one row however often it is met; where the sources agree again, or the row is gone, it closes."""
    assert found(sync(partners)) == 2
    sheet(partners, a={"name": "Alpha", "email": "other@sheet"}, b={"name": "Beta"})
    assert found(sync(partners)) == 1
    assert found(sync(partners, full_refresh=True)) == 0
    assert partners.value("select open_conflicts from syncline.entity_status") == 2
    seen = "select times_seen, state from syncline.conflicts where _key = 'a' and column_name = %s"
    assert partners.query(seen, "email") == [{"times_seen": 2, "state": "open"}]
    crm(partners, a={"title": "Alpha", "contact": {"mail": "a@crm"}}, c={"title": "Gamma"})
    sync(partners)
    assert partners.query(seen, "name")[0]["state"] == "closed"
    assert partners.query(seen, "email") == [{"times_seen": 3, "state": "open"}]
    crm(partners, c={"title": "Gamma"})
    sheet(partners, b={"name": "Beta"})
    sync(partners)
    assert conflicts(partners) == {}
    number = partners.value("select conflict_id from syncline.conflicts where column_name = 'email'")
    with pytest.raises(RefusedError, match="is closed"):
        call(partners, "resolve_conflict", number, None, "crm")
    with pytest.raises(RefusedError, match="no row with _key a"):
        call(partners, "set_override", "partners", "a", "email", '"x"')


def test_closed_conflicts_are_pruned(partners: Bench) -> None:
    """Those that were closed longer ago go, but for those that a rollback would open again."""
    sync(partners)
    crm(partners, a={"title": "Alpha", "contact": {"mail": "a@sheet"}})
    sync(partners)
    before = conflicts(partners)
    assert (before, call(partners, "prune_conflicts", "0 seconds")) == ({}, 0)
    sheet(partners, a={"name": "Alpha", "email": "a@sheet", "price": "3"})
    sync(partners)
    assert call(partners, "prune_conflicts", "1 day") == 0
    assert call(partners, "prune_conflicts", "0 seconds") == 2
    assert partners.value("select count(*) from syncline.conflicts") == 0


def test_a_decision_outranks_every_source_until_it_is_lifted(partners: Bench) -> None:
    """A value, or a source that is trusted, takes effect in the next run though no record changed, and goes with it."""
    sync(partners)
    call(partners, "set_override", "partners", "a", "name", '"ours"', None, "we know", "ann")
    call(partners, "set_override", "partners", "a", "email", None, "sheet", "they know", "ann")
    call(partners, "set_override", "partners", "a", "price", "10", None, None, "ann")
    report = sync(partners)
    assert report["entities"]["partners"]["updated"] == 1
    assert partners.current("partners")["a"] == row(
        "a", name="ours", email="a@sheet", tier="silver", price=10, gross=20
    )
    assert {state for _, _, _, state in conflicts(partners).values()} == {"resolved"}
    sheet(partners, a={"name": "Alpha", "email": "new@sheet", "price": "3"}, b={"name": "Beta", "tier": "gold"})
    sync(partners)
    assert partners.current("partners")["a"]["email"] == "new@sheet"
    for field in ("name", "email", "price"):
        call(partners, "lift_override", "partners", "a", field, "ann")
    sync(partners)
    assert partners.current("partners")["a"] == row("a", name="Alpha", email="a@crm", tier="silver", price=3, gross=6)
    assert {state for _, _, _, state in conflicts(partners).values()} == {"open"}


def test_what_an_override_displaced_returns_where_nothing_else_says_it(partners: Bench) -> None:
    """A reference's value that an override took the place of is back when it is lifted."""
    sync(partners)
    call(partners, "set_override", "partners", "a", "tier", '"mine"')
    sync(partners)
    crm(partners, a={"title": "Alfa", "tier": "later"}, c={"title": "Gamma", "tier": "none"})
    sync(partners)
    assert partners.current("partners")["a"]["tier"] == "mine"
    call(partners, "lift_override", "partners", "a", "tier")
    sync(partners)
    assert partners.current("partners")["a"]["tier"] == "silver"


def test_an_ignored_conflict_is_silent_while_it_says_the_same(partners: Bench) -> None:
    """It stays ignored when it is met again, and opens when a source says something else."""
    sync(partners)
    number = partners.value("select conflict_id from syncline.conflicts where column_name = 'name'")
    call(partners, "ignore_conflict", number, "one of them is a nickname", "ann")
    sheet(partners, a={"name": "Alpha", "price": "7"}, b={"name": "Beta"})
    sync(partners)
    assert conflicts(partners)["a", "name"][3] == "ignored"
    sheet(partners, a={"name": "Alphabet"}, b={"name": "Beta"})
    sync(partners)
    assert conflicts(partners)["a", "name"] == ({"sheet": "Alphabet", "crm": "Alfa"}, "sheet", "priority", "open")


def test_conflicts_go_back_with_a_rollback(partners: Bench) -> None:
    """After a rollback they are what they were before the publish."""
    sync(partners)
    before = conflicts(partners)
    sheet(partners, a={"name": "Alfa", "email": "a@crm"}, c={"name": "Delta"})
    sync(partners)
    assert conflicts(partners) == {("c", "name"): ({"sheet": "Delta", "crm": "Gamma"}, "sheet", "priority", "open")}
    partners.call("rollback")
    assert conflicts(partners) == before


def test_a_source_and_a_column_can_be_switched_off(partners: Bench) -> None:
    """Nothing of a source that is off counts, its rows included; a field that is off has no value."""
    off = "{'sheet': ref('from_sheet'), 'crm': {'model': ref('from_crm'), 'active': false}}"
    fields = FIELDS.replace("'price': {'priority': ['sheet']}", "'price': {'priority': ['sheet'], 'active': false}")
    partners.write_model("partners", merged(fields, sources=off))
    sync(partners)
    assert partners.current("partners") == {
        "a": row("a", name="Alpha", email="a@sheet"),
        "b": row("b", name="Beta", tier="gold"),
    }
    assert conflicts(partners) == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("'code': {}, 'name': {'priority': ['crm', 'crm']}", "names a source twice"),
        ("'code': {}, 'name': {'priority': {'crm': 1, 'sheet': 1}}", "list its sources, the highest first"),
        ("'code': {}, 'name': {'priority': ['shop']}", "'shop', which is not one of its sources: sheet, crm"),
        (
            "'code': {}, 'name': {'priority': ['crm'], 'authority': {'sheet': 'reference'}}",
            "not one of its sources: crm",
        ),
        ("'code': {}, 'name': {'authority': 'owner'}", "it can be source_of_truth, reference or derived"),
        ("'code': {}, 'name': {'rank': 1}", "unknown setting 'rank'"),
        ("'code': {}, 'name': {'authority': 'derived'}", "needs a 'value'"),
        ("'code': {'priority': ['crm']}", "no field takes anything from the source sheet"),
        ("'code': {}, '_name': {}", "begins with an underscore"),
    ],
)
def test_settings_that_make_no_sense_are_refused(partners: Bench, fields: str, said: str) -> None:
    """Unknown and unused settings, ties in a priority, sources that are not there: exit 2, before anything is built."""
    partners.write_model("partners", merged(fields))
    failed = partners.fail("files")
    assert said in failed.message
    assert "partners" in failed.message
    assert failed.exit_code == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (FIELDS.replace("'price'", "'fee'"), "column sheet.fee does not exist"),
        (FIELDS.replace("'price': {'priority': ['sheet']}", "'price': {}"), "column crm.price does not exist"),
    ],
)
def test_a_field_that_a_staging_model_lacks_is_named(partners: Bench, fields: str, said: str) -> None:
    """Authority over a column that is not there: exit 2, and current stays."""
    sync(partners)
    before = partners.current("partners")
    partners.write_model("partners", merged(fields))
    failed = partners.fail("files")
    assert said in failed.message
    assert failed.exit_code == 2
    assert partners.current("partners") == before


def test_two_types_for_one_field_are_refused(partners: Bench) -> None:
    """A field that is text in one staging model and a number in another: exit 2 and both named."""
    partners.write_model("from_crm", CRM.replace("typed('tier', 'text')", "typed('tier', 'integer')"))
    failed = partners.fail("files")
    assert "tier is integer in crm and text in sheet" in failed.message
    assert failed.exit_code == 2


def test_what_the_build_needs_of_a_merge_has_to_be_passed_on(partners: Bench) -> None:
    """A model that selects some columns from merged() alone is refused; with merged.* it may add its own."""
    partners.write_model(
        "partners",
        merged().replace("{{ merged(", "select merged.*, upper(name) as label from (\n{{ merged(").rstrip()
        + "\n) as merged\n",
    )
    sync(partners)
    assert partners.current("partners")["a"]["label"] == "ALPHA"
    partners.write_model(
        "partners", merged().replace("{{ merged(", "select _key, code from (\n{{ merged(").rstrip() + "\n) as merged\n"
    )
    assert "does not pass on _conflicts, _new_tier of merged()" in partners.fail("files").message


def test_a_key_that_one_source_lacks_is_a_row_error_of_its_load(partners: Bench) -> None:
    """A record whose matching field is null costs nobody else anything."""
    partners.write_lines("crm.jsonl", [{"code": None, "title": "nobody"}, {"code": "a", "title": "Alfa"}])
    sync(partners)
    assert set(partners.current("partners")) == {"a", "b"}
    assert [error["stream"] for error in partners.errors()] == ["files.crm"]


def test_a_matching_field_that_is_no_key_takes_a_full_comparison(partners: Bench) -> None:
    """By another field than the streams' key: refused with delta auto; with full, repeats and nulls are row errors."""
    for name, text in (("from_sheet", SHEET), ("from_crm", CRM)):
        path = "email" if name == "from_sheet" else "contact.mail"
        partners.write_model(name, text.replace("    _key,", f"    {{{{ typed('{path}', 'text') }}}} as _key,"))
    assert "joined by something else than the key" in partners.fail("files").message
    partners.write_model("partners", merged(unique_key="_key", delta="full"))
    sheet(
        partners,
        s1={"name": "Alpha", "email": "a@x"},
        s2={"name": "Beta", "email": "b@x"},
        s3={"name": "Bert", "email": "b@x"},
        s4={"name": "Nemo"},
    )
    crm(partners, c1={"title": "Alfa", "contact": {"mail": "a@x"}, "tier": "gold"})
    sync(partners)
    assert {key: each["name"] for key, each in partners.current("partners").items()} == {"a@x": "Alpha"}
    assert {error["message"] for error in partners.errors(entity="partners")} == {
        "a source has this _key several times",
        "a record has nothing to be matched by: its _key is null",
    }
    assert conflicts(partners)["a@x", "name"][0] == {"sheet": "Alpha", "crm": "Alfa"}


def test_an_override_of_a_column_that_is_gone_rests(partners: Bench) -> None:
    """It does no harm, is listed as unused, and counts again when the column is back."""
    partners.write_model("partners", merged(on_schema_change="recreate"))
    sync(partners)
    call(partners, "set_override", "partners", "a", "price", "9")
    sync(partners)
    without = FIELDS.replace("'price': {'priority': ['sheet']},", "").replace("price * 2", "1")
    partners.write_model("partners", merged(without, on_schema_change="recreate"))
    sync(partners)
    assert "price" not in partners.current("partners")["a"]
    status = partners.query("select status from syncline.list_overrides()")[0]["status"]
    assert status.startswith("unused")
    with pytest.raises(ConfigurationError, match="no column price"):
        call(partners, "set_override", "partners", "a", "price", "9")
    partners.write_model("partners", merged(on_schema_change="recreate"))
    sync(partners)
    assert partners.current("partners")["a"]["price"] == 9


@pytest.mark.parametrize(
    ("column", "value", "source", "said"),
    [
        ("price", '"dear"', None, "does not fit partners.price"),
        ("name", None, "shop", "takes nothing from a source shop"),
        ("price", None, "crm", "takes nothing from a source crm"),
        ("nothing", '"x"', None, "no column nothing"),
        ("_key", '"x"', None, "no column _key"),
        ("name", '"x"', "crm", "a value or a source, not both"),
    ],
)
def test_overrides_that_cannot_be_are_refused(
    partners: Bench, column: str, value: str | None, source: str | None, said: str
) -> None:
    """A value of another type, a source that says nothing of the field, a column that is not there: nothing is set."""
    sync(partners)
    with pytest.raises(ConfigurationError, match=said):
        call(partners, "set_override", "partners", "a", column, value, source)
    assert partners.query("select * from syncline.overrides") == []
    assert partners.query("select * from syncline.touches") == []


def test_dbt_alone_shows_a_merged_model(partners: Bench) -> None:
    """`dbt build` makes the candidate without the runner's help, as in CI."""
    sync(partners, steps=("load",))
    with partners.connect() as connection:
        partners.engine.dbt.build(["partners"], None, lambda event: None)
        assert connection.execute("select count(*) as n from partners_next").fetchone() == {"n": 3}
        assert connection.execute("select count(*) as n from partners_current").fetchone() == {"n": 0}


def test_lineage_says_where_a_value_came_from(partners: Bench) -> None:
    """Source, stream, path, row, load, run, what others say, what was there before, and who decided."""
    sync(partners)
    crm(partners, x={"title": "X"}, a={"title": "Alfa", "contact": {"mail": "new@crm"}})
    second = sync(partners)
    (email,) = partners.query("select * from syncline.lineage('partners', 'a', 'email')")
    assert {name: email[name] for name in ("value", "rule", "source", "stream", "path", "row_number", "run_id")} == {
        "value": "new@crm",
        "rule": "source_of_truth",
        "source": "crm",
        "stream": "files.crm",
        "path": "contact.mail",
        "row_number": 2,
        "run_id": second["run_id"],
    }
    assert email["candidates"] == {"crm": "new@crm", "sheet": "a@sheet"}
    assert (email["previous"], email["changed_by_run"]) == ("a@crm", second["run_id"])
    call(partners, "set_override", "partners", "a", "email", '"e@x"', None, "because", "ann")
    sync(partners)
    (email,) = partners.query("select * from syncline.lineage('partners', 'a', 'email')")
    assert (email["value"], email["rule"], email["previous"]) == ("e@x", "override", "new@crm")
    assert (email["override"]["set_by"], email["override"]["reason"]) == ("ann", "because")
    rules = {
        found["column_name"]: found["rule"]
        for found in partners.query("select * from syncline.lineage('partners', 'a')")
    }
    assert rules == {
        "_key": "origin key",
        "code": "source_of_truth",
        "name": "source_of_truth",
        "email": "override",
        "tier": "reference: kept from when the row was new",
        "price": "source_of_truth",
        "gross": "derived",
    }


def test_lineage_of_a_marked_row_is_that_of_its_last_records(partners: Bench) -> None:
    """Where its records went, one after the other or at once, the row has its values from what was there last."""
    partners.write_model("partners", merged(on_missing="mark"))
    sheet(partners, a={"name": "Alpha"}, b={"name": "Beta"}, d={"name": "Delta"})
    crm(partners, a={"title": "Alfa", "tier": "one"}, d={"title": "Delta", "tier": "two"})
    sync(partners)
    sheet(partners, b={"name": "Beta"}, d={"name": "Delta"})
    sync(partners)
    crm(partners, c={"title": "Gamma"})
    sheet(partners, b={"name": "Beta"})
    sync(partners)

    def said(key: str) -> dict[str, Any]:
        query = "select column_name, stream, candidates from syncline.lineage('partners', %s) where source is not null"
        return {found["column_name"]: (found["stream"], found["candidates"]) for found in partners.query(query, key)}

    assert said("a") == {
        "code": ("files.crm", {"sheet": None, "crm": "a"}),
        "name": ("files.crm", {"sheet": None, "crm": "Alfa"}),
        "tier": ("files.crm", {"sheet": None, "crm": "one"}),
    }
    assert said("d")["name"] == ("files.sheet", {"sheet": "Delta", "crm": "Delta"})
    assert said("d")["tier"] == ("files.crm", {"sheet": None, "crm": "two"})


def test_the_proof_by_raw_records_finds_a_row_that_was_tampered_with(partners: Bench) -> None:
    """verify_raw is silent about what was published, and names the key of a row that somebody changed."""
    sync(partners)
    assert partners.query("select * from syncline.verify_raw('partners')") == []
    partners.query("update partners_v1 set name = 'forged' where _key = 'a' returning 1")
    assert [found["_key"] for found in partners.query("select * from syncline.verify_raw('partners')")] == ["a"]


def test_a_value_that_is_missing_is_explained(partners: Bench) -> None:
    """Lineage tells which value did not fit, of which stream and row; so does the row error."""
    sheet(partners, a={"name": "Alpha", "price": "dear"}, b={"name": "Beta"})
    sync(partners)
    (price,) = partners.query("select * from syncline.lineage('partners', 'a', 'price')")
    (told,) = price["row_errors"]
    assert (price["value"], price["rule"]) == (None, "no source has a value")
    assert (told["stream"], told["row_number"], told["value"]) == ("files.sheet", 1, "dear")
    assert [error["stream"] for error in partners.errors()] == ["files.sheet"]


def test_a_trusted_source_without_a_value_decides_nothing(partners: Bench) -> None:
    """The rule that won is told, and the override waits."""
    sync(partners)
    call(partners, "set_override", "partners", "b", "name", None, "crm")
    sync(partners)
    (name,) = partners.query("select * from syncline.lineage('partners', 'b', 'name')")
    assert (name["value"], name["rule"], name["source"]) == ("Beta", "source_of_truth", "sheet")
    assert name["override"]["source"] == "crm"
    assert "waits:" in partners.call("lineage", "partners", "b", "name").stdout


def test_many_conflicts_are_published_in_no_time(partners: Bench) -> None:
    """Conflicts on every row cost no more than the rows do: nothing is compared with everything."""
    rows = {f"k{number}": {"name": f"a{number}"} for number in range(20_000)}
    sheet(partners, **rows)
    crm(partners, **{code: {"title": f"b{row['name']}"} for code, row in rows.items()})
    sync(partners, timeout=120)
    assert partners.value("select count(*) from syncline.conflicts") == 20_000
    assert partners.value("select max(conflict_id) - min(conflict_id) from syncline.conflicts") == 19_999
    sheet(partners, **{code: {"name": row["name"].upper()} for code, row in rows.items()})
    sync(partners, timeout=120)
    assert partners.value("select min(times_seen) from syncline.conflicts") == 2
