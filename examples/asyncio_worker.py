"""A worker on asyncio: it takes entries until it gets SIGTERM, finishes those in hand, and ends.

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
    """Work until SIGTERM."""
    async with (await Spool.create(path, GREETINGS)).unwrap() as spool, spool.reader(Queue.GREETINGS) as reader:
        # `stop` takes no new entry and lets the handlers finish; it may be called from anywhere.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, reader.stop)
        print("ready", flush=True)
        (await reader.iter(greet, concurrency=4)).unwrap()
    print("stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
