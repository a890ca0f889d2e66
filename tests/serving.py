"""The HTTP API of a test's project, in this process or as `syncline serve` runs it."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from syncline import db, tokens
from syncline.api.app import create_app
from syncline.api.settings import ApiSettings
from syncline.api.state import State
from syncline.config import read_project
from syncline.migrate import migrate
from tests.driver import Driver
from tests.projects import Bench

KEY = "k3y-that-must-not-show"
"""SYNCLINE_SECRET_KEY of every API here."""


class Client(httpx.Client):
    """Asks an API on loopback. `state` is what its requests share, in this process; `process` is another one."""

    state: State
    process: subprocess.Popen[str]

    def __init__(self, url: str, *, as_admin: bool = True) -> None:
        super().__init__(base_url=url, headers=bearer(KEY) if as_admin else {}, timeout=60)
        self.url = url

    def connect(self) -> socket.socket:
        """Return a bare connection to the server."""
        return socket.create_connection((self.base_url.host, self.base_url.port or 80))


@contextmanager
def in_process(
    place: Bench | Driver, *, dsn: str | None = None, as_admin: bool = True, **settings: Any
) -> Iterator[Client]:
    """Yield a client of the API, served by a thread of this process; its limits are off but where settings say so.

    It is over the place's database, which knows the project's streams by then, or over that of `dsn`.
    """
    project = read_project(place.root)
    with db.connect(place.dsn) as connection:
        migrate(connection, project)
    given = {"secret_key": KEY, "rate_limit": 0, "failure_limit": 0} | settings
    app = create_app(project, dsn or place.dsn, ApiSettings(**given))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{listening.getsockname()[1]}", as_admin=as_admin) as client:
                client.state = app.state.syncline
                _wait(client)
                yield client
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def serving(bench: Bench, *arguments: str, **environment: str) -> Iterator[Client]:
    """Yield a client of `syncline serve` on a free port; it is told to stop at last, and has to end well."""
    settings = {"SYNCLINE_SECRET_KEY": KEY, "SYNCLINE_RATE_LIMIT": "0", "SYNCLINE_LOG_LEVEL": "warning"}
    process = subprocess.Popen(
        bench.command("serve", "--port", "0", "--json", *arguments),
        cwd=bench.root,
        env=bench.environment | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        with Client(json.loads(line)["url"]) as client:
            client.process = process
            _wait(client)
            yield client
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def token(bench: Bench, role: tokens.Role) -> dict[str, str]:
    """Make a token of that role; return the headers that show it."""
    with db.connect(bench.dsn) as connection:
        return bearer(tokens.create_token(connection, f"the-{role}", role).token)


def _wait(client: httpx.Client) -> None:
    # It listens before it answers: the kernel keeps the question until then.
    client.get("/healthz").raise_for_status()
