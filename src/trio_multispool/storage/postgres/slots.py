"""Slots: numbers of which each is held by one process at a time, for limits on keys.

A slot is a lock of a session, so it ends with that. The session is one of its own, which is opened for the first slot.
If it is lost, the slots are taken again as soon as the next one is asked for.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Final, final

import psycopg

from trio_multispool.storage.handles import Slot
from trio_multispool.storage.postgres.connecting import connect
from trio_multispool.storage.postgres.sqlstates import is_lost, translated

if TYPE_CHECKING:
    from trio_multispool.storage.postgres.address import Address
    from trio_multispool.storage.postgres.connecting import Connection
    from trio_multispool.storage.postgres.patience import Patience

_TAKE: Final = """
    SELECT number FROM unnest(%s::bigint[]) AS number
    WHERE pg_try_advisory_lock(hashtextextended('multispool slot ' || %s, number)) LIMIT 1"""

_FREE: Final = "SELECT pg_advisory_unlock(hashtextextended('multispool slot ' || %s, %s))"

_ATTEMPTS: Final = 2


@final
class Slots:
    """The slots of one open spool; used by any number of threads."""

    def __init__(self, address: Address, patience: Patience) -> None:
        """Begin without any, and without a session."""
        self._address = address
        self._patience = patience
        self._mutex = threading.RLock()  # a garbage collection may drop a slot in any line
        self._connection: Connection | None = None
        self._held: set[int] = set()
        self._to_free: list[int] = []

    def take(self, numbers: range) -> Slot | None:
        """Hold any of these that is free; `None`: there is none."""
        with self._mutex:
            for attempt in range(_ATTEMPTS):
                try:
                    return self._take(numbers)
                except psycopg.Error as error:
                    if is_lost(error) or (self._connection is not None and self._connection.closed):
                        self._drop()
                        if attempt + 1 < _ATTEMPTS:
                            continue
                    raise translated(error, "take a slot in", self._address.location) from error
        return None

    def _take(self, numbers: range) -> Slot | None:
        connection = self._connected()
        self._free_released(connection)
        free = [number for number in numbers if number not in self._held]
        if not free:
            return None
        row = connection.execute(_TAKE, (free, self._address.schema)).fetchone()
        if row is None:
            return None
        number: int = row[0]
        self._held.add(number)
        return Slot(functools.partial(self._release, number))

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._address, self._patience)
            for number in self._held:  # one that somebody else has got meanwhile is held twice for a while
                _ = self._connection.execute(_TAKE, ([number], self._address.schema))
        return self._connection

    def _release(self, number: int) -> None:
        with self._mutex:
            self._held.discard(number)
            self._to_free.append(number)
            connection = self._connection
            if connection is not None:
                try:
                    self._free_released(connection)
                except psycopg.Error:  # freed with the session
                    self._drop()

    def _free_released(self, connection: Connection) -> None:
        while self._to_free:
            _ = connection.execute(_FREE, (self._address.schema, self._to_free[-1]))
            _ = self._to_free.pop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._to_free.clear()
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """End the session."""
        with self._mutex:
            self._drop()
