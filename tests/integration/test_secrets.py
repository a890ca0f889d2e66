"""Secrets and values of records stay where they are: no output, log, manifest or event shows them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api import Reply
from tests.projects import PEOPLE, SOURCES, TESTS, TOKEN, Bench, people, person

VALUE = "v4lue-that-must-not-show"

DOWNSTREAM = "select _key, {what} from {{{{ ref('people') }}}}\n"


def spoil(bench: Bench, **changes: object) -> None:
    bench.api.records["people"][6] |= {"name": VALUE, **changes}


def in_the_body_of_a_401(bench: Bench) -> None:
    bench.api.answer = lambda path, page: Reply({"error": f"{TOKEN} is wrong, {VALUE}"}, 401)


def in_an_answer_that_is_no_json(bench: Bench) -> None:
    bench.api.answer = lambda path, page: Reply(f"<html>{TOKEN} {VALUE}</html>".encode())


def in_an_answer_that_is_cut_off(bench: Bench) -> None:
    bench.api.answer = lambda path, page: Reply(f'{{"data": [{{"id": 1, "name": "{VALUE}'.encode())


def in_a_record_that_is_bad(bench: Bench) -> None:
    spoil(bench)
    bench.api.records["people"].append(f'{{"name": "{VALUE}\\u0000"}}'.encode())
    bench.api.records["people"].append(person(60, email=VALUE, name=f"{VALUE}\ud800"))


def in_values_that_do_not_fit(bench: Bench) -> None:
    spoil(bench, age=VALUE, born=VALUE)


def in_too_many_values_that_do_not_fit(bench: Bench) -> None:
    bench.api.records["people"] = people(50, age=VALUE, born=VALUE)


def in_a_failing_check(bench: Bench) -> None:
    spoil(bench, kind=VALUE)


def in_a_check_whose_sql_fails(bench: Bench) -> None:
    spoil(bench)
    test = "{% test name_is_a_number(model) %}\nselect * from {{ model }} where name::integer > 0\n{% endtest %}\n"
    bench.write(bench.macros / "name_is_a_number.sql", test)
    bench.write(bench.models / "models.yml", TESTS.replace("[nobody_is_slow]", "[name_is_a_number]"))


def in_sql_that_fails(bench: Bench) -> None:
    spoil(bench)
    bench.write_model("people", PEOPLE.replace("    _key,", "    _key,\n    (payload ->> 'name')::integer as number,"))


def in_a_collision(bench: Bench) -> None:
    spoil(bench, email=VALUE)
    bench.api.records["people"].append(person(60, email=VALUE))


def in_a_unique_index(bench: Bench) -> None:
    bench.api.records["people"] = people(50, name=VALUE)
    indexes = "indexes=[{'columns': ['name'], 'unique': True}], unique_key="
    bench.write_model("people", PEOPLE.replace("unique_key=", indexes))


def in_a_model_downstream(bench: Bench) -> None:
    spoil(bench)
    bench.write_model("numbers", "{{ config(materialized='table') }}\n" + DOWNSTREAM.format(what="name::integer as n"))


def in_a_view_downstream(bench: Bench) -> None:
    spoil(bench)
    bench.write_model("names", DOWNSTREAM.format(what="name"))


def in_a_division(bench: Bench) -> None:
    spoil(bench, age=0)
    bench.write_model("people", PEOPLE.replace("    _key,", "    _key,\n    1 / (payload ->> 'age')::integer as part,"))


def in_the_address(bench: Bench) -> None:
    place = 'base_url: ${SHOP_API_URL}/${SHOP_API_TOKEN}\n          params: {key: "${SHOP_API_TOKEN}"}'
    bench.write(bench.models / "sources.yml", SOURCES.replace("base_url: ${SHOP_API_URL}", place))


def in_an_address_that_is_none(bench: Bench) -> None:
    bench.write(
        bench.models / "sources.yml",
        SOURCES.replace("base_url: ${SHOP_API_URL}", 'base_url: "ht tp:${SHOP_API_TOKEN}"'),
    )


def in_a_wrong_setting(bench: Bench) -> None:
    bench.write(bench.models / "sources.yml", SOURCES.replace("timeout: 60", 'timeout: "${SHOP_API_TOKEN}"'))


PLACES: list[Callable[[Bench], None]] = [
    in_the_body_of_a_401,
    in_an_answer_that_is_no_json,
    in_an_answer_that_is_cut_off,
    in_a_record_that_is_bad,
    in_values_that_do_not_fit,
    in_too_many_values_that_do_not_fit,
    in_a_failing_check,
    in_a_check_whose_sql_fails,
    in_sql_that_fails,
    in_a_collision,
    in_a_unique_index,
    in_a_model_downstream,
    in_a_view_downstream,
    in_a_division,
    in_the_address,
    in_an_address_that_is_none,
    in_a_wrong_setting,
]


def leaks(bench: Bench, texts: dict[str, str]) -> list[str]:
    """Return the places that show the secret or the value."""
    for file in [path for path in bench.root.rglob("*") if path.is_file() and path.name != ".env"]:
        texts[str(file.relative_to(bench.root))] = file.read_bytes().decode("utf-8", "replace")
    for table in ("log_events", "runs", "steps", "loads", "builds", "results", "entities", "streams"):
        texts[table] = str(bench.query(f"select t::text from syncline.{table} as t"))
    return [place for place, text in texts.items() if TOKEN in text or VALUE in text]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_neither_secret_nor_value_shows(bench: Bench, place: Callable[[Bench], None]) -> None:
    """Whatever fails, the run's output, its events, dbt's files and the control plane show neither."""
    bench.sync()
    place(bench)
    texts: dict[str, str] = {}
    try:
        report = bench.run()
        texts["report"] = str(report)
    except Exception as error:
        texts["error"] = f"{error} {getattr(error, 'hint', '')}"
    assert leaks(bench, texts) == []


@pytest.mark.parametrize(
    "place",
    [
        in_the_body_of_a_401,
        in_a_failing_check,
        in_sql_that_fails,
        in_a_model_downstream,
        in_too_many_values_that_do_not_fit,
    ],
    ids=lambda place: place.__name__,
)
def test_commands_show_neither(bench: Bench, place: Callable[[Bench], None]) -> None:
    """What commands write to both outputs shows neither, with and without --json, after a run that failed."""
    bench.sync()
    place(bench)
    texts = {}
    for arguments in (["run", "shop"], ["run", "shop", "--json"], ["status"], ["runs", "--json"], ["doctor"]):
        ended = bench.cli(*arguments, SHOP_API_TOKEN=TOKEN)
        texts[" ".join(arguments)] = ended.stdout + ended.stderr
    assert "error: " in texts["run shop"]
    assert leaks(bench, texts) == []


def test_dbt_writes_no_log(bench: Bench) -> None:
    """The log of dbt, which would hold statements and errors, is not there after a run that failed."""
    bench.sync()
    in_sql_that_fails(bench)
    bench.fail()
    assert [file for file in bench.root.rglob("*.log*") if file.is_file()] == []
    assert not (bench.root / "logs").exists()


def test_the_servers_log_shows_no_value(bench: Bench, server_dsn: str) -> None:
    """The embedded server's log has no word of the statements that failed."""
    host = re.search(r"host=(\S+)", server_dsn)
    if host is None or not host.group(1).startswith("/tmp/syncline-"):
        pytest.skip("the tests' server is not the embedded one")
    bench.sync()
    for place in (in_sql_that_fails, in_a_model_downstream, in_a_unique_index, in_a_check_whose_sql_fails):
        place(bench)
        bench.run()
    log = Path(bench.value("show data_directory")).with_name("log")
    assert VALUE not in log.read_text(errors="replace")


def test_a_redacted_stream_keeps_no_value(bench: Bench) -> None:
    """With redact, row errors of loads and of builds keep no value either."""
    bench.write(
        bench.models / "sources.yml",
        SOURCES.replace("{path: /people, key: id}", "{path: /people, key: id, redact: true}"),
    )
    in_a_record_that_is_bad(bench)
    in_values_that_do_not_fit(bench)
    in_a_collision(bench)
    bench.sync()
    errors = bench.errors()
    assert len(errors) >= 4
    assert [error["value"] for error in errors] == [None] * len(errors)
    assert VALUE not in str(errors)
