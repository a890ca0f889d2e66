"""What a load can do beside a whole fetch: take a push, keep a budget of requests, stop when it is told to."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from syncline import db
from tests.projects import SOURCES, Bench, Watcher

PUSHED = """
sources:
  - name: desk
    schema: raw_desk
    config: {meta: {syncline: {connector: push}}}
    tables:
      - name: tickets
        config: {meta: {syncline: {key: id, deleted: {path: gone}}}}
"""


def push(bench: Bench, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        bench.command("load", "desk", "tickets", "--stdin", "--json", *options),
        cwd=bench.root,
        env=bench.environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def desk(bench: Bench) -> Bench:
    bench.write(bench.models / "desk.yml", PUSHED)
    return bench


def test_a_push_is_an_increment_or_the_whole(desk: Bench) -> None:
    """Lines and arrays are taken; a push adds, changes and takes away by key, and a full one closes the rest."""
    report = json.loads(push(desk, '[{"id": 1}, {"id": 2}]').stdout)
    assert (report["status"], report["streams"]["desk.tickets"]["kind"]) == ("succeeded", "increment")
    push(desk, '\n\n{"id": 3}\n{"id": 1, "gone": true}\n{"id": 2, "state": "open"}\n')
    assert desk.live("desk.tickets") == {"2": {"id": 2, "state": "open"}, "3": {"id": 3}}
    push(desk, '{"id": 3}', "--full")
    assert desk.live("desk.tickets") == {"3": {"id": 3}}


def test_a_push_that_is_cut_off_changes_nothing(desk: Bench) -> None:
    """Half a record, an array without its end, and no JSON at all fail the load, which is there whole or not at all."""
    push(desk, '{"id": 1}')
    for text in ('[{"id": 2}, {"id": 3', '{"id": 2}\n{"id": ', '[{"id": 2},'):
        ended = push(desk, text)
        assert ended.returncode == 1, ended.stdout
        assert "cut off" in ended.stderr
    assert desk.live("desk.tickets") == {"1": {"id": 1}}
    refused = push(desk, "", "--full")
    assert refused.returncode == 3
    assert "came back empty" in refused.stderr


def test_a_run_leaves_pushed_streams_alone(desk: Bench) -> None:
    """A run of a source that is pushed fetches nothing, and what was pushed stays."""
    push(desk, '{"id": 1}')
    desk.sync("desk")
    assert desk.live("desk.tickets") == {"1": {"id": 1}}
    assert desk.value("select count(*) from syncline.loads") == 1


def test_what_was_pushed_into_a_fetched_stream_goes_with_the_next_fetch(bench: Bench) -> None:
    """Files that did not change are read again after a push: the source says what there is."""
    bench.sync("files")
    ended = subprocess.run(
        bench.command("load", "files", "visits", "--stdin"),
        cwd=bench.root,
        env=bench.environment,
        input=b'{"id": 9, "place": "pushed"}',
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "9" in bench.live("files.visits")
    bench.sync("files")
    assert sorted(bench.live("files.visits")) == ["1", "2"]


def test_two_pushes_at_once_both_count(desk: Bench) -> None:
    """Identical commands with different records do not stand for each other."""
    push(desk, '{"id": 0}')
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda number: push(desk, json.dumps({"id": number})), range(1, 4)))
    assert [each.returncode for each in ended] == [0, 0, 0]
    assert sorted(desk.live("desk.tickets")) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("arguments", [["desk", "--stdin"], ["--stdin"], ["desk", "tickets", "--full"]])
def test_a_push_names_one_stream(desk: Bench, arguments: list[str]) -> None:
    """Records without a stream to go to, and --full without records, are wrong usage."""
    assert desk.call("load", *arguments).returncode == 2


def test_a_budget_holds_in_any_window(database: str) -> None:
    """Of so many requests in so many seconds, none goes early, whoever asks: those over it are told to wait."""
    waits: list[float] = []

    def ask() -> None:
        with db.connect(database) as connection:
            waits.append(db.call_value(connection, "reserve_request", "host", 5, 60.0))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits.sort()
    assert max(waits[:5]) < 1
    assert 50 < min(waits[5:10]) <= max(waits[5:10]) <= 60
    assert 110 < min(waits[10:]) <= max(waits) <= 120


def test_an_interrupt_ends_the_load_within_a_page(bench: Bench) -> None:
    """Ctrl-C says that it waits for the page under way, ends as a failed run, and leaves raw as it was."""
    bench.sync()
    before = bench.revisions()
    bench.api.stall_at(2)
    process = bench.start("load", "shop", "people")
    assert bench.api.is_stalled.wait(30)
    process.send_signal(signal.SIGINT)
    bench.wait_until("select pg_sleep(0.5) is not null")
    assert process.poll() is None
    bench.api.go_on()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1, (out, err)
    assert "stopping after the page under way" in out + err
    assert "interrupted" in out + err
    assert bench.revisions() == before
    assert bench.runs()[-1]["status"] == "failed"


def test_a_trial_leaves_out_what_would_stay_twice(bench: Bench) -> None:
    """Records that append have no key to be recognized by: a trial does not load them."""
    bench.write(
        bench.models / "log.yml",
        "sources: [{name: log, schema: raw_log, config: {meta: {syncline: {connector: file, path: data}}},"
        " tables: [{name: lines, config: {meta: {syncline: {path: visits.jsonl, append: true}}}}]}]",
    )
    watcher = Watcher()
    bench.run("log", steps=("load",), limit=1, watcher=watcher)
    assert "a trial leaves out streams that append" in watcher.notes
    assert bench.value("select count(*) from syncline.loads") == 0
    bench.sync("log", steps=("load",))
    assert len(bench.live("log.lines")) == 2


def test_increments_that_come_again_are_not_appended(bench: Bench) -> None:
    """The newest records of an API come with every increment: appended, they would be there again and again."""
    bench.write(
        bench.models / "sources.yml",
        SOURCES.replace(
            "{path: /people, key: id}",
            "{path: /people, append: true, incremental: {cursor_path: id, start_param: since, initial_value: 0}}",
        ),
    )
    error = bench.fail(steps=("load",))
    assert (error.exit_code, "appends increments" in error.message) == (2, True)


def test_a_child_needs_its_parent(bench: Bench) -> None:
    """A child whose parent was never loaded is refused: no parents would be no children, and all would be gone."""
    bench.write(
        bench.models / "sources.yml",
        SOURCES.replace(
            "      - name: people\n",
            "      - name: pets\n"
            '        config: {meta: {syncline: {path: "/people/{resources.people.id}/pets", key: id}}}\n'
            "      - name: people\n",
            1,
        ),
    )
    error = bench.fail(steps=("load",), streams=("pets",))
    assert (error.exit_code, error.message) == (2, "shop.people was never loaded, and other streams take its records")
