"""How soon a waiting reader has an entry that another process enqueued, on a server: since the return, and the call."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import trio

from bench.crew import environment
from bench.probes import run
from bench.systems.own import NOTES, Note, Queue, location
from trio_multispool import Remove, Spool

if TYPE_CHECKING:
    from trio_multispool import DataFile, Verdict

PAUSE = 0.03
"""In seconds: the reader waits again by then."""

LEFT_OUT = 10
"""What is new to the processes takes longer."""


def measure(url: str, *, entries: int, produces: bool = False) -> dict[str, float]:
    """Measure so many wake-ups; or be the other process."""
    if produces:
        trio.run(_produce, url, entries + LEFT_OUT)
        sys.exit()
    return trio.run(_consume, url, entries + LEFT_OUT)


async def _produce(url: str, entries: int) -> None:
    """Enqueue; print when each call began, and when it returned."""
    async with (await Spool.load(location(url), NOTES)).unwrap() as spool:
        for number in range(entries):
            if not sys.stdin.buffer.read(1):  # blocks: there is nothing else to do
                sys.exit("the reader has gone")
            await trio.sleep(PAUSE)
            began = time.monotonic_ns()
            _ = (await spool.enqueue(Queue.WORK, Note(number), b"x" * 1024)).unwrap()
            print(began, time.monotonic_ns())


async def _consume(url: str, entries: int) -> dict[str, float]:
    had: list[int] = []
    async with (await Spool.create(location(url), NOTES)).unwrap() as spool:
        command = [sys.executable, "-m", "bench.probes.served_waking", url]
        command.append(f'{{"entries": {entries - LEFT_OUT}, "produces": true}}')
        with _started(command) as producer:

            async def handle(_note: Note, _data: DataFile[bytes]) -> Verdict:
                had.append(time.monotonic_ns())
                if len(had) == entries:
                    reader.stop()
                else:
                    go_on()
                return Remove()

            def go_on() -> None:
                producer.stdin.write(b".")
                producer.stdin.flush()

            async with spool.reader(Queue.WORK) as reader:
                go_on()
                _ = (await reader.iter(handle)).unwrap()
            printed, _ = producer.communicate()
    called, returned = zip(*(map(int, line.split()) for line in printed.splitlines()), strict=True)
    return {**_shown("", had, returned), **_shown("call ", had, called)}


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())


def _shown(prefix: str, had: list[int], began: tuple[int, ...]) -> dict[str, float]:
    took = sorted((one - other) / 1e6 for one, other in list(zip(had, began, strict=True))[LEFT_OUT:])
    return {f"{prefix}p50": statistics.median(took), f"{prefix}p99": took[min(len(took) * 99 // 100, len(took) - 1)]}


if __name__ == "__main__":
    run(measure)
