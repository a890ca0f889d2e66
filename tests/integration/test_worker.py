"""Workers: real processes that work the queue, and are stopped, cancelled, killed and cut off."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncline import control
from tests.api import Reply
from tests.projects import SOURCES, TOKEN, Bench, people, person, rows
from tests.workers import Workers, stop, wait_for_run

DONE = ("succeeded", "failed", "cancelled", "abandoned")


@pytest.fixture
def workers(bench: Bench) -> Iterator[Workers]:
    with Workers(bench.root, bench.dsn) as started:
        yield started


def request(bench: Bench, *sources: str, timeout: float | None = None, **options: Any) -> int:
    with bench.connect() as connection:
        return control.request_run(
            connection, list(sources or ("shop",)), [], options, "api", "ann", "request-1", timeout=timeout
        )


def prepare(bench: Bench) -> None:
    bench.sync()
    bench.api.records["people"] = people(50, name="changed")


def test_a_requested_run_is_worked_and_logged(bench: Bench, workers: Workers) -> None:
    """A run asked for by SQL is done within the worker, publishes, and is told of with its ids, and no secret."""
    bench.sync("files")
    worker = workers.start()
    report = wait_for_run(bench.dsn, request(bench), *DONE)
    assert (report["status"], report["errors"]) == ("succeeded", [])
    assert bench.current() == rows(people(50))
    assert stop(worker) == 0
    events = {event["event"]: event for event in workers.log(worker)}
    assert events["sync_start"]["triggered_by"] == "ann"
    assert events["sync_ok"]["inserted"] == 50
    assert events["stream_loaded"]["read"] == 50
    for name in ("sync_start", "stream_loaded", "sync_ok"):
        assert (events[name]["run_id"], events[name]["request_id"]) == (report["run_id"], "request-1")
    assert TOKEN not in workers.text()
    kept = bench.query(
        "select event, request_id from syncline.log_events where run_id = %s order by 1", report["run_id"]
    )
    assert {"event": "sync_ok", "request_id": "request-1"} in kept


def test_an_idle_worker_stops_at_once(bench: Bench, workers: Workers) -> None:
    """SIGTERM ends a worker that has nothing to do within a second or so, with exit 0."""
    bench.sync("files")
    worker = workers.start()
    began = time.monotonic()
    assert stop(worker) == 0
    assert time.monotonic() - began < 5


def test_a_stopping_worker_ends_its_run(bench: Bench, workers: Workers) -> None:
    """With grace enough the run at work is done, and the next in the queue is left for others."""
    prepare(bench)
    worker = workers.start("--grace", "60")
    bench.api.stall_at(2)
    run = request(bench)
    assert bench.api.is_stalled.wait(60)
    later = request(bench, full_refresh=True)
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert worker.poll() is None
    bench.api.go_on()
    assert worker.wait(60) == 0
    assert wait_for_run(bench.dsn, run, *DONE)["status"] == "succeeded"
    assert wait_for_run(bench.dsn, later, "queued")["attempt"] == 0


@pytest.mark.parametrize("step", ["load", "check"])
def test_a_stopping_worker_hands_its_run_back(bench: Bench, workers: Workers, step: str) -> None:
    """Once its grace is over the run goes back to the queue, whatever it was at, and another worker does it."""
    prepare(bench)
    if step == "load":
        bench.api.stall_at(2)
    else:
        bench.api.records["people"].append(person(99, name="slow"))
    first = workers.start("--grace", "0.2")
    run = request(bench)
    bench.wait_for_step(step)
    if step == "check":
        bench.wait_until("select exists (select from pg_stat_activity where wait_event = 'PgSleep')")
    first.send_signal(signal.SIGTERM)
    bench.api.go_on()
    assert first.wait(60) == 0
    report = wait_for_run(bench.dsn, run, "queued")
    assert (report["attempt"], report["max_attempts"], report["errors"]) == (1, 4, [])
    bench.api.records["people"] = people(50, name="changed")
    workers.start()
    report = wait_for_run(bench.dsn, run, *DONE)
    assert (report["status"], report["attempt"]) == ("succeeded", 2)
    assert bench.current() == rows(people(50, name="changed"))
    bench.verify()


@pytest.mark.parametrize("step", ["load", "build", "check", "publish"])
def test_a_run_is_cancelled_whatever_it_is_at(bench: Bench, workers: Workers, step: str) -> None:
    """It ends within seconds as cancelled, current is as it was, and the same worker goes on with the next."""
    bench.sync()
    bench.api.records["people"] = people(50, name="first change")
    prepare(bench)
    before = bench.current()
    worker = workers.start()
    publish_lock = "select pg_advisory_xact_lock(syncline.lock_class('publish'), 0)"
    version = 3 - bench.value("select current_version from syncline.entities where entity = 'people'")
    held = {"build": f"lock table people_v{version} in share mode", "publish": publish_lock}.get(step, "select 1")
    with bench.holding(held):
        if step == "load":
            bench.api.stall_at(2)
        if step == "check":
            bench.api.records["people"].append(person(99, name="slow"))
        run = request(bench)
        if step == "load":
            assert bench.api.is_stalled.wait(60)
        elif step == "check":
            bench.wait_until("select exists (select from pg_stat_activity where wait_event = 'PgSleep')")
        else:
            bench.wait_for_lock("syncline.build" if step == "build" else "syncline.publish(")
        assert bench.cli("cancel", str(run)).returncode == 0
        if step == "load":
            time.sleep(0.5)
            bench.api.go_on()
        report = wait_for_run(bench.dsn, run, *DONE, seconds=30)
    assert report["status"] == "cancelled"
    assert report["errors"][0]["message"].startswith("cancelled by ")
    assert bench.current() == before
    bench.api.records["people"] = people(40)
    assert wait_for_run(bench.dsn, request(bench), *DONE)["status"] == "succeeded"
    assert bench.current() == rows(people(40))
    bench.verify()
    assert worker.poll() is None


def test_a_run_that_takes_too_long_fails(bench: Bench, workers: Workers) -> None:
    """Each attempt is stopped after its time; the last one says how long that was."""
    prepare(bench)
    bench.api.records["people"].append(person(99, name="slow"))
    workers.start()
    with bench.connect() as connection:
        run = control.request_run(connection, ["shop"], [], {}, "api", timeout=3, max_attempts=2)
    report = wait_for_run(bench.dsn, run, *DONE)
    assert (report["status"], report["attempt"]) == ("failed", 2)
    assert "took longer than 3 seconds" in report["errors"][0]["message"]
    assert bench.value("select count(*) from syncline.log_events where event = 'sync_retry'") == 1


def test_a_source_that_comes_back_is_tried_again(bench: Bench, workers: Workers) -> None:
    """The first attempt fails, a later one of the same run succeeds, and readers see only the good one."""
    prepare(bench)
    bench.api.answer = lambda path, page: Reply({"error": "down"}, 503)
    workers.start()
    run = request(bench)
    bench.wait_until("select exists (select from syncline.log_events where event = 'sync_retry')")
    bench.api.answer = bench.api.serve
    report = wait_for_run(bench.dsn, run, *DONE)
    assert (report["status"], report["errors"]) == ("succeeded", [])
    assert report["attempt"] in (2, 3)
    assert bench.current() == rows(people(50, name="changed"))


def test_a_guard_that_refuses_is_not_asked_again(bench: Bench, workers: Workers) -> None:
    """A mass delete ends the run at its first attempt, with exit code 3 in its report."""
    bench.sync()
    bench.api.records["people"] = people(20)
    workers.start()
    report = wait_for_run(bench.dsn, request(bench), *DONE)
    assert (report["status"], report["attempt"], report["errors"][0]["exit_code"]) == ("failed", 1, 3)


def test_what_the_project_says_now_counts(bench: Bench, workers: Workers) -> None:
    """A model and a source that change between two runs need no restart; a broken file fails its run alone."""
    prepare(bench)
    workers.start()
    bench.write(bench.models / "sources.yml", SOURCES.replace("key: id", "key: [id"))
    report = wait_for_run(bench.dsn, request(bench), *DONE)
    assert (report["status"], report["errors"][0]["exit_code"]) == ("failed", 2)
    bench.write(bench.models / "sources.yml", SOURCES)
    model = (bench.models / "people.sql").read_text()
    bench.write_model("people", model.replace("as age,", "as age,\n    {{ typed('age', 'text') }} as age_as_text,"))
    report = wait_for_run(bench.dsn, request(bench), *DONE)
    assert report["errors"] == []
    assert bench.value("select age_as_text from people_current order by age limit 1") == "20"


def test_two_processes_work_two_sources_at_once(bench: Bench, workers: Workers) -> None:
    """While one process is busy with a source the other does the other's run; all end with the supervisor."""
    bench.sync("files")
    supervisor = workers.start("--processes", "2")
    bench.wait_until(f"select count(*) = 2 from pg_stat_activity where {IS_WORKER}")
    bench.api.stall_at(2)
    slow = request(bench)
    assert bench.api.is_stalled.wait(60)
    quick = request(bench, "files", full_refresh=True)
    assert wait_for_run(bench.dsn, quick, *DONE)["status"] == "succeeded"
    assert wait_for_run(bench.dsn, slow, "running")
    bench.api.go_on()
    assert wait_for_run(bench.dsn, slow, *DONE)["status"] == "succeeded"
    assert stop(supervisor) == 0
    assert bench.value(f"select count(*) from pg_stat_activity where {IS_WORKER}") == 0


IS_WORKER = "application_name = 'syncline worker' and datname = current_database()"


def test_a_process_that_dies_is_started_anew(bench: Bench, workers: Workers) -> None:
    """The supervisor keeps its number of processes; killed itself, none of them outlives it."""
    bench.sync("files")
    supervisor = workers.start("--processes", "2")
    bench.wait_until(f"select count(*) = 2 from pg_stat_activity where {IS_WORKER}")
    os.kill(child_of(supervisor.pid), signal.SIGKILL)
    bench.wait_until(f"select count(*) = 1 from pg_stat_activity where {IS_WORKER}")
    bench.wait_until(f"select count(*) = 2 from pg_stat_activity where {IS_WORKER}")
    supervisor.kill()
    supervisor.wait()
    bench.wait_until(f"select count(*) = 0 from pg_stat_activity where {IS_WORKER}")


def test_a_killed_worker_loses_nothing(bench: Bench, workers: Workers) -> None:
    """After kill -9 in the middle of a run another worker has it within seconds and does it."""
    prepare(bench)
    bench.api.stall_at(2)
    first = workers.start()
    run = request(bench)
    assert bench.api.is_stalled.wait(60)
    first.kill()
    first.wait()
    bench.api.go_on()
    workers.start()
    report = wait_for_run(bench.dsn, run, *DONE)
    assert (report["status"], report["attempt"]) == ("succeeded", 2)
    assert bench.current() == rows(people(50, name="changed"))
    bench.verify()


def test_a_worker_whose_lock_is_cut_stops_writing(bench: Bench, workers: Workers) -> None:
    """Where only the session that holds the claim ends, the attempt writes nothing more, and the next one does all."""
    prepare(bench)
    bench.api.stall_at(2)
    worker = workers.start()
    run = request(bench)
    assert bench.api.is_stalled.wait(60)
    assert bench.terminate("application_name = 'syncline worker'") == 1
    bench.wait_until("select exists (select from pg_stat_activity where application_name like 'syncline run %')")
    workers.start()
    bench.wait_until(f"select status = 'queued' or attempt = 2 from syncline.runs where run_id = {run}")
    bench.api.go_on()
    report = wait_for_run(bench.dsn, run, *DONE)
    assert (report["status"], report["attempt"]) == ("succeeded", 2)
    assert bench.value("select count(*) from syncline.loads where run_id = %s", run) == 1
    assert bench.current() == rows(people(50, name="changed"))
    bench.verify()
    assert worker.poll() is None
    assert any(event["event"] in ("claim_lost", "database_lost") for event in workers.log(worker))


def test_a_command_in_the_foreground_works_beside_a_worker(bench: Bench, workers: Workers) -> None:
    """`syncline run` does its own run and waits for the worker's run of the same source."""
    prepare(bench)
    workers.start()
    bench.api.stall_at(2)
    run = request(bench, full_refresh=True)
    assert bench.api.is_stalled.wait(60)
    command = bench.start("run", "shop", "--json")
    bench.wait_until("select count(*) = 1 from syncline.runs where status = 'queued' and is_foreground")
    bench.api.go_on()
    assert wait_for_run(bench.dsn, run, *DONE)["status"] == "succeeded"
    command.communicate(timeout=60)
    assert command.returncode == 0
    assert [found["trigger"] for found in bench.runs()[-2:]] == ["api", "cli"]


def test_a_burst_ends_with_the_queue(bench: Bench, workers: Workers) -> None:
    """With --burst a worker does what waits, retries too, and ends."""
    prepare(bench)
    run = request(bench)
    worker = bench.cli("worker", "--burst")
    assert worker.returncode == 0, worker.stderr
    assert wait_for_run(bench.dsn, run, *DONE)["status"] == "succeeded"


def test_a_burst_of_several_processes_ends_too(bench: Bench) -> None:
    """Processes that found the queue empty are not started anew."""
    prepare(bench)
    run = request(bench)
    workers = bench.cli("worker", "--burst", "--processes", "2")
    assert (workers.returncode, "worker_died" in workers.stderr) == (0, False), workers.stderr
    assert wait_for_run(bench.dsn, run, *DONE)["status"] == "succeeded"


def test_dbt_that_dies_costs_one_attempt(bench: Bench, workers: Workers) -> None:
    """Where dbt's process is killed in the middle of a run, the next attempt has a new one."""
    prepare(bench)
    bench.api.records["people"].append(person(99, name="slow"))
    worker = workers.start()
    run = request(bench)
    bench.wait_until("select exists (select from pg_stat_activity where wait_event = 'PgSleep')")
    os.kill(child_of(worker.pid), signal.SIGKILL)
    bench.api.records["people"].pop()
    report = wait_for_run(bench.dsn, run, *DONE)
    assert (report["status"], report["attempt"]) == ("succeeded", 2)
    assert bench.current() == rows(people(50, name="changed"))


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_a_reader_of_a_lost_candidate_holds_nobody_up(bench: Bench, workers: Workers) -> None:
    """While a transaction reads the next view of a run whose worker was killed, runs of all sources are claimed."""
    bench.sync("files")
    prepare(bench)
    bench.api.records["people"].append(person(99, name="slow"))
    first = workers.start()
    request(bench)
    bench.wait_until("select exists (select from pg_stat_activity where wait_event = 'PgSleep')")
    with bench.holding("select * from people_next limit 1"):
        first.kill()
        first.wait()
        workers.start()
        other = request(bench, "files", full_refresh=True)
        assert wait_for_run(bench.dsn, other, *DONE, seconds=20)["status"] == "succeeded"


@pytest.mark.parametrize("dsn", ["postgresql://127.0.0.1:1/x?nonsense=1", "host=/nowhere dbname"])
def test_a_worker_whose_address_is_wrong_does_not_start(bench: Bench, dsn: str) -> None:
    """It ends with exit 2 and one error, and does not try for ever."""
    ended = bench.cli("worker", DATABASE_URL=dsn)
    assert (ended.returncode, "DATABASE_URL is no connection string" in ended.stderr) == (2, True)


def test_a_worker_of_an_unknown_source_does_not_start(bench: Bench) -> None:
    """It ends with exit 2 and says which sources there are, also where it was to be several processes."""
    for arguments in (("shopp",), ("shopp", "--processes", "2")):
        ended = bench.cli("worker", *arguments)
        assert ended.returncode == 2
        assert "shopp" in ended.stderr
