"""Serves the API: listens, tells where, and stops when told to, with what is under way brought to an end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from syncline.errors import ConfigurationError

GRACE_SECONDS = 30
"""So long requests may go on once the server is to stop."""


def serve(
    app: FastAPI,
    host: str,
    port: int,
    *,
    forwarded_allow_ips: str | None = None,
    started: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the app until SIGTERM or SIGINT; `started` is called with the address.

    Headers of a proxy at one of `forwarded_allow_ips` are believed. Raises ConfigurationError where the address cannot
    be had.
    """
    with _listen(host, port) as listening:
        config = uvicorn.Config(
            app,
            # Ours is the log: a line for each request, and no more of it than that.
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=forwarded_allow_ips is not None,
            forwarded_allow_ips=forwarded_allow_ips,
            timeout_graceful_shutdown=GRACE_SECONDS,
            lifespan="on",
        )
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listening.getsockname()[1]}")
        _Server(config, app).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        made = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
        # Else the body waits 40 ms for the headers to be acknowledged; what is accepted inherits it.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        # Python adds the address once more.
        why = (error.strerror or str(error)).partition(" (while")[0]
        raise ConfigurationError(
            f"the API cannot listen on {host}, port {port}: {why}", "Choose another --host or --port."
        ) from None
    return made


class _Server(uvicorn.Server):
    """Ends with exit code 0 when it is told to stop, and tells those that follow a run."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._state = app.state.syncline

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._state.stop(GRACE_SECONDS)
        # Told twice, it waits for nobody.
        self.force_exit = self.should_exit
        self.should_exit = True
