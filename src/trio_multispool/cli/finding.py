"""Where an entry is: in which queue, available, waiting, checked out or set aside."""

import math
from collections.abc import Callable, Iterator, Sequence

from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.output import Troubles
from trio_multispool.cli.spools import AnyStorage
from trio_multispool.errors import SpoolError
from trio_multispool.looks.ages import human_time
from trio_multispool.looks.owners import told
from trio_multispool.model.lifecycle import State
from trio_multispool.model.names import invalid_name
from trio_multispool.model.times import aware
from trio_multispool.storage.requests import Item


def find(storage: AnyStorage, name: str) -> Item:
    """Return what an onlooker sees of an entry; ends the command if no entry has that name."""
    if (fault := invalid_name(name)) is not None:
        raise fault
    found = storage.find(name)
    if found is None:
        raise no_entry(storage, name)
    return found


def no_entry(storage: AnyStorage, name: str) -> Failure:
    """Return what ends the command if no entry has a name; it says if a queue has it, or if an entry had it."""
    message, until = f"there is no entry {name!r} in {storage.location!r}", storage.remembered_until(name)
    if name in storage.queues():
        message += "; it is a queue, which `multispool ls` shows"
    elif until is not None:
        when = "" if math.isinf(until) else f" until {human_time(aware(until))}"
        message += f"; one was removed, and its name is remembered{when}"
    return Failure(message, Exit.NOT_FOUND)


def each_named(names: Sequence[str], find: Callable[[str], Item], troubles: Troubles) -> Iterator[Item | None]:
    """Yield the entries, each once, and `None` for each that is not to be had, so that the caller can give up."""
    for name in dict.fromkeys(names):
        try:
            yield find(name)
        except (Failure, SpoolError) as error:
            troubles.tell(error)
            yield None


def find_available(storage: AnyStorage, name: str, source: str | None = None) -> Item:
    """Return an entry that can be had, also early; ends the command, saying why, if it cannot.

    With `source`, it is to be of that queue.
    """
    item = find(storage, name)
    if source not in (None, item.place.queue):
        raise Failure(f"entry {name!r} is of {item.place.queue!r}, not of {source!r}", Exit.NOT_FOUND)
    match item.place.state:
        case State.AVAILABLE | State.WAITING:
            return item
        case State.CHECKED_OUT:
            by = "" if item.owner is None else f" by {told(item.owner)}"
            raise Failure(f"entry {name!r} is checked out of {item.place.queue!r}{by}", Exit.BUSY)
        case _:
            return not_set_aside(item)


def not_set_aside(item: Item) -> Item:
    """Return an entry; ends the command if it is in quarantine."""
    if item.place.state is State.QUARANTINED:
        told = f"entry {item.name!r} is in quarantine; `multispool show` says why it was set aside"
        raise Failure(told, Exit.REFUSED)
    return item
