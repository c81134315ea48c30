"""Prometheus: metrics of a spool's operations, and a collector that looks at its queues.

Needs the extra `prometheus`, which brings `prometheus-client`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from trio_multispool.instrumentation import Instrumentation
from trio_multispool.integrations.standings import DEAD_LETTERS, GAUGES, IN_QUEUE, LONG, look, of
from trio_multispool.session.stores import is_directory, location_of

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as _missing:
    _message = "prometheus-client is not installed; it comes with the extra: pip install 'trio-multispool[prometheus]'"
    raise ImportError(_message, name="prometheus_client") from _missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_multispool import instrumentation
    from trio_multispool.model.types import StrPath

_OF: Final = ("spool", "queue")


@final
class Prometheus(Instrumentation):
    """Instrumentation by prometheus-client, for any number of spools: `Spool.load(…, instrumentation=Prometheus())`.

    Make one for each registry, and give it to all spools: a registry accepts a metric's name once. All metrics have the
    labels `spool` (its path) and `queue`.

    `registry`: prometheus-client's global one by default.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"multispool_{name}", what, (*_OF, *labels), registry=registry)

        def histogram(
            name: str, what: str, *labels: str, buckets: tuple[float, ...] = Histogram.DEFAULT_BUCKETS
        ) -> Histogram:
            return Histogram(f"multispool_{name}_seconds", what, (*_OF, *labels), registry=registry, buckets=buckets)

        self._enqueued = counter("enqueued", "Entries enqueued.")
        self._checked_out = counter("checked_out", "Entries checked out.")
        self._settled = counter("settled", "Entries that were settled, or let go.", "how", "destination")
        self._recovered = counter("recovered", "Entries put back because their owner had died.")
        self._quarantined = counter("quarantined", "Entries set aside that could not be decoded.")
        self._attempts = counter("failed_attempts", "Handlers that failed, and how that ended.", "outcome", "error")
        self._dead_letters = counter("dead_letters", DEAD_LETTERS, "destination")
        self._errors = counter("errors", "Operations that answered an error.", "operation", "error")
        self._idle = counter("idle_seconds", "How long readers had nothing to do.")
        self._enqueue_seconds = histogram("enqueue", "How long enqueueing took.")
        self._settle_seconds = histogram("settle", "How long settling took.", "how")
        self._in_queue_seconds = histogram("in_queue", IN_QUEUE, buckets=LONG)
        self._in_hand_seconds = histogram("in_hand", "How long entries were in hand.", "how")
        self._in_hand = Gauge("multispool_in_hand", "Entries in this process's hands.", _OF, registry=registry)

    def on_enqueue(self, enqueued: instrumentation.Enqueued) -> None:
        """Count."""
        self._enqueued.labels(enqueued.spool, enqueued.queue).inc()
        self._enqueue_seconds.labels(enqueued.spool, enqueued.queue).observe(enqueued.seconds)

    def on_checkout(self, checked_out: instrumentation.CheckedOut) -> None:
        """Count."""
        self._checked_out.labels(checked_out.spool, checked_out.queue).inc()
        self._in_hand.labels(checked_out.spool, checked_out.queue).inc()
        if checked_out.in_queue is not None:
            self._in_queue_seconds.labels(checked_out.spool, checked_out.queue).observe(checked_out.in_queue)

    def on_settle(self, settled: instrumentation.Settled) -> None:
        """Count."""
        of, how = (settled.spool, settled.queue), settled.how.value
        self._settled.labels(*of, how, settled.destination or "").inc()
        self._settle_seconds.labels(*of, how).observe(settled.seconds)
        if settled.in_hand is not None:
            self._in_hand.labels(*of).dec()
            self._in_hand_seconds.labels(*of, how).observe(settled.in_hand)

    def on_recover(self, returned: instrumentation.Returned) -> None:
        """Count entries that were put back."""
        if returned.queue is not None:
            self._recovered.labels(returned.spool, returned.queue).inc()

    def on_quarantine(self, quarantined: instrumentation.Quarantined) -> None:
        """Count."""
        self._quarantined.labels(quarantined.spool, quarantined.queue).inc()

    def on_error(self, failed: instrumentation.Failed) -> None:
        """Count."""
        labels = (failed.spool, failed.queue or "", failed.operation.value, type(failed.error).__name__)
        self._errors.labels(*labels).inc()

    def on_attempt_failed(self, attempt_failed: instrumentation.AttemptFailed) -> None:
        """Count."""
        destination, of = attempt_failed.dead_letter, (attempt_failed.spool, attempt_failed.queue)
        self._attempts.labels(*of, "retry" if destination is None else "dead letter", attempt_failed.error).inc()
        if destination is not None:
            self._dead_letters.labels(*of, destination).inc()

    def on_wait(self, waited: instrumentation.Waited) -> None:
        """Add up the time."""
        self._idle.labels(waited.spool, waited.queue).inc(waited.seconds)


@final
class SpoolCollector(Collector):
    """Looks at a spool each time Prometheus asks: `REGISTRY.register(SpoolCollector("var/mail"))`.

    It opens the directory, or connects to the server, only reads, and needs no `Spool`: any process will do. A scrape
    costs a listing of each queue, and a look at the first 1,000 entries of each; on a server, a few questions. All
    metrics have the label `spool`, and all but the last the label `queue`:

    - `multispool_entries`: how many there are, by `state` (`available`, `waiting`, `checked out`, `quarantined`).
    - `multispool_oldest_age_seconds`: how long the oldest entry has been to be had, available or due; 0 if there is
      none. In a queue of more than 1,000 entries, the oldest of the first by name, which readers take next.
    - `multispool_abandoned`: check-outs whose owner is dead. Readers put them back within seconds; with none, they
      stay. Absent for a spool that is not adopted, where nobody can say.
    - `multispool_paused`: 1 if readers are to take nothing new from the queue, as by `multispool pause`.
    - `multispool_readable`: 0 for a spool that cannot be read; then the others are absent.

    `path`: of the spool, or its URL. It need not be there yet.
    """

    def __init__(self, path: StrPath) -> None:
        """Remember the spool's path, or its URL. The spool is read later."""
        self._path = path if isinstance(path, str) and not is_directory(path) else str(Path(path).absolute())
        self._spool = location_of(self._path)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name the metrics, so that registering looks at nothing."""
        for gauge in GAUGES:
            name = f"multispool_{gauge.name}{'_seconds' if gauge.unit == 's' else ''}"
            yield GaugeMetricFamily(name, gauge.what, labels=["spool", *gauge.labels])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Look."""
        values = look(self._path)
        for gauge, family in zip(GAUGES, self.describe(), strict=True):
            for labels, value in of(gauge, values):
                family.add_metric([self._spool, *labels], value)
            yield family
