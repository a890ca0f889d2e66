"""Who runs a command, where the system may not know."""

from __future__ import annotations

import os

import pytest

from syncline.paths import user_name


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the user; else the system does; a container's user that neither knows is its number."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert user_name() == "root"
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert user_name() == "uid 54321"
    monkeypatch.setenv("USER", "ada")
    assert user_name() == "ada"
