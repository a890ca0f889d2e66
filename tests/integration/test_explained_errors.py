"""What is wrong with a model, a check or a name is said so that one can mend it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.driver import Driver, people, person, typed
from tests.projects import PEOPLE, SOURCES, Bench
from tests.projects import people as guests
from tests.projects import person as guest

CHECKED = """
models:
  - name: visits
    columns:
      - name: visit_id
        data_tests:
          - relationships: {arguments: {to: ref('people'), field: person_id}}
"""


def test_a_syntax_error_names_the_file_and_the_line(bench: Bench) -> None:
    """Of SQL that Postgres cannot read the hint names the model's file and the line, and no context of a function."""
    bench.write_model("people", PEOPLE.replace("from {{", "frm {{"))
    failure = bench.fail()
    assert "syntax error at or near" in failure.message
    hint = failure.hint or ""
    assert "dbt_project/models/people.sql" in hint
    compiled = next((bench.root / ".syncline" / "target").rglob("compiled/**/people.sql"))
    lines = compiled.read_text().splitlines()
    number = 1 + next(place for place, line in enumerate(lines) if line.startswith("frm"))
    assert f"line {number} " in hint
    assert "CONTEXT" not in hint


def test_an_unknown_column_names_the_line(bench: Bench) -> None:
    """A column that is not there is found in the model too."""
    bench.write_model("people", PEOPLE.replace("    _key,", "    _key,\n    nickname,"))
    failure = bench.fail()
    assert 'column "nickname" does not exist' in failure.message
    assert "is in line 5 of what it compiles to" in (failure.hint or "")


def test_a_template_error_names_the_file(bench: Bench) -> None:
    """A template that dbt cannot read is named by its file and line."""
    bench.write_model("people", PEOPLE.replace("{{ typed('name', 'text') }}", "{{ typed('name', 'text') }"))
    failure = bench.fail()
    assert failure.exit_code == 2
    assert "dbt_project/models/people.sql line " in failure.message


def test_a_failure_on_an_entity_of_another_run_has_its_keys(bench: Bench) -> None:
    """A relationships test that fails because of the parent alone names the keys of its children."""
    (bench.models / "checked.yml").write_text(CHECKED)
    bench.run()
    bench.sync("files", steps=("load", "build", "check", "publish"))
    bench.api.records["people"] = guests(50)[1:]
    failure = bench.fail(streams=("people",))
    assert "relationships on visits.visit_id: 1 rows, for instance _key 1" in failure.message


# Reports


@pytest.mark.parametrize(
    ("option", "name", "hint"),
    [("--entity", "nosuch", "people"), ("--stream", "nosuch", "shop.people"), ("--run", "99", "The newest run is 1")],
)
def test_errors_of_an_unknown_name_are_refused(bench: Bench, option: str, name: str, hint: str) -> None:
    """An entity, a stream or a run that there is not is no reason to say that there are no errors."""
    bench.sync()
    ended = bench.call("errors", option, name)
    assert ended.returncode == 2
    assert f"there is no {option.removeprefix('--')} {name}" in ended.stderr
    assert hint in ended.stderr


def test_values_are_shown_on_one_line(bench: Bench) -> None:
    """A record of several lines takes one line in the table."""
    bench.api.records["people"][6] = json.dumps({"name": "nobody\u0007"}, indent=4).encode()
    bench.sync()
    ended = bench.call("errors")
    assert ended.returncode == 0
    assert len(ended.stdout.strip().splitlines()) <= 4
    assert '{ "name": "nobody' in " ".join(ended.stdout.split())
    assert "\u0007" not in ended.stdout


def test_a_failed_candidate_can_be_looked_at(bench: Bench) -> None:
    """After a failed check `diff` shows the candidate that failed, until the next build."""
    bench.sync()
    bench.api.records["people"][6] |= {"kind": "stranger"}
    assert bench.fail().exit_code == 3
    shown = bench.call("diff", "people")
    assert shown.returncode == 0, shown.stderr
    assert "the failed candidate against current" in shown.stdout
    (row,) = [json.loads(line) for line in bench.call("diff", "people", "--json").stdout.splitlines()]
    assert (row["shows"], row["change"], row["_key"], row["new"]["kind"]) == (
        "failed candidate",
        "updated",
        "7",
        "stranger",
    )
    bench.api.records["people"][6] |= {"kind": "member"}
    bench.sync()
    assert "what the last publish changed" in bench.call("diff", "people").stdout


def test_status_marks_what_left_the_project(bench: Bench) -> None:
    """Entities and streams that the project no longer declares are shown as such, by doctor too."""
    bench.sync("shop", "files")
    (bench.models / "prices.sql").unlink()
    bench.write(bench.models / "sources.yml", SOURCES[: SOURCES.index("      - name: prices")])
    found = json.loads(bench.call("status", "--json").stdout)
    assert {row["entity"]: row["is_in_project"] for row in found["entities"]} == {
        "people": True,
        "visits": True,
        "prices": False,
    }
    assert [row["stream"] for row in found["streams"] if not row["is_in_project"]] == ["prices"]
    assert bench.call("status").stdout.count("not in the project") == 2
    assert "prices, files.prices: not in the project" in bench.call("doctor").stdout


# Loads of which nothing is left


def test_a_load_of_bad_records_alone_fails(bench: Bench) -> None:
    """However few they are: where every record of a full load, or of a trial, is rejected, the run fails."""
    bench.api.records["people"] = [{"name": "nobody"}, {"name": "nobody"}]
    for options in ({}, {"limit": 5}):
        failure = bench.fail(**options)
        assert failure.exit_code == 3
        assert "all 2 records of shop.people were rejected" in failure.message


def test_the_only_record_of_a_stream_keeps_its_last_good_state(bench: Bench) -> None:
    """A stream of one record may bring a bad one: a row error, no more."""
    bench.api.records["people"] = [guest(1)]
    bench.sync()
    bench.api.records["people"] = [json.dumps(guest(1)).replace("name 1", "a\\u0000").encode()]
    bench.sync()
    assert bench.current()["1"]["name"] == "name 1"
    assert len(bench.errors()) == 1


def test_a_stream_says_how_many_may_be_bad(bench: Bench) -> None:
    """The stream's max_error_ratio is what the guard goes by."""
    bad = [{"name": "nobody"}] * 12 + guests(50)[12:]
    bench.api.records["people"] = bad
    assert "the stream's max_error_ratio (0.1)" in (bench.fail().hint or "")
    bench.write(bench.models / "sources.yml", SOURCES.replace("key: id}}}", "key: id, max_error_ratio: 0.5}}}", 1))
    bench.sync()
    assert len(bench.current()) == 38


# Collisions


@pytest.fixture
def tagged(driver: Driver) -> tuple[Driver, str]:
    tags = typed(".", "text", record="item").replace("(item ->> '.')", "(item #>> '{}')")
    head = f"select _key, {typed('id', 'bigint')} as id, {tags} as tag from {driver.relation}"
    return driver, head + " cross join lateral jsonb_path_query(payload, 'strict $.tags[*]', '{}', true) as t (item)"


@pytest.mark.parametrize("is_first", [True, False])
def test_a_record_that_gives_a_unique_key_twice_says_so(tagged: tuple[Driver, str], is_first: bool) -> None:
    """The message names the record itself and its row number; a field that is no array gives nothing."""
    driver, sql = tagged
    settings = {"sql": sql, "unique_key": ["id", "tag"]}
    if not is_first:
        driver.sync([person(1, tags=["a"]), person(2, tags=["b"])], **settings)
    driver.sync([person(1, tags="none"), person(2, tags=["sql", "sql"]), person(3, tags=["c"])], **settings)
    (error,) = driver.errors()
    assert (error["_key"], error["row_number"]) == ("2", 2)
    assert error["message"] == "this record gives the same id, tag twice"
    assert "1" not in driver.current()


def test_a_collision_has_its_row_number(driver: Driver) -> None:
    """Of two records that collide the one that lost is named by its place in the load."""
    driver.sync(people(3))
    driver.sync([*people(3), person(4, email="p2@example.com")])
    (error,) = driver.errors()
    assert (error["_key"], error["row_number"], error["message"]) == ("4", 4, "another record has this email")


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["boards_talents", "media_tag_links"])
def test_the_examples_take_arrays_alone(name: str) -> None:
    """Lax paths take a value that is no array for an array of one; the examples do not."""
    text = (ROOT / "dbt_project" / "models" / f"{name}.sql").read_text()
    assert "[*]', '{}', true)" in text
    assert "'strict $." in text
