"""One event loop in a thread of its own, for the other threads of a process, and what becomes of it in a forked child.

Theory. A call posts a task to the loop, and waits for its end. The thread is a daemon: it keeps no process from ending,
and nothing is lost with it, since what a caller has been told is on disk.

*asyncio*, because it is always there, and because its own cancellation reaches an operation until right before its
commit. A scope's, which is all that Trio has, is too late once the thread of the operation has begun.

*No portal of AnyIO's*, because of forks and interrupts. A child that inherits one waits at its exit for a thread that
it does not have. And a call that is cancelled through one does not tell whether it took effect.

*A fork* leaves the child without the thread. So the child begins anew with its first call. It neither uses nor closes
what it inherited: a lock in there may be held for ever, and the loop shares its `epoll` with the parent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, final

from trio_multispool.model.types import T
from trio_multispool.threads.loop import context_for_a_thread, running_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONGEST_WAIT: Final = 0.5
"""How long a thread waits before it looks whether there was a signal, in seconds.

The kernel may give the signal to another thread; then it does not wake the main thread, which is to handle it.
"""


class _Call(Generic[T]):
    """One operation on its way through the loop, as the thread that waits sees it."""

    def __init__(self, operation: Callable[[], Awaitable[T]]) -> None:
        self._operation = operation
        self._context = context_for_a_thread()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # the loop never waits to ring it
        self._over = False
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = asyncio.CancelledError()
        """What came of it, if not a value. A task that is cancelled before its first step does not say so itself."""
        self._value: T

    def begin(self) -> None:
        """In the loop: start it."""
        self._task = asyncio.get_running_loop().create_task(self._run(), context=self._context)
        self._task.add_done_callback(self._end)

    def withdraw(self) -> None:
        """In the loop: cancel it, unless it is over."""
        if self._task is None:
            self._end()
        else:
            _ = self._task.cancel()

    async def _run(self) -> None:
        try:
            self._value = await self._operation()
            self._error = None
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits
            self._error = error

    def _end(self, _task: object = None) -> None:
        self._over = True
        self._bell.put(None)

    def wait(self) -> None:
        """Wait for the end. Raises only what a signal's handler raises meanwhile; then it may be called again."""
        while not self._over:
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=LONGEST_WAIT)

    def result(self) -> T:
        """Return or raise what came of it."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # it holds this frame
        return self._value

    def told(self) -> str:
        """Say what came of it, for a note on an interrupt."""
        if isinstance(self._error, asyncio.CancelledError):
            return "; ".join(getattr(self._error, "__notes__", ())) or "the call was withdrawn, and had no effect"
        done = f"done: {self._value!r}" if self._error is None else f"over: {self._error!r}"
        return f"the call was already {done}"


@final
class LoopThread:
    """The loop of this process, and what belongs to it: calls that are under way, and whatever is open in it."""

    def __init__(self) -> None:
        self.mutex: Final = threading.RLock()
        """Held to begin the loop, and by users to open in it what is open in another."""
        self.belongings: Final[weakref.WeakSet[object]] = weakref.WeakSet()
        """What is open in the loop, and must not be closed in a forked child."""
        self._calls: set[_Call[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation in the loop to its end; an interrupt withdraws it, and is raised when it is over.

        Raises `RuntimeError` in a thread that runs an event loop: that would wait too.
        """
        _check_that_no_loop_runs()
        post, call = self._started().call_soon_threadsafe, _Call(operation)
        self._calls.add(call)
        try:
            try:
                _ = post(call.begin)
                call.wait()
            except BaseException as interrupt:  # `KeyboardInterrupt`, or what another signal's handler raises
                _ = post(call.withdraw)
                call.wait()  # for one system call at most; who cannot wait interrupts again
                interrupt.add_note(call.told())
                raise
            return call.result()
        finally:
            self._calls.discard(call)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            with self.mutex:
                if self._loop is None:
                    loop = asyncio.new_event_loop()
                    try:
                        threading.Thread(target=loop.run_forever, name="multispool loop", daemon=True).start()
                    except RuntimeError:  # no thread can be started
                        loop.close()
                        raise
                    self._loop = loop
        return self._loop


_here: LoopThread = LoopThread()
_inherited: Final[list[object]] = []
"""What a forked child has of its parent. It is kept, because it must not be closed; see above."""


def _begin_anew() -> None:
    global _here  # noqa: PLW0603  # there is one
    _inherited.extend((_here, *_here.belongings))
    _here = LoopThread()


os.register_at_fork(after_in_child=_begin_anew)


def loop_thread() -> LoopThread:
    """Return that of this process."""
    return _here


def _check_that_no_loop_runs() -> None:
    try:
        _ = running_loop().token()
    except RuntimeError:  # none
        return
    message = (
        "a call of `trio_multispool.blocking` would stop the event loop that runs in this thread; await a "
        "`trio_multispool.Spool` here, or make the call in a worker thread, by `anyio.to_thread.run_sync` for example"
    )
    raise RuntimeError(message)
