"""At the ends of blocks: a nursery for background tasks that does not change what is raised, and patient waiting."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anyio.abc import TaskGroup


@contextlib.asynccontextmanager
async def background() -> AsyncGenerator[TaskGroup]:
    """Run tasks in the background of the block; it ends when they have ended, so it has to see to that.

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
        except BaseExceptionGroup as failures:  # raised again below, or the block's own error is
            if raised is None or isinstance(raised, anyio.get_cancelled_exc_class()):
                if len(failures.exceptions) == 1:
                    raise failures.exceptions[0] from None
                raise
            raised.add_note(f"in the background: {failures!r}")
        except anyio.get_cancelled_exc_class():
            if raised is None:
                raise
        if raised is not None:
            raise raised
    finally:
        del raised


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
