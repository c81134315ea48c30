"""The rows of the original's `Spoolable`: queues, metadata, data, names, and the throttle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from helpers.spools import ANNE, MAIL, Envelope, Mail, names_in, put, quick_spool, state_of
from trio_multispool import (
    DataFile,
    Ok,
    Release,
    Remove,
    Reserve,
    Save,
    Spool,
    Spoolable,
    Unavailable,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio


class Pickled:
    """A codec of the caller's: `decode` and `encode`, `load` and `dump`."""

    def encode(self, value: tuple[str, int]) -> bytes:
        """Write words."""
        return f"{value[0]} {value[1]}".encode()

    def decode(self, raw: bytes) -> tuple[str, int]:
        """Read words."""
        word, number = raw.decode().split()
        return word, int(number)

    def dump(self, value: list[str], file) -> None:
        """Write lines."""
        file.writelines(line.encode() + b"\n" for line in value)

    def load(self, file) -> list[str]:
        """Read lines."""
        return [line.decode().rstrip("\n") for line in file]


class Prefixed:
    """A generator of the caller's."""

    def next(self, argument: str, attempt: int) -> str:
        """Make a name of the argument."""
        return f"{argument}-{attempt}"


async def test_a_spoolable_is_a_value_that_says_all_about_a_spool(tmp_path):
    """Queues, metadata, data and names of the caller's own go through create, enqueue, checkout, save and load."""
    mine = Spoolable(queues=Mail, metadata=Pickled(), data=Pickled(), names=Prefixed())
    spool = (await Spool.create(tmp_path / "spool", mine)).unwrap()
    assert spool.spoolable is mine
    entry = (await spool.enqueue(Mail.SEND, ("word", 1), ["a", "b"], name=Reserve("x"))).unwrap()
    assert (spool.path / "send" / "x-0").read_bytes() == b"word 1"
    assert (spool.path / ".data" / "x-0").read_bytes() == b"a\nb\n"
    async with (await entry.checkout()).unwrap() as job:
        assert job.metadata == ("word", 1)
        assert await job.data.load() == Ok(["a", "b"])
        (await job.data.save(["c"])).unwrap()
        (await job.save(Mail.FAILED, ("word", 2))).unwrap()
    again = (await Spool.load(spool.path, mine)).unwrap()
    assert await again.entry(Mail.FAILED, "x-0").unwrap().direct.contents() == Ok(("word", 2))
    assert await again.entry(Mail.FAILED, "x-0").unwrap().direct.data_file.load() == Ok(["c"])


async def test_the_queues_of_the_enum_are_the_directories_and_no_other_value_is_a_queue(tmp_path):
    """Every queue is a directory of its value; a queue that is none of the spool's raises `TypeError`."""
    spool = await quick_spool(tmp_path / "spool")
    for queue in Mail:
        (await spool.enqueue(queue, ANNE, b"")).unwrap()
        assert len(list((spool.path / queue.value).iterdir())) == 2  # the entry and .checkout
    before = state_of(spool.path)
    (entry,) = (await spool.entries(Mail.SEND)).unwrap()
    for wrong in ("send", None, Unavailable.GONE, MAIL):
        with pytest.raises(TypeError):
            await spool.enqueue(wrong, ANNE, b"")
        with pytest.raises(TypeError):
            await spool.entries(wrong)
        with pytest.raises(TypeError):
            await spool.checkouts_unsafe(wrong)
        with pytest.raises(TypeError):
            spool.entry(wrong, "a")
        with pytest.raises(TypeError):
            spool.reader(wrong)
        async with (await entry.checkout()).unwrap() as job:
            with pytest.raises(TypeError):
                await job.save(wrong)
            assert not job.settled
    assert state_of(spool.path) == before


# The throttle


async def answer_release(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
    """Put the entry back."""
    return Release()


def waiting_operations(spool: Spool) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return every operation that passes the limiter."""
    entry = spool.entry(Mail.SEND, "a").unwrap()
    direct = entry.direct

    async def read(what: str) -> object:
        async with spool.reader(Mail.SEND) as reader:
            return await {
                "dequeue": reader.dequeue,
                "dequeue_available": reader.dequeue_available,
                "iter": lambda: reader.iter(answer_release),
                "iter_available": lambda: reader.iter_available(answer_release),
            }[what]()

    return {
        "create": lambda: Spool.create(spool.path, MAIL, limiter=spool._session.offload.limiter),
        "load": lambda: Spool.load(spool.path, MAIL, limiter=spool._session.offload.limiter),
        "load_unsafe": lambda: Spool.load_unsafe(spool.path, MAIL, limiter=spool._session.offload.limiter),
        "entries": lambda: spool.entries(Mail.SEND),
        "enqueue": lambda: spool.enqueue(Mail.SEND, ANNE, b""),
        "reserve_name": spool.reserve_name,
        "checkouts_unsafe": lambda: spool.checkouts_unsafe(Mail.SEND),
        "recover": spool.recover,
        "adopt": spool.adopt,
        "with_entry": lambda: spool.with_entry(entry, answer_release),
        "try_with_entry": lambda: spool.try_with_entry(entry, answer_release),
        "stat": entry.stat,
        "checkout": entry.checkout,
        "try_checkout": entry.try_checkout,
        "direct.contents": direct.contents,
        "direct.save": lambda: direct.save(ANNE),
        "direct.remove": direct.remove,
        "data.load": direct.data_file.load,
        "data.save": lambda: direct.data_file.save(b""),
        "data.stat": direct.data_file.stat,
        **{what: (lambda what=what: read(what)) for what in ("dequeue", "dequeue_available", "iter", "iter_available")},
    }


async def let_others_run() -> None:
    """Let every task that can run do so, many times over."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


async def test_every_operation_but_settling_waits_for_a_token_of_the_limiter(tmp_path):
    """While all tokens are borrowed nothing starts; what is cancelled meanwhile has not happened."""
    limiter = anyio.CapacityLimiter(1)
    spool = await quick_spool(tmp_path / "spool", limiter=limiter)
    await put(spool, Mail.SEND, "a")
    before = state_of(spool.path)
    await limiter.acquire_on_behalf_of(spool)
    for name, operation in waiting_operations(spool).items():
        done = False

        async def run(operation: Callable[[], Awaitable[object]] = operation) -> None:
            nonlocal done
            await operation()
            done = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await let_others_run()
            assert limiter.statistics().tasks_waiting == 1, name
            tasks.cancel_scope.cancel()
        assert not done, name
        assert limiter.statistics().tasks_waiting == 0
    assert state_of(spool.path) == before
    limiter.release_on_behalf_of(spool)
    assert await names_in(spool, Mail.SEND) == ["a"]


@pytest.mark.parametrize("how", ["release", "save", "remove", "leaving the block", "leaving the reader", "giving up"])
async def test_settling_and_releasing_never_wait_for_the_limiter(tmp_path, how):
    """An entry in hand is given back or settled while every token is borrowed."""
    limiter = anyio.CapacityLimiter(1)
    spool = await quick_spool(tmp_path / "spool", limiter=limiter)
    await put(spool, Mail.SEND, "a")
    with anyio.fail_after(30):  # a settling that waited would wait for ever
        if how == "giving up":
            async with (await spool.reserve_name()).unwrap():
                await limiter.acquire_on_behalf_of(spool)
        elif how == "leaving the reader":
            async with spool.reader(Mail.SEND) as reader:
                (await reader.dequeue()).unwrap()
                await limiter.acquire_on_behalf_of(spool)
        else:
            async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
                await limiter.acquire_on_behalf_of(spool)
                match how:
                    case "release":
                        (await job.release()).unwrap()
                    case "save":
                        (await job.save(Mail.RETRY, ANNE)).unwrap()
                    case "remove":
                        (await job.remove()).unwrap()
    limiter.release_on_behalf_of(spool)
    state = state_of(spool.path)
    assert state.places("a") == {"save": ["retry"], "remove": []}.get(how, ["send"])
    assert state.faults() == []


async def test_a_handlers_verdict_is_stored_while_every_token_is_borrowed(tmp_path):
    """Who takes all tokens in a handler does not keep its own verdict from being stored."""
    limiter = anyio.CapacityLimiter(1)
    spool = await quick_spool(tmp_path / "spool", limiter=limiter)
    await put(spool, Mail.SEND, "a", "b")
    verdicts = iter([Remove(), Save(Mail.FAILED)])

    async def greedy(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
        await limiter.acquire_on_behalf_of(verdicts)
        return next(verdicts)

    for name in ("a", "b"):
        with anyio.fail_after(30):
            (await spool.with_entry(spool.entry(Mail.SEND, name).unwrap(), greedy)).unwrap()
        limiter.release_on_behalf_of(verdicts)
    state = state_of(spool.path)
    assert state.names("failed") == ["b"]
    assert state.names("send") == []
    assert state.faults() == []


async def test_one_limiter_may_serve_several_spools(tmp_path):
    """The limiter is the caller's: what one spool borrows another waits for, and everything comes to its end."""
    limiter = anyio.CapacityLimiter(1)
    spools = [await quick_spool(tmp_path / str(number), limiter=limiter) for number in range(3)]
    async with anyio.create_task_group() as tasks:
        for spool in spools:
            for number in range(4):
                tasks.start_soon(put, spool, Mail.SEND, f"entry-{number}")
    assert [await names_in(spool, Mail.SEND) for spool in spools] == [[f"entry-{n}" for n in range(4)]] * 3
    assert limiter.borrowed_tokens == 0
