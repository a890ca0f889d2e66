"""What trust costs: merged sources beside one, changes and history beside none; how quickly questions are answered."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from syncline.config import read_project
from syncline.pipeline import Engine, run
from syncline.report import SilentWatcher
from syncline.run_options import RunOptions
from syncline.scaffold import create_project
from tests.bench.volume import COLUMNS, check, make_database, records, rewrite

FIELDS = {"id": "person_id"} | {name: name.lower() for name in COLUMNS if name != "id"}


def measure(dsn: str, folder: Path, count: int) -> None:
    measure_merge(dsn, folder / "merge", count // 2)
    measure_changes(dsn, folder / "changes", count)


def measure_merge(dsn: str, folder: Path, count: int) -> None:
    """Print what two sources of so many records cost beside one source of them all."""
    print(
        f"\ntwo sources of {count:,} records merged by field, 1% conflicts, beside one source of {2 * count:,}; seconds"
    )
    folder.mkdir()
    one, sheet, crm = (folder / f"{name}.jsonl" for name in ("one", "sheet", "crm"))
    lines = list(records(count))
    sheet.write_text("".join(lines))
    # Every hundredth record says something else in the other source.
    others = [
        line.replace('"name": "Person', '"name": "Somebody', 1) if place % 100 == 0 else line
        for place, line in enumerate(lines)
    ]
    crm.write_text("".join(others))
    one.write_text("".join(lines) + "".join(line.replace('"id": ', '"id": 9', 1) for line in others))
    single = _project(folder / "single", {"one": one}, {"people": _model("one", unique_key="person_id")})
    merged = _project(
        folder / "merged",
        {"sheet": sheet, "crm": crm},
        {"from_sheet": _staging("sheet"), "from_crm": _staging("crm"), "people": _merged()},
    )
    syncs = {
        "single": _Syncs(single, make_database(dsn, "single")),
        "merged": _Syncs(merged, make_database(dsn, "merged")),
    }
    for what, options in (("first sync", {}), ("all built again", {"full_refresh": True})):
        seconds = {name: each.run(**options) for name, each in syncs.items()}
        _print_ratio(what, seconds["single"], seconds["merged"], 1.5)
    rewrite(one, 2 * count // 100)
    rewrite(sheet, count // 100)
    rewrite(crm, count // 100)
    _print_ratio("1% changed", syncs["single"].run(), syncs["merged"].run(), 1.5)
    _ask(syncs["merged"].dsn, count, _QUESTIONS)
    for each in syncs.values():
        each.close()


def measure_changes(dsn: str, folder: Path, count: int) -> None:
    """Print what a sync of 1% changed rows costs with and without changes and history, and how long questions take."""
    print(f"\n{count:,} rows, 1% changed: changes and history beside none; seconds")
    folder.mkdir()
    file = folder / "people.jsonl"
    with file.open("w") as out:
        out.writelines(records(count))
    kinds = {"none": {"changes": False}, "changes": {}, "changes and history": {"history": True}}
    syncs = {
        name: _Syncs(
            _project(folder / name, {"one": file}, {"people": _model("one", unique_key="person_id", **config)}),
            make_database(dsn, name.replace(" ", "_")),
        )
        for name, config in kinds.items()
    }
    for name, each in syncs.items():
        print(f"  first sync, {name}: {each.run()['whole']:.2f}")
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in syncs}
    for turn in range(6):
        rewrite(file, count // 100)
        # Each in turn is the first, and the one that the server's own work meets.
        for name in [*syncs, *syncs][turn % 3 :][:3]:
            rounds[name].append(syncs[name].run())
    seconds = {
        name: {step: statistics.median(one[step] for one in all_runs) for step in all_runs[0]}
        for name, all_runs in rounds.items()
    }
    for name in ("changes", "changes and history"):
        _print_ratio(f"1% changed, {name}, median of 6", seconds["none"], seconds[name], 1.3)
        each = ", ".join(f"{b['whole'] / a['whole']:.2f}" for a, b in zip(rounds["none"], rounds[name], strict=True))
        print(f"    each: {each}")
    versions = {"its versions": "select * from people_history where _key = %s"}
    _ask(syncs["changes and history"].dsn, count, _QUESTIONS | versions)
    for each in syncs.values():
        each.close()


_QUESTIONS = {
    "lineage of a row": "select * from syncline.lineage('people', %s)",
    "lineage of a field": "select * from syncline.lineage('people', %s, 'visits')",
    "history of a row": "select * from syncline.life_of('people', %s)",
}


def _ask(dsn: str, count: int, questions: Mapping[str, str]) -> None:
    roll = random.Random(3)
    print("  questions, milliseconds: p50, p99 of 200; goal 50")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, question in questions.items():
            took = []
            for _ in range(200):
                started = time.perf_counter()
                connection.execute(question, (str(roll.randrange(count)),)).fetchall()
                took.append((time.perf_counter() - started) * 1000)
            print(f"    {name}: {statistics.median(took):.1f}, {sorted(took)[197]:.1f}")


class _Syncs:
    """Runs of one project, timed."""

    def __init__(self, project: Path, dsn: str) -> None:
        self.dsn = dsn
        self._engine = Engine(read_project(project), dsn)
        self._engine.dbt.parse()

    def run(self, **options: Any) -> dict[str, float]:
        """Sync; return the seconds of the whole and of each step."""
        started = time.perf_counter()
        wanted = RunOptions(wait_timeout=0, allow_mass_delete=True, **options)
        report = run(self._engine, wanted, SilentWatcher(None))  # type: ignore[arg-type]
        check(report)
        steps = {step["name"]: step["duration_ms"] / 1000 for step in report["steps"]}
        return {"whole": time.perf_counter() - started} | steps

    def close(self) -> None:
        self._engine.dbt.close()


def _print_ratio(what: str, without: Mapping[str, float], with_it: Mapping[str, float], goal: float) -> None:
    steps = ", ".join(f"{name} {without[name]:.2f} and {with_it[name]:.2f}" for name in without if name != "whole")
    ratio = with_it["whole"] / without["whole"]
    print(f"  {what}: {without['whole']:.2f} and {with_it['whole']:.2f}, {ratio:.2f} times (goal {goal}); {steps}")


def _project(folder: Path, files: Mapping[str, Path], models: Mapping[str, str]) -> Path:
    create_project(folder)
    source = {
        "name": "bench",
        "schema": "raw_bench",
        "config": {"meta": {"syncline": {"connector": "file"}}},
        "tables": [
            {"name": name, "config": {"meta": {"syncline": {"path": str(file), "key": "id"}}}}
            for name, file in files.items()
        ],
    }
    place = folder / "dbt_project" / "models"
    (place / "sources.yml").write_text(json.dumps({"sources": [source]}))
    for name, content in models.items():
        (place / f"{name}.sql").write_text(content)
    return folder


def _columns(names: Iterable[str]) -> str:
    return ",\n    ".join(f"{{{{ typed('{name}', '{COLUMNS[name]}') }}}} as {FIELDS[name]}" for name in names)


def _model(stream: str, **config: Any) -> str:
    settings = (
        "".join(f", {name}={value!r}" for name, value in config.items())
        .replace("False", "false")
        .replace("True", "true")
    )
    return (
        f"{{{{ config(materialized='versioned'{settings}) }}}}\n\n"
        f"select\n    _key,\n    {_columns(COLUMNS)}\nfrom {{{{ source('bench', '{stream}') }}}}\n"
    )


def _staging(stream: str) -> str:
    return (
        "{{ config(materialized='ephemeral') }}\n\n"
        f"select\n    _key,\n    {_columns(COLUMNS)}\nfrom {{{{ source('bench', '{stream}') }}}}\n"
    )


def _merged() -> str:
    fields: dict[str, Any] = {name: {} for name in FIELDS.values()}
    fields["email"] = {"priority": ["crm", "sheet"]}
    fields["city"] = {"authority": {"crm": "reference"}}
    return (
        "{{ config(materialized='versioned', unique_key='person_id') }}\n\n"
        f"{{{{ merged(sources={{'sheet': ref('from_sheet'), 'crm': ref('from_crm')}}, fields={fields!r}) }}}}\n"
    )
