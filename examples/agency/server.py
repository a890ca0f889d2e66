"""Plays the agency's API: one generation of its records, as JSON pages behind a bearer token."""

from __future__ import annotations

import argparse
import hmac
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from records import Record, generation


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in two packets, of which Nagle's algorithm would hold the second for 40 ms.
    disable_nagle_algorithm = True
    server: AgencyServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self.answer(200, {"status": "ok", "generation": self.server.generation})
        elif not self.is_authorized():
            self.answer(401, {"error": "a valid bearer token is needed"}, {"WWW-Authenticate": "Bearer"})
        elif url.path.strip("/") not in self.server.content:
            self.answer(
                404, {"error": f"there is no {url.path}", "endpoints": [f"/{name}" for name in self.server.content]}
            )
        else:
            self.answer_page(self.server.content[url.path.strip("/")], parse_qs(url.query))

    def is_authorized(self) -> bool:
        given = self.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode())

    def answer_page(self, records: list[Record], query: dict[str, list[str]]) -> None:
        try:
            page, size = int(query.get("page", ["1"])[-1]), int(query.get("per_page", ["50"])[-1])
        except ValueError:
            page = size = 0
        if page < 1 or not 1 <= size <= 500:
            self.answer(400, {"error": "page is a number from 1, per_page one from 1 to 500"})
            return
        if self.server.touches and page == 1 and records is self.server.content["talents"]:
            records[0]["dayRate"] += 1
        data = records[(page - 1) * size : page * size]
        self.answer(200, {"data": data, "page": page, "total_pages": -(-len(records) // size), "total": len(records)})

    def answer(self, status: int, content: Record, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the parameter's name in the base class)
        """Say nothing: whoever starts the server reads one line, and an unread pipe fills up."""


class AgencyServer(ThreadingHTTPServer):
    # All streams connect at the same moment; with the usual five places in the queue, some would wait a second.
    request_queue_size = 64

    def __init__(self, port: int, token: str, number: int, *, touches: bool = False) -> None:
        self.touches = touches
        self.token, self.generation, self.content = token, number, generation(number)
        super().__init__(("127.0.0.1", port), Handler)


def next_generation(state: Path | None) -> int:
    if state is None or not state.exists():
        return 1
    return int(state.read_text(encoding="utf-8")) + 1


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="?", choices=("serve", "dump"), default="serve")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--token", help="the bearer token that clients must send")
    parser.add_argument("--generation", type=int, help="the generation to serve, from 1")
    parser.add_argument("--state", type=Path, help="remembers the generation: each start serves the next one")
    parser.add_argument("--touch", action="store_true", help="change one talent whenever they are read")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that holds the pipe")
    arguments = parser.parse_args()
    if arguments.command == "serve" and not arguments.token:
        parser.error("serve needs --token")
    if arguments.generation is None:
        arguments.generation = next_generation(arguments.state)
    if arguments.generation < 1:
        parser.error("--generation starts at 1")
    return arguments


def await_end_of_stdin(server: AgencyServer) -> None:
    # Not through sys.stdin: a thread blocked in there holds a lock that the interpreter wants when it ends.
    while os.read(0, 4096):
        pass
    server.shutdown()


def main() -> None:
    arguments = read_arguments()
    if arguments.command == "dump":
        json.dump(generation(arguments.generation), sys.stdout, ensure_ascii=False, indent=2)
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with AgencyServer(arguments.port, arguments.token, arguments.generation, touches=arguments.touch) as server:
        if arguments.state:
            arguments.state.write_text(f"{arguments.generation}\n", encoding="utf-8")
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        if arguments.until_stdin_closes:
            threading.Thread(target=await_end_of_stdin, args=(server,), daemon=True).start()
        server.serve_forever()


if __name__ == "__main__":
    main()
