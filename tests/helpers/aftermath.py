"""What may be done to the spool of a dead process before anybody has recovered it, and what must come of it.

Each follow-up is one operation, by a process that has not recovered anything, on entry `a`. It insists on the answer
that the files call for, and returns what the entry must be afterwards, once the spool has been recovered. The owner is
dead, so nothing may answer that the entry is busy: `EntryBusy` and `Unavailable.BUSY` are failures in each of them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from helpers.spools import Mail, contents, load_spool, state_of
from helpers.stores import (
    DATA,
    QUEUES,
    available,
    enqueue,
    is_available,
    nothing,
    read_data,
    release,
    remove,
    replace_data,
    save,
    sweep,
    try_claim,
)
from trio_multispool import DataNotFound, EntryNotFound, NameTaken, OwnershipLost, Unavailable
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Releasing, Removing, Saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.spools import State
    from trio_multispool.storage.handles import Claim

LATER, LATER_DATA = b'{"recipient":"bert@example.org","attempts":7}', b"Much later"


class Entry(NamedTuple):
    """An entry at rest."""

    place: str
    metadata: bytes
    data: bytes


def entry_of(path: Path, name: str) -> Entry | None:
    """Return where an entry is, its metadata and its data; insist that it is in one place."""
    state = state_of(path)
    places = state.places(name)
    if not places:
        return None
    assert len(places) == 1, f"{name} is in {places}"
    assert name in state.data, f"{name} is in {places[0]}, without its data"
    return Entry(places[0], (path / places[0] / name).read_bytes(), state.data[name])


class Aftermath(NamedTuple):
    """A spool whose user died, opened by somebody who has recovered nothing."""

    path: Path
    storage: DirectoryStorage
    state: State
    """What lies there."""
    whole: Entry | None
    """What recovery makes of `a`."""

    def claims(self) -> Iterator[Claim]:
        """Check `a` out of each queue; only what is available is to be had, and that is."""
        available = [queue for queue in QUEUES if "a" in self.state.available[queue]]
        for queue in set(QUEUES) - set(available):
            claimed = try_claim(self.storage, queue, "a")
            assert claimed is Unavailable.GONE, f"not in {queue}, and to be had there: {claimed}"
        for queue in available:
            claimed = try_claim(self.storage, queue, "a")
            assert not isinstance(claimed, Unavailable), f"available in {queue}, and {claimed}"
            assert claimed.metadata == self.state.available[queue]["a"]
            yield claimed

    def claimed_and(self, settle: Callable[[Claim], None], then: Entry | None) -> Entry | None:
        """Check it out and settle it, if it is available anywhere."""
        settled = False
        for claimed in self.claims():
            settle(claimed)
            settled = True
        return then if settled else self.whole

    def changed(self, place: str | None = None, metadata: bytes | None = None, data: bytes | None = None) -> Entry:
        """Return what `a` is, but for what is given."""
        whole = self.whole or Entry("", b"", b"")
        return Entry(place or whole.place, metadata or whole.metadata, data or whole.data)


def _check_out(at: Aftermath) -> Entry | None:
    return at.claimed_and(lambda claimed: claimed.abandon(), at.whole)


def _save(at: Aftermath) -> Entry | None:
    return at.claimed_and(lambda it: save(at.storage, it, "failed", LATER), at.changed("failed", LATER))


def _save_unchanged(at: Aftermath) -> Entry | None:
    return at.claimed_and(lambda it: save(at.storage, it, "failed", None), at.changed("failed"))


def _save_in_place(at: Aftermath) -> Entry | None:
    return at.claimed_and(lambda it: save(at.storage, it, it.queue, LATER), at.changed(metadata=LATER))


def _remove(at: Aftermath) -> Entry | None:
    return at.claimed_and(lambda it: remove(at.storage, it), None)


def _release(at: Aftermath) -> Entry | None:
    return at.claimed_and(lambda claim: release(at.storage, claim), at.whole)


def _quarantine(at: Aftermath) -> Entry | None:
    place = f".quarantine/{at.whole.place}" if at.whole is not None else ""
    return at.claimed_and(lambda it: at.storage.quarantine(it, "not to be read"), at.changed(place))


def _data_save(at: Aftermath) -> Entry | None:
    def replace(claimed: Claim) -> None:
        assert read_data(at.storage, "a") == at.changed().data
        replace_data(at.storage, "a", claimed, LATER_DATA)
        claimed.abandon()

    return at.claimed_and(replace, at.changed(data=LATER_DATA))


def _settle_together(at: Aftermath) -> Entry | None:
    enqueue(at.storage, "send", "other")
    enqueue(at.storage, "send", "another")
    for name in ("other", "another"):
        [other] = [it for queue in QUEUES[:1] if not isinstance(it := try_claim(at.storage, queue, name), Unavailable)]
        mine: list[Any] = [Saving(it, "failed", LATER, None, nothing) for it in at.claims()]
        last = Removing(other, None, nothing) if name == "other" else Releasing(other)
        assert at.storage.settle([*mine, last]) == [None] * (len(mine) + 1)
        if mine:
            at = at._replace(whole=at.changed("failed", LATER), state=state_of(at.path))
    at.storage.delete("send", "another", durability=None, before_commit=nothing)
    return at.whole


def _reserve(at: Aftermath) -> Entry | None:
    with _taken_if_there(at):
        at.storage.reserve("a").abandon()
    return at.whole


def _reserve_and_give_up(at: Aftermath) -> Entry | None:
    with _taken_if_there(at):
        at.storage.give_up(at.storage.reserve("a"))
        assert not [fault for fault in state_of(at.path).faults() if fault.endswith(" a")]
    return at.whole


def _enqueue(at: Aftermath) -> Entry | None:
    with _taken_if_there(at):
        enqueue(at.storage, "failed", "a", LATER, LATER_DATA)
        return Entry("failed", LATER, LATER_DATA)
    return at.whole


@contextlib.contextmanager
def _taken_if_there(at: Aftermath) -> Iterator[None]:
    try:
        yield
    except NameTaken:
        assert at.whole is not None, "there is no entry, and its name is taken"
    else:
        assert at.whole is None, "there is an entry, and its name was to be had"


def _direct_save(at: Aftermath) -> Entry | None:
    now = at.whole
    for queue in QUEUES:
        with _found_if_available(at, queue):
            at.storage.replace_metadata(queue, "a", LATER, durability=None, before_commit=nothing)
            now = at.changed(queue, LATER)
    return now


def _direct_remove(at: Aftermath) -> Entry | None:
    now = at.whole
    for queue in QUEUES:
        with _found_if_available(at, queue):
            at.storage.delete(queue, "a", durability=None, before_commit=nothing)
            now = None
    return now


@contextlib.contextmanager
def _found_if_available(at: Aftermath, queue: str) -> Iterator[None]:
    try:
        yield
    except EntryNotFound:
        assert "a" not in at.state.available[queue]
    else:
        assert "a" in at.state.available[queue]


def _restore(at: Aftermath) -> Entry | None:
    now = at.whole
    for queue in QUEUES:
        with _found_if_in_quarantine(at, queue):
            at.storage.restore(queue, "a", durability=None, before_commit=nothing)
            now = at.changed(queue)
    return now


def _discard(at: Aftermath) -> Entry | None:
    now = at.whole
    for queue in QUEUES:
        with _found_if_in_quarantine(at, queue):
            at.storage.discard(queue, "a", durability=None, before_commit=nothing)
            now = None
    return now


@contextlib.contextmanager
def _found_if_in_quarantine(at: Aftermath, queue: str) -> Iterator[None]:
    is_there = "a" in at.state.quarantined.get(queue, {}) and "a" not in at.state.available[queue]
    try:
        yield
    except EntryNotFound:
        assert not is_there
    else:
        assert is_there


def _direct_data_save(at: Aftermath) -> Entry | None:
    try:
        replace_data(at.storage, "a", None, LATER_DATA)
    except DataNotFound:
        assert "a" not in at.state.data
        return at.whole
    assert "a" in at.state.data
    return None if at.whole is None else at.changed(data=LATER_DATA)


def _unsafe(settle: Callable[[Aftermath, Claim], None], then: Callable[[Aftermath], Entry | None]) -> Any:
    def follow_up(at: Aftermath) -> Entry | None:
        now = at.whole
        for queue in QUEUES:
            for claimed in at.storage.claims_unsafe(queue):
                if claimed.name == "a":
                    elsewhere = len(at.state.places("a")) > 1
                    try:
                        settle(at, claimed)
                    except OwnershipLost:
                        assert elsewhere, "it was there, and no other copy of it"
                    else:
                        assert not elsewhere, "there is a later copy of it, which is the entry"
                        now = then(at)
        return now

    return follow_up


def _look(at: Aftermath) -> Entry | None:
    before = contents(at.path)
    onlooker = DirectoryStorage.look(at.path)
    for storage in (at.storage, onlooker):
        seen = {(item.place.queue, item.place.state.value, item.name) for item in storage.inventory()}
        places = (
            ("available", at.state.available),
            ("waiting", at.state.waiting),
            ("checked out", at.state.checked_out),
        )
        assert {each for each in seen if each[1] != "quarantined"} == {
            (queue, state, name) for state, found in places for queue, names in found.items() for name in names
        }
        for queue in QUEUES:
            assert storage.names(queue) == at.state.names(queue)
            assert is_available(storage, queue, "a") == ("a" in at.state.available[queue])
            with _found_if_available(at, queue):
                assert storage.read_metadata(available(queue), "a") == at.state.available[queue]["a"]
            with _found_if_available(at, queue):
                storage.stat(available(queue), "a")
        try:
            assert read_data(storage, "a") == at.state.data.get("a")
            assert storage.stat_data("a").size == len(at.state.data["a"])
        except DataNotFound:
            assert "a" not in at.state.data
    onlooker.close()
    assert contents(at.path) == before
    return at.whole


def _recover(at: Aftermath) -> Entry | None:
    recovered = {each.name: each.queue for each in at.storage.recover()}
    put_back = {name for names in at.state.checked_out.values() for name in names}
    assert {name for name, queue in recovered.items() if queue is not None} <= put_back
    return at.whole


def _sweep(at: Aftermath) -> Entry | None:
    collected = [(each.name, each.queue) for each in sweep(at.storage)]
    assert set(collected) <= {("a", None), ("a.two", None)}
    assert not (("a", None) in collected and at.whole), "what was collected is an entry"
    return at.whole


def _load(at: Aftermath) -> Entry | None:
    DirectoryStorage.open(at.path, QUEUES).close()
    assert not any(state_of(at.path).checked_out.values())
    return at.whole


def _read(at: Aftermath) -> Entry | None:
    async def read() -> Entry | None:
        handled = []
        async with await load_spool(at.path) as spool:
            for queue in Mail:
                async with spool.reader(queue) as reader:
                    while (job := (await reader.dequeue_available()).unwrap()) is not None:
                        if job.name == "a":
                            handled.append(queue.value)
                            assert (await job.data.load()).unwrap() == at.changed().data
                        (await job.release() if job.name != "a" else await job.remove()).unwrap()
                        if job.name != "a":
                            break
        assert handled == ([] if at.whole is None or at.whole.place not in QUEUES else [at.whole.place])
        return None if handled else at.whole

    return trio.run(read)


FOLLOW_UPS: dict[str, Callable[[Aftermath], Entry | None]] = {
    "check out": _check_out,
    "check out, save": _save,
    "check out, save unchanged": _save_unchanged,
    "check out, save in place": _save_in_place,
    "check out, remove": _remove,
    "check out, release": _release,
    "check out, quarantine": _quarantine,
    "check out, data save": _data_save,
    "settle together": _settle_together,
    "reserve": _reserve,
    "reserve, give up": _reserve_and_give_up,
    "enqueue": _enqueue,
    "restore": _restore,
    "discard": _discard,
    "direct save": _direct_save,
    "direct remove": _direct_remove,
    "direct data save": _direct_data_save,
    "unsafe save": _unsafe(
        lambda at, it: save(at.storage, it, "failed", LATER), lambda at: at.changed("failed", LATER)
    ),
    "unsafe release": _unsafe(lambda at, it: release(at.storage, it), lambda at: at.whole),
    "unsafe remove": _unsafe(lambda at, it: remove(at.storage, it), lambda at: None),
    "look": _look,
    "recover": _recover,
    "sweep": _sweep,
    "load": _load,
    "read": _read,
}
"""By name."""

__all__ = ["DATA", "FOLLOW_UPS", "Aftermath", "Entry", "entry_of"]
