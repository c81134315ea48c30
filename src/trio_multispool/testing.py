"""For tests of programs that use spools."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, final

from trio_multispool.model.names import time_ordered_name
from trio_multispool.model.spoolable import Spoolable

if TYPE_CHECKING:
    from typing import Any

    from trio_multispool.model.types import D, M, Q


__all__ = ["LexicographicTimeOrder", "strict_order"]

_TICK = 1_000_000_000


@final
class LexicographicTimeOrder:
    """A name generator whose names sort in the order they are made, and are the same in every run.

    Names look like those of the default generator. Its clock starts in 1970 and advances one second for each name. If
    several spools of a test enqueue into one queue, give them all the same generator.

    ```python
    MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes, names=LexicographicTimeOrder())
    ```
    """

    def __init__(self) -> None:
        """Begin in 1970."""
        self._mutex = threading.Lock()
        self._made = 0

    def next(self, argument: object, attempt: int) -> str:  # noqa: ARG002  # the protocol's parameters
        """Make a name later than the last."""
        with self._mutex:
            self._made += 1
            return time_ordered_name(self._made * _TICK, "00000000")


def strict_order(spoolable: Spoolable[Q, M, D, Any]) -> Spoolable[Q, M, D, None]:
    """Return the same spoolable, but with names that make readers see entries in exactly the order they were enqueued.

    ```python
    spool = (await Spool.create(tmp_path / "spool", strict_order(MAIL))).unwrap()
    ```
    """
    return Spoolable(spoolable.queues, spoolable.metadata, spoolable.data, LexicographicTimeOrder())
