"""The API's settings: what they take, what they refuse and by which name, and when the API may be reached."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from syncline.api.settings import ApiSettings, check_exposure, is_loopback, read_settings
from syncline.config import read_project
from syncline.errors import ConfigurationError, RefusedError

KEY = "a-secret-of-twenty-4"


def read(root: Path, **variables: str) -> ApiSettings:
    """The settings of a project whose `.env` sets these variables."""
    (root / "dbt_project.yml").write_text("name: settings\n")
    (root / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in variables.items()))
    return read_settings(read_project(root))


def test_defaults(tmp_path: Path) -> None:
    """Nothing set: no secret, no origin, 1 MB, 1 GB, 600 requests a minute."""
    assert read(tmp_path) == ApiSettings()
    found = ApiSettings()
    assert (found.max_body, found.max_push, found.rate_limit) == (1_000_000, 1_000_000_000, 600)
    assert (found.secret_key, found.cors_origins, found.webhook_secrets, found.qstash_keys) == (None, (), (), ())


def test_all_are_read(tmp_path: Path) -> None:
    """Each variable is read into its setting; what is secret shows in no representation."""
    raw = bytes(range(24))
    found = read(
        tmp_path,
        SYNCLINE_SECRET_KEY=KEY,
        SYNCLINE_CORS_ORIGINS="https://app.example.com, http://localhost:3000",
        SYNCLINE_MAX_BODY="500 kB",
        SYNCLINE_MAX_PUSH="2GiB",
        SYNCLINE_RATE_LIMIT="0",
        SYNCLINE_WEBHOOK_SECRETS=f"whsec_{base64.b64encode(raw).decode()},{KEY}",
        QSTASH_CURRENT_SIGNING_KEY="sig_current_0123456789",
        QSTASH_NEXT_SIGNING_KEY="sig_next_0123456789",
        SYNCLINE_PUBLIC_URL="https://sync.example.com/tools/",
    )
    assert found.secret_key == KEY
    assert found.cors_origins == ("https://app.example.com", "http://localhost:3000")
    assert (found.max_body, found.max_push, found.rate_limit) == (500_000, 2 * 2**30, 0)
    assert found.webhook_secrets == (raw, KEY.encode())
    assert found.qstash_keys == ("sig_current_0123456789", "sig_next_0123456789")
    assert found.public_url == "https://sync.example.com/tools"
    assert [text for text in (KEY, "sig_", "\\x01") if text in repr(found)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SYNCLINE_SECRET_KEY", "fifteen-letters"),
        ("SYNCLINE_SECRET_KEY", "sixteen-letters-ä"),
        ("SYNCLINE_CORS_ORIGINS", "*"),
        ("SYNCLINE_CORS_ORIGINS", "https://*.example.com"),
        ("SYNCLINE_CORS_ORIGINS", "app.example.com"),
        ("SYNCLINE_CORS_ORIGINS", "https://app.example.com/path"),
        ("SYNCLINE_CORS_ORIGINS", "https://app.example.com/"),
        ("SYNCLINE_CORS_ORIGINS", "https://user@app.example.com"),
        ("SYNCLINE_CORS_ORIGINS", "https://app.example.com:port"),
        ("SYNCLINE_MAX_BODY", "much"),
        ("SYNCLINE_MAX_BODY", "0"),
        ("SYNCLINE_MAX_BODY", "-1 MB"),
        ("SYNCLINE_MAX_PUSH", "1 TBX"),
        ("SYNCLINE_RATE_LIMIT", "-1"),
        ("SYNCLINE_RATE_LIMIT", "10/s"),
        ("SYNCLINE_WEBHOOK_SECRETS", "too-short"),
        ("SYNCLINE_WEBHOOK_SECRETS", "whsec_###############"),
        ("SYNCLINE_WEBHOOK_SECRETS", "whsec_c2hvcnQ="),
        ("QSTASH_CURRENT_SIGNING_KEY", "sig_short"),
        ("QSTASH_NEXT_SIGNING_KEY", "sig_short"),
        ("SYNCLINE_PUBLIC_URL", "sync.example.com"),
        ("SYNCLINE_PUBLIC_URL", "https://sync.example.com?x=1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    """A bad value ends with the variable's name and what to write; a secret one is not quoted."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        read(tmp_path, **{name: value})
    assert caught.value.hint
    if "SECRET" in name or "KEY" in name:
        assert value not in caught.value.message + caught.value.hint


def test_secrets_are_masked_in_messages(tmp_path: Path) -> None:
    """What a message quotes of the secret key gives way to the variable's name."""
    read(tmp_path, SYNCLINE_SECRET_KEY=KEY)
    assert read_project(tmp_path).mask(f"refused: {KEY}") == "refused: ${SYNCLINE_SECRET_KEY}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_may_always_be_served(host: str) -> None:
    """What this machine alone reaches needs neither token nor TLS to start."""
    assert is_loopback(host)
    check_exposure(ApiSettings(), host, has_tokens=False, behind_tls=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5", "sync.example.com", ""])
def test_elsewhere_a_token_and_tls_are_needed(host: str) -> None:
    """On an address that others reach, it is refused without any token, and without TLS in front unless told."""
    assert not is_loopback(host)
    with pytest.raises(RefusedError, match="no token to ask for"):
        check_exposure(ApiSettings(), host, has_tokens=False, behind_tls=True)
    for settings, has_tokens in ((ApiSettings(secret_key=KEY), False), (ApiSettings(), True)):
        with pytest.raises(RefusedError, match="unencrypted"):
            check_exposure(settings, host, has_tokens, behind_tls=False)
        check_exposure(settings, host, has_tokens, behind_tls=True)
