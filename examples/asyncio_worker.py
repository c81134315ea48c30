"""A worker on asyncio: it takes entries until SIGTERM or Ctrl-C, finishes those in hand, and ends.

    python examples/asyncio_worker.py SPOOL

Nothing but the last lines knows of asyncio: the library is the same on both.
"""

import asyncio
import enum
import signal
import sys

import msgspec

from trio_multispool import DataFile, Remove, Spool, Spoolable, Verdict


class Queue(enum.Enum):
    """The queues."""

    GREETINGS = "greetings"


class Greeting(msgspec.Struct):
    """The metadata."""

    to: str


GREETINGS = Spoolable(queues=Queue, metadata=Greeting, data=str)


async def greet(greeting: Greeting, text: DataFile[str]) -> Verdict[Queue, Greeting]:
    """Work on one entry."""
    words = (await text.load()).unwrap()
    await asyncio.sleep(0.01)  # what takes time
    print(f"{words}, {greeting.to}!", flush=True)
    return Remove()


async def main(path: str) -> None:
    """Work until a signal comes."""
    async with (await Spool.create(path, GREETINGS)).unwrap() as spool, spool.reader(Queue.GREETINGS) as reader:
        # Takes no new entry then, and lets the handlers finish; after ten seconds, what they have goes back.
        reader.drain_on(signal.SIGTERM, signal.SIGINT, timeout=10)
        print("ready", flush=True)
        (await reader.iter(greet, concurrency=4)).unwrap()
    print("stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
