"""Metrics by prometheus-client, as text that a server would scrape."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from helpers import postgresql
from helpers.results import is_err
from helpers.spools import ANNE, START, Mail, put, quick_spool, snapshot
from trio_multispool import DataFile, Exponential, Remove, Retry, Use
from trio_multispool.instrumentation import CheckedOut
from trio_multispool.integrations import standings
from trio_multispool.integrations.prometheus import Prometheus, SpoolCollector
from trio_multispool.model.lifecycle import State
from trio_multispool.model.pauses import Pause
from trio_multispool.session.stores import location_of
from trio_multispool.storage.requests import Standing

both_backends = pytest.mark.anyio


def exposed(registry: CollectorRegistry, *, of: str = "multispool_") -> list[str]:
    """Return the samples in the text format, without help, buckets, times of creation and sums of durations."""
    unwanted = ("#", "_bucket", "_created", "_sum", "idle_seconds")
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if line.startswith(of) and not any(word in line for word in unwanted)]


@both_backends
async def test_operations_are_exposed_as_text(tmp_path):
    """Each counter has its labels, and counts once."""
    registry, path = CollectorRegistry(), tmp_path / "spool"
    of = f'queue="send",spool="{path}"'
    async with await quick_spool(path, instrumentation=Prometheus(registry)) as spool:
        await put(spool, Mail.SEND, "a", "b", "c", "d")
        assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")))
        (path / "send" / "d").write_bytes(b"{")
        async with spool.reader(Mail.SEND) as reader:
            saved = (await reader.dequeue()).unwrap()
            removed = (await reader.dequeue()).unwrap()
            assert saved is not None
            assert removed is not None
            (await saved.save(Mail.RETRY)).unwrap()
            (await removed.remove()).unwrap()
            async for job in reader.available():
                async with job:
                    assert f"multispool_in_hand{{{of}}} 1.0" in exposed(registry)
    assert exposed(registry) == [
        f"multispool_enqueued_total{{{of}}} 4.0",
        f"multispool_checked_out_total{{{of}}} 3.0",
        f'multispool_settled_total{{destination="retry",how="saved",{of}}} 1.0',
        f'multispool_settled_total{{destination="",how="removed",{of}}} 1.0',
        f'multispool_settled_total{{destination="send",how="released",{of}}} 1.0',
        f"multispool_quarantined_total{{{of}}} 1.0",
        f'multispool_errors_total{{error="NameTaken",operation="enqueue",{of}}} 1.0',
        f"multispool_enqueue_seconds_count{{{of}}} 4.0",
        f'multispool_settle_seconds_count{{how="saved",{of}}} 1.0',
        f'multispool_settle_seconds_count{{how="removed",{of}}} 1.0',
        f'multispool_settle_seconds_count{{how="released",{of}}} 1.0',
        f"multispool_in_queue_seconds_count{{{of}}} 3.0",
        f'multispool_in_hand_seconds_count{{how="saved",{of}}} 1.0',
        f'multispool_in_hand_seconds_count{{how="removed",{of}}} 1.0',
        f'multispool_in_hand_seconds_count{{how="released",{of}}} 1.0',
        f"multispool_in_hand{{{of}}} 0.0",
    ]


@both_backends
async def test_failed_attempts_are_exposed_by_how_they_ended(tmp_path):
    """With the class of what was raised."""
    registry, path = CollectorRegistry(), tmp_path / "spool"
    retry = Retry(attempts=2, backoff=Exponential(first=0), dead_letter=Mail.FAILED)

    async def failing(_envelope: object, data: DataFile[bytes]) -> Remove:
        if data.attempt == 2:
            reader.stop()
        raise OSError

    async with await quick_spool(path, instrumentation=Prometheus(registry)) as spool:
        await put(spool, Mail.SEND, "a")
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter(failing, retry=retry)).unwrap()
    of = f'queue="send",spool="{path}"'
    assert exposed(registry, of="multispool_failed") == [
        f'multispool_failed_attempts_total{{error="OSError",outcome="retry",{of}}} 1.0',
        f'multispool_failed_attempts_total{{error="OSError",outcome="dead letter",{of}}} 1.0',
    ]
    assert exposed(registry, of="multispool_dead") == [
        f'multispool_dead_letters_total{{destination="failed",{of}}} 1.0',
    ]


@both_backends
async def test_the_idle_time_and_what_recovery_does_are_exposed(tmp_path):
    """A counter of seconds that grows while a reader waits, and one of entries that were put back."""
    import anyio

    from trio_multispool.instrumentation import Returned

    registry, path = CollectorRegistry(), tmp_path / "spool"
    instrumentation = Prometheus(registry)
    async with await quick_spool(path, instrumentation=instrumentation) as spool:
        with anyio.move_on_after(0.01):
            async with spool.reader(Mail.SEND) as reader:
                await reader.dequeue()
    assert registry.get_sample_value("multispool_idle_seconds_total", {"spool": str(path), "queue": "send"}) > 0
    instrumentation.on_recover(Returned("s", "q", "a"))
    instrumentation.on_recover(Returned("s", None, "b"))
    assert registry.get_sample_value("multispool_recovered_total", {"spool": "s", "queue": "q"}) == 1


def test_times_in_a_queue_are_told_apart_from_moments_to_a_day():
    """And what is not known is not counted."""
    registry = CollectorRegistry()
    instrumentation = Prometheus(registry)
    for seconds in (0.0, 0.02, 45.0, 50_000.0, None):
        instrumentation.on_checkout(CheckedOut("s", "q", "e", 0.0, seconds))
    found = {
        line.split('le="')[1].split('"')[0]: float(line.rpartition(" ")[2])
        for line in generate_latest(registry).decode().splitlines()
        if line.startswith("multispool_in_queue_seconds_bucket")
    }
    assert [found[bound] for bound in ("0.01", "0.05", "30.0", "60.0", "14400.0", "86400.0", "+Inf")] == [
        *(1, 2, 2, 3, 3, 4, 4),
    ]


@both_backends
async def test_queues_are_looked_at_when_somebody_asks(tmp_path):
    """Available, checked out and set aside, of every queue on disk; and nothing is written for it."""
    registry, path = CollectorRegistry(), tmp_path / "spool"
    registry.register(SpoolCollector(path))
    assert exposed(registry) == [f'multispool_readable{{spool="{path}"}} 0.0']
    async with await quick_spool(path) as spool:
        await put(spool, Mail.SEND, "a", "b", "c")
        await put(spool, Mail.FAILED, "d")
        (path / "failed" / "d").write_bytes(b"{")
        assert is_err(await spool.entry(Mail.FAILED, "d").unwrap().checkout())
        async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap():
            before = snapshot(path)
            found = exposed(registry)
            assert snapshot(path) == before
    counts = {tuple(line.split('"')[1:6:2]): float(line.rpartition(" ")[2]) for line in found if "entries" in line}
    assert counts == {
        ("failed", str(path), "available"): 0,
        ("failed", str(path), "checked out"): 0,
        ("failed", str(path), "quarantined"): 1,
        ("retry", str(path), "available"): 0,
        ("retry", str(path), "checked out"): 0,
        ("send", str(path), "available"): 2,
        ("send", str(path), "checked out"): 1,
    }
    empty = [f'multispool_oldest_age_seconds{{queue="{queue}",spool="{path}"}} 0.0' for queue in ("failed", "retry")]
    queues = ("failed", "retry", "send")
    assert [line for line in found if "oldest" in line][:2] == empty
    assert len([line for line in found if "oldest" in line]) == len(queues)
    assert [line for line in found if "abandoned" in line] == [
        f'multispool_abandoned{{queue="{queue}",spool="{path}"}} 0.0' for queue in queues
    ]
    assert found[-1] == f'multispool_readable{{spool="{path}"}} 1.0'


@pytest.mark.postgresql
async def test_a_spool_on_a_server_is_looked_at_by_its_url():
    """Without its password in any label, and with the same metrics."""
    registry, url = CollectorRegistry(), postgresql.new_spool()
    registry.register(SpoolCollector(url))
    async with await quick_spool(url) as spool:
        await put(spool, Mail.SEND, "a", "b")
        found = {line.partition(" ")[0]: line.rpartition(" ")[2] for line in exposed(registry)}
        location = location_of(url)
    assert found[f'multispool_entries{{queue="send",spool="{location}",state="available"}}'] == "2.0"
    assert found[f'multispool_abandoned{{queue="send",spool="{location}"}}'] == "0.0"
    assert found[f'multispool_readable{{spool="{location}"}}'] == "1.0"
    assert float(found[f'multispool_oldest_age_seconds{{queue="send",spool="{location}"}}']) >= 0


class Told:
    """A store that tells what it is to tell, by its own clock."""

    location = "told"

    def now(self) -> float:
        """Stand still."""
        return START

    def standings(self) -> list[Standing]:
        """Tell of queues that stand differently."""
        return [
            Standing("ahead", {State.AVAILABLE: 1}, START + 60, 0),
            Standing("misdated", {State.AVAILABLE: 1}, 1.0, 0),
            Standing("old", {State.AVAILABLE: 3, State.WAITING: 2}, START - 90, 2),
            Standing("untold", {State.AVAILABLE: 0}, None, None),
        ]

    def pauses(self) -> dict[str, Pause]:
        """Tell of one pause that lasts, and of one that is over."""
        return {"old": Pause(START - 60), "ahead": Pause(START - 60, until=START)}

    def close(self) -> None:
        """Do nothing."""


def test_what_cannot_be_known_is_left_out(monkeypatch):
    """An age by an impossible date, and dead owners where nobody can tell; what is empty is 0 old."""
    monkeypatch.setattr(standings, "look_at_store", lambda _path: Told())
    values = standings.look("told")
    assert dict(standings.of(standings.OLDEST_AGE, values)) == {("ahead",): 0, ("old",): 90, ("untold",): 0}
    assert dict(standings.of(standings.ABANDONED, values)) == {("ahead",): 0, ("misdated",): 0, ("old",): 2}
    assert dict(standings.of(standings.ENTRIES, values))["old", "waiting"] == 2
    assert dict(standings.of(standings.READABLE, values)) == {(): 1}
    paused = dict(standings.of(standings.PAUSED, values))
    assert paused == {("ahead",): False, ("misdated",): False, ("old",): True, ("untold",): False}
