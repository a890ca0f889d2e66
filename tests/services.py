"""The real API and worker of a bench, as processes of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.projects import Bench


@contextmanager
def serving(bench: Bench) -> Iterator[str]:
    """Serve the API on a free port; yield its address."""
    process = bench.start("serve", "--port", "0", "--json")
    try:
        assert process.stdout
        yield json.loads(process.stdout.readline())["url"]
    finally:
        _stop(process)


@contextmanager
def working(bench: Bench) -> Iterator[None]:
    """Let a worker work what is requested."""
    process = bench.start("worker")
    try:
        yield
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
