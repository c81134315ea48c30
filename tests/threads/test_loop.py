"""The nursery in a reader's block: what leaves it depends on what was raised, and never on which came first."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from trio_multispool.threads.loop import background, running_loop, to_raise

pytestmark = pytest.mark.anyio


async def test_the_block_waits_for_its_tasks() -> None:
    """They are in its background."""
    done = []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        done.append(True)

    async with background() as tasks:
        tasks.start_soon(work)
    assert done == [True]


async def test_what_the_block_raises_leaves_as_the_same_object() -> None:
    """Bare, with its own traceback and no context that somebody added."""
    error = LookupError("body")
    with pytest.raises(LookupError) as raised:
        async with background():
            raise error
    assert raised.value is error
    assert error.__context__ is None


async def run(*tasks: Any, body: Any) -> None:
    """Run tasks in the background of a block."""
    async with background() as group:
        for task in tasks:
            group.start_soon(task)
        await body()


async def test_what_a_lone_task_raises_is_raised_bare_and_cancels_the_block() -> None:
    """As the same object."""
    error = LookupError("task")

    async def fail() -> None:
        raise error

    with pytest.raises(LookupError) as raised:
        await run(fail, body=anyio.sleep_forever)
    assert raised.value is error


async def test_what_several_tasks_raise_is_raised_in_a_group() -> None:
    """Each once."""
    errors = [LookupError("one"), KeyError("two")]
    waiting = anyio.Event()

    async def fail() -> None:
        await waiting.wait()
        raise errors[0]

    async def fail_when_cancelled() -> None:
        waiting.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise errors[1]

    with pytest.raises(ExceptionGroup) as raised:
        await run(fail, fail_when_cancelled, body=anyio.sleep_forever)
    assert set(raised.value.exceptions) == set(errors)


async def test_if_both_raise_the_block_has_its_way_and_the_task_a_note() -> None:
    """Nothing is lost."""
    error, ready = ValueError("body"), anyio.Event()

    async def fail_when_ready() -> None:
        await ready.wait()
        raise LookupError("task")

    async def fail() -> None:
        ready.set()
        raise error

    with pytest.raises(ValueError, match="body") as raised:
        await run(fail_when_ready, body=fail)
    assert raised.value is error
    assert ["task" in note for note in error.__notes__] == [True]


async def test_a_cancellation_from_outside_passes_through() -> None:
    """The scope that was cancelled catches it."""
    with anyio.CancelScope() as scope:
        async with background() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_what_the_block_raises_is_not_hidden_by_a_cancellation_from_outside() -> None:
    """A scope that is cancelled swallows only cancellations."""
    error = LookupError("body")
    tidied = anyio.Event()

    async def tidy() -> None:
        with anyio.CancelScope(shield=True):
            await tidied.wait()

    async def fail() -> None:
        scope.cancel()
        tidied.set()
        raise error

    with pytest.raises(LookupError) as raised, anyio.CancelScope() as scope:
        await run(tidy, body=fail)
    assert raised.value is error


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_by_asyncio_passes_through_as_the_same_object(anyio_backend: str) -> None:
    """With the notes that it was given."""
    begun, seen = asyncio.Event(), list[str]()

    async def live() -> None:
        try:
            async with background():
                begun.set()
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError as cancelled:
                    cancelled.add_note("noted")
                    raise
        except asyncio.CancelledError as cancelled:
            seen.extend(cancelled.__notes__)
            raise

    task: asyncio.Task[Any] = asyncio.ensure_future(live())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert seen == ["noted"]


def test_of_two_exceptions_the_one_is_raised_that_must_not_be_lost() -> None:
    """asyncio: a cancellation or an interrupt rather than an error; of two, the late one, with what the other told."""

    async def main() -> None:
        def raised(before: BaseException, late: BaseException) -> tuple[BaseException, list[str]]:
            if isinstance(before, asyncio.CancelledError):
                before.add_note("it was already done")
            found = to_raise(before, late)
            return found, found.__notes__

        for late in (asyncio.CancelledError(), KeyboardInterrupt()):
            assert raised(OSError("full"), late) == (late, ["after: OSError('full')"])
        for late in (asyncio.CancelledError(), KeyboardInterrupt()):
            assert raised(asyncio.CancelledError(), late) == (late, ["it was already done"])
        first = KeyboardInterrupt()
        assert raised(first, asyncio.CancelledError()) == (first, ["and then: CancelledError()"])
        first = OSError("full")
        assert raised(first, OSError("gone")) == (first, ["and then: OSError('gone')"])

    asyncio.run(main())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_has_just_cancelled_itself_notices() -> None:
    """Nothing begins then, as when others have cancelled it."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running_loop().checkpoint_if_cancelled()
    task.uncancel()
    await running_loop().checkpoint_if_cancelled()
