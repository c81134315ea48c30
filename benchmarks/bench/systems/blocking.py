"""What systems have in common that block: a loop, one entry at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.work import QUEUES, Clock, metadata_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.work import Phase, Took, Work


class Blocking:
    """A system that puts and takes one entry at a time; some can also move one to another queue."""

    def __init__(self, work: Work) -> None:
        """Make up the payload: data, and a whole of metadata and data for systems that know no metadata."""
        self.work = work
        self.data = b"x" * work.size
        self.payload = metadata_of(0) + self.data

    def put(self, number: int) -> None:
        """Enqueue an entry."""
        raise NotImplementedError

    def take(self) -> bool:
        """Check out the next entry and remove it, or tell that there is none."""
        raise NotImplementedError

    def move(self, source: str, target: str) -> bool:
        """Check out the next entry of a queue and save it to another, or tell that there is none."""
        raise NotImplementedError

    def take_from(self, queue: str) -> bool:
        """Check out the next entry of any queue and remove it."""
        raise NotImplementedError

    def before(self, phase: Phase) -> None:
        """Get ready for a phase, before the clock runs."""

    def measure(self, phase: Phase, count: int, ready: Callable[[], None]) -> Took:
        """Do a phase."""
        self.before(phase)
        ready()
        clock = Clock()
        done = 0
        if phase == "enqueue":
            first = self.work.worker * count
            for number in range(first, first + count):
                self.put(number)
            return clock.took(count)
        steps = {
            "remove": [self.take],
            "save": [lambda: self.move(QUEUES[0], QUEUES[1])],
            "pipeline": [
                lambda: self.move(QUEUES[0], QUEUES[1]),
                lambda: self.move(QUEUES[1], QUEUES[2]),
                lambda: self.take_from(QUEUES[2]),
            ],
        }[phase]
        while done < count and all(step() for step in steps):
            done += 1
        return clock.took(done)
