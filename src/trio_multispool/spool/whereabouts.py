"""Where an entry is, as one who only looks sees it; and waiting until it has got somewhere.

Theory. An entry moves when somebody renames its file, and is gone when its reservation is unlinked, which is the last
step of every removal. (A program that takes no locks, in a spool that is not adopted, has none to unlink.) The kernel
tells both to one watch, with the entry's name. So any number of tasks wait for as many entries with one descriptor, and
each looks once when it begins and once when its entry moves. The rules of `session/changes.py` hold: watch first and
look then, so no move is missed. Looking again after a while is for lost hints, and for what goes into quarantine, which
is not watched.
"""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, final

import msgspec

from trio_multispool.model.attempts import Attempt, history_in
from trio_multispool.model.cancellation import CancelRequest
from trio_multispool.model.lifecycle import State
from trio_multispool.model.names import invalid_name
from trio_multispool.model.notes import Progress
from trio_multispool.model.results import Err, Ok, handed_out
from trio_multispool.model.times import aware
from trio_multispool.model.types import Q
from trio_multispool.storage.upkeep import is_adopted
from trio_multispool.threads.batches import Whole

if TYPE_CHECKING:
    from trio_multispool.model.results import Result
    from trio_multispool.session.session import Session
    from trio_multispool.storage.requests import Item
    from trio_multispool.threads.transaction import BeforeCommit

LOOK_AGAIN: Final = 10.0
"""In seconds, where the store tells of what moves."""

LOOK_AGAIN_UNTOLD: Final = 0.5
"""In seconds, where it does not."""


@final
class Found(msgspec.Struct, Generic[Q], frozen=True, kw_only=True):
    """An entry, as it was when somebody looked: it may be elsewhere by now."""

    name: str
    """The entry's name."""
    queue: Q | str
    """The queue; its name, if the spool's `Spoolable` does not have it."""
    state: State
    """`AVAILABLE` in its queue, `WAITING` for its time, `CHECKED_OUT` by an owner, or `QUARANTINED`."""
    modified_at: datetime.datetime
    """When its metadata was last written, in UTC."""
    due_at: datetime.datetime | None = None
    """Until when it waits, in UTC."""
    owner: int | None = None
    """The process that has it in hand, if the kernel shows it: not across PID namespaces, and not on btrfs."""
    owner_host: str | None = None
    """The name of the host that this process runs on."""
    progress: Progress | None = None
    """How far its owner says it is."""
    attempts: tuple[Attempt, ...] = ()
    """The last attempts at it in readers with `retry=`, in order."""
    reason: str | None = None
    """Why it is in quarantine."""
    cancellation: CancelRequest | None = None
    """The request to cancel the work on it, if there is one."""


@final
class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """There is no entry of that name; there was one, and its name is remembered (see `Use`)."""

    name: str
    """The name that the entry had."""
    until: datetime.datetime | None
    """Until when it is remembered, in UTC; `None` if that cannot be told."""


Where: TypeAlias = Found[Q] | Finished | None
"""What `find` and `wait` answer; `None`: there is no such entry, and no memory of one."""


async def find(session: Session[Q, Any, Any, Any], name: str) -> Result[Where[Q], Any]:
    """Look for an entry; `Spool.find` says what that means."""
    fault = invalid_name(name)
    if fault is not None:
        return handed_out(Err(fault), "look for an entry", session.running.what)
    return await session.looks.run(f"look for entry {name}", Whole(lambda _before_commit: _look(session, name)))


async def wait(session: Session[Q, Any, Any, Any], name: str, until: frozenset[str]) -> Result[Where[Q], Any]:
    """Wait until an entry has left the spool, is in one of some queues, or in quarantine; see `Spool.wait`."""
    fault = invalid_name(name)
    if fault is not None:
        return handed_out(Err(fault), "wait for an entry", session.running.what)

    def work(_before_commit: BeforeCommit) -> tuple[Where[Q], bool]:
        for queue in until or {""}:
            session.moves.watch(queue)
        told = is_adopted(session.storage) and all(map(session.moves.told, until or {""}))
        return _look(session, name), told

    moves = session.moves
    moves.join(name)
    try:
        while True:
            seen = moves.seen(name)
            answer = await session.looks.run(f"wait for entry {name}", Whole(work))
            if isinstance(answer, Err):
                return answer
            where, told = answer.value
            if _is_there(where, until):
                return Ok(where)
            session.check_open()
            await moves.wait(name, seen, LOOK_AGAIN if told else LOOK_AGAIN_UNTOLD)
            session.check_open()
    finally:
        moves.leave(name)


def _is_there(where: Where[Any], until: frozenset[str]) -> bool:
    if not isinstance(where, Found) or where.state is State.QUARANTINED:
        return True
    return (where.queue if isinstance(where.queue, str) else where.queue.value) in until


def _look(session: Session[Q, Any, Any, Any], name: str) -> Where[Q]:
    storage = session.storage
    item: Item | None = storage.find(name)
    if item is None:
        until = storage.remembered_until(name)
        return None if until is None else Finished(name=name, until=None if math.isinf(until) else aware(until))
    history, state, queue = history_in(storage.notes(name)), item.place.state, item.place.queue
    known = {each.value: each for each in session.spoolable.queues}
    return Found(
        name=name,
        queue=known.get(queue, queue),
        state=state,
        modified_at=item.modified_at,
        due_at=item.due_at,
        owner=None if item.owner is None else item.owner.pid,
        owner_host=None if item.owner is None else item.owner.host,
        progress=item.progress,
        attempts=() if history is None else history.attempts,
        reason=storage.quarantine_reason(name) if state is State.QUARANTINED else None,
        cancellation=storage.cancellation(queue, name),
    )
