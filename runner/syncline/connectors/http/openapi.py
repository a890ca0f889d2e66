"""Reads an OpenAPI 3 or Swagger 2 document for the endpoints that answer with lists of objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from syncline.connectors.http.answer import RECORD_NAMES

USUAL_PLACES = (
    *("openapi.json", "swagger.json", "v3/api-docs", "v2/api-docs", "api-docs", "openapi.yaml", "swagger.yaml"),
    *("openapi", "docs/openapi.json", "swagger/v1/swagger.json", "api/schema/?format=json"),
)
"""Where frameworks put the document, below the API's address or its host."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Listed:
    """An endpoint that answers with a list; `key` is the field that tells its objects apart, where it is told."""

    path: str
    key: str | None


def parse_document(text: bytes) -> Mapping[str, Any] | None:
    """Return the document, JSON or YAML, None where it is no OpenAPI or Swagger document."""
    try:
        # YAML takes JSON, too, and is quick enough for one document.
        content = yaml.load(text, Loader=_LOADER)  # noqa: S506 (a safe loader, in C)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return None
    is_document = isinstance(content, dict) and ("openapi" in content or "swagger" in content)
    return content if is_document and isinstance(content.get("paths"), dict) else None


def list_endpoints(document: Mapping[str, Any], base_path: str) -> Iterator[Listed]:
    """Yield the GET endpoints without path parameters or required ones that answer with a list of objects.

    Paths are those below `base_path`, the path of the API's address.
    """
    prefix = _server_path(document)
    for path, operations in document["paths"].items():
        operation = operations.get("get") if isinstance(operations, dict) else None
        if not isinstance(operation, dict) or "{" in str(path):
            continue
        parameters = [*operations.get("parameters", []), *operation.get("parameters", [])]
        if any(_is_required(document, parameter) for parameter in parameters):
            continue
        item = _item_schema(document, operation)
        if item is not None:
            yield Listed(_below(base_path, prefix, str(path)), _key(item))


def _server_path(document: Mapping[str, Any]) -> str:
    servers = document.get("servers")
    if isinstance(servers, list) and servers and isinstance(servers[0], dict):
        return urlsplit(str(servers[0].get("url", ""))).path.rstrip("/")
    return str(document.get("basePath", "")).rstrip("/")


def _below(base_path: str, prefix: str, path: str) -> str:
    base, whole = base_path.rstrip("/"), prefix + path
    if base and whole.startswith(base + "/"):
        return whole[len(base) :]
    return path if base and base == prefix else whole if not base else path


def _is_required(document: Mapping[str, Any], parameter: Any) -> bool:
    found = _resolved(document, parameter)
    return found.get("required") is True and found.get("in") in {"query", "path", "body"}


def _item_schema(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of the objects in the list that a successful answer is or has."""
    responses = operation.get("responses")
    if not isinstance(responses, dict):
        return None
    found = next((value for status, value in responses.items() if str(status) in {"200", "2XX", "default"}), None)
    response = _resolved(document, found)
    schema = response.get("schema")
    for kind, content in (response.get("content") or {}).items():
        if "json" in str(kind) or kind == "*/*":
            schema = content.get("schema")
            break
    schema = _resolved(document, schema)
    if _is_array(schema):
        return _resolved(document, schema.get("items"))
    lists = dict(_lists(document, schema))
    wanted = [name for name in lists if name in RECORD_NAMES] or list(lists)
    return lists[wanted[0]] if wanted else None


def _lists(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in _properties(document, schema).items():
        field = _resolved(document, value)
        item = _resolved(document, field.get("items"))
        if _is_array(field) and (item.get("type") == "object" or _properties(document, item)):
            yield name, item


def _properties(document: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(schema.get("properties") or {})
    for part in schema.get("allOf") or []:
        found |= _resolved(document, part).get("properties") or {}
    return found


def _is_array(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array" or "items" in schema


def _resolved(document: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """Follow references within the document; what is none of its own objects is empty."""
    for _ in range(_DEPTH):
        if not isinstance(value, dict):
            return {}
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return value
        value = document
        for name in reference.removeprefix("#/").split("/"):
            value = value.get(name.replace("~1", "/").replace("~0", "~"), {}) if isinstance(value, dict) else {}
    return {}


def _key(item: Mapping[str, Any]) -> str | None:
    properties = item.get("properties") or {}
    return next((name for name in ("id", "uuid", "_id", "guid") if name in properties), None)
