"""What a person can do with entries and queues from a page: said first (a dry run), and done when that is confirmed.

Each action is an operation of the library: an entry is checked out under its lock, and saved or removed; cancelled by
`Spool.cancel`; or put back from quarantine by the store; a queue is paused or resumed by the spool. What has changed
between the two steps is looked at again, and an entry that somebody has by then is left. Each is logged, with who asked
for it.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Final, NamedTuple, final

import anyio

from trio_multispool.errors import SpoolError
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.attempts import history_in
from trio_multispool.model.cancellation import Cancelled
from trio_multispool.model.lifecycle import State
from trio_multispool.model.names import invalid_name
from trio_multispool.spool.spool import session_of
from trio_multispool.web import pausing, spools
from trio_multispool.web.reading import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio_multispool.looks.seen import AnyStorage
    from trio_multispool.storage.requests import Item
    from trio_multispool.web.spools import AnySpool
    from trio_multispool.web.watched import Watched

_AT_A_TIME: Final = 16
"""How many entries are acted on at once; they share syncs."""


class Do(enum.Enum):
    """What can be done with an entry, or with a queue."""

    RETRY = "retry"
    """Put it back into the queue in which it failed."""
    MOVE = "move"
    REMOVE = "remove"
    CANCEL = "cancel"
    RESTORE = "restore"
    """Put it back from quarantine."""
    PAUSE = "pause"
    """Have readers take nothing new from a queue."""
    RESUME = "resume"
    """End the pause of a queue."""

    @property
    def of_queue(self) -> bool:
        """Whether it is done with a queue, and not with an entry."""
        return self in {Do.PAUSE, Do.RESUME}


class Task(NamedTuple):
    """What a person asks for."""

    do: Do
    names: tuple[str, ...]
    """Of entries; or of the queues that are to be paused or resumed."""
    to: str = ""
    """The queue to move to."""
    length: str = ""
    """For how long to pause: one of `pausing.LENGTHS`."""
    reason: str = ""
    """Why to pause, for people."""


class Step(NamedTuple):
    """What is to be done with one entry or queue, or was."""

    name: str
    told: str
    """In words, for a person."""
    fine: bool
    """Whether it can be done, or was."""
    queue: str = ""
    """Where it is, or was."""
    to: str = ""
    """Where it is to go, if to any queue."""
    state: State | None = None


@final
class Impossible(Exception):
    """It cannot be done, and why."""


async def rehearse(watched: Watched, task: Task) -> list[Step]:
    """Say what would be done; changes nothing. Raises a `SpoolError` if the spool cannot be asked."""
    question = functools.partial(_rehearsed_all, task=task)
    return await watched.ask("a dry run", lambda: watched.reader.with_storage(question))


def _rehearsed_all(storage: AnyStorage, task: Task) -> list[Step]:
    queues = storage.queues()
    rehearsed = _rehearsed_queue if task.do.of_queue else _rehearsed
    return [rehearsed(storage, task, name, queues) for name in dict.fromkeys(task.names[:MOST])]


def _rehearsed_queue(storage: AnyStorage, task: Task, name: str, queues: Sequence[str]) -> Step:
    if name not in queues:
        return Step(name, "there is no such queue", fine=False)
    if task.do is Do.PAUSE:
        told = pausing.would_pause(storage, name, pausing.LENGTHS[task.length], task.reason)
        return Step(name, told, fine=True, queue=name)
    would = pausing.would_resume(storage, name)
    return Step(name, would or "it is not paused, so it is left", fine=would is not None, queue=name)


def _rehearsed(storage: AnyStorage, task: Task, name: str, queues: Sequence[str]) -> Step:
    if invalid_name(name) is not None:
        return Step(name, "no entry can have that name", fine=False)
    try:
        item = storage.find(name)
    except SpoolError as error:
        return Step(name, str(error), fine=False)
    if item is None:
        return Step(name, "there is no such entry any more", fine=False)
    queue, state = item.place.queue, item.place.state
    try:
        to = _target(storage, item, task, queues)
    except Impossible as why:
        return Step(name, f"{why}, so it is left", fine=False, queue=queue, state=state)
    return Step(name, _would(task.do, item, to), fine=True, queue=queue, to=to, state=state)


def _target(storage: AnyStorage, item: Item, task: Task, queues: Sequence[str]) -> str:
    """Return the queue that an entry would go to, if to any; raises `Impossible`."""
    state, queue = item.place.state, item.place.queue
    why = _ill_placed(task.do, state)
    if why:
        raise Impossible(why)
    match task.do:
        case Do.RESTORE:
            return queue
        case Do.CANCEL | Do.REMOVE:
            return ""
        case Do.MOVE:
            to = task.to
        case _:
            history = history_in(storage.notes(item.name))
            if history is None or not history.given_up:
                raise Impossible("no attempt at it was given up")
            to = history.queue
    if to not in queues:
        raise Impossible(f"there is no queue {to!r}")
    if to == queue:
        raise Impossible(f"it is in {to!r} already")
    return to


def _ill_placed(do: Do, state: State) -> str:
    """Say why something cannot be done with an entry that is in this state; empty, if it can."""
    match do, state:
        case Do.RESTORE, State.QUARANTINED:
            return ""
        case Do.RESTORE, _:
            return "it is not in quarantine"
        case ((Do.CANCEL | Do.MOVE | Do.RETRY), State.QUARANTINED):
            return "it is in quarantine"
        case ((Do.MOVE | Do.RETRY | Do.REMOVE), State.CHECKED_OUT):
            return "somebody has it in hand"
        case _:
            return ""


def _would(do: Do, item: Item, to: str) -> str:
    queue = item.place.queue
    match do:
        case Do.RETRY:
            return f"would go back from {queue} to {to}, with all its attempts again"
        case Do.MOVE:
            return f"would move from {queue} to {to}"
        case Do.RESTORE:
            return f"would go back from quarantine to {to}"
        case Do.CANCEL if item.place.state is State.CHECKED_OUT:
            return "its owner would be asked to end the work on it"
        case Do.CANCEL:
            return f"would be removed from {queue}, as cancelled"
        case _:
            where = "quarantine" if item.place.state is State.QUARANTINED else queue
            return f"would be removed from {where}, with its data, for good"


async def carry_out(watched: Watched, task: Task, who: str) -> list[Step]:
    """Do it, and say what was done with each entry. Raises a `SpoolError` if the spool cannot be opened."""
    planned = await rehearse(watched, task)
    wanted = [queue for step in planned if step.fine for queue in (step.queue, step.to) if queue]
    done = list(planned)
    if wanted:
        async with await spools.to_change(watched.opened, wanted) as spool, anyio.create_task_group() as group:
            limiter = anyio.CapacityLimiter(_AT_A_TIME)

            async def act(number: int, step: Step) -> None:
                async with limiter:
                    done[number] = await _act(spool, task, step)

            for number, step in enumerate(planned):
                if step.fine:
                    _ = group.start_soon(act, number, step)
    for step in done:
        _note(watched.location, task.do, step, who)
    watched.forget()
    return done


async def _act(spool: AnySpool, task: Task, step: Step) -> Step:
    try:
        return step._replace(told=await _operate(spool, task, step))
    except (SpoolError, Impossible) as error:
        return step._replace(told=str(error), fine=False)


async def _operate(spool: AnySpool, task: Task, step: Step) -> str:
    """Carry out one operation of the library; return what was done."""
    do = task.do
    if do is Do.PAUSE:
        return await pausing.pause(spool, step.queue, pausing.LENGTHS[task.length], task.reason)
    if do is Do.RESUME:
        return await pausing.resume(spool, step.queue)
    if do is Do.CANCEL:
        asked = (await spool.cancel(step.name, reason="by a person, in the dashboard")).unwrap()
        return "was removed" if asked is Cancelled.REMOVED else "its owner was asked to end the work on it"
    if step.state is State.QUARANTINED:
        return await _out_of_quarantine(spool, do, step)
    entry = spool.entry(spools.member(spool, step.queue), step.name).unwrap()
    async with (await entry.checkout(early=True)).unwrap() as job:
        if do is Do.REMOVE:
            (await job.remove()).unwrap()
            return f"was removed from {step.queue}"
        (await job.save(spools.member(spool, step.to))).unwrap()
    return f"is in {step.to} now"


async def _out_of_quarantine(spool: AnySpool, do: Do, step: Step) -> str:
    session = session_of(spool)
    storage = session.storage
    change = storage.restore if do is Do.RESTORE else storage.discard
    act = functools.partial(change, step.queue, step.name, durability=None)
    (await session.run(f"{do.value} of {step.name}", lambda before_commit: act(before_commit=before_commit))).unwrap()
    return f"is back in {step.to}" if do is Do.RESTORE else "was removed from quarantine"


def _note(location: str, do: Do, step: Step, who: str) -> None:
    error = None if step.fine else step.told
    log(
        LOGGER.info,
        Event.OPERATED,
        location,
        f"%(action)s of {'queue %(queue)s' if do.of_queue else 'entry %(entry)s'}: %(outcome)s, asked for by %(who)s",
        queue=(step.name if do.of_queue else step.queue) or None,
        entry=None if do.of_queue else step.name,
        error=error,
        action=do.value,
        outcome=step.told,
        who=who,
    )


def named(values: Iterable[str]) -> tuple[str, ...]:
    """Return the names that a form has brought, each once, and no more than are acted on at once."""
    return tuple(list(dict.fromkeys(values))[:MOST])
