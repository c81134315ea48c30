"""How often the server is asked: a round trip is what an entry costs on a server."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from helpers.postgresql import server
from helpers.proxies import Proxy
from helpers.spools import ANNE, MAIL, Mail
from trio_multispool import Remove, Retry, Save, Spool
from trio_multispool.reader import dequeue
from trio_multispool.session import pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.postgresql]

ENTRIES = 40

LOOKS = 6
"""More requests than this are not needed besides: for the first entry, for what is left at the end, for requests and
pauses, and for the server to keep a plan."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Stand between the server and a program."""
    parts = urlsplit(server().base)
    with Proxy(str(parts.hostname), int(parts.port or 5432)) as proxy:
        yield proxy


@pytest.fixture
def url(proxy: Proxy) -> Iterator[str]:
    """Return a spool's URL by way of the proxy."""
    name = f"round_trips_{secrets.token_hex(4)}"
    yield urlsplit(server().url(name))._replace(netloc=f"multispool@127.0.0.1:{proxy.port}").geturl()
    server().drop(name)


async def worked_off(spool: Spool[Any, Any, Any, Any], verdict: Any, **how: Any) -> int:
    """Work everything off, and return how many entries that were."""
    done = 0

    async def handle(_metadata: Any, data: Any) -> Any:
        nonlocal done
        assert (await data.load()).unwrap() == b"Hello"
        done += 1
        if done == ENTRIES:
            reader.stop()
        return verdict

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter(handle, **how)).unwrap()
    return done


RETRY = Retry(attempts=3, dead_letter=Mail.FAILED)


@pytest.mark.parametrize(
    "how", [{}, {"retry": RETRY}, {"retry": RETRY, "concurrency": 8}], ids=["plain", "retry", "retry, a pool"]
)
@pytest.mark.parametrize("verdict", [Remove(), Save(Mail.RETRY)], ids=["remove", "save"])
async def test_an_entry_costs_one_round_trip(proxy, url, how, verdict, monkeypatch):
    """It is settled in the one in which the next is checked out, with its data, and the attempt is noted with that.

    But for a look every half second, however many entries that is.
    """
    monkeypatch.setattr(pauses, "LOOK_EVERY", 3600)
    monkeypatch.setattr(dequeue, "RECOVERY_INTERVAL", 3600)
    async with (await Spool.create(url, MAIL)).unwrap() as spool:
        for result in await spool.enqueue_many(Mail.SEND, [(ANNE, b"Hello")] * ENTRIES):
            result.unwrap()
        proxy.count()
        assert await worked_off(spool, verdict, **how) == ENTRIES
        asked = [each for each in proxy.stop_counting() if "multispool slot" not in each]
    assert len(asked) <= ENTRIES + LOOKS, "\n".join(asked)


ENQUEUING: dict[str, tuple[Callable[[Spool[Any, Any, Any, Any]], Any], int]] = {
    "one": (lambda spool: spool.enqueue(Mail.SEND, ANNE, b"Hello"), 1),
    "many": (lambda spool: spool.enqueue_many(Mail.SEND, [(ANNE, b"Hello")] * 100), 1),
}


@pytest.mark.parametrize("enqueue", ENQUEUING)
async def test_enqueueing_costs_one_round_trip(proxy, url, enqueue):
    """Also of a hundred entries at once."""
    act, expected = ENQUEUING[enqueue]
    async with (await Spool.create(url, MAIL)).unwrap() as spool:
        for _ in range(2):  # it connects, and then prepares the statement
            await act(spool)
        proxy.count()
        await act(spool)
        assert len(proxy.stop_counting()) == expected
