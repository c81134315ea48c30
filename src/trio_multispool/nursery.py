"""A nursery for tasks in the background of a block, which does not change what the block raises."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

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
        except BaseExceptionGroup as failures:
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
