"""What is in one queue of a store in memory, as its readers ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trio_multispool.model.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from trio_multispool.storage.memory.contents import Contents


@final
class MemoryShelf:
    """One queue. Nothing in it is older than the moment in which it is asked for."""

    def __init__(self, contents: Contents, queue: str) -> None:
        self._contents = contents
        self._queue = queue

    def look(self) -> None:
        """Do nothing: it costs nothing to look again."""

    def now(self) -> float:
        """Return the time of day."""
        return self._contents.now()

    def names(self) -> list[str]:
        """List what is available."""
        return self._contents.names(self._queue)

    def due(self, tried: Collection[str]) -> list[tuple[float, str]]:  # noqa: ARG002  # it returns all
        """List what waits."""
        return self._contents.due(self._queue)

    def was_tried(self, name: str) -> None:
        """Do nothing: what moved is told to be elsewhere."""

    def is_any_held(self) -> bool:
        """Tell whether anything is checked out."""
        return next(self._contents.each(self._queue, State.CHECKED_OUT), None) is not None

    def arrived(self, since: int, before: str) -> tuple[int, set[str]]:  # noqa: ARG002  # it returns all
        """Return how often anything has arrived anywhere, and what came in since it was so often."""
        contents = self._contents
        with contents.mutex:
            if contents.arrivals <= since:
                return since, set()
            there = contents.each(self._queue, State.AVAILABLE)
            return contents.arrivals, {kept.name for kept in there if kept.arrival > since}
