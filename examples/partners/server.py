"""Plays Google Sheets and a CRM's API on one port: one generation of what an agency has in them."""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import re
import secrets
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from records import generation

SPREADSHEET = "partners-2026"
ACCOUNT = "sync@agency.example.com"
CELLS = re.compile(r"'(.+)'!([A-Z])(\d+):([A-Z]?)(\d+)")

Answer = tuple[int, dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in two packets, of which Nagle's algorithm would hold the second for 40 ms.
    disable_nagle_algorithm = True
    server: PartnersServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(
            *(self.server.exchange(body) if self.path == "/token" else (404, {"error": f"there is no {self.path}"}))
        )

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        is_sheet = path.startswith("/v4/spreadsheets/")
        token = self.server.sheet_token if is_sheet else self.server.token
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            self.answer(401, {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no valid token"}})
        elif is_sheet:
            self.answer(*self.server.read_sheet(path.removeprefix("/v4/spreadsheets/"), query))
        else:
            self.answer(*self.server.read_crm(path, query))

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the parameter's name in the base class)
        """Say nothing: the output is that of whoever starts the server."""


class PartnersServer(ThreadingHTTPServer):
    # All streams connect at the same moment; with the usual five places in the queue, some would wait a second.
    request_queue_size = 64

    def __init__(self, port: int, token: str, number: int) -> None:
        self.token, self.sheet_token = token, secrets.token_urlsafe()
        self.tabs, self.records = generation(number)
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def credentials(self) -> str:
        """Return the key of the service account that the sheet is shared with, as Google gives it."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return json.dumps(
            {
                "type": "service_account",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": ACCOUNT,
                "token_uri": f"{self.url}/token",
            }
        )

    def exchange(self, body: bytes) -> Answer:
        """Give a token for an assertion that the account's key has signed."""
        head, claims, signature = parse_qs(body.decode())["assertion"][0].split(".")
        try:
            signed = f"{head}.{claims}".encode()
            self.key.public_key().verify(_decoded(signature), signed, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": self.sheet_token, "expires_in": 3600, "token_type": "Bearer"}

    def read_sheet(self, path: str, query: dict[str, list[str]]) -> Answer:
        if path == SPREADSHEET:
            return 200, {"sheets": [{"properties": _properties(title, rows)} for title, rows in self.tabs.items()]}
        if path != f"{SPREADSHEET}/values:batchGet":
            return 404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "no such spreadsheet"}}
        found = [self.cells(text) for text in query["ranges"]]
        return 200, {"valueRanges": [{"values": rows} for rows in found]}

    def cells(self, text: str) -> list[list[str]]:
        """Return the rows of a range such as 'Team'!A2:E9."""
        match = CELLS.fullmatch(text)
        assert match
        title, left, top, right, bottom = match.groups()
        last = ord(right or "Z") - 64
        return [row[ord(left) - 65 : last] for row in self.tabs[title][int(top) - 1 : int(bottom)]]

    def read_crm(self, path: str, query: dict[str, list[str]]) -> Answer:
        if path not in self.records:
            return 404, {"error": f"there is no {path}"}
        page, size = int(query.get("page", ["1"])[0]), 100
        records = self.records[path]
        return 200, {
            "data": records[(page - 1) * size : page * size],
            "page": page,
            "total_pages": -(-len(records) // size),
        }


def _properties(title: str, rows: list[list[str]]) -> dict[str, Any]:
    grid = {"rowCount": len(rows), "columnCount": len(rows[0])}
    return {"title": title, "sheetType": "GRID", "gridProperties": grid}


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--token", required=True, help="the bearer token that the CRM's clients must send")
    parser.add_argument("--key-file", type=Path, required=True, help="where to write the service account's key")
    parser.add_argument("--generation", type=int, default=1, help="the generation to serve, from 1")
    arguments = parser.parse_args()
    with PartnersServer(arguments.port, arguments.token, arguments.generation) as server:
        arguments.key_file.touch(mode=0o600)
        arguments.key_file.write_text(server.credentials(), encoding="utf-8")
        print(f"listening on {server.url}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
