"""A program that its server has not answered for long: what it has in hand may be another's soon, and is cancelled."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import pytest

from helpers.gates import until
from helpers.postgresql import server
from helpers.proxies import Proxy
from helpers.spools import MAIL, Mail, put
from trio_multispool import Err, OwnershipLost, Remove, Spool
from trio_multispool.session.stores import Opened
from trio_multispool.spool.spool import spool_on
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.postgresql]

QUICK = Patience(answer=2.0, every=0.05, cut_off=0.5)
QUEUES = [each.value for each in Mail]


@pytest.fixture
def name() -> Iterator[str]:
    """Return the name of a spool that is yet to be made."""
    name = f"cut_off_{secrets.token_hex(4)}"
    yield name
    server().drop(name)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Stand between the server and a program."""
    parts = urlsplit(server().base)
    with Proxy(str(parts.hostname), int(parts.port or 5432)) as proxy:
        yield proxy


def through(proxy: Proxy, name: str) -> Spool[Any, Any, Any, Any]:
    """Open the spool by way of the proxy, and be impatient."""
    url = urlsplit(server().url(name))._replace(netloc=f"multispool@127.0.0.1:{proxy.port}").geturl()
    storage = PostgresStorage.open(url, QUEUES, create=True, patience=QUICK)
    return spool_on(Opened(storage, storage.recovered_at_first), MAIL)


@pytest.mark.parametrize("how", ["handler", "by hand"])
async def test_work_is_cancelled_when_the_server_has_not_answered_for_long(proxy: Proxy, name: str, how: str) -> None:
    """It ends before the server gives the entry away, and its owner is told that the entry is not its own any more."""
    spool = through(proxy, name)
    await put(spool, Mail.SEND, "1")
    ended: list[str] = []

    async def work() -> None:
        ended.append("begun")
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("ended")

    async def handle(_metadata: Any, data: Any) -> Remove:
        await work()
        return Remove()

    answers: list[Any] = []

    async def run() -> None:
        async with spool.reader(Mail.SEND) as reader:
            if how == "handler":
                answer = await reader.iter(handle)
                answers.append(answer.error if isinstance(answer, Err) else answer)
                return
            job = (await reader.dequeue()).unwrap()
            try:
                async with job:
                    await work()
            except OwnershipLost as error:
                answers.append(error)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: ended)
            proxy.frozen = True
            await until(lambda: answers)
    assert ended == ["begun", "ended"]
    assert [type(answer) for answer in answers] == [OwnershipLost]
    proxy.frozen = False
    spool.close()
    async with (await Spool.load(server().url(name), MAIL)).unwrap() as another:
        [entry] = (await another.entries(Mail.SEND)).unwrap()
        assert entry.name == "1"
