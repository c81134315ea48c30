"""Entries whose handler fails: when they are tried again, what is kept of that, and where they end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from helpers.calls import FailingCalls
from helpers.children import Child, Parent, quick_directory
from helpers.gates import Hold, breathe, let_go_at_last
from helpers.inside import storage_of
from helpers.listening import Listening
from helpers.results import is_err
from helpers.spools import ANNE, Envelope, Mail, Wall, load_spool, quick_spool, state_of
from trio_multispool import (
    Err,
    Exponential,
    GiveUp,
    NotAdopted,
    Ok,
    OutOfSpace,
    Release,
    Remove,
    Retry,
    RetryLater,
    Save,
    Spool,
    StorageFailure,
    Use,
)
from trio_multispool.clock import this_process
from trio_multispool.events import Event
from trio_multispool.instrumentation import AttemptFailed
from trio_multispool.model.attempts import History, history_in
from trio_multispool.model.notes import decode_notes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

PLAIN = Exponential(first=10, factor=3, max=100, jitter=0)
THREE = Retry(attempts=3, backoff=PLAIN, dead_letter=Mail.FAILED)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


def history(path: Path, name: str = "a") -> History | None:
    """Read what is kept of an entry's attempts."""
    raw = state_of(path).notes.get(name)
    return None if raw is None else history_in(decode_notes(raw))


def failures(path: Path, name: str = "a") -> list[str | None]:
    """Return the types of the failures that are kept."""
    found = history(path, name)
    return [] if found is None else [None if each.failure is None else each.failure.type for each in found.attempts]


class Handler:
    """A handler that does what it is told, one thing after the other, and remembers which attempt it was."""

    def __init__(self, *what: Any) -> None:
        """Raise exceptions, and answer verdicts; the last again and again."""
        self._what = list(what)
        self.attempts: list[int] = []

    async def __call__(self, envelope: Envelope, data: Any) -> Any:
        """Do the next."""
        self.attempts.append(data.attempt)
        envelope.recipient = "spoilt"  # what a handler that fails does to its argument is not kept
        one = self._what.pop(0) if len(self._what) > 1 else self._what[0]
        if isinstance(one, BaseException):
            raise one
        return one


async def go_over(
    spool: Spool[Any, Any, Any, Any], handler: Any, retry: Retry[Any] = THREE, queue: Mail = Mail.SEND, **options: Any
) -> Any:
    """Have what is available handled once."""
    async with spool.reader(queue) as reader:
        return await reader.iter_available(handler, retry=retry, **options)


async def spool_with_one(path: Path, wall: Wall, **options: Any) -> Spool[Any, Any, Any, Any]:
    """Make a spool with one entry."""
    spool = await quick_spool(path, now=wall, **options)
    (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("a"))).unwrap()
    return spool


# Trying again, and giving up


@pytest.mark.sample
async def test_what_fails_waits_longer_each_time_and_is_forgotten_when_it_succeeds(place, wall):
    """The handler is told which attempt it is; until the wait is over, nobody gets the entry."""
    spool = await spool_with_one(place, wall)
    handler = Handler(OSError("no"), TimeoutError(), Remove())
    for wait in (10, 30):
        assert await go_over(spool, handler) == Ok(None)
        assert set(state_of(place).waiting["send"]) == {"a"}
        wall.time += wait - 0.1
        assert await go_over(spool, handler) == Ok(None)
        wall.time += 0.1
    assert failures(place) == ["OSError", "TimeoutError"]
    assert await go_over(spool, handler) == Ok(None)
    assert handler.attempts == [1, 2, 3]
    state = state_of(place)
    assert (state.notes, state.data, state.faults()) == ({}, {}, [])


async def test_the_last_attempt_makes_a_dead_letter_with_its_history(place, wall):
    """Of each attempt by whom, when, and why it failed; of the last the traceback. The metadata is as it was."""
    spool = await spool_with_one(place, wall)
    error = OSError("no route")
    error.add_note("to example.org")
    for _ in range(3):
        (await go_over(spool, Handler(error))).unwrap()
        wall.time += 100
    state = state_of(place)
    assert state.available["failed"] == {"a": msgspec.json.encode(Envelope("anne@example.org"))}
    assert state.faults() == []
    found = history(place)
    assert found is not None
    assert (found.queue, found.spent, found.given_up) == ("send", 3, True)
    start = Wall().time
    assert [(each.number, each.queue, each.began, each.ended, each.next_at) for each in found.attempts] == [
        (1, "send", start, start, start + 10),
        (2, "send", start + 100, start + 100, start + 130),
        (3, "send", start + 200, start + 200, None),
    ]
    assert {(each.host, each.pid) for each in found.attempts} == {this_process()}
    *earlier, last = [each.failure for each in found.attempts]
    assert last is not None
    assert last.message == "no route"
    assert "to example.org" in last.notes
    assert any("entry 'a'" in note for note in last.notes)
    assert "__call__" in last.traceback
    assert "OSError: no route" in last.traceback
    assert not any(each.traceback for each in earlier if each)


async def test_a_dead_letter_that_is_put_back_has_all_its_attempts_again_and_its_history(place, wall):
    """However it is put back: nobody but the next reader need know of the history."""
    spool = await spool_with_one(place, wall)
    once = Retry(attempts=1, dead_letter=Mail.FAILED)
    (await go_over(spool, Handler(KeyError()), once)).unwrap()
    async with (await spool.entry(Mail.FAILED, "a").unwrap().checkout()).unwrap() as job:
        (await job.save(Mail.SEND)).unwrap()
    handler = Handler(OSError(), GiveUp("enough"))
    (await go_over(spool, handler)).unwrap()
    wall.time += 10
    (await go_over(spool, handler)).unwrap()
    assert handler.attempts == [1, 2]
    assert failures(place) == ["KeyError", "OSError", "GiveUp"]
    assert set(state_of(place).available["failed"]) == {"a"}


async def test_attempts_in_another_queue_count_anew(place, wall):
    """An entry that somebody has moved on by hand while it was being tried."""
    spool = await spool_with_one(place, wall)
    for _ in range(2):
        (await go_over(spool, Handler(OSError()))).unwrap()
        wall.time += 100
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout(early=True)).unwrap() as job:
        (await job.save(Mail.RETRY)).unwrap()
    handler = Handler(OSError())
    (await go_over(spool, handler, queue=Mail.RETRY)).unwrap()
    assert handler.attempts == [1]
    assert failures(place) == ["OSError"] * 3


async def test_attempts_none_is_for_ever(place, wall):
    """And what is not worth another attempt is given up all the same."""
    spool = await spool_with_one(place, wall)
    retry = Retry(attempts=None, backoff=PLAIN, dead_letter=Mail.FAILED, on=OSError)
    for _ in range(30):
        (await go_over(spool, Handler(OSError()), retry)).unwrap()
        wall.time += 100
    assert set(state_of(place).waiting["send"]) == {"a"}
    (await go_over(spool, Handler(KeyError()), retry)).unwrap()
    assert set(state_of(place).available["failed"]) == {"a"}


@pytest.mark.parametrize("jitter_of", [0.0, 0.25])
async def test_chance_is_drawn_for_each_failure(path, wall, jitter_of, monkeypatch):
    """The wait is what the backoff makes of it."""
    spool = await spool_with_one(path, wall)
    monkeypatch.setattr(spool._session, "chance", lambda: jitter_of)  # randomness has no public seam
    retry = Retry(attempts=3, backoff=Exponential(first=8, jitter=1), dead_letter=Mail.FAILED)
    (await go_over(spool, Handler(OSError()), retry)).unwrap()
    found = history(path)
    assert found is not None
    assert found.attempts[0].next_at == wall.time + 8 * (1 - jitter_of)


async def test_without_a_wait_it_is_tried_again_at_once(place, wall):
    """And by a reader that goes on, until there is no attempt left."""
    spool = await spool_with_one(place, wall)
    handler = Handler(OSError(), OSError(), GiveUp())
    retry = Retry(attempts=5, backoff=Exponential(first=0), dead_letter=Mail.FAILED)

    async def last(envelope: Envelope, data: Any) -> Any:
        if data.attempt == 3:
            reader.stop()
        return await handler(envelope, data)

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter(last, retry=retry)).unwrap()
    assert handler.attempts == [1, 2, 3]
    assert set(state_of(place).available["failed"]) == {"a"}


# What a handler answers


async def test_retry_later_says_how_long_and_counts(place, wall):
    """Unless it says otherwise: then it costs nothing, and leaves the history as it was."""
    spool = await spool_with_one(place, wall)
    handler = Handler(RetryLater(7, "busy"), RetryLater(9, counts=False), RetryLater(1), RetryLater(1, "at last"))
    for wait in (7, 9, 1):
        (await go_over(spool, handler)).unwrap()
        wall.time += wait - 0.1
        (await go_over(spool, handler)).unwrap()  # nothing is due
        wall.time += 0.1
    (await go_over(spool, handler)).unwrap()
    assert handler.attempts == [1, 2, 2, 3]
    found = history(place)
    assert found is not None
    assert [each.failure.message for each in found.attempts if each.failure] == ["busy", "", "at last"]
    assert failures(place) == ["RetryLater"] * 3
    assert set(state_of(place).available["failed"]) == {"a"}


async def test_what_counts_for_nothing_leaves_nothing(place, wall):
    """There are no notes where there were none."""
    spool = await spool_with_one(place, wall)
    (await go_over(spool, Handler(RetryLater(9, counts=False)))).unwrap()
    assert state_of(place).notes == {}
    assert set(state_of(place).waiting["send"]) == {"a"}


async def test_give_up_is_no_other_attempt(place, wall):
    """With the reason."""
    spool = await spool_with_one(place, wall)
    (await go_over(spool, Handler(GiveUp("gone for good")))).unwrap()
    found = history(place)
    assert found is not None
    assert found.given_up
    failure = found.attempts[0].failure
    assert failure is not None
    assert (failure.type, failure.message) == ("GiveUp", "gone for good")
    assert set(state_of(place).available["failed"]) == {"a"}


@pytest.mark.parametrize("verdict", [Save(Mail.RETRY), Save(Mail.SEND, not_before=60)], ids=["moved on", "same queue"])
async def test_what_succeeds_and_stays_has_no_history(place, wall, verdict):
    """Other notes are kept."""
    spool = await spool_with_one(place, wall, instrumentation=Listening({"traceparent": "00-1-2-01"}))
    (await go_over(spool, Handler(OSError()))).unwrap()
    wall.time += 10
    (await go_over(spool, Handler(verdict))).unwrap()
    notes = decode_notes(state_of(place).notes["a"])
    assert set(notes) == {"trace"}


class Unencodable:
    """What no codec takes."""


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, "TypeError"),
        (Save("send"), "TypeError"),
        (Save(Mail.SEND, not_before=-1), "ValueError"),
        (Save(Mail.RETRY, Unencodable()), "trio_multispool.errors.EncodingFailed"),
    ],
    ids=["no verdict", "no queue", "no time", "no metadata"],
)
async def test_an_answer_that_cannot_be_stored_is_a_failed_attempt(place, wall, answer, kind):
    """One entry with which the handler does so must not end all the others' work."""
    spool = await spool_with_one(place, wall)
    (await go_over(spool, Handler(answer))).unwrap()
    assert failures(place) == [kind]
    assert set(state_of(place).waiting["send"]) == {"a"}


async def test_a_handler_that_takes_too_long_has_failed(place, wall):
    """As by raising `TimeoutError`."""
    spool = await spool_with_one(place, wall)

    async def sleepy(_envelope: Envelope, _data: Any) -> Remove:
        await anyio.sleep_forever()
        return Remove()

    (await go_over(spool, sleepy, time_limit=0.01)).unwrap()
    assert failures(place) == ["TimeoutError"]


@pytest.mark.parametrize("verdict", [RetryLater(1), GiveUp()])
async def test_answers_about_attempts_need_a_retry(place, wall, verdict):
    """Else nobody has said where dead letters go; the entry goes back."""
    spool = await spool_with_one(place, wall)
    async with spool.reader(Mail.SEND) as reader:
        with pytest.raises(TypeError, match="retry=Retry"):
            await reader.iter_available(Handler(verdict))
    assert set(state_of(place).available["send"]) == {"a"}
    assert state_of(place).notes == {}


# What costs no attempt


@pytest.mark.parametrize("how", ["cancelled", "drained", "released", "left"])
@pytest.mark.parametrize("failed_before", [False, True])
async def test_what_goes_back_costs_no_attempt(place, wall, how, failed_before):
    """Neither a scope that is cancelled, nor a reader that is drained, nor a handler that releases."""
    spool = await spool_with_one(place, wall)
    if failed_before:
        (await go_over(spool, Handler(OSError()))).unwrap()
        wall.time += 10
    before = state_of(place).notes
    at_work = anyio.Event()
    seen: list[Any] = []

    async def handler(_envelope: Envelope, data: Any) -> Any:
        seen.append((data.attempt, len(failures(place))))
        if how == "released":
            reader.stop()
            return Release()
        if how == "drained":
            reader.drain(0)
        at_work.set()
        return await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            if how in {"cancelled", "left"}:

                async def end() -> None:
                    await at_work.wait()
                    (scope if how == "cancelled" else tasks.cancel_scope).cancel()

                tasks.start_soon(end)
            await reader.iter(handler, retry=THREE)
    assert seen == [(1 + failed_before, 1 + failed_before)], "it was written down before the handler was called"
    state = state_of(place)
    assert state.notes == before
    places = set(state.available["send"]) | set(state.waiting["send"])
    assert (places, state.faults()) == ({"a"}, [])


async def test_what_is_fetched_ahead_and_not_begun_costs_no_attempt(place, wall):
    """Only what a handler was called with."""
    spool = await quick_spool(place, now=wall)
    for name in "abcdefgh":
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name))).unwrap()

    async def handler(_envelope: Envelope, _data: Any) -> Remove:
        reader.stop()
        raise OSError

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter(handler, retry=THREE, concurrency=2, prefetch=4)).unwrap()
    state = state_of(place)
    assert set(state.notes) == set(state.waiting["send"])
    assert 1 <= len(state.waiting["send"]) <= 2
    assert set(state.available["send"]) | set(state.waiting["send"]) == set("abcdefgh")


async def test_an_attempt_that_failed_is_kept_though_its_scope_is_cancelled(place, wall):
    """It did fail: the failure is written down, and the entry waits for its next attempt."""
    spool = await spool_with_one(place, wall)
    scope = anyio.CancelScope()

    async def handler(_envelope: Envelope, _data: Any) -> Remove:
        scope.cancel()
        raise OSError

    with scope:
        await go_over(spool, handler)
    assert scope.cancelled_caught
    assert failures(place) == ["OSError"]
    assert set(state_of(place).waiting["send"]) == {"a"}


@pytest.mark.parametrize("prefetch", [0, 1])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_attempt_whose_task_is_cancelled_before_its_handler_is_called_was_none(
    anyio_backend, prefetch, path, wall, monkeypatch
):
    """Cancelled by asyncio while the thread is at work. One that was kept ready is not even written down."""
    spool = await spool_with_one(path, wall)
    storage, hold = storage_of(spool), Hold()
    notes, annotate = storage.notes, storage.annotate
    written: list[str] = []
    handler = Handler(Remove())

    def notes_and_hold(name: str) -> Any:
        found = notes(name)
        hold.wait()
        return found

    def annotate_and_tell(claim: Any, *arguments: Any) -> None:
        written.append(claim.name)
        annotate(claim, *arguments)

    monkeypatch.setattr(storage, "notes", notes_and_hold)
    monkeypatch.setattr(storage, "annotate", annotate_and_tell)
    with let_go_at_last(hold):
        task = asyncio.ensure_future(go_over(spool, handler, prefetch=prefetch))
        await hold.reached()
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        hold.go()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (written, handler.attempts) == ([] if prefetch else ["a", "a"], [])
    assert history(path) is None
    assert state_of(path).names("send") == ["a"]
    await go_over(spool, handler)
    assert handler.attempts == [1]


async def test_what_a_failing_check_out_gives_back_was_no_attempt(path, wall, monkeypatch):
    """The first is struck out when reading the second fails, with a bug; nobody will handle either."""
    spool = await spool_with_one(path, wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b"))).unwrap()
    session, decode = spool._session, spool._session.decode_or_set_aside  # a bug has no public seam

    def decode_or_fail(claim: Any) -> Any:
        assert claim.name != "b" or history(path) is not None
        return decode(claim) if claim.name != "b" else 1 / 0

    monkeypatch.setattr(session, "decode_or_set_aside", decode_or_fail)
    handler = Handler(Remove())
    with pytest.raises(ExceptionGroup):
        await go_over(spool, handler, concurrency=2)
    assert handler.attempts == []
    assert (history(path), history(path, "b")) == (None, None)
    assert state_of(path).names("send") == ["a", "b"]


async def test_an_attempt_that_may_have_been_written_down_is_struck_out(path, wall, monkeypatch):
    """The error is answered, and what it is about counts nothing; what was checked out with it is handled."""
    spool = await spool_with_one(path, wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b"))).unwrap()
    storage, annotate = storage_of(spool), storage_of(spool).annotate
    failed: list[str] = []

    def annotate_and_fail(claim: Any, *arguments: Any) -> None:
        annotate(claim, *arguments)
        if claim.name == "b" and arguments[1] is not None:
            failed.append(claim.name)
            raise StorageFailure("write", str(path), errno.EIO)

    monkeypatch.setattr(storage, "annotate", annotate_and_fail)
    handler = Handler(Remove(), Remove())
    answer = await go_over(spool, handler, concurrency=2)
    assert isinstance(answer.error, StorageFailure)
    assert (failed[:1], handler.attempts) == (["b"], [1])
    assert history(path, "b") is None
    assert state_of(path).names("send") == ["b"]


# Workers that die


def work_until_killed(parent: Parent, path: str) -> None:
    """Handle what is available; the handler kills its process."""
    import os
    import signal

    import anyio

    from helpers.spools import Mail, load_spool
    from trio_multispool import Exponential, Retry

    retry = Retry(attempts=3, backoff=Exponential(first=0), dead_letter=Mail.FAILED)

    async def handler(_envelope: object, data: object) -> None:
        parent.say(data.attempt)  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)

    async def main() -> None:
        spool = await load_spool(path)  # type: ignore[arg-type]
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(handler, retry=retry)).unwrap()  # type: ignore[arg-type]
        parent.say("done")

    anyio.run(main)


def test_a_poison_entry_that_kills_its_worker_each_time_ends_among_the_dead_letters(place):
    """It is called as often as it may be, and then given up by a worker that does not call the handler."""
    path = place
    anyio.run(quick_spool_with_one, path)
    for number in (1, 2, 3):
        with Child(work_until_killed, path) as worker:
            assert list(worker) == [[number]]
            assert worker.process.wait() == -signal.SIGKILL
    with Child(work_until_killed, path) as worker:
        assert list(worker) == [["done"]]
    state = state_of(path)
    assert set(state.available["failed"]) == {"a"}
    assert state.faults() == []
    found = history(path)
    assert found is not None
    assert (found.given_up, found.spent) == (True, 3)
    assert [(each.number, each.ended, each.failure) for each in found.attempts] == [(n, None, None) for n in (1, 2, 3)]
    assert len({each.pid for each in found.attempts}) == 3


async def quick_spool_with_one(path: Path) -> None:
    """Make a spool with one entry, and close it."""
    async with await quick_spool(path) as spool:
        (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("a"))).unwrap()


async def test_a_worker_that_died_is_one_attempt_among_others(place, wall):
    """The next one is told that it is the second."""
    spool = await spool_with_one(place, wall)
    with Child(work_until_killed, place) as worker:
        assert list(worker) == [[1]]
    while not (await spool.recover()).unwrap():  # a server needs a moment to notice
        await breathe()
    handler = Handler(OSError())
    (await go_over(spool, handler)).unwrap()
    assert handler.attempts == [2]
    assert failures(place) == [None, "OSError"]


# Trouble


async def test_retry_wants_a_spool_whose_programs_know_of_entries_that_wait(path, wall):
    """Else what fails could not wait: it is said before anything is taken."""
    spool = await spool_with_one(path, wall)
    spool.close()
    os.unlink(path / ".spool.json")
    spool = await load_spool(path)
    handler = Handler(Remove())
    assert await go_over(spool, handler) == Err(NotAdopted(str(path), "entries that wait"))
    assert handler.attempts == []


async def test_retry_and_on_error_exclude_each_other(place, wall):
    """Before anything is taken; and so do other mistakes raise."""
    spool = await spool_with_one(place, wall)
    handler = Handler(Remove())
    with pytest.raises(TypeError, match="exclude each other"):
        await go_over(spool, handler, on_error=lambda *_: Remove())
    with pytest.raises(TypeError, match="Retry"):
        await go_over(spool, handler, {"attempts": 3})
    with pytest.raises(ValueError, match="another queue"):
        await go_over(spool, handler, Retry(dead_letter=Mail.SEND))
    with pytest.raises(TypeError, match="queues of this spool"):
        await go_over(spool, handler, Retry(dead_letter=Event.QUARANTINED))
    assert handler.attempts == []


async def test_on_a_full_disk_attempts_are_made_without_a_record(path, wall, caplog):
    """Those who make room must be able to. What then fails cannot wait: that is an `Err`, and the entry is back."""
    calls = FailingCalls()
    spool = await spool_with_one(path, wall, system_calls=calls)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b"))).unwrap()
    with calls.failing("write", errno.ENOSPC):
        answer = await go_over(spool, Handler(Remove(), OSError()))
        assert isinstance(answer, Err)
        assert isinstance(answer.error, OutOfSpace)
    not_recorded, not_noted = Event.ATTEMPT_NOT_RECORDED.value, Event.LEFT_BEHIND.value
    assert [record.event for record in caplog.records] == [not_recorded, not_recorded, not_noted]
    assert set(state_of(path).available["send"]) == {"b"}
    assert state_of(path).faults() == []
    handler = Handler(Remove())
    (await go_over(spool, handler)).unwrap()
    assert handler.attempts == [1]


async def test_other_trouble_with_the_record_ends_the_iteration(path, wall):
    """Nothing is handled of which nobody would know that it was."""
    calls = FailingCalls()
    spool = await spool_with_one(path, wall, system_calls=calls)
    handler = Handler(Remove())
    with calls.failing("open", errno.EACCES, on=".notes.a"):
        assert is_err(await go_over(spool, handler))
    assert handler.attempts == []
    assert set(state_of(path).available["send"]) == {"a"}
    (await go_over(spool, handler)).unwrap()
    assert handler.attempts == [1]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_what_the_function_on_raises_ends_the_iteration(place, wall, concurrency):
    """It is a bug of the program's, and no failure of the entry's: the attempt costs nothing, and no other follows."""
    spool = await spool_with_one(place, wall)
    handler = Handler(OSError(), Remove())

    def wrong(_error: Exception) -> bool:
        raise ZeroDivisionError

    async with spool.reader(Mail.SEND) as reader:
        with pytest.raises((ZeroDivisionError, ExceptionGroup)):
            await reader.iter(handler, retry=Retry(dead_letter=Mail.FAILED, on=wrong), concurrency=concurrency)
    assert handler.attempts == [1]
    assert state_of(place).notes == {}
    assert set(state_of(place).available["send"]) == {"a"}


async def test_what_is_no_exception_passes_through(place, wall):
    """A worker that is interrupted is stopped: no attempt is spent."""
    spool = await spool_with_one(place, wall)
    with pytest.raises(KeyboardInterrupt):
        await go_over(spool, Handler(KeyboardInterrupt()))
    assert state_of(place).notes == {}
    assert set(state_of(place).available["send"]) == {"a"}


async def test_one_failing_entry_does_not_disturb_the_others(place, wall):
    """In a pool: all are handled, and those that fail wait."""
    spool = await quick_spool(place, now=wall)
    for number in range(20):
        (await spool.enqueue(Mail.SEND, ANNE, str(number).encode(), name=Use(f"{number:02}"))).unwrap()

    async def handler(_envelope: Envelope, data: Any) -> Remove:
        if int((await data.load()).unwrap()) % 4 == 0:
            raise OSError
        return Remove()

    (await go_over(spool, handler, concurrency=5)).unwrap()
    state = state_of(place)
    assert sorted(state.waiting["send"]) == ["00", "04", "08", "12", "16"]
    assert set(state.notes) == set(state.data) == set(state.waiting["send"])


# What is told


async def test_each_failure_is_told(place, wall, caplog):
    """In the log, and to the instrumentation, after the entry has been settled."""
    caplog.set_level(logging.WARNING, "trio_multispool")
    heard = Listening()
    spool = await spool_with_one(place, wall, instrumentation=heard)
    error = OSError("no route")
    two = Retry(attempts=2, backoff=PLAIN, dead_letter=Mail.FAILED)
    for _ in range(2):
        (await go_over(spool, Handler(error), two)).unwrap()
        wall.time += 10
    told = [one for one in heard.events() if isinstance(one, AttemptFailed)]
    where = str(place)
    assert told == [
        AttemptFailed(where, "send", "a", 1, "OSError", error, 10.0, None),
        AttemptFailed(where, "send", "a", 2, "OSError", error, None, "failed"),
    ]
    assert [(record.levelname, record.event, record.entry, record.attempt) for record in caplog.records] == [
        ("WARNING", Event.ATTEMPT_FAILED.value, "a", 1),
        ("ERROR", Event.DEAD_LETTERED.value, "a", 2),
    ]
    assert caplog.records[0].getMessage() == (
        "attempt 1 of 2 at entry a of queue send failed: OSError: no route; again in 10.0 s"
    )
    assert caplog.records[1].getMessage() == (
        "entry a of queue send is a dead letter in failed, after attempt 2: OSError: no route"
    )


async def test_what_was_given_up_for_its_dead_workers_is_told_too(place, wall, caplog):
    """There is no exception then."""
    heard = Listening()
    spool = await spool_with_one(place, wall, instrumentation=heard)
    with Child(work_until_killed, place) as worker:
        assert list(worker) == [[1]]
    while not (await spool.recover()).unwrap():  # a server needs a moment to notice
        await breathe()
    handler = Handler(Remove())
    (await go_over(spool, handler, Retry(attempts=1, dead_letter=Mail.FAILED))).unwrap()
    assert handler.attempts == []
    told = [one for one in heard.events() if isinstance(one, AttemptFailed)]
    assert told == [AttemptFailed(str(place), "send", "a", 1, "WorkerDied", None, None, "failed")]
    assert "its worker died" in caplog.records[-1].getMessage()
