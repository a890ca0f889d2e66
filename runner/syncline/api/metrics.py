"""Shows the numbers of the control plane, and of this process, to Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from syncline import db, schedules
from syncline.api import auth, problems
from syncline.api.state import Shared
from syncline.db import Connection
from syncline.errors import ConfigurationError

OPEN = "SYNCLINE_METRICS_OPEN"

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Shown:
    """How a metric of the function `syncline.metrics` is shown."""

    name: str
    documentation: str
    labels: tuple[str, ...] = ()
    is_counter: bool = False


SHOWN = {
    "runs": Shown("syncline_runs", "Runs that ended.", ("sources", "kind", "trigger", "status"), is_counter=True),
    "rows": Shown("syncline_rows", "Rows that publishing changed for readers.", ("entity", "kind"), is_counter=True),
    "records": Shown(
        "syncline_records", "Records that loads read and changed.", ("source", "stream", "kind"), is_counter=True
    ),
    "queue_runs": Shown("syncline_queue_runs", "Runs that wait or are worked.", ("status",)),
    "queue_age": Shown("syncline_queue_oldest_seconds", "How long the oldest run waits that could be worked."),
    "running_age": Shown("syncline_running_oldest_seconds", "How long the oldest run at work has taken."),
    "entity_freshness": Shown(
        "syncline_entity_freshness_seconds",
        "How long ago the sources of what is published were asked and confirmed it.",
        ("entity",),
    ),
    "entity_published": Shown(
        "syncline_entity_published_timestamp_seconds", "When what is published was published.", ("entity",)
    ),
    "entity_rows": Shown("syncline_entity_rows", "Rows of what is published.", ("entity",)),
    "stream_freshness": Shown(
        "syncline_stream_freshness_seconds", "How long ago the newest load began.", ("source", "stream")
    ),
    "row_errors": Shown(
        "syncline_row_errors", "Row errors that still hold.", ("entity", "source", "stream", "severity")
    ),
    "incidents": Shown("syncline_incidents", "Incidents that are open.", ("kind",)),
    "tokens_expiring": Shown("syncline_tokens_expiring", "Tokens that end within 14 days."),
    "schedules_missed": Shown("syncline_schedules_missed", "Schedules that were not fired when they should have been."),
}
"""What `syncline.metrics` gives, and the schedules."""

DURATIONS = Shown("syncline_run_duration_seconds", "How long runs took.", ("sources", "kind", "status"))


class ControlPlane(Collector):
    """Reads the numbers from the database as they are asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def collect(self) -> Iterator[Metric]:
        rows = [(row["metric"], row["labels"], row["value"]) for row in db.call(self._connection, "metrics")]
        rows.append(("schedules_missed", {}, len(schedules.missed(self._connection))))
        for metric, shown in SHOWN.items():
            yield _family(shown, [(labels, value) for name, labels, value in rows if name == metric])
        yield _durations(rows)


def _family(shown: Shown, rows: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    shape = CounterMetricFamily if shown.is_counter else GaugeMetricFamily
    family = shape(shown.name, shown.documentation, labels=shown.labels)
    for labels, value in rows:
        family.add_metric([labels[name] for name in shown.labels], value)
    return family


def _durations(rows: Sequence[tuple[str, Mapping[str, str], float]]) -> Metric:
    family = HistogramMetricFamily(DURATIONS.name, DURATIONS.documentation, labels=DURATIONS.labels)
    sums = {_key(labels): value for metric, labels, value in rows if metric == "run_seconds"}
    for key, total in sums.items():
        counted = sorted(
            (float(labels["le"]), value)
            for metric, labels, value in rows
            if metric == "run_buckets" and _key(labels) == key
        )
        family.add_metric(key, [(_bound(bound), value) for bound, value in counted], total)
    return family


def _bound(seconds: float) -> str:
    return "+Inf" if math.isinf(seconds) else str(seconds)


def _key(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels[name] for name in DURATIONS.labels)


async def _allow(request: Request, state: Shared) -> None:
    if not is_open(state.project.environment):
        await auth.require("viewer")(request, None, None)


def is_open(environment: Mapping[str, Any]) -> bool:
    """Return whether metrics are for everybody; raises ConfigurationError for a value that is neither 0 nor 1."""
    value = environment.get(OPEN, "").strip() or "0"
    if value not in ("0", "1"):
        raise ConfigurationError(f"{OPEN} is {value!r}", "It may be 1: no token is needed for /metrics; or 0.")
    return value == "1"


@router.get(
    "/metrics",
    tags=["health"],
    summary="Numbers for Prometheus",
    dependencies=[Depends(_allow)],
    response_class=PlainTextResponse,
    responses=problems.responses(401, 403, 429, 503),
    openapi_extra={"security": [{"Bearer": []}, {"x-sync-secret": []}]},
)
def metrics(state: Shared) -> Response:
    """Give all metrics in Prometheus' text format. Needs the role viewer, unless SYNCLINE_METRICS_OPEN is 1."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    with state.connection() as connection:
        registry.register(ControlPlane(connection))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
