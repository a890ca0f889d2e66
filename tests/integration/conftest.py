"""A whole project for the tests of what a run does: one warm dbt process for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.api import Api
from tests.projects import TOKEN, Bench


@pytest.fixture(scope="session")
def shared_bench(server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    api = Api(TOKEN)
    root = tmp_path_factory.mktemp("bench") / "my project"
    made = Bench(server_dsn, template, root, api, f"syncline_bench_{os.getpid()}")
    yield made
    made.close()
    api.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    """A project with an API, files and an empty database."""
    shared_bench.reset()
    return shared_bench
