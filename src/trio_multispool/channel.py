"""The two ends of a durable channel: AnyIO's object streams over a queue on disk.

What is sent is an entry, and what is received is a job: nothing here is kept in memory but which ends are open, what
each has in hand, and how many sends are under way.
"""

from __future__ import annotations

import contextlib
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, final

import anyio
import msgspec
from anyio import TypedAttributeSet, typed_attribute
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from trio_multispool.received import Received

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from trio_multispool.reader import QueueReader
    from trio_multispool.spool import Spool

Q = TypeVar("Q", bound=enum.Enum)
M = TypeVar("M")
D = TypeVar("D")

ROOM_INTERVAL: Final = 0.1
"""How long a sender that found the queue full waits before it looks again, in seconds."""


@final
class ChannelAttribute(TypedAttributeSet):
    """What both ends of a channel tell about themselves: `send.extra(ChannelAttribute.path)`."""

    path: ClassVar[Path] = typed_attribute()
    """The spool's directory, absolute."""
    queue: ClassVar[enum.Enum] = typed_attribute()
    """The queue."""


@final
class ChannelStatistics(msgspec.Struct, frozen=True):
    """How a channel stands in this process. How many entries wait on disk, `spool.entries` tells."""

    open_send_streams: int
    """Clones of the send end that have not been closed."""
    open_receive_streams: int
    """Clones of the receive end that have not been closed."""
    tasks_waiting_send: int
    """Tasks that are in `send`."""
    tasks_waiting_receive: int
    """Tasks that are in `receive`."""
    unacknowledged: int
    """What was received, and neither acknowledged nor returned."""


class _Shared(Generic[M, D]):
    """What the ends of one channel share."""

    def __init__(
        self, spool: Spool[Any, M, D, Any], queue: enum.Enum, reader: QueueReader[Any, M, D], max_entries: int | None
    ) -> None:
        self.spool = spool
        self.queue = queue
        self.reader = reader
        self.max_entries = max_entries
        self.senders: dict[SendChannel[M, D], None] = {}
        self.receivers: dict[ReceiveChannel[M, D], None] = {}
        self.looking = anyio.Lock()
        self.under_way = 0
        self.taken = anyio.Event()

    def close(self) -> None:
        """Close all ends; what they have in hand, the reader returns."""
        for sender in list(self.senders):
            sender._end.close()
        for receiver in list(self.receivers):
            _ = receiver._close()

    def attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {ChannelAttribute.path: lambda: self.spool.path, ChannelAttribute.queue: lambda: self.queue}

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(
            open_send_streams=len(self.senders),
            open_receive_streams=len(self.receivers),
            tasks_waiting_send=sum(sender._end.tasks for sender in self.senders),
            tasks_waiting_receive=sum(receiver._end.tasks for receiver in self.receivers),
            unacknowledged=sum(len(receiver._in_hand) for receiver in self.receivers),
        )

    @contextlib.asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """Wait until the queue has room for one more, and count that one for as long as the block takes.

        One task looks at a time, and waits: the others are served in the order in which they came. What is under way
        is read *before* the queue is listed, so whatever this channel sends is counted at least once.
        """
        if self.max_entries is None:
            yield
            return
        async with self.looking:
            while True:
                taken, under_way = self.taken, self.under_way
                depth = len((await self.spool.entries(self.queue)).unwrap())
                if depth + under_way < self.max_entries:
                    break
                with anyio.move_on_after(ROOM_INTERVAL):
                    await taken.wait()
            self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    def took_one(self) -> None:
        """Tell who waits for room in this process; others find it when they look again."""
        self.taken.set()
        self.taken = anyio.Event()


class _End:
    """Whether an end is open, and the tasks that are using it."""

    def __init__(self, kind: str, shared: _Shared[Any, Any]) -> None:
        self._told = f"{kind} of queue {shared.queue.value!r} of {shared.spool.path}"
        self._scopes: set[anyio.CancelScope] = set()
        self.closed = False

    def __repr__(self) -> str:
        return f"<{self._told}, {'closed' if self.closed else 'open'}>"

    @property
    def tasks(self) -> int:
        return len(self._scopes)

    def close(self) -> None:
        self.closed = True
        for scope in self._scopes:
            scope.cancel()

    def check_open(self) -> None:
        if self.closed:
            message = f"this {self._told} has been closed"
            raise anyio.ClosedResourceError(message)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Run a block that closing this end cancels; then, and if it is closed already, it raises as streams do."""
        self.check_open()
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            except anyio.ClosedResourceError as error:
                self.check_open()
                message = f"the spool under this {self._told} has been closed"
                raise anyio.BrokenResourceError(message) from error
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            self.check_open()


@final
class SendChannel(ObjectSendStream[tuple[M, D]], Generic[M, D]):
    """The end of a durable channel that is sent to. Not made by users: `spool.channel(queue)` gives it.

    An `anyio.abc.ObjectSendStream` of pairs, `(metadata, data)`. It does not matter to it whether anybody receives: what
    was sent waits on disk.
    """

    def __init__(self, shared: _Shared[M, D]) -> None:
        """Open an end of the channel."""
        self._shared = shared
        self._end = _End("SendChannel", shared)
        shared.senders[self] = None

    def __repr__(self) -> str:
        """Tell of which queue, and whether it is open."""
        return repr(self._end)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:  # as AnyIO's own streams annotate it
        """The typed attributes: `ChannelAttribute`."""
        return self._shared.attributes()

    async def send(self, item: tuple[M, D]) -> None:
        """Put a pair, `(metadata, data)`, into the queue, as a new entry: all of it or, if this fails, nothing.

        If the channel has `max_entries`, it waits while so many entries or more are available in the queue, by
        whomever they were put there. It looks again ten times a second, and whenever this channel receives. That is
        approximate: one channel alone never exceeds it, but what several send at the same moment, each having seen
        the last room, is all sent.

        The entry's name is what the spool's name generator makes of `Reserve(None)`.

        Returns nothing. Raises the `SpoolError` that `spool.enqueue` would answer, and of a listing with `max_entries`;
        `anyio.ClosedResourceError` if this end is closed, be it while `send` waits; `anyio.BrokenResourceError` if the
        spool was closed under it. That nobody receives is no error.

        **Cancellation**: cancelled means that nothing was sent. (asyncio's own cancellation may come after the commit:
        then the `CancelledError` has a note that says so.)
        **Durability**: that of the spool: at level `POWER` the entry is synced when `send` returns.

        ```python
        await send.send((Envelope("anne@example.org"), b"Hello"))
        ```
        """
        await checkpoint()
        metadata, data = item
        shared = self._shared
        with self._end.in_use():
            async with shared.room():
                _ = (await shared.spool.enqueue(shared.queue, metadata, data)).unwrap()

    def clone(self) -> SendChannel[M, D]:
        """Return another send end of the same channel, which is closed for itself.

        Raises `anyio.ClosedResourceError` if this end is closed.
        """
        self._end.check_open()
        return SendChannel(self._shared)

    def statistics(self) -> ChannelStatistics:
        """Tell how the channel stands in this process."""
        return self._shared.statistics()

    async def aclose(self) -> None:
        """Close this end. Idempotent.

        Tasks that wait in its `send` get `anyio.ClosedResourceError`. Receivers, here and elsewhere, notice nothing:
        other processes may send for as long as the spool exists.

        **Cancellation**: closed, whatever is cancelled.
        **Durability**: what was sent stays sent.

        ```python
        await send.aclose()
        ```
        """
        self._end.close()
        _ = self._shared.senders.pop(self, None)
        await cancel_shielded_checkpoint()


@final
class ReceiveChannel(ObjectReceiveStream[Received[M, D]], Generic[M, D]):
    """The end of a durable channel that is received from. Not made by users: `spool.channel(queue)` gives it.

    An `anyio.abc.ObjectReceiveStream` of `Received`, and an iterator:

    ```python
    async for received in receive:
        async with received:
            await deliver(received.metadata, received.data)
    ```

    The iteration has no end of its own, since somebody may always send. Cancel it, or close the channel.
    """

    def __init__(self, shared: _Shared[M, D]) -> None:
        """Open an end of the channel."""
        self._shared = shared
        self._end = _End("ReceiveChannel", shared)
        self._in_hand: dict[Received[M, D], None] = {}
        shared.receivers[self] = None

    def __repr__(self) -> str:
        """Tell of which queue, and whether it is open."""
        return repr(self._end)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:  # as AnyIO's own streams annotate it
        """The typed attributes: `ChannelAttribute`."""
        return self._shared.attributes()

    async def receive(self) -> Received[M, D]:
        """Wait for an entry and check it out. Nothing is acknowledged by that: put `async with` around what is received.

        Entries come in the order of their names, by whomever they were put into the queue. One whose metadata cannot
        be decoded is set aside in quarantine, with a line in the log.

        Returns the `Received`, which nobody else gets for as long as it is neither acknowledged nor returned.

        Raises a `SpoolError` for a trouble of the operating system, such as `TooManyOpenFiles`;
        `anyio.ClosedResourceError` if this end is closed, be it while `receive` waits; `anyio.BrokenResourceError` if
        the spool was closed under it. `anyio.EndOfStream` is never raised: closing senders does not end a channel.

        **Cancellation**: cancelled means that nothing was taken.
        **Durability**: a check-out is not synced: if power loss undoes it, the entry is in its queue.

        ```python
        received = await receive.receive()
        async with received:
            message = (await received.data.load()).unwrap()
        ```
        """
        await checkpoint()
        with self._end.in_use():
            job = (await self._shared.reader.dequeue()).unwrap()
        if job is None or self._end.closed:  # closed while the thread was at work
            if job is not None:
                async with job:
                    pass
            self._end.closed = True
            self._end.check_open()
        assert job is not None  # noqa: S101
        received = Received(job, self._in_hand)
        self._shared.took_one()
        return received

    def clone(self) -> ReceiveChannel[M, D]:
        """Return another receive end of the same channel, which is closed for itself. Each entry goes to one of them.

        Raises `anyio.ClosedResourceError` if this end is closed.
        """
        self._end.check_open()
        return ReceiveChannel(self._shared)

    def statistics(self) -> ChannelStatistics:
        """Tell how the channel stands in this process."""
        return self._shared.statistics()

    async def aclose(self) -> None:
        """Close this end, and return to the queue what it received and nobody acknowledged. Idempotent.

        Tasks that wait in its `receive` get `anyio.ClosedResourceError`. So does, at its end, a block that is at work
        on something that this end received: it has been returned. Senders and other receivers notice nothing.

        Raises the `SpoolError` of an entry that could not be returned; recovery returns it later.

        **Cancellation**: closed and returned, whatever is cancelled.
        **Durability**: needs none: if power loss undoes a return, recovery repeats it.

        ```python
        await receive.aclose()
        ```
        """
        async with contextlib.AsyncExitStack() as returning:
            for received in self._close():
                returning.push_async_exit(received._job)  # noqa: SLF001  # one thing in two files
        await cancel_shielded_checkpoint()

    def _close(self) -> list[Received[M, D]]:
        """Take no more; return what was in hand, which from now on cannot be acknowledged."""
        self._end.close()
        _ = self._shared.receivers.pop(self, None)
        in_hand = list(self._in_hand)
        for received in in_hand:
            received._disown()  # noqa: SLF001  # one thing in two files
        return in_hand


def open_channel(
    spool: Spool[Q, M, D, Any], queue: Q, max_entries: int | None
) -> AbstractAsyncContextManager[tuple[SendChannel[M, D], ReceiveChannel[M, D]]]:
    """Make a channel over a queue, which is open for the length of a block."""
    if max_entries is not None and max_entries < 1:
        message = f"max_entries must be at least 1, not {max_entries}"
        raise ValueError(message)
    return _open(spool, queue, max_entries)


@contextlib.asynccontextmanager
async def _open(
    spool: Spool[Q, M, D, Any], queue: Q, max_entries: int | None
) -> AsyncIterator[tuple[SendChannel[M, D], ReceiveChannel[M, D]]]:
    async with spool.reader(queue) as reader:
        shared = _Shared(spool, queue, reader, max_entries)
        try:
            yield SendChannel(shared), ReceiveChannel(shared)
        finally:
            shared.close()
