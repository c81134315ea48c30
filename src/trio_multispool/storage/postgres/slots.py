"""Slots: numbers of which each is held by one process at a time, for limits on keys.

A slot is a lock of the keeper's session, so it ends with that. The keeper takes and frees them: whoever frees one does
not wait. If the session is lost, the next one takes them again at once. One that somebody else has got meanwhile is
held twice for a while.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from typing import TYPE_CHECKING, Final, final

import psycopg

from trio_multispool.errors import StoreUnreachable
from trio_multispool.storage.handles import Slot
from trio_multispool.storage.postgres.sqlstates import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_multispool.storage.postgres.address import Address

    Ask = Callable[..., list[list[str | None]]]

_TAKE: Final = """
    SELECT number FROM unnest($1::bigint[]) AS number
    WHERE pg_try_advisory_lock(hashtextextended('multispool slot ' || $2, number)) LIMIT 1"""

_FREE: Final = """
    SELECT pg_advisory_unlock(hashtextextended('multispool slot ' || $2, number))
    FROM unnest($1::bigint[]) AS number"""

_TAKING: Final = "take a slot in"


@final
class _Wanted:
    """A question of a thread that waits, for any of some numbers."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.answer: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
        self.given_up: bool = False


@final
class Slots:
    """The slots of one open spool; used by any number of threads."""

    def __init__(self, address: Address, poke: Callable[[], None]) -> None:
        """Begin without any; `poke` wakes the keeper."""
        self._address = address
        self._poke = poke
        self._mutex = threading.RLock()  # a garbage collection may drop a slot in any line
        self._held: set[int] = set()
        self._wanted: list[_Wanted] = []
        self._to_free: list[int] = []

    def take(self, numbers: range, patience: float) -> Slot | None:
        """Hold any of these that is free; `None`: there is none. Waits so long for the keeper, in seconds."""
        with self._mutex:
            wanted = _Wanted([number for number in numbers if number not in self._held])
            if not wanted.numbers:
                return None
            self._wanted.append(wanted)
        self._poke()
        try:
            answer = wanted.answer.get(timeout=patience)
        except queue.Empty:
            self._give_up(wanted)
            raise StoreUnreachable(_TAKING, self._address.location, "it does not answer") from None
        if isinstance(answer, psycopg.Error):
            raise translated(answer, _TAKING, self._address.location) from answer
        if isinstance(answer, Exception):
            raise StoreUnreachable(_TAKING, self._address.location, str(answer)) from answer
        return None if answer is None else Slot(functools.partial(self._release, answer))

    def _give_up(self, wanted: _Wanted) -> None:
        """Have nothing taken for who waits no longer, and free what was."""
        with self._mutex:
            wanted.given_up = True
            with contextlib.suppress(queue.Empty):
                answer = wanted.answer.get_nowait()
                if isinstance(answer, int):
                    self._release(answer)

    def _release(self, number: int) -> None:
        with self._mutex:
            self._held.discard(number)
            self._to_free.append(number)
        self._poke()

    # For the keeper

    @property
    def waiting(self) -> bool:
        """Whether there is something to take, or to free."""
        return bool(self._wanted or self._to_free)

    def work(self, ask: Ask, array: Callable[[Iterable[object]], str]) -> None:
        """Free, and then take what is wanted."""
        schema = self._address.schema
        with self._mutex:
            to_free, self._to_free = self._to_free, []
            wanted, self._wanted = self._wanted, []
        if to_free:
            _ = ask(_FREE, array(to_free), schema)
        for each in wanted:
            if each.given_up:
                continue
            try:
                taken = self._take(ask, array, each.numbers)
            except Exception as error:  # whatever it is, who waits for the answer has it too
                each.answer.put(error)
                raise
            with self._mutex:
                each.answer.put(taken)
                if each.given_up:  # meanwhile
                    self._give_up(each)

    def _take(self, ask: Ask, array: Callable[[Iterable[object]], str], numbers: list[int]) -> int | None:
        with self._mutex:  # a session may lock again what it has locked
            free = [number for number in numbers if number not in self._held]
        rows = ask(_TAKE, array(free), self._address.schema) if free else []
        if not rows:
            return None
        number = int(rows[0][0] or 0)
        with self._mutex:
            self._held.add(number)
        return number

    def take_again(self, ask: Ask, array: Callable[[Iterable[object]], str]) -> None:
        """Take what was held by a session that is gone."""
        with self._mutex:
            held = list(self._held)
            self._to_free.clear()
        for number in held:
            _ = ask(_TAKE, array([number]), self._address.schema)
