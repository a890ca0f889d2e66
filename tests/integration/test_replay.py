"""Row errors tried again: what was rejected is kept, gets in once it passes, and never goes over anything newer."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import msgspec

from syncline import db, logs
from syncline.connectors import Context
from syncline.connectors.push import Push, PushedRecords
from syncline.load import LoadOptions, load_stream
from syncline.run_options import Replay
from tests.driver import Driver
from tests.projects import PEOPLE, SOURCES, Bench, people, person
from tests.serving import in_process, token

NUL = rb'{"id": 7, "name": "a\u0000b", "email": "p7@example.com"}'
UNKEYED = [{"name": "nobody", "code": "c1", "id": None}, {"name": "somebody", "code": "c2", "id": None}]


def replay(bench: Bench, **asked: Any) -> dict[str, Any]:
    """Replay in this process, as the command does; return what became of the errors."""
    wanted = Replay(**asked)
    with bench.connect() as connection:
        sources = db.call_value(connection, "replay_sources", msgspec.json.encode(wanted).decode())
    report = bench.sync(*sources, replay=wanted)
    with bench.connect() as connection:
        made: dict[str, Any] = db.call_value(connection, "replay_report", report["run_id"])
    return {name: count for name, count in made.items() if count and name != "run_id"}


def kept(bench: Bench) -> list[bytes]:
    found = bench.query("select record from syncline.rejected_records order by error_id")
    return [bytes(row["record"]) for row in found]


def set_key(bench: Bench, key: str) -> None:
    bench.write(bench.models / "sources.yml", SOURCES.replace("path: /people, key: id", f"path: /people, {key}"))


def test_rejected_records_get_in_once_the_key_is_mended(bench: Bench) -> None:
    """Records that had no key are kept to the byte, and are loaded, built and published once they have one."""
    model = "select _key, {{ typed('name', 'text') }} as name from {{ source('shop', 'people') }}"
    bench.write_model("people", "{{ config(materialized='versioned') }} " + model)
    bench.write(bench.models / "models.yml", "models: []")
    bench.api.records["people"] = UNKEYED
    failure = bench.fail()
    assert "all 2 records of shop.people were rejected" in failure.message
    assert kept(bench) == [json.dumps(record).encode() for record in UNKEYED]
    assert replay_fails_again(bench) == {"replayed": 2, "bad": 2}
    set_key(bench, "key: code")
    bench.api.records["people"] = []
    assert replay(bench, all=True) == {"replayed": 2, "fine": 2}
    assert {key: row["name"] for key, row in bench.current().items()} == {"c1": "nobody", "c2": "somebody"}
    assert bench.errors() == []
    assert kept(bench) == []
    bench.verify()


def replay_fails_again(bench: Bench) -> dict[str, Any]:
    """Replay twice what is still bad: the errors stay the ones they were."""
    before = bench.errors()
    replay(bench, all=True)
    outcome = replay(bench, stream="shop.people")
    assert bench.errors() == before
    return outcome


def test_a_record_is_replayed_after_its_load_was_pruned(bench: Bench) -> None:
    """A value that the SQL did not take is published once the SQL was mended, though its load is long pruned."""
    bench.api.records["people"] = people(50, born=None)
    bench.api.records["people"][6] |= {"born": "31/01/1990"}
    bench.sync()
    (error,) = bench.errors()
    assert (error["entity"], error["severity"]) == ("people", "warning")
    for generation in range(2, 8):
        changed = [record | {"generation": generation} for record in people(50, born=None)]
        bench.api.records["people"] = [*changed[:6], bench.api.records["people"][6], *changed[7:]]
        bench.sync()
    assert bench.value("select pruned_through from syncline.streams where stream = 'people'") > 1
    bench.write_model("people", PEOPLE.replace("typed('born', 'date')", "typed('born', 'date', format='DD/MM/YYYY')"))
    bench.api.records["people"] = []
    (error,) = bench.errors()
    outcome = replay(bench, errors=(error["error_id"],))
    assert outcome == {"replayed": 1, "fine": 1}
    assert bench.current()["7"]["born"].isoformat() == "1990-01-31"
    assert error["error_id"] not in [found["error_id"] for found in bench.errors()]
    bench.verify()


def test_a_required_value_is_replayed_by_the_command(bench: Bench) -> None:
    """`errors replay` says what is fine and what is still bad; `errors show` says all about one, with its record."""
    bench.api.records["people"][6] |= {"email": None}
    bench.api.records["people"][7] |= {"id": 8.5}
    bench.sync()
    assert len(bench.errors(entity="people")) == 2
    bench.write_model("people", PEOPLE.replace("typed('email', 'text', required=true)", "typed('email', 'text')"))
    ended = bench.cli("errors", "replay", "--entity", "people")
    assert ended.returncode == 0, ended.stderr
    assert "replayed 2: 1 now fine, 1 still bad" in ended.stdout
    assert "7" in bench.current()
    (error,) = bench.errors()
    shown = json.loads(bench.call("errors", "show", str(error["error_id"]), "--json").stdout)
    assert (shown["_key"], shown["path"], shown["is_replayable"]) == ("8.5", "id", True)
    assert json.loads(shown["record"]) == bench.api.records["people"][7]
    assert shown["model"] == "dbt_project/models/people.sql:6"
    again = bench.cli("errors", "replay", str(error["error_id"]), "--json")
    assert json.loads(again.stdout)["replay"] | {"run_id": 0} == {
        "run_id": 0, "replayed": 1, "fine": 0, "bad": 1, "outrun": 0, "left": 0, "unsettled": 0
    }  # fmt: skip
    assert len(bench.errors()) == 1


def test_a_newer_record_stays(bench: Bench) -> None:
    """A record whose key came again since is not replayed: its error is closed, with a note, and nothing is loaded."""
    bench.sync()
    push(bench, [b'{"name": "late", "code": "7"}'])
    (error,) = bench.errors()
    bench.query("update syncline.row_errors set _key = null returning 1")
    assert len(kept(bench)) == 1
    push(bench, [json.dumps(person(7, name="newer")).encode()])
    with bench.connect() as connection:
        connection.execute(
            "update syncline.rejected_records set record = %s",
            (json.dumps(person(7, name="older")).encode(),),
        )
    before = bench.revisions()
    assert replay(bench, all=True) == {"outrun": 1}
    assert bench.revisions() == before
    assert bench.live()["7"]["name"] == "newer"
    shown = json.loads(bench.call("errors", "show", str(error["error_id"]), "--json").stdout)
    assert "came again" in shown["note"]
    assert shown["closed_at"]


def push(bench: Bench, lines: list[bytes]) -> None:
    """Send records into the stream, as an increment."""
    bench.run("shop", steps=("load",), streams=("people",), push=Push(BytesIO(b"\n".join(lines)).read))


def test_what_is_redacted_is_not_kept(bench: Bench) -> None:
    """Of a redacted stream no record is kept, and a replay says so; neither command nor API shows its records."""
    set_key(bench, "key: id, redact: true")
    bench.api.records["people"][6] = NUL
    bench.sync()
    (error,) = bench.errors(stream="people")
    assert (error["value"], kept(bench)) == (None, [])
    ended = bench.call("errors", "replay", str(error["error_id"]))
    assert ended.returncode == 3
    assert "its record was not kept" in ended.stderr
    assert "nothing to replay" in bench.call("errors", "replay", "--all").stdout
    bench.api.records["people"][7] |= {"age": "secret"}
    bench.sync()
    (error,) = bench.errors(entity="people")
    shown = json.loads(bench.call("errors", "show", str(error["error_id"]), "--json").stdout)
    assert (shown["record"], shown["value"], shown["is_redacted"]) == (None, None, True)
    assert "the stream is redacted" in bench.call("errors", "show", str(error["error_id"])).stdout


def test_a_stream_that_becomes_redacted_forgets_what_it_kept(bench: Bench) -> None:
    """The first load after `redact: true` deletes the kept records; before, a replay does."""
    bench.api.records["people"][6] = NUL
    bench.sync()
    assert kept(bench) == [NUL]
    set_key(bench, "key: id, redact: true")
    assert replay(bench, all=True) == {"left": 1}
    assert kept(bench) == []


def test_what_cannot_be_replayed_is_refused(bench: Bench) -> None:
    """Unknown, closed and unkept errors, unknown names, and a stream that is gone are refused with what to do."""
    bench.api.records["people"][6] = NUL
    bench.sync()
    (error,) = bench.errors()
    number = str(error["error_id"])
    for arguments, code, said in [
        (["999"], 2, "there is no row error 999"),
        ([], 2, "--all"),
        (["--entity", "nobody"], 2, "there is no entity nobody"),
        (["--stream", "nothing"], 2, "there is no stream nothing"),
    ]:
        ended = bench.call("errors", "replay", *arguments)
        assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr
    assert bench.call("errors", "show", "999").returncode == 2
    bench.sync(full_refresh=True)
    (newer,) = bench.errors()
    assert newer["error_id"] != error["error_id"]
    ended = bench.call("errors", "replay", number)
    assert f"Row error {newer['error_id']} is open now, of the same key." in ended.stderr
    number = str(newer["error_id"])
    bench.write(bench.models / "sources.yml", SOURCES.replace("- name: people", "- name: persons"))
    bench.write_model("people", PEOPLE.replace("'people'", "'persons'"))
    ended = bench.call("errors", "replay", number)
    assert ended.returncode == 2
    assert "does not declare shop.people any more" in ended.stderr
    told = bench.call("errors", "replay", "--all").stdout
    assert told.endswith("\n1 left as they are: the project does not declare shop.people any more\n")
    shown = bench.call("errors", "show", number).stdout
    assert "not shown: the project does not declare its stream any more" in shown
    assert "try again" not in shown
    bench.write(bench.models / "sources.yml", SOURCES)
    bench.write_model("people", PEOPLE)
    bench.api.records["people"] = people(50)
    bench.sync()
    ended = bench.call("errors", "replay", number)
    assert (ended.returncode, "is closed already" in ended.stderr) == (3, True)


def test_an_entity_that_is_gone_is_refused(bench: Bench) -> None:
    """The errors of an entity whose model is gone cannot be replayed; with `all` they are left as they are."""
    bench.api.records["people"][6] |= {"age": "old"}
    bench.sync()
    (error,) = bench.errors()
    (bench.models / "people.sql").unlink()
    bench.write(bench.models / "models.yml", "models: []")
    ended = bench.call("errors", "replay", "--entity", "people")
    assert (ended.returncode, "the project has no entity people any more" in ended.stderr) == (2, True)
    assert "run" not in ended.stdout
    failure = bench.fail("shop", replay=Replay(errors=(error["error_id"],)))
    assert failure.exit_code == 2
    assert "the project has no entity people any more" in failure.message
    assert replay(bench, all=True) == {"left": 1}
    told = bench.call("errors", "replay", "--all").stdout
    assert "1 left as they are: people, or what it reads, is gone from the project" in told


def test_a_line_that_could_not_be_read_is_kept_to_be_looked_at(bench: Bench) -> None:
    """What a connector could not read is shown and never replayed: half a row might pass for a whole one."""
    bench.write_lines("prices.csv", ["id,amount", "1,10", "3,30,300"])
    bench.sync("files")
    (error,) = bench.errors(stream="prices")
    shown = json.loads(bench.call("errors", "show", str(error["error_id"]), "--json").stdout)
    assert "30" in shown["record"]
    assert not shown["is_replayable"]
    ended = bench.call("errors", "replay", str(error["error_id"]))
    assert (ended.returncode, "its record could not be read" in ended.stderr) == (3, True)
    assert "3" not in bench.current("prices")


def test_records_are_kept_within_bounds(driver: Driver) -> None:
    """A load of nothing but bad records keeps 16 MiB of them and 10,000 errors; one that is too large is not kept."""
    filler = "x" * 4000
    lines = [f'{{"name": "{filler}", "n": {number}}}' for number in range(12_000)]
    driver.load(['{"name": "' + "y" * (1 << 20) + '"}', *lines])
    facts = driver.connection.execute(
        "select count(*) as records, sum(octet_length(record)) as bytes, max(octet_length(record)) as largest"
        " from syncline.rejected_records"
    ).fetchone()
    assert facts is not None
    assert 15 << 20 < facts["bytes"] <= 16 << 20
    assert facts["largest"] < 5000
    assert len(driver.errors()) == 10_000
    assert driver.connection.execute("select records_rejected from syncline.loads").fetchone() == {
        "records_rejected": 12_001
    }
    driver.load(['{"id": 1, "email": "a@example.com"}'])
    assert driver.connection.execute("select count(*) as n from syncline.rejected_records").fetchone() == {"n": 0}


def test_a_bad_record_that_comes_again_has_one_error(driver: Driver) -> None:
    """Increments that bring the same bad record again and again leave one open error, and one kept record."""
    driver.load(['{"id": 1}'])
    for number in range(3):
        push_lines(driver, [b'{"id": 7, "name": "%d\\u0000"}' % number])
    (error,) = driver.errors()
    assert error["_key"] == "7"
    (record,) = driver.connection.execute("select record from syncline.rejected_records").fetchall()
    assert bytes(record["record"]) == b'{"id": 7, "name": "2\\u0000"}'


def test_a_push_is_no_full_load_however_old_the_last_one_is(driver: Driver) -> None:
    """`full_every` is about fetches: records that are pushed, or replayed, never close those that did not come."""
    driver.configure(full_every="1s")
    driver.load(['{"id": 1}', '{"id": 2}'])
    driver.connection.execute("update syncline.streams set last_full_at = now() - interval '1 day'")
    push_lines(driver, [b'{"id": 3}'])
    assert set(driver.live()) == {"1", "2", "3"}


def push_lines(driver: Driver, lines: list[bytes]) -> None:
    source = driver.project.sources["files"]
    pushed = PushedRecords(Push(BytesIO(b"\n".join(lines)).read), Context(driver.root))
    load_stream(driver.project, source, pushed, source.streams["people"], driver.connection, LoadOptions())


def test_closed_errors_are_pruned_by_age(driver: Driver) -> None:
    """Errors that were closed longer ago than `keep_errors` go, with all that hangs on them; open ones stay."""
    driver.load(["{}", '{"id": 1}'])
    driver.load(["{}", '{"id": 1}'])
    driver.connection.execute("update syncline.row_errors set created_at = now() - interval '1 year'")
    assert logs.prune(driver.connection, driver.project)["row_errors"] == 0
    driver.connection.execute(
        "update syncline.row_errors set closed_at = now() - interval '31 days' where closed_at is not null"
    )
    assert logs.prune(driver.connection, driver.project)["row_errors"] == 1
    assert len(driver.errors()) == 1


def test_errors_are_shown_and_replayed_over_http(bench: Bench) -> None:
    """GET shows one error with its record; POST, an operator's right, puts a replay in the queue, for a worker."""
    bench.api.records["people"][6] |= {"email": None}
    bench.sync()
    bench.write_model("people", PEOPLE.replace("typed('email', 'text', required=true)", "typed('email', 'text')"))
    (error,) = bench.errors()
    with in_process(bench) as client:
        shown = client.get(f"/api/v1/row-errors/{error['error_id']}")
        assert shown.status_code == 200, shown.text
        assert json.loads(shown.json()["record"]) == bench.api.records["people"][6]
        assert shown.json() == json.loads(bench.call("errors", "show", str(error["error_id"]), "--json").stdout)
        assert client.get("/api/v1/row-errors/999").status_code == 404
        viewer = token(bench, "viewer")
        asked = {"errors": [error["error_id"]]}
        assert client.post("/api/v1/row-errors/replay", json=asked, headers=viewer).status_code == 403
        assert client.post("/api/v1/row-errors/replay", json={}).status_code == 422
        answer = client.post("/api/v1/row-errors/replay", json=asked)
        assert answer.status_code == 202, answer.text
        assert (answer.json()["kind"], answer.json()["status"]) == ("replay", "queued")
        again = client.post("/api/v1/row-errors/replay", json=asked)
        assert again.json()["run_id"] == answer.json()["run_id"]
        ended = bench.cli("worker", "--burst")
        assert ended.returncode == 0, ended.stderr
        run = client.get(answer.headers["location"]).json()
        assert (run["status"], run["errors"]) == ("succeeded", [])
        told = bench.value("select detail from syncline.log_events where event = 'errors_replayed'")
        assert (told["replayed"], told["fine"]) == (1, 1)
        assert client.post("/api/v1/row-errors/replay", json=asked).status_code == 409
    assert "7" in bench.current()


def test_the_list_is_what_errors_alone_gives(bench: Bench) -> None:
    """`errors` and `errors list` are one; an option before another command is refused, not ignored."""
    bench.api.records["people"][6] = NUL
    bench.sync()
    assert bench.call("errors").stdout == bench.call("errors", "list").stdout
    assert bench.call("errors", "--json").stdout == bench.call("errors", "list", "--json").stdout
    ended = bench.call("errors", "--entity", "people", "replay")
    assert (ended.returncode, "unexpected extra argument (replay)" in ended.stderr) == (2, True)
