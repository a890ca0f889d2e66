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
