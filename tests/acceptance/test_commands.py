"""Every command of `syncline --help`: its help has an example, its --json is JSON, its errors go to stderr alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from syncline.cli import main
from tests.api import Api
from tests.projects import TOKEN, Bench, people


def listed() -> list[str]:
    """The commands, as `syncline --help` lists them, and those of groups."""
    return [
        f"{name} {below}".strip() for name in _listed([]) for below in (_listed([name]) if name in GROUPS else [""])
    ]


def _listed(command: list[str]) -> list[str]:
    shown = CliRunner().invoke(main, [*command, "--help"]).output
    return re.findall(r"^  ([a-z-]+)  ", shown.split("Commands:")[1], re.MULTILINE)


GROUPS = {"schedule", "token", "alerts"}


COMMANDS = listed()

WORDS = {
    "init": ["a new project"],
    "psql": ["-Atc", "select 1"],
    "reset-cursor": ["shop", "people"],
    "diff": ["people"],
    "lineage": ["people"],
    "run": ["shop"],
    "load": ["shop"],
    "rollback": ["people"],
    "discover": ["files", "--dry-run"],
    "adopt": ["people_v1", "--entity", "people", "--key", "person_id"],
    "setup": ["--yes"],
    "trigger": ["http://127.0.0.1:1"],
    "cancel": ["1"],
    "schedule create": ["hourly", "--cron", "0 * * * *"],
    "schedule set": ["nightly", "--cron", "0 3 * * *"],
    "schedule pause": ["nightly"],
    "schedule resume": ["nightly"],
    "schedule trigger": ["nightly"],
    "schedule delete": ["weekly"],
    "token create": ["ann", "--role", "viewer"],
    "token revoke": ["ben"],
}
"""What a command is called with where it needs something."""

WITHOUT_A_RESULT = {"worker", "serve", "trigger", "alerts test"}
"""Commands that go on until they are stopped, or need a server: their own tests have their JSON."""


@pytest.fixture(scope="module")
def project(server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A project with two publishes and a candidate."""
    api = Api(TOKEN)
    root = tmp_path_factory.mktemp("commands") / "my project"
    made = Bench(server_dsn, template, root, api, f"syncline_commands_{os.getpid()}")
    made.sync()
    made.api.records["people"] = people(50, name="new")
    made.sync()
    made.api.records["people"] = people(50, name="newer")
    made.sync(dry_run=True)
    for name in ("nightly", "weekly"):
        assert made.call("schedule", "create", name, "--cron", "0 2 * * *").returncode == 0
    assert made.call("token", "create", "ben", "--role", "viewer").returncode == 0
    yield made
    made.close()
    api.close()


def test_the_list_names_what_is_there() -> None:
    """The list holds the commands that a user needs, each with a summary."""
    assert {"init", "doctor", "migrate", "run", "publish", "rollback", "diff", "status", "errors", "psql"} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    """`COMMAND --help` says what the command does and shows an example that names it; it needs no project."""
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert "--json" in result.output
    summary, example = result.output.split("Example:")
    assert f"syncline {name}" in example
    assert re.search(r"^  [A-Z].{15,}", summary, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in WITHOUT_A_RESULT])
def test_json_is_json(project: Bench, name: str) -> None:
    """`COMMAND --json` prints JSON and nothing else: one object, or for a list of any length one a line."""
    before = ["--json"] if name == "psql" else []
    ended = project.cli(*name.split(), *before, *WORDS.get(name, []), *([] if before else ["--json"]))
    # Commands run in any order here: a guard may refuse one, and says so on stderr.
    assert ended.returncode in {0, 3}, ended.stderr
    if ended.returncode == 0:
        assert ended.stdout.strip()
    for line in ended.stdout.splitlines():
        json.loads(line)
    assert ("error: " in ended.stderr) == (ended.returncode != 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_errors_go_to_stderr_alone(tmp_path: Path, name: str) -> None:
    """A wrong option, and a folder without a project, end in exit 2 with a word on stderr and none on stdout."""
    calls = [[*name.split(), "--no-such-option", "--json"]] if name != "psql" else []
    if name not in {"init", "trigger"}:
        calls.append([*name.split(), *WORDS.get(name, []), *([] if name == "psql" else ["--json"])])
    for arguments in calls:
        command = [sys.executable, "-m", "syncline", *arguments]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stdout) == (2, ""), arguments
        assert re.search("^error: ", ended.stderr, re.IGNORECASE | re.MULTILINE)
        assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_not_there(project: Bench) -> None:
    """An address where nobody answers is one error with a hint, exit 1, and no secret of the address is shown."""
    for arguments in (["status"], ["run"], ["doctor"]):
        ended = project.cli(*arguments, DATABASE_URL="postgresql://somebody:s3cret@127.0.0.1:1/nothing")
        assert ended.returncode == (2 if arguments == ["doctor"] else 1)
        assert "s3cret" not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        assert "try: " in ended.stdout + ended.stderr


def test_a_pipe_that_closes_is_no_error(project: Bench) -> None:
    """`syncline runs --json | head -c 1` ends without a word on stderr."""
    command = f"{shlex.quote(sys.executable)} -m syncline runs --json | head -c 1"
    ended = subprocess.run(
        ["bash", "-c", command], cwd=project.root, env=project.environment, capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
