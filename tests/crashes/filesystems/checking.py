"""Whether what is found on an image may be there: mounted, its journal replayed, loaded, recovered, swept, and read.

It is read twice: from the files, by the layout that is promised, and through the library, which must hand out every
entry.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from filesystems.devices import mounted
from filesystems.ledger import Entry
from helpers.spools import state_of
from helpers.stores import QUEUES, claim, read_data, release, sweep
from trio_multispool import SpoolError
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from filesystems.images import Image
    from filesystems.kinds import Kind
    from filesystems.ledger import Moment


@dataclasses.dataclass
class Found:
    """What is in a spool after recovery, and what must not be."""

    entries: dict[str, Entry]
    faults: list[str]


@dataclasses.dataclass
class Checker:
    """Checks images of one file system. What was found on an image is remembered."""

    kind: Kind
    scratch: Path
    known: dict[tuple[Image, bool], Found] = dataclasses.field(default_factory=dict)

    def problems(self, image: Image, moments: Sequence[Moment]) -> list[str]:
        """Return what is wrong, if power was lost in each of these moments and left this on the disk."""
        problems: list[str] = []
        for moment in moments:
            key = (image, moment.created)
            found = self.known.get(key)
            if found is None:
                found = self.known[key] = self._look(image, created=moment.created)
            problems += [f"{problem}, after it was {moment.doing}" for problem in _compare(found, moment)]
        return problems

    def _look(self, image: Image, *, created: bool) -> Found:
        file, directory = self.scratch / "checked.img", self.scratch / "checked"
        image.write(file)
        directory.mkdir(exist_ok=True)
        try:
            with mounted(self.kind, file, directory):
                return recovered(directory / "spool", created=created)
        except (OSError, SpoolError, AssertionError) as error:
            return Found({}, [f"{type(error).__name__}: {error}"])


def recovered(path: Path, *, created: bool = True) -> Found:
    """Load a spool, recover and sweep it, and return what is in it. One that was not acknowledged may be made anew."""
    storage = DirectoryStorage.open(path, QUEUES, create=not created)
    try:
        storage.recover()
        sweep(storage)
        faults = [f"{done} was left to a second recovery" for done in (*storage.recover(), *sweep(storage))]
        faults += _not_handed_out(storage, path)  # first: power loss may take a reservation, and this makes it again
        state = state_of(path)
        faults += state.faults()
        faults += [f"{name} is still checked out" for held in state.checked_out.values() for name in held]
        faults += [f"{name} is in quarantine" for aside in state.quarantined.values() for name in aside]
        entries = {
            name: Entry(queue, metadata, state.data.get(name, b""))
            for queue, available in state.available.items()
            for name, metadata in available.items()
        }
        return Found(entries, faults)
    finally:
        storage.close()


def _not_handed_out(storage: DirectoryStorage, path: Path) -> list[str]:
    """Check every entry out and return it; tell of those that are not what lies in the files."""
    faults: list[str] = []
    state = state_of(path)
    for queue, available in state.available.items():
        for name, metadata in available.items():
            claimed = claim(storage, queue, name)
            if (claimed.metadata, read_data(storage, name)) != (metadata, state.data.get(name)):
                faults.append(f"{name} was handed out as another entry than lies there")
            release(storage, claimed)
    return faults


def _compare(found: Found, moment: Moment) -> list[str]:
    problems = list(found.faults)
    for name in sorted(moment.possible.keys() | found.entries.keys()):
        entry = found.entries.get(name)
        allowed = moment.possible.get(name, frozenset([None]))
        if entry not in allowed:
            seen = "gone" if entry is None else f"found as {entry}"
            wanted = " or ".join(sorted("gone" if each is None else str(each) for each in allowed))
            problems.append(f"{name} is {seen} and must be {wanted}")
    return problems
