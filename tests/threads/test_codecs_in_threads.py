"""What a codec finds in its thread is the same in every operation: its task's context, no event loop, a way back."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import pytest

from helpers.spools import Envelope, Mail
from trio_multispool import Json, Spool, Spoolable

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Curious:
    """A codec of metadata and of data that looks around in its thread."""

    def __init__(self) -> None:
        self.token: Any = None
        self.calls: dict[str, str] = {}
        self.json = Json(Envelope)

    def look(self, what: str) -> None:
        """Run a loop of its own, call into the program's loop, and see whose context it is."""
        assert anyio.run(self.own_loop) == "ran"
        assert anyio.from_thread.run(self.theirs, token=self.token) == "theirs"
        self.calls[what] = WHO.get()

    async def own_loop(self) -> str:
        """Run in a loop that the codec starts."""
        await anyio.lowlevel.checkpoint()
        return "ran"

    async def theirs(self) -> str:
        """Run in the program's loop."""
        await anyio.lowlevel.checkpoint()
        return "theirs"

    def encode(self, value: Envelope) -> bytes:
        """Encode metadata."""
        self.look("encode")
        return self.json.encode(value)

    def decode(self, raw: bytes) -> Envelope:
        """Decode metadata."""
        self.look("decode")
        return self.json.decode(raw)

    def dump(self, value: bytes, file: Any) -> None:
        """Write data."""
        self.look("dump")
        file.write(value)

    def load(self, file: Any) -> bytes:
        """Read data."""
        self.look("load")
        return bytes(file.read())


async def test_a_codec_may_do_the_same_in_every_operation(tmp_path: Path) -> None:
    """In batches as in hops of their own: enqueue one or many, check out, settle, load and replace data."""
    codec = Curious()
    codec.token = anyio.lowlevel.current_token()
    spoolable = Spoolable(Mail, codec, codec)
    async with (await Spool.create(tmp_path / "spool", spoolable)).unwrap() as spool:

        async def expect(operation: str, answer: Any, *calls: str) -> Any:
            assert codec.calls == dict.fromkeys(calls, operation), operation
            codec.calls.clear()
            return answer.unwrap() if hasattr(answer, "unwrap") else [each.unwrap() for each in answer]

        WHO.set("enqueue")
        entry = await expect("enqueue", await spool.enqueue(Mail.SEND, Envelope("a"), b"1"), "encode", "dump")
        WHO.set("enqueue_many")
        many = await spool.enqueue_many(Mail.SEND, [(Envelope("b"), b"2")])
        await expect("enqueue_many", many, "encode", "dump")
        WHO.set("checkout")
        async with await expect("checkout", await entry.checkout(), "decode") as job:
            WHO.set("load")
            await expect("load", await job.data.load(), "load")
            WHO.set("replace")
            await expect("replace", await job.data.save(b"3"), "dump")
            WHO.set("save")
            await expect("save", await job.save(Mail.RETRY, Envelope("c")), "decode", "encode")
        WHO.set("dequeue")
        async with spool.reader(Mail.RETRY) as reader:
            await expect("dequeue", await reader.dequeue_available(), "decode")
