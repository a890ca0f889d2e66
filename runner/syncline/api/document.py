"""The API's OpenAPI document: FastAPI's, with problems in their own media type and one name for each operation."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from syncline.api import problems
from syncline.api.problems import ProblemDetails

REQUEST_ID = {"description": "The request's id, in the log and in problems too.", "schema": {"type": "string"}}


def install(app: FastAPI) -> None:
    """Make the app's document ours; it is made with the first request for it."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _make(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _make(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    shape = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"]["ProblemDetails"] = shape
    for methods in made["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-Id"] = REQUEST_ID
                if problems.MEDIA_TYPE in response.get("content", {}):
                    response["content"].pop("application/json", None)
    return made
