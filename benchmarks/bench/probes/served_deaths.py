"""How soon what a process held that was killed is available again on a server, while another process has it open."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import trio

from bench.crew import environment
from bench.probes import run
from bench.systems.own import NOTES, Note, Queue, location
from trio_multispool import Spool

HELD = 10


def measure(url: str, *, deaths: int, first: bool = False, holds: bool = False) -> dict[str, float]:
    """Measure so many deaths; or be who dies. That one may be the `first` that has the spool open."""
    if holds:
        trio.run(_hold, url)
    return trio.run(_measure, url, deaths, first)


async def _hold(url: str) -> None:
    """Check everything out, say so, and wait for the end."""
    spool = (await Spool.load(location(url), NOTES)).unwrap()
    held = [(await entry.checkout()).unwrap() for entry in (await spool.entries(Queue.WORK)).unwrap()]
    print(len(held), flush=True)
    await trio.sleep_forever()


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())


async def _measure(url: str, deaths: int, first: bool) -> dict[str, float]:  # noqa: FBT001  # which is asked for
    took: list[float] = []
    spool = (await Spool.create(location(url), NOTES)).unwrap()
    for number in range(HELD):
        _ = (await spool.enqueue(Queue.WORK, Note(number), b"x")).unwrap()
    command = [sys.executable, "-m", "bench.probes.served_deaths", url, f'{{"deaths": {deaths}, "holds": true}}']
    for _ in range(deaths):
        if first:
            spool.close()
        with _started(command) as holder:
            if int(await trio.to_thread.run_sync(holder.stdout.readline)) != HELD:
                raise RuntimeError("not everything is there")
            if first:
                spool = (await Spool.load(location(url), NOTES)).unwrap()
            await trio.sleep(0.1)
            holder.kill()
            began = time.perf_counter()
            while len((await spool.entries(Queue.WORK)).unwrap()) < HELD:  # noqa: ASYNC110  # what others do
                await trio.sleep(0.001)
            took.append((time.perf_counter() - began) * 1e3)
    spool.close()
    return {"p50": statistics.median(took), "max": max(took)}


if __name__ == "__main__":
    run(measure)
