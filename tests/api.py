"""A small API on loopback: pages of JSON records behind a token, whose behaviour a test switches."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Reply:
    """`body` bytes are sent as they are; `length` is what Content-Length says where it is not the truth."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


Answer = Callable[[str, int], Reply]
"""What a path's page, counted from 1, is answered with."""


class Api:
    """Serves `records[path]` page by page; `answer` says otherwise where a test replaces it."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.records: dict[str, list[Any]] = {}
        self.page_size = 20
        self.answer: Answer = self.serve
        self.is_stalled = threading.Event()
        self._go_on = threading.Event()
        self._start(0)

    def reset(self) -> None:
        """Forget records and faults; what is stalled goes on."""
        self._go_on.set()
        self.records, self.page_size, self.answer = {}, 20, self.serve
        self.is_stalled.clear()

    def serve(self, path: str, page: int) -> Reply:
        """Answer as an API in good health does; records that are bytes or text are sent as they are."""
        if path not in self.records:
            return Reply({"error": "not found"}, 404)
        records = self.records[path]
        raws = [
            record
            if isinstance(record, bytes)
            else record.encode()
            if isinstance(record, str)
            else json.dumps(record).encode()
            for record in records[(page - 1) * self.page_size : page * self.page_size]
        ]
        pages = -(-len(records) // self.page_size)
        return Reply(b'{"data": [' + b",".join(raws) + b'], "total_pages": %d}' % pages)

    def stall_at(self, page: int) -> None:
        """Let each request for this page wait until `go_on` is called; `is_stalled` is set once one waits."""
        self._go_on.clear()

        def answer(path: str, wanted: int) -> Reply:
            if wanted == page:
                self.is_stalled.set()
                self._go_on.wait(60)
            return self.serve(path, wanted)

        self.answer = answer

    def go_on(self) -> None:
        self._go_on.set()

    def shut(self) -> None:
        """Stop to listen: connections are refused from then on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reopen(self) -> None:
        """Listen again at the same address."""
        self._start(self._server.server_port)

    def close(self) -> None:
        self._go_on.set()
        self.shut()

    def _start(self, port: int) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                page = int(parse_qs(url.query).get("page", ["1"])[-1])
                if self.headers.get("Authorization") != f"Bearer {api.token}":
                    self.reply(Reply({"error": "unauthorized"}, 401))
                else:
                    self.reply(api.answer(url.path.strip("/"), page))

            def reply(self, reply: Reply) -> None:
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if reply.length is None else reply.length))
                self.end_headers()
                # A client that was killed has hung up.
                with suppress(OSError):
                    self.wfile.write(body)
                self.close_connection = reply.length is not None

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
