"""A durable channel: AnyIO's object streams over a queue on disk.

What is sent is an entry, and what is received is a job: nothing is kept in memory but which ends are open, what each
has in hand, and how many sends are under way.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, final

from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from trio_multispool.model.times import whole
from trio_multispool.model.types import D, M, Q
from trio_multispool.spool.channel_ends import End, Shared
from trio_multispool.spool.received import Received

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from trio_multispool.errors import SpoolError
    from trio_multispool.model.results import Result
    from trio_multispool.reader.reader import QueueReader
    from trio_multispool.session.session import Session
    from trio_multispool.spool.channel_ends import ChannelStatistics


@final
class SendChannel(ObjectSendStream[tuple[M, D]], Generic[M, D]):
    """The end of a durable channel that is sent to. Not made by users: `spool.channel(queue)` gives it.

    An `anyio.abc.ObjectSendStream` of pairs, `(metadata, data)`. Whether anybody receives does not matter to it: what
    was sent waits on disk.
    """

    def __init__(self, shared: Shared[M, D]) -> None:
        """Open an end of the channel."""
        self._shared = shared
        self._end = End(shared, shared.senders, "SendChannel")

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

        Returns nothing. Raises `TypeError` for what is no pair; the `SpoolError` that `spool.enqueue` would answer, and
        of a listing with `max_entries`; `anyio.ClosedResourceError` if this end is closed, be it while `send` waits;
        `anyio.BrokenResourceError` if the spool was closed under it. That nobody receives is no error.

        **Cancellation**: cancelled means that nothing was sent. (asyncio's own cancellation may come after the commit:
        then the `CancelledError` has a note that says so.)
        **Durability**: that of the spool: at level `POWER` the entry is synced when `send` returns.

        ```python
        await send.send((Envelope("anne@example.org"), b"Hello"))
        ```
        """
        await checkpoint()
        if not isinstance(item, tuple) or len(item) != 2:  # noqa: PLR2004  # a pair
            message = f"a channel sends pairs, (metadata, data), not {item!r}"
            raise TypeError(message)
        metadata, data = item
        shared = self._shared
        with self._end.in_use():
            async with shared.room():
                _ = (await shared.enqueue(metadata, data)).unwrap()

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
        _ = self._end.close()
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

    def __init__(self, shared: Shared[M, D]) -> None:
        """Open an end of the channel."""
        self._shared = shared
        self._end = End(shared, shared.receivers, "ReceiveChannel")

    def __repr__(self) -> str:
        """Tell of which queue, and whether it is open."""
        return repr(self._end)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:  # as AnyIO's own streams annotate it
        """The typed attributes: `ChannelAttribute`."""
        return self._shared.attributes()

    async def receive(self) -> Received[M, D]:
        """Wait for an entry and check it out; nothing is acknowledged by that.

        Put `async with` around what is received: its normal end acknowledges. Entries come in the order of their
        names, by whomever they were put into the queue. One whose metadata cannot be decoded is set aside in
        quarantine, with a line in the log.

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
                async with job:  # goes back
                    pass
            raise self._end.closed_error()
        received = Received(job, self._end.in_hand)
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
            for job in self._end.close():
                _ = returning.push_async_exit(job)
        await cancel_shielded_checkpoint()


def open_channel(
    session: Session[Q, M, D, Any],
    queue: Q,
    reader: QueueReader[Q, M, D],
    enqueue: Callable[[M, D], Awaitable[Result[object, SpoolError]]],
    max_entries: int | None,
) -> AbstractAsyncContextManager[tuple[SendChannel[M, D], ReceiveChannel[M, D]]]:
    """Make a channel over a queue, which is open for the length of a block."""
    most = None if max_entries is None else whole(max_entries, "max_entries", least=1)
    return _open(Shared(session, queue, reader, enqueue, most), reader)


@contextlib.asynccontextmanager
async def _open(
    shared: Shared[M, D], reader: QueueReader[Any, M, D]
) -> AsyncGenerator[tuple[SendChannel[M, D], ReceiveChannel[M, D]]]:
    async with reader:
        try:
            yield SendChannel(shared), ReceiveChannel(shared)
        finally:
            shared.close()
