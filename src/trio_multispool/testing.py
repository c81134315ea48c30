"""For tests of programs that use spools: a spool in memory, its clock and its faults, and orderly names.

```python
async def test_a_greeting_is_sent_again_after_half_a_minute(autojump_clock):
    clock = Clock()
    spool = memory_spool(MAIL, clock=clock)
    await spool.enqueue(Mail.SEND, Envelope("anne@example.org"), b"Hello", not_before=30)
    async with spool.reader(Mail.SEND) as reader:
        assert (await work_off(reader, deliver)).unwrap() == 0
        clock.advance(30)
        assert (await work_off(reader, deliver)).unwrap() == 1
```
"""

from __future__ import annotations

import collections
import threading
import weakref
from typing import TYPE_CHECKING, Final, final

import anyio
from anyio.lowlevel import current_token

from trio_multispool.instrumentation import Operation
from trio_multispool.model.names import time_ordered_name
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.spoolable import Spoolable, queue_names
from trio_multispool.model.times import length_of
from trio_multispool.model.verdicts import Release
from trio_multispool.session.stores import Opened
from trio_multispool.spool.spool import session_of, spool_on
from trio_multispool.storage.memory.contents import Contents
from trio_multispool.storage.memory.store import MemoryStorage

if TYPE_CHECKING:
    import datetime
    from collections.abc import Awaitable, Callable
    from typing import Any

    from trio_multispool.entries.datafile import DataFile
    from trio_multispool.errors import ReleaseError, SaveError, SpoolError
    from trio_multispool.instrumentation import Instrumentation
    from trio_multispool.model.policies import Retry
    from trio_multispool.model.results import Result
    from trio_multispool.model.types import A, D, M, Q
    from trio_multispool.model.verdicts import Verdict
    from trio_multispool.reader.reader import QueueReader
    from trio_multispool.spool.spool import Spool


__all__ = ["Clock", "Faults", "LexicographicTimeOrder", "Operation", "memory_spool", "strict_order", "work_off"]

_TICK: Final = 1_000_000_000

_START: Final = 946_684_800.0
"""The beginning of the year 2000 in UTC, in seconds since 1970."""

_MOST_TRIES: Final = 100
"""An entry that has been worked on this many times, and comes back, will always do so."""


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


@final
class Clock:
    """The wall clock of a spool in memory. It goes with the event loop's clock, and can be put forward.

    So under Trio's autojump clock nothing waits in real time: neither what waits in a queue, nor the delays of a retry.
    Call it for the time, in seconds since 1970. It begins at the start of the year 2000 in UTC.

    ```python
    clock = Clock()
    spool = memory_spool(MAIL, clock=clock)
    clock.advance(30)
    ```
    """

    def __init__(self) -> None:
        self._now = _START
        self._loop: object = None
        self._loop_was_at = 0.0
        self._waking: weakref.WeakSet[Contents] = weakref.WeakSet()

    def __call__(self) -> float:
        """Return the time, in seconds since 1970."""
        try:
            loop, at = current_token().native_token, anyio.current_time()
        except anyio.NoEventLoopError:
            return self._now
        if loop is self._loop:  # each loop counts from a time of its own
            self._now += at - self._loop_was_at
        self._loop, self._loop_was_at = loop, at
        return self._now

    def advance(self, duration: float | datetime.timedelta) -> None:
        """Put the clock forward, by seconds or a `timedelta`. Readers that wait look again.

        Raises `TypeError` or `ValueError` if that is not a duration.
        """
        self._now = self() + length_of(duration)
        for each in self._waking:
            each.tell_all()

    def advance_to_next(self) -> bool:
        """Put the clock forward to when the next waiting entry of its spools becomes due; `False`: none will."""
        due = [at for each in self._waking if (at := each.next_due()) is not None]
        if due:
            self.advance(max(0.0, min(due) - self()))
        return bool(due)

    def wake(self, contents: Contents) -> None:
        """Tell the listeners of a store whenever the clock is put forward; for the library itself."""
        self._waking.add(contents)


@final
class Faults:
    """What is to go wrong in a spool in memory.

    ```python
    faults = Faults()
    spool = memory_spool(MAIL, faults=faults)
    faults.add(Operation.SAVE, OutOfSpace("write", "data", "no space left on device"))
    ```
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._faults: list[tuple[Operation, SpoolError, str | None]] = []

    def add(self, operation: Operation, error: SpoolError, *, times: int = 1, entry: str | None = None) -> None:
        """Have the next such operations fail with `error`, this many `times`; with `entry`, only those on that name.

        A check-out that fails with `UnreadableEntry` is passed over by readers, like an entry on a bad sector.
        `Operation.RECOVER` is `spool.recover()`, not what spools and readers recover by themselves.
        """
        with self._mutex:
            self._faults += [(operation, error, entry)] * times

    def clear(self) -> None:
        """Have nothing go wrong any more."""
        with self._mutex:
            self._faults.clear()

    def strike(self, operation: Operation, entry: str) -> None:
        """Raise the next error for an operation, if there is one; for the library itself."""
        with self._mutex:
            for fault in self._faults:
                at, error, name = fault
                if at is operation and name in (None, entry):
                    self._faults.remove(fault)
                    raise error


def memory_spool(
    spoolable: Spoolable[Q, M, D, A],
    *,
    clock: Clock | None = None,
    faults: Faults | None = None,
    beside: Spool[Q, M, D, A] | None = None,
    instrumentation: Instrumentation | None = None,
) -> Spool[Q, M, D, A]:
    """Make a spool that is kept in memory: for tests, where it behaves as one in a directory does, without files.

    - `clock`: says when waiting entries are due; by default one of its own.
    - `faults`: what is to go wrong.
    - `beside`: another spool in memory. The new one has the same entries, as if another process had loaded it: entries
      that the other's jobs still hold are busy, and those of a closed spool are put back. It has the same clock.
    - `instrumentation`: as for `Spool.load`.

    Names sort in the order in which they are made, unless the spoolable has a generator. Operations need no threads:
    they run in the event loop, and codecs too. So Trio's autojump clock works. Closing the spool with jobs in hand is
    what a process that is killed does to them.

    It has no `path`, and nothing to adopt: that answers `Err(NotASpool)`. Entries end with the last spool of them.
    Raises `ValueError` if `beside` is not in memory, or if there is a `clock` as well.

    ```python
    spool = memory_spool(MAIL)
    entry = (await spool.enqueue(Mail.SEND, Envelope("anne@example.org"), b"Hello")).unwrap()
    ```
    """
    if beside is None:
        now = Clock() if clock is None else clock
        contents = Contents(now)
        now.wake(contents)
    else:
        storage = session_of(beside).storage
        if not isinstance(storage, MemoryStorage) or clock is not None:
            message = f"beside needs a spool in memory, whose clock counts, not {beside!r} with clock={clock!r}"
            raise ValueError(message)
        contents = storage.contents
    strike = Faults().strike if faults is None else faults.strike
    opened = MemoryStorage(contents, queue_names(spoolable.queues), contents.location, fault=strike)
    return spool_on(
        Opened(opened, opened.recovered_at_first),
        spoolable,
        instrumentation=instrumentation,
        default_names=lambda: contents.generator,
    )


async def work_off(
    reader: QueueReader[Q, M, D],
    handler: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]],
    *,
    retry: Retry[Q] | None = None,
    clock: Clock | None = None,
) -> Result[int, SaveError | ReleaseError]:
    """Give all entries that can be had to a handler, one after the other, until none is left; return how many it had.

    Entries that come meanwhile are among them, also those that the handler saves into this queue. Those that wait are
    not, unless there is a `clock`: it is then put forward until nothing waits any more. So with `retry`, each entry
    comes to its end. Works with any reader; `retry` is as for `reader.iter`.

    `Err`: as `reader.iter_available` answers it. What the handler raises passes through, and its entry goes back.
    Raises `RuntimeError` for an entry that was given a hundred times and comes back each time.

    **Cancellation**: the entry in hand goes back to the queue.

    ```python
    async with spool.reader(Mail.SEND) as reader:
        assert (await work_off(reader, deliver, retry=Retry(attempts=3, dead_letter=Mail.FAILED))).unwrap() == 1
    ```
    """
    given: collections.Counter[str] = collections.Counter()

    async def counted(metadata: M, data: DataFile[D]) -> Verdict[Q, M]:
        given[data.name] += 1
        if given[data.name] > _MOST_TRIES:  # raised below: `retry` would take it for a failure of the handler
            return Release()
        return await handler(metadata, data)

    while True:
        before = given.total()
        answer = await reader.iter_available(counted, retry=retry)
        if isinstance(answer, Err):
            return answer
        for name, times in given.most_common(1):
            if times > _MOST_TRIES:
                message = f"{name} was given to the handler {_MOST_TRIES} times, and comes back each time"
                raise RuntimeError(message)
        if given.total() == before and not (clock is not None and clock.advance_to_next()):
            return Ok(before)
