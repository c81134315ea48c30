"""The event loop: wake it from a thread, run background tasks of a block, finish whatever is cancelled."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import math
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
import msgspec
from anyio import lowlevel

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Generator

    from anyio.abc import TaskGroup


Call: TypeAlias = "Callable[[Callable[[], object]], None]"


class Loop(msgspec.Struct, frozen=True):
    """The event loop that is running: what differs between libraries, and what is of use from elsewhere."""

    call: Call
    """Have the loop call something soon; may itself be called from anywhere.

    An AnyIO event that is set from a raw signal handler would not wake asyncio, and one set from another thread breaks
    Trio. Once the loop has ended there is nobody to wake, and the call does nothing.
    """
    time: Callable[[], float]
    """The loop's clock, from anywhere: `anyio.current_time` needs a task, and a callback has none."""
    new_wait: Callable[[bool], Wait]
    """Make a wait for a task of the loop, `shielded` or not."""
    new_hop: Callable[[bool], WaitForThread]
    """Make one for a thread to end."""
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    """Raise a cancellation that is on its way; on asyncio, also one that the task has asked for itself in this step."""
    checkpoint: Callable[[], Awaitable[None]]
    """Likewise, and let other tasks run."""
    token: Callable[[], object]
    """Return what tells the loop that runs the caller from others of the same library, or raise `RuntimeError`."""
    new_scope: Callable[[], anyio.CancelScope]
    """Make a scope to cancel; on Trio by itself, because AnyIO's takes twelve calls more."""
    start_task: Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
    """Run a task that belongs to nobody, until it ends or the loop does. Keep what this returns. It must not raise."""
    waits_are_checkpoints: bool
    """Whether a task in a cancelled scope is told as soon as it waits, and not some steps later."""


def running_loop() -> Loop:
    """Return the loop that runs this."""
    sniffio = sys.modules.get("sniffio")  # which Trio imports, and tells of each step of its tasks
    return _trio_loop() if sniffio is not None and sniffio.thread_local.name == "trio" else _asyncio_loop()


def _trio_loop() -> Loop:
    trio: Any = sys.modules["trio"]  # not imported where it cannot be running
    lowlevel, token = trio.lowlevel, trio.lowlevel.current_trio_token()

    def call(function: Callable[[], object]) -> None:
        try:
            token.run_sync_soon(function)
        except trio.RunFinishedError:
            return

    def new_hop(shielded: bool) -> _TrioHop | _TrioWait:  # noqa: FBT001  # as `Loop` says
        try:
            return _TrioHop(trio, shielded, _bells.pop() if _bells else _Bell())
        except OSError:  # no descriptor is left for a bell
            return _TrioWait(lowlevel, call, shielded)

    new_wait = functools.partial(_TrioWait, lowlevel, call)
    return Loop(
        call,
        lowlevel.current_clock().current_time,
        new_wait,
        new_hop if hasattr(os, "eventfd") else new_wait,  # only Linux has bells
        lowlevel.checkpoint_if_cancelled,
        lowlevel.checkpoint,
        lowlevel.current_trio_token,
        trio.CancelScope,
        lowlevel.spawn_system_task,
        waits_are_checkpoints=True,
    )


def _asyncio_loop() -> Loop:
    import asyncio  # noqa: PLC0415  # only where asyncio runs

    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # in that of another thread, AnyIO would not know where it is

    def call(function: Callable[[], object]) -> None:
        try:
            _ = loop.call_soon_threadsafe(function, context=context)
        except RuntimeError:  # the loop is closed
            return

    async def checkpoint_if_cancelled() -> None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            await asyncio.sleep(0)
        await lowlevel.checkpoint_if_cancelled()

    async def checkpoint() -> None:
        await checkpoint_if_cancelled()
        await lowlevel.cancel_shielded_checkpoint()

    new_wait = functools.partial(_AsyncioWait, loop, call)
    return Loop(
        call,
        loop.time,
        new_wait,
        new_wait,
        checkpoint_if_cancelled,
        checkpoint,
        asyncio.get_running_loop,
        anyio.CancelScope,
        lambda work: loop.create_task(work(), context=contextvars.Context()),
        waits_are_checkpoints=False,
    )


class _TrioWait(msgspec.Struct, eq=False):
    """A wait of one task on Trio."""

    lowlevel: Any
    call: Call
    shielded: bool
    """Whether no scope can cancel the task in it. May be changed while it waits."""
    woken: bool = False
    """Whether the wait is over."""
    cancelled: bool = False
    """Whether a cancellation (or an interrupt) is on its way to the task, which may not have run since."""
    task: Any = None
    """What waits now."""

    def wake(self) -> None:
        """End the wait, in the event loop. Idempotent."""
        self.woken = True
        task, self.task = self.task, None
        if task is not None:
            self.lowlevel.reschedule(task)

    def tell(self) -> None:
        """End the wait, in a thread."""
        self.call(self.wake)

    def until_woken(self) -> Awaitable[object]:
        """Wait, if it is not over. Raises a cancellation; then it may be called again."""
        self.task = self.lowlevel.current_task()
        waiting: Awaitable[object] = self.lowlevel.wait_task_rescheduled(self._abort)
        return waiting

    def _abort(self, raise_cancel: Callable[[], None]) -> object:
        """End the wait for a cancellation, or not. A shield keeps only what a scope sends: not an interrupt."""
        if self.shielded and not _is_interrupt(raise_cancel):
            return self.lowlevel.Abort.FAILED  # told again at the next checkpoint
        self.task = None
        self.cancelled = True
        return self.lowlevel.Abort.SUCCEEDED


def _is_interrupt(raise_cancel: Callable[[], None]) -> bool:
    try:
        raise_cancel()
    except KeyboardInterrupt:
        return True
    except BaseException:  # noqa: BLE001  # looked at only: Trio raises it where it is due
        return False
    return False


class _Bell:
    """A descriptor that a thread rings and a task waits for."""

    def __init__(self) -> None:
        self.fd: Final = os.eventfd(0)

    def __del__(self) -> None:
        if hasattr(self, "fd"):  # there may have been no descriptor left
            os.close(self.fd)


_bells: Final[collections.deque[_Bell]] = collections.deque(maxlen=16)
"""Those that nobody uses now."""
os.register_at_fork(after_in_child=_bells.clear)


class _TrioHop(msgspec.Struct, eq=False):
    """A wait of one task on Trio for one thread, by a bell: Trio's token would run a task of its own in between.

    That task, and what the loop does for another step, were half of what a hop of a lone task called.
    """

    trio: Any
    shielded: bool
    bell: _Bell
    woken: bool = False

    def tell(self) -> None:
        """End the wait, in a thread."""
        os.eventfd_write(self.bell.fd, 1)

    async def until_woken(self) -> None:
        """As above; always a checkpoint."""
        bell = self.bell
        try:
            await self.trio.lowlevel.wait_readable(bell.fd)
        except self.trio.Cancelled:
            if not self.shielded:
                raise
            with self.trio.CancelScope(shield=True):  # told again at the next checkpoint
                await self.trio.lowlevel.wait_readable(bell.fd)
        _ = os.eventfd_read(bell.fd)
        self.woken = True
        _bells.append(bell)


class _AsyncioWait:
    """The same on asyncio."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Call, shielded: bool) -> None:  # noqa: FBT001  # as above
        self.woken: bool = False
        self._loop = loop
        self._call = call
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

    def tell(self) -> None:
        self._call(self.wake)

    async def until_woken(self) -> None:
        self._scope = anyio.CancelScope(shield=self._scope.shield)  # one may be entered once
        with self._scope:
            self._future = self._loop.create_future()
            await self._future


Wait: TypeAlias = _TrioWait | _AsyncioWait
"""A wait of one task, for others to end."""

WaitForThread: TypeAlias = _TrioHop | _TrioWait | _AsyncioWait
"""A wait of one task, for one thread to end."""


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


def is_cancellation(raised: BaseException | None) -> bool:
    """Tell whether a block ended by a cancellation, or by several in a group, and not by an error as well."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(raised, BaseExceptionGroup):
        return raised.split(cancelled)[1] is None
    return isinstance(raised, cancelled)


async def leave_in_scope(
    scope: anyio.CancelScope, leave: Callable[[BaseException | None], Awaitable[None]], exception: BaseException | None
) -> bool:
    """End a block that has entered a scope: leave what is in the scope, and then the scope; return what that says."""
    try:
        await leave(exception)
    except BaseException as late:  # goes through the scope, like all that is raised in it
        if not scope.__exit__(type(late), late, late.__traceback__):
            raise
        return True
    kind, traceback = (None, None) if exception is None else (type(exception), exception.__traceback__)
    return bool(scope.__exit__(kind, exception, traceback))


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
