"""OpenTelemetry: metrics of a spool's operations, and traces that lead from the producer to the worker.

Names follow OpenTelemetry's semantic conventions for messaging where those have one (they are still marked as under
development). The others begin with `trio_multispool.`. Needs the extra `otel`, which brings OpenTelemetry's API. The
SDK that the program sets up decides what happens to the figures.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from typing import TYPE_CHECKING, Final, final

from trio_multispool.instrumentation import Instrumentation, Operation
from trio_multispool.integrations.standings import (
    DEAD_LETTERS,
    GAUGES,
    IN_QUEUE,
    LONG,
    Measure,
    Value,
    look,
    of,
)
from trio_multispool.session.stores import location_of

try:
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.context import Context
except ImportError as _missing:
    _message = "OpenTelemetry is not installed; it comes with the extra: pip install 'trio-multispool[otel]'"
    raise ImportError(_message, name="opentelemetry") from _missing

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from opentelemetry.propagators.textmap import TextMapPropagator

    from trio_multispool import instrumentation
    from trio_multispool.model.types import StrPath, T


_SCOPE: Final = "trio_multispool"
_SYSTEM: Final = {"messaging.system": "trio_multispool"}
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The histograms' boundaries, as the conventions recommend."""

_TYPES: Final = {Operation.ENQUEUE: "send", Operation.CHECK_OUT: "receive"}
"""What the conventions call these operations; all others settle."""

_producing: contextvars.ContextVar[trace.Span | None] = contextvars.ContextVar("_producing", default=None)
_working: contextvars.ContextVar[tuple[str, trace.Span] | None] = contextvars.ContextVar("_working", default=None)


@final
class OpenTelemetry(Instrumentation):
    """Instrumentation by OpenTelemetry, for any number of spools: `Spool.load(…, instrumentation=OpenTelemetry())`.

    **Traces.** A span `enqueue QUEUE` (producer) surrounds each `enqueue` and `enqueue_many`. Its context travels with
    the entry. A span `process QUEUE` (consumer) surrounds each job's block, and so each handler, and is linked to the
    producer's span, in any process. With `parent=True` it is also that span's child, in the same trace.

    **Metrics.** `messaging.client.sent.messages`, `messaging.client.consumed.messages`,
    `messaging.client.operation.duration`, `messaging.process.duration` (from check-out until settled), and
    `trio_multispool.in_queue` (until check-out), `….dead_letters`, `….entries.in_hand`, `….entries.recovered`,
    `….entries.quarantined`, `….attempts.failed` and `….reader.idle`. With `observe`, also what the queues look like.

    - `tracer_provider`, `meter_provider`, `propagator`: the global ones by default.
    - `carries`: whether the context travels. That costs a small file for each entry that is enqueued within a trace.
    - `parent`: make the consumer's span a child of the producer's.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        propagator: TextMapPropagator | None = None,
        carries: bool = True,
        parent: bool = False,
    ) -> None:
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)

        def counter(name: str, what: str, unit: str = "{entry}") -> metrics.Counter:
            return meter.create_counter(f"trio_multispool.{name}", unit, what)

        def histogram(name: str, what: str) -> metrics.Histogram:
            return meter.create_histogram(f"messaging.{name}", "s", what, explicit_bucket_boundaries_advisory=_SECONDS)

        self.carries = carries
        self._parent = parent
        self._propagator = propagate.get_global_textmap() if propagator is None else propagator
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._meter = meter
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Entries that were to be enqueued."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Entries that were checked out."
        )
        self._operation = histogram("client.operation.duration", "How long enqueueing, checking out and settling took.")
        self._process = histogram("process.duration", "How long entries were in hand.")
        self._in_queue = meter.create_histogram(
            "trio_multispool.in_queue", "s", IN_QUEUE, explicit_bucket_boundaries_advisory=LONG
        )
        self._dead_letters = counter("dead_letters", DEAD_LETTERS)
        self._in_hand = meter.create_up_down_counter(
            "trio_multispool.entries.in_hand", "{entry}", "Entries in this process's hands."
        )
        self._recovered = counter("entries.recovered", "Entries put back because their owner had died.")
        self._quarantined = counter("entries.quarantined", "Entries set aside that could not be decoded.")
        self._failed_attempts = counter("attempts.failed", "Handlers that failed, and how that ended.", "{attempt}")
        self._idle = counter("reader.idle", "How long readers had nothing to do.", "s")

    def observe(self, path: StrPath) -> None:
        """Report what a spool's queues look like, by gauges of the same names and meanings as `SpoolCollector`'s.

        They are `trio_multispool.entries`, `….oldest_age`, `….abandoned` and `….readable`. A look is taken each time
        metrics are collected, in the SDK's thread, at the cost of a listing.

        `path`: of the spool, or its URL. It need not be there yet.
        """
        looks = _Looks(path)
        for gauge in GAUGES:
            name = f"trio_multispool.{gauge.name}"
            _ = self._meter.create_observable_gauge(
                name, [functools.partial(looks.observations, gauge)], gauge.unit, gauge.what
            )

    # Traces

    @contextlib.contextmanager
    def enqueueing(self, enqueueing: instrumentation.Enqueueing) -> Generator[Mapping[str, str]]:
        """Begin the producer's span; its context travels."""
        of = _of(enqueueing.spool, enqueueing.queue)
        attributes: dict[str, str | int] = {**of, **_named(Operation.ENQUEUE)}
        if enqueueing.count is not None:
            attributes["messaging.batch.message_count"] = enqueueing.count
        with self._tracer.start_as_current_span(
            f"enqueue {enqueueing.queue}", kind=trace.SpanKind.PRODUCER, attributes=attributes
        ) as span:
            token = _producing.set(span if enqueueing.count is None else None)
            try:
                carrier: dict[str, str] = {}
                # The default setter is annotated for mappings of anything, and accepts one of text.
                self._propagator.inject(carrier)  # pyright: ignore[reportArgumentType]
                yield carrier
            finally:
                _reset(_producing, token)

    @contextlib.contextmanager
    def working(self, working: instrumentation.Working) -> Generator[None]:
        """Begin the consumer's span, linked to the producer's."""
        context = self._propagator.extract(working.carrier, Context())
        producer = trace.get_current_span(context).get_span_context()
        attributes = {
            **_of(working.spool, working.queue),
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": working.entry,
        }
        with self._tracer.start_as_current_span(
            f"process {working.queue}",
            context=context if self._parent and producer.is_valid else None,
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=[trace.Link(producer)] if producer.is_valid else [],
        ) as span:
            token = _working.set((working.entry, span))
            try:
                yield
            finally:
                _reset(_working, token)

    # Metrics, and attributes of the spans

    def on_enqueue(self, enqueued: instrumentation.Enqueued) -> None:
        """Count, and name the entry in the producer's span."""
        attributes = _of(enqueued.spool, enqueued.queue) | _named(Operation.ENQUEUE)
        self._sent.add(1, attributes)
        self._operation.record(enqueued.seconds, attributes)
        span = _producing.get()
        if span is not None:
            span.set_attribute("messaging.message.id", enqueued.entry)
            if enqueued.data_size is not None:
                span.set_attribute("messaging.message.body.size", enqueued.data_size)

    def on_checkout(self, checked_out: instrumentation.CheckedOut) -> None:
        """Count."""
        of = _of(checked_out.spool, checked_out.queue)
        attributes = of | _named(Operation.CHECK_OUT)
        self._consumed.add(1, attributes)
        self._operation.record(checked_out.seconds, attributes)
        self._in_hand.add(1, of)
        if checked_out.in_queue is not None:
            self._in_queue.record(checked_out.in_queue, of)

    def on_settle(self, settled: instrumentation.Settled) -> None:
        """Count, and note the outcome in the consumer's span."""
        of = _of(settled.spool, settled.queue)
        outcome = {"trio_multispool.outcome": settled.how.value}
        if settled.destination is not None:
            outcome["trio_multispool.outcome.queue"] = settled.destination
        name = {"messaging.operation.name": settled.how.value, "messaging.operation.type": "settle"}
        self._operation.record(settled.seconds, of | name)
        if settled.in_hand is not None:
            self._in_hand.add(-1, of)
            self._process.record(settled.in_hand, of | {"messaging.operation.name": "process"} | outcome)
        span = _span_of(settled.entry)
        if span is not None:
            span.set_attributes(outcome)

    def on_error(self, failed: instrumentation.Failed) -> None:
        """Count, and mark the span as failed."""
        attributes = _of(failed.spool, failed.queue) | _named(failed.operation)
        attributes["error.type"] = type(failed.error).__name__
        if failed.operation is Operation.ENQUEUE:
            self._sent.add(1, attributes)
        self._operation.record(failed.seconds, attributes)
        span = _producing.get() if failed.operation is Operation.ENQUEUE else _span_of(failed.entry)
        if span is not None:
            span.set_attribute("error.type", type(failed.error).__name__)
            span.set_status(trace.Status(trace.StatusCode.ERROR, str(failed.error)))

    def on_attempt_failed(self, attempt_failed: instrumentation.AttemptFailed) -> None:
        """Count, and record the handler's exception in the consumer's span: it does not leave the span's block."""
        outcome = "retry" if attempt_failed.dead_letter is None else "dead letter"
        attributes = {"error.type": attempt_failed.error, "trio_multispool.attempt.outcome": outcome}
        of = _of(attempt_failed.spool, attempt_failed.queue)
        self._failed_attempts.add(1, of | attributes)
        if attempt_failed.dead_letter is not None:
            self._dead_letters.add(1, of | {"trio_multispool.outcome.queue": attempt_failed.dead_letter})
        span = _span_of(attempt_failed.entry)
        if span is not None:
            span.set_attribute("trio_multispool.attempt", attempt_failed.attempt)
            span.set_attributes(attributes)
            if attempt_failed.exception is not None:
                span.record_exception(attempt_failed.exception)
            span.set_status(trace.Status(trace.StatusCode.ERROR, attempt_failed.error))

    def on_recover(self, returned: instrumentation.Returned) -> None:
        """Count entries that were put back."""
        if returned.queue is not None:
            self._recovered.add(1, _of(returned.spool, returned.queue))

    def on_quarantine(self, quarantined: instrumentation.Quarantined) -> None:
        """Count."""
        self._quarantined.add(1, _of(quarantined.spool, quarantined.queue))

    def on_wait(self, waited: instrumentation.Waited) -> None:
        """Add up the time."""
        self._idle.add(waited.seconds, _of(waited.spool, waited.queue))


@final
class _Looks:
    """Looks at a spool, of which each serves every gauge once: a collection asks for one after the other."""

    def __init__(self, path: StrPath) -> None:
        self._path = path
        self._spool = location_of(path)
        self._values: list[Value] = []
        self._left: set[Measure] = set()
        self._mutex = threading.Lock()

    def observations(self, gauge: Measure, _options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        """Return the values of a gauge."""
        with self._mutex:
            if gauge not in self._left:
                self._values, self._left = look(self._path), set(GAUGES)
            self._left.discard(gauge)
            values = self._values
        for labels, value in of(gauge, values):
            named = dict(zip(gauge.labels, labels, strict=True))
            attributes = _of(self._spool, named.get("queue"))
            if "state" in named:
                attributes["trio_multispool.state"] = named["state"]
            yield metrics.Observation(value, attributes)


def _reset(variable: contextvars.ContextVar[T], token: contextvars.Token[T]) -> None:
    """Forget a span, unless another task leaves its block than entered it: that task has its own variables."""
    with contextlib.suppress(ValueError):
        variable.reset(token)


def _of(spool: str, queue: str | None) -> dict[str, str]:
    attributes = {**_SYSTEM, "trio_multispool.spool": spool}
    return attributes if queue is None else {**attributes, "messaging.destination.name": queue}


def _named(operation: Operation) -> dict[str, str]:
    kind = _TYPES.get(operation, "settle")
    return {"messaging.operation.name": operation.value, "messaging.operation.type": kind}


def _span_of(entry: str | None) -> trace.Span | None:
    """Return the span of the work on an entry, if this task does that work."""
    working = _working.get()
    return working[1] if working is not None and working[0] == entry else None
