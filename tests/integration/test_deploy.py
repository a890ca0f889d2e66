"""What deploy/ ships is run or read by the tools it is for: cron scripts, systemd units, compose and image."""

from __future__ import annotations

import configparser
import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from syncline.api.server import GRACE_SECONDS
from syncline.cli import main
from tests.projects import TOKEN, Bench
from tests.serving import serving
from tests.workers import Workers

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

WINE = shutil.which("wine64") or shutil.which("wine64", path="/usr/lib/wine")

IMAGE = "syncline-test/syncline"
BASE = "debian-python:3.11"
POSTGRES = "syncline-test/postgres:15-cron"


def parse(arguments: list[str]) -> click.Context:
    """Let the command line take these arguments, without running anything; wrong ones raise."""
    command = main.get_command(click.Context(main), arguments[0])
    assert command is not None, arguments
    return command.make_context(arguments[0], arguments[1:])


def needed_to_stop(context: click.Context) -> float:
    """Seconds that a command may need once it is told to stop, and some to spare."""
    is_worker = context.info_name == "worker"
    # A worker's run may go on, is then handed back, and at last its dbt process ends.
    return (context.params["grace"] + 30 if is_worker else GRACE_SECONDS) + 15


# cron


class Cron:
    """Runs sync-cron.sh as cron does, with the real command."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.log, self.lock = folder / "log", folder / "lock"
        program = folder / "syncline"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m syncline "$@"\n')
        program.chmod(0o755)
        self._environment = os.environ | {
            "SYNCLINE_BIN": str(program),
            "SYNCLINE_PROJECT": str(bench.root),
            "SYNCLINE_DELAY": "1",
            "SYNCLINE_LOG": str(self.log),
            "SYNCLINE_LOCK": str(self.lock),
            "DATABASE_URL": bench.dsn,
        }

    def start(self, *sources: str, **environment: str) -> subprocess.Popen[bytes]:
        self.log.write_text("")
        command = [str(DEPLOY / "cron" / "sync-cron.sh"), *sources]
        return subprocess.Popen(command, env=self._environment | environment)

    def run(self, *sources: str, **environment: str) -> int:
        return self.start(*sources, **environment).wait(timeout=120)

    def attempts(self) -> int:
        return self.log.read_text().count("sync-cron: attempt")


@pytest.fixture
def cron(bench: Bench, tmp_path: Path) -> Cron:
    return Cron(bench, tmp_path)


def test_cron_works_a_run(bench: Bench, cron: Cron) -> None:
    """One sync: a run of the source named, exit code 0, and its output in the log."""
    assert cron.run("shop") == 0
    assert (cron.attempts(), len(bench.current())) == (1, 50)
    assert "run 1 succeeded" in cron.log.read_text()


def test_cron_tries_again_what_may_pass(bench: Bench, cron: Cron) -> None:
    """A run that failed is tried again after a pause, and what has passed by then succeeds."""
    bench.api.token = "another"
    script = cron.start("shop", SYNCLINE_DELAY="2")
    until = time.monotonic() + 60
    while "again in 2 s" not in cron.log.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    bench.api.token = TOKEN
    assert script.wait(timeout=60) == 0
    assert (cron.attempts(), len(bench.current())) == (2, 50)


def test_cron_gives_up(bench: Bench, cron: Cron) -> None:
    """A run that goes on failing ends with its code after the attempts; a wrong configuration is tried once."""
    bench.api.token = "another"
    assert cron.run("shop", SYNCLINE_ATTEMPTS="2") == 1
    assert cron.attempts() == 2
    assert cron.run("nowhere") == 2
    assert cron.attempts() == 1
    assert cron.run("shop", SYNCLINE_DELAY="soon") == 2


def test_cron_never_overlaps_itself(bench: Bench, cron: Cron) -> None:
    """While a sync is under way another one ends at once with 75; the lock of one that is gone is free."""
    with cron.lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cron.run("shop") == 75
        assert (cron.attempts(), bench.runs()) == (0, [])
    assert cron.run("shop") == 0


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1"])
def test_the_lock_of_cron_is_where_nobody_else_writes(bench: Bench, cron: Cron, tmp_path: Path, url: str) -> None:
    """Without SYNCLINE_LOCK the lock is in the project's folder, or in the user's home where an API is asked."""
    home = tmp_path / "home"
    home.mkdir()
    given = {"SYNCLINE_LOCK": "", "SYNCLINE_URL": url, "HOME": str(home), "SYNCLINE_TOKEN": "some-token"}
    place = (home if url else bench.root) / ".syncline"
    place.mkdir(exist_ok=True)
    with (place / "sync-cron.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cron.run("shop", **given) == 75
    assert cron.run("shop", **given | {"SYNCLINE_ATTEMPTS": "1"}) == (1 if url else 0)
    assert cron.run("shop", **given | {"SYNCLINE_PROJECT": "/nowhere", "HOME": "/nowhere"}) == 2


def test_cron_asks_an_api(bench: Bench, cron: Cron, tmp_path: Path) -> None:
    """With SYNCLINE_URL the API is asked for the run, with the token of a file, and the run is followed to its end."""
    created = bench.call("token", "create", "cron", "--role", "operator", "--json")
    token = tmp_path / "token"
    token.write_text(json.loads(created.stdout)["token"])
    assert bench.call("migrate").returncode == 0
    with serving(bench) as api, Workers(bench.root, bench.dsn) as workers:
        workers.start()
        code = cron.run("shop", SYNCLINE_URL=api.url, SYNCLINE_TOKEN_FILE=str(token), SYNCLINE_TOKEN="")
    assert (code, len(bench.current())) == (0, 50), cron.log.read_text()
    assert token.read_text() not in cron.log.read_text()
    (run,) = bench.runs()
    assert (run["trigger"], run["status"], run["sources"]) == ("api", "succeeded", ["shop"])


def test_cron_by_the_page_reads_the_settings(bench: Bench, tmp_path: Path) -> None:
    """What production.md puts into /etc/cron.d works a run in the right database, with no more than cron gives it."""
    page = (ROOT / "docs" / "how-to" / "production.md").read_text(encoding="utf-8")
    table = page.split("# cat >/etc/cron.d/syncline <<'EOF'\n")[1].split("\nEOF\n")[0]
    settings, program, log = tmp_path / "environment", tmp_path / "syncline", tmp_path / "log"
    given = {name: bench.environment[name] for name in bench.environment if name.startswith("SHOP_")}
    given |= {"DATABASE_URL": bench.dsn, "SYNCLINE_TARGET": "prod"}
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m syncline "$@"\n')
    program.chmod(0o755)
    for there, here in [
        ("/opt/syncline/bin/syncline", program),
        ("/opt/syncline/sync-cron.sh", shutil.copy(DEPLOY / "cron" / "sync-cron.sh", tmp_path)),
        ("/etc/syncline/environment", settings),
        ("/var/log/syncline/cron.log", log),
        ("/srv/syncline", bench.root),
    ]:
        assert there in table
        table = table.replace(there, str(here))
    *variables, line = table.splitlines()
    user, command = line.split(None, 6)[5:]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"} | dict(item.split("=", 1) for item in variables)

    def fire() -> int:
        return subprocess.run(["sh", "-c", command], env=environment, check=False, timeout=120).returncode

    assert user == "syncline"
    assert (fire(), bench.runs()) == (2, [])
    settings.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in given.items()))
    assert (fire(), len(bench.current())) == (0, 50), log.read_text()


def test_the_script_for_windows_is_kept_like_the_other() -> None:
    """The batch file knows the variables of the shell script, and has Windows' line ends."""
    shell = (DEPLOY / "cron" / "sync-cron.sh").read_text()
    batch = (DEPLOY / "cron" / "sync-cron.bat").read_bytes()
    assert batch.count(b"\r\n") == batch.count(b"\n")
    names = set(re.findall(r"SYNCLINE_[A-Z_]+", shell)) - {"SYNCLINE_PROJECT", "SYNCLINE_TOKEN"}
    assert names <= set(re.findall(r"SYNCLINE_[A-Z_]+", batch.decode()))


@pytest.mark.skipif(WINE is None, reason="needs Debian's package wine64")
def test_the_script_for_windows(tmp_path: Path) -> None:
    """Under Wine: it passes arguments on, tries again what failed with 1, gives up on 3, and never overlaps itself."""
    drive = tmp_path / "wine" / "drive_c"
    wine = {"WINEPREFIX": str(drive.parent), "WINEDEBUG": "-all"}
    start(wine, "exit /b 0").wait(timeout=120)
    shutil.copy(DEPLOY / "cron" / "sync-cron.bat", drive)
    (drive / "stand-in.bat").write_bytes(b"@echo off\r\necho asked: %*\r\nexit /b %STAND_IN_CODE%\r\n")
    (drive / "slow.bat").write_bytes(b"@ping -n 6 127.0.0.1 >nul\r\n")
    given = wine | {
        "SYNCLINE_URL": "https://sync.example.com",
        "SYNCLINE_TOKEN_FILE": r"C:\my token.txt",
        "SYNCLINE_BIN": r"C:\stand-in.bat",
        "SYNCLINE_DELAY": "1",
        "SYNCLINE_LOG": r"C:\log.txt",
        "SYNCLINE_LOCK": r"C:\lock.txt",
    }
    log = drive / "log.txt"
    for code, attempts in (("0", 1), ("1", 3), ("3", 1)):
        log.write_text("")
        ended = start(given | {"STAND_IN_CODE": code}, r"C:\sync-cron.bat agency shop").wait(timeout=60)
        assert (ended, log.read_text().count("sync-cron: attempt")) == (int(code), attempts)
        asked = (
            r'trigger https://sync.example.com --wait --token-file "C:\my token.txt" --source "agency" --source "shop"'
        )
        assert asked in log.read_text()
    log.write_text("")
    under_way = start(given | {"SYNCLINE_BIN": r"C:\slow.bat"}, r"C:\sync-cron.bat")
    while "attempt 1" not in log.read_text():
        time.sleep(0.05)
    assert start(given, r"C:\sync-cron.bat").wait(timeout=60) == 75
    assert under_way.wait(timeout=60) == 0
    unset = {name: value for name, value in given.items() if name not in ("SYNCLINE_LOG", "SYNCLINE_LOCK")}
    assert start(unset | {"STAND_IN_CODE": "0"}, r"C:\sync-cron.bat").wait(timeout=60) == 0
    (place,) = drive.glob("users/*/AppData/Local/syncline")
    assert sorted(file.name for file in place.iterdir()) == ["sync-cron.lock", "sync-cron.log"]


def start(environment: dict[str, str], command: str) -> subprocess.Popen[bytes]:
    """Start a command of Windows under Wine."""
    return subprocess.Popen([str(WINE), "cmd", "/c", command], env=os.environ | environment)


# systemd


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_start_a_command_that_there_is(unit: Path) -> None:
    """ExecStart is a command line that Syncline takes, told to stop alone and given longer than it needs to do so."""
    config = configparser.ConfigParser(strict=False, interpolation=None)
    config.read(unit)
    service = config["Service"]
    context = parse(shlex.split(service["ExecStart"])[1:])
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) >= needed_to_stop(context)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_sound(unit: Path, tmp_path: Path) -> None:
    """The tool of systemd finds nothing wrong with the unit, and little that it could do to the machine."""
    installed = tmp_path / unit.name.replace("@", "@1")
    # Its paths are those of an installation; here the interpreter stands for the command.
    (tmp_path / "syncline").symlink_to(sys.executable)
    installed.write_text(unit.read_text().replace("/opt/syncline/bin/syncline", str(tmp_path / "syncline")))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(installed)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert judged.returncode == 0, judged.stdout[-500:] + judged.stderr


# containers


def test_compose_starts_commands_that_there_are() -> None:
    """Each service's command is one that Syncline takes, and is given longer than it needs to stop."""
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"postgres", "migrate", "worker", "serve"}
    for name in ("worker", "serve"):
        given = int(services[name]["stop_grace_period"].removesuffix("s"))
        assert given >= needed_to_stop(parse(services[name]["command"]))


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs Debian's package docker-compose")
def test_compose_is_sound() -> None:
    """Compose itself takes the file, and refuses it without the secrets."""
    command = ["docker-compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    secrets = {"PROJECT": "/srv/p", "POSTGRES_PASSWORD": "x", "SYNCLINE_SECRET_KEY": "y"}
    given = {name: value for name, value in os.environ.items() if name not in secrets}
    assert subprocess.run(command, env=given | secrets, check=False, timeout=60).returncode == 0
    for missing in secrets:
        some = {name: value for name, value in secrets.items() if name != missing}
        refused = subprocess.run(command, env=given | some, capture_output=True, text=True, check=False, timeout=60)
        assert (refused.returncode != 0, "is not set" in refused.stderr) == (True, True)


@pytest.mark.skipif(
    not os.environ.get("SYNCLINE_TEST_DOCKER"), reason="makes images, as root: set SYNCLINE_TEST_DOCKER=1"
)
@pytest.mark.timeout(1200)
def test_the_image_works_runs_beside_a_container_of_postgres(tmp_path: Path) -> None:
    """The image builds on Debian's Python, runs as no root; with compose it migrates, works a run, stops in order."""
    context = tmp_path / "context"
    build_image(context)
    shown = docker("run", "--rm", IMAGE, "--version")
    assert "version" in shown
    assert docker("run", "--rm", "--entrypoint", "id", IMAGE, "-u").strip() == "1000"
    project = tmp_path / "project"
    make_project(project)
    environment = {
        "PROJECT": str(project),
        "POSTGRES_PASSWORD": "pass/w@rd",
        "SYNCLINE_SECRET_KEY": "a-secret-key-for-a-test",
        "SYNCLINE_IMAGE": IMAGE,
        "POSTGRES_IMAGE": POSTGRES,
        "SYNCLINE_PORT": "18097",
    }
    try:
        compose(environment, "up", "-d", "--no-build")
        asked = [sys.executable, "-m", "syncline", "trigger", "http://127.0.0.1:18097", "--wait", "--json"]
        token = {"SYNCLINE_TOKEN": environment["SYNCLINE_SECRET_KEY"], "NO_PROXY": "*"}
        wait_for_api(environment)
        ended = subprocess.run(asked, env=os.environ | token, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["entities"]["people"]["inserted"] == 2
        compose(environment, "stop", "worker", "serve")
        assert compose(environment, "logs", "worker").count("worker_stop") == 2
    finally:
        compose(environment, "down", "-v")


def build_image(context: Path) -> None:
    """Make the images of Debian's packages, a folder of wheels with the same Python, and the image from these."""
    for script, name in (("debian-python.sh", BASE), ("postgres-cron.sh", POSTGRES)):
        subprocess.run([str(ROOT / "tests" / "images" / script), name], check=True, timeout=600, capture_output=True)
    tracked = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "dbt_project.yml", "profiles.yml")
    for name in (*tracked, ".dockerignore"):
        context.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, context / name)
    for name in ("runner", "sql", "dbt_project", "examples", "deploy"):
        shutil.copytree(
            ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__", ".syncline", "wheels")
        )
    wheels = ["-m", "pip", "wheel", "-q", "-c", "constraints.txt", "-w", "deploy/wheels", ".[otel]", "hatchling"]
    subprocess.run([shutil.which("python3") or sys.executable, *wheels], cwd=context, check=True, timeout=600)
    options = "PIP_OPTIONS=--no-index --find-links deploy/wheels"
    file, arguments = "deploy/Dockerfile", ("--build-arg", f"BASE={BASE}", "--build-arg", options)
    docker("build", "-q", "-f", file, "-t", IMAGE, *arguments, ".", cwd=context)


def make_project(root: Path) -> None:
    made = subprocess.run([sys.executable, "-m", "syncline", "init", str(root)], check=False, timeout=60)
    assert made.returncode == 0
    (root / "people.jsonl").write_text('{"id": 1, "name": "Ada"}\n{"id": 2, "name": "Grace"}\n')
    stream = {"name": "people", "config": {"meta": {"syncline": {"path": "people.jsonl", "key": "id"}}}}
    source = {"name": "files", "schema": "raw_files", "config": {"meta": {"syncline": {"connector": "file"}}}}
    models = root / "dbt_project" / "models"
    (models / "sources.yml").write_text(json.dumps({"sources": [source | {"tables": [stream]}]}))
    (models / "people.sql").write_text(
        "{{ config(materialized='versioned', unique_key='person_id') }}\n"
        "select _key, {{ typed('id', 'bigint', required=true) }} as person_id from {{ source('files', 'people') }}\n"
    )
    for path in [root, *root.rglob("*")]:
        os.chown(path, 1000, 1000)
    # The containers' user has to pass through.
    for parent in root.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


def docker(*arguments: str, **options: Any) -> str:
    command = ["docker", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, **options)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def compose(environment: dict[str, str], *arguments: str) -> str:
    command = ["docker-compose", "-p", f"syncline{os.getpid()}", "-f", str(DEPLOY / "compose.yaml"), *arguments]
    given = os.environ | environment
    ended = subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def wait_for_api(environment: dict[str, str]) -> None:
    until = time.monotonic() + 60
    while "(healthy)" not in next(line for line in compose(environment, "ps").splitlines() if "_serve_" in line):
        assert time.monotonic() < until
        time.sleep(1)
