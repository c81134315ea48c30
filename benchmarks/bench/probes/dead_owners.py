"""How long it takes until what dead processes held is there again."""

from __future__ import annotations

import os
import signal
import time

import trio

from bench.probes import run
from bench.systems.own import NOTES, Note, Queue
from trio_multispool import Durability, Spool, Use

EACH = 10
"""How many entries each dead process held."""


def measure(folder: str, *, owners: int) -> dict[str, float]:
    """Have so many processes die, and recover what they held, and take one of it."""
    path = f"{folder}/spool"
    trio.run(_enqueue, path, owners * EACH)
    for owner in range(owners):
        process = os.fork()
        if process == 0:
            try:
                trio.run(_hold, path, owner)
            finally:
                os._exit(1)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            raise RuntimeError(f"an owner ended with {status}")
    return trio.run(_recover, path, owners * EACH)


async def _enqueue(path: str, count: int) -> None:
    async with (await Spool.create(path, NOTES, durability=Durability.PROCESS)).unwrap() as spool:
        items = [(Note(number), b"x") for number in range(count)]
        for answer in await spool.enqueue_many(Queue.WORK, items, names=[Use(str(number)) for number in range(count)]):
            _ = answer.unwrap()


async def _hold(path: str, owner: int) -> None:
    """Check entries out by name, which looks for no dead owners, and die."""
    spool = (await Spool.load_unsafe(path, NOTES)).unwrap()
    names = range(owner * EACH, (owner + 1) * EACH)
    held = [(await spool.entry(Queue.WORK, str(name)).unwrap().checkout()).unwrap() for name in names]
    if len(held) == EACH:
        os.kill(os.getpid(), signal.SIGKILL)


async def _recover(path: str, expected: int) -> dict[str, float]:
    spool = (await Spool.load_unsafe(path, NOTES)).unwrap()
    began = time.perf_counter()
    recovered = len((await spool.recover()).unwrap())
    took = time.perf_counter() - began
    spool.close()
    if recovered != expected:
        raise RuntimeError(f"{recovered} of {expected} entries were recovered")
    return {"recover": took}


if __name__ == "__main__":
    run(measure)
