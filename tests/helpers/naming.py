"""Making names in several threads at once."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def made_by_threads(count: int, make: Callable[[], list[str]]) -> list[str]:
    """Call a function in so many threads, which begin together; return all that it made."""
    made: list[list[str]] = []
    gate = threading.Barrier(count)

    def run() -> None:
        gate.wait()
        made.append(make())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(itertools.chain(*made))
