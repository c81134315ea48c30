"""Take orders, and enqueue the mail about each in its own transaction, with psycopg.

`postgresql_transaction.py DATABASE SPOOL`: two URLs, such as `postgresql://anne@db/shop` and
`postgresql://anne@db/shop?spool=mail`. An order that comes to nothing leaves no mail behind, and a crash at any line
leaves both or neither.
"""

from __future__ import annotations

import enum
import sys

import psycopg
import trio

from trio_multispool import DataFile, Remove, Spool, Spoolable, Use
from trio_multispool.integrations.postgresql import enqueue_in


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"


MAIL = Spoolable(queues=Mail, metadata=str)


class SoldOut(Exception):
    """There is not enough left to sell."""


def order(connection: psycopg.Connection, location: str, number: int, address: str, pieces: int) -> None:
    """Take an order and enqueue the mail about it: both, or neither."""
    with connection.transaction():
        connection.execute("INSERT INTO orders VALUES (%s, %s, %s)", (number, address, pieces))
        enqueue_in(connection, location, MAIL, Mail.SEND, address, name=Use(f"order-{number}")).unwrap()
        taken = "UPDATE stock SET pieces = pieces - %s WHERE pieces >= %s"
        if connection.execute(taken, (pieces, pieces)).rowcount == 0:
            raise SoldOut


async def send(address: str, _data: DataFile) -> Remove:
    """Send a mail."""
    print("mail to", address)
    return Remove()


async def main(database: str, location: str) -> None:
    """Take three orders, and send what mail there is."""
    async with (await Spool.create(location, MAIL)).unwrap() as spool:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE TEMPORARY TABLE orders (number int PRIMARY KEY, address text, pieces int)")
            connection.execute("CREATE TEMPORARY TABLE stock AS SELECT 10 AS pieces")
            for number, (address, pieces) in enumerate(
                {"anne@example.org": 6, "bert@example.org": 6, "cleo": 4}.items()
            ):
                try:
                    order(connection, location, number, address, pieces)
                except SoldOut:
                    print("no order of", address)
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(send)).unwrap()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
