"""The API against its own document: whatever is sent, the answer is one that OpenAPI tells of, and never a defect."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from syncline.api.app import create_app
from syncline.api.settings import ApiSettings
from syncline.config import read_project
from tests.projects import Bench
from tests.serving import KEY, Client, bearer, in_process

EXAMPLES = 15
"""Requests made for each operation and mode: those that fit the document, and those that do not."""

KNOWN = {"source": "shop", "stream": "people", "entity": "people", "name": "nightly", "run_id": 1, "error_id": 1}
KNOWN |= {"conflict_id": 1, "key": "1", "column": "name"}
"""What there is: half of the requests ask for it."""

STAGED = """
{{ config(materialized='ephemeral') }} select _key, {{ typed('%s', 'text') }} as name from {{ source(%s) }}
"""
DISAGREEING = {
    "of_people": STAGED % ("name", "'shop', 'people'"),
    "of_visits": STAGED % ("place", "'files', 'visits'"),
    "merged": """
        {{ config(materialized='versioned', external_ref={'type': 'person', 'source': 'shop'}) }}
        {{ merged({'people': ref('of_people'), 'visits': ref('of_visits')}, {'name': {}}) }}
    """,
}
"""An entity that two streams feed, which agree on nothing."""

CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
HEADERS = bearer(KEY) | {"Accept": "application/json"}

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client(shared_bench: Bench) -> Iterator[Client]:
    shared_bench.reset()
    shared_bench.api.records["people"][6]["age"] = "old"
    for model, content in DISAGREEING.items():
        shared_bench.write_model(model, content)
    shared_bench.sync("shop", "files")
    secrets: dict[str, Any] = {"webhook_secrets": (b"secret-of-the-webhooks",), "qstash_keys": ("sig_current_key",)}
    with in_process(shared_bench, public_url="https://sync.example.com", **secrets) as made:
        made.get("/api/v1/conflicts/1").raise_for_status()
        yield made


def list_operations() -> list[Any]:
    app = create_app(read_project(ROOT), "dbname=nobody-connects", ApiSettings())
    schema = schemathesis.openapi.from_dict(app.openapi())
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", list_operations(), ids=lambda operation: operation.label)
def test_answers_are_as_documented(operation: Any, mode: GenerationMode, client: Client) -> None:
    """Requests made up from the document get answers of the documented status, type, headers and shape."""
    answers = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=operation.as_strategy(generation_mode=mode), is_known=st.booleans())
    def ask(case: schemathesis.Case, is_known: bool) -> None:
        if is_known:
            case.path_parameters = {name: KNOWN[name] for name in case.path_parameters or {}}
        answers.append(case.call_and_validate(base_url=client.url, headers=HEADERS, checks=CHECKED, timeout=60))

    with contextlib.suppress(Unsatisfiable):  # there is nothing to say wrongly
        ask()
    assert answers or mode is GenerationMode.NEGATIVE


def test_every_route_is_in_the_reference(client: Client) -> None:
    """Each route of the app has a heading in api.md, and no other has."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^### (GET|POST|PUT|PATCH|DELETE) (\S+)$", page, re.MULTILINE))
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert len(routes) > 25
    assert sorted(routes - documented) == []
    assert sorted(documented - routes) == []
