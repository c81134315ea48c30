"""The blocking store in short words, for tests that go below the spool."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any

from trio_multispool import EntryNotFound
from trio_multispool.model.cancellation import CancelRequest
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.session.stores import open_store
from trio_multispool.storage.directory.recovery import sweep as collect_all
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import NewEntry, Recovered, Releasing, Removing, Saving
from trio_multispool.storage.singly import settle_one

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from helpers.spools import Location
    from trio_multispool import Durability, Unavailable
    from trio_multispool.storage.handles import Claim, Reservation
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import Content

QUEUES = ("send", "retry", "failed")
"""Those of `helpers.spools.Mail`."""

OLD, NEW = b'{"recipient":"anne@example.org","attempts":0}', b'{"recipient":"anne@example.org","attempts":1}'
DATA, NEW_DATA = b"Hello", b"Hello again"
DUE = 4_000_000_000.0
"""When entries that wait are due: in the year 2096."""


def nothing() -> None:
    """Do nothing before the commit."""


def writing(content: bytes) -> Callable[[BinaryIO], None]:
    """Return a function that writes data."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def make_store(path: str | os.PathLike[str], *, queues: tuple[str, ...] = QUEUES, **options: Any) -> DirectoryStorage:
    """Make a spool directory, or open the one that is there, recovering what the dead held."""
    return DirectoryStorage.open(path, queues, create=True, **options)


def store_at(place: Location, *, queues: tuple[str, ...] = QUEUES, create: bool = True, **options: Any) -> Storage:
    """Make a store wherever it is to be, or open the one that is there, recovering what the dead held."""
    return open_store(place, queues, create=create, **options).storage


def fill(storage: Storage, queue: str, names: Sequence[str]) -> None:
    """Enqueue many entries together."""
    entries = [NewEntry(storage.reserve(name), queue, OLD, writing(DATA), None, nothing) for name in names]
    assert not any(storage.enqueue_together(entries))


def enqueue(  # noqa: PLR0913  # the operation's words
    storage: Storage,
    queue: str,
    name: str,
    metadata: bytes = OLD,
    data: bytes = DATA,
    *,
    durability: Durability | None = None,
    due_at: float | None = None,
) -> None:
    """Reserve the name, and enqueue."""
    enqueue_reserved(
        storage, storage.reserve(name), queue, metadata, writing(data), durability=durability, due_at=due_at
    )


def enqueue_reserved(  # noqa: PLR0913  # as above
    storage: Storage,
    reservation: Reservation,
    queue: str,
    metadata: bytes,
    content: Content,
    *,
    durability: Durability | None = None,
    before_commit: Callable[[], None] = nothing,
    **options: Any,
) -> None:
    """Enqueue under a name that was reserved."""
    entry = NewEntry(reservation, queue, metadata, content, durability, before_commit, alone=True, **options)
    [failure] = storage.enqueue_together([entry])
    if failure is not None:
        raise failure


def available(queue: str) -> Place:
    """Return the place of what is available in a queue."""
    return Place(queue, State.AVAILABLE)


def waiting(queue: str) -> Place:
    """Return the place of what waits for a queue."""
    return Place(queue, State.WAITING)


def is_available(storage: Storage, queue: str, name: str) -> bool:
    """Tell whether an entry is available in that queue."""
    try:
        storage.stat(available(queue), name)
    except EntryNotFound:
        return False
    return True


def try_claim(storage: Storage, queue: str, name: str) -> Claim | Unavailable:
    """Check an entry out, if it is to be had."""
    return storage.claim(available(queue), name, before_commit=nothing)


def claim(storage: Storage, queue: str, name: str) -> Claim:
    """Check out an entry that is to be had."""
    claimed = try_claim(storage, queue, name)
    assert hasattr(claimed, "metadata"), f"{name} of {queue} is {claimed}"
    return claimed


def claim_waiting(storage: Storage, queue: str, name: str, due_by: float = math.inf) -> Claim:
    """Check out an entry that waits."""
    claimed = storage.claim(waiting(queue), name, due_by=due_by, before_commit=nothing)
    assert hasattr(claimed, "metadata"), f"{name}, waiting for {queue}, is {claimed}"
    return claimed


def save(  # noqa: PLR0913  # as above
    storage: Storage,
    claimed: Claim,
    queue: str,
    metadata: bytes | None = NEW,
    *,
    durability: Durability | None = None,
    before_commit: Callable[[], None] = nothing,
    due_at: float | None = None,
    withdraws: bool = False,
) -> None:
    """Settle by saving."""
    settle_one(storage, Saving(claimed, queue, metadata, durability, before_commit, due_at, withdraws=withdraws))


def remove(
    storage: Storage,
    claimed: Claim,
    *,
    durability: Durability | None = None,
    before_commit: Callable[[], None] = nothing,
    withdraws: bool = False,
) -> None:
    """Settle by removing."""
    settle_one(storage, Removing(claimed, durability, before_commit, withdraws=withdraws))


def release(storage: Storage, claimed: Claim) -> None:
    """Settle by releasing."""
    settle_one(storage, Releasing(claimed))


def sweep(storage: DirectoryStorage) -> list[Recovered]:
    """Collect all files that belong to no entry, as a recovery of everything does at its end."""
    found = collect_all(storage) if isinstance(storage, DirectoryStorage) else storage.recover_all()
    return [each for each in found if isinstance(each, Recovered) and each.queue is None]


def replace_data(storage: Storage, name: str, claimed: Claim | None, data: bytes = NEW_DATA, **options: Any) -> None:
    """Replace the data."""
    storage.replace_data(name, claimed, writing(data), durability=options.get("durability"), before_commit=nothing)


def _all_of(file: BinaryIO) -> bytes:
    return file.read()


def read_data(storage: Storage, name: str) -> bytes:
    """Read all of the data."""
    return storage.read_data(name, _all_of)


# Every operation that changes something: what must be there first, and the operation itself


def _entry(storage: Storage, name: str) -> None:
    enqueue(storage, "send", name)


def _waiting(storage: Storage, name: str) -> None:
    enqueue(storage, "send", name, due_at=DUE)


def _claim_of_waiting(storage: Storage, name: str) -> Claim:
    _waiting(storage, name)
    return claim_waiting(storage, "send", name)


def _claim(storage: Storage, name: str) -> Claim:
    enqueue(storage, "send", name)
    return claim(storage, "send", name)


def ask_to_cancel(storage: Storage, name: str, queue: str = "send") -> None:
    """Ask the owner of an entry to cancel the work on it."""
    storage.ask_to_cancel(queue, name, CancelRequest(0.0, "enough"))


def _claim_before_any_request(storage: Any, name: str) -> Claim:
    with contextlib.suppress(OSError):
        os.rmdir(storage.layout.full(".cancel"))  # the first request makes it again
    return _claim(storage, name)


def _asked(storage: Storage, name: str) -> Claim:
    claimed = _claim(storage, name)
    ask_to_cancel(storage, name)
    return claimed


def _dead_owner(storage: Storage, name: str) -> None:
    _claim(storage, name).abandon()


def _reservation(storage: Storage, name: str) -> Reservation:
    return storage.reserve(name)


def _dead_reservation(storage: Storage, name: str) -> None:
    storage.reserve(name).abandon()


def _set_aside(storage: Storage, name: str) -> None:
    storage.quarantine(_claim(storage, name), "not to be read")


class _Two:
    """Two claims, to be settled together."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.claims = [_claim(storage, name), _claim(storage, f"{name}.two")]

    def abandon(self) -> None:
        """Let both go."""
        for each in self.claims:
            each.abandon()


def _unsafe_claim(storage: Storage, name: str) -> Claim:
    for claimed in storage.claims_unsafe("send"):
        if claimed.name == name:
            return claimed
    raise EntryNotFound("send", name)


def _save_together(storage: Storage, _name: str, two: _Two) -> None:
    for failure in storage.settle([Saving(each, "retry", NEW, None, nothing) for each in two.claims]):
        if failure is not None:
            raise failure


class _TwoReserved:
    """Two reserved names, to be enqueued together."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.reservations = [storage.reserve(name), storage.reserve(f"{name}.two")]

    def abandon(self) -> None:
        """Let both go."""
        for each in self.reservations:
            each.abandon()


def _enqueue_together(storage: Storage, _name: str, two: _TwoReserved) -> None:
    wanted = [NewEntry(reserved, "send", OLD, writing(DATA), None, nothing) for reserved in two.reservations]
    for failure in storage.enqueue_together(wanted):
        if failure is not None:
            raise failure


TOGETHER = ("enqueue together", "save together")
"""Those of the operations that have a second entry, `NAME.two`."""

OPERATIONS: dict[str, tuple[Callable[[Storage, str], Any], Callable[[Storage, str, Any], object]]] = {
    "reserve": (lambda s, n: None, lambda s, n, _: s.reserve(n)),
    "give up": (_reservation, lambda s, _n, reservation: s.give_up(reservation)),
    "enqueue": (lambda s, n: None, lambda s, n, _: enqueue(s, "send", n)),
    "enqueue together": (_TwoReserved, _enqueue_together),
    "enqueue with notes": (
        lambda s, n: None,
        lambda s, n, _: enqueue_reserved(s, s.reserve(n), "send", OLD, writing(DATA), notes={"more": b"[1]"}),
    ),
    "enqueue to wait": (lambda s, n: None, lambda s, n, _: enqueue(s, "send", n, due_at=DUE)),
    "check out": (_entry, lambda s, n, _: claim(s, "send", n)),
    "check out what waited": (_waiting, lambda s, n, _: claim_waiting(s, "send", n)),
    "save": (_claim, lambda s, _, claimed: save(s, claimed, "retry")),
    "save unchanged": (_claim, lambda s, _, claimed: save(s, claimed, "retry", None)),
    "save in place": (_claim, lambda s, _, claimed: save(s, claimed, "send")),
    "save to wait": (_claim, lambda s, _, claimed: save(s, claimed, "retry", due_at=DUE)),
    "save together": (_Two, _save_together),
    "release what waited": (_claim_of_waiting, lambda s, _, claimed: release(s, claimed)),
    "release": (_claim, lambda s, _, claimed: release(s, claimed)),
    "remove": (_claim, lambda s, _, claimed: remove(s, claimed)),
    "ask to cancel": (_claim_before_any_request, lambda s, n, _: ask_to_cancel(s, n)),
    "save what is cancelled": (_asked, lambda s, _, claimed: save(s, claimed, "retry", withdraws=True)),
    "remove what is cancelled": (_asked, lambda s, _, claimed: remove(s, claimed, withdraws=True)),
    "quarantine": (_claim, lambda s, _, claimed: s.quarantine(claimed, "not to be read")),
    "restore": (_set_aside, lambda s, n, _: s.restore("send", n, durability=None, before_commit=nothing)),
    "discard": (_set_aside, lambda s, n, _: s.discard("send", n, durability=None, before_commit=nothing)),
    "data save": (_claim, lambda s, n, claimed: replace_data(s, n, claimed, NEW_DATA)),
    "direct save": (
        _entry,
        lambda s, n, _: s.replace_metadata("send", n, NEW, durability=None, before_commit=nothing),
    ),
    "direct remove": (_entry, lambda s, n, _: s.delete("send", n, durability=None, before_commit=nothing)),
    "direct data save": (_entry, lambda s, n, _: replace_data(s, n, None)),
    "unsafe save": (_claim, lambda s, n, _: save(s, _unsafe_claim(s, n), "retry")),
    "unsafe save from the dead": (_dead_owner, lambda s, n, _: save(s, _unsafe_claim(s, n), "retry")),
    "unsafe release": (_claim, lambda s, n, _: release(s, _unsafe_claim(s, n))),
    "unsafe remove": (_claim, lambda s, n, _: remove(s, _unsafe_claim(s, n))),
    "unsafe remove from the dead": (_dead_owner, lambda s, n, _: remove(s, _unsafe_claim(s, n))),
    "unsafe data save": (_claim, lambda s, n, _: replace_data(s, n, _unsafe_claim(s, n))),
    "recover": (_dead_owner, lambda s, _n, _: s.recover()),
    "sweep": (_dead_reservation, lambda s, _n, _: sweep(s)),
}
"""By name: a function of the store and the entry's name that prepares, and one that gets what was prepared."""
