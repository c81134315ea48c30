"""Enqueueing: one entry, in a batch with those of other tasks or by itself, and many entries of one caller.

What is small and encoded by one of the library's own codecs goes in a batch (see `batching`): all that happens to it
there is quick. Data that is streamed by a codec of the caller's, or is large, is written in a hop of its own, so that
nobody waits for it but its caller; that hop still shares its syncs, with whatever other threads sync at the same time.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import msgspec

from trio_multispool._typing import TypeVar as TypeVarWithDefault
from trio_multispool.batching import Part, work_off
from trio_multispool.codecs import WholeFile
from trio_multispool.names import Reserve
from trio_multispool.reservation import Use
from trio_multispool.results import Ok
from trio_multispool.storage.protocol import Enqueueing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence, Sized

    from trio_multispool.core import Core
    from trio_multispool.durability import Durability
    from trio_multispool.hop import Answer, BeforeCommit
    from trio_multispool.naming import Naming

Q = TypeVar("Q", bound=enum.Enum)
M = TypeVar("M")
D = TypeVar("D")
A = TypeVarWithDefault("A", default=None)

LARGEST_IN_BATCH: Final = 256 * 1024
"""Data of more bytes or characters is written in a hop of its own."""


class Item(msgspec.Struct, Generic[M, D, A], frozen=True, eq=False):
    """One entry to be made."""

    metadata: M
    data: D
    name: Reserve[A] | Use | None

    def __post_init__(self) -> None:
        """Raise `TypeError` for a name that is none of the ways to say one."""
        if self.name is not None and not isinstance(self.name, (Reserve, Use)):
            message = f"a name is Reserve(…) or Use(…), not {self.name!r}"
            raise TypeError(message)

    @property
    def key(self) -> object:
        """What no two entries of one batch may have in common: a chosen name."""
        return self.name.name if isinstance(self.name, Use) else self


class Enqueuing(Generic[Q, M, D, A]):
    """Enqueues into one spool."""

    def __init__(self, core: Core[Q, M, D, A], naming: Naming[A]) -> None:
        """Use an open spool and its names."""
        self._core = core
        self._naming = naming

    async def one(self, queue: str, item: Item[M, D, A], durability: Durability | None) -> Answer[str]:
        """Enqueue; return the entry's name. See `Spool.enqueue`."""
        operation = f"enqueue into {queue}"
        if self._fits_a_batch(item.data):
            steps = functools.partial(self._steps, queue=queue, item=item, durability=durability)
            return await self._core.enqueue(operation, steps, of=item.key)
        return await self._core.run(
            operation, functools.partial(self._alone, queue=queue, item=item, durability=durability)
        )

    def _fits_a_batch(self, data: D) -> bool:
        if not isinstance(self._core.spoolable.data, WholeFile):
            return False
        if isinstance(data, memoryview):
            return data.nbytes <= LARGEST_IN_BATCH
        if isinstance(data, (bytes, bytearray, str)):
            return len(cast("Sized", data)) <= LARGEST_IN_BATCH
        return True

    def _alone(
        self, before_commit: BeforeCommit, queue: str, item: Item[M, D, A], durability: Durability | None
    ) -> str:
        core = self._core
        raw = core.encode(item.metadata)
        with self._naming.for_one_enqueue(item.name) as reservation:
            core.storage.enqueue(
                reservation,
                queue,
                raw,
                core.dumping(item.data),
                durability=durability,
                before_commit=before_commit,
            )
            return reservation.name

    def _steps(
        self, before_commit: BeforeCommit, queue: str, item: Item[M, D, A], durability: Durability | None
    ) -> Generator[Enqueueing[Any], None, str]:
        core = self._core
        raw, write_data = core.encode(item.metadata), core.dumped(item.data)
        with self._naming.for_one_enqueue(item.name) as reservation:
            yield Enqueueing(reservation, queue, raw, write_data, durability, before_commit)
            return reservation.name

    async def many(
        self, queue: str, items: Sequence[Item[M, D, A]], durability: Durability | None
    ) -> list[Answer[str]]:
        """Enqueue all of them in one hop; see `Spool.enqueue_many`."""
        answer = await self._core.run(
            f"enqueue of {len(items)} entries into {queue}",
            functools.partial(self._all, queue=queue, items=items, durability=durability),
        )
        return answer.unwrap()

    def _all(
        self,
        before_commit: BeforeCommit,
        queue: str,
        items: Sequence[Item[M, D, A]],
        durability: Durability | None,
    ) -> list[Answer[str]]:
        storage, once = self._core.storage, _once(before_commit)
        answers: list[Answer[str]] = []
        for several in _apart(items, storage.enqueues_at_a_time()):
            parts = [
                Part(functools.partial(self._together, once, queue, item, durability), of=item.key) for item in several
            ]
            work_off(parts, storage.enqueue_together)
            made = [answer.value for answer in [*answers, *(part.value for part in parts)] if isinstance(answer, Ok)]
            try:
                answers += [part.result() for part in parts]
            except BaseException as error:  # passed on: of a name generator, or a cancellation
                error.add_note(f"{len(made)} of {len(items)} entries have been enqueued: {', '.join(made)}")
                raise
        return answers

    def _together(
        self,
        once: BeforeCommit,
        queue: str,
        item: Item[M, D, A],
        durability: Durability | None,
        _own: BeforeCommit,
    ) -> Generator[Enqueueing[Any], None, str]:
        return self._steps(once, queue, item, durability)


def _apart(items: Sequence[Item[M, D, A]], at_most: int) -> Iterator[list[Item[M, D, A]]]:
    """Yield the items in order, so many at a time, those with the same key in different batches."""
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
