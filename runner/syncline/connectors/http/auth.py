"""Puts credentials on requests; names and meanings are those of dlt's REST API source."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import httpx
import msgspec

from syncline.connectors.http.addresses import parse_url
from syncline.errors import ConfigurationError

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")


class BearerAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bearer"):
    """A token in the header `Authorization`."""

    token: str

    def __repr__(self) -> str:
        return "BearerAuth(...)"

    def apply(self, request: httpx.Request) -> None:
        request.headers["Authorization"] = f"Bearer {self.token}"


class ApiKeyAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="api_key"):
    """A key in a header, query parameter or cookie; `param` is another word for `query`."""

    api_key: str
    name: str = "Authorization"
    location: Literal["header", "query", "param", "cookie"] = "header"

    def __repr__(self) -> str:
        return "ApiKeyAuth(...)"

    @property
    def is_in_query(self) -> bool:
        return self.location in {"query", "param"}

    def apply(self, request: httpx.Request) -> None:
        if self.is_in_query:
            request.url = request.url.copy_set_param(self.name, self.api_key)
        elif self.location == "header":
            request.headers[self.name] = self.api_key
        else:
            request.headers["Cookie"] = f"{self.name}={self.api_key}"


class BasicAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="http_basic"):
    """A user's name and password, as HTTP basic authentication."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "BasicAuth(...)"

    def apply(self, request: httpx.Request) -> None:
        next(httpx.BasicAuth(self.username, self.password).auth_flow(request))


class OAuth2Auth(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="oauth2_client_credentials"
):
    """A client's id and secret, exchanged at `access_token_url` for a token that is sent as a bearer's.

    `default_token_expiration` is the token's life in seconds where the answer does not tell it.
    """

    access_token_url: str
    client_id: str
    client_secret: str
    access_token_request_data: dict[str, str] = {}
    default_token_expiration: Annotated[int, msgspec.Meta(ge=1)] = 3600

    def __repr__(self) -> str:
        return "OAuth2Auth(...)"

    def request(self) -> httpx.Request:
        """Return the request for a token."""
        form = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "grant_type": "client_credentials",
            **self.access_token_request_data,
        }
        return httpx.Request("POST", self.access_token_url, data=form, headers={"Accept": "application/json"})


Auth = BearerAuth | ApiKeyAuth | BasicAuth | OAuth2Auth


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None


class AccessToken:
    """The token that a client's credentials were exchanged for. Threads may share it; one at a time asks for the next.

    `exchange` sends the request and returns the body of a successful answer.
    """

    def __init__(self, settings: OAuth2Auth, exchange: Callable[[httpx.Request], bytes]) -> None:
        self._settings = settings
        self._exchange = exchange
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0

    def get(self, rejected: str | None = None) -> str:
        """Return a token that is not about to expire, and that is not the one that the API `rejected`.

        Raises what `exchange` raises, and ValueError where its answer holds no token.
        """
        with self._lock:
            if not self._token or self._token == rejected or time.monotonic() >= self._good_until:
                self._renew()
            return self._token

    def _renew(self) -> None:
        asked_at = time.monotonic()
        body = self._exchange(self._settings.request())
        try:
            answer = msgspec.json.decode(body, type=_TokenAnswer)
            life = float(answer.expires_in or self._settings.default_token_expiration)
            check_headers({"Authorization": answer.access_token})
        except (ValueError, ConfigurationError):
            raise ValueError("the answer holds no access_token") from None
        # A request under way must not arrive after the end.
        self._token, self._good_until = answer.access_token, asked_at + life - min(30.0, life / 10)


def explain_refusal(body: bytes) -> str:
    """Return the code by which an OAuth server says why it gives no token, such as `invalid_client`; else nothing."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    code = answer.get("error") if isinstance(answer, dict) else None
    return f" ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else ""


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a header that cannot be sent; its value may be secret and is not shown."""
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"the header {name} has a line break or another character that no header can hold",
                "Check the variable that it comes from.",
            )


def check_auth(auth: Auth | None) -> None:
    """Raise ConfigurationError for credentials that cannot be sent."""
    request = httpx.Request("GET", "http://localhost")
    match auth:
        case BearerAuth():
            check_headers({"Authorization": auth.token})
        case ApiKeyAuth(location="header"):
            check_headers({auth.name: auth.api_key})
        case ApiKeyAuth(location="cookie"):
            check_headers({"Cookie": auth.api_key})
            if ";" in auth.api_key:
                raise ConfigurationError("the cookie's value has a semicolon", "Check the variable that it comes from.")
        case BasicAuth():
            auth.apply(request)
        case OAuth2Auth():
            parse_url(auth.access_token_url, "access_token_url", "Write it as https://host/path.")
