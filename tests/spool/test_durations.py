"""Durations that must be given, wherever they are given."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest

from helpers.spools import MAIL, Mail
from trio_multispool import every
from trio_multispool.monitor import Limits
from trio_multispool.testing import memory_spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
NAME: dict[str, Any] = {"name": "digest", "start": START}


async def poll(spool: Any, duration: Any) -> None:
    """How long a reader waits before it looks again."""
    spool.reader(Mail.SEND, poll_interval=duration)


async def tick(spool: Any, duration: Any) -> None:
    """How long after each other entries are made."""
    await every(spool, Mail.SEND, duration, lambda _: ({}, b""), **NAME)


async def keep(spool: Any, duration: Any) -> None:
    """For how long it is remembered which were made."""
    await every(spool, Mail.SEND, 60, lambda _: ({}, b""), memory=duration, **NAME)


async def limit(_spool: Any, duration: Any) -> None:
    """How old the entries of a queue may be."""
    Limits(max_queue_ages={"send": duration})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wrong", "error"),
    [(None, TypeError), ("3", TypeError), (10**400, ValueError), (-1, ValueError), (float("nan"), ValueError)],
)
@pytest.mark.parametrize("use", [poll, tick, keep, limit], ids=lambda use: use.__name__)
async def test_what_is_no_duration_is_refused_where_it_is_given(
    use: Callable[[Any, Any], Awaitable[None]], wrong: Any, error: type[Exception]
) -> None:
    """Also what a configuration that was not filled in brings; the message says what was wanted."""
    async with memory_spool(MAIL) as spool:
        with pytest.raises(error, match=r"number of seconds or a timedelta|far too long"):
            await use(spool, wrong)
