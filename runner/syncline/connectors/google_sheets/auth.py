"""Gets access tokens for a Google service account, over the connector's own transport."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from syncline.connectors.http.auth import explain_refusal
from syncline.errors import ConfigurationError, SourceError

SCOPE = "https://www.googleapis.com/auth/spreadsheets.readonly"

Send = Callable[[httpx.Request], tuple[httpx.Response, bytes]]


class ServiceAccount:
    """A service account's key and the token it was last exchanged for. Threads may share it."""

    def __init__(self, credentials: str, root: Path) -> None:
        """Read the key: JSON text, or a file that is relative to `root`; raises ConfigurationError where it is none."""
        try:
            from google.auth.exceptions import GoogleAuthError
            from google.oauth2 import service_account
        except ImportError:
            raise ConfigurationError(
                "google_sheets needs google-auth and cryptography", "pip install 'syncline[google-sheets]'"
            ) from None
        try:
            key = msgspec.json.decode(_read(credentials, root), type=dict[str, Any])
            make: Any = service_account.Credentials.from_service_account_info
            self._credentials = make(key, scopes=[SCOPE])
        except (ValueError, TypeError, GoogleAuthError):
            raise ConfigurationError(
                "`credentials` is no service account key",
                "Give the JSON text that Google made for the key, by a variable, or the path of its file.",
            ) from None
        self._lock = threading.Lock()

    @property
    def email(self) -> str:
        """The address that a spreadsheet is shared with."""
        return str(self._credentials.service_account_email)

    def token(self, send: Send, rejected: str | None = None) -> str:
        """Return a token that is not about to expire, and not the one that was `rejected`.

        `send` sends a request and gives the answer of any status that is no trouble of the server. Raises SourceError
        where the key is refused.
        """
        from google.auth.exceptions import GoogleAuthError

        with self._lock:
            if not self._credentials.valid or self._credentials.token == rejected:
                exchange = _Exchange(send)
                try:
                    self._credentials.refresh(exchange)
                except GoogleAuthError:
                    raise SourceError(
                        f"no access token: the service account's key was refused{explain_refusal(exchange.body)}",
                        "Check that the key is not deleted and the account not disabled, and this machine's clock.",
                    ) from None
            return str(self._credentials.token)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer in google-auth's words."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class _Exchange:
    """Sends google-auth's requests; remembers the last answer's body."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.body = b""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> _Answer:
        response, self.body = self._send(httpx.Request(method, url, content=body, headers=headers))
        return _Answer(response.status_code, response.headers, self.body)


def _read(credentials: str, root: Path) -> str:
    if credentials.lstrip().startswith("{"):
        return credentials
    try:
        return (root / credentials).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ConfigurationError(
            "`credentials` is neither JSON nor a file that can be read",
            "Give the JSON text of a service account key, by a variable, or the path of its file.",
        ) from None
