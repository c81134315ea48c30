"""Call functions when the process gets a signal: one handler a signal, however many readers there are."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable  # a field's type
from typing import TYPE_CHECKING, Any

import msgspec

from trio_multispool.clock import this_process

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import FrameType


class _Watch(msgspec.Struct, eq=False):
    """The handler of one signal, while somebody watches for it."""

    before: Any
    """The handler that stood here. It is put back at the first signal, or when nobody watches any more."""
    process: tuple[str, int] = msgspec.field(default_factory=this_process)
    calls: list[Callable[[], None]] = msgspec.field(default_factory=list)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Call them all. A forked child, and a program that kept the handler for longer than it was wanted, go on."""
        _ = signal.signal(number, self.before)
        if not self.calls or self.process != this_process():
            signal.raise_signal(number)
            return
        for call in self.calls:
            call()


@contextlib.contextmanager
def watching(numbers: Sequence[int], call: Callable[[], None]) -> Generator[None]:
    """Have `call` called at the first of each of these signals, except those that are ignored. See `drain_on`."""
    watches: dict[int, _Watch] = {}
    try:
        for number in numbers:
            before: Any = signal.getsignal(number)
            if before is not signal.SIG_IGN and number not in watches:
                shared = isinstance(before, _Watch) and before.process == this_process()
                watch: _Watch = before if shared else _Watch(signal.SIG_DFL if before is None else before)
                watches[number] = watch
                watch.calls.append(call)
                _ = signal.signal(number, watch)
        yield
    finally:
        for number, left in watches.items():
            left.calls.remove(call)
            standing: object = signal.getsignal(number)
            if standing is left and not left.calls:
                _ = signal.signal(number, left.before)
