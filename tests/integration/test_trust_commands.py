"""The commands on conflicts, overrides, history, lineage and references, on a project that merges two sources."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from syncline import logs
from syncline.cli import main
from syncline.config import read_project
from tests.projects import Bench
from tests.roles import three_roles
from tests.sheets import SPREADSHEET, Sheets, Tab

SOURCES = """
sources:
  - name: office
    schema: raw_office
    config: {meta: {syncline: {connector: file, path: data}}}
    tables:
      - name: sheet
        config: {meta: {syncline: {path: sheet.jsonl, key: code}}}
      - name: crm
        config: {meta: {syncline: {path: crm.jsonl, key: code}}}
"""

STAGING = """
{{{{ config(materialized='ephemeral') }}}}
select
    _key,
    {{{{ typed('code', 'text', required=true) }}}} as code,
    {{{{ typed('{email}', 'text') }}}} as email,
    {{{{ typed('tier', 'text') }}}} as tier,
    {{{{ typed('price', 'numeric') }}}} as price
from {{{{ source('office', '{stream}') }}}}
"""

PARTNERS = """
{{ config(materialized='versioned', unique_key='code', external_ref={'type': 'partner', 'source': 'office'}) }}
{{ merged(
    sources={'sheet': ref('of_sheet'), 'crm': ref('of_crm')},
    fields={
        'code': {},
        'email': {'priority': ['crm', 'sheet']},
        'tier': {'authority': {'crm': 'reference'}},
        'price': {},
    },
) }}
"""

SHEET = {"code": "a", "email": "a@sheet", "tier": None, "price": 12.50}
CRM = {"code": "a", "mail": "a@crm", "tier": "silver"}


@pytest.fixture
def merging(bench: Bench) -> Bench:
    """A project that has published one partner of two sources, who disagree on its address."""
    for file in bench.models.iterdir():
        file.unlink()
    bench.write(bench.models / "sources.yml", SOURCES)
    bench.write_model("of_sheet", STAGING.format(email="email", stream="sheet"))
    bench.write_model("of_crm", STAGING.format(email="mail", stream="crm"))
    bench.write_model("partners", PARTNERS)
    write(bench)
    bench.sync("office")
    return bench


def write(bench: Bench, sheet: dict[str, Any] = SHEET, crm: dict[str, Any] = CRM) -> None:
    # Ten digits that no float has.
    exact = json.dumps(sheet).replace("12.5", "12345678901234567.10")
    bench.write_lines("sheet.jsonl", [exact, {"code": "b", "email": "b@sheet", "tier": "gold"}])
    bench.write_lines("crm.jsonl", [crm])


def ask(bench: Bench, *arguments: str) -> Any:
    """What a command prints as JSON."""
    ended = bench.call(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout, parse_float=str)


def refuse(bench: Bench, *arguments: str) -> tuple[int, str]:
    """The exit code and the words of a command that is refused."""
    ended: subprocess.CompletedProcess[str] = bench.call(*arguments)
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def test_a_conflict_is_decided_and_the_decision_lifted(merging: Bench) -> None:
    """A conflict is listed and shown, resolved for a source, built by the next run, and open again once lifted."""
    (conflict,) = ask(merging, "conflicts")["conflicts"]
    number = str(conflict["conflict_id"])
    assert (conflict["column_name"], conflict["winner"], conflict["rule"]) == ("email", "crm", "priority")
    assert conflict["candidates"] == {"crm": "a@crm", "sheet": "a@sheet"}
    shown = merging.call("conflicts", "show", number).stdout
    assert re.search('^sheet says: +"a@sheet"$', shown, re.MULTILINE)
    assert re.search("^seen: +once$", shown, re.MULTILINE)
    assert "comes first in the field's priority" in shown
    done = merging.call("conflicts", "resolve", number, "--use", "sheet", "--reason", "the newer one")
    assert done.stdout == "partners a email is overridden; the next run builds it: `syncline run`\n"
    merging.sync("office")
    assert merging.current("partners")["a"]["email"] == "a@sheet"
    found = ask(merging, "conflicts", "show", number)
    assert (found["state"], found["reason"]) == ("resolved", "the newer one")
    assert (found["override"]["source"], found["override"]["status"]) == ("sheet", "in force")
    shown = merging.call("conflicts", "show", number).stdout
    assert re.search(r"^decision: +what sheet says, by \S+ at .*: the newer one \(in force\)$", shown, re.MULTILINE)
    assert "winner" not in shown
    assert ask(merging, "conflicts", "list", "--entity", "partners") == {"conflicts": []}
    assert ask(merging, "conflicts", "lift", number)["column_name"] == "email"
    shown = merging.call("conflicts", "show", number).stdout
    assert "winner" in shown
    assert "decision" not in shown
    assert re.search(r"override lifted of email by \S+\n\d", merging.call("history", "partners", "a").stdout)
    merging.sync("office")
    assert merging.current("partners")["a"]["email"] == "a@crm"
    assert [row["state"] for row in ask(merging, "conflicts", "list", "--key", "a")["conflicts"]] == ["open"]
    assert ask(merging, "conflicts", "list", "--overrides") == {"overrides": []}
    (lifted,) = ask(merging, "conflicts", "list", "--overrides", "--state", "all")["overrides"]
    assert (lifted["status"], lifted["displaced"]) == ("lifted", "a@crm")


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [("platinum", "tier", "platinum"), ('"7"', "tier", "7"), ("7", "tier", "7"), ("null", "tier", None)],
)
def test_a_value_is_json_or_a_text(merging: Bench, value: str, field: str, expected: str | None) -> None:
    """A field without a conflict is set by entity, key and field; what is no JSON counts as text."""
    assert merging.call("conflicts", "resolve", "partners", "b", field, "--value", value).returncode == 0
    merging.sync("office")
    assert merging.current("partners")["b"][field] == expected


def test_an_ignored_conflict_comes_back_with_another_value(merging: Bench) -> None:
    """An ignored conflict is silent as long as the sources say the same, and open once one says something else."""
    (conflict,) = ask(merging, "conflicts")["conflicts"]
    assert merging.call("conflicts", "ignore", str(conflict["conflict_id"]), "--reason", "fine").returncode == 0
    merging.sync("office", full_refresh=True)
    (ignored,) = ask(merging, "conflicts", "list", "--state", "ignored")["conflicts"]
    assert ignored["reason"] == "fine"
    write(merging, crm=CRM | {"mail": "other@crm"})
    merging.sync("office")
    assert [row["state"] for row in ask(merging, "conflicts")["conflicts"]] == ["open"]


def test_decisions_that_cannot_be(merging: Bench) -> None:
    """What cannot be decided is refused on stderr, with the exit code of its kind, and sets nothing."""
    for arguments, code, said in [
        (["conflicts", "show", "99"], 2, "there is no conflict 99"),
        (["conflicts", "resolve", "9" * 20, "--value", "1"], 2, "is not in the range"),
        (["conflicts", "lift", "9" * 5000], 2, "is not a valid integer"),
        (["conflicts", "resolve", "1"], 2, "--use SOURCE or --value JSON"),
        (["conflicts", "resolve", "1", "--use", "crm", "--value", "x"], 2, "--use SOURCE or --value JSON"),
        (["conflicts", "resolve", "partners", "a", "--value", "x"], 2, "neither a conflict nor a field"),
        (["conflicts", "resolve", "partners", "a", "price", "--value", "much"], 2, "does not fit partners.price"),
        (["conflicts", "resolve", "partners", "a", "price", "--value", "5,10 €"], 2, "Write a number as 5.10"),
        (["conflicts", "resolve", "partners", "a", "email", "--use", "nobody"], 2, "nothing from a source nobody"),
        (["conflicts", "resolve", "partners", "zz", "email", "--use", "crm"], 3, "no row with _key zz"),
        (["conflicts", "lift", "partners", "a", "email"], 3, "no override is in force"),
        (["conflicts", "list", "--entity", "nobody"], 2, "nobody"),
        (["conflicts", "--state", "all", "show", "1"], 2, "unexpected extra arguments (show 1)"),
    ]:
        found, words = refuse(merging, *arguments)
        assert (found, said in words) == (code, True), (arguments, words)
    assert ask(merging, "conflicts", "list", "--overrides", "--state", "all") == {"overrides": []}


def test_history(merging: Bench) -> None:
    """The feed has changes by run and time; a row's life has its changes, decisions and conflicts, digits and all."""
    before = merging.value("select clock_timestamp()")
    write(merging, sheet=SHEET | {"tier": "iron"})
    run = str(merging.sync("office")["run_id"])
    assert ask(merging, "conflicts", "resolve", "partners", "a", "price", "--value", "1.10")["_key"] == "a"
    last = str(merging.sync("office")["run_id"])
    (change,) = ask(merging, "history", "partners", "--run", last)["changes"]
    assert (change["old"], change["new"]) == ({"price": "12345678901234567.10"}, {"price": "1.10"})
    assert len(ask(merging, "history", "--since", before.isoformat())["changes"]) == 2
    assert len(ask(merging, "history", "--since", "1h", "--limit", "1")["changes"]) == 1
    assert ask(merging, "history", "--since", "2100-01-01") == {"changes": []}
    events = ask(merging, "history", "partners", "a")["events"]
    kinds = ["updated", "override set", "conflict", "updated", "conflict", "first published"]
    assert [event["event"] for event in events] == kinds
    shown = merging.call("history", "partners", "a").stdout
    assert f'updated (run {run})\n    tier: "silver" → "iron"' in shown
    assert "    price: 12345678901234567.10 → 1.10" in shown
    assert refuse(merging, "history", "partners", "zz")[0] == 2
    assert refuse(merging, "history", "nobody")[0] == 2
    assert "there is no run 99" in refuse(merging, "history", "partners", "--run", "99")[1]
    assert "syncline history partners 'z z'" in refuse(merging, "lineage", "partners", "z z")[1]
    assert "Types: partner." in refuse(merging, "references", "--type", "nosuch")[1]
    assert refuse(merging, "history", "--since", "yesterday")[0] == 2
    assert refuse(merging, "history", "partners", "a", "--run", "1")[0] == 2


def test_lineage_of_a_value(merging: Bench) -> None:
    """One question tells value, rule, place, load, run, what the others say, what was before, and who set it."""
    write(merging, crm=CRM | {"mail": "new@crm"})
    report = merging.sync("office")
    (field,) = ask(merging, "lineage", "partners", "a", "email")["fields"]
    assert {name: field[name] for name in ("value", "rule", "source", "stream", "path", "row_number")} == {
        "value": "new@crm",
        "rule": "source_of_truth",
        "source": "crm",
        "stream": "office.crm",
        "path": "mail",
        "row_number": 1,
    }
    assert field["candidates"] == {"crm": "new@crm", "sheet": "a@sheet"}
    assert (field["previous"], field["changed_by_run"], field["run_id"]) == (
        "a@crm",
        report["run_id"],
        report["run_id"],
    )
    assert field["load_id"] == report["streams"]["office.crm"]["load_id"]
    shown = merging.call("lineage", "partners", "a").stdout
    assert "partners a price = 12345678901234567.10\n" in shown
    assert 'before:    "a@crm", changed by run' in shown
    merging.call("conflicts", "resolve", "partners", "a", "email", "--value", "set@here", "--reason", "a call")
    merging.sync("office")
    (field,) = ask(merging, "lineage", "partners", "a", "email")["fields"]
    assert (field["value"], field["rule"], field["override"]["reason"]) == ("set@here", "override", "a call")
    shown = merging.call("lineage", "partners", "a", "email").stdout
    assert 'in place of "new@crm": a call' in shown
    assert "from:" not in shown
    assert refuse(merging, "lineage", "partners", "zz")[0] == 3
    assert refuse(merging, "lineage", "partners", "a", "nothing")[0] == 2
    assert refuse(merging, "lineage", "partners", "a", "--yaml")[0] == 2


def test_lineage_while_a_source_is_off(merging: Bench) -> None:
    """A reference field keeps its value while its source is off, and another field is null: both are told as that."""
    off = PARTNERS.replace("'crm': ref('of_crm')", "'crm': {'model': ref('of_crm'), 'active': false}")
    merging.write_model("partners", off.replace("'price': {}", "'price': {'priority': ['crm']}"))
    merging.sync("office")
    fields = {field["column_name"]: field for field in ask(merging, "lineage", "partners", "a")["fields"]}
    told = {name: (fields[name]["value"], fields[name]["rule"]) for name in ("email", "tier", "price")}
    assert told == {
        "email": ("a@sheet", "source_of_truth"),
        "tier": ("silver", "reference: kept from when the row was new"),
        "price": (None, "switched off"),
    }


BY_MAIL = """
{{ config(materialized='versioned', unique_key='email', delta='full') }}
{{ merged(sources={'sheet': ref('mail_of_sheet'), 'crm': ref('mail_of_crm')}, fields={'email': {}, 'tier': {}}) }}
"""


def test_lineage_of_a_row_with_a_key_of_its_own(merging: Bench) -> None:
    """Of records that are matched by another field than their key, stream, path and what each source says are told."""
    for stream, email in (("sheet", "email"), ("crm", "mail")):
        staging = STAGING.format(email=email, stream=stream)
        key = f"    lower({{{{ typed('{email}', 'text', required=true) }}}}) as _key,"
        merging.write_model(f"mail_of_{stream}", staging.replace("    _key,", key))
    merging.write_model("by_mail", BY_MAIL)
    write(merging, sheet=SHEET | {"email": "A@CRM", "tier": "iron"})
    merging.sync("office")
    assert sorted(merging.current("by_mail")) == ["a@crm", "b@sheet"]
    (field,) = ask(merging, "lineage", "by_mail", "a@crm", "tier")["fields"]
    assert field["candidates"] == {"sheet": "iron", "crm": "silver"}
    found = [field[name] for name in ("value", "rule", "source", "stream", "path", "load_id")]
    assert found == ["iron", "source_of_truth", "sheet", "office.sheet", "tier", None]


def test_verify_raw(merging: Bench) -> None:
    """What is published is compared with all records: a row that came out otherwise is named, with exit code 1."""
    assert merging.call("verify", "--raw").stdout == "partners: ok\n"
    merging.query("update partners_v1 set tier = 'lead' where _key = 'b' returning 1")
    ended = merging.call("verify", "partners", "--raw", "--json")
    assert ended.returncode == 1
    assert [row["_key"] for row in json.loads(ended.stdout)["problems"]["partners"]] == ["b"]
    assert "current is wrong for partners" in ended.stderr


def test_the_mapping_is_yaml_that_dbt_takes(merging: Bench) -> None:
    """The mapping as properties, put beside the model, is parsed by dbt, and dbt's manifest then has it by column."""
    columns = ask(merging, "lineage", "partners")["columns"]
    assert [(row["source"], row["rule"]) for row in columns if row["column_name"] == "tier"] == [
        ("sheet", "source_of_truth"),
        ("crm", "reference"),
    ]
    text = merging.call("lineage", "partners", "--yaml").stdout
    (model,) = yaml.safe_load(text)["models"]
    merging.write(merging.models / "partners.yml", text)
    parsed = subprocess.run(
        [*merging.command()[:1], "-c", PARSE],
        cwd=merging.root,
        env=merging.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert parsed.returncode == 0, parsed.stdout + parsed.stderr
    manifest = json.loads((merging.root / ".syncline" / "mapping" / "manifest.json").read_text())
    (found,) = [node for node in manifest["nodes"].values() if node["name"] == "partners"]
    assert {name: column["config"]["meta"] for name, column in found["columns"].items()} == {
        column["name"]: column["config"]["meta"] for column in model["columns"]
    }
    assert found["columns"]["price"]["config"]["meta"]["syncline"][0]["path"] == "price"


PARSE = """
import sys
from dbt.cli.main import dbtRunner
done = dbtRunner().invoke(["--quiet", "parse", "--profiles-dir", ".", "--target-path", ".syncline/mapping"])
sys.exit(0 if done.success else str(done.exception))
"""


SHEET_SOURCES = """
sources:
  - name: files
    schema: raw_files
    config:
      meta:
        syncline:
          connector: google_sheets
          spreadsheet: ${SHEET_ID}
          credentials: ${SHEET_KEY}
          api_url: ${SHEET_API}
    tables:
      - name: visits
        config: {meta: {syncline: {tab: Visits, key: id, header_row: 3}}}
"""


@pytest.fixture
def sheets() -> Iterator[Sheets]:
    made = Sheets()
    yield made
    made.close()


def test_lineage_of_a_sheet_names_the_cell(bench: Bench, sheets: Sheets) -> None:
    """A value of a Google sheet is told by tab, column and the row that the sheet shows, whatever stands above."""
    for file in bench.models.iterdir():
        if file.name != "visits.sql":
            file.unlink()
    bench.write(bench.models / "sources.yml", SHEET_SOURCES)
    with (bench.root / ".env").open("a") as out:
        out.write(f"SHEET_ID={SPREADSHEET}\nSHEET_KEY='{sheets.credentials()}'\nSHEET_API={sheets.url}\n")
    rows = [["All visits"], [], ["id", "place"], ["1", "here"], [], ["2", "there"]]
    sheets.tabs["Visits"] = Tab(rows, grid_rows=1000)
    bench.sync("files")
    (field,) = ask(bench, "lineage", "visits", "2", "place")["fields"]
    assert field["sheet"] == {"tab": "Visits", "column": "place", "row": 6}
    assert "files.visits, tab 'Visits', column 'place', row 6; load" in bench.call("lineage", "visits", "2").stdout


def test_references_are_listed_and_pruned(merging: Bench) -> None:
    """References are counted and listed, those gone for so long apart, and forgotten only when asked."""
    merging.write_lines("sheet.jsonl", [SHEET])
    merging.sync("office", allow_mass_delete=True)
    merging.query("update syncline.external_refs set gone_at = gone_at - interval '2 years' returning 1")
    found = ask(merging, "references")
    assert [(row["type"], row["known"], row["gone"]) for row in found["counts"]] == [("partner", 2, 1)]
    assert [row["external_key"] for row in found["references"]] == ["a", "b"]
    assert [row["external_key"] for row in ask(merging, "references", "--unseen", "1y")["references"]] == ["b"]
    assert ask(merging, "references", "--unseen", "3y")["references"] == []
    assert "Types: partner" in merging.call("references", "--type", "other").stderr
    assert ask(merging, "prune")["references"] == 0
    assert ask(merging, "prune", "--references", "1y")["references"] == 1
    assert [row["external_key"] for row in ask(merging, "references")["references"]] == ["a"]
    assert refuse(merging, "prune", "--references", "long")[0] == 2


def test_old_changes_are_pruned(merging: Bench) -> None:
    """Changes older than `keep_changes` go with `prune` and with the daily pruning; newer ones stay."""
    write(merging, crm=CRM | {"mail": "new@crm"})
    merging.sync("office")
    project = read_project(merging.root)
    assert project.keep_changes == timedelta(days=90)
    merging.query("update syncline.publications set published_at = published_at - interval '89 days' returning 1")
    assert ask(merging, "prune")["changes"] == 0
    merging.query("update syncline.publications set published_at = published_at - interval '2 days' returning 1")
    with merging.connect() as connection:
        assert logs.prune(connection, project)["changes"] == 1
    assert ask(merging, "history") == {"changes": []}
    settings = merging.root / "dbt_project.yml"
    was = settings.read_text()
    try:
        settings.write_text(was + "\nvars: {syncline: {keep_changes: 1y}}\n")
        assert read_project(merging.root).keep_changes == timedelta(days=365)
    finally:
        settings.write_text(was)


def test_force_overwrite(merging: Bench) -> None:
    """A reference that changes leaves a row as it is, until --force-overwrite; overrides stand."""
    merging.call("conflicts", "resolve", "partners", "a", "email", "--value", "set@here")
    write(merging, crm=CRM | {"tier": "iron"})
    merging.sync("office")
    assert merging.current("partners")["a"]["tier"] == "silver"
    ended = merging.cli("run", "office", "--force-overwrite", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["options"] == {"force_overwrite": True}
    row = merging.current("partners")["a"]
    assert (row["tier"], row["email"]) == ("iron", "set@here")


PRICED = """
{{ config(materialized='versioned', unique_key='price_id', history=true) }}
select _key, {{ typed('id', 'bigint', required=true) }} as price_id, {{ typed('amount', 'numeric') }} as amount
from {{ source('files', 'prices') }}
"""


def test_only_a_history_of_ours_is_dropped(bench: Bench) -> None:
    """An entity is dropped with its history; a table of somebody's that is only named so stays, and no role gets it."""
    bench.write_model("prices", PRICED)
    bench.sync("files")
    with bench.connect() as connection:
        connection.execute("create table visits_history as select 1 as mine")
    with three_roles(bench.dsn) as roles:
        roles.grant()
        owners = "select relname, relowner::regrole::text as owner from pg_class where right(relname, 8) = '_history'"
        found = {row["relname"]: row["owner"] for row in bench.query(owners)}
        assert found["prices_history"] == roles.runner
        assert found["visits_history"] not in (roles.owner, roles.runner)
        bench.write_lines("prices.csv", ["id,amount", "1,11", "2,20"])
        ended = bench.cli("run", "files", DATABASE_URL=roles.dsn(roles.runner))
        assert ended.returncode == 0, ended.stderr
        assert roles.query(roles.reader, "select count(*) from prices_history") == [(3,)]
        assert roles.query(roles.reader, "select count(*) from prices_as_of(now())") == [(2,)]
        assert roles.query(roles.reader, "select has_table_privilege('visits_history', 'select')") == [(False,)]
        for entity in ("prices", "visits"):
            bench.query("select syncline.drop_entity(%s)", entity)
    assert bench.value("select to_regclass('prices_history')") is None
    assert bench.value("select mine from visits_history") == 1


def test_a_history_goes_from_role_to_role(bench: Bench) -> None:
    """Who was reader reads a history no longer; who is runner may drop it with the entity, whoever made it."""
    bench.write_model("prices", PRICED)
    bench.sync("files")
    with three_roles(bench.dsn) as former, three_roles(bench.dsn) as later:
        former.grant()
        assert former.query(former.reader, "select count(*) from prices_history") == [(2,)]
        later.grant()
        assert later.query(later.reader, "select count(*) from prices_as_of(now())") == [(2,)]
        readable = "select has_table_privilege(%s, 'prices_history', 'select')"
        assert not bench.value(readable, former.reader)
        assert bench.value("select proowner::regrole::text from pg_proc where proname = 'prices_as_of'") == later.runner
        later.query(later.runner, "select syncline.drop_entity('prices')")
    assert bench.value("select to_regclass('prices_history')") is None


def test_what_an_override_displaced_of_a_redacted_stream_is_not_told(merging: Bench) -> None:
    """What people set is told, what a redacted record said is not."""
    file = merging.models / "sources.yml"
    merging.write(
        file, file.read_text().replace("path: sheet.jsonl, key: code", "path: sheet.jsonl, key: code, redact: true")
    )
    merging.sync("office")
    assert merging.call("conflicts", "resolve", "partners", "b", "email", "--value", "set@here").returncode == 0
    merging.sync("office")
    (override,) = ask(merging, "conflicts", "list", "--overrides")["overrides"]
    assert (override["value"], override["displaced"]) == ("set@here", None)
    (field,) = ask(merging, "lineage", "partners", "b", "email")["fields"]
    assert (field["override"]["value"], "displaced" in field["override"]) == ("set@here", False)
    for arguments in (["conflicts", "list", "--overrides"], ["history", "partners", "b"]):
        assert "b@sheet" not in merging.call(*arguments).stdout
        assert "b@sheet" not in merging.call(*arguments, "--json").stdout
    assert "set@here" in merging.call("history", "partners", "b").stdout
    merging.call("conflicts", "lift", "partners", "b", "email")
    merging.sync("office")
    assert merging.current("partners")["b"]["email"] == "b@sheet"


@pytest.mark.parametrize("name", [f"conflicts {name}" for name in ("list", "show", "resolve", "ignore", "lift")])
def test_help_has_an_example(name: str) -> None:
    """The help of each command of conflicts shows an example that names it."""
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert f"syncline {name}" in result.output.split("Example:")[1]


def test_times_are_read_as_utc(merging: Bench) -> None:
    """A time without a zone is UTC, whatever the machine's is."""
    write(merging, crm=CRM | {"mail": "new@crm"})
    merging.sync("office")
    soon = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%S")
    ago = (datetime.now(UTC) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S")
    for zone in ("UTC", "Asia/Tokyo"):
        assert json.loads(merging.cli("history", "--since", soon, "--json", TZ=zone).stdout) == {"changes": []}
        assert len(json.loads(merging.cli("history", "--since", ago, "--json", TZ=zone).stdout)["changes"]) == 1


@pytest.mark.parametrize(
    ("model", "old", "new", "said", "hint"),
    [
        (
            "partners",
            "'price': {},",
            "'price': {}, 'age': {},",
            "column sheet.age does not exist",
            "field's `priority`",
        ),
        (
            "partners",
            "'price': {},",
            "'price': {}, 'twice': {'authority': 'derived', 'value': 'prize * 2'},",
            'column "prize" does not exist',
            "names fields alone",
        ),
        ("of_sheet", "'ephemeral'", "'view'", "does not exist", "has to say `materialized='ephemeral'`"),
    ],
)
def test_what_a_merged_entity_lacks_is_named(
    merging: Bench, model: str, old: str, new: str, said: str, hint: str
) -> None:
    """A field that a staging model lacks, a derived one of no field, a staging model that is a view: the hint helps."""
    text = (merging.models / f"{model}.sql").read_text()
    assert old in text
    merging.write_model(model, text.replace(old, new))
    failure = merging.fail("office")
    assert said in failure.message
    assert hint in (failure.hint or "")
