"""Take orders, and enqueue the mail about each in its own transaction, with SQLAlchemy's sessions.

`postgresql_sqlalchemy.py DATABASE SPOOL`: two URLs, such as `postgresql+psycopg://anne@db/shop` and
`postgresql://anne@db/shop?spool=mail`. SQLAlchemy's driver must be psycopg.
"""

from __future__ import annotations

import enum
import sys

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from trio_multispool import Spoolable, Use, blocking
from trio_multispool.integrations.postgresql import enqueue_in


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"


MAIL = Spoolable(queues=Mail, metadata=str)


class Base(DeclarativeBase):
    """The tables."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"
    __table_args__ = {"prefixes": ["TEMPORARY"]}  # noqa: RUF012  # SQLAlchemy's way to say it
    number: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str]


def order(session: Session, location: str, number: int, address: str) -> None:
    """Add an order, and the mail about it; the caller commits both, or neither."""
    session.add(Order(number=number, address=address))
    session.flush()  # so that an order that is refused takes no name
    connection = session.connection().connection.driver_connection
    enqueue_in(connection, location, MAIL, Mail.SEND, address, name=Use(f"order-{number}")).unwrap()


def main(database: str, location: str) -> None:
    """Take orders; the second is taken back."""
    spool = blocking.Spool.create(location, MAIL).unwrap()
    engine = create_engine(database)
    with engine.connect() as connection:
        Base.metadata.create_all(connection)
        connection.commit()
        with Session(connection) as session:
            order(session, location, 1, "anne@example.org")
            session.commit()
            order(session, location, 2, "bert@example.org")
            session.rollback()
            order(session, location, 2, "cleo@example.org")
            session.commit()
            orders = [each.address for each in session.query(Order).order_by(Order.number)]
    print("orders of", *orders)
    print("mail about", *(entry.name for entry in spool.entries(Mail.SEND).unwrap()))
    spool.close()
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
