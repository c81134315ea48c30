"""What the ends of a channel share: which of them are open, what each has in hand, and the room in the queue."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, final

import anyio
import msgspec
from anyio import TypedAttributeSet, typed_attribute
from anyio.abc import AsyncResource

from trio_multispool.model.times import whole
from trio_multispool.model.types import D, M
from trio_multispool.session.stores import is_directory
from trio_multispool.threads.loop import keeping_notes_of

if TYPE_CHECKING:
    import enum
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.errors import SpoolError
    from trio_multispool.model.results import Result
    from trio_multispool.reader.reader import QueueReader
    from trio_multispool.session.session import Session
    from trio_multispool.spool.received import Received
    from trio_multispool.threads.transaction import BeforeCommit


ROOM_INTERVAL: Final = 0.1
"""How long a sender waits before it looks again at a full queue, in seconds."""


@final
class ChannelAttribute(TypedAttributeSet):
    """What both ends of a channel tell about themselves: `send.extra(ChannelAttribute.path)`."""

    path: Path = typed_attribute()
    """The spool's directory, absolute; not there if it is not kept in one."""
    queue: enum.Enum = typed_attribute()
    """The queue."""


@final
class ChannelStatistics(msgspec.Struct, frozen=True):
    """How a channel stands in this process. `spool.entries` tells how many entries wait on disk."""

    open_send_streams: int
    """Clones of the send end that have not been closed."""
    open_receive_streams: int
    """Clones of the receive end that have not been closed."""
    tasks_waiting_send: int
    """Tasks that are in `send`."""
    tasks_waiting_receive: int
    """Tasks that are in `receive`."""
    unacknowledged: int
    """Entries that were received, and neither acknowledged nor returned."""


@dataclasses.dataclass(eq=False, repr=False)
class Shared(Generic[M, D]):
    """What the ends of one channel share."""

    session: Session[Any, M, D, Any]
    queue: enum.Enum
    reader: QueueReader[Any, M, D]
    enqueue: Callable[[M, D], Awaitable[Result[object, SpoolError]]]
    max_entries: int | None
    senders: dict[End, None] = dataclasses.field(default_factory=dict)
    receivers: dict[End, None] = dataclasses.field(default_factory=dict)
    looking: anyio.Lock = dataclasses.field(default_factory=anyio.Lock)
    under_way: int = 0
    taken: anyio.Event = dataclasses.field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        """Check the number. Raises `TypeError` if it is not whole, and `ValueError` if it is below 1."""
        if self.max_entries is not None:
            self.max_entries = whole(self.max_entries, "max_entries", least=1)

    def close(self) -> None:
        """Close all ends; the reader returns what they have in hand."""
        for end in [*self.senders, *self.receivers]:
            _ = end.close()

    @contextlib.asynccontextmanager
    async def room(self) -> AsyncGenerator[None]:
        """Wait until the queue has room for one more entry, and count that entry for as long as the block takes.

        One task at a time looks and waits; the others are served in the order in which they came. The number of sends
        under way is read *before* the queue is listed, so every send of this channel is counted at least once.
        """
        if self.max_entries is None:
            yield
            return
        async with self.looking:
            while True:
                taken, under_way = self.taken, self.under_way
                depth = len((await self.session.run("listing", self._names, interruptible=True)).unwrap())
                if depth + under_way < self.max_entries:
                    break
                with anyio.move_on_after(ROOM_INTERVAL):
                    await taken.wait()
            self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    def _names(self, _before_commit: BeforeCommit) -> Sequence[str]:
        return self.session.storage.names(self.queue.value)

    def took_one(self) -> None:
        """Tell the tasks of this process that wait for room; other processes find it when they look again."""
        self.taken.set()
        self.taken = anyio.Event()


class End:
    """One end: whether it is open, the tasks that are using it, and what it has in hand."""

    def __init__(self, shared: Shared[Any, Any], siblings: dict[End, None], kind: str) -> None:
        self._told = f"{kind} of queue {shared.queue.value!r} of {shared.session.path}"
        self._siblings = siblings
        self._scopes: set[anyio.CancelScope] = set()
        self.closed: bool = False
        self.in_hand: dict[Received[Any, Any], Checkout[Any, Any, Any]] = {}
        siblings[self] = None

    def __repr__(self) -> str:
        return f"<{self._told}, {'closed' if self.closed else 'open'}>"

    @property
    def tasks(self) -> int:
        """How many tasks are using it."""
        return len(self._scopes)

    def close(self) -> list[Checkout[Any, Any, Any]]:
        """Cancel the tasks using it; return the jobs that were in hand, which can no longer be acknowledged."""
        self.closed = True
        _ = self._siblings.pop(self, None)
        for scope in self._scopes:
            scope.cancel()
        jobs = list(self.in_hand.values())
        self.in_hand.clear()
        return jobs

    def closed_error(self) -> anyio.ClosedResourceError:
        """Make the error for using an end that has been closed."""
        return anyio.ClosedResourceError(f"this {self._told} has been closed")

    def check_open(self) -> None:
        """Raise that error if this end has been closed."""
        if self.closed:
            raise self.closed_error()

    @contextlib.contextmanager
    def in_use(self) -> Generator[None]:
        """Run a block that closing this end cancels; raise as streams do then, or if it is closed already."""
        self.check_open()
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            except anyio.ClosedResourceError as error:
                self.check_open()
                raise anyio.BrokenResourceError(f"the spool under this {self._told} has been closed") from error
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise self.closed_error()


class ChannelEnd(AsyncResource, abc.ABC, Generic[M, D]):
    """What both ends have in common."""

    def __init__(self, shared: Shared[M, D], siblings: dict[End, None]) -> None:
        self._shared = shared
        self._siblings = siblings
        self._end = End(shared, siblings, type(self).__name__)

    def __repr__(self) -> str:
        return repr(self._end)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:  # as AnyIO's own streams annotate it
        """The typed attributes: `ChannelAttribute`."""
        shared = self._shared
        told: dict[Any, Callable[[], Any]] = {ChannelAttribute.queue: lambda: shared.queue}
        if is_directory(shared.session.path):
            told[ChannelAttribute.path] = lambda: Path(shared.session.path)
        return told

    def clone(self) -> Self:
        """Return another such end of the same channel, closed separately. Each entry goes to one of the receive ends.

        Raises `anyio.ClosedResourceError` if this end is closed.
        """
        self._end.check_open()
        return type(self)(self._shared, self._siblings)

    def statistics(self) -> ChannelStatistics:
        """Tell how the channel stands in this process."""
        senders, receivers = self._shared.senders, self._shared.receivers
        return ChannelStatistics(
            open_send_streams=len(senders),
            open_receive_streams=len(receivers),
            tasks_waiting_send=sum(end.tasks for end in senders),
            tasks_waiting_receive=sum(end.tasks for end in receivers),
            unacknowledged=sum(len(end.in_hand) for end in receivers),
        )

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Close it, whatever is cancelled; a cancellation that comes then takes over the notes of the one before."""
        with keeping_notes_of(exc_val):
            await self.aclose()
