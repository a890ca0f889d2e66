"""The reference of the API, read back: each example works as printed, against a project that has what they name."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import PEOPLE, Bench
from tests.serving import KEY, Client, in_process

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")

SOURCES = """
sources:
  - name: agency
    schema: raw_agency
    config: {meta: {syncline: {connector: push}}}
    tables:
      - name: talents
        config: {meta: {syncline: {key: id}}}
  - name: crm
    schema: raw_crm
    config: {meta: {syncline: {connector: push}}}
    tables:
      - name: partners
        config: {meta: {syncline: {key: code}}}
  - name: sheet
    schema: raw_sheet
    config: {meta: {syncline: {connector: push}}}
    tables:
      - name: rows
        config: {meta: {syncline: {key: code}}}
  - name: desk
    schema: raw_desk
    config: {meta: {syncline: {connector: push}}}
    tables:
      - name: tickets
        config: {meta: {syncline: {key: id}}}
"""

STAGED = """
{{ config(materialized='ephemeral') }}
select _key, {{ typed('code', 'text', required=true) }} as code, {{ typed('name', 'text') }} as name
from {{ source(%s) }}
"""

MERGED = """
{{ config(materialized='versioned', unique_key='code', external_ref={'type': 'partner', 'source': 'sheet'}) }}
{{ merged({'sheet': ref('of_sheet'), 'crm': ref('of_crm')}, {'code': {}, 'name': {}}) }}
"""

SECRET = "secret-of-the-webhooks"

# Once something was published or taken back, there is nothing more of it.
NOTHING_LEFT = {"POST /api/v1/publish", "POST /api/v1/rollback"}


def list_examples() -> dict[str, str]:
    """The console block of each endpoint, as a script."""
    found = {}
    for title, text in re.findall(
        r"^### ((?:GET|POST|PUT|PATCH|DELETE) \S+)\n(.*?)(?=^##)", PAGE + "\n##", re.M | re.S
    ):
        blocks = re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)
        assert blocks, f"{title} has no example"
        found[title] = "".join(re.sub(r"^\$ ", "", block, flags=re.M) for block in blocks)
    return found


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    for file in bench.models.iterdir():
        file.unlink()
    bench.write(bench.models / "sources.yml", SOURCES)
    bench.write_model("talents", PEOPLE.replace("'shop', 'people'", "'agency', 'talents'"))
    bench.write_model("of_sheet", STAGED % "'sheet', 'rows'")
    bench.write_model("of_crm", STAGED % "'crm', 'partners'")
    bench.write_model("partners", MERGED)
    with in_process(bench, webhook_secrets=(SECRET.encode(),)) as made:
        records = "/api/v1/streams/agency/talents/records"
        # The row error that the examples name: a record without an email.
        bench.query("select setval(pg_get_serial_sequence('syncline.row_errors', 'error_id'), 16)")
        made.post(records, json=[{"id": 1, "email": "a@example.com"}, {"id": 3}]).raise_for_status()
        bench.sync("agency")
        made.post(records, json=[{"id": 2, "email": "b@example.com"}]).raise_for_status()
        bench.sync("agency", dry_run=True)
        for number in range(5, 8):  # up to the run that the examples name
            made.post("/api/v1/runs", json={"source": "agency", "row_limit": number}).raise_for_status()
        for stream, name in (("sheet/rows", "Alpha"), ("crm/partners", "Alfa")):
            partners = [{"code": code, "name": name} for code in ("p1", "p2")]
            made.post(f"/api/v1/streams/{stream}/records", json=partners).raise_for_status()
        bench.sync("sheet", "crm")
        yield made


def test_examples_work_as_printed(client: Client, bench: Bench, tmp_path: Path) -> None:
    """Each example's requests succeed; only what is published or taken back already is refused."""
    (tmp_path / ".curlrc").write_text('write-out = "\\nstatus %{http_code}\\n"\nmax-time = 30\n')
    (tmp_path / "tickets.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1}\n{"id": 2}\n'))
    environment = os.environ | {"API": f"{client.url}/api/v1", "TOKEN": KEY, "WEBHOOK_SECRET": SECRET}
    examples = list_examples()
    for title, script in examples.items():
        if "qstash.upstash.io" in script:
            continue  # it asks somebody else
        ended = subprocess.run(
            ["bash", "-eu", "-c", script.replace("http://127.0.0.1:8000", client.url)],
            cwd=tmp_path,
            env=environment | {"CURL_HOME": str(tmp_path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        statuses = [int(status) for status in re.findall(r"^status (\d+)$", ended.stdout, re.M)]
        assert len(statuses) == script.count("curl "), (title, ended.stdout, ended.stderr)
        allowed = {200, 201, 202, 204} | ({409} if title in NOTHING_LEFT else set())
        assert set(statuses) <= allowed, (title, ended.stdout)
    assert len(examples) > 25
