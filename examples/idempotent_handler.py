"""A handler that may run twice for one entry, and takes effect once.

    python examples/idempotent_handler.py SPOOL DATABASE

A worker can be killed after its handler's effect and before the entry is removed: then another worker does the entry
again. What cannot be prevented can be made harmless. The entry's name stays the same for its whole life, so whatever
has the effect can refuse a name that it has seen. Here that is a table with a primary key.

This script brings the case about: the first time, the handler fails right after its effect.
"""

import enum
import sqlite3
import sys

import msgspec
import trio

from trio_multispool import DataFile, Err, NameTaken, Ok, Remove, Spool, Spoolable, Use, Verdict


class Queue(enum.Enum):
    """The queues."""

    PAYMENTS = "payments"


class Payment(msgspec.Struct):
    """The metadata."""

    account: str
    cents: int


PAYMENTS = Spoolable(queues=Queue, metadata=Payment, data=bytes)


class Ledger:
    """Books each payment once."""

    def __init__(self, path: str) -> None:
        """Open it."""
        self.connection = sqlite3.connect(path)
        self.connection.execute("CREATE TABLE IF NOT EXISTS booked (name TEXT PRIMARY KEY, account TEXT, cents INT)")

    def book(self, name: str, payment: Payment) -> bool:
        """Book a payment unless one of that name is booked already; tell whether it was new."""
        with self.connection:
            row = (name, payment.account, payment.cents)
            return self.connection.execute("INSERT OR IGNORE INTO booked VALUES (?, ?, ?)", row).rowcount == 1

    def balance(self, account: str) -> int:
        """Add up what is booked."""
        (cents,) = self.connection.execute("SELECT sum(cents) FROM booked WHERE account = ?", [account]).fetchone()
        return int(cents or 0)


async def main(path: str, database: str) -> None:
    """Book a payment, fail, and book it again."""
    spool = (await Spool.create(path, PAYMENTS)).unwrap()
    ledger = Ledger(database)
    failures = [RuntimeError("killed after the effect")]

    async def book(payment: Payment, data: DataFile[bytes]) -> Verdict[Queue, Payment]:
        await trio.lowlevel.checkpoint()
        print("booked" if ledger.book(data.name, payment) else "was booked before")
        if failures:
            raise failures.pop()  # as if the process had died here: the entry goes back to its queue
        return Remove()

    # The same on the other side: a name of one's own makes it harmless to enqueue twice, as long as the entry exists.
    for _ in range(2):
        match await spool.enqueue(Queue.PAYMENTS, Payment("anne", 1250), b"", name=Use("invoice-4711")):
            case Ok():
                print("enqueued")
            case Err(NameTaken(name)):
                print(name, "is enqueued already")
            case Err(error):
                raise error

    for _ in range(2):
        try:
            async with spool.reader(Queue.PAYMENTS) as reader:
                (await reader.iter_available(book)).unwrap()
        except RuntimeError as error:
            print("failed:", error)
    print("balance:", ledger.balance("anne"))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
