"""A million records in a file: first sync, later syncs, memory; beside the least that plain psql could do."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from syncline import embedded
from syncline.config import read_project
from syncline.pipeline import Engine, run
from syncline.report import SilentWatcher
from syncline.run_options import RunOptions
from syncline.scaffold import create_project

COLUMNS = {
    "id": "bigint",
    "name": "text",
    "email": "text",
    "birthDate": "date",
    "createdAt": "timestamptz",
    "isActive": "boolean",
    "score": "double precision",
    "balance": "numeric",
    "visits": "integer",
    "city": "text",
}

_TEMPLATE = (
    '{"id": %d, "name": "Person %06d of %s", "email": "person%d@example.com", "birthDate": "%04d-%02d-%02d",'
    ' "createdAt": "2024-0%d-1%dT0%d:00:00Z", "isActive": %s, "score": %.4f, "balance": "%d.%02d", "visits": %d,'
    ' "city": "City %d", "note": "%s"}\n'
)


def records(count: int) -> Iterator[str]:
    """Yield JSON lines of about 300 bytes."""
    roll = random.Random(1)
    day, digit = lambda: roll.randint(1, 28), lambda: roll.randint(0, 9)
    for number in range(count):
        yield _TEMPLATE % (
            *(number, number, roll.choice(("North", "South")), number),
            *(roll.randint(1950, 2005), roll.randint(1, 12), day()),
            *(roll.randint(1, 9), digit(), digit(), roll.choice(("true", "false")), roll.random() * 100),
            *(roll.randint(0, 99999), roll.randint(0, 99), roll.randint(0, 1000), roll.randint(0, 5000)),
            "x" * roll.randint(20, 80),
        )


def rewrite(file: Path, changed: int) -> None:
    """Change some of the records and shuffle them all."""
    lines = file.read_text().splitlines(keepends=True)
    roll = random.Random(time.time_ns())
    for place in roll.sample(range(len(lines)), changed):
        record = json.loads(lines[place])
        record["visits"] += 1
        lines[place] = json.dumps(record) + "\n"
    roll.shuffle(lines)
    file.write_text("".join(lines))


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure_speed(dsn: str, folder: Path, count: int) -> None:
    """Print the seconds of each sync and its ratio to plain psql's."""
    file = folder / "people.jsonl"
    with file.open("w") as out:
        out.writelines(records(count))
    megabytes = file.stat().st_size / 1e6
    print(f"\n{count:,} records, {megabytes:.0f} MB, {megabytes / count * 1e6:.0f} bytes each; seconds, ratios")
    project = make_project(folder / "volume", {"connector": "file"}, {"path": str(file), "key": "id"})
    database = make_database(dsn, "volume")
    with Engine(read_project(project), database) as engine:
        engine.dbt.parse()

        def sync() -> tuple[float, str]:
            started = time.perf_counter()
            report = run(engine, RunOptions(wait_timeout=0), SilentWatcher(None))  # type: ignore[arg-type]
            seconds = time.perf_counter() - started
            check(report)
            return seconds, ", ".join(f"{step['name']} {step['duration_ms'] / 1000:.2f}" for step in report["steps"])

        copy, least = psql_copy(dsn, file), psql_table(dsn, file)
        first, steps = sync()
        print(f"  psql: bare COPY {copy:.2f}; COPY, typed create table as, primary key {least:.2f}")
        print(f"  first sync {first:.2f} ({first / least:.2f} of psql's table; goal 1.5): {steps}")
        rewrite(file, 1)
        second, steps = sync()
        print(f"  second sync, 1 record changed {second:.2f} ({second / copy:.2f} of the bare COPY): {steps}")
        for changed, goal in ((1, 1.5), (count // 100, 2.2), (1, 1.5), (count // 100, 2.2)):
            rewrite(file, changed)
            copy = psql_copy(dsn, file)
            later, steps = sync()
            print(
                f"  later sync, {changed:,} changed {later:.2f}"
                f" ({later / copy:.2f} of the bare COPY {copy:.2f}; goal {goal}): {steps}"
            )


def check(report: dict[str, object]) -> None:
    if report["status"] != "succeeded":
        raise SystemExit(f"the run failed: {report['errors']}")


def measure_memory(dsn: str, folder: Path, counts: list[int]) -> None:
    """Print the peak of all of the runner's processes together, over three syncs in processes of their own."""
    print("\npeak memory of the runner's processes together (proportional set size), goal 300 MB")
    for count in counts:
        file = folder / f"people{count}.jsonl"
        with file.open("w") as out:
            out.writelines(records(count))
        project = make_project(folder / f"memory{count}", {"connector": "file"}, {"path": str(file), "key": "id"})
        database = make_database(dsn, f"memory{count}")
        peaks = []
        for changed in (0, 1, count // 100):
            if changed:
                rewrite_in_place(file, changed)
            peaks.append(peak_of_run(project, database))
        shown = ", ".join(f"{peak:.0f}" for peak in peaks)
        print(f"  {count:,} records: {shown} MB (first, second, third sync)")
        file.unlink()


def rewrite_in_place(file: Path, changed: int) -> None:
    """Change the first records without holding the file in memory."""
    other = file.with_suffix(".new")
    with file.open() as lines, other.open("w") as out:
        for number, line in enumerate(lines):
            out.write(line.replace('"visits": ', '"visits": 1', 1) if number < changed else line)
    other.rename(file)


def peak_of_run(project: Path, dsn: str) -> float:
    """Return the greatest memory, in MB, of `syncline run` and its children while it ran."""
    return peak_of([sys.executable, "-m", "syncline", "run", "--json"], {"DATABASE_URL": dsn}, project)


def peak_of(
    command: list[str], environment: Mapping[str, str], folder: Path | None = None, stdin: Path | None = None
) -> float:
    """Return the greatest memory, in MB, of a command and its children while it ran; it has to succeed."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdin=stdin.open("rb") if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while not done.wait(0.05):
            try:
                family = [root, *root.children(recursive=True)]
                peak = max(peak, sum(member.memory_full_info().pss for member in family) / 1e6)
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(output.decode())
    return peak


def make_project(folder: Path, source: Mapping[str, Any], stream: Mapping[str, Any]) -> Path:
    """Write a project with one stream and an entity of ten typed fields on it."""
    create_project(folder)
    sources = {
        "name": "bench",
        "schema": "raw_bench",
        "config": {"meta": {"syncline": source}},
        "tables": [{"name": "people", "config": {"meta": {"syncline": stream}}}],
    }
    models = folder / "dbt_project" / "models"
    (models / "sources.yml").write_text(json.dumps({"sources": [sources]}))
    listed = ",\n    ".join(
        f"{{{{ typed('{path}', '{kind}'{', required=true' if path == 'id' else ''}) }}}} as {path.lower()}"
        for path, kind in COLUMNS.items()
    )
    (models / "people.sql").write_text(
        "{{ config(materialized='versioned', unique_key='id') }}\n"
        f"select\n    _key,\n    {listed}\nfrom {{{{ source('bench', 'people') }}}}\n"
    )
    (models / "people.yml").write_text(
        json.dumps({"models": [{"name": "people", "columns": [{"name": "email", "data_tests": ["not_null"]}]}]})
    )
    return folder


def make_database(dsn: str, name: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return make_conninfo(dsn, dbname=name)


def psql_copy(dsn: str, file: Path) -> float:
    """Seconds that psql takes to COPY the file into one json column."""
    return timed(lambda: psql(make_database(dsn, "plain"), "create table raw (payload json)", copy_command(file)))


def psql_table(dsn: str, file: Path) -> float:
    """Seconds of the least that gives the same table: COPY, typed create table as, record parsed once, primary key."""
    database = make_database(dsn, "plain")
    listed = ", ".join(f"(payload ->> '{path}')::{kind} as {path.lower()}" for path, kind in COLUMNS.items())
    return timed(
        lambda: psql(
            database,
            "create table raw (payload json)",
            copy_command(file),
            f"create table people as select {listed} from (select payload::jsonb from raw offset 0) as parsed",
            "alter table people add primary key (id)",
        )
    )


def copy_command(file: Path) -> str:
    return rf"\copy raw from '{file}' with (format csv, quote e'\x01', delimiter e'\x02')"


def psql(dsn: str, *commands: str) -> None:
    listed = [part for command in commands for part in ("-c", command)]
    subprocess.run([embedded.binary("psql"), "-qX", "-v", "ON_ERROR_STOP=1", "-d", dsn, *listed], check=True)
