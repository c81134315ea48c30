"""Which queues are paused, as the readers of one open spool know it.

Nothing tells them of a pause. They ask the store again when what they know is older than `LOOK_EVERY`: in the hop that
checks out the next entries, so that it costs no hop of its own, and, while a queue is paused, as often.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from trio_multispool.model.pauses import Pause
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.threads.running import Running

LOOK_EVERY: Final = 0.5
"""What is known of pauses is no older than this when an entry is checked out, in seconds."""


@final
class Pauses:
    """The pauses, as they were when somebody looked; used by any number of threads."""

    def __init__(self, storage: Storage[Any, Any], running: Running) -> None:
        """Begin with nothing known; time is that of the event loop."""
        self._storage = storage
        self._running = running
        self._found: dict[str, Pause] = {}
        self._looked_at = -math.inf

    def are_outdated(self) -> bool:
        """Tell whether it is time to look again."""
        return self._running.loop.time() - self._looked_at >= LOOK_EVERY

    def forget(self) -> None:
        """Have the next reader look: somebody here has changed one."""
        self._looked_at = -math.inf

    def look(self) -> None:
        """Ask the store, if it is time; in a worker thread."""
        if self.are_outdated():
            now = self._running.loop.time()
            self._found = self._storage.pauses()
            self._looked_at = now

    def of(self, queue: str) -> Pause | None:
        """Return the pause of a queue that was there at the last look, unless its time is over."""
        found = self._found.get(queue)
        return None if found is None or found.is_over(self._storage.now()) else found
