"""The API of a bench's project, in this process or as `syncline serve` runs it."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from syncline import db, tokens
from syncline.api.app import create_app
from syncline.api.settings import ApiSettings
from syncline.api.state import State
from syncline.config import read_project
from tests.projects import Bench

KEY = "s3cret-key-of-the-tests"


class Client(httpx.Client):
    """Asks the API as an admin; `state` is what its requests share, in this process, `pid` names another one."""

    state: State
    pid: int


@contextmanager
def in_process(bench: Bench, **settings: Any) -> Iterator[Client]:
    """Yield a client of the app, served on loopback by a thread of this process, over the bench's database."""
    prepare(bench)
    given = {"secret_key": KEY, "rate_limit": 0} | settings
    app = create_app(read_project(bench.root), bench.dsn, ApiSettings(**given))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with Client(
                base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", headers=bearer(KEY), timeout=60
            ) as client:
                client.state = app.state.syncline
                wait_until_ready(client)
                yield client
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def serving(bench: Bench, *arguments: str, **environment: str) -> Iterator[Client]:
    """Yield a client, as an admin, of `syncline serve` on any free port of loopback."""
    process = start(bench, *arguments, **environment)
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        with Client(base_url=json.loads(line)["url"], headers=bearer(KEY), timeout=60) as client:
            client.pid = process.pid
            wait_until_ready(client)
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=60)


def start(bench: Bench, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    settings = {"SYNCLINE_SECRET_KEY": KEY, "SYNCLINE_RATE_LIMIT": "0", "SYNCLINE_LOG_LEVEL": "warning"}
    return subprocess.Popen(
        bench.command("serve", "--port", "0", "--json", *arguments),
        cwd=bench.root,
        env=bench.environment | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_ready(client: httpx.Client) -> None:
    # It listens before it answers: the kernel keeps the question until then.
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.text


def prepare(bench: Bench) -> None:
    """Make the project's streams known to its database."""
    assert bench.call("migrate").returncode == 0


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def token(bench: Bench, role: tokens.Role) -> Mapping[str, str]:
    """Make a token of that role; return the headers that show it."""
    with db.connect(bench.dsn) as connection:
        return bearer(tokens.create_token(connection, f"the-{role}", role).token)
