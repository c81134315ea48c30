"""One open spool, as its handles (entries, jobs, readers) share it: the store, the way into threads, the codecs."""

from __future__ import annotations

import functools
import math
import weakref
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import msgspec

from trio_multispool.clock import random_fraction
from trio_multispool.errors import CorruptMetadata, SpoolError
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.cancellation import NO_REASON
from trio_multispool.model.types import A, D, M, Q, T
from trio_multispool.session.cancellations import Cancellations
from trio_multispool.session.changes import Changes, Polled
from trio_multispool.session.encoding import Encoding
from trio_multispool.session.hooks import Hooks
from trio_multispool.session.pauses import Pauses
from trio_multispool.storage.singly import release_or_let_go
from trio_multispool.threads.batches import Batches
from trio_multispool.threads.offload import Offload
from trio_multispool.threads.running import Running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import Never

    import anyio

    from trio_multispool.instrumentation import Instrumentation
    from trio_multispool.model.spoolable import Spoolable
    from trio_multispool.session.cancellations import Held
    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import NewEntry, Recovered, Settlement
    from trio_multispool.threads.transaction import Answer, BeforeCommit


class Recoveries(msgspec.Struct, eq=False):
    """The recoveries of a queue by its readers, which share them as they share listings."""

    begun_at: float = -math.inf
    """When the last one was asked for, by the loop's clock."""
    begun: int = 0
    """How many were begun."""


class Session(Generic[Q, M, D, A]):
    """One open spool, as its handles see it."""

    def __init__(
        self,
        storage: Storage[Any, Any],
        spoolable: Spoolable[Q, M, D, A],
        limiter: anyio.CapacityLimiter | None,
        instrumentation: Instrumentation | None,
    ) -> None:
        """Take over an open store."""
        self.storage: Storage[Any, Any] = storage
        self.path: str = storage.location
        self.spoolable: Spoolable[Q, M, D, A] = spoolable
        self.encoding: Encoding[Q, M, D, A] = Encoding(spoolable)
        self.hooks: Hooks = Hooks(instrumentation, self.path)
        self.held: Held = {}
        """What is let go of when the spool is closed."""
        self._close_storage = weakref.finalize(self, storage.close)
        self._close_storage.atexit = False  # the kernel closes them; a forked child must not wait for a lock here
        self.running: Running = Running(
            f"the spool {self.path}",
            let_go=functools.partial(_let_go, self.held, self._close_storage),
            at_each_end=self.hooks.tell_noted if self.hooks.listening else None,
            in_threads=storage.blocks,
        )
        storage.close_afterwards(self.running.grace.afterwards)
        self.offload: Offload = Offload(limiter, self.running)
        self.settlements: Batches[Settlement[Any]] = Batches(
            storage.settle, at_most=storage.settled_at_a_time, running=self.running
        )
        how: dict[str, Any] = {"limiter": self.offload.limiter, "running": self.running}
        self.enqueuings: Batches[NewEntry[Any]] = Batches(storage.enqueue_together, at_most=storage.at_a_time, **how)
        self._how: dict[str, Any] = {**how, "around": storage.in_one_look}
        self.check_outs: Batches[Any] = Batches(_nothing, **self._how)
        """Of entries by their names."""
        self._takes: dict[str, Batches[Any]] = {}
        self.recoveries: dict[str, Recoveries] = {}
        """By queue."""
        self.looks: Batches[Any] = Batches(_nothing, **self._how)
        """Looks for entries by their names."""
        polled = Polled(self.path)
        self.changes: Changes = Changes(storage.watch, polled)
        """Of queues."""
        self.moves: Changes = Changes(storage.watch_entries, polled)
        """Of entries."""
        self.cancellations: Cancellations = Cancellations(storage, self.offload, self.held, polled)
        weakref.finalize(self, self.cancellations.stop).atexit = False
        self.pauses: Pauses = Pauses(storage, self.running)
        """Of queues."""
        self.now: Callable[[], float] = storage.now
        """The wall clock, in seconds since 1970."""
        self.chance: Callable[[], float] = random_fraction
        """A random number from 0 to 1, for jitter."""

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled, for all handles that share it."""
        message = (
            f"what belongs to the open spool {self.path} cannot be pickled or copied: its locks are this process's; "
            "send the path and the entry's name, and use `Spool.load` and `spool.entry` there"
        )
        raise TypeError(message)

    @property
    def closed(self) -> bool:
        """Whether the spool has been closed."""
        return self.running.closed

    def run(
        self,
        operation: str,
        work: Callable[[BeforeCommit], T],
        *,
        undo: Callable[[T], None] | None = None,
        interruptible: bool = False,
    ) -> Awaitable[Answer[T]]:
        """Run a transaction on the store; see `Offload.run`. Raises `anyio.ClosedResourceError` on a closed spool."""
        return self.offload.run(operation, work, undo=undo, interruptible=interruptible)

    def at_once(self, operation: str, work: Callable[[], T]) -> Awaitable[Answer[T]]:
        """Do what waits for nothing; see `Offload.at_once`."""
        return self.offload.at_once(operation, work)

    def takes(self, queue: str) -> Batches[Any]:
        """Return what the readers of a queue take its entries through: they share hops, looks and listings."""
        if queue not in self._takes:
            self._takes[queue] = Batches(_nothing, **self._how)
        return self._takes[queue]

    def close(self) -> None:
        """Take no more operations, and close the store when the last running one has ended. Idempotent."""
        self.running.close()
        self.changes.wake_all()
        self.moves.wake_all()
        self.cancellations.close()

    def check_open(self) -> None:
        """Raise `anyio.ClosedResourceError` if the spool has been closed."""
        if self.running.closed:
            raise self.running.closed_error()

    def check_queue(self, queue: Q) -> str:
        """Return the queue's name; raises `TypeError` if it is not a queue of this spool."""
        if not isinstance(queue, self.spoolable.queues):
            raise TypeError(f"{queue!r} is no member of {self.spoolable.queues.__name__}, the queues of this spool")
        name: str = queue._value_  # what `value` is, after two more calls
        return name

    def decode_or_set_aside(self, claim: Claim) -> M:
        """Return a claim's metadata; if it cannot be decoded, quarantine the entry and raise `CorruptMetadata`."""
        try:
            return self.encoding.decode(claim.queue, claim.name, claim.metadata)
        except CorruptMetadata as error:
            self._set_aside(claim, error)
            raise
        except BaseException:  # nobody will get the claim, whatever it was
            release_or_let_go(self.storage, claim)
            raise

    def _set_aside(self, claim: Claim, error: CorruptMetadata) -> None:
        name, queue, path, reason = claim.name, claim.queue, self.path, error.reason
        try:
            self.storage.quarantine(claim, str(error))
        except SpoolError as fault:
            what = "entry %(entry)s of queue %(queue)s could not be set aside: %(reason)s: %(error)s"
            log(LOGGER.warning, Event.NOT_QUARANTINED, path, what, queue=queue, entry=name, error=fault, reason=reason)
            error.add_note(f"it could not be set aside, and stays in its queue: {fault}")
            release_or_let_go(self.storage, claim)
            return
        message = "entry %(entry)s of queue %(queue)s is set aside in quarantine: %(reason)s"
        log(LOGGER.warning, Event.QUARANTINED, path, message, queue=queue, entry=name, error=error, reason=reason)
        self.hooks.note_quarantined(queue, name, reason)

    def carried(self, claim: Claim) -> Mapping[str, str] | None:
        """Return what the producer sent along with an entry, if the instrumentation asks for it; in a worker thread."""
        return self.storage.carrier(claim.name) if self.hooks.carries else None

    def tell_cancelled(self, queue: str, name: str, reason: str) -> None:
        """Log that an entry was cancelled."""
        message = "entry %(entry)s of queue %(queue)s was cancelled: %(reason)s"
        log(LOGGER.info, Event.CANCELLED, self.path, message, queue=queue, entry=name, reason=reason or NO_REASON)

    def note_recovered(self, recovered: Iterable[Recovered]) -> None:
        """Log what recovery did, and note it for the hooks; in any thread, with `tell_noted` in the loop after it."""
        for one in recovered:
            if one.queue is None:
                message = "what was left of %(entry)s, which is no entry, was collected"
                log(LOGGER.debug, Event.COLLECTED, self.path, message, entry=one.name)
            else:
                message = "entry %(entry)s is back in queue %(queue)s: its owner died"
                log(LOGGER.info, Event.RECOVERED, self.path, message, queue=one.queue, entry=one.name)
            self.hooks.note_recovered(one.name, one.queue)


def _let_go(held: Held, close_storage: Callable[[], object]) -> None:
    for each in list(held):
        each.abandon()
    _ = close_storage()


def _nothing(_requests: Sequence[Never]) -> list[BaseException | None]:
    """Do what steps ask for that ask for nothing."""
    return []
