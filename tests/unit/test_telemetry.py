"""Spans: none where nobody asked for them, a tree of them where somebody did, and no words of errors in them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from syncline import telemetry
from syncline.errors import ConfigurationError


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.use(provider)
    yield exporter
    telemetry.use(None)
    provider.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def test_spans_are_children_of_those_around_them(exported: InMemorySpanExporter) -> None:
    """Attributes are kept, those without a value left out."""
    with telemetry.span("syncline.run", run_id=7, sources=["shop"], limit=None), telemetry.span("syncline.step"):
        pass
    found = by_name(exported)
    assert dict(found["syncline.run"].attributes or {}) == {"run_id": 7, "sources": ("shop",)}
    assert parent(found["syncline.step"]) == found["syncline.run"].get_span_context().span_id
    assert parent(found["syncline.run"]) is None


def test_threads_go_on_in_the_span_that_started_them(exported: InMemorySpanExporter) -> None:
    """Streams that load side by side are children of their step."""

    def load(stream: str) -> str:
        with telemetry.span("syncline.load", stream=stream):
            return stream

    with telemetry.span("syncline.step"), ThreadPoolExecutor(4) as pool:
        names = [f"shop.{number}" for number in range(20)]
        assert list(pool.map(telemetry.carried(load), names)) == names
    spans = exported.get_finished_spans()
    (step,) = [span for span in spans if span.name == "syncline.step"]
    loads = [span for span in spans if span.name == "syncline.load"]
    assert len(loads) == 20
    assert {parent(span) for span in loads} == {step.get_span_context().span_id}


def test_an_error_marks_its_span_and_says_nothing(exported: InMemorySpanExporter) -> None:
    """Its type is there; its words, which may quote a record, are not."""
    with pytest.raises(ValueError, match="a value"), telemetry.span("syncline.step"):
        raise ValueError("a value of a record")
    span = by_name(exported)["syncline.step"]
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {}) == {"error.type": "ValueError"}
    assert "a value" not in span.to_json()


def test_nothing_is_traced_where_nobody_asked() -> None:
    """Without OpenTelemetry's variables, or with its off switch, spans cost nothing and change nothing."""
    for environment in (
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ):
        assert telemetry.configure("syncline worker", environment) is False
        with telemetry.span("syncline.run", run_id=7):
            pass


def test_an_exporter_that_is_none_is_refused() -> None:
    """The error names the variable."""
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_EXPORTER"):
        telemetry.configure("syncline worker", {"OTEL_TRACES_EXPORTER": "carrier-pigeon"})


def test_spans_are_sent_where_the_standard_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector on loopback gets them, with the name of the service, over OTLP and HTTP."""
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert telemetry.configure("syncline worker")
        with telemetry.span("syncline.run", run_id=7):
            pass
        telemetry.flush()
    finally:
        telemetry.use(None)
        server.shutdown()
        thread.join()
        server.server_close()
    ((path, body),) = received
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert names["service.name"] == "syncline worker"
    assert resource.scope_spans[0].spans[0].name == "syncline.run"
