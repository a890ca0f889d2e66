"""Plays the personnel system's API: one generation of its records, as JSON pages behind a bearer token."""

from __future__ import annotations

import argparse
import hmac
import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from records import generation


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in two packets, of which Nagle's algorithm would hold the second for 40 ms.
    disable_nagle_algorithm = True
    server: PersonnelServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        given = self.headers.get("Authorization", "")
        page, size = query.get("page", "1"), query.get("per_page", "50")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            self.answer(401, {"error": "a valid bearer token is needed"})
        elif url.path not in self.server.content:
            self.answer(404, {"error": f"there is no {url.path}"})
        elif not (page.isdecimal() and size.isdecimal() and int(page) and 1 <= int(size) <= 500):
            self.answer(400, {"error": "page is a number from 1, per_page one from 1 to 500"})
        else:
            self.answer_page(self.server.content[url.path], int(page), int(size))

    def answer_page(self, records: list[dict[str, Any]], page: int, size: int) -> None:
        pages = -(-len(records) // size)
        self.answer(200, {"data": records[(page - 1) * size : page * size], "page": page, "total_pages": pages})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the parameter's name in the base class)
        """Say nothing: the output is that of whoever starts the server."""


class PersonnelServer(ThreadingHTTPServer):
    # All streams connect at the same moment; with the usual five places in the queue, some would wait a second.
    request_queue_size = 64

    def __init__(self, port: int, token: str, number: int) -> None:
        self.token, self.content = token, generation(number)
        super().__init__(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--token", required=True, help="the bearer token that clients must send")
    parser.add_argument("--generation", type=int, default=1, help="the generation to serve, from 1")
    arguments = parser.parse_args()
    with PersonnelServer(arguments.port, arguments.token, arguments.generation) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
