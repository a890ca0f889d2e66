"""A real PgBouncer in front of a test's server, in the mode that a test wants."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def pooled(dsn: str, mode: str, *, ignores_options: bool) -> Iterator[str]:
    """Start PgBouncer in this pool mode; yield the connection string that leads through it."""
    assert PROGRAM is not None
    given = conninfo_to_dict(dsn)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = " ".join(f"{key}={given[key]}" for key in ("host", "port", "dbname", "user") if given.get(key))
        password = f" password={given['password']}" if given.get("password") else ""
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\npooled = {server}{password}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"auth_type = any\npool_mode = {mode}\nunix_socket_dir =\ndefault_pool_size = 5\nquery_wait_timeout = 10\n"
            f"ignore_startup_parameters = extra_float_digits{', options' if ignores_options else ''}\n"
        )
        command = [PROGRAM, str(folder / "pgbouncer.ini")]
        if os.geteuid() == 0:
            # It refuses to run as root.
            folder.chmod(0o755)
            command = [PROGRAM, "-u", "nobody", str(folder / "pgbouncer.ini")]
        with (folder / "log").open("wb") as log, _reachable(Path(str(given.get("host") or "localhost"))):
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                _wait_for(port, process, folder / "log")
                yield make_conninfo(host="127.0.0.1", port=port, dbname="pooled", user=given.get("user") or "postgres")
            finally:
                process.terminate()
                process.wait(timeout=10)


@contextmanager
def _reachable(sockets: Path) -> Iterator[None]:
    """Let another user pass through the folder of the server's socket for as long as this lasts."""
    if not sockets.is_absolute() or os.geteuid() != 0:
        yield
        return
    mode = sockets.stat().st_mode
    sockets.chmod(mode | 0o011)
    try:
        yield
    finally:
        sockets.chmod(mode)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise psycopg.OperationalError(f"PgBouncer did not start: {log.read_text()}")
