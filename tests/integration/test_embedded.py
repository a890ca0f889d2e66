"""The embedded server: started where there is none, shared, kept private, recovered after every accident."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from syncline import embedded
from syncline.errors import ConfigurationError, SynclineError

START = """
import sys
from pathlib import Path
from syncline import embedded
print(embedded.ensure_running(Path(sys.argv[1])))
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
DAC_OVERRIDE = 1 << 1


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    made = []

    def make(name: str) -> Path:
        project = tmp_path / name
        project.mkdir(exist_ok=True)
        made.append(project)
        return project

    yield make
    for project in made:
        if project.exists():
            embedded.stop(project)


@pytest.fixture
def project(make_project: Callable[[str], Path]) -> Path:
    return make_project("my $HOME project")


@pytest.fixture
def open_project() -> Iterator[Path]:
    """Make a project that every user can enter: pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        embedded.stop(folder)


def data_folder(project: Path) -> Path:
    return project / ".syncline" / "postgres" / "data"


def postmaster(project: Path) -> int:
    return int((data_folder(project) / "postmaster.pid").read_text().split("\n")[0])


def kill(project: Path) -> int:
    pid = postmaster(project)
    os.kill(pid, signal.SIGKILL)
    while has_program(pid):
        time.sleep(0.01)
    return pid


def has_program(pid: int) -> bool:
    # Only a zombie has closed its sockets: the command line is gone a moment before.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def capabilities(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapEff")), 16)


def socket_folder(dsn: str) -> Path:
    return Path(str(conninfo_to_dict(dsn)["host"]))


def write_mark(dsn: str, mark: int = 1) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("create table if not exists marks (mark int)")
        connection.execute("insert into marks values (%s)", [mark])


def read_marks(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("select mark from marks order by mark")]


def test_data_survives_a_stop(project: Path) -> None:
    """A path with a space and a dollar works, and what was written is there after the next start."""
    write_mark(embedded.ensure_running(project))
    assert embedded.is_running(project)
    assert embedded.stop(project)
    assert not embedded.is_running(project)
    assert not embedded.stop(project)
    assert read_marks(embedded.ensure_running(project)) == [1]


def test_settings(project: Path) -> None:
    """The server has no network port, is in UTF-8 and UTC, syncs, and keeps the words of errors out of its log."""
    dsn = embedded.ensure_running(project)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, value in {**embedded.SETTINGS, "fsync": "on", "server_encoding": "UTF8"}.items():
            assert connection.execute("select current_setting(%s)", [name]).fetchone() == (value,)
        assert connection.execute("select upper('é'), 'B' < 'a'").fetchone() == ("É", True)
        with pytest.raises(psycopg.Error):
            connection.execute("select 'secret-value'::int")
    assert "secret-value" not in (data_folder(project).parent / "log").read_text()


def test_what_is_made_by_hand_is_public(project: Path) -> None:
    """A table made without a schema is none of the control plane's."""
    with psycopg.connect(embedded.ensure_running(project)) as connection:
        connection.execute("create schema syncline")
        connection.execute("create table mine ()")
        found = connection.execute("select relnamespace::regnamespace::text from pg_class where relname = 'mine'")
        assert found.fetchone() == ("public",)


def test_psql_connects(project: Path) -> None:
    """The shipped psql takes the connection string, whatever the environment says."""
    command = [str(embedded.binary("psql")), "-XAt", "-c", "select current_user", embedded.ensure_running(project)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PGPORT": "1"})
    assert result.stdout == "syncline\n"


def test_a_missing_program_is_named() -> None:
    """A program that does not ship is a configuration error with its name."""
    with pytest.raises(ConfigurationError, match="no pg_nothing"):
        embedded.binary("pg_nothing")


def test_two_processes_share_a_server(project: Path) -> None:
    """Two first starts at once end with one server."""
    command = [sys.executable, "-c", START, str(project)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert answers == {embedded.ensure_running(project)}


def test_a_command_does_not_hang(project: Path) -> None:
    """A command's output ends with the command, and its terminal's Ctrl-C is not the server's."""
    result = subprocess.run(
        [sys.executable, "-c", START, str(project)], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == embedded.ensure_running(project)
    assert os.getsid(postmaster(project)) == postmaster(project)


def test_a_killed_server_recovers(project: Path) -> None:
    """A server killed with its children at work, its pid file stale, is started again with what was committed."""
    dsn = embedded.ensure_running(project)
    write_mark(dsn)
    with psycopg.connect(dsn) as connection:
        killed = kill(project)
        assert read_marks(embedded.ensure_running(project)) == [1]
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert postmaster(project) != killed


def test_a_reused_process_id(project: Path) -> None:
    """The pid files of a killed server may name a process that is somebody else's by now: it is left alone."""
    dsn = embedded.ensure_running(project)
    write_mark(dsn)
    killed = str(kill(project))
    user = data_folder(project).stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "60"], user=user) as other:
        for file in (data_folder(project) / "postmaster.pid", socket_folder(dsn) / ".s.PGSQL.5432.lock"):
            file.write_text(file.read_text().replace(killed, str(other.pid), 1))
        assert not embedded.is_running(project)
        assert read_marks(embedded.ensure_running(project)) == [1]
        assert other.poll() is None
        other.kill()


def test_a_half_made_folder(project: Path) -> None:
    """An initialisation that was cut off is made anew."""
    half = data_folder(project).with_name("data.new")
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    write_mark(embedded.ensure_running(project))
    assert not half.exists()


@pytest.mark.parametrize("taken_by", ["file", "link", "open folder"])
def test_the_socket_folder_is_taken(project: Path, tmp_path: Path, taken_by: str) -> None:
    """Where the socket's folder is not ours and private, another one is used."""
    folder = socket_folder(embedded.ensure_running(project))
    embedded.stop(project)
    assert not folder.exists()
    if taken_by == "file":
        folder.touch()
    elif taken_by == "link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    try:
        dsn = embedded.ensure_running(project)
        write_mark(dsn)
        assert socket_folder(dsn) != folder
        assert socket_folder(dsn).stat().st_mode & 0o777 == 0o700
        assert embedded.ensure_running(project) == dsn
    finally:
        shutil.rmtree(folder) if taken_by == "open folder" else folder.unlink()


def test_the_socket_folder_is_deleted(project: Path) -> None:
    """A server that lost its socket is started again."""
    dsn = embedded.ensure_running(project)
    write_mark(dsn)
    shutil.rmtree(socket_folder(dsn))
    assert read_marks(embedded.ensure_running(project)) == [1]


def test_a_copy_is_not_the_original(project: Path, make_project: Callable[[str], Path]) -> None:
    """A copy made while the original runs gets a server of its own, and stopping it leaves the original alone."""
    original = embedded.ensure_running(project)
    write_mark(original)
    copied = make_project("copy")
    shutil.copytree(project, copied, dirs_exist_ok=True)
    assert not embedded.is_running(copied)
    assert not embedded.stop(copied)
    dsn = embedded.ensure_running(copied)
    assert dsn != original
    write_mark(dsn, 2)
    assert (read_marks(original), read_marks(dsn)) == ([1], [1, 2])
    assert embedded.stop(copied)
    assert embedded.is_running(project)


def test_a_folder_is_moved(project: Path, make_project: Callable[[str], Path]) -> None:
    """A project moved while its server runs gets a new one on the same data; the old one ends first."""
    write_mark(embedded.ensure_running(project))
    old = postmaster(project)
    moved = make_project("moved")
    project.rename(moved)
    assert read_marks(embedded.ensure_running(moved)) == [1]
    assert postmaster(moved) != old
    assert not has_program(old)


def test_another_major_version(project: Path) -> None:
    """Data of another major version is not touched; the error says how to save it."""
    embedded.ensure_running(project)
    embedded.stop(project)
    (data_folder(project) / "PG_VERSION").write_text("17\n")
    with pytest.raises(ConfigurationError, match="made by Postgres 17") as caught:
        embedded.ensure_running(project)
    assert "pg_dump" in str(caught.value.hint)


def test_a_failed_start_shows_the_log(project: Path) -> None:
    """A server that does not start says why."""
    embedded.ensure_running(project)
    embedded.stop(project)
    with (data_folder(project) / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(SynclineError, match="no_such_setting"):
        embedded.ensure_running(project)


def test_parent_folders_are_left_alone(project: Path) -> None:
    """No folder above the server's own is opened to anyone, and the server's own is closed."""
    parents = [project, *project.parents]
    before = [(folder.stat().st_mode, folder.stat().st_uid) for folder in parents]
    dsn = embedded.ensure_running(project)
    assert [(folder.stat().st_mode, folder.stat().st_uid) for folder in parents] == before
    for folder in (data_folder(project), data_folder(project).parent, socket_folder(dsn)):
        assert folder.stat().st_mode & 0o777 == 0o700


@as_root
def test_a_closed_folder_of_root(project: Path) -> None:
    """In a folder that only root enters, the server gets one capability, and only root gets to the server."""
    project.chmod(0o700)
    dsn = embedded.ensure_running(project)
    pid = postmaster(project)
    assert Path(f"/proc/{pid}").stat().st_uid != 0
    assert capabilities(pid) == DAC_OVERRIDE
    for folder in (data_folder(project).parent, socket_folder(dsn)):
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (0, 0o700)


@as_root
def test_an_open_folder_of_root(open_project: Path) -> None:
    """Where an unprivileged user gets to the project, the server has no capability, and its files are that user's."""
    dsn = embedded.ensure_running(open_project)
    pid = postmaster(open_project)
    owner = Path(f"/proc/{pid}").stat().st_uid
    assert owner != 0
    assert capabilities(pid) == 0
    for file in (data_folder(open_project), data_folder(open_project).with_name("log"), socket_folder(dsn)):
        assert file.stat().st_uid == owner
