"""Spans of requests and of their stages, for OpenTelemetry; nothing at all while it is off.

Attributes hold sizes, seconds, names of models and of routes, and the request's id: no texts, file
names, URLs, keys, and no messages of errors, which may quote such.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from whisper_api.config import Settings
from whisper_api.errors import SettingsError, WhisperApiError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

Values = Mapping[str, str | int | float | bool]
SERVICE = "whisper-api-server"
FLUSH_SECONDS = 3.0
"""How long the end of the process waits for spans that are not sent yet."""


class Tracing:
    """Makes no spans; what stands in while the setting is off."""

    on = False

    def server(self, name: str, headers: Mapping[str, str], values: Values) -> Served:
        """A request's span, in the trace that its ``traceparent`` names; everything that is
        called inside belongs to it."""
        return _UNSERVED

    def step(self, name: str, values: Values) -> AbstractContextManager[None]:
        """A span of its own trace; everything that is called inside belongs to it."""
        return _NOTHING

    def span(self, name: str) -> AbstractContextManager[None]:
        """A stage of the request that the running code serves."""
        return _NOTHING

    def here(self) -> Any:
        """What a job takes along, so that ``batch`` can name its request later."""
        return None

    def batch(
        self, name: str, values: Values, jobs: Sequence[tuple[Any, float]], seconds: float
    ) -> None:
        """An engine call that has just ended after ``seconds``; ``jobs`` are what ``here`` gave,
        and the seconds that each had waited. It is linked with the requests it served."""

    def close(self) -> None:
        """Send what is left; within ``FLUSH_SECONDS``."""


class Served(AbstractContextManager["Served"]):
    """One request's span while it is served."""

    def end(self, name: str, values: Values, failed: bool) -> None:
        """Its final name and what is known at its end."""

    def __exit__(self, *exc: object) -> None:
        """Close it."""


_NOTHING = nullcontext()
_UNSERVED = Served()
OFF = Tracing()


class OtelTracing(Tracing):
    """Spans through OpenTelemetry's SDK, whose ``OTEL_…`` variables hold."""

    on = True

    def __init__(
        self, exporter: SpanExporter, processor: type[SpanProcessor] | None = None
    ) -> None:
        """``processor`` hands spans to ``exporter``: in batches from a thread by default."""
        from opentelemetry import context, trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
        # Not the global one: libraries would write their own spans, with whatever they hold.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor((processor or BatchSpanProcessor)(exporter))  # type: ignore[call-arg]
        self._tracer = self._provider.get_tracer("whisper_api")
        self._context, self._trace = context, trace
        self._propagator = TraceContextTextMapPropagator()

    def server(self, name: str, headers: Mapping[str, str], values: Values) -> Served:
        """As in ``Tracing``."""
        parent = self._propagator.extract(dict(headers), context=self._context.Context())
        kind = self._trace.SpanKind.SERVER
        span = self._tracer.start_span(name, parent, kind=kind, attributes=values)
        return _Served(self, span)

    @contextmanager
    def step(self, name: str, values: Values) -> Iterator[None]:
        """As in ``Tracing``."""
        nowhere = self._context.Context()
        with self._ended(self._tracer.start_span(name, nowhere, attributes=values)) as span:
            token = self._context.attach(self._trace.set_span_in_context(span, nowhere))
            try:
                yield
            finally:
                self._context.detach(token)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """As in ``Tracing``.

        It is not made the current one: stages are generators, which may end in another context.
        """
        with self._ended(self._tracer.start_span(name)):
            yield

    @contextmanager
    def _ended(self, span: Any) -> Iterator[Any]:
        try:
            yield span
        except BaseException as error:
            fail(span, error)
            raise
        finally:
            span.end()

    def here(self) -> Any:
        """As in ``Tracing``."""
        return self._trace.get_current_span()

    def batch(
        self, name: str, values: Values, jobs: Sequence[tuple[Any, float]], seconds: float
    ) -> None:
        """As in ``Tracing``: the call has a trace of its own, and each request spans for its wait
        and for the call, which name that trace."""
        now = time.time_ns()
        began = now - int(seconds * 1e9)
        waits: dict[Any, float] = {}
        for span, waited in jobs:
            if span is not None and span.get_span_context().is_valid:
                waits[span] = max(waited, waits.get(span, 0.0))
        links = [self._trace.Link(span.get_span_context()) for span in waits]
        nowhere = self._context.Context()
        call = self._tracer.start_span(
            name, nowhere, attributes=values, links=links, start_time=began
        )
        call.end(now)
        link = [self._trace.Link(call.get_span_context())]
        for span, waited in waits.items():
            inside = self._trace.set_span_in_context(span, nowhere)
            queued = began - int(waited * 1e9)
            self._tracer.start_span("queue", inside, start_time=queued).end(began)
            part = self._tracer.start_span(name, inside, links=link, start_time=began)
            part.end(now)

    def close(self) -> None:
        """As in ``Tracing``."""
        # A collector that does not answer must not hold the end of the process.
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(FLUSH_SECONDS)


class _Served(Served):
    def __init__(self, tracing: OtelTracing, span: Any) -> None:
        self._context, self._span = tracing._context, span
        self._inside = tracing._trace.set_span_in_context(span)
        self._error = tracing._trace.StatusCode.ERROR
        self._token: Any = None

    def __enter__(self) -> Served:
        self._token = self._context.attach(self._inside)
        return self

    def end(self, name: str, values: Values, failed: bool) -> None:
        self._span.update_name(name)
        self._span.set_attributes(values)
        if failed:
            self._span.set_status(self._error)

    def __exit__(self, *exc: object) -> None:
        self._context.detach(self._token)
        self._span.end()


def fail(span: Any, error: BaseException) -> None:
    """Note on a span what went wrong: a code or a class, never words."""
    from opentelemetry.trace import StatusCode

    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        span.set_attribute("whisper.cancelled", True)
        return
    code = error.code if isinstance(error, WhisperApiError) else None
    span.set_attribute("error.type", code or type(error).__name__)
    span.set_status(StatusCode.ERROR)


def open_tracing(settings: Settings) -> Tracing:
    """What ``settings`` ask for.

    Raises:
        SettingsError: the packages of the extra ``otel`` are missing.
    """
    if not settings.tracing:
        return OFF
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise SettingsError(
            "tracing: OpenTelemetry is not installed; "
            "pip install 'whisper-api-server[otel]' adds it, or set tracing to false"
        ) from error
    base = settings.tracing_endpoint
    return OtelTracing(OTLPSpanExporter(endpoint=f"{base.rstrip('/')}/v1/traces" if base else None))
