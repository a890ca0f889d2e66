"""What a preview costs: a dry run of changed rows among many, as a sample, as JSON lines, and its memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from syncline import db
from syncline.config import read_project
from syncline.pipeline import Engine, run
from syncline.preview import Preview
from syncline.report import SilentWatcher
from syncline.run_options import RunOptions
from tests.bench.volume import check, make_database, make_project, peak_of, records, rewrite_in_place, timed


def measure_previews(dsn: str, folder: Path, count: int) -> None:
    """Print the seconds of previews of 1% and 10% changed rows, and the memory of one as JSON lines."""
    file = folder / "previewed.jsonl"
    with file.open("w") as out:
        out.writelines(records(count))
    project = make_project(folder / "preview", {"connector": "file"}, {"path": str(file), "key": "id"})
    database = make_database(dsn, "preview")
    print(f"\npreviews of {count:,} rows; seconds")
    with Engine(read_project(project), database) as engine:
        check(run(engine, RunOptions(wait_timeout=0), SilentWatcher(None)))  # type: ignore[arg-type]
        for changed in (count // 100, count // 10):
            rewrite_in_place(file, changed)
            seconds: list[float] = []
            started = time.perf_counter()
            report = run(
                engine,
                RunOptions(wait_timeout=0, dry_run=True),
                SilentWatcher(None),  # type: ignore[arg-type]
                lambda run_id, spent=seconds: spent.append(timed(lambda: _look(database, run_id))),  # type: ignore[misc]
            )
            whole = time.perf_counter() - started
            check(report)
            with Preview(database, None) as preview:
                lines = timed(lambda: preview.look(report["run_id"]))  # noqa: B023 (called at once)
                read = timed(lambda: print(f"  {sum(1 for _ in preview.lines()):,} changed:", end=""))
            print(f" dry run {whole:.2f}, of it a sample {seconds[0]:.2f}; all rows {lines:.2f}, read in {read:.2f}")
            with db.connect(database) as connection:
                db.call(connection, "withdraw_candidates", report["run_id"], None)
    command = [sys.executable, "-m", "syncline", "run", "--dry-run", "--json"]
    peak = peak_of(command, {"DATABASE_URL": database}, project)
    print(f"  peak memory of `run --dry-run --json`, {count // 10:,} changed: {peak:.0f} MB")
    file.unlink()


def _look(database: str, run_id: int) -> None:
    with Preview(database, 5) as preview:
        preview.look(run_id)
