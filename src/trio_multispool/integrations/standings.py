"""Looks at the queues of a spool on demand, for gauges, in a thread that may block; and what metrics have in common.

Metrics have the same names everywhere. Prometheus writes `multispool_oldest_age_seconds`; OpenTelemetry writes
`trio_multispool.oldest_age` and the unit `s`, of which its exporter for Prometheus makes the same, after `trio_`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple, final

import msgspec

from trio_multispool.errors import SpoolError
from trio_multispool.model.pauses import in_force
from trio_multispool.model.times import time_since
from trio_multispool.session.stores import look_at_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_multispool.model.types import StrPath

LONG: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""The boundaries of a histogram of how long entries are in their queues, in seconds: from idle readers to a day."""

IN_QUEUE: Final = "How long entries were to be had before they were checked out."

DEAD_LETTERS: Final = "Entries that were given up."


class Measure(NamedTuple):
    """A gauge."""

    name: str
    what: str
    unit: str = ""
    """As OpenTelemetry has them: `s` for seconds; what is in braces tells what is counted."""
    labels: tuple[str, ...] = ("queue",)


ENTRIES: Final = Measure("entries", "Entries by queue and state.", "{entry}", labels=("queue", "state"))
OLDEST_AGE: Final = Measure("oldest_age", "How long the oldest entry has been to be had; 0 if there is none.", "s")
ABANDONED: Final = Measure("abandoned", "Check-outs whose owner is dead.", "{entry}")
PAUSED: Final = Measure("paused", "Whether readers are to take nothing new from the queue.")
READABLE: Final = Measure("readable", "Whether the spool can be read.", labels=())

GAUGES: Final = (ENTRIES, OLDEST_AGE, ABANDONED, PAUSED, READABLE)
"""What a look at a spool tells."""


@final
class Value(msgspec.Struct, frozen=True):
    """One value of a gauge."""

    measure: Measure
    labels: tuple[str, ...]
    value: float


def look(path: StrPath) -> list[Value]:
    """Look at a spool, and return what its gauges show. Recovers nothing, and writes nothing.

    In a directory it costs a listing, some milliseconds for ten thousand entries, and a look at some of them; on a
    server, four questions.
    """
    try:
        with contextlib.closing(look_at_store(path)) as storage:
            standings, now = storage.standings(), storage.now()
            paused = in_force(storage.pauses(), now)
    except SpoolError:
        return [Value(READABLE, (), 0)]
    found = [Value(READABLE, (), 1)]
    for standing in standings:
        queue = standing.queue
        by_state = sorted((state.value, number) for state, number in standing.entries.items())
        found += [Value(ENTRIES, (queue, state), number) for state, number in by_state]
        age = 0.0 if standing.oldest_since is None else time_since(standing.oldest_since, now)
        if age is not None:
            found.append(Value(OLDEST_AGE, (queue,), age))
        if standing.abandoned is not None:
            found.append(Value(ABANDONED, (queue,), standing.abandoned))
        found.append(Value(PAUSED, (queue,), queue in paused))
    return found


def of(measure: Measure, values: list[Value]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the labels and values of one gauge."""
    return ((value.labels, value.value) for value in values if value.measure == measure)
