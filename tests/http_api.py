"""A server on loopback that answers as a test says, and the HTTP connector that reads from it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from syncline.config import Stream, StreamSettings, convert
from syncline.connectors import Context, Fetch, Page
from syncline.connectors.http.connector import HttpConnector, HttpSource, HttpStream
from syncline.errors import SourceError

SECRET = "s3cr3t-t0ken"
STREAM = Stream("agency", "talents", ("id",), StreamSettings(key="id"), {}, Path("sources.yml"))


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """What Content-Length says, where it is not the truth; -1: a chunk is sent, and no last one."""
    trickle: float = 0
    """Seconds before each byte."""


Answer = Callable[[Request], Reply]


class Api:
    """A server that answers as `answer` says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Answer = lambda request: Reply([])
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, url.path, query, headers, body)
                api.requests.append(request)
                self.reply(api.answer(request))

            def do_POST(self) -> None:
                self.do_GET()

            def reply(self, reply: Reply) -> None:
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response_only(reply.status)
                self.send_header("Date", reply.headers.pop("Date", self.date_time_string()))
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                if reply.length == -1:
                    body = b"%x\r\n%b\r\n" % (len(body), body)
                else:
                    self.send_header("Content-Length", str(len(body) if reply.length is None else reply.length))
                self.end_headers()
                for part in [body[at : at + 1] for at in range(len(body))] if reply.trickle else [body]:
                    time.sleep(reply.trickle)
                    self.wfile.write(part)
                self.close_connection = reply.length is not None

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # Clients that hang up are what some tests are about.
        self.server.handle_error = lambda *args: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def read_pages(
        self, stream: dict[str, Any] | None = None, cursor: dict[str, Any] | None = None, **source: Any
    ) -> list[Page]:
        defaults = {"base_url": f"{self.url}/v1", "backoff": 0.001, "timeout": 5}
        connector = HttpConnector(convert({**defaults, **source}, HttpSource, "source agency"), Context(Path()))
        try:
            return self.read_with(connector, stream, cursor)
        finally:
            connector.close()

    def read_with(
        self, connector: HttpConnector, stream: dict[str, Any] | None = None, cursor: dict[str, Any] | None = None
    ) -> list[Page]:
        shape = convert({"path": "/talents", **(stream or {})}, HttpStream, "stream agency.talents")
        return list(connector.read(Fetch(stream=STREAM, settings=shape, cursor=cursor)))

    def read(self, stream: dict[str, Any] | None = None, **source: Any) -> list[bytes]:
        return [record for page in self.read_pages(stream, **source) for record in page.records]

    def fail(self, stream: dict[str, Any] | None = None, **source: Any) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.read(stream, **source)
        assert caught.value.message.startswith("agency.talents: ")
        assert SECRET not in f"{caught.value.message} {caught.value.hint}"
        return caught.value


def ids(records: list[bytes]) -> list[int]:
    return [json.loads(record)["id"] for record in records]


def rows(first: int, last: int) -> list[dict[str, int]]:
    return [{"id": number} for number in range(first, last + 1)]
