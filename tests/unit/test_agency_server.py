"""The agency example: what its generations promise, and the server that serves them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

AGENCY = Path(__file__).parents[2] / "examples" / "agency"
SERVER = AGENCY / "server.py"
TOKEN = "a token"
ENDPOINTS = {
    "talents": 300,
    "boards": 40,
    "media-tags": 60,
    "portfolios": 500,
    "portfolio-media": 1500,
    "measurements": 300,
    "socials": 450,
    "boards-portfolios": 240,
}
REQUIRED = {"talents": "name", "socials": "handle"}
UNIQUE = {
    "talents": ("slug",),
    "boards": ("slug",),
    "media-tags": ("slug",),
    "socials": ("talentId", "platform"),
    "boards-portfolios": ("boardId", "portfolioId"),
}

Record = dict[str, Any]
Content = dict[str, list[Record]]


def load_records() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agency_records", AGENCY / "records.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


records = load_records()


@pytest.fixture(scope="module")
def generations() -> list[Content]:
    return [records.generation(number) for number in range(1, 16)]


@contextmanager
def running(*options: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, SERVER, "--port", "0", "--token", TOKEN, "--until-stdin-closes", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip(), process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as (url, _):
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def accepted(content: Content) -> dict[str, dict[int, Record]]:
    """Return the records that no required field and no unique key rejects; the lowest key as text wins."""
    good: dict[str, dict[int, Record]] = {}
    for name, rows in content.items():
        seen = set()
        good[name] = {}
        for record in sorted(rows, key=lambda record: str(record["id"])):
            unique = tuple(record[field] for field in UNIQUE.get(name, ("id",)))
            if unique not in seen and record.get(REQUIRED.get(name, "id")) is not None:
                seen.add(unique)
                good[name][record["id"]] = record
    return good


def by_id(content: Content) -> dict[tuple[str, int], Record]:
    return {(name, record["id"]): record for name, rows in content.items() for record in rows}


@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_generation_is_the_same_in_every_process(seed: str, generations: list[Content]) -> None:
    """Nothing in a generation depends on the process, on the order of sets least of all."""
    command = [sys.executable, SERVER, "dump", "--generation", "5"]
    dumped = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert json.loads(dumped.stdout) == generations[4]


def test_sizes_hold(generations: list[Content]) -> None:
    """Streams neither run dry nor grow, whatever the number of generations."""
    for content in (generations[0], generations[-1], records.generation(300)):
        assert {name: len(rows) for name, rows in content.items()} == pytest.approx(ENDPOINTS, rel=0.1)
        assert all(board["talents"] for board in content["boards"])


def test_each_generation_differs_a_little(generations: list[Content]) -> None:
    """From one generation to the next about 1% changes, and some records come and go."""
    shares = []
    for old, new in zip(map(by_id, generations), map(by_id, generations[1:]), strict=False):
        assert new.keys() - old.keys()
        assert old.keys() - new.keys()
        shares.append(sum(old[key] != new[key] for key in old.keys() & new.keys()) / len(old))
    assert min(shares) > 0.005
    assert max(shares) < 0.04
    assert sum(shares) / len(shares) == pytest.approx(0.0125, abs=0.005)


def test_foreign_keys_hold_without_what_is_rejected(generations: list[Content]) -> None:
    """No accepted record, nor an entry in one, refers to a record that is gone or rejected."""
    for content in generations:
        good = accepted(content)
        for name, field, parent in (
            ("portfolios", "talentId", "talents"),
            ("measurements", "talentId", "talents"),
            ("socials", "talentId", "talents"),
            ("portfolio-media", "portfolioId", "portfolios"),
            ("boards-portfolios", "boardId", "boards"),
            ("boards-portfolios", "portfolioId", "portfolios"),
        ):
            assert {record[field] for record in good[name].values()} <= good[parent].keys()
        for name, items, field, parent in (
            ("boards", "talents", "talentId", "talents"),
            ("portfolio-media", "tags", "tagId", "media-tags"),
        ):
            for record in good[name].values():
                linked = [link[field] for link in record[items]]
                assert set(linked) <= good[parent].keys()
                assert len(linked) == len(set(linked))


def test_every_generation_holds_a_few_mistakes(generations: list[Content]) -> None:
    """Row errors of each kind are there, far from the ratio at which a run stops."""
    for content in generations:
        good = accepted(content)
        rejected = {name: len(rows) - len(good[name]) for name, rows in content.items()}
        assert {name: count for name, count in rejected.items() if count} == {
            "talents": 1,
            "media-tags": 1,
            "socials": 2,
        }
        assert sum(record["birthDate"] == "31/02/1990" for record in content["talents"]) == 1
        assert sum(record["height"] == "tall" for record in content["measurements"]) == 1
        assert sum(record["width"] == "unknown" for record in content["portfolio-media"]) == 1


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
def test_without_the_token_there_is_only_health(url: str, headers: dict[str, str]) -> None:
    """A missing, wrong or bare token is answered with 401 and JSON; /health needs none."""
    answer = httpx.get(f"{url}/talents", headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"error": "a valid bearer token is needed"}
    assert httpx.get(f"{url}/health", headers=headers).json() == {"status": "ok", "generation": 1}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_pages_add_up(client: httpx.Client, name: str, generations: list[Content]) -> None:
    """The pages of an endpoint, one after the other, are its records, and their number is the total."""
    first = client.get(f"/{name}", params={"per_page": 70}).json()
    rest = [
        client.get(f"/{name}", params={"page": page, "per_page": 70}) for page in range(2, first["total_pages"] + 1)
    ]
    found = [record for page in (first, *(answer.json() for answer in rest)) for record in page["data"]]
    assert len(found) == first["total"]
    assert found == generations[0][name]
    assert client.get(f"/{name}", params={"page": first["total_pages"] + 1, "per_page": 70}).json()["data"] == []


def test_a_connection_serves_many_requests(client: httpx.Client) -> None:
    """Connections are kept alive, after an error too."""
    streams = {
        client.get(path).extensions["network_stream"].get_extra_info("client_addr")
        for path in ("/talents", "/nothing", "/boards", "/health")
    }
    assert len(streams) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/talents?page=0", 400), ("/talents?page=one", 400), ("/talents?per_page=501", 400)],
)
def test_wrong_requests_are_answered_in_json(client: httpx.Client, path: str, status: int) -> None:
    """A client's mistake gets its status and a sentence."""
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_each_start_serves_the_next_generation(tmp_path: Path) -> None:
    """The state file carries the generation from start to start; --generation sets it."""
    served = []
    for options in ([], [], ["--generation", "7"], []):
        with running("--state", tmp_path / "state", *options) as (url, _):
            served.append(httpx.get(f"{url}/health").json()["generation"])
    assert served == [1, 2, 7, 8]


@pytest.mark.parametrize("end", ["stdin", "sigterm"])
def test_the_server_ends_when_it_is_told(end: str) -> None:
    """Closing its standard input and SIGTERM both end it, with success, while a client is connected."""
    with running() as (url, process), httpx.Client() as client:
        client.get(f"{url}/health")
        if end == "stdin":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
