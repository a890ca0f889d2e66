"""The API for tests: behind a real server on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from syncline.api.app import create_app
from syncline.api.settings import ApiSettings
from tests.driver import Driver

SECRET_KEY = "k3y-that-must-not-show"


def make_app(driver: Driver, **settings: Any) -> FastAPI:
    """The app over the driver's project and database; settings are over a secret key and no limit of failures."""
    return create_app(
        driver.project, driver.dsn, ApiSettings(**({"secret_key": SECRET_KEY, "failure_limit": 0} | settings))
    )


@contextmanager
def serving(app: FastAPI) -> Iterator[tuple[str, int]]:
    """The app behind a real server on loopback; gives host and port."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < until, "the server never came up"
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield host, port
    finally:
        server.should_exit = True
        thread.join(20)


class Client(httpx.Client):
    """A client of the app behind a real server on loopback."""

    def __init__(self, app: FastAPI, address: tuple[str, int]) -> None:
        super().__init__(base_url="http://{}:{}".format(*address), timeout=30)
        self.app = app


@contextmanager
def client(driver: Driver, **settings: Any) -> Iterator[Client]:
    """A client of the app with these settings."""
    app = make_app(driver, **settings)
    with serving(app) as address, Client(app, address) as opened:
        yield opened
