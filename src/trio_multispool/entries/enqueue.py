"""Enqueueing: one entry, in a batch with those of other tasks or by itself, and many entries of one caller.

Small data that one of the library's own codecs encodes goes in a batch (see `threads/batches.py`): that is quick. Data
that is large, or that a caller's codec streams, is written in a hop of its own, so that only its caller waits for it.
That hop still shares its syncs with other threads that sync at the same time.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final, Generic, cast

import msgspec

from trio_multispool.entries.reserved_names import Use
from trio_multispool.model.codecs import WholeFile
from trio_multispool.model.lifecycle import State
from trio_multispool.model.names import Reserve
from trio_multispool.model.policies import Durability
from trio_multispool.model.results import Ok
from trio_multispool.model.times import seconds
from trio_multispool.model.types import A, D, M, Q
from trio_multispool.storage.requests import NewEntry
from trio_multispool.storage.singly import enqueue_one
from trio_multispool.threads.batches import Part, work_off

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Sized

    from trio_multispool.entries.reserved_names import Naming
    from trio_multispool.session.hooks import Hooks
    from trio_multispool.session.session import Session
    from trio_multispool.storage.handles import Reservation
    from trio_multispool.threads.transaction import Answer, BeforeCommit


LARGEST_IN_BATCH: Final = 256 * 1024
"""Data of more bytes or characters is written in a hop of its own."""


class Item(msgspec.Struct, Generic[M, D, A], frozen=True, eq=False):
    """One entry to be made."""

    metadata: M
    data: D
    name: Reserve[A] | Use | None

    def __post_init__(self) -> None:
        """Raise `TypeError` if the name is not a `Reserve`, a `Use` or `None`."""
        if self.name is not None and not isinstance(self.name, (Reserve, Use)):
            message = f"a name is Reserve(…) or Use(…), not {self.name!r}"
            raise TypeError(message)

    @property
    def remember(self) -> float | None:
        """How long its name is remembered after the entry has gone, in seconds."""
        return seconds(self.name.remember) if isinstance(self.name, Use) else None

    @property
    def key(self) -> object:
        """What no two entries of one batch may have in common: a chosen name."""
        return self.name.name if isinstance(self.name, Use) else self


class _Told:
    """What the instrumentation sends along with the entries of one call, and what it is to be told of."""

    def __init__(self, carrier: Mapping[str, str] | None) -> None:
        """Begin with nothing made."""
        self.carrier = carrier
        self.made: dict[str, int | None] = {}
        """What has been committed: by the entries' names, how large their data is. Filled by the worker thread."""


class _Order(msgspec.Struct, frozen=True, eq=False):
    """How the entries of one call are to be made."""

    queue: str
    durability: Durability | None
    due_at: float | None
    told: _Told | None = None

    @property
    def carrier(self) -> Mapping[str, str] | None:
        """What goes along with them."""
        return None if self.told is None else self.told.carrier

    def note(self, reservation: Reservation, data: object) -> None:
        """Note an entry that was committed, also if the sync after that failed."""
        if self.told is not None and reservation.state in (State.AVAILABLE, State.WAITING):
            self.told.made[reservation.name] = len(data) if isinstance(data, (bytes, bytearray)) else None


class _EnqueueStep(Generic[M, D, A]):
    """The step of a batch that makes one entry. Its name is held from `prepare` to `conclude`."""

    def __init__(
        self,
        session: Session[Any, M, D, A],
        naming: Naming[A],
        order: _Order,
        item: Item[M, D, A],
        before_commit: BeforeCommit | None = None,
    ) -> None:
        """Make `item`; `before_commit` is called instead of the batch's, for several that count as one."""
        self._session = session
        self._naming = naming
        self._order = order
        self._item = item
        self._before_commit = before_commit
        self._held = contextlib.ExitStack()
        self._reservation: Reservation | None = None

    def prepare(self, before_commit: BeforeCommit) -> NewEntry[Any]:
        """Encode, and hold a name."""
        order, item, encoding = self._order, self._item, self._session.encoding
        raw, content = encoding.encode(item.metadata), encoding.dumped(item.data)
        self._reservation = self._held.enter_context(self._naming.for_one_enqueue(item.name))
        return NewEntry(
            self._reservation,
            order.queue,
            raw,
            content,
            order.durability,
            self._before_commit or before_commit,
            order.carrier,
            order.due_at,
            item.remember,
        )

    def conclude(self, failure: BaseException | None) -> str:
        """Return the entry's name, or give it up."""
        assert self._reservation is not None, "it was prepared"  # noqa: S101  # for the type checkers
        self._order.note(self._reservation, self._item.data)
        with self._held:
            if failure is not None:
                raise failure
        return self._reservation.name


class Enqueuer(Generic[Q, M, D, A]):
    """Enqueues into one spool."""

    def __init__(self, session: Session[Q, M, D, A], naming: Naming[A]) -> None:
        """Use an open spool and its names."""
        self._session = session
        self._naming = naming

    async def one(
        self, queue: str, item: Item[M, D, A], durability: Durability | None, due_at: float | None
    ) -> Answer[str]:
        """Enqueue; return the entry's name. See `Spool.enqueue`."""
        hooks = self._session.hooks
        if not hooks.listening:
            return await self._one(_Order(queue, durability, due_at), item)
        answers: list[Answer[str]] = []
        with self._told(hooks, queue, None, answers) as told:
            answers.append(await self._one(_Order(queue, durability, due_at, told), item))
        return answers[0]

    async def _one(self, order: _Order, item: Item[M, D, A]) -> Answer[str]:
        operation = f"enqueue into {order.queue}"
        if self._fits_a_batch(item.data):
            step = _EnqueueStep(self._session, self._naming, order, item)
            return await self._session.enqueue(operation, step, of=item.key)
        return await self._session.run(operation, functools.partial(self._alone, order=order, item=item))

    @contextlib.contextmanager
    def _told(self, hooks: Hooks, queue: str, count: int | None, answers: list[Answer[str]]) -> Generator[_Told]:
        """Tell the instrumentation what came of the enqueue in the block, however that ends."""
        with hooks.enqueueing(queue, count) as carrier:
            began, told = hooks.now(), _Told(carrier)
            try:
                yield told
            finally:
                hooks.tell_enqueued(queue, told.made, answers, began)

    def _fits_a_batch(self, data: D) -> bool:
        if not isinstance(self._session.spoolable.data, WholeFile):
            return False
        if isinstance(data, memoryview):
            return data.nbytes <= LARGEST_IN_BATCH
        if isinstance(data, (bytes, bytearray, str)):
            return len(cast("Sized", data)) <= LARGEST_IN_BATCH
        return True

    def _alone(self, before_commit: BeforeCommit, order: _Order, item: Item[M, D, A]) -> str:
        session = self._session
        raw = session.encoding.encode(item.metadata)
        with self._naming.for_one_enqueue(item.name) as reservation:
            try:
                entry = NewEntry(
                    reservation,
                    order.queue,
                    raw,
                    session.encoding.dumping(item.data),
                    order.durability,
                    before_commit,
                    order.carrier,
                    order.due_at,
                    item.remember,
                    alone=True,
                )
                enqueue_one(session.storage, entry)
            finally:
                order.note(reservation, item.data)
            return reservation.name

    async def many(
        self, queue: str, items: Sequence[Item[M, D, A]], durability: Durability | None, due_at: float | None
    ) -> list[Answer[str]]:
        """Enqueue all of them in one hop; see `Spool.enqueue_many`."""
        hooks = self._session.hooks
        if not hooks.listening:
            return await self._many(_Order(queue, durability, due_at), items)
        answers: list[Answer[str]] = []
        with self._told(hooks, queue, len(items), answers) as told:
            answers += await self._many(_Order(queue, durability, due_at, told), items)
        return answers

    async def _many(self, order: _Order, items: Sequence[Item[M, D, A]]) -> list[Answer[str]]:
        answer = await self._session.run(
            f"enqueue of {len(items)} entries into {order.queue}",
            functools.partial(self._all, order=order, items=items),
        )
        return answer.unwrap()

    def _all(self, before_commit: BeforeCommit, order: _Order, items: Sequence[Item[M, D, A]]) -> list[Answer[str]]:
        storage, once = self._session.storage, _once(before_commit)
        answers: list[Answer[str]] = []
        for several in _apart(items, storage.at_a_time()):
            steps = [_EnqueueStep(self._session, self._naming, order, item, once) for item in several]
            parts = [Part(step, of=None) for step in steps]
            work_off(parts, storage.enqueue_together)
            values = [part.value for part in parts]
            try:
                answers += [part.result() for part in parts]
            except BaseException as error:  # passed on: of a name generator, or a cancellation
                made = [answer.value for answer in [*answers, *values] if isinstance(answer, Ok)]
                error.add_note(f"{len(made)} of {len(items)} entries have been enqueued: {', '.join(made)}")
                raise
        return answers


def _apart(items: Sequence[Item[M, D, A]], at_most: int) -> Iterator[list[Item[M, D, A]]]:
    """Yield the items in order in batches of limited size; no batch has two with the same key."""
    batch: dict[object, Item[M, D, A]] = {}
    for item in items:
        key = item.key if isinstance(item.name, Use) else len(batch)
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
