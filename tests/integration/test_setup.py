"""`syncline setup`: from a configured project to one that runs by itself, once and again."""

from __future__ import annotations

import json

import pytest

from syncline.errors import ConfigurationError
from syncline.setup import cron_of
from tests.projects import Bench


@pytest.mark.parametrize(
    ("every", "cron"),
    [
        ("1m", "* * * * *"),
        ("15m", "*/15 * * * *"),
        ("60m", "0 * * * *"),
        ("1h", "0 * * * *"),
        ("6h", "0 */6 * * *"),
        ("24h", "0 0 * * *"),
        (" 1d ", "0 0 * * *"),
    ],
)
def test_every_is_a_cron_expression(every: str, cron: str) -> None:
    """What divides an hour or a day evenly has its expression."""
    assert cron_of(every) == cron


@pytest.mark.parametrize("every", ["", "0m", "7m", "90m", "5h", "2d", "6", "h", "1w", "-6h", "6h30m"])
def test_uneven_times_are_refused(every: str) -> None:
    """What a cron expression cannot keep evenly is refused, and not rounded."""
    with pytest.raises(ConfigurationError, match="no time that a schedule can keep"):
        cron_of(every)


def test_sets_up_once_and_again(bench: Bench) -> None:
    """The first time migrates, schedules and works a run here; the second changes nothing; new times are taken."""
    first = bench.cli("setup", "--every", "6h", "--yes")
    assert first.returncode == 0, first.stderr
    assert "no worker is running: the first run is worked here" in first.stdout
    assert "run 1 succeeded" in first.stdout
    assert "`syncline worker`" in first.stdout
    assert len(bench.current()) == 50
    again = json.loads(bench.cli("setup", "--yes", "--json").stdout)
    assert again["migrated"] is False
    assert again["schedule"] == {"name": "default", "done": "unchanged", "cron": "0 */6 * * *", "fired_by": "worker"}
    assert (again["run_id"], again["run"]) == (None, None)
    changed = json.loads(bench.cli("setup", "--cron", "30 2 * * *", "--yes", "--json").stdout)
    assert (changed["schedule"]["done"], changed["schedule"]["cron"]) == ("changed", "30 2 * * *")
    assert [run["status"] for run in bench.runs()] == ["succeeded"]


def test_a_running_worker_gets_the_first_run(bench: Bench) -> None:
    """Where a worker is running, the first run is requested and the worker works it."""
    worker = bench.start("worker")
    try:
        bench.wait_until("select exists (select from pg_stat_activity where application_name = 'syncline worker')")
        bench.wait_until("select exists (select from syncline.streams)")
        ended = bench.cli("setup", "--yes")
        assert ended.returncode == 0, ended.stderr
        assert "run 1 was requested, for the worker" in ended.stdout
        bench.wait_until("select status = 'succeeded' from syncline.runs where run_id = 1", 60)
    finally:
        worker.terminate()
        worker.communicate(timeout=60)
    assert worker.returncode == 0


def test_wrong_settings_stop_it_before_anything_is_changed(bench: Bench) -> None:
    """What the doctor finds wrong is printed, with exit code 2, and nothing is written."""
    bench.write(bench.root / ".env", f'DATABASE_URL="{bench.dsn}"\n')
    ended = bench.cli("setup", "--yes")
    assert (ended.returncode, "SHOP_API_URL" in ended.stdout) == (2, True)
    assert "has not begun" in ended.stderr
    listed = json.loads(bench.cli("setup", "--yes", "--json").stdout)
    assert any("SHOP_API_URL" in finding["detail"] for finding in listed["findings"])
    assert bench.query("select * from syncline.schedules") == []
    assert bench.query("select * from syncline.streams") == []


def test_a_failed_first_run_says_so(bench: Bench) -> None:
    """A first run that fails ends the command with the run's code; the schedule stays, and again tries again."""
    bench.api.token = "another"
    failed = bench.cli("setup", "--yes")
    assert (failed.returncode, "unauthorized" in failed.stderr.lower() or "401" in failed.stderr) == (1, True)
    assert bench.value("select count(*) from syncline.schedules") == 1
    bench.api.token = "t0ken-that-must-not-show"
    assert bench.cli("setup", "--yes").returncode == 0
    assert len(bench.current()) == 50


def test_asks_only_where_somebody_is(bench: Bench) -> None:
    """Without a terminal and without --yes nothing is done; --every and --cron together are wrong usage."""
    ended = bench.call("setup")
    assert (ended.returncode, "Say --yes" in ended.stderr) == (2, True)
    assert bench.call("setup", "--every", "6h", "--cron", "* * * * *", "--yes").returncode == 2
    assert bench.call("setup", "--cron", "* * *", "--yes").returncode == 2
    assert bench.query("select * from syncline.schedules") == []
