"""A local server that behaves as the Google Sheets API does, its token endpoint included."""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

EMAIL = "syncline@project.iam.gserviceaccount.com"
SPREADSHEET = "1AbC-dEf_ghI"
AUDIENCE = "https://oauth2.googleapis.com/token"
"""What google-auth signs for, whatever the key's token_uri."""
SCOPE = "https://www.googleapis.com/auth/spreadsheets.readonly"

_RANGE = re.compile(r"'((?:[^']|'')*)'!([A-Z]+)(\d+):([A-Z]*)(\d*)")


@cache
def private_key(number: int = 0) -> rsa.RSAPrivateKey:
    """The key of a service account; another number gives another."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Tab:
    """A tab's cells, row by row; a pair is a value and how it is shown, a date's value its serial number."""

    rows: list[list[Any]]
    grid_rows: int | None = None
    grid_columns: int = 26
    kind: str = "GRID"

    @property
    def row_count(self) -> int:
        return max(len(self.rows), 1) if self.grid_rows is None else self.grid_rows


@dataclass
class Request:
    path: str
    query: dict[str, list[str]]
    token: str | None


@dataclass
class Sheets:
    """One spreadsheet behind the API. `failures` are statuses and headers of the next answers of the API."""

    tabs: dict[str, Tab] = field(default_factory=dict)
    is_shared: bool = True
    is_enabled: bool = True
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    token_failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    token_uses: int | None = None
    """So many requests a token is good for."""
    requests: list[Request] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        sheets = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.answer(*sheets.exchange(self.path, body))

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
                request = Request(unquote(url.path), parse_qs(url.query), token if scheme == "Bearer" else None)
                sheets.requests.append(request)
                self.answer(*sheets.serve(request))

            def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=UTF-8")
                self.send_header("Content-Length", str(len(content)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def credentials(self, key: rsa.RSAPrivateKey | None = None) -> str:
        """The JSON text of a service account's key, with this server's token endpoint."""
        pem = (key or private_key()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "project",
                "private_key_id": "0123456789abcdef",
                "private_key": pem.decode(),
                "client_email": EMAIL,
                "client_id": "1234567890",
                # As with Google, it is on another host than the API.
                "token_uri": f"{self.url.replace('127.0.0.1', 'localhost')}/token",
            }
        )

    # the token endpoint

    def exchange(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Give a token for an assertion that the account's key has signed."""
        if self.token_failures:
            status, headers = self.token_failures.pop(0)
            return status, {"error": "temporarily_unavailable"}, headers
        form = parse_qs(body.decode())
        refusal = self._judge(path, form)
        if refusal:
            self.refusals.append(refusal)
            return 400, {"error": "invalid_grant", "error_description": refusal}, {}
        token = f"ya29.token-{len(self.tokens) + 1}"
        self.tokens[token] = 0
        return 200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}, {}

    def _judge(self, path: str, form: dict[str, list[str]]) -> str | None:
        if path != "/token" or form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"]:
            return "unsupported grant"
        head, claims, signature = form["assertion"][0].split(".")
        try:
            private_key().public_key().verify(
                _decode(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            return "Invalid JWT Signature."
        said = json.loads(_decode(claims))
        if said["iss"] != EMAIL or said["aud"] != AUDIENCE or said["scope"] != SCOPE:
            return "Invalid JWT: issuer, audience or scope"
        return None if said["iat"] <= time.time() + 60 and said["exp"] > time.time() else "Invalid JWT: time frame"

    # the API

    def serve(self, request: Request) -> tuple[int, Any, dict[str, str]]:
        if self.failures:
            status, headers = self.failures.pop(0)
            return status, _error(status, "UNAVAILABLE"), headers
        if not self._is_good(request.token):
            return 401, _error(401, "UNAUTHENTICATED"), {}
        if not self.is_enabled:
            return 403, _error(403, "PERMISSION_DENIED", "SERVICE_DISABLED"), {}
        spreadsheet, _, method = request.path.removeprefix("/v4/spreadsheets/").partition("/")
        if spreadsheet != SPREADSHEET:
            return 404, _error(404, "NOT_FOUND"), {}
        if not self.is_shared:
            return 403, _error(403, "PERMISSION_DENIED"), {}
        if not method:
            return 200, {"sheets": [{"properties": _properties(*tab)} for tab in self.tabs.items()]}, {}
        if method != "values:batchGet":
            return 404, _error(404, "NOT_FOUND"), {}
        found = [self._values(text, request.query) for text in request.query["ranges"]]
        if None in found:
            return 400, _error(400, "INVALID_ARGUMENT"), {}
        return 200, {"spreadsheetId": spreadsheet, "valueRanges": found}, {}

    def _is_good(self, token: str | None) -> bool:
        if token not in self.tokens:
            return False
        self.tokens[token] += 1
        return self.token_uses is None or self.tokens[token] <= self.token_uses

    def _values(self, text: str, query: dict[str, list[str]]) -> dict[str, Any] | None:
        """The cells of a range as the API gives them: without those at the end that are empty."""
        match = _RANGE.fullmatch(text)
        tab = self.tabs.get(match[1].replace("''", "'")) if match else None
        if not match or tab is None or int(match[3]) > tab.row_count:
            return None
        first, last = _number(match[2]), _number(match[4]) if match[4] else tab.grid_columns
        rows = tab.rows[int(match[3]) - 1 : int(match[5]) if match[5] else None]
        is_raw = query["valueRenderOption"] == ["UNFORMATTED_VALUE"]
        is_serial = query.get("dateTimeRenderOption", ["SERIAL_NUMBER"]) == ["SERIAL_NUMBER"]
        shown = [_trim([_show(cell, is_raw, is_serial) for cell in row[first - 1 : last]], "") for row in rows]
        shown = _trim(shown, [])
        return {"range": text, "majorDimension": "ROWS"} | ({"values": shown} if shown else {})


@dataclass(frozen=True)
class Date:
    """A cell with a date."""

    serial: int
    shown: str


def _show(cell: Any, is_raw: bool, is_serial: bool) -> Any:
    if isinstance(cell, Date):
        return cell.serial if is_raw and is_serial else cell.shown
    if isinstance(cell, tuple):
        return cell[0] if is_raw else cell[1]
    if cell is None:
        return ""
    if is_raw:
        return cell
    return str(cell).upper() if isinstance(cell, bool) else str(cell)


def _trim(items: list[Any], empty: Any) -> list[Any]:
    while items and items[-1] == empty and type(items[-1]) is type(empty):
        items.pop()
    return items


def _properties(title: str, tab: Tab) -> dict[str, Any]:
    grid = {"rowCount": tab.row_count, "columnCount": tab.grid_columns}
    return {"title": title, "sheetType": tab.kind} | ({"gridProperties": grid} if tab.kind == "GRID" else {})


def _error(code: int, status: str, reason: str | None = None) -> dict[str, Any]:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
    return {"error": {"code": code, "message": "The caller may not.", "status": status, "details": details}}


def _number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
