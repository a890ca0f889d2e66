"""Files through a whole run: what is unchanged is not read, what is appended comes once, what is bad is met again."""

from __future__ import annotations

import gzip
import os
import re
import time
from pathlib import Path

from tests.projects import Bench

SOURCES = """
sources:
  - name: files
    schema: raw_files
    config: {meta: {syncline: {connector: file, path: data}}}
    tables:
      - name: visits
        config: {meta: {syncline: {path: "visits*.jsonl", key: id}}}
      - name: log
        config: {meta: {syncline: {path: "log/*.jsonl", append: true}}}
"""


def use(bench: Bench) -> None:
    """Give the project two streams of files, the one a snapshot, the other a log."""
    for file in bench.models.iterdir():
        if file.name != "visits.sql":
            file.unlink()
    bench.write(bench.models / "sources.yml", SOURCES)
    (bench.root / "data" / "log").mkdir(exist_ok=True)
    for file in (bench.root / "data" / "log").iterdir():
        file.unlink()
    bench.write_lines("log/a.jsonl", [{"n": 1}, {"n": 2}])
    settle(bench.root / "data" / "visits.jsonl")


def settle(file: Path) -> None:
    """Make the file an hour old."""
    moment = time.time() - 3600
    os.utime(file, (moment, moment))


def loads(bench: Bench, stream: str) -> list[tuple[str, int, int]]:
    """The kind, the records read and the live records of each load."""
    query = "select kind, records_read, live_records from syncline.loads where stream = %s order by load_id"
    return [(row["kind"], row["records_read"], row["live_records"]) for row in bench.query(query, stream)]


def test_unchanged_files_cost_no_reading(bench: Bench) -> None:
    """The second load of a file reads nothing and leaves the entity as it is; a refresh and a change read it."""
    use(bench)
    bench.sync("files")
    before = bench.state("visits", "files.visits")
    bench.sync("files")
    assert bench.state("visits", "files.visits")["current"] == before["current"]
    bench.sync("files", full_refresh=True)
    bench.write_lines("visits.jsonl", [{"id": 1, "place": "elsewhere"}, {"id": 2, "place": "there"}])
    bench.sync("files")
    assert loads(bench, "visits") == [("full", 2, 2), ("full", 0, 2), ("full", 2, 2), ("full", 2, 2)]
    assert bench.current("visits")["1"]["place"] == "elsewhere"
    bench.verify("visits")


def test_bad_records_are_met_again(bench: Bench) -> None:
    """A file with a bad record is read each time, so that the error shows until it is mended."""
    use(bench)
    bench.write_lines("visits.jsonl", [{"id": 1, "place": "here"}, {"place": "nowhere"}])
    settle(bench.root / "data" / "visits.jsonl")
    for _ in range(2):
        bench.sync("files")
    assert loads(bench, "visits") == [("full", 2, 1), ("full", 2, 1)]
    assert len(bench.errors(stream="files.visits")) == 1


def test_log_files_are_appended_once(bench: Bench) -> None:
    """Each file of an append stream comes once, whatever comes beside it, and a load of nothing is no error."""
    use(bench)
    bench.sync("files")
    bench.sync("files")
    bench.write_lines("log/b.jsonl", [{"n": 2}, {"n": 3}])
    bench.sync("files")
    assert loads(bench, "log") == [("increment", 2, 2), ("increment", 0, 2), ("increment", 2, 4)]
    assert sorted(record["n"] for record in bench.live("files.log").values()) == [1, 2, 2, 3]


HOW_TO = (Path(__file__).parents[2] / "docs" / "how-to" / "files.md").read_text(encoding="utf-8")


def test_how_to(bench: Bench) -> None:
    """The first configuration of the how-to loads as it is printed."""
    for model in ("people", "visits", "prices"):
        (bench.models / f"{model}.sql").unlink()
    bench.write(bench.models / "sources.yml", re.findall(r"^```yaml\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)[0])
    folder = bench.root / "data" / "exports"
    (folder / "clicks").mkdir(parents=True, exist_ok=True)
    (folder / "customers.csv").write_text("id;name\n1;Ada\n")
    for month in (1, 2):
        (folder / f"orders-2026-0{month}.jsonl.gz").write_bytes(gzip.compress(b'{"id":%d}' % month))
    for day in (1, 2):
        (folder / "clicks" / f"{day}.csv").write_text("page\n/start\n")
        loaded = bench.call("load", "exports")
        assert loaded.returncode == 0, loaded.stderr
    assert bench.live("exports.customers") == {"1": {"id": "1", "name": "Ada"}}
    assert sorted(bench.live("exports.orders")) == ["1", "2"]
    assert [record["page"] for record in bench.live("exports.clicks").values()] == ["/start", "/start"]
