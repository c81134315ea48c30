"""A durable channel: AnyIO's object streams over a queue on disk.

Sending makes an entry, and receiving gives a job. Memory holds only which ends are open, what each has in hand, and how
many sends are under way.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Generic, final

from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from trio_multispool.entries.job import checkout_of
from trio_multispool.model.types import D, M
from trio_multispool.spool.channel_ends import ChannelEnd, Shared
from trio_multispool.spool.received import Received

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@final
class SendChannel(ChannelEnd[M, D], ObjectSendStream[tuple[M, D]], Generic[M, D]):
    """The send end of a durable channel. Not made by users: `spool.channel(queue)` gives it.

    An `anyio.abc.ObjectSendStream` of pairs, `(metadata, data)`. It works whether or not anybody receives: entries wait
    on disk.
    """

    async def send(self, item: tuple[M, D]) -> None:
        """Put a pair, `(metadata, data)`, into the queue, as a new entry: all of it or, if this fails, nothing.

        If the channel has `max_entries`, it waits while that many entries or more are available in the queue, no matter
        who put them there. It looks again ten times a second, and whenever this channel receives. The limit is
        approximate: one channel alone never exceeds it, but if several see the last room at the same moment, all of
        them send.

        The spool's name generator makes the entry's name from `Reserve(None)`.

        Returns nothing. Raises `TypeError` if `item` is not a pair; the `SpoolError` that `spool.enqueue` would return,
        or with `max_entries` that of a listing; `anyio.ClosedResourceError` if this end is closed, also while `send`
        waits; `anyio.BrokenResourceError` if the spool was closed under it. It is no error if nobody receives.

        **Cancellation**: cancelled means that nothing was sent. (asyncio's own cancellation may come after the commit:
        then the `CancelledError` has a note that says so.)
        **Durability**: that of the spool: at level `POWER` the entry is synced when `send` returns.

        ```python
        await send.send((Envelope("anne@example.org"), b"Hello"))
        ```
        """
        await checkpoint()
        if not isinstance(item, tuple) or len(item) != 2:  # noqa: PLR2004  # a pair
            raise TypeError(f"a channel sends pairs, (metadata, data), not {item!r}")
        metadata, data = item
        shared = self._shared
        with self._end.in_use():
            async with shared.room():
                _ = (await shared.enqueue(metadata, data)).unwrap()

    async def aclose(self) -> None:
        """Close this end. Idempotent.

        Tasks that wait in its `send` get `anyio.ClosedResourceError`. Receivers, here and in other processes, notice
        nothing: other processes may send for as long as the spool exists.

        **Cancellation**: closed, whatever is cancelled.
        **Durability**: entries that were sent stay sent.

        ```python
        await send.aclose()
        ```
        """
        _ = self._end.close()
        await cancel_shielded_checkpoint()


@final
class ReceiveChannel(ChannelEnd[M, D], ObjectReceiveStream[Received[M, D]], Generic[M, D]):
    """The receive end of a durable channel. Not made by users: `spool.channel(queue)` gives it.

    An `anyio.abc.ObjectReceiveStream` of `Received`, and an iterator:

    ```python
    async for received in receive:
        async with received:
            await deliver(received.metadata, received.data)
    ```

    The iteration does not end by itself, since somebody may always send. Cancel it, or close the channel.
    """

    async def receive(self) -> Received[M, D]:
        """Wait for an entry and check it out, without acknowledging it.

        Put `async with` around what it returns: the block's normal end acknowledges. Entries come in the order of their
        names, no matter who put them into the queue. An entry whose metadata cannot be decoded is set aside in
        quarantine, with a line in the log.

        Returns a `Received`, which nobody else gets until it is acknowledged or returned.

        Raises a `SpoolError` for trouble of the operating system, such as `TooManyOpenFiles`;
        `anyio.ClosedResourceError` if this end is closed, also while `receive` waits; `anyio.BrokenResourceError` if
        the spool was closed under it. It never raises `anyio.EndOfStream`: closing senders does not end a channel.

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
        received = Received(checkout_of(job), self._end.in_hand)
        self._shared.took_one()
        return received

    async def aclose(self) -> None:
        """Close this end, and return to the queue the entries it received and nobody acknowledged. Idempotent.

        Tasks that wait in its `receive` get `anyio.ClosedResourceError`. A block that is at work on an entry of this
        end gets it too, at its end, because the entry has been returned. Senders and other receivers notice nothing.

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


@contextlib.asynccontextmanager
async def open_channel(shared: Shared[M, D]) -> AsyncGenerator[tuple[SendChannel[M, D], ReceiveChannel[M, D]]]:
    """Make both ends of a channel, open for the length of the block."""
    async with shared.reader:
        try:
            yield SendChannel(shared, shared.senders), ReceiveChannel(shared, shared.receivers)
        finally:
            shared.close()
