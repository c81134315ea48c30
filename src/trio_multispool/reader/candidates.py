"""Working off a listing: the names of a queue that are still to be tried, shared by the tasks of one reader.

A listing is a hint: only the rename decides who has an entry. It is worked off in its order, which is by name, before
the queue is listed again (but see `LISTINGS_OF_WORK`, for names that need not sort by time); entries that others took
meanwhile are passed over, and whoever meets others goes on at some distance.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, final

import msgspec

from trio_multispool.clock import random_below, stopwatch
from trio_multispool.entries.checkout import KEY_FULL, Checkouts, Claimed
from trio_multispool.errors import SpoolError, StorageFailure
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.names import sorts_last
from trio_multispool.model.types import M
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.session.waiting import Due
from trio_multispool.storage.requests import NotDue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_multispool.entries.checkout import KeyFull
    from trio_multispool.entries.key_limits import KeyLimiter
    from trio_multispool.session.session import Session
    from trio_multispool.threads.transaction import BeforeCommit


TRIES_AT_A_TIME: Final = 100
"""After so many entries that could not be had, the hop ends: it cannot be cancelled, and the next one asks first."""

GONE_FROM_A_STALE_LISTING: Final = 16
"""When so many were gone that the listing has, the queue may be listed again..."""

NAMES_PER_GONE: Final = 32
"""... if that is no more names for each of them: to list one takes about a thirtieth of what it takes to miss one."""

LISTINGS_OF_WORK: Final = 20
"""Where names need not sort by time, a queue is listed again when it was worked off for so many times as long as that
takes: what sorts before all that is listed has to wait no longer, and listing takes a twentieth of the time."""

MISSES_IN_ORDER: Final = 2
"""How many misses in a row skip nothing."""

MOST_DOUBLINGS: Final = 10
"""Nobody goes on farther than about a thousand entries away."""


@final
class NothingLeft(msgspec.Struct, frozen=True):
    """Nothing could be had, in a listing that was made after the question was asked."""

    listing_took: float
    """In seconds."""
    held: bool
    """Whether anything is checked out of the queue: its owner may die, which announces itself to nobody."""
    busy: bool
    """Whether an entry was there and locked, by one who is just enqueueing it or checking it out: look again soon.

    Also if it was another task of this reader that found it so, or is finding out: that one may be cancelled.
    """
    next_at: float | None = None
    """When the next entry that waits is due, in seconds since 1970, if any waits."""


@final
class Question:
    """One question for entries, which may take several hops: it is over when a listing of its own is worked off."""

    def __init__(self) -> None:
        """Begin, before the queue is listed for it."""
        self.listing_took: float | None = None
        """In seconds, once it is listed."""


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


class Candidates(Generic[M]):
    """The names of one queue, worked off by any number of threads."""

    def __init__(
        self, session: Session[Any, M, Any, Any], queue: str, key_limiter: KeyLimiter[M] | None = None
    ) -> None:
        """Begin with no names: the first question lists the queue."""
        self._session = session
        self._key_limiter = key_limiter
        self._limited = False  # an entry of this listing was passed over
        self._queue = queue
        self._mutex = threading.Lock()
        self._names: collections.deque[str] = collections.deque()
        self._waiting = session.waiting(queue)
        self._checkouts: Checkouts[M] = Checkouts(session, queue, key_limiter)
        self._misses = 0  # in a row
        self._gone = 0  # of those that the queue had when it was listed
        self._in_question: set[str] = set()  # taken from the names, and the answer is not yet known
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

        As many as are `wanted`, asked again for each; fewer if the listing ends or trouble comes before: trouble that
        lasts is met again by the next question, and is raised then. One that raises has checked nothing out. None at
        all: it was `stopped`, or so many could not be had that the caller should have a say before the next. Then it
        asks again with the same `question`, or else what cannot be had would be listed again and again.

        With `wait`, a queue whose directory is missing is an empty one: somebody may be about to replace it.

        What waited and is due comes before all that is listed, or else it would never come while there is more than
        can be done.
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
        except BaseException:  # whatever it was, nobody will get them
            self.take_back(claimed, given)
            raise
        return claimed

    def claim_listed(self, given: Given | None, *, stopped: Callable[[], bool]) -> Claimed[M] | None:
        """Check out the first entry that can be had of those that are listed; in a worker thread.

        `None`: there is none among the first that were tried, or it was `stopped`.
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
        """Return what is to be tried next: what waited and is due, or else a name of the listing."""
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
        """Tell whether so much of the listing has gone to others that listing again is quicker than missing the rest.

        Each of many consumers would try every name otherwise, and have a few of them.
        """
        return self._gone >= GONE_FROM_A_STALE_LISTING and len(self._names) <= self._gone * NAMES_PER_GONE

    def _list(self, *, wait: bool) -> float | None:
        """List the queue, unless another thread has done so meanwhile; return how long it took, in seconds."""
        with self._mutex:
            if self._names:
                return None
            self._list_now(wait=wait)
            self._busy.intersection_update(self._names)
            return self._listing_took

    def _look_for_earlier(self, given: Given | None, *, wait: bool) -> None:
        """List the queue again, if it is time to and what came meanwhile may sort before what was listed.

        Not in a pass, which would go over what it has given again each time; and not before an entry was had of the
        last listing: a queue of which none can be had is not listed on and on.
        """
        if self._sorts_last or given is not None:
            return
        with self._mutex:
            if self._names and self._claimed_of_it and self._since_listed() >= LISTINGS_OF_WORK * self._listing_took:
                self._list_now(wait=wait)

    def _list_now(self, *, wait: bool) -> None:
        """List the queue; under the mutex."""
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
        """Tell whether an entry was there and locked, for whichever thread: its lock is dropped without a change."""
        with self._mutex:
            return bool(self._busy or self._in_question or self._names or self._limited)

    def _try(self, one: Due | str, before_commit: BeforeCommit, given: Given | None) -> Claimed[M] | None:
        if isinstance(one, Due):
            return self._try_due(one, before_commit, given)
        return self._try_listed(one, before_commit, given)

    def _try_due(self, due: Due, before_commit: BeforeCommit, given: Given | None) -> Claimed[M] | None:
        """Check out an entry that waited; `None` if it is not to be had."""
        storage, waiting = self._session.storage, self._waiting
        try:
            if self._checkouts.leaves_alone(due.name):
                return None
            if given is not None and due.name in given:
                waiting.put_aside(due)
                return None
            made = self._checkouts.made_of(
                due.name,
                lambda: storage.claim_waiting(
                    self._queue, due.name, due_by=self._session.now(), before_commit=before_commit
                ),
                lambda: storage.read_metadata_at(Place(self._queue, State.WAITING), due.name),
            )
            if isinstance(made, Claimed):
                if given is None or given.add(due.name):
                    return made
                self._let_go(made)  # given by another thread since it was looked up above
                waiting.put_aside(due)
            elif isinstance(made, NotDue):  # it has been saved anew, or the clock went back
                waiting.put_back(Due(made.due_at, due.name))
            elif made is Unavailable.BUSY or made is KEY_FULL:
                waiting.put_aside(due)
            elif made is None:
                waiting.try_later(due)
        except BaseException:  # nobody has it, and it is still its turn
            waiting.put_back(due)
            raise
        finally:
            waiting.decide()
        return None

    def _try_listed(self, name: str, before_commit: BeforeCommit, given: Given | None) -> Claimed[M] | None:
        """Check an entry out; `None` if it is not to be had."""
        busy = again = False
        try:
            if self._checkouts.leaves_alone(name) or (given is not None and name in given):
                return None
            claimed = self._claim(name, before_commit)
            if not isinstance(claimed, Claimed):
                busy = claimed is Unavailable.BUSY
                return None
            self._misses = 0
            self._claimed_of_it = True
            if given is None or given.add(name):
                return claimed
            self._let_go(claimed)  # given by another thread since it was looked up above
        except BaseException:  # nobody has it, and it is still its turn
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
        made = self._checkouts.made_of(
            name,
            lambda: storage.claim(self._queue, name, before_commit=before_commit),
            lambda: storage.read_metadata(self._queue, name),
        )
        if made is KEY_FULL:
            self._limited = True
        if isinstance(made, Unavailable):
            self._make_way(made)
        return made

    def _make_way(self, claim: Unavailable) -> None:
        """Go on at some distance, because others are working off the same listing; what is skipped comes last.

        The distance is drawn from a range that doubles with each miss in a row, as in exponential backoff: many readers
        soon are far apart. The first misses skip nothing, so that a reader which is alone keeps to the order though a
        hand takes an entry away.
        """
        with self._mutex:
            self._misses += 1
            self._gone += claim is Unavailable.GONE
            doublings = min(self._misses - MISSES_IN_ORDER, MOST_DOUBLINGS)
            if doublings > 0:
                self._names.rotate(-random_below(min(2**doublings, len(self._names) + 1)))


def _no_second_thoughts() -> None:
    """Let a check-out take place: nobody withdraws it."""


@contextlib.contextmanager
def _no_directory_is_empty(*, wait: bool) -> Generator[None]:
    """For who waits, take a directory that is missing for one in which nothing is."""
    try:
        yield
    except StorageFailure as error:
        if not wait or error.errno != errno.ENOENT:
            raise
