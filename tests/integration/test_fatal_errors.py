"""What a run cannot go on after: one message that says what to do, and everything as it was."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.api import Reply
from tests.projects import PEOPLE, SOURCES, TESTS, TOKEN, VISITS, Bench, people, person, rows


def break_page(bench: Bench, page: int, reply: Reply) -> None:
    bench.api.answer = lambda path, wanted: reply if wanted == page else bench.api.serve(path, wanted)


def cut_off(bench: Bench) -> None:
    whole = bench.api.serve("people", 2)
    break_page(bench, 2, Reply(whole.body[:300], length=len(whole.body)))


def claim_more_pages(bench: Bench) -> None:
    """Serve half of the records and say that there are as many pages as before."""
    records, bench.api.records["people"] = bench.api.records["people"], people(25)
    whole = bench.api.serve

    def answer(path: str, page: int) -> Reply:
        content = json.loads(whole(path, page).body)
        return Reply(content | {"total_pages": -(-len(records) // bench.api.page_size)})

    bench.api.answer = answer


def serve_some(count: int) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        bench.api.records["people"] = people(count)

    return change


def refuse_token(bench: Bench) -> None:
    bench.api.token = "another"


HTML = Reply(b"<!doctype html><title>Log in</title>", headers={"Content-Type": "text/html"})

FAULTS: dict[str, tuple[Callable[[Bench], None], int, str, str]] = {
    "401": (refuse_token, 1, "shop.people: .*401", "auth"),
    "429 for ever": (lambda b: break_page(b, 1, Reply(status=429)), 1, "shop.people: .*429", "later"),
    "429 that asks to wait": (
        lambda b: break_page(b, 1, Reply(status=429, headers={"Retry-After": "3600"})),
        1,
        "shop.people: .*429.*3600 s",
        "later",
    ),
    "500 in the middle": (lambda b: break_page(b, 2, Reply(status=500)), 1, "shop.people: .*500", "later"),
    "html": (lambda b: break_page(b, 1, HTML), 1, "no JSON", "login page"),
    "html in the middle": (lambda b: break_page(b, 3, HTML), 1, "no JSON", "login page"),
    "404": (lambda b: break_page(b, 1, Reply({"error": "gone"}, 404)), 1, "not found", "base_url and path"),
    "cut off": (cut_off, 1, "the connection was cut", "later"),
    "half of the JSON": (lambda b: break_page(b, 1, Reply(b'{"data": [{"id": 1}, {"i')), 1, "cut off|JSON", ""),
    "fewer pages than it says": (claim_more_pages, 1, "not whole", "Run it again"),
    "an empty list": (serve_some(0), 3, "came back empty, where there were 50", "--allow-mass-delete"),
    "half of the records": (serve_some(25), 3, "lacks 25 of its 50", "--allow-mass-delete"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_api_that_fails_changes_nothing(bench: Bench, fault: str) -> None:
    """The run fails with the fault named and a hint, and neither current nor a raw record has changed."""
    bench.sync()
    before = bench.state()
    change, exit_code, message, hint = FAULTS[fault]
    change(bench)
    failure = bench.fail()
    assert (failure.exit_code, bench.state()) == (exit_code, before)
    assert_matches(message, failure.message)
    assert_matches(hint, failure.hint or "")
    assert bench.runs()[-1]["status"] == "failed"


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text, re.DOTALL), text


def test_an_api_that_is_down_changes_nothing(bench: Bench) -> None:
    """An API that refuses connections is named with what to do; once it is back the next run goes through."""
    bench.sync()
    before = bench.state()
    bench.api.shut()
    failure = bench.fail()
    bench.api.reopen()
    assert (failure.exit_code, bench.state()) == (1, before)
    assert "shop.people: GET http://127.0.0.1" in failure.message
    assert "the connection failed" in failure.message
    assert failure.hint
    bench.sync()


def test_mass_delete_goes_through_where_it_is_allowed(bench: Bench) -> None:
    """With allow_mass_delete an empty answer empties the entity, and the way back is there."""
    bench.sync()
    bench.api.records["people"] = []
    bench.sync(allow_mass_delete=True)
    assert bench.current() == {}
    bench.verify()


def test_a_first_load_that_fails_leaves_nothing(bench: Bench) -> None:
    """A first load that is cut off leaves no record behind, and the next run brings all."""
    break_page(bench, 3, Reply(status=500))
    assert bench.fail().exit_code == 1
    assert bench.live() == {}
    bench.api.answer = bench.api.serve
    bench.sync()
    assert bench.current() == rows(people(50))


FILES: dict[str, tuple[str, bytes, str]] = {
    "a line without its end": ("visits.jsonl", b'{"id": 1}\n{"id": 2, "pla', "visits.jsonl is cut off"),
    "a row without its end": ("prices.csv", b"id,amount\n1,10\n2", "prices.csv is cut off"),
    "a quote without its end": ("prices.csv", b'id,amount\n1,10\n2,"20', "prices.csv is cut off"),
    "no bytes": ("prices.csv", b"", "prices.csv is empty"),
    "a header alone": ("prices.csv", b"id,amount\n", "came back empty, where there were 2"),
    "an empty file": ("visits.jsonl", b"", "came back empty, where there were 2"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_file_that_is_cut_off_changes_nothing(bench: Bench, fault: str) -> None:
    """A file that ends too early is refused by name: no record of it goes in."""
    bench.sync("files")
    states = [bench.state("visits", "files.visits"), bench.state("prices", "files.prices")]
    name, content, message = FILES[fault]
    (bench.root / "data" / name).write_bytes(content)
    failure = bench.fail("files")
    assert failure.exit_code == (3 if "came back" in message else 1)
    assert message in failure.message
    stream = name.split(".", maxsplit=1)[0]
    assert bench.state(stream, f"files.{stream}") == states[stream == "prices"]


def test_a_gzipped_file_that_is_cut_off_changes_nothing(bench: Bench) -> None:
    """A gzipped file that lacks its end is refused, though its first lines can be read."""
    bench.write(bench.models / "sources.yml", SOURCES.replace("visits.jsonl", "visits.jsonl.gz"))
    packed = gzip.compress(b"".join(b'{"id": %d, "place": "%d"}\n' % (n, n * 7919) for n in range(5000)))
    file = bench.root / "data" / "visits.jsonl.gz"
    file.write_bytes(packed)
    bench.sync("files")
    before = bench.state("visits", "files.visits")
    file.write_bytes(packed[: len(packed) // 2])
    failure = bench.fail("files")
    assert failure.exit_code == 1
    assert "cut off or damaged" in failure.message
    assert bench.state("visits", "files.visits") == before


# Configuration


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        (SOURCES.replace("retries: 2", "retires: 2"), "sources.yml: source 'shop'.*'retires'", "retries"),
        (SOURCES.replace("path: /people", "pth: /people"), "shop.people.*'pth'", "path"),
        (SOURCES.replace("/people, key: id", "/people, key: id, kee: 3"), "shop.people.*'kee'", "keep"),
        (SOURCES.replace("connector: http", "connector: htp"), "'htp'", "file, google_sheets, http"),
        (SOURCES.replace("{path: /people, key: id}", "{path: /people}"), "'key' is missing", ""),
        (SOURCES.replace("${SHOP_API_TOKEN}", "${SHOP_API_TOKN}"), "SHOP_API_TOKN, which is not set", "SHOP_API_TOKN"),
        (SOURCES.replace("key: id}", "key: id"), "sources.yml is no valid YAML", ""),
        (SOURCES.replace("retries: 2", "retries: many"), "retries", ""),
    ],
)
def test_wrong_yaml_is_refused(bench: Bench, wrong: str, message: str, hint: str) -> None:
    """An unknown setting, a missing one, a missing variable: exit 2, with file or source, name and the known names."""
    bench.sync()
    before = bench.state()
    bench.write(bench.models / "sources.yml", wrong)
    ended = bench.cli("run", "shop")
    assert ended.returncode == 2, ended.stderr
    assert_matches(f"^error: .*{message}", ended.stderr)
    assert_matches(f"(?i){hint}", ended.stderr)
    assert "Traceback" not in ended.stderr
    bench.write(bench.models / "sources.yml", SOURCES)
    assert bench.state() == before


MODELS: dict[str, tuple[str, int, str]] = {
    "no _key": (PEOPLE.replace("    _key,\n", ""), 2, "people has no column _key"),
    "an aggregate": (
        "{{ config(materialized='versioned', unique_key='n') }}\n"
        "select min(_key) as _key, count(*) as n from {{ source('shop', 'people') }}",
        2,
        "cannot be built by changed keys: it needs an aggregate",
    ),
    "a window": (PEOPLE.replace("    _key,", "    _key,\n    row_number() over () as place,"), 2, "a window function"),
    "a limit": (PEOPLE + "limit 5", 2, "it needs a limit"),
    "a volatile function": (PEOPLE.replace("    _key,", "    _key,\n    random() as dice,"), 2, r"random\(\)"),
    "a dropped column": (PEOPLE.replace("    {{ typed('name', 'text') }} as name,\n", ""), 2, "name is gone"),
    "a retyped column": (
        PEOPLE.replace("'age', 'integer'", "'age', 'numeric'"),
        2,
        "age was integer and is now numeric",
    ),
    "a unique key that is no column": (PEOPLE.replace("unique_key='email'", "unique_key='mail'"), 2, "no column mail"),
    "a column that is not there": (PEOPLE.replace("    _key,", "    _key,\n    nothing,"), 1, "nothing"),
    "a syntax error": (PEOPLE.replace("    _key,", "    _key,,"), 1, "syntax error"),
    "a macro that is not there": (PEOPLE.replace("typed('name'", "tiped('name'"), 2, "tiped"),
    "a source that is not there": (PEOPLE.replace("'people')", "'persons')"), 2, "persons"),
    "a wrong setting": (PEOPLE.replace("unique_key=", "on_missing='drop', unique_key="), 2, "on_missing is 'drop'"),
}


@pytest.mark.parametrize("wrong", MODELS)
def test_a_wrong_model_is_refused(bench: Bench, wrong: str) -> None:
    """A model that cannot be built is refused by name with the reason; current is as it was, and next shows it."""
    bench.sync()
    with bench.connect() as connection:
        connection.execute("create view report as select name, age from people_current")
    before = bench.state()
    model, exit_code, message = MODELS[wrong]
    bench.write_model("people", model)
    failure = bench.fail()
    assert (failure.exit_code, bench.state()) == (exit_code, before), failure.message
    assert_matches(message, failure.message)
    assert "people" in failure.message
    assert failure.hint
    if "column" in wrong and "gone" in message:
        assert "report" in failure.hint
    bench.write_model("people", PEOPLE)
    bench.sync()
    bench.verify()


def test_a_model_needs_no_unique_key(bench: Bench) -> None:
    """A versioned model without unique_key is built and published: its rows are told apart by _key."""
    bench.write_model("people", PEOPLE.replace(", unique_key='email'", ""))
    bench.sync()
    bench.api.records["people"] = people(49)
    bench.sync()
    assert bench.current() == rows(people(49))
    bench.verify()


def test_a_value_that_the_sql_cannot_take_is_the_models_fault(bench: Bench) -> None:
    """SQL that fails on a value ends in exit 2 with a hint to typed(), and the value is not shown."""
    bench.sync()
    bench.write_model("people", PEOPLE.replace("    _key,", "    _key,\n    (payload ->> 'name')::integer as number,"))
    failure = bench.fail()
    assert failure.exit_code == 2
    assert "22P02" in failure.message
    assert "name 1" not in failure.message
    assert "typed()" in (failure.hint or "")
    assert bench.current() == rows(people(50))
    bench.verify()


def test_a_run_that_failed_leaves_the_next_one_alone(bench: Bench) -> None:
    """After runs that failed before, in and after the build, the same warm dbt process serves the next one."""
    bench.sync()
    bench.api.token = "another"
    for _ in range(2):
        bench.fail()
    bench.write_model("people", PEOPLE + "limit 5")
    bench.fail()
    bench.api.token = TOKEN
    bench.fail()
    bench.write_model("people", PEOPLE)
    bench.api.records["people"] = people(49)
    bench.sync()
    assert bench.current() == rows(people(49))


# Checks


def test_a_failing_check_stops_the_run(bench: Bench) -> None:
    """A failing dbt test ends in exit 3 with test, entity, count and sample keys; nobody reads the candidate."""
    bench.sync()
    before = bench.state()
    bench.api.records["people"] = [
        person(n, kind="pirate", name="x") if n in (3, 4, 5) else person(n) for n in range(1, 51)
    ]
    failure = bench.fail()
    assert failure.exit_code == 3
    for part in ("accepted_values", "people.kind", "3 rows", "_key 3, 4, 5"):
        assert part in failure.message
    assert "pirate" not in failure.message
    assert failure.hint
    after = bench.state()
    assert (after["current"], after["next"], after["builds"]) == (before["current"], before["next"], before["builds"])
    bench.verify()
    bench.api.records["people"] = people(50, name="y")
    bench.sync()
    assert bench.current() == rows(people(50, name="y"))
    bench.verify()


def test_a_check_written_as_sql_is_judged(bench: Bench) -> None:
    """A singular dbt test stops a run as a generic one does, with the keys that it found."""
    bench.write(bench.tests / "nobody_is_a_hundred.sql", "select _key, age from {{ ref('people') }} where age = 100\n")
    bench.sync()
    bench.api.records["people"][6] = person(7, age=100)
    failure = bench.fail()
    assert failure.exit_code == 3
    for part in ("nobody_is_a_hundred", "people", "1 row", "_key 7"):
        assert part in failure.message
    assert bench.current() == rows(people(50))


def test_a_check_that_cannot_run_stops_the_run(bench: Bench) -> None:
    """A dbt test whose SQL fails is no pass: the run fails and names it."""
    bench.sync()
    wrong = TESTS.replace("[nobody_is_slow]", "[{dbt_utils_is_not_here: {}}]")
    bench.write(bench.models / "models.yml", wrong)
    failure = bench.fail()
    assert "dbt_utils_is_not_here" in failure.message
    assert bench.current() == rows(people(50))
    column = TESTS.replace("- name: kind", "- name: kinds")
    bench.write(bench.models / "models.yml", column)
    bench.api.records["people"] = people(50, name="y")
    failure = bench.fail()
    assert failure.exit_code == 1
    assert "accepted_values" in failure.message
    assert bench.current() == rows(people(50))
    bench.verify()


def test_a_warning_stops_nothing(bench: Bench) -> None:
    """A dbt test of severity warn is told, and the run publishes."""
    warns = "accepted_values: {config: {severity: warn}, arguments: {values: [member]}}"
    bench.write(
        bench.models / "models.yml", TESTS.replace("accepted_values: {arguments: {values: [guest, member]}}", warns)
    )
    bench.sync()
    assert len(bench.current()) == 50
    assert bench.value("select detail ->> 'test' from syncline.log_events where event = 'check_failed'")


def test_too_many_errors_stop_the_run(bench: Bench) -> None:
    """Where more records have errors than max_error_ratio allows, nothing is published and exit is 3."""
    bench.sync()
    bench.api.records["people"] = [person(n, age="old") if n <= 20 else person(n, name="y") for n in range(1, 51)]
    failure = bench.fail()
    assert failure.exit_code == 3
    assert "20 of the 50 records of people have errors" in failure.message
    assert "syncline errors" in (failure.hint or "")
    assert bench.current() == rows(people(50))
    bench.verify()


def test_a_failed_entity_holds_back_the_others_of_its_run(bench: Bench) -> None:
    """A run publishes together: an entity that is well is not published where another failed."""
    bench.sync("files")
    bench.write_lines("prices.csv", ["id,amount", "1,11.50", "2,20"])
    bench.write_model("visits", VISITS + "limit 1")
    before = bench.current("prices")
    assert bench.fail("files").exit_code == 2
    assert bench.current("prices") == before
    bench.verify("prices")


# The command line


def exits(bench: Bench, fault: Callable[[Bench], None], *arguments: str) -> tuple[int, dict[str, Any]]:
    bench.sync()
    fault(bench)
    ended = bench.cli("run", "shop", "--json", *arguments)
    assert ended.stderr.count("error: ") == 1
    assert "\n  try: " in ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.returncode, json.loads(ended.stdout)


@pytest.mark.parametrize(("fault", "exit_code"), [("401", 1), ("an empty list", 3), ("half of the records", 3)])
def test_a_failed_run_exits_with_its_code(bench: Bench, fault: str, exit_code: int) -> None:
    """The command exits with the run's code, writes one error and one hint to stderr, and the report to stdout."""
    code, report = exits(bench, FAULTS[fault][0])
    assert code == exit_code
    assert (report["status"], report["errors"][0]["exit_code"]) == ("failed", exit_code)
    assert [step["status"] for step in report["steps"]] == ["failed"]
