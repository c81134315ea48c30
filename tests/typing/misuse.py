"""Mistakes that the type checkers must see: each line has an ignore, and an ignore that is not needed is an error."""

from __future__ import annotations

import enum

import msgspec

from trio_multispool import Spool, Spoolable


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"


class Envelope(msgspec.Struct):
    """The metadata."""

    recipient: str


MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)


async def misuse() -> None:
    """Make each mistake once."""
    spool = (await Spool.create("var/mail", MAIL)).unwrap()
    envelope = Envelope("anne@example.org")
    _ = await spool.enqueue("send", envelope, b"")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no queue
    _ = await spool.enqueue(Mail.SEND, envelope, "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no bytes
    _ = await spool.enqueue(Mail.SEND, envelope, b"", name="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no Use
    await spool.enqueue(Mail.SEND, envelope, b"")  # pyright: ignore[reportUnusedCallResult]  # a result dropped unread
