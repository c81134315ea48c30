"""The listed names of a queue that are still to be tried, shared by the tasks of one reader.

A listing is a hint: only the rename decides who gets an entry. Names are tried in the order of the listing, which is by
name. When all were tried, the queue is listed again; `LISTINGS_OF_WORK` says when it is listed earlier, for names that
need not sort by time. Entries that others took meanwhile are passed over. A reader that keeps missing skips some names,
so that several readers do not all try the same ones.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, final

import msgspec

from trio_multispool.clock import random_below, stopwatch
from trio_multispool.entries.claimer import KEY_FULL, Claimed, Claimer
from trio_multispool.errors import SpoolError, StorageFailure
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.names import sorts_last
from trio_multispool.model.types import M
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.session.waiting import Due
from trio_multispool.storage.requests import NotDue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_multispool.entries.claimer import KeyFull
    from trio_multispool.entries.key_limits import KeyLimiter
    from trio_multispool.session.session import Session
    from trio_multispool.threads.transaction import BeforeCommit


TRIES_AT_A_TIME: Final = 100
"""After this many tries, a failed one ends the hop. A hop cannot be cancelled; between two hops, the task can be."""

GONE_FROM_A_STALE_LISTING: Final = 16
"""The queue may be listed again once this many listed entries were found gone..."""

NAMES_PER_GONE: Final = 32
"""... and at most this many names are left for each of them. Listing a name takes about a thirtieth of a miss."""

LISTINGS_OF_WORK: Final = 20
"""Where names need not sort by time, a queue is listed again after this many times as long as listing takes. An entry
that sorts before all listed ones waits no longer than that, and listing takes a twentieth of the time."""

MISSES_IN_ORDER: Final = 2
"""The first misses in a row skip nothing: this many."""

MOST_DOUBLINGS: Final = 10
"""The range doubles at most this often: no skip is longer than about a thousand names."""


@final
class NothingLeft(msgspec.Struct, frozen=True):
    """No entry could be had from a listing that was made after the question was asked."""

    listing_took: float
    """How long that listing took, in seconds."""
    held: bool
    """Whether anything is checked out of the queue: its owner may die, and nothing announces that."""
    busy: bool
    """Whether an entry was there and locked, because somebody is enqueueing it or checking it out: look again soon.

    Also if another task of this reader found it locked, or is still trying it: that task may be cancelled.
    """
    next_at: float | None = None
    """When the next waiting entry is due, in seconds since 1970; `None` if none waits."""


@final
class Question:
    """One question for entries. It may take several hops, and ends when all names of its own listing were tried."""

    def __init__(self) -> None:
        """Begin, before the queue is listed for it."""
        self.listing_took: float | None = None
        """How long its listing took, in seconds; `None` before that."""


@final
class Given:
    """The names of entries given in one pass over a queue: they may come back to it while the pass goes on."""

    def __init__(self) -> None:
        """Begin with none."""
        self._mutex = threading.Lock()
        self._names: set[str] = set()

    def add(self, name: str) -> bool:
        """Remember the name of an entry in hand; tell whether it is new."""
        with self._mutex:
            new = name not in self._names
            self._names.add(name)
            return new

    def discard(self, name: str) -> None:
        """Forget a name whose entry has left the queue: a long pass need not remember it."""
        with self._mutex:
            self._names.discard(name)

    def __contains__(self, name: str) -> bool:
        """Tell whether the entry of that name was given."""
        return name in self._names


class Candidates(Generic[M]):
    """The names of one queue that are still to be tried; any number of threads take from them."""

    def __init__(
        self, session: Session[Any, M, Any, Any], queue: str, key_limiter: KeyLimiter[M] | None = None
    ) -> None:
        """Begin with no names: the first question lists the queue."""
        self._session = session
        self._key_limiter = key_limiter
        self._limited = False  # an entry of this listing was passed over, its key being full
        self._queue = queue
        self._place = Place(queue, State.AVAILABLE)
        self._waiting_place = Place(queue, State.WAITING)
        self._mutex = threading.Lock()
        self._names: collections.deque[str] = collections.deque()
        self._waiting = session.waiting(queue)
        self._claimer: Claimer[M] = Claimer(session, queue, key_limiter)
        self._misses = 0  # in a row
        self._gone = 0  # listed entries that others took
        self._in_question: set[str] = set()  # taken from the names; whether they can be had is not known yet
        self._busy: set[str] = set()
        names = session.spoolable.names
        self._sorts_last = names is None or sorts_last(names)
        self._listing_took = 0.0
        self._since_listed = stopwatch()
        self._claimed_of_it = False

    def claim(  # noqa: PLR0913  # what a reader knows and the thread does not
        self,
        before_commit: BeforeCommit,
        given: Given | None,
        wanted: Callable[[], int],
        question: Question,
        *,
        stopped: Callable[[], bool],
        before_listing: Callable[[], None],
        wait: bool,
    ) -> list[Claimed[M]] | NothingLeft:
        """Check out the first entries that can be had, and were not given before in this pass; in a worker thread.

        Takes up to `wanted()` entries, and asks again before each. Takes fewer if the listing ends or there is trouble:
        trouble that lasts comes up again with the next question, and is raised then. A call that raises has checked
        nothing out.

        An empty list means that the reader was `stopped`, or that many tries failed and the caller may be cancelled
        before the next. Ask again with the same `question` then: a new one would list the same entries again and again.

        With `wait`, a queue whose directory is missing counts as empty: somebody may be about to replace it.

        Entries that waited and are due come before all listed ones. Otherwise they would never come while there is more
        work than can be done.
        """
        claimed: list[Claimed[M]] = []
        tries = 0
        try:
            self._waiting.look(wanted=False)
            self._look_for_earlier(given, wait=wait)
            while not stopped() and (not claimed or len(claimed) < wanted()):
                next_one = self._next(wait=wait)
                if next_one is not None:
                    tried = self._try(next_one, before_commit, given)
                    tries += 1
                    if tried is not None:
                        claimed.append(tried)
                    elif tries >= TRIES_AT_A_TIME:
                        break
                elif claimed:
                    break
                elif question.listing_took is None:
                    before_listing()
                    self._waiting.look(wanted=True)
                    question.listing_took = self._list(wait=wait)
                else:
                    return NothingLeft(
                        question.listing_took,
                        self._is_any_held(wait=wait),
                        self._is_any_left() or self._waiting.busy,
                        self._waiting.next_at(),
                    )
        except SpoolError:
            if not claimed:
                raise
        except BaseException:  # of any kind: nobody will get these entries
            self.take_back(claimed, given)
            raise
        return claimed

    def claim_listed(self, given: Given | None, *, stopped: Callable[[], bool]) -> Claimed[M] | None:
        """Check out the first entry that can be had of those listed, or waiting and due; in a worker thread.

        `None`: none of the first names could be had, or the reader was `stopped`.
        """
        self._waiting.look(wanted=False)
        self._look_for_earlier(given, wait=True)
        for _ in range(TRIES_AT_A_TIME):
            if stopped():
                return None
            next_one = self._next(wait=True)
            if next_one is None:
                return None
            tried = self._try(next_one, _no_second_thoughts, given)
            if tried is not None:
                return tried
        return None

    def take_back(self, claimed: list[Claimed[M]], given: Given | None) -> None:
        """Release entries that nobody will get, as if they had never been checked out; in a worker thread."""
        for one in reversed(claimed):
            if given is not None:
                given.discard(one.claim.name)
            claim = one.claim
            self._let_go(one)
            if claim.due_at is not None:
                self._waiting.put_back(Due(claim.due_at, claim.name))
                continue
            with self._mutex:
                self._names.appendleft(claim.name)

    def _let_go(self, claimed: Claimed[M]) -> None:
        self._session.release_or_let_go(claimed.claim)
        _ = claimed.slot.end()

    def _next(self, *, wait: bool) -> Due | str | None:
        """Return what to try next: an entry that waited and is due, or else a listed name."""
        return self._waiting.take() or self._next_name(wait=wait)

    def _next_name(self, *, wait: bool) -> str | None:
        with self._mutex:
            if self._is_stale():
                self._list_now(wait=wait)
            while self._names:
                name = self._names.popleft()
                if self._key_limiter is not None and self._key_limiter.is_known_full(name):
                    self._limited = True
                    continue
                self._in_question.add(name)
                return name
            return None

    def _is_stale(self) -> bool:
        """Tell whether listing again is quicker than missing the rest, because others took much of the listing.

        Otherwise each of many consumers would try every name, and get only a few entries.
        """
        return self._gone >= GONE_FROM_A_STALE_LISTING and len(self._names) <= self._gone * NAMES_PER_GONE

    def _list(self, *, wait: bool) -> float | None:
        """List the queue and return how long it took, in seconds; `None` if another thread has listed it meanwhile."""
        with self._mutex:
            if self._names:
                return None
            self._list_now(wait=wait)
            self._busy.intersection_update(self._names)
            return self._listing_took

    def _look_for_earlier(self, given: Given | None, *, wait: bool) -> None:
        """List the queue again if it is time to, and if new entries may sort before the listed ones.

        Not in a pass: each time it would go again over all that it has given. And not before the last listing gave an
        entry: a queue from which nothing can be had is not listed over and over.
        """
        if self._sorts_last or given is not None:
            return
        with self._mutex:
            if self._names and self._claimed_of_it and self._since_listed() >= LISTINGS_OF_WORK * self._listing_took:
                self._list_now(wait=wait)

    def _list_now(self, *, wait: bool) -> None:
        """List the queue; the caller holds the mutex."""
        elapsed = stopwatch()
        with _no_directory_is_empty(wait=wait):
            self._names = collections.deque(self._session.storage.names(self._queue))
        if self._key_limiter is not None:
            self._key_limiter.listed(self._names)
        self._limited = False
        self._listing_took, self._since_listed = elapsed(), stopwatch()
        self._gone = 0
        self._claimed_of_it = False

    def _is_any_held(self, *, wait: bool) -> bool:
        with _no_directory_is_empty(wait=wait):
            return self._session.storage.held(self._queue)
        return True

    def _is_any_left(self) -> bool:
        """Tell whether any thread found an entry locked, or is still trying one: dropping a lock causes no event."""
        with self._mutex:
            return bool(self._busy or self._in_question or self._names or self._limited)

    def _try(self, one: Due | str, before_commit: BeforeCommit, given: Given | None) -> Claimed[M] | None:
        if isinstance(one, Due):
            return self._try_due(one, before_commit, given)
        return self._try_listed(one, before_commit, given)

    def _try_due(self, due: Due, before_commit: BeforeCommit, given: Given | None) -> Claimed[M] | None:
        """Check out an entry that waited; `None` if it cannot be had."""
        storage, waiting = self._session.storage, self._waiting
        try:
            if self._claimer.leaves_alone(due.name):
                return None
            if given is not None and due.name in given:
                waiting.put_aside(due)
                return None
            made = self._claimer.made_of(
                due.name,
                lambda: storage.claim(
                    self._waiting_place, due.name, due_by=self._session.now(), before_commit=before_commit
                ),
                lambda: storage.read_metadata(self._waiting_place, due.name),
            )
            if isinstance(made, Claimed):
                if given is None or given.add(due.name):
                    return made
                self._let_go(made)  # another thread gave it since the look-up above
                waiting.put_aside(due)
            elif isinstance(made, NotDue):  # it has been saved anew, or the clock went back
                waiting.put_back(Due(made.due_at, due.name))
            elif made is Unavailable.BUSY or made is KEY_FULL:
                waiting.put_aside(due)
            elif made is None:
                waiting.try_later(due)
        except BaseException:  # nobody has it: it is tried again first
            waiting.put_back(due)
            raise
        finally:
            waiting.decide()
        return None

    def _try_listed(self, name: str, before_commit: BeforeCommit, given: Given | None) -> Claimed[M] | None:
        """Check a listed entry out; `None` if it cannot be had."""
        busy = again = False
        try:
            if self._claimer.leaves_alone(name) or (given is not None and name in given):
                return None
            claimed = self._claim(name, before_commit)
            if not isinstance(claimed, Claimed):
                busy = claimed is Unavailable.BUSY
                return None
            self._misses = 0
            self._claimed_of_it = True
            if given is None or given.add(name):
                return claimed
            self._let_go(claimed)  # another thread gave it since the look-up above
        except BaseException:  # nobody has it: it is tried again first
            again = True
            raise
        else:
            return None
        finally:
            with self._mutex:
                self._in_question.discard(name)
                (self._busy.add if busy else self._busy.discard)(name)
                if again:
                    self._names.appendleft(name)

    def _claim(self, name: str, before_commit: BeforeCommit) -> Claimed[M] | Unavailable | NotDue | KeyFull | None:
        storage = self._session.storage
        made = self._claimer.made_of(
            name,
            lambda: storage.claim(self._place, name, before_commit=before_commit),
            lambda: storage.read_metadata(self._place, name),
        )
        if made is KEY_FULL:
            self._limited = True
        if isinstance(made, Unavailable):
            self._make_way(made)
        return made

    def _make_way(self, claim: Unavailable) -> None:
        """Skip some names, because other readers are trying the same ones; skipped names come last.

        How many is drawn from a range that doubles with each miss in a row, as in exponential backoff: many readers are
        soon far apart. The first misses skip nothing, so that a reader which is alone keeps the order even if somebody
        takes an entry away by hand.
        """
        with self._mutex:
            self._misses += 1
            self._gone += claim is Unavailable.GONE
            doublings = min(self._misses - MISSES_IN_ORDER, MOST_DOUBLINGS)
            if doublings > 0:
                self._names.rotate(-random_below(min(2**doublings, len(self._names) + 1)))


def _no_second_thoughts() -> None:
    """Let a check-out happen: nobody withdraws it."""


@contextlib.contextmanager
def _no_directory_is_empty(*, wait: bool) -> Generator[None]:
    """Treat a missing directory as an empty one, for a reader that waits."""
    try:
        yield
    except StorageFailure as error:
        if not wait or error.errno != errno.ENOENT:
            raise
