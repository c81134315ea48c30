"""Working off a listing: the names of a queue that are still to be tried, shared by the tasks of one reader.

A listing is a hint: only the rename decides who has an entry. It is worked off in its order, which is by name, before
the queue is listed again; entries that others took meanwhile are passed over, and whoever meets others goes on at
some distance.
"""

from __future__ import annotations

import collections
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import msgspec

from trio_multispool.clock import random_below, stopwatch
from trio_multispool.errors import CorruptMetadata, SpoolError, UnreadableEntry
from trio_multispool.lifecycle import State
from trio_multispool.storage.protocol import Claim
from trio_multispool.verdicts import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.core import Core
    from trio_multispool.hop import BeforeCommit

M = TypeVar("M")

_LOG: Final = logging.getLogger("trio_multispool")


@final
class Claimed(msgspec.Struct, Generic[M], frozen=True):
    """An entry that was checked out."""

    claim: Claim
    metadata: M


@final
class NothingLeft(msgspec.Struct, frozen=True):
    """Nothing could be had, in a listing that was made after the question was asked."""

    listing_took: float
    """In seconds."""
    held: bool
    """Whether anything is checked out of the queue: its owner may die, which announces itself to nobody."""
    busy: bool
    """Whether an entry was there and locked, by one who is just enqueueing it or checking it out: look again soon."""


@final
class Given:
    """The names of entries that were given in one pass over a queue, and may come back to it while the pass goes on."""

    def __init__(self) -> None:
        """Begin with none."""
        self._mutex = threading.Lock()
        self._names: set[str] = set()

    def add(self, name: str) -> bool:
        """Remember a name, of an entry that is in hand; tell whether it is new."""
        with self._mutex:
            new = name not in self._names
            self._names.add(name)
            return new

    def discard(self, name: str) -> None:
        """Forget a name, whose entry has gone elsewhere: it need not be remembered for the rest of a long pass."""
        with self._mutex:
            self._names.discard(name)

    def __contains__(self, name: str) -> bool:
        """Tell whether it was given."""
        return name in self._names


class Listing(Generic[M]):
    """The names of one queue, worked off by any number of threads."""

    def __init__(self, core: Core[Any, M, Any, Any], queue: str) -> None:
        """Begin with no names: the first question lists the queue."""
        self._core = core
        self._queue = queue
        self._mutex = threading.Lock()
        self._names: collections.deque[str] = collections.deque()
        self._complained: set[str] = set()
        self._left_alone: set[str] = set()
        self._misses = 0

    def claim(
        self, before_commit: BeforeCommit, given: Given | None, wanted: Callable[[], int]
    ) -> list[Claimed[M]] | NothingLeft:
        """Check out the first entries that can be had, and were not given before in this pass; in a worker thread.

        As many as are `wanted`, asked again for each; fewer if the listing ends or trouble comes before: trouble that
        lasts is met again by the next question, and is raised then. One that raises has checked nothing out.
        """
        claimed: list[Claimed[M]] = []
        took, busy = None, False
        try:
            while not claimed or len(claimed) < wanted():
                name = self._next_name()
                if name is not None:
                    tried = self._try(name, before_commit, given)
                    if isinstance(tried, Claimed):
                        claimed.append(tried)
                    busy = busy or tried is Unavailable.BUSY
                elif claimed:
                    break
                elif took is None:
                    took = self._list()
                else:
                    return NothingLeft(took, self._core.storage.held(self._queue), busy)
        except SpoolError:
            if not claimed:
                raise
        except BaseException:
            self.take_back(claimed, given)
            raise
        return claimed

    def take_back(self, claimed: list[Claimed[M]], given: Given | None) -> None:
        """Release entries that nobody will get, as if they had never been checked out; in a worker thread."""
        for one in claimed:
            if given is not None:
                given.discard(one.claim.name)
            self._core.release_or_let_go(one.claim)

    def _next_name(self) -> str | None:
        with self._mutex:
            return self._names.popleft() if self._names else None

    def _list(self) -> float | None:
        """List the queue, unless another thread has done so meanwhile; return how long it took, in seconds."""
        with self._mutex:
            if self._names:
                return None
            elapsed = stopwatch()
            self._names.extend(self._core.storage.names(self._queue))
            return elapsed()

    def _try(self, name: str, before_commit: BeforeCommit, given: Given | None) -> Claimed[M] | Unavailable | None:
        """Check an entry out; `None` if it is there and not to be had."""
        if name in self._left_alone or (given is not None and name in given):
            return None
        try:
            claimed = self._claim(name, before_commit)
        except BaseException:  # nobody has it, and it is still its turn
            with self._mutex:
                self._names.appendleft(name)
            raise
        if not isinstance(claimed, Claimed):
            return claimed
        self._misses = 0
        if given is None or given.add(name):
            return claimed
        self._core.release_or_let_go(claimed.claim)  # given by another thread since it was looked up above
        return None

    def _claim(self, name: str, before_commit: BeforeCommit) -> Claimed[M] | Unavailable | None:
        try:
            claim = self._core.storage.claim(self._queue, name, before_commit=before_commit)
        except UnreadableEntry as error:
            if name not in self._complained:
                self._complained.add(name)
                _LOG.warning("passed over: %s", error)
            return None
        if isinstance(claim, Unavailable):
            self._make_way()
            return claim
        try:
            return Claimed(claim, self._core.decode_or_set_aside(claim))
        except CorruptMetadata:
            if claim.state is not State.QUARANTINED:  # it could not be set aside, as the log says
                self._left_alone.add(name)
            return None

    def _make_way(self) -> None:
        """Go on at some distance, because others are working off the same listing; what is skipped comes last.

        The distance is drawn from a range that doubles with each miss in a row, as in exponential backoff: many readers
        soon are far apart, and one that is alone never skips.
        """
        with self._mutex:
            self._misses += 1
            self._names.rotate(-random_below(min(2**self._misses, len(self._names) + 1)))
