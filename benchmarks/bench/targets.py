"""What this library is to reach, as ratios between what is measured in the same round, or as limits."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.report import Key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.report import Report

_1, _64 = "trio-multispool, 1 task", "trio-multispool, 64 tasks"


@dataclass(frozen=True)
class Target:
    """A ratio of two rows, or a row by itself, with the least that is asked for and what is aimed at."""

    name: str
    of: Key
    to: Key | None
    least: float
    aim: float
    at_most: bool = False
    """Whether less is better: `least` and `aim` are then the most."""

    def values(self, report: Report) -> list[float] | None:
        """Return what a report says, round by round, if it does."""
        return report.ratio(self.of, self.to)

    def met_by(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value <= self.least if self.at_most else value >= self.least


def _entries(place: str, label: str, what: str) -> Key:
    level = "process" if place == "tmpfs" else "power"
    return Key("entries", place, level, label, what)


def _backlog(what: str, waiting: str = "1,000,000 waiting") -> Key:
    return Key("backlog", "tmpfs", "process", waiting, what)


def _durable() -> Iterator[Target]:
    """Compare what the tasks of one process do with the bare loop, and with the others that sync each entry."""
    rows = (
        ("durable enqueue, 1 task, of the bare loop", _1, "enqueue", "bare loop", (0.75, 0.95), (0.75, 0.95)),
        ("durable enqueue, 64 tasks, times the bare loop", _64, "enqueue", "bare loop", (7, 10), (6, 10)),
        ("durable enqueue, 64 tasks, times SQLite", _64, "enqueue", "SQLite", (2.2, 3), (1.8, 3)),
        ("durable enqueue, 64 tasks, times persist-queue", _64, "enqueue", "persist-queue", (1, 1), (1, 1)),
        ("durable enqueue, 64 tasks, times localqueue", _64, "enqueue", "localqueue", (1, 1), (1, 1)),
        ("durable enqueue, 64 tasks, times huey", _64, "enqueue", "huey", (1, 1), (1, 1)),
        ("durable check-out and removal, 64 tasks, times the bare loop", _64, "remove", "bare loop", (5, 8), (3.5, 6)),
        ("durable check-out and removal, 64 tasks, times SQLite", _64, "remove", "SQLite", (2.2, 3), (1.8, 3)),
    )
    for name, label, what, other, on_ext4, on_xfs in rows:
        for place, (least, aim) in (("ext4", on_ext4), ("xfs", on_xfs)):
            yield Target(f"{name}, {place}", _entries(place, label, what), _entries(place, other, what), least, aim)


def _in_memory() -> Iterator[Target]:
    """Compare with the bare loop what is not synced: there the library's own work shows."""
    for what, least, of_many in (("enqueue", 0.15, 0.5), ("remove", 0.15, 0.4)):
        limit = _entries("tmpfs", "bare loop", what)
        yield Target(f"process, {what}, 64 tasks, of the bare loop", _entries("tmpfs", _64, what), limit, of_many, 0.8)
        yield Target(f"process, {what}, 1 task, of the bare loop", _entries("tmpfs", _1, what), limit, least, 0.3)
    limit = Key("by-hand", "tmpfs", "process", "bare loop", "remove")
    for what in ("with_entry", "try_checkout"):
        of = Key("by-hand", "tmpfs", "process", f"{_64}, {what}", what)
        yield Target(f"process, remove by {what}, 64 tasks, of the bare loop", of, limit, 0.35, 0.6)


def _together() -> Iterator[Target]:
    for place in ("ext4", "xfs", "btrfs"):
        of, to = (
            Key("together", place, "power", label, "enqueue_many")
            for label in ("trio-multispool, enqueue_many", "bare loop, syncfs")
        )
        yield Target(f"enqueue_many of 100, of the syncfs limit, {place}", of, to, 0.8, 0.95)


def _waking() -> Iterator[Target]:
    for backend in ("trio", "asyncio"):
        for what, most, aim in (("p50", 0.5, 0.3), ("p99", 2, 1), ("idle", 0.1, 0.01)):
            key = Key("waking", "ext4", "process", backend, what)
            yield Target(f"waking, {what}, {backend}", key, None, most, aim, at_most=True)
        for what in ("rename p50", "rename p99"):
            of, to = (Key("waking", "ext4", "process", who, what) for who in (backend, "bare"))
            name = f"waking, since the {what}, times a bare inotify loop, {backend}"
            yield Target(name, of, to, 2, 1.3, at_most=True)


def _large() -> Iterator[Target]:
    for what in ("enqueue", "claim and remove"):
        name = f"{what}, a million waiting, times a thousand waiting"
        yield Target(name, _backlog(what), _backlog(what, "1,000 waiting"), 1.3, 1.1, at_most=True)
    yield Target("first claim, a million waiting, s", _backlog("first claim"), None, 1, 0.5, at_most=True)
    yield Target("memory, a million waiting, MB", _backlog("memory"), None, 250, 150, at_most=True)


def _consumers() -> Iterator[Target]:
    """Compare sixteen with each smaller number, so with the best of them too."""
    for place, level in (("ext4", "power"), ("tmpfs", "process")):
        for fewer in (1, 2, 4, 8):
            of, to = (Key("consumers", place, level, f"{workers} processes", "remove") for workers in (16, fewer))
            yield Target(f"16 consumer processes, of {fewer}, {place}", of, to, 0.9, 1)


def _importing() -> Iterator[Target]:
    of, to = (
        Key("import", "tmpfs", "process", "import", f"trio, anyio, msgspec{also}") for also in (", trio_multispool", "")
    )
    yield Target("import, times what it needs", of, to, 1.3, 1.1, at_most=True)


def _on_a_server() -> Iterator[Target]:
    """Compare with what else keeps a queue in PostgreSQL; the peers enqueue a hundred with one statement."""
    together, one_by_one, psycopg = (_64, "enqueue"), (_1, "enqueue"), "pgqueuer on psycopg"
    many, work_off = (_1, "enqueue_many"), (_64, "work_off")
    rows = (
        ("enqueue_many", many, ("pgqueuer", "enqueue_many"), 1, 1.2),
        ("enqueue, 64 tasks", together, ("pgqueuer", "enqueue_many"), 1, 1.2),
        ("enqueue, 64 tasks,", together, ("pgqueuer, 64 tasks", "enqueue"), 1, 2),
        ("enqueue one by one", one_by_one, (psycopg, "enqueue"), 1.5, 2),
        ("work off, 64 tasks", work_off, ("pgqueuer", "work_off"), 1.2, 1.5),
        ("work off, 64 tasks", work_off, (psycopg, "work_off"), 1.2, 1.5),
        ("enqueue_many", many, ("procrastinate", "enqueue_many"), 3, 4),
        ("enqueue one by one", one_by_one, ("procrastinate", "enqueue"), 3, 4),
        ("work off, 64 tasks", work_off, ("procrastinate", "work_off"), 3, 4),
    )
    for place in ("tmpfs", "ext4"):
        for name, of, to, least, aim in rows:
            keys = (Key("postgresql-entries", place, "power", *each) for each in (of, to))
            yield Target(f"postgresql, {name}, times {to[0]}, {place}", *keys, least, aim)
        for name, tasks in (("64 tasks each", _64), ("1 task each", _1)):
            of = Key("postgresql-consumers", place, "power", f"{tasks}, 16 processes", "work_off")
            for fewer in ("", ", 2 processes", ", 4 processes", ", 8 processes"):
                to = Key("postgresql-consumers", place, "power", f"{tasks}{fewer}", "work_off")
                words = fewer or ", 1 process"
                yield Target(f"postgresql, 16 processes, {name}, of{words[1:]}, {place}", of, to, 0.9, 1)
        for what, most, aim in (("p50", 5, 3), ("p99", 25, 10)):
            key = Key("postgresql-waking", place, "power", "trio", what)
            yield Target(f"postgresql, waking, {what}, {place}, ms", key, None, most, aim, at_most=True)
        for what, most, aim in (("p50", 50, 30), ("max", 100, 50)):
            for label in ("10 entries", "10 entries, of the first"):
                key = Key("postgresql-deaths", place, "power", label, what)
                name = f"postgresql, {label}, back after kill -9, {what}, {place}, ms"
                yield Target(name, key, None, most, aim, at_most=True)
    for what in ("enqueue", "enqueue 64", "claim and remove", "claim and remove 64"):
        keys = (
            Key("postgresql-backlog", "tmpfs", "power", waiting, what)
            for waiting in ("1,000,000 waiting", "1,000 waiting")
        )
        name = f"postgresql, {what}, a million waiting, times a thousand waiting"
        yield Target(name, *keys, 1.3, 1.1, at_most=True)


TARGETS = (
    *_durable(),
    *_in_memory(),
    *_together(),
    *_waking(),
    *_large(),
    *_consumers(),
    *_importing(),
    *_on_a_server(),
)


def shortfalls(baseline: Report, report: Report) -> Iterator[tuple[Target, float, float, float]]:
    """Tell which targets' ratios are worse than they were, by more than their noise: then, now, and the noise.

    The noise of a ratio is twice the standard error of the difference of two medians, taken from the median absolute
    deviations of both runs, and at least a tenth of what it was: with five rounds, less means nothing.
    """
    for target in TARGETS:
        before, now = target.values(baseline), target.values(report)
        if before is None or now is None:
            continue
        then = statistics.median(before)
        noise = max(2 * (_error(before) ** 2 + _error(now) ** 2) ** 0.5, then / 10)
        worse = (statistics.median(now) - then) * (1 if target.at_most else -1)
        if worse > noise:
            yield target, then, statistics.median(now), noise


def _error(values: list[float]) -> float:
    """Return the standard error of the median, if the values are about normal, by their median absolute deviation."""
    middle = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return 1.2533 * deviation / len(values) ** 0.5
