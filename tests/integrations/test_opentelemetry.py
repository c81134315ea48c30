"""Metrics and traces by OpenTelemetry's SDK, whose exporters are in memory; and a trace across two processes."""

from __future__ import annotations

import json
import math
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics

from helpers.children import Child
from helpers.results import is_err
from helpers.spools import ANNE, Envelope, Mail, names_in, put, quick_spool, state_of
from trio_multispool import Remove, Retry, Save, Use
from trio_multispool.integrations import opentelemetry as integration
from trio_multispool.integrations.opentelemetry import OpenTelemetry

both_backends = pytest.mark.anyio


class Telemetry:
    """An SDK of its own, and what it has exported."""

    def __init__(self, **options: Any) -> None:
        """Set it up."""
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.instrumentation = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self, name: str = "") -> list[Any]:
        """Return the spans that have ended, or those of a name."""
        return [span for span in self._exporter.get_finished_spans() if name in ("", span.name)]

    def metrics(self) -> dict[str, list[Any]]:
        """Return the points of each metric."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


async def remove(_envelope: object, _data: object) -> Remove:
    """Be a handler."""
    return Remove()


@both_backends
async def test_a_producers_span_and_a_consumers_that_is_linked_to_it(tmp_path):
    """Two traces, with the attributes of the conventions; the consumer's span tells how the entry was settled."""
    telemetry = Telemetry()
    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello")).unwrap()

        async def handler(_envelope: object, _data: object) -> Save[Mail, Envelope]:
            with telemetry.tracers.get_tracer("test").start_as_current_span("inside"):
                return Save(Mail.RETRY)

        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(handler)).unwrap()
    [producer], [consumer], [inside] = map(telemetry.spans, ("enqueue send", "process send", "inside"))
    assert (producer.kind, consumer.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
    assert [link.context.span_id for link in consumer.links] == [producer.context.span_id]
    assert consumer.parent is None
    assert consumer.context.trace_id != producer.context.trace_id
    assert inside.parent.span_id == consumer.context.span_id
    path = str(tmp_path / "spool")
    common = {
        "messaging.system": "trio_multispool",
        "messaging.destination.name": "send",
        "messaging.message.id": entry.name,
        "trio_multispool.spool": path,
    }
    assert dict(producer.attributes) == common | {
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.message.body.size": 5,
    }
    assert dict(consumer.attributes) == common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "trio_multispool.outcome": "saved",
        "trio_multispool.outcome.queue": "retry",
    }


def names_of_the_conventions() -> set[str]:
    """Return the names of messaging attributes and metrics that the conventions have."""
    modules = (messaging_attributes, messaging_metrics)
    return {value for module in modules for value in vars(module).values() if isinstance(value, str)}


@both_backends
async def test_names_that_look_like_the_conventions_are_in_them(tmp_path):
    """Every attribute and metric that begins with `messaging.` is one that OpenTelemetry has."""
    telemetry = Telemetry()
    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        await spool.enqueue_many(Mail.SEND, [(ANNE, b"")])
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(remove)).unwrap()
    points = telemetry.metrics()
    used = {name for found in points.values() for point in found for name in point.attributes} | set(points)
    used |= {name for span in telemetry.spans() for name in span.attributes}
    ours = {name for name in used if name.startswith("messaging.")}
    assert len(ours) >= 8
    assert ours <= names_of_the_conventions()
    assert all(name.startswith("trio_multispool.") for name in used - ours)


@both_backends
async def test_the_spans_of_many_tasks_are_not_mixed_up(tmp_path):
    """Each consumer's span is linked to the span that enqueued its entry, though they share hops and run together."""
    telemetry = Telemetry()
    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(put, spool, Mail.SEND, f"n{number:02}")
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(remove, concurrency=5, prefetch=5)).unwrap()
    entry = "messaging.message.id"
    producers = {span.context.span_id: span.attributes[entry] for span in telemetry.spans("enqueue send")}
    consumers = telemetry.spans("process send")
    assert len(producers) == 20
    assert sorted(producers[span.links[0].context.span_id] for span in consumers) == sorted(producers.values())
    assert all(producers[span.links[0].context.span_id] == span.attributes[entry] for span in consumers)


@both_backends
async def test_a_batch_has_one_span_to_which_all_its_consumers_are_linked(tmp_path):
    """It tells how many entries there were."""
    telemetry = Telemetry()
    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 3)
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(remove)).unwrap()
    [producer] = telemetry.spans("enqueue send")
    assert producer.attributes["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in producer.attributes
    linked = [span.links[0].context.span_id for span in telemetry.spans("process send")]
    assert linked == [producer.context.span_id] * 3


@both_backends
async def test_what_fails_is_marked_in_its_span(tmp_path):
    """An `Err` by its type, what a handler raises as an exception; a cancellation is no error."""
    telemetry = Telemetry()
    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        [entry] = await put(spool, Mail.SEND, "a")
        assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")))

        async def fail(_envelope: object, _data: object) -> Remove:
            raise KeyError("a")

        with pytest.raises(KeyError):
            await spool.with_entry(entry, fail)
        with anyio.CancelScope() as scope:
            async with (await entry.checkout()).unwrap():
                scope.cancel()
                await anyio.sleep(math.inf)
    _, refused = telemetry.spans("enqueue send")
    assert refused.attributes["error.type"] == "NameTaken"
    assert refused.status.status_code is trace.StatusCode.ERROR
    failed, cancelled = telemetry.spans("process send")
    assert [event.attributes["exception.type"] for event in failed.events] == ["KeyError"]
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert cancelled.status.status_code is trace.StatusCode.UNSET
    assert {span.attributes["trio_multispool.outcome"] for span in (failed, cancelled)} == {"released"}


@both_backends
async def test_what_is_done_with_another_entry_is_not_told_by_the_span_at_work(tmp_path):
    """A handler that settles another job by the way: its span tells of its own entry."""
    telemetry = Telemetry()
    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        entry, other = await put(spool, Mail.SEND, "a", "b")
        async with (await entry.checkout()).unwrap() as job:
            by_the_way = (await other.checkout()).unwrap()
            (await by_the_way.save(Mail.RETRY)).unwrap()
            (await job.remove()).unwrap()
    [span] = telemetry.spans("process send")
    assert span.attributes["trio_multispool.outcome"] == "removed"
    assert "trio_multispool.outcome.queue" not in span.attributes


@both_backends
async def test_without_a_trace_no_file_is_written(tmp_path):
    """With `carries=False`, and with a provider that traces nothing, `.notes` is not there."""
    for instrumentation in (
        Telemetry(carries=False).instrumentation,
        OpenTelemetry(tracer_provider=trace.NoOpTracerProvider()),
    ):
        async with await quick_spool(tmp_path / "spool", instrumentation=instrumentation) as spool:
            await put(spool, Mail.SEND, "a")
            async with spool.reader(Mail.SEND) as reader:
                (await reader.iter_available(remove)).unwrap()
        assert not (tmp_path / "spool" / ".notes").exists()


@both_backends
async def test_metrics_count_what_happened(tmp_path):
    """Counters, histograms, what is in hand, and the depths of queues, whenever they are collected."""
    telemetry = Telemetry()
    telemetry.instrumentation.observe(tmp_path / "spool")
    points = telemetry.metrics()
    assert "trio_multispool.entries" not in points, "a spool that is not there has no entries"
    assert [point.value for point in points["trio_multispool.readable"]] == [0]
    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        await put(spool, Mail.SEND, "a", "b", "c")
        assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")))
        async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
            points = telemetry.metrics()
            assert [point.value for point in points["trio_multispool.entries.in_hand"]] == [1]
            depths = {
                (point.attributes["messaging.destination.name"], point.attributes["trio_multispool.state"]): point.value
                for point in points["trio_multispool.entries"]
            }
            assert (depths["send", "available"], depths["send", "checked out"]) == (2, 1)
            queues = {"failed", "retry", "send"}
            for name in ("trio_multispool.abandoned", "trio_multispool.oldest_age"):
                assert {point.attributes["messaging.destination.name"] for point in points[name]} == queues
            assert [point.value for point in points["trio_multispool.abandoned"]] == [0, 0, 0]
            assert [point.value for point in points["trio_multispool.readable"]] == [1]
            (await job.remove()).unwrap()
        points = telemetry.metrics()
    [in_queue] = points["trio_multispool.in_queue"]
    assert (in_queue.count, in_queue.attributes["messaging.destination.name"]) == (1, "send")
    sent = {point.attributes.get("error.type"): point.value for point in points["messaging.client.sent.messages"]}
    assert sent == {None: 3, "NameTaken": 1}
    assert [point.value for point in points["messaging.client.consumed.messages"]] == [1]
    assert [point.value for point in points["trio_multispool.entries.in_hand"]] == [0]
    [processed] = points["messaging.process.duration"]
    assert (processed.count, processed.attributes["trio_multispool.outcome"]) == (1, "removed")
    durations = points["messaging.client.operation.duration"]
    assert {point.attributes["messaging.operation.name"] for point in durations} == {"enqueue", "check out", "removed"}


@both_backends
async def test_a_failed_attempt_is_shown_by_its_span_and_counted(tmp_path):
    """What the handler raised does not leave the span's block, so the span is told of it."""
    telemetry = Telemetry()

    async def failing(_envelope: object, _data: object) -> Remove:
        raise OSError("no route")

    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        await put(spool, Mail.SEND, "a")
        async with spool.reader(Mail.SEND) as reader:
            retry = Retry(attempts=1, dead_letter=Mail.FAILED)
            (await reader.iter_available(failing, retry=retry)).unwrap()
    [span] = telemetry.spans("process send")
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "OSError")
    [event] = span.events
    assert (event.name, event.attributes["exception.message"]) == ("exception", "no route")
    told = {name: span.attributes[name] for name in ("error.type", "trio_multispool.attempt.outcome")}
    assert told == {"error.type": "OSError", "trio_multispool.attempt.outcome": "dead letter"}
    assert span.attributes["trio_multispool.attempt"] == 1
    [point] = telemetry.metrics()["trio_multispool.attempts.failed"]
    assert point.value == 1
    assert {name: point.attributes[name] for name in told} == told
    [given_up] = telemetry.metrics()["trio_multispool.dead_letters"]
    assert (given_up.value, given_up.attributes["trio_multispool.outcome.queue"]) == (1, "failed")


@both_backends
async def test_a_collection_looks_at_a_spool_once(tmp_path, monkeypatch):
    """However many gauges there are; and the next one looks again, also of another reader."""
    looks: list[object] = []
    real = integration.look
    monkeypatch.setattr(integration, "look", lambda path: looks.append(path) or real(path))
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    instrumentation = OpenTelemetry(meter_provider=MeterProvider(readers, shutdown_on_exit=False))
    instrumentation.observe(tmp_path / "spool")
    async with await quick_spool(tmp_path / "spool") as spool:
        for number, reader in enumerate((*readers, *readers), 1):
            await put(spool, Mail.SEND, f"{number}")
            data = reader.get_metrics_data()
            assert len(looks) == number
            metrics = {each.name: each for each in data.resource_metrics[0].scope_metrics[0].metrics}
            points = metrics["trio_multispool.entries"].data.data_points
            assert max(point.value for point in points) == number


# Across processes


def work_in_a_trace(parent, path):
    """Be a worker in a process of its own: take what is there, and tell of the spans."""
    import anyio
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from helpers.spools import Mail, load_spool
    from trio_multispool import Remove
    from trio_multispool.integrations.opentelemetry import OpenTelemetry

    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def handler(_envelope, _data):
        with provider.get_tracer("worker").start_as_current_span("inside"):
            return Remove()

    async def main() -> None:
        instrumentation = OpenTelemetry(tracer_provider=provider, parent=True)
        spool = await load_spool(path, instrumentation=instrumentation)
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(handler)).unwrap()

    anyio.run(main)
    for span in exporter.get_finished_spans():
        links = [link.context.span_id for link in span.links]
        parent.say(span.name, span.context.trace_id, span.context.span_id, span.parent.span_id, links)


@both_backends
async def test_a_trace_goes_on_from_the_producer_to_a_worker_in_another_process(tmp_path):
    """One trace: the request, the enqueue, and, elsewhere, the processing and what the handler did."""
    telemetry = Telemetry()
    async with await quick_spool(tmp_path / "spool", instrumentation=telemetry.instrumentation) as spool:
        with telemetry.tracers.get_tracer("test").start_as_current_span("request") as request:
            entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello")).unwrap()
        note = json.loads(state_of(tmp_path / "spool").notes[entry.name])
        assert set(note) == {"trace"}
        assert (
            state_of(tmp_path / "spool").available["send"][entry.name]
            == b'{"recipient":"anne@example.org","attempts":0}'
        )
        with Child(work_in_a_trace, tmp_path / "spool") as child:
            inside, process = list(child)
        assert await names_in(spool, Mail.SEND) == []
    [producer] = telemetry.spans("enqueue send")
    trace_id = request.get_span_context().trace_id
    assert producer.parent.span_id == request.get_span_context().span_id
    assert process == [
        "process send", trace_id, process[2], producer.context.span_id, [producer.context.span_id],
    ]  # fmt: skip
    assert inside[:2] == ["inside", trace_id]
    assert inside[3] == process[2]
    assert state_of(tmp_path / "spool").faults() == []
