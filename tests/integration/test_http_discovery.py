"""What the http connector discovers of a live API: OpenAPI 3, Swagger 2, links at the root, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncline.config import convert
from syncline.connectors import Context, Found
from syncline.connectors.http.connector import HttpConnector, HttpSource
from syncline.errors import SourceError, SourceUnavailableError
from tests.http_api import SECRET, Api, Reply, Request, rows


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


def serve(api: Api, **paths: Any) -> None:
    """Answer each path with its body; others are not found. `__` stands for a slash."""
    bodies = {"/" + name.replace("__", "/").removeprefix("root"): body for name, body in paths.items()}

    def answer(request: Request) -> Reply:
        body = bodies.get(request.path, Reply({"error": "not found"}, 404))
        return body if isinstance(body, Reply) else Reply(body)

    api.answer = answer


def discover(api: Api, **source: Any) -> dict[str, Found]:
    settings = {"base_url": f"{api.url}/v1", "retries": 1, "auth": {"type": "bearer", "token": SECRET}, **source}
    connector = HttpConnector(convert(settings, HttpSource, "source"), Context(Path()))
    try:
        listed = {found.name: found for found in connector.discover()}
    finally:
        connector.close()
    assert SECRET not in " ".join(found.problem or "" for found in listed.values())
    return listed


PEOPLE = {"type": "array", "items": {"$ref": "#/components/schemas/Person"}}
PERSON = {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}
OPENAPI = {
    "openapi": "3.0.3",
    "servers": [{"url": "/v1"}],
    "components": {
        "schemas": {"Person": PERSON, "Page": {"allOf": [{"properties": {"items": PEOPLE, "n": {"type": "integer"}}}]}},
        "parameters": {"State": {"name": "state", "in": "query", "required": True}},
    },
    "paths": {
        "/people": {"get": {"responses": {"200": {"content": {"application/json": {"schema": PEOPLE}}}}}},
        "/groups/people": {
            "get": {
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Page"}}}}
                }
            }
        },
        "/people/{id}": {"get": {"responses": {"200": {"content": {"application/json": {"schema": PERSON}}}}}},
        "/me": {"get": {"responses": {"200": {"content": {"application/json": {"schema": PERSON}}}}}},
        "/search": {
            "get": {
                "parameters": [{"$ref": "#/components/parameters/State"}],
                "responses": {"200": {"content": {"application/json": {"schema": PEOPLE}}}},
            }
        },
        "/broken": {"get": {"responses": {"200": {"content": {"application/json": {"schema": PEOPLE}}}}}},
        "/orders": {"post": {"responses": {"200": {"content": {"application/json": {"schema": PEOPLE}}}}}},
    },
}


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_openapi(api: Api, form: str) -> None:
    """Each endpoint that lists objects and needs nothing is a stream, with key, selector, paginator and records.

    One that cannot be read comes last and says why.
    """
    document = Reply(OPENAPI) if form == "json" else Reply(yaml.safe_dump(OPENAPI).encode())
    page = {"page": 0, "total_pages": 3, "items": rows(1, 2)}
    serve(
        api,
        **{f"openapi.{form}": document},
        v1__people=rows(1, 3),
        v1__groups__people=page,
        v1__broken=Reply(status=403),
    )
    found = discover(api)
    assert list(found) == ["people", "groups_people", "broken"]
    assert "answered 403" in (found["broken"].problem or "")
    assert (found["broken"].records, found["people"].problem) == ([], None)
    assert found["people"].settings == {"path": "/people", "key": "id"}
    assert [json.loads(record) for record in found["people"].records] == rows(1, 3)
    assert found["groups_people"].settings == {
        "path": "/groups/people",
        "data_selector": "items",
        "paginator": {"type": "page_number", "page_param": "page", "total_path": "total_pages"},
        "key": "id",
    }


def test_what_is_found_can_be_loaded(api: Api) -> None:
    """The settings that discover gives read the stream."""
    pages = {"data": {"rows": rows(1, 2)}, "next": None}
    serve(api, v1__=Reply({"talents": f"{api.url}/v1/talents"}), v1__talents=pages)
    settings = dict(discover(api)["talents"].settings)
    assert settings == {"path": "/talents", "data_selector": "data.rows"}
    assert len(api.read(settings)) == 2


def test_swagger(api: Api) -> None:
    """Swagger 2 is read, too, from below the API's address."""
    people = {"type": "array", "items": {"type": "object", "properties": {"uuid": {}}}}
    document = {
        "swagger": "2.0",
        "basePath": "/v1",
        "paths": {"/people": {"get": {"responses": {"200": {"schema": people}}}}},
    }
    serve(api, **{"v1__swagger.json": document}, v1__people=rows(1, 1))
    assert {name: found.settings for name, found in discover(api).items()} == {
        "people": {"path": "/people", "key": "uuid"}
    }


def test_openapi_url(api: Api) -> None:
    """Where it is set nothing else is tried; what is no such document there is an error."""
    serve(api, docs__api=OPENAPI, v1__people=rows(1, 1), other=rows(1, 1))
    found = discover(api, openapi_url=f"{api.url}/docs/api")
    assert [name for name, one in found.items() if one.records] == ["people"]
    assert api.requests[0].path == "/docs/api"
    with pytest.raises(SourceError, match="no OpenAPI or Swagger document"):
        discover(api, openapi_url=f"{api.url}/other")
    with pytest.raises(SourceError, match="not found"):
        discover(api, openapi_url=f"{api.url}/missing")


@pytest.mark.parametrize(
    "root",
    [
        {"people": "/v1/people", "places": "/v1/places", "docs": "/docs", "self": "/v1/self", "version": "1"},
        {"_links": {"people": {"href": "/v1/people"}, "places": {"href": "/v1/places"}, "find": {"href": "/v1/x{?q}"}}},
    ],
    ids=["plain", "HAL"],
)
def test_links_at_the_root(api: Api, root: Any) -> None:
    """Without a document the links at the root are followed, those below the API's address."""
    serve(api, v1__=root, v1__people=rows(1, 2), v1__places={"count": 1, "results": rows(1, 1), "next": None})
    found = discover(api)
    assert {name: one.settings for name, one in found.items()} == {
        "people": {"path": "/people"},
        "places": {"path": "/places", "data_selector": "results"},
    }


def test_nothing_to_go_by(api: Api) -> None:
    """An API that tells nothing of itself is an error that says what to set; one that is down is another."""
    serve(api)
    with pytest.raises(SourceError, match="neither an OpenAPI document") as caught:
        discover(api)
    assert "openapi_url" in (caught.value.hint or "")
    assert caught.value.message.endswith("not found: answered 404 Not Found")
    with pytest.raises(SourceUnavailableError, match="refused"):
        discover(api, base_url="http://127.0.0.1:9")
