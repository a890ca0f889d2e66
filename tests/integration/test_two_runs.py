"""Two runs at the same time: one per source, the other waits or says so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.projects import Bench, people, rows

RUN = ("run", "shop", "--json")


@contextmanager
def a_run_at_work(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """Let a run load its second page for as long as the block lasts."""
    bench.api.stall_at(2)
    process = bench.start(*RUN)
    try:
        assert bench.api.is_stalled.wait(60)
        yield process
    finally:
        bench.api.go_on()
        process.communicate(timeout=120)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_runs(bench: Bench, status: str, count: int) -> None:
    bench.wait_until(f"select count(*) = {count} from syncline.runs where status = '{status}'")


def test_the_second_run_says_so(bench: Bench) -> None:
    """With --wait-timeout 0 the second run ends at once with exit 1, names the run in its way and leaves the queue."""
    with a_run_at_work(bench) as first:
        second = bench.cli("run", "shop", "--wait-timeout", "0")
        assert second.returncode == 1
        assert "run 1 of the same source is still under way" in second.stderr
        assert "--wait-timeout" in second.stderr
        assert [run["status"] for run in bench.runs()] == ["running", "cancelled"]
        bench.api.go_on()
        code, out, err = ended(first)
    assert code == 0, err
    assert json.loads(out)["status"] == "succeeded"
    assert bench.current() == rows(people(50))


def test_the_second_run_waits(bench: Bench) -> None:
    """The second run waits for the first, says for which, and brings what came since."""
    with a_run_at_work(bench) as first:
        second = bench.start("run", "shop", "--full-refresh")
        wait_for_runs(bench, "queued", 1)
        bench.api.records["people"] = people(50, name="new")
        bench.api.go_on()
        assert ended(first)[0] == 0
        code, out, err = ended(second)
    assert code == 0, err
    assert "waiting for run 1" in out
    assert [run["status"] for run in bench.runs()] == ["succeeded", "succeeded"]
    assert bench.current() == rows(people(50, name="new"))
    bench.verify()


def test_runs_of_other_sources_do_not_wait(bench: Bench) -> None:
    """A run of another source goes through while the first is at work."""
    with a_run_at_work(bench):
        bench.sync("files", wait_timeout=0)
        assert bench.runs()[0]["status"] == "running"
        assert set(bench.current("visits")) == {"1", "2"}


def test_identical_waiting_runs_share_one(bench: Bench) -> None:
    """Two identical runs that wait become one: both commands end well once it is done."""
    with a_run_at_work(bench) as first:
        waiting = [bench.start(*RUN, "--wait-timeout", "60") for _ in range(2)]
        wait_for_runs(bench, "queued", 1)
        bench.wait_until(
            """select count(*) >= 3 from pg_stat_activity
            where datname = current_database() and application_name = 'syncline'"""
        )
        bench.api.go_on()
        assert ended(first)[0] == 0
        results = [ended(process) for process in waiting]
    assert [code for code, _, _ in results] == [0, 0], [err for _, _, err in results]
    assert [json.loads(out)["status"] for _, out, _ in results] == ["succeeded", "succeeded"]
    assert bench.current() == rows(people(50))


def test_who_stops_waiting_leaves_the_others_alone(bench: Bench) -> None:
    """Where one of two identical waiting runs gives up, the other still gets its turn."""
    with a_run_at_work(bench) as first:
        patient = bench.start(*RUN, "--wait-timeout", "60")
        wait_for_runs(bench, "queued", 1)
        assert bench.cli("run", "shop", "--wait-timeout", "0").returncode == 1
        bench.api.go_on()
        assert ended(first)[0] == 0
        code, out, err = ended(patient)
    assert code == 0, err
    assert json.loads(out)["status"] == "succeeded"
