"""Sixteen readers on one queue of thousands of entries, in eight processes: each entry once, and nobody idle."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest

from helpers.children import Child, quick_directory
from helpers.proofs import WHOLE
from helpers.spools import state_of
from helpers.stores import enqueue, make_store
from trio_multispool import Durability

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROCESSES = 8
CONSUMERS = [f"{process}.{reader}" for process in range(PROCESSES) for reader in range(2)]
NAMES = [f"{number:04}" for number in range(5000 if WHOLE else 500)]


def consume(parent, path, process, backend) -> None:
    """Work a queue off with two readers in one event loop, until told to stop; say what each of them is handed.

    Each holds its first entry until it is told to go: meanwhile all others have to find one of their own. They have to
    be woken for it, or would look again in an hour.
    """
    import anyio
    import anyio.to_thread

    from helpers.gates import breathe
    from helpers.inside import waiters_of
    from helpers.spools import Mail, load_spool
    from trio_multispool import Durability, Ok, Save

    async def both_wait(spool) -> None:
        while len(waiters_of(spool)) < 2:
            await breathe()

    async def main() -> None:
        go = anyio.Event()

        async def work(reader, consumer: str) -> None:
            async def handle(_envelope, data):
                parent.say(consumer, data.name)
                await go.wait()
                return Save(Mail.RETRY)

            answer = await reader.iter(handle)
            if answer != Ok(None):
                parent.say("failed", repr(answer))

        async with (
            await load_spool(path, durability=Durability.PROCESS) as spool,
            spool.reader(Mail.SEND, poll_interval=3600) as one,
            spool.reader(Mail.SEND, poll_interval=3600) as two,
            anyio.create_task_group() as tasks,
        ):
            for number, reader in enumerate([one, two]):
                tasks.start_soon(work, reader, f"{process}.{number}")
            await both_wait(spool)
            parent.say("waiting")
            assert await anyio.to_thread.run_sync(parent.hear) == ["go"]
            go.set()
            assert await anyio.to_thread.run_sync(parent.hear) == ["stop"]
            await both_wait(spool)
            one.stop()
            two.stop()

    anyio.run(main, backend=backend)


def listen(child: Child, said: queue.Queue[Any]) -> None:
    """Hear a child to its end, and pass on what it says; last of all, `None`."""
    for words in child:
        said.put(words)
    said.put(None)


@contextlib.contextmanager
def consumers(path: Path, said: queue.Queue[Any]) -> Iterator[list[Child]]:
    """Have eight processes wait for entries, half of them on Trio; they have to end with the block, and well."""
    with contextlib.ExitStack() as running:
        children = [
            running.enter_context(Child(consume, path, process, ("asyncio", "trio")[process % 2]))
            for process in range(PROCESSES)
        ]
        for child in children:
            assert child.hear() == ["waiting"]
        listeners = [threading.Thread(target=listen, args=[child, said]) for child in children]
        for listener in listeners:
            listener.start()
        yield children
        for listener in listeners:
            listener.join()
        for child in children:
            child.end()


def tell_all(children: list[Child], word: str) -> None:
    """Tell every child."""
    for child in children:
        child.tell(word)


def hear(said: queue.Queue[Any], entries: int) -> list[Any]:
    """Return who was handed so many more entries; a child that failed, or has ended already, is a failure."""
    heard = []
    for _ in range(entries):
        words = said.get()
        assert words is not None, "a child has ended; see its standard error"
        assert words[0] in CONSUMERS, words
        heard.append(words)
    return heard


@pytest.mark.proof
def test_sixteen_readers_in_eight_processes_handle_all_entries_once_each(tmp_path: Path) -> None:
    """All wait for an empty queue; all get an entry, then the rest is anybody's; in the end all wait, and stop."""
    said: queue.Queue[Any] = queue.Queue()
    first, rest = NAMES[: len(CONSUMERS)], NAMES[len(CONSUMERS) :]
    with quick_directory(tmp_path) as directory:
        path = directory / "spool"
        storage = make_store(path, durability=Durability.PROCESS)
        with consumers(path, said) as children:
            for name in first:
                enqueue(storage, "send", name)
            handled = hear(said, len(first))
            assert sorted(consumer for consumer, _ in handled) == CONSUMERS
            for name in rest:
                enqueue(storage, "send", name)
            tell_all(children, "go")
            handled += hear(said, len(rest))
            tell_all(children, "stop")
        storage.close()
        handled += [words for words in said.queue if words is not None]  # nothing, unless something was doubled
        times = collections.Counter(name for _, name in handled)
        assert {name: count for name, count in times.items() if count != 1} == {}
        assert sorted(times) == NAMES
        state = state_of(path)
        assert (state.names("retry"), state.entries()) == (NAMES, set(NAMES))
        assert state.faults() == []
