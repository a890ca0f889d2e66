"""What is taken out of texts, and what is left in them."""

from __future__ import annotations

import pytest

from syncline.masking import Mask

TOKEN = "s3cret-t0ken-0123456789"


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        (TOKEN, TOKEN),
        (f"postgresql://user:{TOKEN}@host/db", TOKEN),
        ("postgresql://user:p%40ssw0rd@host/db", "p@ssw0rd"),
        (f"https://api.example.com/v1?token={TOKEN}&page=1", TOKEN),
        (f"https://hooks.example.com/{TOKEN}/x", TOKEN),
    ],
)
def test_secrets_are_named_and_not_shown(value: str, secret: str) -> None:
    """A value, and the secret parts of an address, give way to the variable's name."""
    mask = Mask(["KEY"], {"KEY": value})
    assert mask(f"refused: {secret}!") == "refused: ${KEY}!"


def test_what_is_no_secret_stays() -> None:
    """A host, a short path and a short value are what messages are about."""
    mask = Mask(["URL", "SHORT", "UNSET"], {"URL": "https://api.example.com/v1/people", "SHORT": "eu"})
    text = "https://api.example.com/v1/people in eu answered 401"
    assert mask(text) == text


@pytest.mark.parametrize("dsn", [f"postgresql://me:{TOKEN}@host/db", f"host=h user=me password='{TOKEN}' dbname=db"])
def test_what_is_secret_of_ours_is_not_shown(dsn: str) -> None:
    """The database's password, the API's key, and each address and secret of a list, with what is secret in it."""
    environment = {
        "DATABASE_URL": dsn,
        "SYNCLINE_SECRET_KEY": "the-k3y-of-all",
        "SYNCLINE_ALERT_URLS": "json://u:p4ssw0rd@host, slack://tokenA/tokenB",
        "SYNCLINE_WEBHOOK_SECRETS": "whsec_one,whsec_two",
    }
    mask = Mask([], environment)
    assert mask(f"{TOKEN} the-k3y-of-all") == "${DATABASE_URL} ${SYNCLINE_SECRET_KEY}"
    assert mask("slack://tokenA/tokenB p4ssw0rd") == "${SYNCLINE_ALERT_URLS} ${SYNCLINE_ALERT_URLS}"
    assert mask("whsec_two") == "${SYNCLINE_WEBHOOK_SECRETS}"


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("tgram://123456789:AAbb_cc-dd/-100987654", ["api.telegram.org/bot", "123456789", "AAbb_cc-dd", "-100987654"]),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdn/#data", ["hooks.slack.com/", "T1JJ3T3L2", "A1BRTD4JD", "TIiajkdn"]),
        ("sendgrid://SG.aBc.dEf12:me@example.com/ops", ["api.sendgrid.com/", "SG.aBc.dEf12"]),
        ("discord://4174216298/jHMHZ8Fw%2F/", ["discord.com/api/", "4174216298", "jHMHZ8Fw%2F", "jHMHZ8Fw/"]),
    ],
)
def test_addresses_of_alerts_are_made_of_tokens(address: str, sent: list[str]) -> None:
    """Where a service's address has tokens for host and path, each is masked wherever it stands; words are not."""
    mask = Mask([], {"SYNCLINE_ALERT_URLS": f"{address} jsons://alerts.example.com/v1/Notify1"})
    place, *tokens = sent
    masked = mask(f"POST {place} {' '.join(tokens)} ended 404")
    assert masked == f"POST {place} {' '.join(['${SYNCLINE_ALERT_URLS}'] * len(tokens))} ended 404"
    text = "alerts.example.com/v1/Notify1 example.com data"
    assert mask(text) == text


def test_a_password_that_is_a_name_is_no_secret() -> None:
    """Where it equals the user or the database, masking it would take words out of every message."""
    mask = Mask([], {"DATABASE_URL": "postgresql://syncline:syncline@host/postgres"})
    assert mask("syncline on postgres") == "syncline on postgres"
