"""Enqueue two messages, and work them off."""

import enum

import msgspec
import trio

from trio_multispool import DataFile, Remove, Save, Spool, Spoolable, Verdict


class Mail(enum.Enum):
    """The queues, and the names of their directories."""

    SEND = "send"
    FAILED = "failed"


class Envelope(msgspec.Struct):
    """The metadata, stored as JSON."""

    recipient: str


MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)


async def deliver(envelope: Envelope, message: DataFile[bytes]) -> Verdict[Mail, Envelope]:
    """Raise, be cancelled or be killed in here: the entry goes back to its queue."""
    print(envelope.recipient, (await message.load()).unwrap())
    return Remove() if "@" in envelope.recipient else Save(Mail.FAILED)


async def main() -> None:
    """Other processes may do either half, any number of them."""
    spool = (await Spool.create("mail", MAIL)).unwrap()
    for recipient in ["anne@example.org", "bert"]:
        (await spool.enqueue(Mail.SEND, Envelope(recipient), b"Hello!")).unwrap()  # now it is on disk, and synced
    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(deliver)).unwrap()


trio.run(main)
