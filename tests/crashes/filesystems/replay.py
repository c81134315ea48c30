"""Power lost with writes in the disk's cache: images that a disk may leave that loses, or reorders, what is unflushed.

A device's history is a row of writes and flushes. At a flush, all that was written before it is on the disk. Of what
was written since the last one, a disk that loses power may have kept anything: all of it, none, all but one, any part,
the later without the earlier. Each such image must hold, after recovery, what may be found at *every* moment between
the last of the writes that it keeps and the next flush, for power may have been lost at any of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import TYPE_CHECKING

import trio

from filesystems.devices import make, mounted
from filesystems.images import Image
from filesystems.ledger import Ledger
from filesystems.moods import MoodyCalls
from filesystems.recorder import Flush, Log, Write, recorded
from filesystems.report import Tally
from filesystems.workload import work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from filesystems.checking import Checker
    from filesystems.kinds import Kind
    from filesystems.ledger import Moment
    from filesystems.moods import Mood

SUBSETS = 4
"""How many parts are chosen at random of the writes between two flushes."""


@dataclasses.dataclass
class History:
    """What a device was asked for, and what could be found meanwhile."""

    start: Image
    records: list[tuple[int, Write | Flush]]
    moments: list[Moment]

    @property
    def flushes(self) -> int:
        """How many flushes there were."""
        return sum(isinstance(record, Flush) for _, record in self.records)

    def moments_between(self, first: int, last: int) -> list[Moment]:
        """Return all moments that were, in part, while the log's length was in this range."""
        ends = [*(moment.since for moment in self.moments[1:]), float("inf")]
        return [moment for moment, end in zip(self.moments, ends, strict=True) if moment.since <= last and end >= first]


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What was written between two flushes."""

    durable: Image
    """What was on the disk for sure."""
    writes: Sequence[tuple[int, Write]]
    """Each with the position behind it."""
    begin: int
    end: int
    """The positions behind the flush that began it, and the last one before the flush that ended it was answered."""


def record(kind: Kind, scratch: Path, mood: Mood) -> History:
    """Do the work on a new file system, on a device that records."""
    file, log, directory = scratch / "device.img", scratch / "device.log", scratch / "mounted"
    directory.mkdir(exist_ok=True)
    make(kind, file)
    start = Image.read(file)
    reader = Log(log)
    ledger = Ledger(reader.position)
    with recorded(file, log, scratch / "recorder") as served, mounted(kind, served, directory):
        trio.run(work, directory / "spool", ledger, MoodyCalls(directory, mood), lambda: None)
        end = reader.position()  # what unmounting writes is no part of it
    records = [(position, found) for position, found in reader.records() if position <= end]
    return History(start, records, ledger.moments)


def epochs(history: History) -> Iterator[Epoch]:
    """Cut a history at its flushes."""
    durable, begin, position = history.start, 0, 0
    writes: list[tuple[int, Write]] = []
    for position, found in history.records:
        if isinstance(found, Write):
            writes.append((position, found))
            continue
        yield Epoch(durable, writes, begin, position - 1)
        durable = durable.after((write.offset, write.content) for _, write in writes)
        writes, begin = [], position
    yield Epoch(durable, writes, begin, position)


def epochs_of_a_liar(history: History) -> Iterator[Epoch]:
    """Cut it for a disk that answered a flush, and forgot what it was for; where something was answered upon it."""
    for before, epoch in itertools.pairwise(epochs(history)):
        if any(epoch.begin <= moment.since <= epoch.end for moment in history.moments):
            yield Epoch(before.durable, [*before.writes, *epoch.writes], epoch.begin, epoch.end)


def parts(count: int, chance: random.Random) -> Iterator[frozenset[int]]:
    """Yield which of so many unflushed writes a disk may have kept."""
    everything = frozenset(range(count))
    for length in range(count + 1):
        yield frozenset(range(length))  # power was lost before the next of them
    for each in range(count):
        yield everything - {each}
        yield frozenset(range(each, count))  # the later ones overtook the earlier
    for _ in range(SUBSETS if count > 2 else 0):
        yield frozenset(each for each in everything if chance.random() < 0.5)


def run(history: History, checker: Checker, subject: str, seed: int, most: int, *, lying: bool = False) -> Tally:  # noqa: PLR0913  # each is a word of the run
    """Check the images of all epochs; of more than `most`, a choice at random."""
    chance = random.Random(seed)
    cut = (epochs_of_a_liar if lying else epochs)(history)
    chosen = [(epoch, part) for epoch in cut for part in dict.fromkeys(parts(len(epoch.writes), chance))]
    total = len(chosen)
    if total > most:
        chosen = chance.sample(chosen, most)
    tally, images = Tally(subject), set()
    for epoch, part in chosen:
        kept = [epoch.writes[each] for each in sorted(part)]
        image = epoch.durable.after((write.offset, write.content) for _, write in kept)
        first = max([epoch.begin, *(position for position, _ in kept)])
        tally.count(checker.problems(image, history.moments_between(first, epoch.end)))
        images.add(image)
    tally.distinct = len(images)
    writes = len(history.records) - history.flushes
    tally.notes = f"{writes} writes, {history.flushes} flushes; {total} images to choose from"
    return tally
