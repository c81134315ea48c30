"""`Source`: where one reader finds the next entries of a queue. How they are found is the store's own affair.

What a store promises: a lone reader gets the entries in the order of their names, and those that sort earlier are
found. Entries that waited and are due come before those that have not waited, however many those are. An entry that was
released waits its turn: those that were listed before come first. A pass gives no entry twice, and ends.
"""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, final

import msgspec

from trio_multispool.errors import UnreadableEntry
from trio_multispool.model.attempts import Mark
from trio_multispool.storage.handles import Claim

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

A = TypeVar("A")


@final
class Given:
    """The names of entries given in one pass over a queue: they may come back to it while the pass goes on."""

    def __init__(self) -> None:
        """Begin with none."""
        self._mutex = threading.Lock()
        self.names: set[str] = set()
        """To be looked at, not changed."""

    def add(self, name: str) -> bool:
        """Remember the name of an entry in hand; tell whether it is new."""
        with self._mutex:
            new = name not in self.names
            self.names.add(name)
            return new

    def discard(self, name: str) -> None:
        """Forget a name whose entry has left the queue: a long pass need not remember it."""
        with self._mutex:
            self.names.discard(name)


@final
class Look(msgspec.Struct, eq=False, weakref=True):
    """One question for entries. It may take several calls, and ends when all names of its own listing were tried.

    It begins before the queue is listed for it.
    """

    given: Given | None
    """What was given in the pass that this is part of."""
    waits: bool
    """Whether a queue that is missing is an empty one."""
    listing_took: float | None = None
    """How long its listing took, in seconds; `None` before that. The store sets it."""
    began: int | None = None
    """How many listings were begun when it was asked, if one that was begun since may do; see `Source.listings`."""


class Gate(Protocol[A]):
    """Decides which entries one reader takes, and which not now. Used by any number of threads.

    `admit` may take long, and is called outside every mutex of the store; the others must be quick.
    """

    @property
    def ignored(self) -> Collection[str]:
        """The names of entries that are never to be tried. They keep nobody busy."""
        ...

    @property
    def admits(self) -> A | None:
        """The admission of every entry, if it refuses none; `None`: ask."""
        ...

    def is_full(self, name: str) -> bool:
        """Tell, without looking at the entry, whether it has just been refused, and would be again.

        A hint: a store need not ask, least of all for what waited.
        """
        ...

    def admit(self, name: str, read: Callable[[], bytes]) -> A | None:
        """Admit an entry, whose metadata `read` returns, or refuse it for now. Raises what `read` raises.

        If that is `EntryNotFound`, the entry is gone, and the store goes on to the next.

        What was admitted ends by `leave`, unless the entry is claimed.
        """
        ...

    def leave(self, admission: A) -> None:
        """Let another one in."""
        ...

    def listed(self, names: Iterable[str]) -> None:
        """Take note of a whole listing."""
        ...


@final
class NothingLeft(msgspec.Struct, frozen=True):
    """No entry could be had from a listing that was made after the question was asked."""

    listing_took: float
    """How long that listing took, in seconds."""
    held: bool
    """Whether anything is checked out of the queue: its owner may die, and nothing announces that."""
    busy: bool
    """Whether an entry was there and locked, because somebody is enqueueing it or checking it out: look again soon.

    Also if another task of this reader found it locked, or is still trying it: that task may be cancelled. And if an
    entry was refused.
    """
    announced: bool = False
    """Whether a watch tells of everything that would change this, the clock too; then nobody need look again."""
    next_due: float | None = None
    """When the next waiting entry is due, in seconds since 1970; `None` if none waits."""
    in_question: bool = False
    """Whether another thread of this process is trying an entry, and may leave it to this reader."""
    paused: bool = False
    """Whether nobody is to take anything from the queue now; `next_due` is when that ends, if it does by itself."""
    passed_over: bool = False
    """Whether there may be entries that other readers would take: they were given in this pass, or refused."""


@final
class Next(msgspec.Struct, Generic[A], frozen=True):
    """What a call of `Source.claim` found."""

    claims: list[tuple[Claim, A]] = msgspec.field(default_factory=list)
    """The claimed entries, each with its admission."""
    unreadable: list[UnreadableEntry] = msgspec.field(default_factory=list)
    """Entries that were passed over, because they cannot be read."""
    finished: NothingLeft | None = None
    """Set if there are no claims, and none are to be had. Otherwise, and without claims, ask again with that look."""


_nothing: Final[Any] = bool
"""Does nothing, in no time."""


class Claiming(msgspec.Struct, Generic[A], eq=False):
    """Claims entries that are at hand: a store does so when others are settled, in the same call."""

    source: Source
    given: Given | None
    gate: Gate[A]
    stopped: Callable[[], bool]
    take: Callable[[Look, Callable[[], Next[A]]], None]
    """Given a look and a function that claims, or raises why it cannot. Raises nothing itself."""
    context: contextvars.Context
    """In a copy of which it is called."""
    attempt: Callable[[], Mark] | None = None
    """See `Source.claim`."""

    def carry_out(self, most: int) -> None:
        """Claim up to `most` entries."""
        look = Look(self.given, waits=True)
        claim = functools.partial(
            self.source.claim,
            look,
            functools.partial(int, most),
            gate=self.gate,
            stopped=self.stopped,
            before_commit=_nothing,
            listed_only=True,
            attempt=self.attempt,
        )
        self.context.copy().run(self.take, look, claim)


class Source(Protocol):
    """The entries of one queue, as one reader finds them; any number of threads take from it."""

    def claim(  # noqa: PLR0913  # what a reader knows and the store does not
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
        """Claim the first entries that can be had, were not given before in this pass, and are admitted.

        Takes up to `most()` entries, at least one, and asks again before each. Takes fewer if it would have to list for
        more, or if there is trouble: trouble that lasts comes up again with the next call, and is raised then. A call
        that raises has claimed nothing. `before_commit` is called before each claim.

        Without claims and not `finished`, the reader was `stopped`, or enough was tried for one call: a call tries a
        bounded number of entries in vain, because its caller may be cancelled between two. Ask again with the same
        `look`: a new one would begin again and again.

        `before_listing` is called before a listing that counts for the look. With `listed_only`, none is made for the
        look, and there is never an end: it takes what is at hand.

        `attempt` returns an attempt that begins with each claim. A store that can note it in the same step does so, and
        says so in `Claim.noted`; otherwise the caller does.
        """
        ...

    def take_back(self, claims: list[tuple[Claim, Any]], look: Look, gate: Gate[Any]) -> None:
        """Release entries that nobody will get, as if they had never been claimed.

        They come first again: before all that were listed and have not waited. Never raises: of an entry that cannot be
        released, the log tells, and recovery returns it. All admissions end.
        """
        ...

    @property
    def listings(self) -> int:
        """How many listings of the queue were begun, by any of its readers. A store may never share them."""
        ...

    def is_any_left(self) -> bool:
        """Tell whether there may be more at hand, for any reader of the queue. A hint."""
        ...

    def close(self) -> None:
        """Free what was kept for this reader. Idempotent."""
        ...
