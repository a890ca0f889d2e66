"""The built wheel in a clean environment: what a user gets from `pip install`, from the first command to the last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

SOURCES = """
sources:
  - name: files
    schema: raw_files
    config: {meta: {syncline: {connector: file, path: data}}}
    tables:
      - name: visits
        config: {meta: {syncline: {path: visits.csv, key: id}}}
"""

MODEL = """
{{ config(materialized='versioned', unique_key='visit_id') }}

select
    _key,
    {{ typed('id', 'bigint', required=true) }} as visit_id,
    {{ typed('place', 'text') }} as place
from {{ source('files', 'visits') }}
"""


def call(*command: str | Path, cwd: Path, code: int = 0) -> str:
    """Run a command outside the checkout and this environment; return what it printed."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV", "DATABASE_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == code, f"{command}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.mark.timeout(600)
def test_the_wheel_does_the_whole_job(tmp_path: Path) -> None:
    """Installed from the wheel, in a folder with a space, the example syncs and goes back, and a new project runs."""
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, CHECKOUT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python, syncline = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "syncline"
    install = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", CHECKOUT / "constraints.txt")
    call(*install, wheel, cwd=tmp_path)

    folder = tmp_path / "my projects"
    folder.mkdir()
    agency = folder / "the agency"
    call(syncline, "init", agency, "--example", "agency", cwd=folder)

    def said(*arguments: str) -> Any:
        return json.loads(call(syncline, *arguments, "--json", cwd=agency))

    try:
        sync = (python, Path("examples") / "agency" / "sync.py")
        assert "succeeded" in call(*sync, cwd=agency)
        assert "succeeded" in call(*sync, cwd=agency)
        status = said("status")
        entities = {entity["entity"]: entity for entity in status["entities"]}
        assert entities["talents"]["rows_total"] > 250
        assert all(entity["published_at"] for entity in entities.values())
        assert len(status["streams"]) == 8
        assert call(syncline, "status", cwd=agency)
        changes = call(syncline, "diff", "talents", cwd=agency)
        assert "~ " in changes
        errors = said("errors")["errors"]
        assert {error["severity"] for error in errors} == {"error", "warning"}
        assert "not a valid date" in call(syncline, "errors", cwd=agency)
        assert "talents" in said("rollback")["rolled_back"]
        call(syncline, "rollback", cwd=agency, code=3)
        assert said("verify")["problems"] == {}
        assert said("stop") == {"stopped": True}
        assert said("stop") == {"stopped": False}
        assert len(said("runs")["runs"]) == 2
    finally:
        call(syncline, "stop", cwd=agency)

    own = folder / "one of my own"
    call(syncline, "init", own, cwd=folder)
    (own / "data").mkdir()
    (own / "data" / "visits.csv").write_text("id,place\n1,here\n2,there\n")
    (own / "dbt_project" / "models" / "sources.yml").write_text(SOURCES)
    (own / "dbt_project" / "models" / "visits.sql").write_text(MODEL)
    try:
        report = json.loads(call(syncline, "run", "--json", cwd=own))
        assert report["entities"]["visits"]["inserted"] == 2
        rows = call(syncline, "psql", "-Atc", "select visit_id, place from visits_current order by 1", cwd=own)
        assert rows == "1|here\n2|there\n"
        assert json.loads(call(syncline, "doctor", "--json", cwd=own))["is_well"]
    finally:
        call(syncline, "stop", cwd=own)
    written = [path for path in (tmp_path / "venv").rglob("*") if path.name in {"target", "logs", ".syncline"}]
    assert [path for path in written if "syncline" in path.parts[-3:]] == []
