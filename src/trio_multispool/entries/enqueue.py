"""Enqueueing: one entry, in a batch with those of other tasks or by itself, and many entries of one caller.

Small data that one of the library's own codecs encodes goes in a batch (see `threads/batches.py`): that is quick. Data
that is large, or that a caller's codec streams, is written in a hop of its own, so that only its caller waits for it.
That hop still shares its syncs with other threads that sync at the same time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic

import msgspec

from trio_multispool.entries.reserved_names import Use
from trio_multispool.model.lifecycle import State
from trio_multispool.model.names import Reserve
from trio_multispool.model.policies import Durability
from trio_multispool.model.times import seconds
from trio_multispool.model.types import A, D, M, Q
from trio_multispool.storage.requests import NewEntry
from trio_multispool.threads.batches import Part, work_off
from trio_multispool.threads.loop import context_for_a_thread
from trio_multispool.threads.transaction import BeforeCommit  # a field's type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence

    from trio_multispool.entries.reserved_names import Naming
    from trio_multispool.session.session import Session
    from trio_multispool.storage.handles import Reservation
    from trio_multispool.threads.transaction import Answer


LARGEST_IN_BATCH: Final = 256 * 1024
"""Data of more bytes or characters is written in a hop of its own."""


class Item(msgspec.Struct, Generic[M, D, A], frozen=True, eq=False):
    """One entry to be made."""

    metadata: M
    data: D
    name: Reserve[A] | Use | None

    def check(self) -> Item[M, D, A]:
        """Return it; raises `TypeError` if the name is not a `Reserve`, a `Use` or `None`."""
        if self.name is not None and not isinstance(self.name, (Reserve, Use)):
            raise TypeError(f"a name is Reserve(…) or Use(…), not {self.name!r}")
        return self


class _Order(msgspec.Struct, eq=False):
    """How the entries of one call are to be made, and what the instrumentation is to be told of them."""

    queue: str
    durability: Durability | None
    due_at: float | None
    carrier: Mapping[str, str] | None = None
    """What the instrumentation sends along with them."""
    before_commit: BeforeCommit | None = None
    """What is called before each commit, if they count as one."""
    made: dict[str, int | None] = msgspec.field(default_factory=dict)
    """What has been committed: by the entries' names, how large their data is. Filled by the worker thread."""

    def note(self, reservation: Reservation, data: object) -> None:
        """Note an entry that was committed, also if the sync after that failed."""
        if reservation.state in (State.AVAILABLE, State.WAITING):
            self.made[reservation.name] = len(data) if isinstance(data, (bytes, bytearray)) else None


class _Enqueueing(msgspec.Struct, Generic[M, D, A], eq=False):
    """The step of a batch that makes one entry. Its name is held from `prepare` to `conclude`.

    The data of one that is made `alone` may be written piece by piece.
    """

    enqueuer: Enqueuer[Any, M, D, A]
    order: _Order
    item: Item[M, D, A]
    alone: bool = False
    reservation: Any = None
    end: Any = None

    def prepare(self, before_commit: BeforeCommit) -> NewEntry[Any]:
        """Encode, and hold a name."""
        order, item, encoding = self.order, self.item, self.enqueuer.session.encoding
        raw = encoding.encode(item.metadata)
        content = encoding.dumping(item.data) if self.alone else encoding.dumped(item.data)
        self.reservation, self.end = self.enqueuer.naming.for_one_enqueue(item.name)
        return NewEntry(
            self.reservation,
            order.queue,
            raw,
            content,
            order.durability,
            order.before_commit or before_commit,
            order.carrier,
            order.due_at,
            seconds(item.name.remember) if isinstance(item.name, Use) else None,
            self.alone,
        )

    def conclude(self, failure: BaseException | None) -> str:
        """Return the entry's name, or give it up."""
        reservation: Reservation = self.reservation
        if self.enqueuer.session.hooks.listening:
            self.order.note(reservation, self.item.data)
        if self.end is not None:
            self.end()
        elif failure is not None:
            self.enqueuer.naming.give_up(reservation, because=failure)
        if failure is not None:
            raise failure
        return reservation.name


class Enqueuer(Generic[Q, M, D, A]):
    """Enqueues into one spool."""

    def __init__(self, session: Session[Q, M, D, A], naming: Naming[A]) -> None:
        """Use an open spool and its names."""
        self.session: Session[Q, M, D, A] = session
        self.naming: Naming[A] = naming

    def one(
        self, queue: str, item: Item[M, D, A], durability: Durability | None, due_at: float | None
    ) -> Awaitable[Answer[str]]:
        """Enqueue; return the entry's name. See `Spool.enqueue`."""
        order = _Order(queue, durability, due_at)
        return self._told_one(order, item) if self.session.hooks.listening else self._one(order, item)

    async def _told_one(self, order: _Order, item: Item[M, D, A]) -> Answer[str]:
        answers: list[Answer[str]] = []
        with self._told(order, None, answers):
            answers.append(await self._one(order, item))
        return answers[0]

    async def many(
        self, queue: str, items: Sequence[Item[M, D, A]], durability: Durability | None, due_at: float | None
    ) -> list[Answer[str]]:
        """Enqueue all of them in one hop; see `Spool.enqueue_many`."""
        answers: list[Answer[str]] = []
        order = _Order(queue, durability, due_at)
        with self._told(order, len(items), answers):
            operation = f"enqueue of {len(items)} entries into {queue}"
            parts = (await self.session.run(operation, functools.partial(self._all, order, items))).unwrap()
            answers += [part.result() for part in parts]  # made here: the frames of the thread would keep them
        return answers

    @contextlib.contextmanager
    def _told(self, order: _Order, count: int | None, answers: list[Answer[str]]) -> Generator[None]:
        """Tell the instrumentation what came of the enqueue in the block, however that ends."""
        hooks = self.session.hooks
        with hooks.enqueueing(order.queue, count) as order.carrier:
            began = hooks.now()
            try:
                yield
            finally:
                hooks.tell_enqueued(order.queue, order.made, answers, began)

    def _one(self, order: _Order, item: Item[M, D, A]) -> Awaitable[Answer[str]]:
        operation = f"enqueue into {order.queue}"
        if self.session.encoding.data_is_whole and _size(item.data) <= LARGEST_IN_BATCH:
            key = item.name.name if isinstance(item.name, Use) else None
            return self.session.enqueuings.run(operation, _Enqueueing(self, order, item), of=key)
        return self.session.run(operation, functools.partial(self._alone, order, item))

    # In worker threads

    def _make(self, order: _Order, items: Sequence[Item[M, D, A]], *, alone: bool = False) -> list[Part[Any, str]]:
        """Make entries together, no two of one name; return what came of each."""
        context = context_for_a_thread()  # that of the hop
        parts: list[Part[Any, str]] = [Part(_Enqueueing(self, order, item, alone), context) for item in items]
        work_off(parts, self.session.storage.enqueue_together)
        return parts

    def _alone(self, order: _Order, item: Item[M, D, A], before_commit: BeforeCommit) -> str:
        order.before_commit = before_commit
        [part] = self._make(order, [item], alone=True)
        return part.result().unwrap()

    def _all(self, order: _Order, items: Sequence[Item[M, D, A]], before_commit: BeforeCommit) -> list[Part[Any, str]]:
        order.before_commit = _once(before_commit)
        done: list[Part[Any, str]] = []
        try:
            for several in _apart(items, self.session.storage.at_a_time()):
                parts = self._make(order, several)
                done += parts
                for part in parts:
                    _ = part.result()
        except BaseException as error:  # passed on: of a name generator, or a cancellation
            made = [part.value.value for part in done if part.value is not None]
            error.add_note(f"{len(made)} of {len(items)} entries have been enqueued: {', '.join(made)}")
            raise
        finally:
            order.before_commit = None  # it is the hop's, which is about to hold these parts
        return done


def _size(data: object) -> int:
    """Return the size of data that have one before they are encoded."""
    if isinstance(data, memoryview):
        return data.nbytes
    return len(data) if isinstance(data, (bytes, bytearray, str)) else 0


def _apart(items: Sequence[Item[M, D, A]], at_most: int) -> Iterator[list[Item[M, D, A]]]:
    """Yield the items in order in batches of limited size; no batch has two with the same key."""
    batch: dict[object, Item[M, D, A]] = {}
    for item in items:
        key = item.name.name if isinstance(item.name, Use) else len(batch)
        if len(batch) >= at_most or key in batch:
            yield list(batch.values())
            batch.clear()
        batch[key] = item
    if batch:
        yield list(batch.values())


def _once(before_commit: BeforeCommit) -> Callable[[], None]:
    """Return a function that lets a caller withdraw before the first commit of several, and not after it."""
    passed = False

    def before_the_first() -> None:
        nonlocal passed
        if not passed:
            before_commit()
            passed = True

    return before_the_first
