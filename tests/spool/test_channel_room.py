"""The room in a channel's queue: who is woken when there is some, and that what is under way takes some.

The clock stands still here: a sender that looks again was woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers.gates import Gates, breathe, let_go_at_last
from helpers.inside import threads_of
from helpers.spools import ANNE, Mail, names_in, put, quick_spool

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import Location

MESSAGE = (ANNE, b"Hello")


async def at_rest(spool: Any) -> None:
    """Wait until no thread works for the spool, and everybody has been told of what they did."""
    quiet = 0
    while quiet < 10:
        await breathe()
        quiet = 0 if threads_of(spool) else quiet + 1


@pytest.mark.sample
async def test_receiving_wakes_a_sender_that_waits_for_room(place: Location, mock_clock: Any, nursery: Any) -> None:
    """In the same channel, at once: it does not wait for the time at which it would look again."""
    async with (
        await quick_spool(place) as spool,
        spool.channel(Mail.SEND, max_entries=2) as (send, receive),
    ):
        await put(spool, Mail.SEND, "1", "2")
        sent: list[int] = []

        async def do(number: int) -> None:
            await send.send(MESSAGE)
            sent.append(number)

        for number in range(2):
            nursery.start_soon(do, number)
            await at_rest(spool)
        assert sent == []
        for number in range(2):
            await receive.receive()
            await at_rest(spool)
            assert sent == list(range(number + 1))
        assert len(await names_in(spool, Mail.SEND)) == 2


async def test_what_is_sent_while_the_queue_is_listed_is_counted(tmp_path: Path, mock_clock: Any, nursery: Any) -> None:
    """It was on its way when the listing began, and is on disk when it ends, too late to be seen: it takes the room."""
    gates = Gates()
    async with (
        await quick_spool(tmp_path / "spool", system_calls=gates) as spool,
        spool.channel(Mail.SEND, max_entries=1) as (send, _),
    ):
        sent: list[str] = []

        async def do(which: str) -> None:
            await send.send(MESSAGE)
            sent.append(which)

        sending = gates.hold("move")
        with let_go_at_last(sending):
            nursery.start_soon(do, "first")
            await sending.reached()
            listed = gates.hold("regular_files", "send", after=True)
            with let_go_at_last(listed):
                nursery.start_soon(do, "second")
                await listed.reached()
                sending.go()
                while not sent:
                    await breathe()
            await at_rest(spool)
        assert sent == ["first"]
        assert len(await names_in(spool, Mail.SEND)) == 1
        nursery.cancel_scope.cancel()
