"""Check an entry out and decode its metadata, or pass it over and say so in the log."""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, final

import msgspec

from trio_multispool.entries.key_limits import UNLIMITED, KeySlot
from trio_multispool.errors import (
    CorruptMetadata,
    EntryNotFound,
    UnreadableEntry,
)
from trio_multispool.events import Event, log
from trio_multispool.model.lifecycle import State
from trio_multispool.model.types import M
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.protocol import Claim
from trio_multispool.storage.requests import NotDue

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.entries.key_limits import KeyLimiter
    from trio_multispool.session.session import Session


_LOG: Final = logging.getLogger("trio_multispool")


@final
class Claimed(msgspec.Struct, Generic[M], frozen=True):
    """An entry that was checked out."""

    claim: Claim
    metadata: M
    carried: Mapping[str, str] | None
    """What its producer sent along, if the instrumentation asks for it."""
    slot: KeySlot = UNLIMITED
    """Of the limit that it counts for."""


@final
class KeyFull(enum.Enum):
    """The type of `KEY_FULL`."""

    KEY_FULL = "limited"


KEY_FULL: Final = KeyFull.KEY_FULL
"""The entry is there, and its key has no free slot."""


class Claimer(Generic[M]):
    """Checks entries out of one queue, by name, for one reader; used by any number of threads."""

    def __init__(
        self, session: Session[Any, M, Any, Any], queue: str, key_limiter: KeyLimiter[M] | None = None
    ) -> None:
        """Begin with nothing passed over."""
        self._key_limiter = key_limiter
        self._session = session
        self._queue = queue
        self._complained: set[str] = set()
        self._left_alone: set[str] = set()

    def leaves_alone(self, name: str) -> bool:
        """Tell whether an entry could neither be decoded nor set aside: it is back, and would come again for ever."""
        return name in self._left_alone

    def made_of(
        self, name: str, claim: Callable[[], Claim | Unavailable | NotDue], read: Callable[[], bytes]
    ) -> Claimed[M] | Unavailable | NotDue | KeyFull | None:
        """Check an entry out by `claim`, a call of the store. `None`: it cannot be read or decoded, and has gone back.

        If there is a limit, `read` gets its metadata first. The log tells once of an entry that cannot be read. Trouble
        of the whole store is raised.
        """
        if self._key_limiter is None:
            return self._made_of(name, claim)
        try:
            slot = self._key_limiter.slot_of(name, read)
        except EntryNotFound:
            return Unavailable.GONE
        if slot is None:
            return KEY_FULL
        made: Claimed[M] | Unavailable | NotDue | None = None
        try:
            made = self._made_of(name, claim)
            return self._confirmed(self._key_limiter, name, slot, made) if isinstance(made, Claimed) else made
        finally:
            if not isinstance(made, Claimed):
                _ = slot.end()

    def _confirmed(
        self, key_limiter: KeyLimiter[M], name: str, slot: KeySlot, made: Claimed[M]
    ) -> Claimed[M] | KeyFull:
        try:
            confirmed = key_limiter.confirmed(name, slot, made.metadata)
        except BaseException:  # passed on: nobody will get it, whatever it was
            _ = slot.end()
            self._session.release_or_let_go(made.claim)
            raise
        if confirmed is None:
            self._session.release_or_let_go(made.claim)
            return KEY_FULL
        return msgspec.structs.replace(made, slot=confirmed)

    def _made_of(
        self, name: str, claim: Callable[[], Claim | Unavailable | NotDue]
    ) -> Claimed[M] | Unavailable | NotDue | None:
        try:
            found = claim()
        except UnreadableEntry as error:
            if name not in self._complained:
                self._complained.add(name)
                path, message = self._session.path, "passed over: %(error)s"
                log(_LOG.warning, Event.PASSED_OVER, path, message, queue=self._queue, entry=name, error=error)
            return None
        if isinstance(found, (Unavailable, NotDue)):
            return found
        try:
            return Claimed(found, self._session.decode_or_set_aside(found), self._session.carried(found))
        except CorruptMetadata:
            if found.state is not State.QUARANTINED:  # it could not be set aside, as the log says
                self._left_alone.add(name)
            return None
