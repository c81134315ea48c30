"""One entry by itself, through the store's operations for several."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from trio_multispool.errors import SpoolError
from trio_multispool.events import Event, log
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.requests import Releasing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import Settlement
    from trio_multispool.storage.source import Claiming


_LOG: Final = logging.getLogger("trio_multispool")


def claim_next(settlements: Sequence[Settlement[Any]], failures: Sequence[BaseException | None]) -> None:
    """Make the claims that were to follow the settlements that went well: those of one kind together."""
    wanted: dict[Claiming[Any], int] = {}
    for settlement, failure in zip(settlements, failures, strict=True):
        if failure is None and settlement.then is not None:
            if settlement.ready is not None:
                _ = settlement.ready()
            wanted[settlement.then] = wanted.get(settlement.then, 0) + 1
    for claiming, most in wanted.items():
        claiming.carry_out(most)


def settle_one(storage: Storage[Any, Any], settlement: Settlement[Any]) -> None:
    """Settle one claim. Raises what `Storage.settle` answers for it."""
    _raise(storage.settle([settlement])[0])


def release_or_let_go(storage: Storage[Any, Any], claim: Claim) -> None:
    """Put back an entry that nobody will get; if that fails, recovery does it."""
    try:
        if claim.state is State.CHECKED_OUT:
            settle_one(storage, Releasing(claim))
    except SpoolError as failure:
        message = "entry %(entry)s of queue %(queue)s was let go: %(error)s"
        log(_LOG.warning, Event.LET_GO, storage.location, message, queue=claim.queue, entry=claim.name, error=failure)
    finally:
        claim.abandon()


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        raise failure
