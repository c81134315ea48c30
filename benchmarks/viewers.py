"""How much workers lose beside viewers of the dashboard: their rate with none, and with fifty, in turns.

    $ PYTHONPATH=src python benchmarks/viewers.py --viewers 50 --rounds 5 --seconds 10

Two processes work a queue off and fill it again, each entry going back into its queue, so that its length stays. A
server of `multispool web` runs all the time. Viewers are connections that read the overview's stream, from one process;
in every other turn there are none, and then nobody looks at the spool. Where other programs use the processors too, the
rate says little; the workers' processor time for an entry, and the server's share, say what viewers cost.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from trio_multispool import Durability, Save, Spool, Spoolable

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized


class Work(enum.Enum):
    """The queues."""

    ROUND = "round"
    ASIDE = "aside"


WORK = Spoolable(queues=Work, metadata=dict[str, int], data=bytes)


def work(path: str, done: Synchronized[int]) -> None:
    """Work until the process is killed."""

    async def main() -> None:
        spool = (await Spool.load(path, WORK, durability=Durability.PROCESS)).unwrap()

        async def handle(_metadata: object, _data: object) -> Save[Work, dict[str, int]]:
            with done.get_lock():
                done.value += 1
            return Save(Work.ROUND)

        async with spool.reader(Work.ROUND) as reader:
            (await reader.iter(handle, concurrency=8)).unwrap()

    trio.run(main)


async def view(address: str, cookie: str, number: int) -> None:
    """Read streams until cancelled."""
    parts = urlsplit(address)

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        asked = f"GET /0/ HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\nCookie: {cookie}\r\n\r\n"
        writer.write(asked.encode())
        try:
            while await reader.read(1 << 16):
                pass
        finally:
            writer.close()

    await asyncio.gather(*(one() for _ in range(number)))


def view_until_killed(address: str, cookie: str, number: int) -> None:
    """Be that many viewers."""
    asyncio.run(view(address, cookie, number))


def enter(address: str) -> str:
    """Return the cookie that the token is changed for."""
    import httpx  # noqa: PLC0415  # after the workers have been started

    return str(httpx.get(address).headers["set-cookie"]).partition(";")[0]


async def fill(path: str, entries: int) -> None:
    """Make the spool."""
    async with (await Spool.create(path, WORK, durability=Durability.PROCESS)).unwrap() as spool:
        for answer in await spool.enqueue_many(Work.ROUND, [({"n": number}, b"data") for number in range(entries)]):
            _ = answer.unwrap()


def seconds_of(*pids: int | None) -> float:
    """Return how many seconds of processor time processes have had."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print each turn and the loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("viewers", 50), ("rounds", 5), ("seconds", 10), ("entries", 2000), ("workers", 2)):
        _ = parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "spool"))
        trio.run(fill, path, asked.entries)
        done: Synchronized[int] = multiprocessing.Value("q", 0)
        workers = [multiprocessing.Process(target=work, args=(path, done)) for _ in range(asked.workers)]
        command = [sys.executable, "-m", "trio_multispool", "web", path, "--bind", "127.0.0.1:0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert re.match("http://", address)
        cookie = enter(address)
        for worker in workers:
            worker.start()
        rates: dict[int, list[float]] = {0: [], asked.viewers: []}
        efforts: dict[int, list[float]] = {0: [], asked.viewers: []}
        workers_are = [worker.pid for worker in workers]
        try:
            for turn in range(2 * asked.rounds + 1):
                viewers = asked.viewers if turn % 2 else 0
                looking = multiprocessing.Process(target=view_until_killed, args=(address, cookie, viewers))
                looking.start()
                time.sleep(2)  # until the viewers are there, and the last ones gone
                began, before = time.perf_counter(), done.value
                used, served = seconds_of(*workers_are), seconds_of(server.pid)
                time.sleep(asked.seconds)
                took, number = time.perf_counter() - began, done.value - before
                rate, effort = number / took, (seconds_of(*workers_are) - used) / number * 1e6
                load = (seconds_of(server.pid) - served) / took
                looking.kill()
                looking.join()
                if turn:  # the first one warms up
                    rates[viewers].append(rate)
                    efforts[viewers].append(effort)
                    told = (
                        f"{rate:8.1f} entries/s, {effort:6.1f} µs of processor time each; the server: {load:.1%} of one"
                    )
                    print(f"{viewers:3} viewers: {told}", flush=True)
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
            server.send_signal(signal.SIGTERM)
            _ = server.wait()
    without, beside = (statistics.median(rates[each]) for each in (0, asked.viewers))
    print(f"median {without:.1f} without, {beside:.1f} beside {asked.viewers}: {1 - beside / without:+.1%} lost")
    without, beside = (statistics.median(efforts[each]) for each in (0, asked.viewers))
    print(f"for an entry, {without:.1f} µs without, {beside:.1f} µs beside them: {beside / without - 1:+.1%}")


if __name__ == "__main__":
    main()
