"""Mistakes that the type checkers must see: each line has an ignore, and an ignore that is not needed is an error."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec
import pydantic

from trio_multispool import Spool, Spoolable
from trio_multispool.integrations.postgresql import enqueue_in
from trio_multispool.integrations.pydantic import PydanticCodec

if TYPE_CHECKING:
    import psycopg


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"


class Envelope(msgspec.Struct):
    """The metadata."""

    recipient: str


class Model(pydantic.BaseModel):
    """The metadata of others."""

    recipient: str


MODELS = Spoolable(queues=Mail, metadata=PydanticCodec(Model))
MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)


async def misuse() -> None:
    """Make each mistake once."""
    spool = (await Spool.create("var/mail", MAIL)).unwrap()
    envelope = Envelope("anne@example.org")
    _ = await spool.enqueue("send", envelope, b"")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no queue
    _ = await spool.enqueue(Mail.SEND, envelope, "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no bytes
    _ = await spool.enqueue(Mail.SEND, envelope, b"", name="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no Use
    await spool.enqueue(Mail.SEND, envelope, b"")  # pyright: ignore[reportUnusedCallResult]  # a result dropped unread
    models = (await Spool.create("var/models", MODELS)).unwrap()
    _ = await models.enqueue(Mail.SEND, envelope)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # no Model


async def misuse_in_a_transaction(connection: psycopg.Connection, of_asyncio: psycopg.AsyncConnection) -> None:
    """Make each mistake once."""
    envelope = Envelope("anne@example.org")
    enqueue_in(connection, "postgresql:///", MAIL, Mail.SEND, envelope, b"")  # pyright: ignore[reportUnusedCallResult]  # dropped
    enqueue_in(of_asyncio, "postgresql:///", MAIL, Mail.SEND, envelope, b"")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCallResult, reportUnusedCoroutine]  # not awaited
    _ = enqueue_in(connection, "postgresql:///", MAIL, Mail.SEND, envelope)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]  # no data
