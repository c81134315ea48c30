"""Call the caller's instrumentation. Nothing that it raises makes an operation look as if it had failed.

A worker thread may do more than its task asked for: put back the entries of dead owners, set aside what cannot be
decoded. It notes that, and the event loop tells it when the hop has ended.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from typing import TYPE_CHECKING, Any, TypeVar, final

import anyio
import msgspec

from trio_multispool.errors import DurabilityUnknown, SpoolError
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.instrumentation import (
    CheckedOut,
    Enqueued,
    Enqueueing,
    Failed,
    Instrumentation,
    Operation,
    Quarantined,
    Returned,
    Settled,
    Waited,
    Working,
)
from trio_multispool.model.results import Err, peek

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from contextlib import AbstractContextManager

    from trio_multispool.instrumentation import AttemptFailed, How
    from trio_multispool.model.types import T
    from trio_multispool.threads.transaction import Answer

E = TypeVar("E")


@final
class Hooks:
    """What a spool tells its instrumentation; it tells nothing if there is none.

    Call methods that begin with `note_` in any thread, all others in the event loop.
    """

    def __init__(self, instrumentation: Instrumentation | None, spool: str) -> None:
        """Begin with nothing noted."""
        self.listening: bool = instrumentation is not None
        """Whether there is an instrumentation. Ask only where preparing what to tell would cost work."""
        self._to = Instrumentation() if instrumentation is None else instrumentation
        self.carries: bool = self._to.carries
        """Whether it sends something along with entries, from producers to workers."""
        self._spool = spool
        self._complained: set[tuple[str, type]] = set()
        self._noted: collections.deque[Callable[[], None]] = collections.deque()

    def now(self) -> float:
        """Return the event loop's time, in seconds; 0 where nothing is told."""
        return anyio.current_time() if self.listening else 0.0

    def _call(self, hook: Callable[[E], T], about_what: E) -> T | None:
        try:
            return hook(about_what)
        except Exception as error:  # noqa: BLE001  # logged; what has happened must not look as if it had failed
            self._complain(getattr(hook, "__name__", type(hook).__name__), error)
            return None

    def _complain(self, hook: str, error: Exception) -> None:
        kind = (hook, type(error))
        if kind not in self._complained:
            self._complained.add(kind)
            message = "%(hook)s of the instrumentation raised, which is passed over"
            log(LOGGER.error, Event.HOOK_FAILED, self._spool, message, hook=hook, error=error, traceback_of=error)

    # What happened

    def checked_out(self, queue: str, entry: str, began: float, in_queue: float | None) -> float:
        """Tell of a check-out; return when it ended."""
        now = self.now()
        self._call(self._to.on_checkout, CheckedOut(self._spool, queue, entry, now - began, in_queue))
        return now

    def settled(  # noqa: PLR0913, PLR0917  # the fields
        self, queue: str, entry: str, how: How, destination: str | None, began: float, since: float | None
    ) -> None:
        """Tell of an entry that left this process's hands, in which it was `since` then."""
        now = self.now()
        in_hand = None if since is None else now - since
        self._call(self._to.on_settle, Settled(self._spool, queue, entry, how, destination, now - began, in_hand))

    def failed(
        self, operation: Operation, queue: str | None, entry: str | None, error: SpoolError, began: float
    ) -> None:
        """Tell of an `Err`."""
        self._call(self._to.on_error, Failed(self._spool, operation, queue, entry, error, self.now() - began))

    def attempt_failed(self, failed: AttemptFailed) -> None:
        """Tell of a handler that failed."""
        self._call(self._to.on_attempt_failed, failed)

    @contextlib.contextmanager
    def waiting(self, queue: str) -> Generator[None]:
        """Surround a wait, and tell how long it took, however it ends."""
        began = self.now()
        try:
            yield
        finally:
            self._call(self._to.on_wait, Waited(self._spool, queue, self.now() - began))

    # In worker threads

    def note_recovered(self, entry: str, queue: str | None) -> None:
        """Note what recovery did, to be told later."""
        self._note(self._to.on_recover, Returned(self._spool, queue, entry))

    def note_quarantined(self, queue: str, entry: str, reason: str) -> None:
        """Note an entry that was set aside, to be told later."""
        self._note(self._to.on_quarantine, Quarantined(self._spool, queue, entry, reason))

    def _note(self, hook: Callable[[E], None], about_what: E) -> None:
        if self.listening:
            self._noted.append(functools.partial(self._call, hook, about_what))

    def tell_noted(self) -> None:
        """Tell what threads have noted."""
        while self._noted:
            self._noted.popleft()()

    # Around something

    @contextlib.contextmanager
    def enqueueing(self, queue: str, count: int | None) -> Generator[Mapping[str, str] | None]:
        """Surround an enqueue; yield what is to travel with the entries."""
        around = self._call(self._to.enqueueing, Enqueueing(self._spool, queue, count))
        with self._surrounding("enqueueing", around) as carrier:
            yield self._carried(carrier) if self.carries else None

    def _carried(self, carrier: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Return what is to travel with entries, if it can: where it is written, it is too late to complain."""
        if carrier is None:
            return None
        try:
            return msgspec.json.decode(msgspec.json.encode(dict(carrier)), type=dict[str, str])
        except Exception as error:  # noqa: BLE001  # as above
            self._complain("enqueueing", error)
            return None

    def tell_enqueued(
        self, queue: str, made: Mapping[str, int | None], answers: list[Answer[str]], began: float
    ) -> None:
        """Tell of entries that were `made`, by name, with the size of their data, and of those that were not."""
        seconds = self.now() - began
        for entry, data_size in made.items():
            self._call(self._to.on_enqueue, Enqueued(self._spool, queue, entry, seconds, data_size))
        for answer in answers:
            if isinstance(answer, Err):
                error = peek(answer)
                name = error.name if isinstance(error, DurabilityUnknown) else None
                self.failed(Operation.ENQUEUE, queue, name, error, began)

    def begin_working(
        self, queue: str, entry: str, carrier: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        """Enter what surrounds a job's block, and return it for the caller to leave; `None`: nothing does."""
        if not self.listening:
            return None
        around = self._call(self._to.working, Working(self._spool, queue, entry, carrier))
        entered = self._surrounding("working", around)
        _ = entered.__enter__()
        return entered

    @contextlib.contextmanager
    def _surrounding(self, hook: str, around: AbstractContextManager[T] | None) -> Generator[T | None]:
        """Enter and leave a caller's context manager: it can neither fail nor suppress what passes through it."""
        if around is None:
            yield None
            return
        try:
            value = around.__enter__()
        except Exception as error:  # noqa: BLE001  # as above
            self._complain(hook, error)
            yield None
            return
        try:
            yield value
        except BaseException as raised:  # a cancellation too is shown to the caller's manager, and goes on
            self._leave(hook, around, raised)
            raise
        self._leave(hook, around, None)

    def _leave(self, hook: str, around: AbstractContextManager[Any], raised: BaseException | None) -> None:
        try:
            _ = around.__exit__(type(raised) if raised else None, raised, raised.__traceback__ if raised else None)
        except Exception as error:  # noqa: BLE001  # as above
            if error is not raised:
                self._complain(hook, error)
