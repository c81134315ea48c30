"""Enqueue a message, and work it off."""

import enum

import trio

from trio_multispool import DataFile, Remove, Spool, Spoolable


class Mail(enum.Enum):
    """The queues, and the names of their directories."""

    SEND = "send"


async def deliver(recipient: str, _data: DataFile) -> Remove:
    """Raise, be cancelled or be killed in here: the entry goes back to its queue."""
    print("Hello,", recipient)
    return Remove()


async def main() -> None:
    """Other processes may do either half, any number of them."""
    spool = (await Spool.create("mail", Spoolable(Mail, str))).unwrap()
    (await spool.enqueue(Mail.SEND, "anne@example.org")).unwrap()  # now it is on disk, and synced
    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(deliver)).unwrap()


trio.run(main)
