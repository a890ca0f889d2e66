"""Traces what a run does as OpenTelemetry spans, where that is installed and told where to send them."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from syncline.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

_ADDRESSES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_tracer: Any = None
_provider: Any = None


def configure(service_name: str, environment: Mapping[str, str] | None = None) -> bool:
    """Send spans where OpenTelemetry's own variables say; return whether they say so.

    OTEL_SERVICE_NAME goes before `service_name`. Raises ConfigurationError where spans are wanted and the extra is
    missing, or where the exporter is none of otlp, console and none.
    """
    given = os.environ if environment is None else environment
    kind = given.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(given.get(name) for name in _ADDRESSES) else "none")
    if kind == "none" or given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if kind not in ("otlp", "console"):
        raise ConfigurationError(f"OTEL_TRACES_EXPORTER is {kind!r}", "It may be otlp, console or none.")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
    except ImportError:
        raise ConfigurationError(
            "spans are asked for, and OpenTelemetry is not installed", "pip install 'syncline[otel]'"
        ) from None
    own = {} if given.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service_name}
    provider = TracerProvider(resource=Resource.create(own))
    exporter: SpanExporter = OTLPSpanExporter() if kind == "otlp" else ConsoleSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    use(provider)
    return True


def use(provider: Any) -> None:
    """Make spans with this tracer provider; None makes none any more."""
    global _provider, _tracer
    _provider, _tracer = provider, None if provider is None else provider.get_tracer("syncline")


def flush() -> None:
    """Send what is not sent yet; it is also done as the process ends."""
    if _provider is not None:
        _provider.force_flush()


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[None]:
    """Trace what is done inside, as a child of the span around it; an error marks it with its type alone.

    Attributes are texts, numbers, booleans or lists of them, never a value of a record or a secret.
    """
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import StatusCode

    known = {key: value for key, value in attributes.items() if value is not None}
    # An error's words may quote values: only its type goes out.
    with _tracer.start_as_current_span(
        name, attributes=known, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(StatusCode.ERROR)
            raise


def carried(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function so that it works, in whatever thread, inside the span that is open now."""
    context = contextvars.copy_context()

    def call(*arguments: P.args, **named: P.kwargs) -> T:
        # A copy for each call: one context cannot be entered by two threads at a time.
        return context.copy().run(function, *arguments, **named)

    return call
