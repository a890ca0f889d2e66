"""A dlt source for the tests: what its resources yield and what they were asked for is held in `shelf`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dlt

shelf: dict[str, Any] = {}
"""`items`: what each resource yields. `asked`: from which value each incremental was to go on, and to which."""


def show(name: str, incremental: Any = None) -> Iterator[Any]:
    if incremental is not None:
        shelf.setdefault("asked", []).append((incremental.last_value, incremental.end_value))
    for item in shelf["items"].get(name, []):
        if isinstance(item, Exception):
            raise item
        yield item


@dlt.source
def shop(token: str = dlt.secrets.value, region: str = "eu") -> Any:
    shelf["arguments"] = (token, region)

    @dlt.resource(primary_key="id", columns={"id": {"data_type": "bigint"}, "total": {"data_type": "decimal"}})
    def orders(updated: Any = dlt.sources.incremental("at", initial_value="2024-01-01")) -> Iterator[Any]:  # noqa: B008 (as dlt has it)
        yield from show("orders", updated)

    @dlt.resource
    def people() -> Iterator[Any]:
        yield from show("people")

    @dlt.resource(write_disposition="merge", primary_key=["shop", "id"], name="Stock Levels")
    def stock() -> Iterator[Any]:
        state = dlt.current.resource_state()
        state["page"] = state.get("page", 0) + 1
        yield {"shop": 1, "id": state["page"]}

    @dlt.transformer(data_from=people)
    def names(person: Any) -> Iterator[Any]:
        yield {"id": person["id"], "upper": person["name"].upper()}

    @dlt.resource(write_disposition="replace")
    def snapshot(updated: Any = dlt.sources.incremental("at")) -> Iterator[Any]:  # noqa: B008 (as dlt has it)
        yield from show("orders", updated)

    @dlt.resource(parallelized=True)
    def parallel() -> Iterator[Any]:
        yield from show("people")

    return orders, people, stock, names, snapshot, parallel


@dlt.resource
def alone() -> Iterator[Any]:
    yield from show("people")


def no_source() -> list[int]:
    return [1]
