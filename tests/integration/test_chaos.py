"""Workers under load and misfortune: many runs, kill -9, a database that restarts, a clock that jumps."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from syncline import control, db, embedded
from syncline.config import read_project
from syncline.migrate import migrate
from syncline.scaffold import create_project
from tests import pg_cron
from tests.workers import Workers, wait_for_run

SECONDS = float(os.environ.get("SYNCLINE_CHAOS_SECONDS", "25"))
"""How long workers are killed at random; minutes by hand."""

SOURCE = """
  - name: {name}
    schema: raw_{name}
    config: {{meta: {{syncline: {{connector: file, path: data/{name}}}}}}}
    tables:
"""
TABLE = "      - {{name: {name}, config: {{meta: {{syncline: {{path: {name}.jsonl, key: id}}}}}}}}\n"
MODEL = """
{{{{ config(materialized='versioned', unique_key='id') }}}}
select _key, {{{{ typed('id', 'bigint', required=true) }}}} as id, {{{{ typed('n', 'bigint') }}}} as n
from {{{{ source('{source}', 's0') }}}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "many sources"
    create_project(root)
    return root


def declare(root: Path, sources: int, streams: int, entities: int = 0) -> None:
    """Write so many sources with so many streams each; the first ones feed an entity each."""
    text = "sources:\n"
    for source in (f"src{number}" for number in range(sources)):
        text += SOURCE.format(name=source)
        folder = root / "data" / source
        folder.mkdir(parents=True)
        for stream in (f"s{number}" for number in range(streams)):
            text += TABLE.format(name=stream)
            (folder / f"{stream}.jsonl").write_text('{"id": 1, "n": 0}\n')
    models = root / "dbt_project" / "models"
    (models / "sources.yml").write_text(text)
    for number in range(entities):
        (models / f"things{number}.sql").write_text(MODEL.format(source=f"src{number}"))


def prepare(root: Path, dsn: str) -> None:
    with db.connect(dsn) as connection:
        migrate(connection, read_project(root))


def wait_for_all(dsn: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    with db.connect(dsn) as connection:
        while count(connection, "select count(*) from syncline.runs where status in ('queued', 'running')"):
            assert time.monotonic() < until, connection.execute(
                "select status, count(*) from syncline.runs group by 1"
            ).fetchall()
            time.sleep(0.1)


def count(connection: db.Connection, statement: str) -> int:
    row = connection.execute(statement).fetchone()
    assert row
    return int(next(iter(row.values())))


def check_all_done_once(connection: db.Connection, runs: int) -> None:
    """By SQL alone: every run succeeded, said so once, and nothing of any is left behind."""
    assert connection.execute("select status, count(*) as runs from syncline.runs group by 1").fetchall() == [
        {"status": "succeeded", "runs": runs}
    ]
    twice = "select run_id from syncline.log_events where event = 'sync_ok' group by 1 having count(*) <> 1"
    assert connection.execute(twice).fetchall() == []
    assert count(connection, "select count(distinct run_id) from syncline.log_events where event = 'sync_ok'") == runs
    assert count(connection, "select count(*) from syncline.steps where status = 'running'") == 0
    overlapping = """
        select one.run_id, other.run_id as other
        from syncline.runs as one
        inner join syncline.runs as other
            on one.run_id < other.run_id and one.sources && other.sources
            and tstzrange(one.started_at, one.finished_at, '()') && tstzrange(other.started_at, other.finished_at, '()')
        where one.attempt = 1 and other.attempt = 1
    """
    assert connection.execute(overlapping).fetchall() == []


def test_two_workers_do_a_thousand_runs_once_each(project: Path, database: str) -> None:
    """1,000 different runs over 25 sources: each is done once, no two of a source at a time, with all its loads."""
    declare(project, sources=25, streams=6)
    prepare(project, database)
    subsets = [list(some) for size in (1, 2, 3) for some in itertools.combinations([f"s{n}" for n in range(6)], size)]
    with db.connect(database) as connection:
        for streams in subsets[:40]:
            for source in range(25):
                options = {"steps": ["load"], "streams": streams}
                control.request_run(connection, [f"src{source}"], [], options, "manual")
        with Workers(project, database) as workers:
            workers.start()
            workers.start()
            wait_for_all(database, 240)
        check_all_done_once(connection, 1000)
        wrong = """
            select run.run_id
            from syncline.runs as run
            left join syncline.loads as load on run.run_id = load.run_id
            group by run.run_id
            having count(load.load_id) <> jsonb_array_length(run.options -> 'streams')
        """
        assert connection.execute(wrong).fetchall() == []
        workers_used = "select count(*) from syncline.runs where attempt <> 1"
        assert count(connection, workers_used) == 0


def test_workers_killed_at_random_lose_nothing(project: Path, database: str) -> None:
    """While workers are killed with -9 again and again, every run is done once and every entity ends up right."""
    declare(project, sources=4, streams=1, entities=4)
    prepare(project, database)
    chance = random.Random(4)
    requested = set()
    with db.connect(database) as connection, Workers(project, database) as workers:
        running = [workers.start(), workers.start()]
        until, generation, kills = time.monotonic() + SECONDS, 0, 0
        while time.monotonic() < until:
            generation += 1
            source = f"src{generation % 4}"
            # As whole as its writers make it: half a file would be a mass delete, which is refused.
            written = project / "data" / source / "s0.tmp"
            written.write_text("".join(json.dumps({"id": n, "n": generation}) + "\n" for n in range(1, 101)))
            written.rename(written.with_suffix(".jsonl"))
            requested.add(db.call_value(connection, "request_run", p_sources=[source], p_max_attempts=1000))
            time.sleep(chance.uniform(0.05, 1.0))
            if chance.random() < 0.3:
                victim = chance.randrange(2)
                running[victim].send_signal(signal.SIGKILL)
                running[victim].wait()
                kills += 1
                running[victim] = workers.start()
        wait_for_all(database, 120)
        check_all_done_once(connection, len(requested))
        assert kills > 0
        for number in range(4):
            lines = (project / "data" / f"src{number}" / "s0.jsonl").read_text().splitlines()
            wanted = sorted((record["id"], record["n"]) for record in map(json.loads, lines))
            found = connection.execute(f"select id, n from things{number}_current order by id").fetchall()
            assert [(row["id"], row["n"]) for row in found] == wanted
            assert db.call(connection, "verify", f"things{number}") == []
        lost = "select count(*) from syncline.log_events where event = 'sync_lost'"
        print(f"{len(requested)} runs, {kills} kills, {count(connection, lost)} attempts lost")


@contextmanager
def own_server(root: Path) -> Iterator[str]:
    """A server of the test's own; yields the connection string of its database."""
    try:
        yield embedded.ensure_running(root)
    finally:
        embedded.stop(root)


def test_the_database_restarts_in_the_middle(project: Path) -> None:
    """Workers wait until it is back, and do what waits and what was cut off."""
    declare(project, sources=2, streams=1, entities=2)
    with own_server(project) as dsn:
        prepare(project, dsn)
        with Workers(project, dsn) as workers:
            worker = workers.start()
            with db.connect(dsn) as connection:
                first = control.request_run(connection, ["src0"], [], {}, "manual")
                connection.execute("listen syncline_requested")
                until = time.monotonic() + 60
                while control.run_report(connection, first)["status"] != "running":
                    assert time.monotonic() < until
                    time.sleep(0.01)
            embedded.stop(project)
            time.sleep(1.5)
            assert worker.poll() is None
            assert embedded.ensure_running(project) == dsn
            report = wait_for_run(dsn, first, "succeeded", "failed", "abandoned")
            assert (report["status"], report["errors"]) == ("succeeded", [])
            with db.connect(dsn) as connection:
                second = control.request_run(connection, ["src1"], [], {}, "manual")
            assert wait_for_run(dsn, second, "succeeded", "failed", "abandoned")["status"] == "succeeded"
            assert any(event["event"] == "database_lost" for event in workers.log(worker))


def fake_time_library() -> str:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("Debian's package faketime is not installed, and the clock cannot be made to jump without it")
    return str(found[0])


@pytest.fixture
def clock() -> Iterator[Path]:
    """The file that says how far the clock is off, where the server's user can read it."""
    with tempfile.TemporaryDirectory(prefix="clock") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "clock").write_text("+0")
        yield folder / "clock"


@pytest.mark.skipif(not pg_cron.is_installed(), reason="Debian's Postgres 15 with pg_cron is not installed")
def test_the_clock_jumps(project: Path, clock: Path) -> None:
    """The database's clock goes a day ahead and two days back: queued runs still start at once and end well."""
    variables = {
        "LD_PRELOAD": fake_time_library(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    declare(project, sources=2, streams=1, entities=1)
    with pg_cron.cluster(**variables) as server:
        dsn = make_conninfo(server, dbname=pg_cron.DATABASE)
        prepare(project, dsn)
        with Workers(project, dsn) as workers, db.connect(dsn) as connection:
            workers.start()
            for jump, days in (("+0", 0), ("+1d", 1), ("-1d", -1), ("+0", 0)):
                clock.write_text(jump)
                query = "select extract(epoch from clock_timestamp())::float8 as now"
                ahead = connection.execute(query).fetchone()["now"] - time.time()  # type: ignore[index]
                assert round(ahead / 86400) == days
                for source in ("src0", "src1"):
                    run = control.request_run(connection, [source], [], {}, "manual")
                    report = wait_for_run(dsn, run, "succeeded", "failed", "abandoned", seconds=40)
                    assert (report["status"], report["errors"]) == ("succeeded", [])
                assert db.call(connection, "verify", "things0") == []
