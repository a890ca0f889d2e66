"""The check step: reads what dbt's models and tests came to, and says what stands in the way of a publish."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from syncline import db
from syncline.errors import ConfigurationError, ModelError, RefusedError, SynclineError

SAMPLE_KEYS = 5

_MARK = re.compile(r"\s*/\* syncline:check (\{[^}]*\}) \*/")
"""What the macro _narrow_check leaves before the SQL of a test: its definition and the builds that it judged."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed: its name, the entity it judges, how many rows, some of their keys, and its severity."""

    test: str
    entity: str
    column: str | None
    count: int
    keys: tuple[str, ...]
    is_error: bool

    def __str__(self) -> str:
        place = f"{self.entity}.{self.column}" if self.column else self.entity
        keys = f", for instance _key {', '.join(self.keys)}" if self.keys else ""
        return f"{self.test} on {place}: {self.count} rows{keys}"


def model_errors(nodes: Iterable[Mapping[str, Any]]) -> dict[str, SynclineError]:
    """Return the errors of the models that failed, by name, each of the kind that its SQLSTATE says."""
    kinds: dict[str, type[SynclineError]] = {"SY2": ConfigurationError, "SY3": RefusedError}
    errors: dict[str, SynclineError] = {}
    for node in nodes:
        if node["kind"] != "test" and node["status"] in ("error", "fail", "runtime error"):
            kind = kinds.get((node["state"] or "")[:3], ModelError)
            message = node["message"] if node["name"] in node["message"] else f"{node['name']}: {node['message']}"
            errors[node["name"]] = kind(
                message, node["hint"] or "Nothing was published. `dbt compile` shows the model's SQL."
            )
    return errors


def test_errors(nodes: Iterable[Mapping[str, Any]]) -> dict[str, SynclineError]:
    """Return the errors of the tests that could not run, by the entity that each judges."""
    return {
        _judged(node): ModelError(
            f"the test {node['name']} on {_judged(node)} could not run: {node['message']}", "`dbt test` shows it whole."
        )
        for node in nodes
        if node["kind"] == "test" and node["status"] == "error"
    }


def _judged(node: Mapping[str, Any]) -> str:
    entity: str = node["attached"] or next(iter(node["entities"]), "")
    return entity


def save_passes(connection: db.Connection, nodes: Iterable[Mapping[str, Any]]) -> None:
    """Note the tests that found no row, with the builds they judged: on the next builds they read what differs."""
    passed = [
        json.loads(mark.group(1))
        for node in nodes
        if node["kind"] == "test" and node["status"] == "pass" and node["failures"] == 0
        if (mark := _MARK.match(node["sql"] or ""))
    ]
    db.call(connection, "save_passes", json.dumps(passed))


def find_failures(
    connection: db.Connection, nodes: Iterable[Mapping[str, Any]], views: Mapping[str, tuple[str, str]]
) -> list[Failure]:
    """Return the tests that failed or warned, with sample keys.

    `views` gives schema and name of the view that tests read of each entity.
    """
    failures = []
    for node in nodes:
        if node["kind"] != "test" or node["status"] not in ("fail", "warn"):
            continue
        entity = _judged(node)
        count, keys = _judge(connection, views.get(entity), node)
        failures.append(Failure(node["test"], entity, node["column"], count, keys, node["status"] == "fail"))
    return failures


def refusals(failures: Iterable[Failure]) -> dict[str, SynclineError]:
    """Return a RefusedError for each entity that a test of severity error refuses."""
    refused: dict[str, list[Failure]] = {}
    for failure in failures:
        if failure.is_error:
            refused.setdefault(failure.entity, []).append(failure)
    return {entity: _refusal(failed) for entity, failed in refused.items()}


def refuse_failures(failures: Iterable[Failure]) -> None:
    """Raise RefusedError where a test of severity error failed."""
    errors = [failure for failure in failures if failure.is_error]
    if errors:
        raise _refusal(errors)


def _refusal(failures: list[Failure]) -> RefusedError:
    return RefusedError(
        "checks failed: " + "; ".join(map(str, failures)),
        "Nothing of it was published. Mend the records or the model, then run again.",
    )


def _judge(
    connection: db.Connection, view: tuple[str, str] | None, node: Mapping[str, Any]
) -> tuple[int, tuple[str, ...]]:
    """Return how many rows a test found and origin keys of some: by its own _key, or by the column it judges.

    dbt counts what the test's SQL gives, which for some tests is a row for each bad value.
    """
    counted = int(node["failures"] or 0)
    if view is None:
        return counted, ()
    found = sql.SQL(node["sql"])
    try:
        with connection.transaction():
            look = connection.execute(sql.SQL("select * from ({}) as found limit 0").format(found))
            columns = [column.name for column in look.description or []]
            if "_key" in columns:
                judged = sql.SQL("select _key from ({}) as found").format(found)
            elif node["column"]:
                judged = sql.SQL(
                    "select judged._key from {} as judged where exists"
                    " (select 1 from ({}) as found where found.{} is not distinct from judged.{})"
                ).format(
                    sql.Identifier(*view),
                    found,
                    sql.Identifier(columns[0]),
                    sql.Identifier(node["column"]),
                )
            else:
                return counted, ()
            row = connection.execute(
                sql.SQL(
                    "with judged as ({}) select (select count(*) from judged) as rows,"
                    " array(select distinct _key from judged order by 1 limit {}) as keys"
                ).format(judged, SAMPLE_KEYS)
            ).fetchone()
            assert row is not None
            return row["rows"], tuple(row["keys"])
    except psycopg.Error:
        return counted, ()  # a test may give any columns; without keys the failure is still named
