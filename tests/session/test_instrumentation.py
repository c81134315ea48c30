"""Hooks: each operation that happened is told once, with true fields, in the event loop's thread."""

from __future__ import annotations

import math
from typing import Any

import anyio
import msgspec
import pytest

from helpers.children import Child
from helpers.gates import Gate, breathe
from helpers.inside import storage_of, waiters_of
from helpers.listening import Listening, kinds, listened_to
from helpers.results import is_err
from helpers.spools import ANNE, BERT, MAIL, Envelope, Mail, Wall, names_in, put, quick_spool
from trio_multispool import (
    NameTaken,
    Release,
    Remove,
    Save,
    Spool,
    Use,
)
from trio_multispool.instrumentation import (
    CheckedOut,
    Enqueued,
    Enqueueing,
    Failed,
    How,
    Operation,
    Quarantined,
    Returned,
    Settled,
    Waited,
    Working,
)
from trio_multispool.session.hooks import Hooks

both_backends = pytest.mark.anyio


def timeless(told: list[Any]) -> list[Any]:
    """Return what was told without durations, which are numbers of seconds and never negative."""

    def strip(one: Any) -> Any:
        durations = {name: getattr(one, name, None) for name in ("seconds", "in_hand", "in_queue")}
        assert all(value is None or 0 <= value < 600 for value in durations.values())
        return msgspec.structs.replace(one, **{n: 0.0 for n, value in durations.items() if value is not None})

    return [strip(one) if isinstance(one, msgspec.Struct) else one for one in told]


# Each operation once


@pytest.mark.sample
@both_backends
async def test_an_enqueue_is_told_once_with_its_fields(place):
    """The context manager is around `on_enqueue`; the name, the queue and the size of the data are true."""
    async with listened_to(place) as (spool, heard):
        entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello")).unwrap()
        path = str(place)
        assert timeless(heard.take()) == [
            Enqueueing(path, "send", None),
            Enqueued(path, "send", entry.name, 0.0, 5),
            ("enqueueing", None),
        ]


@both_backends
async def test_large_data_and_data_of_a_streaming_codec_are_told_too(place):
    """What is written in a hop of its own is told like what goes in a batch."""
    async with listened_to(place) as (spool, heard):
        (await spool.enqueue(Mail.SEND, ANNE, b"x" * 300_000)).unwrap()
        [told] = heard.take(Enqueued)
        assert told.data_size == 300_000


@both_backends
async def test_each_entry_of_a_batch_is_told_once_and_each_failure(place):
    """One context manager is around all; what was enqueued is told by its name, and what was not as a failure."""
    async with listened_to(place) as (spool, heard):
        await put(spool, Mail.SEND, "taken")
        heard.take()
        names = [Use("one"), Use("taken"), Use("two")]
        answers = await spool.enqueue_many(Mail.SEND, [(ANNE, b"a"), (ANNE, b"b"), (ANNE, b"cc")], names=names)
        assert [is_err(answer) for answer in answers] == [False, True, False]
        path = str(place)
        assert timeless(heard.take()) == [
            Enqueueing(path, "send", 3),
            Enqueued(path, "send", "one", 0.0, 1),
            Enqueued(path, "send", "two", 0.0, 2),
            Failed(path, Operation.ENQUEUE, "send", None, NameTaken("taken"), 0.0),
            ("enqueueing", None),
        ]


@both_backends
async def test_enqueues_of_many_tasks_are_told_each_in_its_own_task(place):
    """A batch that one task's thread enqueued is told in the tasks that asked, inside of their context managers."""
    async with listened_to(place) as (spool, heard):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(put, spool, Mail.SEND, f"n{number:02}")
        told = heard.events()
        assert sorted(one.entry for one in told) == await names_in(spool, Mail.SEND)


@both_backends
@pytest.mark.parametrize(
    ("settle", "how", "destination"),
    [
        (lambda job: job.save(Mail.RETRY), How.SAVED, "retry"),
        (lambda job: job.save(Mail.SEND, BERT), How.SAVED, "send"),
        (lambda job: job.remove(), How.REMOVED, None),
        (lambda job: job.release(), How.RELEASED, "send"),
    ],
)
async def test_a_check_out_and_its_settlement_are_told_once(place, settle, how, destination):
    """The order is: checked out, the block begins, settled, the block ends."""
    async with listened_to(place) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        heard.take()
        async with (await entry.checkout()).unwrap() as job:
            (await settle(job)).unwrap()
        path = str(place)
        assert timeless(heard.take()) == [
            CheckedOut(path, "send", "a", 0.0, 0.0),
            Working(path, "send", "a", {}),
            Settled(path, "send", "a", how, destination, 0.0, 0.0),
            ("working", None),
        ]


@both_backends
async def test_how_long_an_entry_was_to_be_had_is_told(place):
    """Since it came into its queue, or became due; nothing where a clock was wrong, and no negative time."""
    wall = Wall()
    async with listened_to(place, now=wall) as (spool, heard):

        async def told() -> float | None:
            heard.take()
            async with spool.reader(Mail.SEND) as reader:
                (await reader.dequeue_available()).unwrap()
            return heard.take(CheckedOut)[0].in_queue

        await put(spool, Mail.SEND, "a")
        [item] = storage_of(spool).inventory()
        wall.time = item.moved_at + 5
        assert await told() == 5
        [item] = storage_of(spool).inventory()
        if isinstance(place, str):  # a server knows that it had come before it was released
            wall.time += 5
            assert await told() == 10
        else:
            wall.time = item.moved_at + 7
            assert await told() == 7
        wall.time = item.moved_at - 600
        assert await told() == 0
        wall.time = item.moved_at - 1_000_000
        assert await told() is None
        (await spool.entry(Mail.SEND, "a").unwrap().direct.remove()).unwrap()
        (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=100)).unwrap()
        wall.time += 104
        assert await told() == 4


@both_backends
async def test_a_block_that_is_left_unsettled_is_told_as_a_release(place):
    """By its end, by an exception, and by a cancellation; the context manager sees what the block raised."""
    async with listened_to(place) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        heard.take()
        async with (await entry.checkout()).unwrap():
            pass
        with pytest.raises(KeyError):
            async with (await entry.checkout()).unwrap():
                raise KeyError
        with anyio.CancelScope() as scope:
            async with (await entry.checkout()).unwrap():
                scope.cancel()
                await anyio.sleep(math.inf)
        cancelled = anyio.get_cancelled_exc_class().__name__
        told = heard.take()
        assert [one for one in told if isinstance(one, tuple)] == [
            ("working", None),
            ("working", "KeyError"),
            ("working", cancelled),
        ]
        settled = [one for one in told if isinstance(one, Settled)]
        assert [(one.how, one.destination) for one in settled] == [(How.RELEASED, "send")] * 3
        assert kinds(told) == ["CheckedOut", "Working", "Settled", "tuple"] * 3


@both_backends
@pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"concurrency": 2, "prefetch": 4}])
async def test_a_pool_tells_each_entry_once(place, options):
    """Checked out, worked on and settled as the verdict says; what was fetched ahead goes back, and is told too."""
    verdicts = {"a": Save(Mail.RETRY), "b": Remove(), "c": Release(), "d": Remove()}

    async def handler(envelope: Envelope, _data: object) -> Any:
        return verdicts[envelope.recipient]

    async with listened_to(place) as (spool, heard):
        await put(spool, Mail.SEND, *verdicts)
        heard.take()
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(handler, **options)).unwrap()
        told = heard.take()
        settled = {one.entry: (one.how, one.destination) for one in told if isinstance(one, Settled)}
        assert settled == {
            "a": (How.SAVED, "retry"),
            "b": (How.REMOVED, None),
            "c": (How.RELEASED, "send"),
            "d": (How.REMOVED, None),
        }
        for kind in (CheckedOut, Working, Settled):
            found = [one.entry for one in told if isinstance(one, kind)]
            repeated = {"c"} if options.get("prefetch") and kind is not Working else set()
            assert sorted(set(found)) == sorted(verdicts)
            assert all(found.count(name) == 1 for name in set(verdicts) - repeated)
        assert sum(isinstance(one, CheckedOut) for one in told) == sum(isinstance(one, Settled) for one in told)


@both_backends
async def test_what_a_reader_returns_at_its_end_is_told(place):
    """An entry that was dequeued and not settled leaves this process's hands when the reader is left."""
    async with listened_to(place) as (spool, heard):
        await put(spool, Mail.SEND, "a", "b")
        heard.take()
        async with spool.reader(Mail.SEND) as reader:
            assert (await reader.dequeue()).unwrap() is not None
            assert (await reader.dequeue()).unwrap() is not None
        assert [(type(one), one.entry) for one in heard.events()] == [
            (CheckedOut, "a"),
            (CheckedOut, "b"),
            (Settled, "a"),
            (Settled, "b"),
        ]


@both_backends
async def test_a_channel_tells_as_queues_do(place):
    """Sending enqueues, receiving checks out, the block's end removes; the context manager is around the block."""
    async with listened_to(place) as (spool, heard):
        async with spool.channel(Mail.SEND) as (send, receive):
            await send.send((ANNE, b"Hello"))
            async with await receive.receive():
                assert kinds(heard.take()) == ["Enqueueing", "Enqueued", "tuple", "CheckedOut", "Working"]
            [settled, ended] = heard.take()
            assert (settled.how, ended) == (How.REMOVED, ("working", None))
            await send.send((ANNE, b"Hello"))
            received = await receive.receive()
            with pytest.raises(anyio.ClosedResourceError):
                async with received:
                    await receive.aclose()
        assert [one for one in heard.take() if isinstance(one, tuple)][-1] == ("working", None)


@both_backends
async def test_an_entry_that_does_not_decode_is_told_as_set_aside(tmp_path):
    """By a reader and by a check-out; it is not told as checked out."""
    async with listened_to(tmp_path / "spool") as (spool, heard):
        entries = await put(spool, Mail.SEND, "a", "b")
        heard.take()
        for name in ("a", "b"):
            (tmp_path / "spool" / "send" / name).write_bytes(b"{")
        async with spool.reader(Mail.SEND) as reader:
            assert (await reader.dequeue_available()).unwrap() is None
        told = heard.events()
        assert [(one.queue, one.entry) for one in told if isinstance(one, Quarantined)] == [
            ("send", "a"),
            ("send", "b"),
        ]
        assert len(told) == 2
        (tmp_path / "spool" / ".quarantine" / "send" / "a").rename(tmp_path / "spool" / "send" / "a")
        error = (await entries[0].checkout()).error
        set_aside, failed = heard.events()
        assert (set_aside.entry, set_aside.reason) == ("a", error.reason)
        assert (failed.operation, failed.entry, failed.error) == (Operation.CHECK_OUT, "a", error)


def check_out_and_say_so(parent, path):
    """Be a worker that has an entry in hand."""
    import anyio

    from helpers.spools import Mail, load_spool

    async def main() -> None:
        spool = await load_spool(path)
        job = (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap()
        parent.say(job.name)
        parent.hear()

    anyio.run(main)


@both_backends
@pytest.mark.parametrize("by", ["load", "reader", "recover"])
async def test_what_recovery_puts_back_is_told_once(place, by):
    """Whoever does it: loading, a reader on its way, or `recover`; or, on a server, any that has it open, by itself."""
    heard = Listening()
    spool = await quick_spool(place, instrumentation=heard)
    await put(spool, Mail.SEND, "a")
    with Child(check_out_and_say_so, place) as child:
        assert child.hear() == ["a"]
        if by == "load":
            spool.close()
        child.kill()
    heard.take()
    told: list[object] = []
    if by == "load":
        spool = (await Spool.load(place, MAIL, instrumentation=heard)).unwrap()
    with anyio.fail_after(60):  # a server notices a death soon
        while not told:
            if by == "reader":
                async with spool.reader(Mail.SEND) as reader:
                    _ = (await reader.dequeue_available()).unwrap()
            else:
                (await spool.recover()).unwrap()
            told += heard.take(Returned)
    assert told == [Returned(str(place), "send", "a")]
    (await spool.recover()).unwrap()
    assert heard.take(Returned) == []
    spool.close()


@both_backends
async def test_a_dry_run_of_a_recovery_tells_nothing(tmp_path):
    """Nothing was put back."""
    path = tmp_path / "spool"
    heard = Listening()
    spool = await quick_spool(path, instrumentation=heard)
    await put(spool, Mail.SEND, "a")
    with Child(check_out_and_say_so, path) as child:
        assert child.hear() == ["a"]
        child.kill()
    heard.take()
    assert len((await spool.recover(dry_run=True)).unwrap()) == 1
    assert heard.take() == []
    spool.close()


@both_backends
async def test_what_recovery_collects_is_told_without_a_queue(tmp_path):
    """A reservation that belongs to no entry."""
    async with listened_to(tmp_path / "spool") as (spool, heard):
        (tmp_path / "spool" / ".registry" / "orphan").touch()
        (await spool.recover()).unwrap()
        assert heard.events() == [Returned(str(tmp_path / "spool"), None, "orphan")]


async def test_durations_are_those_of_the_event_loops_clock(place, autojump_clock):
    """An entry that is worked on for an hour, on a clock that jumps, was in hand for an hour."""

    async def handler(_envelope: object, _data: object) -> Remove:
        await anyio.sleep(3600)
        reader.stop()
        return Remove()

    async with listened_to(place) as (spool, heard):
        await put(spool, Mail.SEND, "a")
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter(handler)).unwrap()
        [settled] = heard.take(Settled)
        assert 3600 <= settled.in_hand < 3601
        assert settled.seconds < 1
        assert heard.waits == []


async def test_a_wait_is_told_with_its_length(autojump_clock):
    """However it ends. No reader is used: a clock that jumps does not wait for its threads."""
    heard = Listening()
    hooks = Hooks(heard, "spool")
    with hooks.waiting("send"):
        await anyio.sleep(50)
    with anyio.move_on_after(20), hooks.waiting("send"):
        await anyio.sleep(50)
    assert heard.waits == [Waited("spool", "send", 50), Waited("spool", "send", 20)]


@both_backends
async def test_a_reader_that_has_nothing_to_do_is_told_of_its_waits(place):
    """Each wait once it is over, the last by a cancellation."""
    async with listened_to(place) as (spool, heard):
        async with spool.reader(Mail.RETRY) as reader, anyio.create_task_group() as tasks:
            tasks.start_soon(reader.dequeue)
            while not waiters_of(spool):  # nothing else shows that it waits
                await breathe()
            reader.stop()
        assert {(one.spool, one.queue) for one in heard.waits} == {(str(place), "retry")}


@both_backends
async def test_a_job_that_two_tasks_settle_is_told_once_and_as_it_was_settled(tmp_path):
    """A save is under way when the reader that the job belongs to is left: the entry was saved."""
    gate = Gate()
    async with listened_to(tmp_path / "spool", system_calls=gate) as (spool, heard):
        await put(spool, Mail.SEND, "a")
        async with anyio.create_task_group() as tasks, spool.reader(Mail.SEND) as reader:
            job = (await reader.dequeue()).unwrap()
            assert job is not None
            heard.take()
            gate.arm("move")
            tasks.start_soon(job.save, Mail.RETRY)
            await gate.reached()
            tasks.start_soon(open_soon, gate)
        assert [(one.how, one.destination) for one in heard.events()] == [(How.SAVED, "retry")]


async def open_soon(gate: Gate) -> None:
    """Open a gate when other tasks have come as far as they can."""
    await anyio.wait_all_tasks_blocked()
    gate.go()


@both_backends
async def test_a_block_whose_channel_was_closed_ends_for_the_instrumentation_too(place):
    """The entry was returned with the end that had received it, and the context manager is left once."""
    async with listened_to(place) as (spool, heard):
        await put(spool, Mail.SEND, "a")
        async with spool.channel(Mail.SEND) as (_, receive):
            received = await receive.receive()
            await received.__aenter__()
            await receive.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await received.__aexit__(None, None, None)
        assert heard.take().count(("working", None)) == 1


def test_without_an_instrumentation_nothing_is_told_and_no_clock_is_read():
    """There is no event loop here: a clock that was asked for the time would raise."""
    hooks = Hooks(None, "spool")
    assert hooks.now() == 0.0
    assert not hooks.listening
    with hooks.waiting("send"), hooks.enqueueing("send", 1) as carrier:
        assert carrier is None
    assert hooks.begin_working("send", "a", {}) is None
