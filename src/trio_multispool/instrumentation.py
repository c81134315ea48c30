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
    """How an entry left somebody's hands."""

    SAVED = "saved"
    """Moved to a queue, with its new metadata."""
    REMOVED = "removed"
    """Deleted."""
    RELEASED = "released"
    """Put back in its queue as it was: by `release`, or because the job's block ended without settling it."""
    LET_GO = "let go"
    """Given up without being settled, because the disk or another program was in the way: recovery returns it."""


class Operation(enum.Enum):
    """What failed."""

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
    """How long the call took. That of `enqueue_many` is told for each of its entries."""
    data_size: int | None
    """In bytes, if the data is `bytes` or the like; otherwise that would not be free to know."""


@final
class CheckedOut(msgspec.Struct, frozen=True):
    """An entry was checked out, and is in this process's hands."""

    spool: str
    queue: str
    entry: str
    seconds: float
    """How long the look took that found it, without the waits before."""


@final
class Settled(msgspec.Struct, frozen=True):
    """An entry has left this process's hands."""

    spool: str
    queue: str
    """The queue that it was checked out of."""
    entry: str
    how: How
    destination: str | None
    """The queue that it is in now; `None` if it was removed or let go."""
    seconds: float
    """How long the call took that settled or returned it."""
    in_hand: float | None
    """How long it was in hand, in seconds; `None` for jobs of `checkouts_unsafe`, which were another's."""


@final
class Returned(msgspec.Struct, frozen=True):
    """Recovery or a repair has put back the entry of an owner that died, or collected what a dead process had left."""

    spool: str
    queue: str | None
    """`None`: collected, because it belonged to no entry."""
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
    """`None`: all, of a recovery."""
    entry: str | None
    """`None`: none in particular, or one that has no name yet."""
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
    """Which one it was, from 1, of those that count."""
    error: str
    """The exception's class, with its module unless that is `builtins`; `RetryLater` or `GiveUp` if one was answered;
    `WorkerDied` if it is found that earlier workers died."""
    exception: Exception | None
    """The exception itself, if there was one."""
    again_in: float | None
    """In how many seconds the entry will be tried again; `None`: it was given up."""
    dead_letter: str | None
    """If it was given up: the queue that it is in now."""


@final
class Waited(msgspec.Struct, frozen=True):
    """A reader had nothing to do, and waited for its queue to change; an idle reader waits again and again."""

    spool: str
    queue: str
    seconds: float


@final
class Enqueueing(msgspec.Struct, frozen=True):
    """Entries are about to be enqueued."""

    spool: str
    queue: str
    count: int | None
    """How many, of `enqueue_many`; `None`: one, of `enqueue`."""


@final
class Working(msgspec.Struct, frozen=True):
    """A job's block is being entered, which is what a handler runs in."""

    spool: str
    queue: str
    entry: str
    carrier: Mapping[str, str]
    """What the producer sent along; empty if nothing."""


class Instrumentation:
    """What is told of the operations of a spool: `Spool.load(…, instrumentation=…)`. Override what you want to hear.

    Each of the methods does nothing here. Those that are called `on_…` are told what has happened; the two others
    return a context manager for the length of something, or `None`.

    **When.** In the event loop's thread, after the effect and before the operation returns, in the task that called it;
    a reader's pool with `prefetch` or `concurrency` fetches its entries in a task of its own. Never in a worker thread,
    and never with a lock held.
    An operation that did not happen, because it was cancelled or has answered `Err`, is not told as one that did. With
    `Err(DurabilityUnknown)` it did happen: then both are told, that it did, and `on_error`.

    **They must not block**, and cannot await: the event loop stands still for as long. Count, or put what you are told
    into a queue of your own.

    **If one raises** an `Exception`, that is logged, once for each hook and type of exception, and passed over: what
    has happened must not look as if it had failed. (What is no `Exception`, such as `KeyboardInterrupt`, passes
    through.)

    Not told are operations on entries in place (`entry.direct`), on data, and whatever only looks.

    ```python
    class Counting(Instrumentation):
        def on_enqueue(self, enqueued: Enqueued) -> None:
            print(enqueued.entry, "is in", enqueued.queue)
    ```
    """

    carries: bool = False
    """Whether what `enqueueing` returns is to travel with the entries. It costs a small file for each, so one has to
    ask for it; looked at when the spool is opened."""

    def on_enqueue(self, enqueued: Enqueued) -> None:
        """Hear of an entry that was put into a queue."""

    def on_checkout(self, checked_out: CheckedOut) -> None:
        """Hear of an entry that is in this process's hands now."""

    def on_settle(self, settled: Settled) -> None:
        """Hear of one that no longer is: once for each that `on_checkout` told of.

        But for what is garbage collected unsettled: that is let go wherever the collector runs, with a
        `ResourceWarning`.
        """

    def on_recover(self, returned: Returned) -> None:
        """Hear of what recovery did, in this process: when loading, in a reader, or in `spool.recover`.

        Of a reader it may be told by another task that uses the spool at that moment.
        """

    def on_quarantine(self, quarantined: Quarantined) -> None:
        """Hear of an entry that was set aside; of a reader it may be told by another task, as `on_recover` is."""

    def on_error(self, failed: Failed) -> None:
        """Hear of an `Err`, of enqueueing, checking out, settling or recovering.

        Exceptions are not told: they reach the caller by themselves, and the context managers see them pass.
        """

    def on_attempt_failed(self, attempt_failed: AttemptFailed) -> None:
        """Hear of a handler that failed, when its entry is where it is to be tried again, or is a dead letter.

        In the task of the handler, within `working`, and after `on_settle`.
        """

    def on_wait(self, waited: Waited) -> None:
        """Hear of a wait of an idle reader, when it is over, by a change or by a cancellation."""

    def enqueueing(self, enqueueing: Enqueueing) -> AbstractContextManager[Mapping[str, str] | None] | None:  # noqa: ARG002  # for overriding
        """Return what to put around an enqueue; what its `__enter__` returns travels with the entries, if `carries`.

        It is entered and left in the task that enqueues, around `on_enqueue` and `on_error`. It cannot suppress an
        exception.
        """
        return None

    def working(self, working: Working) -> AbstractContextManager[object] | None:  # noqa: ARG002  # for overriding
        """Return what to put around a job's block, and so around a handler.

        It is entered and left in the task that works, before the block begins, and after the entry has been settled or
        returned, so around `on_settle`. It is given the exception that the block raises, and cannot suppress it.
        """
        return None
