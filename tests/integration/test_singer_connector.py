"""The Singer connector against taps that run as programs: our own, by Singer's rules or not, and a real one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from syncline.config import Stream, StreamSettings, convert
from syncline.connectors import Context, Fetch, Page
from syncline.connectors.singer.connector import SingerConnector, SingerSource, SingerStream
from syncline.connectors.singer.messages import PAGE_RECORDS
from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError, SynclineError
from tests.projects import Bench

SECRET = "s3cr3t-t0ken"
ROOT = Path(__file__).parents[2]
TAP = ROOT / "tests" / "taps" / "singer_tap.py"
SCHEMA = {"type": "SCHEMA", "stream": "people", "schema": {"properties": {}}, "key_properties": ["id"]}
PEOPLE = [
    {"id": 1, "name": "Ada", "at": "2024-01-01T00:00:00Z", "address": {"city": "London"}},
    {"id": 2, "name": "Bob", "at": "2024-01-02T00:00:00Z", "address": {"city": "Rome"}},
]


def record(number: int, stream: str = "people") -> dict[str, Any]:
    return {"type": "RECORD", "stream": stream, "record": {"id": number}}


def state(value: Any) -> dict[str, Any]:
    return {"type": "STATE", "value": value}


class LoggingContext(Context):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


class Tap:
    """Our own tap as a source in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.context = LoggingContext(root)
        self.config: dict[str, Any] = {"notes": str(root / "notes"), "folder": str(root), "token": SECRET}
        self.source: dict[str, Any] = {"command": [sys.executable, str(TAP)]}
        self.write(PEOPLE)

    def write(self, records: list[Any], name: str = "people") -> None:
        (self.root / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def connector(self) -> SingerConnector:
        settings = {"config": self.config, **self.source}
        return SingerConnector(convert(settings, SingerSource, "source src"), self.context)

    def fetch(self, *, cursor: Any = None, position: Any = None, key: Any = "id", **settings: Any) -> Fetch:
        name = settings.pop("name", "people")
        keys = (key,) if isinstance(key, str) else tuple(key)
        stream = Stream("src", name, keys, StreamSettings(key=key), {}, Path("sources.yml"))
        shape = convert({"timeout": 20, **settings}, SingerStream, "stream src.people")
        return Fetch(stream=stream, settings=shape, cursor=cursor, position=position)

    def pages(self, **settings: Any) -> list[Page]:
        connector = self.connector()
        try:
            return list(connector.read(self.fetch(**settings)))
        finally:
            connector.close()

    def read(self, **settings: Any) -> list[Any]:
        return [json.loads(record) for page in self.pages(**settings) for record in page.records]

    def script(self, *steps: Any) -> None:
        self.config["script"] = [SCHEMA, *steps]

    def fail(self, kind: type[SynclineError] = SourceError, **settings: Any) -> SynclineError:
        with pytest.raises(kind) as caught:
            self.pages(**settings)
        return caught.value

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / "notes").read_text().splitlines()]


@pytest.fixture
def tap(tmp_path: Path) -> Tap:
    return Tap(tmp_path)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def wait_until(is_so: Callable[[], Any]) -> None:
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.01)


def wait_for_end(pid: int) -> None:
    wait_until(lambda: not is_alive(pid))


# What is read


def test_records_come_as_they_were_written(tap: Tap) -> None:
    """A record is cut out of its message to the byte: key order, spaces and digits stay."""
    tap.script('{"type": "RECORD", "record":  {"b": 1.50,  "id": 10000000000000000000001}  , "stream": "people"}\n')
    assert [page.records for page in tap.pages()] == [[b'{"b": 1.50,  "id": 10000000000000000000001}']]


def test_full_load_has_no_state(tap: Tap) -> None:
    """A full load starts the tap without a state, saves none, and cannot be gone on from."""
    pages = tap.pages(cursor={"state": {"bookmarks": {"people": {"at": "2024-01-02T00:00:00Z"}}}})
    assert [(len(page.records), page.cursor, page.position) for page in pages] == [(2, None, None)]
    assert tap.notes()[-1]["state"] is None


def test_state_goes_on_from_load_to_load(tap: Tap) -> None:
    """An increment's last page has the tap's last state, and the next load hands it back."""
    settings = {"replication_method": "INCREMENTAL", "replication_key": "at"}
    cursor = tap.pages(**settings)[-1].cursor
    assert cursor == {"state": {"bookmarks": {"people": {"at": "2024-01-02T00:00:00Z"}}}}
    tap.write([*PEOPLE, {**PEOPLE[0], "id": 3, "at": "2024-01-03T00:00:00Z"}])
    pages = tap.pages(cursor=cursor, **settings)
    assert [json.loads(record)["id"] for page in pages for record in page.records] == [2, 3]
    assert pages[-1].cursor == {"state": {"bookmarks": {"people": {"at": "2024-01-03T00:00:00Z"}}}}
    assert tap.notes()[-1]["state"] == cursor["state"]


def test_increment_without_a_state_message_keeps_its_cursor(tap: Tap) -> None:
    """A tap that has nothing new may write no STATE: the last one stands."""
    tap.script()
    assert tap.pages(cursor={"state": 7}, replication_method="LOG_BASED")[-1].cursor == {"state": 7}


def test_pages_end_at_a_state(tap: Tap) -> None:
    """A cursor and a position are given only with a page that holds all records before that STATE."""
    many = PAGE_RECORDS - 10
    tap.script({"many": many}, state(1), {"many": 20}, {"many": PAGE_RECORDS}, state(2), {"many": 5})
    pages = tap.pages(replication_method="INCREMENTAL", replication_key="id")
    found = [(len(page.records), page.cursor, page.position) for page in pages]
    assert found == [
        (0, None, {"state": None}),
        (many, {"state": 1}, {"state": 1}),
        (PAGE_RECORDS, None, None),
        (25, {"state": 2}, None),
    ]


def test_state_right_after_a_full_page(tap: Tap) -> None:
    """Taps that write a state every 10,000 records can be gone on from there, too."""
    tap.script({"many": PAGE_RECORDS}, state(1), state(2), {"many": PAGE_RECORDS}, state(3), {"exit": 1})
    found: list[Any] = []

    def read() -> None:
        for page in tap.connector().read(tap.fetch(replication_method="LOG_BASED")):
            found.append((len(page.records), page.position))

    with pytest.raises(SourceError, match="exit code 1"):
        read()
    assert found == [
        (0, {"state": None}),
        (PAGE_RECORDS, None),
        (0, {"state": 1}),
        (PAGE_RECORDS, None),
        (0, {"state": 3}),
    ]


def test_failed_increment_goes_on_from_its_last_state(tap: Tap) -> None:
    """What came before the last STATE is handed over before the failure is told; the next fetch starts there."""
    tap.script(record(1), state({"at": 1}), record(2), state({"at": 2}), record(3), {"exit": 1})
    connector = tap.connector()
    settings = {"replication_method": "INCREMENTAL", "replication_key": "id"}
    pages = connector.read(tap.fetch(**settings))
    assert next(pages).position == {"state": None}
    page = next(pages)
    assert (page.records, page.position) == ([b'{"id": 1}', b'{"id": 2}'], {"state": {"at": 2}})
    with pytest.raises(SourceError, match="exit code 1"):
        next(pages)
    tap.script(record(3), state({"at": 3}))
    pages_after = tap.pages(position=page.position, cursor={"state": {"at": 0}}, **settings)
    assert tap.notes()[-1]["state"] == {"at": 2}
    assert [json.loads(record)["id"] for page in pages_after for record in page.records] == [3]
    assert pages_after[-1].cursor == {"state": {"at": 3}}


def test_records_that_json_cannot_hold(tap: Tap) -> None:
    """A record with NaN is a bad record that keeps its key; the others come as usual."""
    tap.script(record(1), '{"type": "RECORD", "stream": "people", "record": {"id": 2, "x": NaN}}\n', record(3))
    (page,) = tap.pages()
    assert [json.loads(record)["id"] for record in page.records] == [1, 2, 3]
    assert page.unreadable == {1: "NaN or Infinity, which no JSON can hold"}


def test_messages_that_are_passed_over(tap: Tap) -> None:
    """Unknown types get one line in the log; ACTIVATE_VERSION and empty lines none."""
    odd = {"type": "WEATHER", "stream": "people"}
    tap.script(odd, odd, "\n", {"type": "ACTIVATE_VERSION", "stream": "people", "version": 1}, record(1))
    assert tap.read() == [{"id": 1}]
    assert [line for line in tap.context.lines if "WEATHER" in line] == [
        "src.people: messages of the type 'WEATHER' are passed over"
    ]


def test_version_of_an_increment(tap: Tap) -> None:
    """A tap that begins an increment's table anew says so with a version: what was loaded is void."""
    version = {"type": "ACTIVATE_VERSION", "stream": "people", "version": 5}
    tap.script(version, record(1), state(1))
    settings = {"replication_method": "LOG_BASED"}
    cursor = tap.pages(**settings)[-1].cursor
    assert cursor == {"state": 1, "version": 5}
    assert len(tap.pages(cursor=cursor, **settings)) == 2
    tap.script({**version, "version": 6}, record(1))
    error = tap.fail(cursor=cursor, **settings)
    assert "begins the stream anew" in error.message
    assert "--full-refresh" in (error.hint or "")


# The catalog


def test_only_the_stream_is_selected(tap: Tap) -> None:
    """The catalog selects the one stream by every mark that taps read, with its method and key."""
    tap.config["streams"] = {"people": {}, "orders": {"selected": True}}
    tap.read(replication_method="INCREMENTAL", replication_key="at", select=["!address"])
    people, orders = tap.notes()[-1]["catalog"]["streams"]
    facts = {tuple(item["breadcrumb"]): item["metadata"] for item in people["metadata"]}
    assert (people["selected"], facts[()]["selected"]) == (True, True)
    assert (orders["selected"], orders["metadata"][0]["metadata"]["selected"]) == (False, False)
    assert (facts[()]["replication-method"], facts[()]["replication-key"]) == ("INCREMENTAL", "at")
    assert (people["replication_method"], people["replication_key"]) == ("INCREMENTAL", "at")
    assert {name[1]: fact["selected"] for name, fact in facts.items() if name} == {
        "id": True,
        "name": True,
        "at": True,
        "address": False,
    }


def test_select(tap: Tap) -> None:
    """Properties are named or named away; the key comes in any case, and an unknown one is an error."""
    assert set(tap.read(select=["at"])[0]) == {"id", "at", "_sdc_extracted_at"}
    assert set(tap.read(select=["!name", "!address"])[0]) == {"id", "at", "_sdc_extracted_at"}
    error = tap.fail(ConfigurationError, select=["nothing"])
    assert "`select` names 'nothing'" in error.message
    assert "id, name, at, address" in (error.hint or "")


def test_catalog_is_discovered_once(tap: Tap) -> None:
    """All streams of a run share one discovery; a catalog of the settings takes its place."""
    tap.config["streams"] = {"people": {}, "orders": {}}
    tap.write(PEOPLE, "orders")
    connector = tap.connector()
    found: list[int] = []

    def read(fetch: Fetch) -> None:
        found.append(sum(len(page.records) for page in connector.read(fetch)))

    work = [threading.Thread(target=read, args=[tap.fetch(name=name)]) for name in ["people", "orders"] * 2]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert found == [2, 2, 2, 2]
    assert sum(note["discover"] for note in tap.notes()) == 1
    (tap.root / "catalog.json").write_text(json.dumps({"streams": [tap.notes()[-1]["catalog"]["streams"][0]]}))
    tap.source["catalog"] = "catalog.json"
    assert len(tap.read()) == 2
    assert sum(note["discover"] for note in tap.notes()) == 1


def test_parent_that_has_to_be_selected(tap: Tap) -> None:
    """Where the catalog names a stream's parent, it is selected too, and its records are not the stream's."""
    tap.config["streams"] = {"orders": {}, "people": {"parent-tap-stream-id": "orders"}, "others": {}}
    orders = {**SCHEMA, "stream": "orders", "key_properties": ["no"]}
    tap.config["script"] = [orders, record(9, "orders"), SCHEMA, record(1), record(8, "orders"), record(2)]
    assert [record["id"] for record in tap.read()] == [1, 2]
    streams = tap.notes()[-1]["catalog"]["streams"]
    assert {stream["tap_stream_id"]: stream["selected"] for stream in streams} == {
        "orders": True,
        "people": True,
        "others": False,
    }


def test_tap_that_writes_another_name(tap: Tap) -> None:
    """Some taps write a name that their catalog does not know: it is that of the one stream selected."""
    tap.config["script"] = [{**SCHEMA, "stream": "public-people"}, record(1, "public-people")]
    assert tap.read() == [{"id": 1}]


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"tap_stream": "nobody"}, "the tap has no stream 'nobody'", "people"),
        ({"replication_method": "INCREMENTAL"}, "names no `replication_key`", "grows"),
        ({"replication_method": "INCREMENTAL", "replication_key": "x"}, "the replication key 'x'", "grows"),
        ({"key": "name"}, "the tap's key of the stream is id", "`key: id`"),
        ({"key": ["id", "name"]}, "the tap's key of the stream is id", "check_key"),
    ],
)
def test_settings_that_the_catalog_refutes(tap: Tap, settings: dict[str, Any], message: str, hint: str) -> None:
    """What the tap does not have is a wrong setting, and the hint has what to write."""
    error = tap.fail(ConfigurationError, **settings)
    assert error.message.startswith("src.people")
    assert message in error.message
    assert hint in (error.hint or "")


def test_key_of_ones_own(tap: Tap) -> None:
    """With check_key: false the stream's key may be another than the tap's."""
    assert len(tap.read(key="name", check_key=False)) == 2


def test_cursor_of_another_connector(tap: Tap) -> None:
    """What another connector has saved for the stream is no state of the tap's."""
    for cursor in ({}, {"value": 7}):
        tap.read(cursor=cursor, replication_method="INCREMENTAL", replication_key="at")
        assert tap.notes()[-1]["state"] is None


def test_no_range(tap: Tap) -> None:
    """A tap knows no range: a backfill is refused before it is started."""
    fetch = tap.fetch(replication_method="LOG_BASED")
    with pytest.raises(ConfigurationError, match="cannot be asked for a range"):
        next(tap.connector().read(Fetch(stream=fetch.stream, settings=fetch.settings, since="2024")))
    assert not (tap.root / "notes").exists()


def test_is_increment(tap: Tap) -> None:
    """FULL_TABLE brings all, the other methods what changed."""
    connector = tap.connector()
    wanted = {"FULL_TABLE": False, "INCREMENTAL": True, "LOG_BASED": True}
    fetches = {method: tap.fetch(replication_method=method) for method in wanted}
    found = {method: connector.is_increment(fetch.stream, fetch.settings) for method, fetch in fetches.items()}
    assert found == wanted


# Taps that break the rules


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([record(1), f"print {SECRET}\n"], "line 3 of the tap's output is no Singer message"),
        ([record(1), "[1]\n"], "line 3 of the tap's output is no Singer message"),
        ([b"\xff\xfe\n".decode("latin-1"), record(1)], "line 2 of the tap's output is no Singer message"),
        ([{"type": "RECORD", "stream": "people"}], "line 2 of the tap's output is a RECORD without `record`"),
        ([{"type": "STATE"}], "line 2 of the tap's output is a STATE without `value`"),
        ([record(1, "orders")], "line 2 of the tap's output is a RECORD of a stream that was not selected"),
        ([{"type": "BATCH", "stream": "people", "manifest": []}], "BATCH"),
        (['{"type": "RECORD", "stream": "people", "record": {"id": 1'], "ended in the middle of a line"),
        ([record(1), {"exit": 3}], "the tap ended with exit code 3"),
        ([record(1), {"kill": 9}], "the tap was killed by signal 9"),
    ],
)
def test_rules_that_a_tap_breaks(tap: Tap, steps: list[Any], message: str) -> None:
    """Half an answer or rubbish is an error that says where, and never what was written."""
    tap.script(*steps)
    error = tap.fail()
    assert error.message.startswith("src.people: ")
    assert message in error.message
    assert SECRET not in f"{error.message} {error.hint}"


def test_record_before_its_schema(tap: Tap) -> None:
    """A RECORD needs its SCHEMA before it."""
    tap.config["script"] = [record(1), SCHEMA]
    assert "line 1 of the tap's output is a RECORD that comes before its SCHEMA" in tap.fail().message


def test_last_lines_of_the_log(tap: Tap) -> None:
    """What the tap says is logged line by line; a failure shows its last five lines, shortened, without records."""
    long = "word " * 100
    says = [f"line {number}" for number in range(10)]
    tap.config["says"] = [*says, f"at postgresql://me:{SECRET}@host/db", f'bad record {{"name": "{SECRET}"}}', long]
    tap.script(record(1), {"exit": 1})
    message = tap.fail().message
    assert "its last lines: line 8 | line 9 | at postgresql://***@host/db | bad record {...} | word word" in message
    assert len(message) < 600
    assert tap.context.lines[-13:-3] == says
    assert SECRET not in message + "".join(tap.context.lines)


def test_log_that_never_ends(tap: Tap) -> None:
    """A tap that says more than a pipe holds goes on, and so does one that says it in one line."""
    tap.config["says"] = ["x" * 300_000, *["y" * 1000] * 300]
    assert len(tap.read()) == 2


def test_tap_that_hangs(tap: Tap) -> None:
    """A tap that writes nothing for `timeout` seconds is ended, with what it has started; it may answer later."""
    child = tap.root / "child"
    tap.script({"child": str(child)}, record(1), {"sleep": 600})
    error = tap.fail(SourceUnavailableError, timeout=1)
    assert "wrote no message for 1 s" in error.message
    wait_for_end(tap.notes()[-1]["pid"])
    wait_for_end(int(child.read_text()))


@pytest.mark.parametrize("how", ["closed", "dropped", "another thread"])
def test_no_tap_outlives_its_load(tap: Tap, how: str) -> None:
    """However the reading stops, the tap ends and its files go."""
    tap.script({"many": PAGE_RECORDS + 1}, {"sleep": 600})
    connector = tap.connector()
    pages = connector.read(tap.fetch(timeout=60))
    next(pages)
    note = tap.notes()[-1]
    if how == "closed":
        connector.close()
        with pytest.raises(SourceError, match="killed by signal"):
            next(pages)
    elif how == "dropped":
        pages.close()  # type: ignore[attr-defined]
    else:
        failures: list[Exception] = []

        def go_on() -> None:
            try:
                next(pages)
            except SourceError as error:
                failures.append(error)

        thread = threading.Thread(target=go_on)
        thread.start()
        connector.close()
        thread.join()
        assert len(failures) == 1
    wait_for_end(note["pid"])
    assert [file for file in note["files"] if Path(file).exists()] == []


def test_no_tap_without_its_guard(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tap whose guard the system does not start is ended: nobody would."""
    # Longer than an argument may be.
    monkeypatch.setattr("syncline.connectors.singer.process._GUARD", "#" * 200_000)
    tap.source["command"] = [sys.executable, "-c", "import time; time.sleep(600)", str(tap.root)]
    assert "cannot be started: Argument list too long" in tap.fail().message
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    assert [command for command in commands if str(tap.root).encode() in command.split(b"\0")] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_tap_outlives_its_runner(bench: Bench, tap: Tap, number: signal.Signals) -> None:
    """A runner that is killed leaves neither its tap behind nor the files with the tap's secrets."""
    tap.script(record(1), {"sleep": 600})
    config = json.dumps(tap.config)
    bench.write(bench.models / "sources.yml", SOURCES.format(command=json.dumps(tap.source["command"]), config=config))
    for model in ("people", "visits", "prices"):
        (bench.models / f"{model}.sql").unlink()
    runner = bench.start("load", "taps")
    try:
        wait_until(lambda: (tap.root / "notes").exists() and tap.notes()[-1]["catalog"])
    finally:
        runner.send_signal(number)
        runner.communicate()
    note = tap.notes()[-1]
    wait_for_end(note["pid"])
    wait_until(lambda: not any(Path(file).exists() for file in note["files"]))


def test_files_of_a_tap_are_private(tap: Tap) -> None:
    """Config, catalog and state are files that only this user reads, and they are gone after the load."""
    tap.read(replication_method="INCREMENTAL", replication_key="at", cursor={"state": {"bookmarks": {}}})
    note = tap.notes()[-1]
    assert note["modes"] == ["0o600"] * 3
    assert [Path(file).parent.exists() for file in note["files"]] == [False] * 3


def test_dates_of_the_config(bench: Bench, tap: Tap) -> None:
    """What YAML reads as a date or a time reaches the tap as text, and is no hindrance to the masking of secrets."""
    config = json.dumps(tap.config)[:-1] + ', "start": 2024-01-01, "at": 2024-01-01T10:00:00Z, "script": [{"exit": 1}]}'
    bench.write(bench.models / "sources.yml", SOURCES.format(command=json.dumps(tap.source["command"]), config=config))
    for model in ("people", "visits", "prices"):
        (bench.models / f"{model}.sql").unlink()
    assert "the tap ended with exit code 1" in bench.call("load", "taps").stderr
    assert (
        tap.notes()[-1]["config"] | {"start": "2024-01-01", "at": "2024-01-01T10:00:00Z"} == tap.notes()[-1]["config"]
    )


def test_environment_of_a_tap(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tap runs in the project and sees what `env` gives it, and no secret of the runner's."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{SECRET}")
    monkeypatch.setenv("OTHER_API_TOKEN", SECRET)
    tap.source["env"] = {"TAP_MODE": "quick"}
    tap.read()
    note = tap.notes()[-1]
    assert note["folder"] == str(tap.root)
    assert note["environment"]["TAP_MODE"] == "quick"
    assert note["environment"]["PATH"] == os.environ["PATH"]
    assert SECRET not in json.dumps(note["environment"])


@pytest.mark.parametrize("command", ["", "bin/no-such-tap", ["no-such-tap-anywhere"], "'"])
def test_no_such_program(tap: Tap, command: Any) -> None:
    """A command that is none is a wrong setting."""
    tap.source["command"] = command
    assert "command" in (tap.fail(ConfigurationError).hint or "") + tap.fail(ConfigurationError).message


def test_relative_command(tap: Tap) -> None:
    """A relative path starts at the project."""
    folder = tap.root / "my taps"
    folder.mkdir()
    (folder / "tap").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{TAP}" "$@"\n')
    (folder / "tap").chmod(0o755)
    tap.source["command"] = "'my taps/tap'"
    assert len(tap.read()) == 2


@pytest.mark.parametrize("catalog", [[], {}, {"streams": [1]}, {"streams": [{"schema": {}}]}, {"streams": None}])
def test_catalog_that_is_none(tap: Tap, catalog: Any) -> None:
    """A catalog by no rules of Singer's is an error."""
    tap.config["discovers"] = catalog
    assert "no Singer catalog" in tap.fail().message


# Discovery


def test_discover(tap: Tap) -> None:
    """The tap's streams come with key, replication key, columns and a sample; one that the tap cannot read says why."""
    tap.config["streams"] = {
        "people": {"valid-replication-keys": ["at"]},
        "public-Orders": {"keys": ["id", "at"]},
        "public_orders": {"keys": []},
    }
    tap.write(PEOPLE, "public-Orders")
    people, orders, more = list(tap.connector().discover())
    method = {"replication_method": "INCREMENTAL", "replication_key": "at"}
    assert (people.name, people.settings) == ("people", {"tap_stream": "people", **method, "key": "id"})
    assert people.columns == {"id": "bigint", "name": "text", "at": "timestamptz", "address.city": "text"}
    assert [json.loads(record)["name"] for record in people.records] == ["Ada", "Bob"]
    assert (orders.name, orders.settings) == ("public-Orders", {"tap_stream": "public-Orders", "key": ["id", "at"]})
    assert (more.name, more.settings) == ("public_orders", {"tap_stream": "public_orders"})
    assert (more.records, people.problem) == ([], None)
    assert (more.problem or "").startswith("public_orders: the tap ended with exit code 1; its last lines: ")


def test_property_that_the_tap_cannot_read(tap: Tap) -> None:
    """What the catalog calls unsupported is neither a column nor selected."""
    tap.config["unsupported"] = "address"
    (found,) = tap.connector().discover()
    assert found.columns == {"id": "bigint", "name": "text", "at": "timestamptz"}
    assert set(tap.read()[0]) == {"id", "name", "at", "_sdc_extracted_at"}


def test_discover_stops_after_a_sample(tap: Tap) -> None:
    """A tap with more records than a sample needs is ended there."""
    tap.script({"many": 1_000}, {"sleep": 600})
    (found,) = tap.connector().discover()
    assert len(found.records) == 100
    wait_for_end(tap.notes()[-1]["pid"])


# Loads

SOURCES = """
sources:
  - name: taps
    schema: raw_taps
    config:
      meta:
        syncline:
          connector: singer
          command: {command}
          config: {config}
    tables:
      - name: people
        config: {{meta: {{syncline: {{key: id, replication_method: INCREMENTAL, replication_key: at}}}}}}
"""


def test_loads(bench: Bench, tap: Tap) -> None:
    """State is kept with the records, a failed load loses nothing, and what a tap adds of itself is no change."""
    command = json.dumps(tap.source["command"])
    tap.config["token"] = "${TAP_TOKEN}"
    with (bench.root / ".env").open("a") as file:
        file.write(f"TAP_TOKEN={SECRET}\n")

    def load() -> subprocess.CompletedProcess[str]:
        bench.write(bench.models / "sources.yml", SOURCES.format(command=command, config=json.dumps(tap.config)))
        return bench.call("load", "taps")

    for model in ("people", "visits", "prices"):
        (bench.models / f"{model}.sql").unlink()
    assert load().returncode == 0
    assert {key: value["name"] for key, value in bench.live("taps.people").items()} == {"1": "Ada", "2": "Bob"}
    tap.write([{**PEOPLE[1]}, {"id": 3, "name": "Cay", "at": "2024-01-03T00:00:00Z"}])
    assert load().returncode == 0
    assert {key: value["name"] for key, value in bench.live("taps.people").items()} == {
        "1": "Ada",
        "2": "Bob",
        "3": "Cay",
    }
    assert len(bench.revisions("taps.people")) == 3
    assert tap.notes()[-1]["state"] == {"bookmarks": {"people": {"at": "2024-01-02T00:00:00Z"}}}
    before = bench.revisions("taps.people")
    tap.config |= {"says": [f"token {SECRET} is wrong"], "script": [SCHEMA, record(1), {"exit": 1}]}
    failed = load()
    assert failed.returncode == 1
    assert "token ${TAP_TOKEN} is wrong" in failed.stderr
    assert SECRET not in failed.stderr + failed.stdout
    assert bench.revisions("taps.people") == before
    tap.config.pop("script")
    assert load().returncode == 0
    assert tap.notes()[-1]["state"] == {"bookmarks": {"people": {"at": "2024-01-03T00:00:00Z"}}}
    kept = [row["line"] for row in bench.query("select detail ->> 'line' as line from syncline.log_events")]
    assert "token ${TAP_TOKEN} is wrong" in kept
    assert SECRET not in str(kept)


def test_load_that_is_cut_off_goes_on(bench: Bench, tap: Tap) -> None:
    """An increment whose tap dies keeps what came before the last state; the next load starts there."""
    command = json.dumps(tap.source["command"])
    for model in ("people", "visits", "prices"):
        (bench.models / f"{model}.sql").unlink()

    def load() -> subprocess.CompletedProcess[str]:
        bench.write(bench.models / "sources.yml", SOURCES.format(command=command, config=json.dumps(tap.config)))
        return bench.call("load", "taps")

    # The script is no part of the settings: with other settings a fetch is begun anew.
    steps = tap.root / "steps.json"
    tap.script()
    tap.config["steps"] = str(steps)
    steps.write_text(json.dumps([record(1), state({"at": 1}), record(2), {"exit": 1}]))
    assert load().returncode == 1
    assert bench.live("taps.people") == {}
    steps.write_text(json.dumps([record(2), state({"at": 2})]))
    assert load().returncode == 0
    assert tap.notes()[-1]["state"] == {"at": 1}
    assert bench.live("taps.people") == {"1": {"id": 1}, "2": {"id": 2}}


# A real tap


@pytest.fixture(scope="session")
def tap_jsonl(pytestconfig: pytest.Config) -> Path:
    """The program of tap-jsonl, installed once in an environment of its own."""
    folder = pytestconfig.cache.mkdir("tap-jsonl-0.3.1")
    program = folder / "bin" / "tap-jsonl"
    if not program.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [folder / "bin" / "pip", "-qq", "install", "--disable-pip-version-check", "tap-jsonl==0.3.1"]
        subprocess.run(command, check=True)
    return program


def test_real_tap(tap: Tap, tap_jsonl: Path) -> None:
    """A tap of Meltano's SDK is discovered, read in full and by increments."""
    tap.source["command"] = [str(tap_jsonl)]
    tap.config = {"path": "people.jsonl", "stream_name": "people", "primary_keys": ["id"]}
    (found,) = tap.connector().discover()
    assert found.settings["key"] == "id"
    assert found.columns == {"id": "bigint", "name": "text", "at": "timestamptz", "address": "jsonb"}
    assert [record["name"] for record in tap.read()] == ["Ada", "Bob"]
    settings = {"replication_method": "INCREMENTAL", "replication_key": "_sdc_last_modified"}
    cursor = tap.pages(**settings)[-1].cursor
    assert cursor is not None
    assert tap.pages(cursor=cursor, **settings)[-1].cursor == cursor


def test_how_to(bench: Bench, tap_jsonl: Path) -> None:
    """The configuration of the how-to loads as it is printed."""
    page = (ROOT / "docs" / "how-to" / "singer-tap.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for model in ("people", "visits", "prices"):
        (bench.models / f"{model}.sql").unlink()
    bench.write(bench.models / "sources.yml", block)
    taps = bench.root / ".taps"
    taps.mkdir()
    try:
        (taps / "tap-jsonl").symlink_to(tap_jsonl.parents[1])
        bench.write_lines("people.jsonl", PEOPLE)
        assert bench.call("load", "crm").returncode == 0
        bench.write_lines("people.jsonl", [*PEOPLE, {"id": 3, "name": "Cay"}])
        assert bench.call("load", "crm").returncode == 0
    finally:
        shutil.rmtree(taps)
    assert {key: value["name"] for key, value in bench.live("crm.people").items()} == {
        "1": "Ada",
        "2": "Bob",
        "3": "Cay",
    }
