"""The database goes away, the disk is full, the process is killed: the next run converges on the same data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncline import embedded, interruption
from tests.api import Api
from tests.projects import PEOPLE, SOURCES, TOKEN, Bench, people, person, rows

STEPS = ["load", "build", "check", "publish"]

CHANGED = [person(n, name="changed") if n % 10 == 0 else person(n) for n in range(2, 53)]
"""What the API has after the fault: 5 of 50 changed, 1 gone, 2 new."""


@contextmanager
def stopped_in(bench: Bench, step: str) -> Iterator[Callable[[], None]]:
    """Let a run stop in the middle of a step; yields the function that waits until it is there."""
    with ExitStack() as stack:
        if step == "load":
            bench.api.stall_at(2)
            stack.callback(bench.api.go_on)
            yield lambda: wait_for_copy(bench)
        elif step == "build":
            # Two publishes were made: the inactive version is written in place, or dropped.
            version = 3 - bench.value("select current_version from syncline.entities where entity = 'people'")
            stack.enter_context(bench.holding(f"lock table people_v{version} in share mode"))
            yield lambda: bench.wait_for_lock("syncline.build")
        elif step == "check":
            bench.api.records["people"].append(person(99, name="slow"))
            yield lambda: bench.wait_until("select exists (select from pg_stat_activity where wait_event = 'PgSleep')")
        else:
            stack.enter_context(bench.holding("select pg_advisory_xact_lock(syncline.lock_class('publish'), 0)"))
            yield lambda: bench.wait_for_lock("syncline.publish(")


def wait_for(event: threading.Event) -> None:
    assert event.wait(60)


def wait_for_copy(bench: Bench) -> None:
    """Wait until the page after the first is asked for, ahead of its turn, and the first is being copied in."""
    wait_for(bench.api.is_stalled)
    bench.wait_until(
        "select exists (select from pg_stat_activity where query ilike 'copy%' and datname = current_database())"
    )


def prepare(bench: Bench) -> None:
    """Publish twice, so that there is a version to write in place, and let the API have something new."""
    bench.sync()
    bench.api.records["people"][0] = person(1, name="second")
    bench.sync()
    bench.api.records["people"] = list(CHANGED)


def converge(bench: Bench, **options: Any) -> None:
    """Run again; the result is that of a run that nothing disturbed."""
    bench.api.answer = bench.api.serve
    bench.api.records["people"] = list(CHANGED)
    bench.sync(**options)
    assert bench.current() == rows(CHANGED)
    assert set(bench.live()) == {str(record["id"]) for record in CHANGED}
    bench.verify()
    assert bench.value("select count(*) from pg_namespace where nspname ~ '^syncline.*_people$'") == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_run_is_abandoned_and_the_next_converges(bench: Bench, step: str) -> None:
    """After kill -9 in the middle of a step current is as it was; the next run comes to the same data."""
    prepare(bench)
    before = bench.current()
    with stopped_in(bench, step) as wait:
        process = bench.start("run", "shop")
        wait()
        process.kill()
        process.communicate()
    assert bench.current() == before
    converge(bench)
    killed, last = bench.runs()[-2:]
    assert (killed["status"], last["status"]) == ("abandoned", "succeeded")
    steps = bench.query("select step, status from syncline.steps where run_id = %s", killed["run_id"])
    assert {"step": step, "status": "abandoned"} in steps


@pytest.mark.parametrize("step", ["build", "check"])
def test_a_killed_run_leaves_no_session_behind(bench: Bench, step: str) -> None:
    """After kill -9 its sessions end by themselves within seconds, whatever they are waiting for, dbt's included."""
    prepare(bench)
    with stopped_in(bench, step) as wait:
        process = bench.start("run", "shop")
        wait()
        process.kill()
        process.communicate()
        bench.wait_until(
            """select not exists (
                select from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()
                    and (application_name like 'syncline%%' or application_name = 'dbt')
            )""",
            seconds=10,
        )
    converge(bench, wait_timeout=0)


def run_in_thread(bench: Bench) -> tuple[threading.Thread, list[Any]]:
    failures: list[Any] = []

    def work() -> None:
        try:
            failures.append(bench.fail())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, failures


def was_told(failures: list[Any]) -> None:
    (failure,) = failures
    assert getattr(failure, "exit_code", failure) == 1
    assert failure.hint
    assert "defect in Syncline" not in failure.hint
    assert "database" in failure.message or "SQLSTATE 57P01" in failure.message or "connection" in failure.message


@pytest.mark.parametrize("step", STEPS)
def test_all_sessions_of_a_run_are_ended(bench: Bench, step: str) -> None:
    """Where the database ends every session of a run, it fails with one message, and the next run converges."""
    prepare(bench)
    before = bench.current()
    with stopped_in(bench, step) as wait:
        thread, failures = run_in_thread(bench)
        wait()
        bench.terminate("(application_name like 'syncline%%' or application_name = 'dbt')")
        bench.api.go_on()
        thread.join(60)
        assert not thread.is_alive()
    assert bench.current() == before
    was_told(failures)
    converge(bench)
    assert bench.runs()[-2]["status"] in {"abandoned", "failed"}


def test_a_run_that_ends_while_it_is_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at a run's claim in the moment of its end does not take it for lost."""
    monkeypatch.setattr(interruption, "LOOK_SECONDS", 0.0)
    for _ in range(10):
        bench.sync(steps=("load",))


@pytest.mark.parametrize(
    ("step", "session"),
    [("load", "query ilike 'copy%%'"), ("build", "application_name = 'dbt'"), ("check", "application_name = 'dbt'")],
)
def test_one_session_of_a_run_is_ended(bench: Bench, step: str, session: str) -> None:
    """Where the session that does the work is ended, the run notes that it failed, and next shows current again."""
    prepare(bench)
    before = bench.state()
    with stopped_in(bench, step) as wait:
        thread, failures = run_in_thread(bench)
        wait()
        assert bench.terminate(session)
        bench.api.go_on()
        thread.join(60)
        assert not thread.is_alive()
    was_told(failures)
    after = bench.state()
    assert (after["current"], after["next"], after["builds"]) == (before["current"], before["next"], before["builds"])
    assert bench.runs()[-1]["status"] == "failed"
    converge(bench)


# A server of one's own


class Own:
    """A project whose database is its own embedded server, and an API of 20,000 people."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.api = Api(TOKEN)
        self.api.page_size = 2_000
        self.api.records["people"] = people(20_000)
        root.mkdir(exist_ok=True)
        arguments = [sys.executable, "-m", "syncline", "init", str(root)]
        subprocess.run(arguments, check=True, capture_output=True)
        models = root / "dbt_project" / "models"
        (models / "people.sql").write_text(PEOPLE)
        (models / "sources.yml").write_text(SOURCES.split("  - name: files")[0])
        (root / ".env").write_text(f"SHOP_API_URL={self.api.url}\nSHOP_API_TOKEN={TOKEN}\n")

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "syncline", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.root, env=self.environment, **pipes)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def sync(self) -> dict[str, Any]:
        ended = self.cli("run", "--json")
        assert ended.returncode == 0, ended.stderr
        report: dict[str, Any] = json.loads(ended.stdout)
        return report

    def read(self, query: str) -> list[Any]:
        with psycopg.connect(embedded.ensure_running(self.root)) as connection:
            return connection.execute(query).fetchall()  # type: ignore[arg-type]

    def close(self) -> None:
        embedded.stop(self.root)
        self.api.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    made = Own(tmp_path / "own project")
    yield made
    made.close()


def names(own: Own) -> list[Any]:
    return own.read("select count(*), count(distinct person_id), min(name), max(name) from people_current")


def test_the_server_is_killed(own: Own) -> None:
    """A server killed with -9 in the middle of a load: the run says so, and the next one starts it and converges."""
    own.sync()
    own.api.records["people"] = people(20_000, name="new")
    own.api.stall_at(6)
    process = own.start("run")
    wait_for(own.api.is_stalled)
    data = own.root / ".syncline" / "postgres" / "data"
    os.kill(int((data / "postmaster.pid").read_text().split("\n")[0]), signal.SIGKILL)
    time.sleep(0.2)
    own.api.go_on()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "error: " in err
    assert "  try: " in err
    assert "Traceback" not in err
    own.api.answer = own.api.serve
    report = own.sync()
    assert names(own) == [(20_000, 20_000, "new", "new")]
    assert report["entities"]["people"]["updated"] == 20_000
    assert json.loads(own.cli("verify", "--json").stdout)["problems"] == {}
    assert [run["status"] for run in json.loads(own.cli("runs", "--json").stdout)["runs"]][1] == "abandoned"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a disk of this size on the folder."""
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    arguments = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
    mounted = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path, but_bytes: int) -> Path:
    """Fill the disk up to so many bytes."""
    file = disk / "filler"
    left = shutil.disk_usage(disk).free - but_bytes
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, left)
    return file


def test_the_disk_is_full(tmp_path: Path) -> None:
    """With no room for the records, or for a version, the run says so; with room again the next one converges."""
    disk = tmp_path / "small disk"
    with small_disk(disk, 400):
        own = Own(disk)
        try:
            own.sync()
            own.api.records["people"] = people(20_000, name="n" * 200)
            for step in ("load", "build"):
                # A server needs a little to note an error and to go on; what the step needs is more.
                filler = fill(disk, 2_000_000)
                ended = own.cli("run", "--json")
                assert ended.returncode == 1, ended.stderr
                assert ended.stderr.count("error: ") == 1
                assert "Traceback" not in ended.stderr
                assert "disk" in ended.stderr.lower() or "space" in ended.stderr.lower(), ended.stderr
                assert "  try: " in ended.stderr
                filler.unlink()
                assert names(own) == [(20_000, 20_000, "name 1", "name 9999")]
                if step == "load":
                    assert own.cli("load").returncode == 0
            own.sync()
            assert names(own) == [(20_000, 20_000, "n" * 200, "n" * 200)]
            assert json.loads(own.cli("verify", "--json").stdout)["problems"] == {}
        finally:
            (disk / "filler").unlink(missing_ok=True)
            own.close()
