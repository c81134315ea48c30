"""The event loop: wake it from a thread, run background tasks of a block, finish whatever is cancelled."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import anyio
import msgspec
from anyio import lowlevel

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Generator
    from types import ModuleType

    import trio
    from anyio.abc import TaskGroup


class Loop(msgspec.Struct, frozen=True):
    """The event loop that is running, for use from elsewhere."""

    call: Callable[[Callable[[], object]], None]
    """Have the loop call something soon; may itself be called from anywhere.

    An AnyIO event that is set from a raw signal handler would not wake asyncio, and one set from another thread breaks
    Trio. Once the loop has ended there is nobody to wake, and the call does nothing.
    """
    time: Callable[[], float]
    """The loop's clock, for callbacks: `anyio.current_time` needs a task, and a callback has none."""


def _trio_if_it_runs() -> ModuleType | None:
    trio = sys.modules.get("trio")  # not imported where it cannot be running
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None


def running_loop() -> Loop:
    """Return the loop that runs this."""
    trio = _trio_if_it_runs()
    if trio is not None:
        token = trio.lowlevel.current_trio_token()

        def call_on_trio(function: Callable[[], object]) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(function)

        return Loop(call_on_trio, trio.current_time)

    import asyncio  # noqa: PLC0415  # only where asyncio runs

    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # in that of another thread, AnyIO would not know where it is

    def call_on_asyncio(function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            _ = loop.call_soon_threadsafe(function, context=context)

    return Loop(call_on_asyncio, loop.time)


class Home:
    """The event loop that something is used in: the one that runs when it is made, or else the first that uses it.

    When that has ended, another of the same library may take over: nothing waits in it any more.
    """

    def __init__(self) -> None:
        """Take the running loop, if any."""
        self._loop = _this_loop()

    def is_elsewhere(self) -> bool:
        """Tell whether another loop runs here."""
        here = _this_loop()
        if here is not self._loop and (self._loop is None or _may_follow(here, self._loop)):
            self._loop = here
        return here is not self._loop


def _this_loop() -> object | None:
    trio = _trio_if_it_runs()
    if trio is not None:
        token: object = trio.lowlevel.current_trio_token()
        return token
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.get_running_loop()
    except RuntimeError:  # none runs
        return None


def _may_follow(here: object, loop: object) -> bool:
    """Tell whether `loop` has ended, and the one that runs `here` is of the same library."""
    on_trio = hasattr(loop, "run_sync_soon")
    if hasattr(here, "run_sync_soon") != on_trio:
        return False
    if not on_trio:
        return cast("asyncio.AbstractEventLoop", loop).is_closed()
    try:
        cast("trio.lowlevel.TrioToken", loop).run_sync_soon(lambda: None)
    except sys.modules["trio"].RunFinishedError:
        return True
    return False


class _TrioWait:
    """A wait of one task on Trio."""

    def __init__(self, *, shielded: bool) -> None:
        self.woken: bool = False
        """Whether the wait is over."""
        self.shielded: bool = shielded
        """Whether no scope can cancel the task in it. May be changed while it waits."""
        self.cancelled: bool = False
        """Whether a cancellation (or an interrupt) is on its way to the task, which may not have run since."""
        self._lowlevel: Any = sys.modules["trio"].lowlevel
        self._task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """End the wait, in the event loop. Idempotent."""
        self.woken = True
        task, self._task = self._task, None
        if task is not None:
            self._lowlevel.reschedule(task)

    def waker(self) -> Callable[[], None]:
        """Return what ends the wait from any thread. Once the loop has ended there is nobody to wake."""
        token, finished = self._lowlevel.current_trio_token(), sys.modules["trio"].RunFinishedError

        def wake_soon() -> None:
            with contextlib.suppress(finished):
                token.run_sync_soon(self.wake)

        return wake_soon

    async def until_woken(self) -> None:
        """Wait. Raises a cancellation; then it may be called again. No checkpoint if the wait is over."""
        if not self.woken:
            self._task = self._lowlevel.current_task()
            _ = await self._lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, raise_cancel: Callable[[], None]) -> object:
        """End the wait for a cancellation, or not. A shield keeps only what a scope sends: not an interrupt."""
        if self.shielded and not _is_interrupt(raise_cancel):
            return self._lowlevel.Abort.FAILED  # told again at the next checkpoint
        self._task = None
        self.cancelled = True
        return self._lowlevel.Abort.SUCCEEDED


def _is_interrupt(raise_cancel: Callable[[], None]) -> bool:
    try:
        raise_cancel()
    except KeyboardInterrupt:
        return True
    except BaseException:  # noqa: BLE001  # looked at only: Trio raises it where it is due
        return False
    return False


class _AsyncioWait:
    """The same on asyncio."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, shielded: bool) -> None:
        self.woken: bool = False
        self._loop = loop
        self._scope = anyio.CancelScope(shield=shielded)
        self._future: asyncio.Future[None] | None = None

    @property
    def shielded(self) -> bool:
        return self._scope.shield

    @shielded.setter
    def shielded(self, shielded: bool) -> None:
        self._scope.shield = shielded

    @property
    def cancelled(self) -> bool:
        return self._future is not None and self._future.cancelled()

    def wake(self) -> None:
        self.woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def waker(self) -> Callable[[], None]:
        def wake_soon() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                _ = self._loop.call_soon_threadsafe(self.wake)

        return wake_soon

    async def until_woken(self) -> None:
        if not self.woken:
            self._scope = anyio.CancelScope(shield=self._scope.shield)  # one may be entered once
            with self._scope:
                self._future = self._loop.create_future()
                await self._future


Wait: TypeAlias = _TrioWait | _AsyncioWait
"""A wait of one task, for others to end."""


def new_wait(*, shielded: bool = False) -> Wait:
    """Return a wait for the task that calls this."""
    if _trio_if_it_runs() is not None:
        return _TrioWait(shielded=shielded)

    import asyncio  # noqa: PLC0415  # only where asyncio runs

    return _AsyncioWait(asyncio.get_running_loop(), shielded=shielded)


async def checkpoint_if_cancelled() -> None:
    """Raise a cancellation that is on its way; on asyncio, also one that the task has asked for itself in this step."""
    trio = _trio_if_it_runs()
    if trio is not None:
        await trio.lowlevel.checkpoint_if_cancelled()
        return

    import asyncio  # noqa: PLC0415  # only where asyncio runs

    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await asyncio.sleep(0)
    await lowlevel.checkpoint_if_cancelled()


def context_for_a_thread() -> contextvars.Context:
    """Copy the context variables of the caller, for work in a thread, where no event loop runs."""
    context = contextvars.copy_context()
    sniffio = sys.modules.get("sniffio")  # by which AnyIO tells what runs; in a thread it may run a loop of its own
    if sniffio is not None and sniffio.current_async_library_cvar.get(None) is not None:
        _ = context.run(sniffio.current_async_library_cvar.set, None)
    return context


def take_over_notes(late: BaseException, leaving: BaseException | None) -> None:
    """Give a cancellation that comes while a block is left the notes of the cancellation that is `leaving` the block.

    They may say that an effect stands. The late one takes the other's place: it may be native, and that a scope's.
    """
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(leaving, cancelled) and isinstance(late, cancelled) and late is not leaving:
        for note in getattr(leaving, "__notes__", ()):
            late.add_note(note)


def to_raise(before: BaseException, late: BaseException) -> BaseException:
    """Return which of two exceptions is to be raised, of steps that are all done; it has the notes of the other.

    That is a cancellation or an interrupt, rather than an error; of two such, the late one, which may be native where
    the other was a scope's. An interrupt is never given up for a cancellation.
    """
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(late, Exception) or (isinstance(late, cancelled) and not isinstance(before, (Exception, cancelled))):
        before.add_note(f"and then: {late!r}")
        return before
    if isinstance(before, Exception):
        late.add_note(f"after: {before!r}")
    for note in getattr(before, "__notes__", ()):
        late.add_note(note)
    return late


@contextlib.contextmanager
def keeping_notes_of(leaving: BaseException | None) -> Generator[None]:
    """Surround what is awaited while `leaving` leaves a block; see `take_over_notes`."""
    try:
        yield
    except BaseException as late:  # passed on, with the notes of the other
        take_over_notes(late, leaving)
        raise


@contextlib.asynccontextmanager
async def background() -> AsyncGenerator[TaskGroup]:
    """Run tasks in the background of a block. The block ends when they have ended, so it must end them.

    What the block raises leaves as the same object. If a task fails, the block is cancelled, and what the task raised
    is raised: bare if it is alone, and several in an `ExceptionGroup`.
    """
    raised: BaseException | None = None
    try:
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    yield tasks
                except BaseException as error:  # noqa: BLE001  # raised again below, outside the group
                    raised = error
                if anyio.current_effective_deadline() == -math.inf:  # the tasks may not have been told yet
                    tasks.cancel_scope.cancel()
                tasks.cancel_scope.shield = True  # they end at once; what comes now is native
        except BaseExceptionGroup as failures:  # raised again below, or the block's own error is
            if raised is None or isinstance(raised, anyio.get_cancelled_exc_class()):
                if len(failures.exceptions) == 1:
                    raise failures.exceptions[0] from None
                raise
            raised.add_note(f"in the background: {failures!r}")
        except anyio.get_cancelled_exc_class() as late:
            take_over_notes(late, raised)
            raise
        if raised is not None:
            raise raised
    finally:
        del raised


async def apart(work: Callable[[], Awaitable[None]]) -> None:
    """Do the work of a task of a group, so that no cancellation in it counts as one of the task that the group is in.

    AnyIO (4.16) counts for each scope how often it has cancelled its task. If a scope is left while another around it
    is cancelled too, it hands its count to the next one outside; which, in a task of a group, is another task's. There,
    a native cancellation would be taken back in its place, and be lost.
    """
    with anyio.CancelScope() as scope:
        try:
            await work()
        finally:  # one that is cancelled, in no other, keeps its count
            scope.shield = True
            scope.cancel()


async def in_several_tasks(count: int, work: Callable[[anyio.CancelScope], Awaitable[None]]) -> bool:
    """Run `work` in several tasks at once; it is given the scope that ends them all. Tell if none was cancelled.

    What they raise is in an `ExceptionGroup`. A scope's cancellation ends them, and is not raised here: they may have
    brought something that the caller must return. Else the caller makes a checkpoint.
    """
    left, ended, done = count, anyio.Event(), 0

    async def one(tasks: TaskGroup) -> None:
        nonlocal left, done
        try:
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await work(tasks.cancel_scope)
                done += 1
        finally:
            left -= 1
            if not left:
                ended.set()

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            _ = tasks.start_soon(apart, functools.partial(one, tasks))
        try:
            with anyio.CancelScope(shield=True):  # what comes here is native, and ends them too
                await ended.wait()
        finally:
            tasks.cancel_scope.shield = True  # they end at once; what comes now is native too
    return done == count


async def whatever_is_cancelled(wait: Callable[[], Awaitable[object]]) -> None:
    """Wait for what is sure to come soon, and only then raise a cancellation that came meanwhile.

    Only asyncio's own can come: a shield keeps the others off.
    """
    cancellation: BaseException | None = None
    try:
        with anyio.CancelScope(shield=True):
            while True:
                try:
                    _ = await wait()
                except anyio.get_cancelled_exc_class() as cancelled:
                    cancellation = cancellation or cancelled
                else:
                    break
        if cancellation is not None:
            raise cancellation
    finally:
        del cancellation
