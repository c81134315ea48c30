"""Check an entry out and decode its metadata, or pass it over and say so in the log."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, final

import msgspec

from trio_multispool.entries.key_limits import UNLIMITED, KeySlot
from trio_multispool.errors import CorruptMetadata, SpoolError
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.attempts import Begun
from trio_multispool.model.lifecycle import State
from trio_multispool.model.types import M
from trio_multispool.storage.handles import Claim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_multispool.entries.key_limits import KeyLimiter
    from trio_multispool.errors import UnreadableEntry
    from trio_multispool.session.session import Session
    from trio_multispool.storage.source import Look, Next, NothingLeft, Source


@final
class Claimed(msgspec.Struct, Generic[M], frozen=True):
    """An entry that was checked out, for a `Checkout` to take over."""

    claim: Claim
    metadata: M
    carried: Mapping[str, str] | None = None
    """What its producer sent along, if the instrumentation asks for it."""
    slot: KeySlot = UNLIMITED
    """Of the limit that it counts for."""
    begun: Begun | None = None
    """The attempt that was begun at it."""


@final
class Claimer(Generic[M]):
    """What one reader has done with what the store claims in its queue: it is admitted, decoded and confirmed.

    It is the store's gate (`storage.source.Gate`). Used by any number of threads.
    """

    def __init__(
        self, session: Session[Any, M, Any, Any], queue: str, source: Source, key_limiter: KeyLimiter[M] | None = None
    ) -> None:
        """Begin with nothing passed over."""
        self.source: Source = source
        self._key_limiter = key_limiter
        self._session = session
        self._queue = queue
        self._complained: set[str] = set()
        self.ignored: set[str] = set()
        """Entries that could neither be decoded nor set aside: they are back, and would come again for ever."""
        self.admits: KeySlot | None = UNLIMITED if key_limiter is None else None
        """The slot of all entries, if none is limited."""

    # The gate

    def is_full(self, name: str) -> bool:
        """Tell whether the entry's key has just been full."""
        return self._key_limiter is not None and self._key_limiter.is_known_full(name)

    def admit(self, name: str, read: Callable[[], bytes]) -> KeySlot | None:
        """Take a slot of the entry's key; `None`: it has none that is free."""
        return UNLIMITED if self._key_limiter is None else self._key_limiter.slot_of(name, read)

    def leave(self, admission: KeySlot) -> None:
        """Free the slot."""
        _ = admission.end()

    def listed(self, names: Iterable[str]) -> None:
        """Ask again which keys are full."""
        if self._key_limiter is not None:
            self._key_limiter.listed(names)

    # What was claimed

    def finish(
        self, found: Next[KeySlot], look: Look, begin: Callable[[Claim], Begun] | None = None
    ) -> list[Claimed[M]] | NothingLeft:
        """Decode and confirm what the source has claimed with this gate; in a worker thread.

        An empty list means that the reader was stopped, or that nothing of what was tried could be had: the caller may
        be cancelled before it asks again, with the same look. A call that raises leaves nothing checked out. `begin`
        begins an attempt at each.
        """
        if found.unreadable:
            self._complain(found.unreadable)
        if found.finished is not None:
            return found.finished
        claimed: list[Claimed[M]] = []
        left = collections.deque(found.claims)
        try:
            if left and not self._session.cancellations.begun:
                self._session.cancellations.begin()
            while left:
                made = self._finished(*left[0], look, begin)
                _ = left.popleft()
                if made is not None:
                    claimed.append(made)
        except SpoolError:
            self.source.take_back(list(left), look, self)
            if not claimed:
                raise
        except BaseException:  # of any kind: nobody will get these entries
            self.take_back(claimed, look)
            self.source.take_back(list(left), look, self)
            raise
        return claimed

    def take_back(self, claimed: Iterable[Claimed[M]], look: Look) -> None:
        """Release entries that nobody will get, as if they had never been checked out; in a worker thread."""
        for one in claimed:
            if one.begun is not None:
                strike_out(self._session, one.claim, one.begun)
        self.source.take_back([(one.claim, one.slot) for one in claimed], look, self)

    def _complain(self, unreadable: Iterable[UnreadableEntry]) -> None:
        for error in unreadable:
            if error.name not in self._complained:
                self._complained.add(error.name)
                path, message = self._session.path, "passed over: %(error)s"
                log(LOGGER.warning, Event.PASSED_OVER, path, message, queue=self._queue, entry=error.name, error=error)

    def _finished(
        self, claim: Claim, slot: KeySlot, look: Look, begin: Callable[[Claim], Begun] | None
    ) -> Claimed[M] | None:
        """Decode the metadata, and check its key's slot. `None`: it was set aside, or goes back as its key is full.

        If this raises, nobody has the entry, and it is still to be taken back.
        """
        try:
            metadata = self._session.decode_or_set_aside(claim)
            carried = self._session.carried(claim) if self._session.hooks.carries else None
            confirmed = slot if self._key_limiter is None else self._key_limiter.confirmed(claim.name, slot, metadata)
        except CorruptMetadata:
            _ = slot.end()
            if claim.state is not State.QUARANTINED:  # it could not be set aside, as the log says
                self.ignored.add(claim.name)
            return None
        if confirmed is None:
            self.source.take_back([(claim, UNLIMITED)], look, self)
            return None
        return Claimed(claim, metadata, carried, confirmed, None if begin is None else begin(claim))


def strike_out(session: Session[Any, Any, Any, Any], claim: Claim, begun: Begun) -> None:
    """Take back what was written of an attempt at an entry that nobody will get; in a worker thread."""
    for key, value in begun.notes_before.items():
        try:
            session.storage.annotate(claim, key, value)
        except SpoolError as error:
            path, message = session.path, "entry %(entry)s went back untried, but that counts as an attempt: %(error)s"
            queue, entry = claim.queue, claim.name
            log(LOGGER.warning, Event.ATTEMPT_NOT_RECORDED, path, message, queue=queue, entry=entry, error=error)
