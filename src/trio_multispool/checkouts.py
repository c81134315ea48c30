"""What a check-out comes to: an entry with its metadata decoded, or one that is passed over and said so in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import msgspec

from trio_multispool.errors import CorruptMetadata, UnreadableEntry
from trio_multispool.events import Event, about
from trio_multispool.lifecycle import State
from trio_multispool.storage.protocol import Claim, NotDue
from trio_multispool.verdicts import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.core import Core

M = TypeVar("M")

_LOG: Final = logging.getLogger("trio_multispool")


@final
class Claimed(msgspec.Struct, Generic[M], frozen=True):
    """An entry that was checked out."""

    claim: Claim
    metadata: M
    carried: Mapping[str, str] | None
    """What its producer sent along, if the instrumentation asks for it."""


class CheckOuts(Generic[M]):
    """The check-outs from one queue by one reader; used by any number of threads."""

    def __init__(self, core: Core[Any, M, Any, Any], queue: str) -> None:
        """Begin with nothing passed over."""
        self._core = core
        self._queue = queue
        self._complained: set[str] = set()
        self._left_alone: set[str] = set()

    def leaves_alone(self, name: str) -> bool:
        """Tell whether an entry could neither be decoded nor set aside: it is back, and would come round for ever."""
        return name in self._left_alone

    def made_of(
        self, name: str, claim: Callable[[], Claim | Unavailable | NotDue]
    ) -> Claimed[M] | Unavailable | NotDue | None:
        """Check an entry out, by a call of the store; `None`: it cannot be read, or not be decoded, and has gone back.

        Of what cannot be read, the log speaks once. Trouble of the whole store is raised.
        """
        try:
            found = claim()
        except UnreadableEntry as error:
            if name not in self._complained:
                self._complained.add(name)
                fields = about(Event.PASSED_OVER, self._core.path, queue=self._queue, entry=name, error=error)
                _LOG.warning("passed over: %s", error, extra=fields)
            return None
        if isinstance(found, (Unavailable, NotDue)):
            return found
        try:
            return Claimed(found, self._core.decode_or_set_aside(found), self._core.carried(found))
        except CorruptMetadata:
            if found.state is not State.QUARANTINED:  # it could not be set aside, as the log says
                self._left_alone.add(name)
            return None
