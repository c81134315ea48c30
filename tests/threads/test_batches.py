"""Batches, without a store: who leads, who waits, and what becomes of those who are cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
import trio
import trio.testing

from helpers.gates import breathe
from trio_multispool import Err, Ok, TooManyOpenFiles
from trio_multispool.threads import batches as batching
from trio_multispool.threads import pool as threads
from trio_multispool.threads import transaction as hop
from trio_multispool.threads.batches import LARGEST_BATCH, Batches
from trio_multispool.threads.loop import running_loop
from trio_multispool.threads.running import Running

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


PATIENCE = 30
"""How long a task may wait to be served, in seconds: much too long for one that is."""


class Store:
    """Takes batches; `hold` keeps the next one in its thread until `go`, right before its commits."""

    def __init__(self) -> None:
        """Begin with no batch done."""
        self.batches: list[list[str]] = []
        self.committed: list[str] = []
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        """Hold the batches that come."""
        self._open.clear()

    def go(self) -> None:
        """Let them go on."""
        self._open.set()

    def perform(self, requests: Sequence[Any]) -> list[BaseException | None]:
        """Do a batch."""
        self.batches.append([name for name, _ in requests])
        if not self._open.wait(timeout=60):
            raise AssertionError("nobody let the batch go on")
        outcomes: list[BaseException | None] = []
        for name, before_commit in requests:
            try:
                before_commit()
                self._commit(name)
            except BaseException as error:  # noqa: BLE001  # what a store does
                outcomes.append(error)
            else:
                outcomes.append(None)
        return outcomes

    def _commit(self, name: str) -> None:
        if name.startswith("expected"):
            raise TooManyOpenFiles(name, "none left")
        if name.startswith("bug"):
            raise LookupError(name)
        self.committed.append(name)


class Steps:
    """A step of a batch that is written as a generator: it yields what the store is to do."""

    def __init__(self, work: Any) -> None:
        """Begin when it is prepared."""
        self._work = work

    def prepare(self, before_commit: Any) -> Any:
        """Run up to the `yield`; there need not be one."""
        self._steps = self._work(before_commit)
        return next(self._steps, None)

    def conclude(self, failure: BaseException | None) -> Any:
        """Run on from there."""
        try:
            next(self._steps) if failure is None else self._steps.throw(failure)
        except StopIteration as end:
            return end.value
        raise AssertionError("one thing is yielded")


class Settling:
    """Tasks that settle jobs through one `Batches`."""

    def __init__(self) -> None:
        """Begin with a store that holds nothing."""
        self.store = Store()
        self.batches: Batches[Any] = Batches(self.store.perform)
        self.answers: dict[str, Any] = {}

    async def settle(self, name: str, *, of: object = None, insist: bool = False) -> Any:
        """Settle one job, and keep the answer."""

        def work(before_commit: Any) -> Generator[Any]:
            yield name, before_commit

        of = name if of is None else of
        with anyio.fail_after(PATIENCE):  # whoever is not served must not wait for ever
            if insist:
                await self.batches.finish([(name, Steps(work), of)], answers := {})
                self.answers[name] = answers[0]
            else:
                self.answers[name] = await self.batches.run(name, Steps(work), of=of)

    async def settle_in(self, scope: anyio.CancelScope, name: str) -> None:
        """Settle one job in a scope."""
        with scope:
            await self.settle(name)

    async def begun(self, count: int = 1) -> None:
        """Wait until so many batches have begun."""
        while len(self.store.batches) < count:
            await breathe()

    async def waiting(self, count: int) -> None:
        """Wait until so many tasks are pending."""
        while len(self.batches._pending) < count:
            await breathe()

    def check_idle(self) -> None:
        """Check that nobody is waited for."""
        assert not self.batches._pending
        assert self.batches._leader is None


@pytest.fixture
def settling() -> Settling:
    """Make a store and its batches."""
    return Settling()


@pytest.mark.anyio
async def test_those_who_come_while_a_batch_is_under_way_are_the_next_one(settling: Settling) -> None:
    """The first goes alone at once; the others wait for it, and then go together, in the order of their coming."""
    settling.store.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()
        for number in range(5):
            tasks.start_soon(settling.settle, f"{number}")
            await settling.waiting(number + 1)
        settling.store.go()
    assert settling.store.batches == [["first"], ["0", "1", "2", "3", "4"]]
    assert settling.answers == dict.fromkeys(["first", "0", "1", "2", "3", "4"], Ok(None))
    settling.check_idle()


@pytest.mark.anyio
async def test_whoever_was_served_leaves_the_way_free(settling: Settling) -> None:
    """After a batch of several, the next one to come leads at once, however many times."""
    for round_number in range(5):
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(settling.settle, f"{round_number}-{number}")
        settling.check_idle()
        await settling.settle(f"{round_number}-alone")
    assert sorted(settling.store.committed) == sorted(settling.answers)


@pytest.mark.anyio
async def test_a_batch_has_a_largest_size(settling: Settling) -> None:
    """What is beyond it is the next batch."""
    settling.store.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()
        for number in range(LARGEST_BATCH + 3):
            tasks.start_soon(settling.settle, f"{number:03}")
        await settling.waiting(LARGEST_BATCH + 3)
        settling.store.go()
    assert [len(batch) for batch in settling.store.batches] == [1, LARGEST_BATCH, 3]


@pytest.mark.anyio
async def test_a_job_is_in_a_batch_once(settling: Settling) -> None:
    """A second transaction on the same job waits for the next batch: the first may hold the job's lock."""
    settling.store.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()
        for number, name in enumerate(["a", "a again", "b"]):
            tasks.start_soon(functools.partial(settling.settle, name, of=name[0]))
            await settling.waiting(number + 1)
        settling.store.go()
    assert settling.store.batches == [["first"], ["a", "b"], ["a again"]]


@pytest.mark.anyio
async def test_each_has_the_answer_of_its_own_transaction(settling: Settling) -> None:
    """Trouble is an `Err`, a bug is raised, both in the task whose transaction it was, and the others are `Ok`."""
    settling.store.hold()
    raised: list[BaseException] = []

    async def with_a_bug() -> None:
        try:
            await settling.settle("bug")
        except LookupError as error:
            raised.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()
        for name in ("a", "expected", "b"):
            tasks.start_soon(settling.settle, name)
        tasks.start_soon(with_a_bug)
        await settling.waiting(4)
        settling.store.go()
    assert settling.answers == {name: Ok(None) for name in ("first", "a", "b")} | {
        "expected": Err(TooManyOpenFiles("expected", "none left"))
    }
    assert [str(error) for error in raised] == ["bug"]


@pytest.mark.anyio
async def test_a_transaction_runs_with_the_context_variables_of_its_task(settling: Settling) -> None:
    """Whoever leads: codecs see what their own caller has set."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[tuple[str, str]] = []
    settling.store.hold()

    async def settle(name: str) -> None:
        variable.set(name)

        def work(before_commit: Any) -> Generator[Any]:
            seen.append((name, variable.get()))
            yield name, before_commit
            seen.append((name, variable.get()))

        assert await settling.batches.run(name, Steps(work), of=name) == Ok(None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settle, "first")
        await settling.begun()
        for name in ("a", "b", "c"):
            tasks.start_soon(settle, name)
        await settling.waiting(3)
        settling.store.go()
    assert sorted(seen) == sorted([(name, name) for name in ("first", "a", "b", "c")] * 2)


@pytest.mark.anyio
async def test_whoever_is_cancelled_while_it_is_pending_has_done_nothing(settling: Settling) -> None:
    """It leaves at once, and the others are served."""
    settling.store.hold()
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()
        tasks.start_soon(settling.settle_in, scope, "cancelled")
        await settling.waiting(1)
        tasks.start_soon(settling.settle, "other")
        await settling.waiting(2)
        scope.cancel()
        while len(settling.batches._pending) > 1:
            await breathe()
        assert scope.cancelled_caught
        settling.store.go()
    assert settling.store.batches == [["first"], ["other"]]
    settling.check_idle()


@pytest.mark.anyio
async def test_whoever_is_cancelled_in_the_moment_that_it_is_to_lead_hands_over(settling: Settling) -> None:
    """The leader wakes it, and is cancelled together with it: the next in the row leads."""
    settling.store.hold()
    scope = anyio.CancelScope()
    hand_over = settling.batches._hand_over

    def hand_over_and_cancel() -> None:
        hand_over()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()
        tasks.start_soon(settling.settle_in, scope, "chosen")
        await settling.waiting(1)
        tasks.start_soon(settling.settle, "other")
        await settling.waiting(2)
        settling.batches._hand_over = hand_over_and_cancel  # type: ignore[method-assign]
        settling.store.go()
    assert settling.answers["other"] == Ok(None)
    assert ("chosen" in settling.store.committed) == ("chosen" in settling.answers), "cancelled, and done all the same"
    settling.check_idle()


@pytest.mark.anyio
@pytest.mark.parametrize("who", ["first", "other"])
async def test_a_scope_cancelled_while_a_batch_is_under_way_changes_nothing_of_its_outcome(
    settling: Settling, who: str
) -> None:
    """Its caller waits for the batch; what was done is answered, what was not is cancelled, and nothing between."""
    scopes = {"first": anyio.CancelScope(), "other": anyio.CancelScope()}
    settling.store.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle_in, scopes["first"], "first")
        if who == "other":
            await settling.begun()
            tasks.start_soon(settling.settle_in, scopes["other"], "other")
            await settling.waiting(1)
            settling.store.go()
            settling.store.hold()
            await settling.begun(2)
        else:
            await settling.begun()
        scopes[who].cancel()
        for _ in range(5):
            await breathe()
        assert who not in settling.answers
        settling.store.go()
    assert (who in settling.store.committed) == (who in settling.answers)
    assert (who not in settling.answers) == scopes[who].cancelled_caught
    settling.check_idle()


@pytest.mark.anyio
async def test_what_must_be_done_is_done_whatever_is_cancelled(settling: Settling) -> None:
    """Pending or under way, in a cancelled scope: it waits for its turn, and is done."""
    settling.store.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()

        async def give_back() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await settling.settle("back", insist=True)

        tasks.start_soon(give_back)
        await settling.waiting(1)
        settling.store.go()
    assert settling.store.committed == ["first", "back"]
    assert settling.answers["back"] == Ok(None)


@pytest.mark.anyio
async def test_tasks_that_come_again_and_again_share_every_batch(settling: Settling) -> None:
    """A leader that had company waits for those who are about to come: else it would be alone every other time."""
    rounds = 10

    async def settle_often(task: str) -> None:
        for number in range(rounds):
            await settling.settle(f"{task}{number}")

    async with anyio.create_task_group() as tasks:
        for task in "abcd":
            tasks.start_soon(settle_often, task)
    assert len(settling.store.batches) <= rounds + 2
    settling.check_idle()


@pytest.mark.anyio
async def test_a_task_that_is_alone_again_is_not_kept_waiting(settling: Settling) -> None:
    """It goes on alone after the company has left."""
    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(settling.settle, name)
    for name in "def":
        await settling.settle(name)
    assert settling.store.batches[-3:] == [["d"], ["e"], ["f"]]
    assert not settling.batches._in_company


@pytest.mark.anyio
async def test_a_thread_that_cannot_be_started_fails_its_leader_only(
    settling: Settling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are led by the next one, and the way is free afterwards."""
    settling.store.hold()
    failures: list[str] = []
    start = threads.start
    failing = True

    def start_or_fail(*arguments: Any) -> None:
        nonlocal failing
        if failing:
            failing = False
            raise RuntimeError("can't start new thread")
        start(*arguments)

    async def settle(name: str) -> None:
        try:
            await settling.settle(name)
        except RuntimeError as error:
            failures.append(f"{name}: {error}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()
        for number, name in enumerate("abc"):
            tasks.start_soon(settle, name)
            await settling.waiting(number + 1)
        with monkeypatch.context() as patched:
            patched.setattr(settling.batches._running, "start", start_or_fail)
            settling.store.go()
            while failing:
                await anyio.lowlevel.checkpoint()
    assert failures == ["a: can't start new thread"]
    assert settling.store.batches == [["first"], ["b", "c"]]
    settling.check_idle()


@pytest.mark.anyio
async def test_a_store_that_raises_instead_of_answering_raises_in_each_task(settling: Settling) -> None:
    """It is a bug in the store; no task waits for ever, and the next batch is served."""

    def perform(_requests: Any) -> Any:
        raise LookupError("a bug")

    settling.batches._perform = perform
    with pytest.raises(LookupError, match="a bug"):
        await settling.settle("one")
    settling.batches._perform = settling.store.perform
    await settling.settle("two")
    assert settling.store.committed == ["two"]


# asyncio's own cancellation, which asks nobody


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("who", ["leader", "follower"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_task_that_is_cancelled_by_asyncio_while_under_way_withdraws(
    settling: Settling, anyio_backend: str, who: str, times: int
) -> None:
    """It ends as cancelled, after its batch, without effect; and the other one's transaction is done."""
    settling.store.hold()
    first = asyncio.ensure_future(settling.settle("first"))
    await settling.begun()
    tasks = {name: asyncio.ensure_future(settling.settle(name)) for name in ("leader", "follower")}
    await settling.waiting(2)
    settling.store.go()
    settling.store.hold()
    await settling.begun(2)
    for _ in range(times):
        tasks[who].cancel()
        await breathe()
    assert not tasks[who].done()
    settling.store.go()
    with pytest.raises(asyncio.CancelledError):
        await tasks[who]
    await asyncio.wait([first, *tasks.values()])
    assert set(settling.store.committed) == {"first", "leader", "follower"} - {who}
    assert set(settling.answers) == {"first", "leader", "follower"} - {who}
    settling.check_idle()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_by_asyncio_while_pending_has_done_nothing(
    settling: Settling, anyio_backend: str
) -> None:
    """It ends at once."""
    settling.store.hold()
    first = asyncio.ensure_future(settling.settle("first"))
    await settling.begun()
    pending = asyncio.ensure_future(settling.settle("pending"))
    await settling.waiting(1)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    settling.store.go()
    await first
    assert settling.store.committed == ["first"]
    settling.check_idle()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("when", ["pending", "under way"])
async def test_what_must_be_done_is_done_before_a_cancellation_of_asyncio_is_raised(
    settling: Settling, anyio_backend: str, when: str
) -> None:
    """It is raised all the same, once it is done."""
    settling.store.hold()
    first = asyncio.ensure_future(settling.settle("first"))
    await settling.begun()
    back = asyncio.ensure_future(settling.settle("back", insist=True))
    await settling.waiting(1)
    if when == "under way":
        settling.store.go()
        settling.store.hold()
        await settling.begun(2)
    back.cancel()
    await breathe()
    assert not back.done()
    settling.store.go()
    with pytest.raises(asyncio.CancelledError):
        await back
    await first
    assert settling.store.committed == ["first", "back"]
    settling.check_idle()


class _Interrupted:
    """A wait into which Ctrl-C comes once."""

    def __init__(self, shielded: bool) -> None:
        self.cancelled, self.shielded, self._interrupted = False, shielded, False
        self._wait = running_loop().new_wait(shielded)

    @property
    def woken(self) -> bool:
        return self._wait.woken

    def wake(self) -> None:
        self._wait.wake()

    async def until_woken(self) -> None:
        if not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt
        await self._wait.until_woken()


@pytest.mark.parametrize("insist", [False, True])
async def test_an_interrupt_of_one_that_is_pending_keeps_nobody(insist: bool, settling: Settling) -> None:
    """Trio raises `KeyboardInterrupt` in whatever its main task awaits: all others are done.

    What is interrupted is not, unless it insists: then it is done first, and the interrupt raised after that.
    """
    settling.store.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settling.settle, "first")
        await settling.begun()

        async def settle_interrupted() -> None:
            with pytest.raises(KeyboardInterrupt):
                await settling.settle("interrupted", insist=insist)

        waits = [_Interrupted]
        running = settling.batches._running
        new_wait = running.loop.new_wait
        running.loop = msgspec.structs.replace(
            running.loop,
            new_wait=lambda shielded: (waits.pop() if waits else new_wait)(shielded),  # noqa: PLW0108  # the first only
        )

        if insist:
            nursery.start_soon(settle_interrupted)
            await settling.waiting(1)
        else:
            await settle_interrupted()
        nursery.start_soon(settling.settle, "other")
        await settling.waiting(2 if insist else 1)
        settling.store.go()
    assert settling.store.batches == [["first"], ["interrupted", "other"] if insist else ["other"]]
    settling.check_idle()


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope right before the n-th step of any task."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope, self.left = scope, steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@pytest.mark.parametrize("which", range(4))
async def test_one_of_several_cancelled_at_any_step_is_done_or_cancelled_and_keeps_nobody(which: int) -> None:
    """For every n: cancelled at the n-th step of all tasks together, whoever it is, and whatever it is doing."""
    steps, reached = 0, True
    while reached:
        steps += 1
        settling, scope = Settling(), trio.CancelScope()
        instrument = _CancelAt(scope, steps)

        async def settle(number: int, settling: Settling = settling, scope: trio.CancelScope = scope) -> None:
            with scope if number == which else trio.CancelScope():
                await settling.settle(f"{number}-a")
                await settling.settle(f"{number}-b")

        trio.lowlevel.add_instrument(instrument)
        try:
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(settle, number)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        assert sorted(settling.store.committed) == sorted(settling.answers)
        assert {f"{number}-{part}" for number in range(4) if number != which for part in "ab"} <= set(settling.answers)
        settling.check_idle()
        reached = instrument.left <= 0
    assert steps > 10


def yielding(name: str) -> Any:
    """Return a transaction that asks the store for `name`."""

    def work(before_commit: Any) -> Generator[Any, None, str]:
        yield name, before_commit
        return f"{name} is done"

    return Steps(work)


@pytest.mark.anyio
async def test_what_a_transaction_returns_is_its_answer(settling: Settling) -> None:
    """And the store is not asked if there is nothing for it to do."""

    def nothing_to_do(_before_commit: Any) -> Generator[Any, None, str]:
        yield from ()
        return "nothing asks for this"

    assert await settling.batches.run("a", yielding("a"), of="a") == Ok("a is done")
    assert await settling.batches.run("b", Steps(nothing_to_do), of="b") == Ok(None)
    assert settling.store.batches == [["a"]]


@pytest.mark.anyio
async def test_several_that_must_be_done_are_one_batch_of_one_task(settling: Settling) -> None:
    """Each has its own answer, in order; those of one job are in batches one after the other."""
    names = ["a", "expected", "b"]
    works = [(name, yielding(name), name) for name in names] + [("a again", yielding("a again"), "a")]
    await settling.batches.finish(works, answers := {})
    assert list(answers.values()) == [
        Ok("a is done"), Err(TooManyOpenFiles("expected", "none left")), Ok("b is done"), Ok("a again is done"),
    ]  # fmt: skip
    assert settling.store.batches == [names, ["a again"]]
    settling.check_idle()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["no thread", "a bug"])
async def test_one_that_fails_keeps_no_other_from_being_done(
    kind: str, settling: Settling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several that must be done: the others are done and answered, what it met is raised, and the way is free."""
    names = ["bug", "b", "expected"] if kind == "a bug" else ["a", "b", "expected"]
    works = [(name, yielding(name), name) for name in names]
    start, failures = threads.start, [RuntimeError("can't start new thread")]

    def start_or_fail(*arguments: Any) -> None:
        if failures and kind == "no thread":
            raise failures.pop()
        start(*arguments)

    monkeypatch.setattr(settling.batches._running, "start", start_or_fail)
    answers: dict[int, Any] = {}
    with pytest.raises(RuntimeError if kind == "no thread" else LookupError):
        await settling.batches.finish(works, answers)
    assert answers == {1: Ok("b is done"), 2: Err(TooManyOpenFiles("expected", "none left"))}
    await settling.settle("later")
    settling.check_idle()


async def test_what_was_finished_in_vain_is_noted_on_a_native_cancellation() -> None:
    """asyncio: each that failed has a note of its own, whichever it is, and each has its answer."""

    async def main() -> None:
        settling = Settling()
        settling.store.hold()
        works = [(name, yielding(name), name) for name in ("a", "expected", "bug")]
        answers: dict[int, Any] = {}
        task = asyncio.create_task(settling.batches.finish(works, answers))
        await settling.begun()
        task.cancel()
        settling.store.go()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        notes = raised.value.__notes__
        assert len(notes) == 2
        assert notes[0].startswith("expected failed meanwhile")
        assert "LookupError" in notes[1]
        assert sorted(answers) == [0, 1]
        settling.check_idle()

    await trio.to_thread.run_sync(lambda: asyncio.run(main()))


async def test_several_that_must_be_done_are_done_when_the_task_is_cancelled_natively() -> None:
    """asyncio: however often and whenever the task is cancelled, all of them are done before it ends."""

    async def main() -> None:
        settling = Settling()
        settling.store.hold()
        works = [(name, yielding(name), name) for name in ("a", "b", "c")]
        first = asyncio.create_task(settling.settle("first"))
        await settling.begun()
        task = asyncio.create_task(settling.batches.finish(works, answers := {}))
        await settling.waiting(3)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        settling.store.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        await first
        assert sorted(settling.store.committed) == ["a", "b", "c", "first"]
        assert list(answers.values()) == [Ok(f"{name} is done") for name in ("a", "b", "c")]
        settling.check_idle()

    await trio.to_thread.run_sync(lambda: asyncio.run(main()))


@pytest.mark.anyio
async def test_a_leader_queues_for_its_thread_and_then_takes_all_who_have_come() -> None:
    """With a limiter, one token serves a batch; it is given back."""
    settling, limiter = Settling(), anyio.CapacityLimiter(1)
    settling.batches = Batches(settling.store.perform, limiter=limiter)
    limiter.acquire_on_behalf_of_nowait(settling)
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(settling.settle, f"{number}")
            await settling.waiting(number + 1)
        while not limiter.statistics().tasks_waiting:
            await breathe()
        assert settling.store.batches == []
        limiter.release_on_behalf_of(settling)
    assert settling.store.batches == [["0", "1", "2"]]
    assert limiter.borrowed_tokens == 0
    settling.check_idle()


@pytest.mark.anyio
async def test_a_leader_that_is_cancelled_while_it_queues_hands_over() -> None:
    """Nobody is left waiting for it, and nothing of it has happened."""
    settling, limiter = Settling(), anyio.CapacityLimiter(1)
    settling.batches = Batches(settling.store.perform, limiter=limiter)
    limiter.acquire_on_behalf_of_nowait(settling)
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle_in, scope, "leader")
        await settling.waiting(1)
        for number in range(2):
            tasks.start_soon(settling.settle, f"{number}")
            await settling.waiting(number + 2)
        scope.cancel()
        while "leader" in [part.of for part in settling.batches._pending]:
            await breathe()
        limiter.release_on_behalf_of(settling)
    assert settling.store.batches == [["0", "1"]]
    assert limiter.borrowed_tokens == 0
    settling.check_idle()


@pytest.mark.anyio
async def test_what_raises_when_a_batch_has_ended_keeps_nobody_waiting() -> None:
    """What was put off until the end of the hops, and is the caller's own: a system call, for example."""
    settling, limiter, running = Settling(), anyio.CapacityLimiter(1), Running()
    settling.batches = Batches(settling.store.perform, limiter=limiter, running=running)
    settling.store.hold()
    raised: list[BaseException] = []

    def fail() -> None:
        raise LookupError("an act")

    async def settle(name: str) -> None:
        try:
            await settling.settle(name)
        except LookupError as error:
            raised.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settle, "first")
        await settling.begun()
        tasks.start_soon(settle, "second")
        await settling.waiting(1)
        running.grace.afterwards(fail)
        settling.store.go()
    assert settling.store.committed == ["first", "second"]
    assert list(map(str, raised)) == ["an act"]
    await settling.settle("third")
    assert limiter.borrowed_tokens == 0
    settling.check_idle()


@pytest.mark.anyio
async def test_how_large_a_batch_may_be_is_asked_for_each(settling: Settling) -> None:
    """A store that may have less open than before takes less at a time. One is always taken."""
    sizes = iter([3, 2])
    settling.batches = Batches(settling.store.perform, at_most=lambda: next(sizes))
    settling.store.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle, "first")
        await settling.begun()
        for number in range(6):
            tasks.start_soon(settling.settle, f"{number}")
            await settling.waiting(number + 1)
        settling.store.go()
    assert [len(batch) for batch in settling.store.batches] == [1, 3, 2, 1]


def interrupted_at(line: int) -> tuple[bool, list[str]]:
    """Run a batch, and send SIGINT at the n-th line of the modules; tell whether it came to that, and what was done."""
    settling, left, hit = Settling(), line, False

    def trace(frame: Any, event: str, _argument: Any) -> Any:
        nonlocal left, hit
        if frame.f_code.co_filename not in (batching.__file__, hop.__file__):
            return None
        if event == "line" and not hit:
            left -= 1
            if left == 0:
                hit = True
                signal.raise_signal(signal.SIGINT)
        return trace

    async def settle_first() -> None:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            await settling.settle("first")
            await trio.lowlevel.checkpoint()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)

    async def main() -> None:
        await settle_first()
        with trio.fail_after(30):
            await settling.settle("second")
            await settling.batches.finish([("third", yielding("third"), "third")], answers := {})
        assert answers == {0: Ok("third is done")}
        settling.check_idle()

    trio.run(main)
    return hit, settling.store.committed


def test_an_interrupt_at_any_line_leaves_the_way_free() -> None:
    """Ctrl-C under Trio: whoever comes after it is served, and what was interrupted is done once at most."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # for which Trio puts its own
    try:
        line, hit = 0, True
        while hit:
            line += 1
            hit, committed = interrupted_at(line)
            assert committed in (["first", "second", "third"], ["second", "third"]), line
        assert line > 20
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("who", ["the leader", "one of its batch"])
def test_an_interrupt_withdraws_what_has_not_been_committed(who: str) -> None:
    """Ctrl-C under Trio, while the thread is at work: what was interrupted is not done, and the others are."""
    settling = Settling()
    interrupted: list[BaseException] = []

    @trio.lowlevel.enable_ki_protection  # so that it is raised in the main task
    async def interrupt() -> None:
        if who == "the leader":
            await settling.begun()
        else:
            await settling.waiting(2)
            settling.store.go()
            settling.store.hold()
            await settling.begun(2)
        signal.raise_signal(signal.SIGINT)
        await trio.testing.wait_all_tasks_blocked()
        settling.store.go()

    async def main() -> None:
        settling.store.hold()
        async with trio.open_nursery() as nursery:
            if who != "the leader":
                nursery.start_soon(settling.settle, "first")
                await settling.begun()
                nursery.start_soon(settling.settle, "second")
                await settling.waiting(1)
            nursery.start_soon(interrupt)
            try:
                await settling.settle("mine")
            except KeyboardInterrupt as error:
                interrupted.append(error)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # for which Trio puts its own
    try:
        trio.run(main)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(interrupted) == 1
    assert settling.store.committed == ([] if who == "the leader" else ["first", "second"])
    settling.check_idle()
