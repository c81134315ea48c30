"""Where readers of a store in PostgreSQL find their next entries: the server answers with the first that can be had.

Theory. One statement finds and checks out. A listing is only two names: those between `begin` and `end` were there when
it was made, and have not been given. They come before all others, so that what was released waits its turn. It ends, so
that there is such a turn. New entries are in the next listing. The same statement begins it when this one is used up.

A reader that must ask about each entry before it may have it gets names, and checks out by name: see `storage.listed`.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, final

from trio_multispool.clock import stopwatch
from trio_multispool.storage.listed import ListedSource
from trio_multispool.storage.postgres.take import First, claim_first
from trio_multispool.storage.singly import release_or_let_go
from trio_multispool.storage.source import Next, NothingLeft

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from trio_multispool.model.attempts import Mark
    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.postgres.claims import PostgresClaim
    from trio_multispool.storage.postgres.context import Context
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.source import A, Gate, Given, Look

_PAGE: Final = 100
"""How many waiting entries are asked for at a time."""

_MOST_EARLY: Final = 100
"""So many names of what came in early are kept, and sent with each question."""

_AFTER: Final = "\x01"
"""Added to a name, it sorts after that and before every other: no name has control characters."""

_LEFT: Final = """
    SELECT EXISTS (SELECT 1 FROM SCHEMA.entry WHERE queue = %(queue)s AND state = 'c'),
        EXISTS (SELECT 1 FROM SCHEMA.entry WHERE queue = %(queue)s AND state = 'a'
            AND name NOT IN (SELECT unnest(%(but)s::text[]))),
        (SELECT due_at FROM SCHEMA.entry WHERE queue = %(queue)s AND state = 'w'
            AND name NOT IN (SELECT unnest(%(but)s::text[])) ORDER BY due_at LIMIT 1)"""

_NAMES: Final = "SELECT name FROM SCHEMA.entry WHERE queue = %s AND state = 'a' ORDER BY name"

_DUE: Final = """
    SELECT due_at, name FROM SCHEMA.entry WHERE queue = %s AND state = 'w' AND name NOT IN (SELECT unnest(%s::text[]))
    ORDER BY due_at, name LIMIT %s"""

_ARRIVED: Final = """
    SELECT name FROM SCHEMA.entry WHERE queue = %s AND state = 'a' AND name < %s AND arrived_at > %s"""

_MICROSECONDS: Final = 1_000_000

_HELD: Final = "SELECT EXISTS (SELECT 1 FROM SCHEMA.entry WHERE queue = %s AND state = 'c')"


@final
class PostgresSource:
    """The entries of one queue, for one reader; any number of threads take from it."""

    listings: int = 0
    """Never shared: they cost next to nothing."""

    def __init__(self, storage: Storage[Any, Any], context: Context, queue: str, *, sorts_last: bool) -> None:
        """Begin with nothing listed."""
        self._storage = storage
        self._context = context
        self._queue = queue
        self._asked = ListedSource(storage, _Shelf(context, queue), queue, sorts_last)
        self._mutex = threading.RLock()  # a garbage collection may drop a claim in any line
        self._sorts_last = sorts_last
        self._begin = self._end = ""
        self._listed_at = 0.0
        self._early: set[str] = set()  # of this listing
        self._asking = 0
        self._ahead: dict[int, list[PostgresClaim]] = {}

    def is_any_left(self) -> bool:
        """Tell whether names are left, or are being tried."""
        return self._begin < self._end or bool(self._asking) or self._asked.is_any_left()

    def close(self) -> None:
        """Do nothing: the source holds only names."""

    def claim(  # noqa: PLR0913  # the protocol's parameters
        self,
        look: Look,
        most: Callable[[], int],
        *,
        gate: Gate[A],
        stopped: Callable[[], bool],
        before_commit: Callable[[], None],
        before_listing: Callable[[], None] = lambda: None,
        listed_only: bool = False,
        attempt: Callable[[], Mark] | None = None,
    ) -> Next[A]:
        """Claim the first entries that can be had."""
        if gate.admits is None:
            how: dict[str, Any] = {"before_commit": before_commit, "before_listing": before_listing}
            return self._asked.claim(look, most, gate=gate, stopped=stopped, listed_only=listed_only, **how)
        if stopped():
            return Next()
        if look.listing_took is None and not listed_only:
            before_listing()
        wanted = 0
        while wanted < max(most(), 1) and not stopped():
            before_commit()
            wanted += 1
        if not wanted:
            return Next()
        with self._asking_for_some():
            ahead = self._ahead.pop(threading.get_ident(), None) if listed_only else None
            first = self.first(wanted, gate, look.given, attempt, lists=not listed_only)
            claims = self._take(look, first) if ahead is None else ahead
            if claims or listed_only:
                return Next([(claim, gate.admits) for claim in self._given(claims, look.given)])
            return Next(finished=self._nothing_left(look, first.but))

    @contextlib.contextmanager
    def _asking_for_some(self) -> Generator[None]:
        with self._mutex:
            self._asking += 1
        try:
            yield
        finally:
            with self._mutex:
                self._asking -= 1

    def first(
        self, most: int, gate: Gate[Any], given: Given | None, attempt: Callable[[], Mark] | None, *, lists: bool
    ) -> First:
        """Return a question for the next entries."""
        but = [*gate.ignored, *(given.names if given is not None else ())]
        mark = None if attempt is None else attempt()
        with self._mutex:
            # A pass would go again over all that it has given.
            since = None if self._sorts_last or given is not None else self._listed_at
            bounds = self._begin, self._end
            return First(self._context.now(), self._queue, most, *bounds, but, lists, since, list(self._early), mark)

    def _take(self, look: Look, first: First) -> list[PostgresClaim]:
        elapsed = stopwatch()
        claims, last = claim_first(self._context, first)
        self.answered(first, claims, last)
        if first.lists:
            look.listing_took = elapsed()
        return claims

    def answered(self, first: First, claims: list[PostgresClaim], last: str) -> None:
        """Take note of the answer to a question."""
        with self._mutex:
            if (first.begin, first.end) == (self._begin, self._end):  # else another thread has gone on meanwhile
                self._go_on(first, claims, last)

    def keep_ahead(self, claims: list[PostgresClaim]) -> None:
        """Keep claims that were made with a settlement for the question that this thread is about to ask."""
        self._ahead[threading.get_ident()] = claims

    def take_ahead(self) -> list[PostgresClaim]:
        """Return those that this thread did not ask for after all."""
        return self._ahead.pop(threading.get_ident(), [])

    def _go_on(self, first: First, claims: list[PostgresClaim], last: str) -> None:
        """Take note of how far the listing was worked off, or that a new one was begun; under the mutex."""
        early = {claim.name for claim in claims if claim.due_at is None and first.is_early(claim)}
        names = [claim.name for claim in claims if claim.due_at is None and claim.name not in early]
        others = [name for name in names if not self._begin <= name <= self._end]
        if others or len(claims) < first.most:  # it was used up
            self._listed_at, self._early = first.at, set()
            self._begin, self._end = (max(others) + _AFTER, max(last, *others)) if others else ("", "")
        else:
            self._early |= early
            self._begin = max(names, default="") + _AFTER if names else self._begin
            if len(self._early) > _MOST_EARLY:  # list anew, and forget them
                self._begin = self._end = ""

    def _given(self, claims: list[PostgresClaim], given: Given | None) -> list[Claim]:
        """Return those that were not given in this pass by another thread meanwhile."""
        kept: list[Claim] = []
        for claim in claims:
            if given is None or given.add(claim.name):
                kept.append(claim)
            else:
                release_or_let_go(self._storage, claim)
        return kept

    def _nothing_left(self, look: Look, but: Collection[str]) -> NothingLeft:
        values = {"queue": self._queue, "but": list(but)}
        [(held, available, next_due)] = self._context.links.read("look for entries in", _LEFT, values)
        busy = available or (next_due is not None and next_due <= self._context.now())
        return NothingLeft(
            look.listing_took or 0.0,
            held,
            busy,
            next_due=next_due,
            in_question=busy and self._asking > 1,
            passed_over=look.given is not None,
        )

    def release(self, claim: Claim) -> None:
        """Put back an entry that nobody has begun."""
        release_or_let_go(self._storage, claim)

    def take_back(self, claims: list[tuple[Claim, Any]], look: Look, gate: Gate[Any]) -> None:
        """Release entries that nobody will get, as if they had never been claimed."""
        if gate.admits is None:
            self._asked.take_back(claims, look, gate)
            return
        for claim, admission in reversed(claims):
            if look.given is not None:
                look.given.discard(claim.name)
            release_or_let_go(self._storage, claim)
            gate.leave(admission)
        names = [claim.name for claim, _ in claims if claim.due_at is None]
        if names:
            with self._mutex:
                self._begin = min(names) if not self._begin else min(self._begin, *names)
                self._end = max(self._end, *names)


@final
class _Shelf:
    """What is in a queue, for readers that ask about each entry."""

    def __init__(self, context: Context, queue: str) -> None:
        self._context = context
        self._queue = queue
        self._page: list[tuple[float, str]] = []
        self._has_more = True

    def look(self) -> None:
        """Forget what was known of what waits."""
        self._page, self._has_more = [], True

    def now(self) -> float:
        """Return the time of day."""
        return self._context.now()

    def names(self) -> list[str]:
        """List what is available."""
        return [name for (name,) in self._context.links.read("list entries in", _NAMES, (self._queue,))]

    def due(self, tried: Collection[str]) -> list[tuple[float, str]]:
        """List the first that wait."""
        if self._has_more and all(name in tried for _, name in self._page):
            rows = self._context.links.read("list what waits in", _DUE, (self._queue, list(tried), _PAGE))
            self._page, self._has_more = [(due_at, name) for due_at, name in rows], len(rows) == _PAGE
        return self._page

    def was_tried(self, name: str) -> None:
        """Forget what may have moved."""
        self._page = [each for each in self._page if each[1] != name]

    def is_any_held(self) -> bool:
        """Tell whether anything is checked out."""
        [(held,)] = self._context.links.read("look for check-outs in", _HELD, (self._queue,))
        return bool(held)

    def arrived(self, since: int, before: str) -> tuple[int, set[str]]:
        """Return the time in microseconds, and what came in since such a time."""
        now = int(self.now() * _MICROSECONDS)
        values = (self._queue, before, since / _MICROSECONDS)
        rows = self._context.links.read("list what came into", _ARRIVED, values) if before else []
        return now, {name for (name,) in rows}
