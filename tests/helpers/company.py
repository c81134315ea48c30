"""Four producers and four workers that use a spool at full speed, each a process of its own, until the block ends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from helpers.processes import start_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRODUCER = """
import sys, trio
from pathlib import Path
from helpers.calls import WithoutSyncs
from helpers.spools import ANNE, Mail, load_spool
from trio_multispool import Use

async def main():
    spool = await load_spool(Path(sys.argv[1]), system_calls=WithoutSyncs())
    number = 0
    print("at work", flush=True)
    while not Path(sys.argv[1], "..", "stop").exists():
        name = {"name": Use(f"again-{number % 20}")} if number % 3 == 0 else {}
        await spool.enqueue(Mail.SEND, ANNE, b"Hello", **name)
        number += 1
        if number % 20 == 0:
            while len((await spool.entries(Mail.SEND)).unwrap()) > 100 and not Path(sys.argv[1], "..", "stop").exists():
                await trio.sleep(0.005)
    print(number)

trio.run(main)
"""
WORKER = """
import sys, trio
from pathlib import Path
from helpers.calls import WithoutSyncs
from helpers.spools import BERT, Mail, load_spool
from trio_multispool import Release, Remove, Save

done = 0

async def handle(envelope, data):
    global done
    done += 1
    if done % 5 == 0:
        (await data.save(b"changed")).unwrap()
    if envelope.attempts == 0 and done % 3 == 0:
        return Save(Mail.RETRY, type(envelope)("bert@example.org", 1))
    return Release() if done % 17 == 0 else Remove()

async def main():
    spool = await load_spool(Path(sys.argv[1]), system_calls=WithoutSyncs())
    async with spool.reader(Mail.SEND) as send, spool.reader(Mail.RETRY) as retry, trio.open_nursery() as nursery:
        async def iterate(reader, concurrency):
            (await reader.iter(handle, concurrency=concurrency)).unwrap()
        nursery.start_soon(iterate, send, 2)
        nursery.start_soon(iterate, retry, 1)
        print("at work", flush=True)
        while not Path(sys.argv[1], "..", "stop").exists():
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    print(done)

trio.run(main)
"""


@contextlib.contextmanager
def company(path: Path, counts: list[int]) -> Iterator[None]:
    """Let four producers and four workers use the spool at full speed; count what they did."""
    processes = [start_python(code, path) for code in (PRODUCER, WORKER) * 4]
    for process in processes:
        assert process.stdout.readline() == "at work\n"
    try:
        yield
    finally:
        (path.parent / "stop").touch()
        for process in processes:
            out, _ = process.communicate()
            counts.append(int(out) if process.returncode == 0 else -1)
