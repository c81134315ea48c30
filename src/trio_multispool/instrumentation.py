"""`Instrumentation`: what a program can have itself told of a spool's operations, for metrics and traces."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import msgspec

from trio_multispool.errors import SpoolError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class How(enum.Enum):
    """How a check-out ended."""

    SAVED = "saved"
    """Moved to a queue, with its new metadata."""
    REMOVED = "removed"
    """Deleted."""
    RELEASED = "released"
    """Put back in its queue as it was: by `release`, or because the job's block ended without settling it."""
    LET_GO = "let go"
    """Dropped without being settled, because the disk or another program was in the way. Recovery returns it."""


class Operation(enum.Enum):
    """The call that failed."""

    ENQUEUE = "enqueue"
    CHECK_OUT = "check out"
    SAVE = "save"
    REMOVE = "remove"
    RELEASE = "release"
    RECOVER = "recover"


@final
class Enqueued(msgspec.Struct, frozen=True):
    """An entry was put into a queue."""

    spool: str
    """The path of the spool's directory."""
    queue: str
    entry: str
    seconds: float
    """How long the call took. Each entry of one `enqueue_many` has the same figure."""
    data_size: int | None
    """In bytes, if the data is `bytes` or the like; otherwise `None`, because finding out would cost something."""


@final
class CheckedOut(msgspec.Struct, frozen=True):
    """An entry was checked out, and is in this process's hands."""

    spool: str
    queue: str
    entry: str
    seconds: float
    """How long the look at the queue took that found it, without the waits before."""
    in_queue: float | None = None
    """How long it was to be had before, in seconds: since it came into its queue, or became due there. By the wall
    clock. In a directory, an entry that was released, or put back by recovery, counts from then: its file tells no
    more. `None` if it cannot be known, because a clock was wrong."""


@final
class Settled(msgspec.Struct, frozen=True):
    """An entry has left this process's hands."""

    spool: str
    queue: str
    """The queue that it was checked out of."""
    entry: str
    how: How
    destination: str | None
    """The queue that it is in now. `None` if it was removed or let go."""
    seconds: float
    """How long the call that settled or returned it took."""
    in_hand: float | None
    """How long it was in hand, in seconds. `None` for jobs of `checkouts_unsafe`, which another owner had."""


@final
class Returned(msgspec.Struct, frozen=True):
    """Recovery or a repair put back the entry of a dead owner, or collected files that a dead process had left."""

    spool: str
    queue: str | None
    """`None` if files were collected that belonged to no entry."""
    entry: str


@final
class Quarantined(msgspec.Struct, frozen=True):
    """An entry was set aside: its metadata could not be decoded, or a monitor found that its data is missing."""

    spool: str
    queue: str
    entry: str
    reason: str


@final
class Failed(msgspec.Struct, frozen=True):
    """An operation answered `Err`."""

    spool: str
    operation: Operation
    queue: str | None
    """`None` for a recovery, which covers all queues."""
    entry: str | None
    """`None` if the call was for no particular entry, or for one without a name yet."""
    error: SpoolError
    seconds: float
    """How long the call took."""


@final
class AttemptFailed(msgspec.Struct, frozen=True):
    """A handler failed, in a reader's `iter(…, retry=…)`."""

    spool: str
    queue: str
    entry: str
    attempt: int
    """The number of this attempt, from 1, among those that count."""
    error: str
    """The exception's class, with its module unless that is `builtins`. `RetryLater` or `GiveUp` if the handler
    answered one; `WorkerDied` if earlier workers died."""
    exception: Exception | None
    """The exception itself, if there was one."""
    again_in: float | None
    """In how many seconds the entry will be tried again. `None` if it was given up."""
    dead_letter: str | None
    """The queue that it is in now, if it was given up; otherwise `None`."""


@final
class Waited(msgspec.Struct, frozen=True):
    """A reader had nothing to do, and waited for its queue to change. An idle reader waits again and again."""

    spool: str
    queue: str
    seconds: float


@final
class Enqueueing(msgspec.Struct, frozen=True):
    """Entries are about to be enqueued."""

    spool: str
    queue: str
    count: int | None
    """How many, for `enqueue_many`. `None` for `enqueue`, which enqueues one."""


@final
class Working(msgspec.Struct, frozen=True):
    """A job's block is about to begin. A handler runs in such a block."""

    spool: str
    queue: str
    entry: str
    carrier: Mapping[str, str]
    """What the producer sent along; empty if nothing."""


class Instrumentation:
    """Hears of the operations of a spool: `Spool.load(…, instrumentation=…)`. Override the methods that you want.

    Here each method does nothing. Those called `on_…` hear what has happened. The two others return a context manager
    that surrounds an operation, or `None`.

    **When.** In the event loop's thread, after the effect and before the operation returns, in the task that called it.
    A reader's pool with `prefetch` or `concurrency` fetches its entries in a task of its own. Never in a worker thread,
    and never with a lock held.
    An operation that did not happen, because it was cancelled or answered `Err`, is not reported as one that did. With
    `Err(DurabilityUnknown)` it did happen: both its own hook and `on_error` are called.

    **They must not block**, and cannot await: meanwhile the event loop stands still. Count, or put what you hear into a
    queue of your own.

    **If one raises** an `Exception`, it is logged, once for each hook and type of exception, and ignored: what has
    happened must not look as if it had failed. (A `BaseException` such as `KeyboardInterrupt` passes through.)

    Three things are not reported: operations on entries in place (`entry.direct`), on data, and those that only look.

    ```python
    class Counting(Instrumentation):
        def on_enqueue(self, enqueued: Enqueued) -> None:
            print(enqueued.entry, "is in", enqueued.queue)
    ```
    """

    carries: bool = False
    """Whether the mapping from `enqueueing` travels with the entries. Off by default, because it costs a small file for
    each entry. Read when the spool is opened."""

    def on_enqueue(self, enqueued: Enqueued) -> None:
        """Hear of an entry that was put into a queue."""

    def on_checkout(self, checked_out: CheckedOut) -> None:
        """Hear of an entry that this process has checked out."""

    def on_settle(self, settled: Settled) -> None:
        """Hear of an entry that has left this process's hands: once for each `on_checkout`.

        Except for a job that is garbage collected unsettled: it is let go with a `ResourceWarning`, wherever the
        collector runs.
        """

    def on_recover(self, returned: Returned) -> None:
        """Hear of what recovery did in this process: when loading, in a reader, or in `spool.recover`.

        What a reader's recovery did may be reported in another task that uses the spool at that moment.
        """

    def on_quarantine(self, quarantined: Quarantined) -> None:
        """Hear of an entry that was set aside. A reader's may be reported in another task, as for `on_recover`."""

    def on_error(self, failed: Failed) -> None:
        """Hear of an `Err` from enqueueing, checking out, settling or recovering.

        Exceptions are not reported: they reach the caller anyway, and the context managers see them pass.
        """

    def on_attempt_failed(self, attempt_failed: AttemptFailed) -> None:
        """Hear of a handler that failed, once its entry is back to be tried again, or is a dead letter.

        Called in the handler's task, within `working`, and after `on_settle`.
        """

    def on_wait(self, waited: Waited) -> None:
        """Hear of an idle reader's wait, when a change or a cancellation has ended it."""

    def enqueueing(self, enqueueing: Enqueueing) -> AbstractContextManager[Mapping[str, str] | None] | None:  # noqa: ARG002  # for overriding
        """Return a context manager to put around an enqueue.

        If `carries`, what its `__enter__` returns, a mapping of strings, travels with the entries. What cannot be
        written is logged and left out, as if the hook had raised.

        It is entered and left in the task that enqueues, around `on_enqueue` and `on_error`. It cannot suppress an
        exception.
        """
        return None

    def working(self, working: Working) -> AbstractContextManager[object] | None:  # noqa: ARG002  # for overriding
        """Return a context manager to put around a job's block, and so around a handler.

        It is entered in the task that works, before the block begins. It is left there after the entry was settled or
        returned, and so surrounds `on_settle`. It sees the exception that the block raises, and cannot suppress it.
        """
        return None
