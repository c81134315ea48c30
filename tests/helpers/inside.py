"""Where tests reach into a spool or a reader: what they need of its inside is named here, and only here.

Most of it is for waiting until something is so that nothing public shows. A test that uses one of these says why.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trio_multispool.threads import loop

if TYPE_CHECKING:
    from collections.abc import Callable


def storage_of(spool: Any) -> Any:
    """Return the store of a spool, to do what another process would do, or to replace one of its methods."""
    return spool._session.storage


def waiters_of(spool: Any, queue: str | None = None) -> Any:
    """Return what waits for a change in a queue of this spool, or in any: a reader, for each task of it that waits."""
    changes = spool._session.changes
    return changes._waiters if queue is None else changes._waiting_for.get(queue, {})


def movers_of(spool: Any) -> Any:
    """Return what waits for an entry of this spool to move."""
    return spool._session.moves._waiters


def threads_of(spool: Any) -> int:
    """Return how many operations of this spool are in a thread at the moment.

    Without what looks for requests to cancel: that is nobody's, and may begin at any time.
    """
    return spool._session.running._count - spool._session.offload._unlimited.borrowed_tokens


def idle_bells() -> set[str]:
    """Return the descriptors that hops on Trio are done with; the next ones use them, whatever their spool."""
    return {str(bell.fd) for bell in loop._bells}


def open_descriptors() -> set[str]:
    """Return all others that are open; one of them is that of this listing."""
    return set(os.listdir("/proc/self/fd")) - idle_bells()


def dequeuer_of(reader: Any) -> Any:
    """Return what finds and checks out the entries of a reader; its length says how many jobs it has open."""
    return reader._dequeuer


def source_of(reader: Any) -> Any:
    """Return where a reader, whose block was entered, finds its entries."""
    return reader._dequeuer.claimer.source


def schedule_of(spool: Any, queue: str) -> Any:
    """Return what a spool in a directory knows of what waits for a queue."""
    return storage_of(spool).source(queue, sorts_last=True)._waiting


def claimer_of(reader: Any) -> Any:
    """Return what admits and decodes the entries of a reader."""
    return reader._dequeuer.claimer


def wrap_looks(reader: Any, wrap: Callable[[Callable[[], Any]], Any]) -> None:
    """Have each look of a reader made by `wrap`, in the look's thread; it is given a function that looks.

    What a settlement checks out beside it is no look.
    """
    source = source_of(reader)
    claim = source.claim

    def look(*arguments: Any, **options: Any) -> Any:
        return (
            claim(*arguments, **options) if options.get("listed_only") else wrap(lambda: claim(*arguments, **options))
        )

    source.claim = look


def checked_out_at(found: Any) -> int:
    """Return how many entries a look has checked out, given what it answered."""
    return len(found.claims)


def sizes_of_looks(reader: Any) -> list[int]:
    """Return a list to which each look of a reader adds how many entries it checked out."""
    sizes: list[int] = []

    def counting(look: Callable[[], Any]) -> Any:
        found = look()
        sizes.append(checked_out_at(found))
        return found

    wrap_looks(reader, counting)
    return sizes


def rest_of(spool: Any) -> list[str]:
    """Return what of a spool is not at rest, in words: its batches, and the tokens of its limiter."""
    session = spool._session
    found = []
    for kind, batches in (("settlements", session.settlements), ("enqueues", session.enqueuings)):
        if batches._pending or batches._leader is not None or batches._taken:
            found.append(f"the batches of {kind}: {len(batches._pending)} pending, led by {batches._leader}")
    if session.offload.limiter.borrowed_tokens:
        found.append(f"{session.offload.limiter.borrowed_tokens} tokens of the limiter are borrowed")
    return found


def look_again(spool: Any, queue: Any) -> None:
    """Have the readers of a queue that wait look again, as they do by themselves after a while."""
    spool._session.changes.tell(queue.value)
