"""What is done to a spool while its device is watched: every change that the library offers, alone and several at once.

Nothing here looks at the disk. Each change is written down in a ledger before it is asked for and when it is answered.
Small data and large: some file systems keep a small file's content beside its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from filesystems.ledger import Entry
from helpers.spools import MAIL, Envelope, Mail, make_spool
from trio_multispool import Durability, Use

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from filesystems.ledger import Ledger
    from trio_multispool import CheckedOutEntry, Spool
    from trio_multispool.storage.directory.disk.syscalls import SystemCalls

SMALL = b"Hello"
LARGE = b"Hello, this is more than a page. " * 1000
OTHER = b"Good bye, and this too. " * 1000


@dataclasses.dataclass
class Workload:
    """The operations on one open spool, with what is expected of them."""

    spool: Spool[Any, Any, Any, Any]
    ledger: Ledger
    acknowledged: Callable[[], None]
    """Called right after every `Ok`."""

    async def enqueue(self, name: str, data: bytes, durability: Durability | None = None) -> None:
        """Enqueue to `send`."""
        envelope = Envelope(name)
        to = Entry("send", encoded(envelope), data)
        with self.ledger.changing(name, "enqueue", to, lasting=durability is None):
            (await self.spool.enqueue(Mail.SEND, envelope, data, name=Use(name), durability=durability)).unwrap()
        self.acknowledged()

    async def check_out(self, queue: Mail, name: str) -> CheckedOutEntry[Any, Any, Any]:
        """Check out, which changes nothing that power loss leaves."""
        job = (await self.spool.entry(queue, name).unwrap().checkout()).unwrap()
        self.acknowledged()
        return job

    async def save(
        self, source: Mail, name: str, data: bytes, queue: Mail, durability: Durability | None = None
    ) -> None:
        """Check out of one queue, and save with changed metadata to another."""
        async with await self.check_out(source, name) as job:
            envelope = msgspec.structs.replace(job.metadata, attempts=job.metadata.attempts + 1)
            to = Entry(queue.value, encoded(envelope), data)
            with self.ledger.changing(name, "save", to, lasting=durability is None):
                (await job.save(queue, envelope, durability=durability)).unwrap()
            self.acknowledged()

    async def move(self, source: Mail, name: str, to: Entry) -> None:
        """Check out of one queue, and save with the same metadata to another."""
        async with await self.check_out(source, name) as job:
            with self.ledger.changing(name, "move", to):
                (await job.save(Mail(to.queue))).unwrap()
            self.acknowledged()

    async def remove(self, queue: Mail, name: str) -> None:
        """Check out and remove."""
        async with await self.check_out(queue, name) as job:
            with self.ledger.changing(name, "remove", None):
                (await job.remove()).unwrap()
            self.acknowledged()

    async def replace_data(self, queue: Mail, name: str, data: bytes) -> None:
        """Check out, replace the data, and return the entry."""
        async with await self.check_out(queue, name) as job:
            to = Entry(queue.value, encoded(job.metadata), data)
            with self.ledger.changing(name, "replace the data of", to):
                (await job.data.save(data)).unwrap()
            self.acknowledged()
            (await job.release()).unwrap()
            self.acknowledged()

    async def change_in_place(self, queue: Mail, name: str, data: bytes) -> None:
        """Change the metadata of an entry that is available."""
        envelope = Envelope(name, 7)
        with self.ledger.changing(name, "change", Entry(queue.value, encoded(envelope), data)):
            (await self.spool.entry(queue, name).unwrap().direct.save(envelope)).unwrap()
        self.acknowledged()

    async def one_by_one(self) -> None:
        """Do each change alone."""
        await self.enqueue("large", LARGE)
        await self.enqueue("small", SMALL)
        await self.save(Mail.SEND, "large", LARGE, Mail.RETRY)
        await self.save(Mail.RETRY, "large", LARGE, Mail.RETRY)
        await self.replace_data(Mail.RETRY, "large", OTHER)
        await self.change_in_place(Mail.SEND, "small", SMALL)
        await self.move(Mail.SEND, "small", Entry("retry", encoded(Envelope("small", 7)), SMALL))
        await self.move(Mail.RETRY, "small", Entry("send", encoded(Envelope("small", 7)), SMALL))
        await self.remove(Mail.SEND, "small")
        await self.save(Mail.RETRY, "large", OTHER, Mail.FAILED)
        await self.remove(Mail.FAILED, "large")
        await self.enqueue("small", LARGE)  # the name is free again

    async def at_once(self) -> None:
        """Do several changes at the same time, so that they share what they can."""
        names = ("x", "y", "z")
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self.enqueue, name, LARGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.save, Mail.SEND, "x", LARGE, Mail.RETRY)
            nursery.start_soon(self.save, Mail.SEND, "y", LARGE, Mail.FAILED)
            nursery.start_soon(self.remove, Mail.SEND, "z")
            nursery.start_soon(self.enqueue, "w", SMALL)

    async def in_one_go(self) -> None:
        """Enqueue many for one caller, in one batch."""
        names = ("m1", "m2", "m3")
        with contextlib.ExitStack() as changing:
            for name in names:
                to = Entry("send", encoded(Envelope(name)), LARGE)
                changing.enter_context(self.ledger.changing(name, "enqueue", to, lasting=True))
            items = [(Envelope(name), LARGE) for name in names]
            for answer in await self.spool.enqueue_many(Mail.SEND, items, names=[Use(name) for name in names]):
                answer.unwrap()
        self.acknowledged()

    async def at_several_levels(self) -> None:
        """Change one entry at level `PROCESS`, and then at `POWER`, which must not be undone with the first."""
        await self.enqueue("mixed", LARGE, Durability.PROCESS)
        await self.save(Mail.SEND, "mixed", LARGE, Mail.RETRY)
        await self.save(Mail.RETRY, "mixed", LARGE, Mail.SEND, Durability.PROCESS)
        await self.save(Mail.SEND, "mixed", LARGE, Mail.FAILED)


async def work(path: Path, ledger: Ledger, calls: SystemCalls, acknowledged: Callable[[], None]) -> None:
    """Make a spool, and do all of it."""
    async with await make_spool(path, MAIL, system_calls=calls) as spool:
        ledger.created()
        acknowledged()
        workload = Workload(spool, ledger, acknowledged)
        await workload.one_by_one()
        await workload.at_once()
        await workload.in_one_go()
        await workload.at_several_levels()


def encoded(envelope: Envelope) -> bytes:
    """Return metadata as it lies on disk."""
    return msgspec.json.encode(envelope)
