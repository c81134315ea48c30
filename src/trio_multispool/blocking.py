"""For synchronous code: a spool whose operations wait, for any thread. It is a front of `trio_multispool.Spool`.

All calls of a process run in one event loop, so what several threads enqueue at the same time shares commits.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Generic, final, overload

import anyio

from trio_multispool.clock import wall_clock
from trio_multispool.entries.entry import Entry
from trio_multispool.model.policies import Durability
from trio_multispool.model.results import handed_on
from trio_multispool.model.types import A2, D2, M2, Q2, A, D, M, Q, StrPath, T
from trio_multispool.session.stores import is_directory
from trio_multispool.spool.spool import Spool as AsyncSpool
from trio_multispool.spool.spool import session_of
from trio_multispool.threads.loop_thread import LoopThread, loop_thread

if TYPE_CHECKING:
    import datetime
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from trio_multispool.entries.reserved_names import Use
    from trio_multispool.errors import (
        EnqueueError,
        EntryBusy,
        EntryNotFound,
        InvalidName,
        LoadError,
        NotAdopted,
        RemoveError,
        Trouble,
    )
    from trio_multispool.instrumentation import Instrumentation
    from trio_multispool.model.cancellation import Cancelled
    from trio_multispool.model.names import Reserve
    from trio_multispool.model.pauses import Pause
    from trio_multispool.model.results import Result
    from trio_multispool.model.spoolable import Spoolable
    from trio_multispool.model.times import NotBefore
    from trio_multispool.session.stores import SystemCalls
    from trio_multispool.spool.whereabouts import Finished, Found

__all__ = ["Spool"]


def _open(
    path: StrPath, spoolable: Spoolable[Q, M, D, A], shared: dict[str, Any], how: dict[str, Any], *, create: bool
) -> Result[Spool[Q, M, D, A], LoadError]:
    open_it = AsyncSpool.create if create else AsyncSpool.load
    answer = handed_on(loop_thread().run(functools.partial(open_it, path, spoolable, **shared, **how)))
    load = functools.partial(AsyncSpool.load, spoolable=spoolable, **shared)
    # A location has no password: a URL is kept as it was given. A path may be relative to what was the directory then.
    return answer.map(
        lambda opened: Spool(
            opened, functools.partial(load, opened.location if is_directory(opened.location) else path)
        )
    )


@final
class Spool(Generic[Q, M, D, A]):
    """A spool for synchronous code: what `trio_multispool.Spool` does, waited for.

    Made by `create` or `load`. Any number of threads may use it. Results, errors and exceptions are those of the
    operations of `trio_multispool.Spool`. In a thread that runs an event loop, calls raise `RuntimeError`.

    A forked child may use a spool that its parent opened: the first call there opens it again. If that fails, the call
    raises the error that `load` would return, with a note.

    **Interrupts**: what a signal's handler raises while a call waits (`KeyboardInterrupt`) withdraws the call, if it
    has not committed, and is raised when it is over. A note on it says which: that it had no effect, or what its effect
    was. A second interrupt does not wait for that.

    ```python
    spool = blocking.Spool.create("var/mail", MAIL).unwrap()
    entry = spool.enqueue(Mail.SEND, Envelope("anne@example.org"), b"Hello").unwrap()
    print(entry.name)
    ```

    Closing it is optional (`close`, `with spool`): what was `Ok` is on disk, and nothing keeps the process from ending.
    """

    def __init__(
        self,
        opened: AsyncSpool[Q, M, D, A],
        load: Callable[[], Awaitable[Result[AsyncSpool[Q, M, D, A], LoadError]]],
    ) -> None:
        """Take over an open spool; use `create` or `load`."""
        if not isinstance(opened, AsyncSpool):  # type checkers refuse it, and newcomers write it
            raise TypeError("open a spool by `blocking.Spool.create(path, spoolable)` or `blocking.Spool.load(…)`")
        self._load = load
        self._closed = False
        # In which loop it is open: a forked child has a loop of its own. One attribute, so that nobody sees half of it.
        self._opened: tuple[LoopThread, AsyncSpool[Q, M, D, A]] = (loop_thread(), opened)
        loop_thread().belongings.add(opened)

    def __repr__(self) -> str:
        return f"<blocking.Spool {self.location}, {self.spoolable!r}{', closed' if self._closed else ''}>"

    @property
    def location(self) -> str:
        """Where the spool is: the absolute path of its directory. Other processes load it from there."""
        return self._opened[1].location

    @property
    def path(self) -> Path:
        """The spool's directory, absolute. Raises `RuntimeError` if it is not kept in one; see `location`."""
        return self._opened[1].path

    @property
    def spoolable(self) -> Spoolable[Q, M, D, A]:
        """What the spool holds."""
        return self._opened[1].spoolable

    # Opening and closing

    @classmethod
    def create(  # noqa: PLR0913  # keyword arguments, each with a default
        cls,
        path: StrPath,
        spoolable: Spoolable[Q2, M2, D2, A2],
        *,
        adopted: bool = True,
        durability: Durability = Durability.POWER,
        directory_mode: int = 0o700,
        trust_file_system: bool = False,
        system_calls: SystemCalls | None = None,
        instrumentation: Instrumentation | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> Result[Spool[Q2, M2, D2, A2], LoadError]:
        """Load a spool, and make what is missing; see `trio_multispool.Spool.create`.

        The instrumentation is called in the thread of the loop. A limiter belongs to an event loop, so none can be
        given: 40 operations of the spool run at a time.

        ```python
        spool = blocking.Spool.create("var/mail", MAIL).unwrap()
        ```
        """
        shared = _shared(durability, trust_file_system, system_calls, instrumentation, now)
        how = {"adopted": adopted, "directory_mode": directory_mode}
        return _open(path, spoolable, shared, how, create=True)

    @classmethod
    def load(  # noqa: PLR0913  # keyword arguments, each with a default
        cls,
        path: StrPath,
        spoolable: Spoolable[Q2, M2, D2, A2],
        *,
        create_if_missing: bool = False,
        durability: Durability = Durability.POWER,
        directory_mode: int = 0o700,
        trust_file_system: bool = False,
        system_calls: SystemCalls | None = None,
        instrumentation: Instrumentation | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> Result[Spool[Q2, M2, D2, A2], LoadError]:
        """Open a spool that exists, and put back what dead processes had checked out; see `trio_multispool.Spool.load`.

        ```python
        spool = blocking.Spool.load("var/mail", MAIL).unwrap()
        ```
        """
        shared = _shared(durability, trust_file_system, system_calls, instrumentation, now)
        how = {"create_if_missing": create_if_missing, "directory_mode": directory_mode}
        return _open(path, spoolable, shared, how, create=False)

    def close(self) -> None:
        """Close the spool's files, once calls that are running in other threads have ended. Idempotent.

        It does not wait for those calls. Using the spool afterwards raises `anyio.ClosedResourceError`. In a forked
        child, that closes the child's spool, and not its parent's.
        """
        with loop_thread().mutex:
            self._closed = True
            where, spool = self._opened
            if where is loop_thread():
                spool.close()

    def __enter__(self) -> Spool[Q, M, D, A]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Entries

    def entries(
        self, queue: Q, *, after: str = "", at_most: int | None = None
    ) -> Result[list[Entry[Q, M, D, Spool[Q, M, D, A]]], Trouble]:
        """List the entries available in a queue, sorted by name; see `trio_multispool.Spool.entries`.

        ```python
        for entry in spool.entries(Mail.FAILED).unwrap():
            print(entry.name)
        ```
        """
        answer = handed_on(self._call(lambda spool: spool.entries(queue, after=after, at_most=at_most)))
        return answer.map(lambda found: [self._own(entry) for entry in found])

    def find(self, name: str) -> Result[Found[Q] | Finished | None, InvalidName | Trouble]:
        """Tell where an entry is, in whatever queue and state; see `trio_multispool.Spool.find`.

        ```python
        match spool.find(name).unwrap():
            case Found(queue=Mail.FAILED):
                print("it could not be delivered")
        ```
        """
        return handed_on(self._call(lambda spool: spool.find(name)))

    def cancel(
        self, name: str, *, reason: str = ""
    ) -> Result[Cancelled, InvalidName | EntryNotFound | EntryBusy | NotAdopted | RemoveError]:
        """Cancel an entry, wherever it is: remove it, or ask whoever works on it; see `trio_multispool.Spool.cancel`.

        ```python
        match spool.cancel(name, reason="the customer has withdrawn the order"):
            case Ok(Cancelled.REMOVED):
                print("it had not begun")
            case Ok(Cancelled.ASKED):
                print("whoever has it is told")
        ```
        """
        return handed_on(self._call(lambda spool: spool.cancel(name, reason=reason)))

    def pause(
        self, queue: Q, duration: float | datetime.timedelta | None = None, *, reason: str = ""
    ) -> Result[Pause, Trouble]:
        """Have all readers take nothing new from a queue, for a time or until `resume`.

        See `trio_multispool.Spool.pause`.

        ```python
        spool.pause(Mail.SEND, timedelta(minutes=10), reason="the relay is being replaced").unwrap()
        ```
        """
        return handed_on(self._call(lambda spool: spool.pause(queue, duration, reason=reason)))

    def resume(self, queue: Q) -> Result[None, Trouble]:
        """End the pause of a queue; see `trio_multispool.Spool.resume`.

        ```python
        spool.resume(Mail.SEND).unwrap()
        ```
        """
        return handed_on(self._call(lambda spool: spool.resume(queue)))

    def pauses(self) -> Result[dict[Q, Pause], Trouble]:
        """Return which queues are paused now, and how; see `trio_multispool.Spool.pauses`.

        ```python
        for queue, pause in spool.pauses().unwrap().items():
            print(queue.value, "is paused because", pause.reason)
        ```
        """
        return handed_on(self._call(lambda spool: spool.pauses()))

    @overload
    def enqueue(
        self: Spool[Q, M, None, A],
        queue: Q,
        metadata: M,
        data: None = None,
        *,
        name: Reserve[A] | Use | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, None, Spool[Q, M, None, A]], EnqueueError]: ...
    @overload
    def enqueue(
        self,
        queue: Q,
        metadata: M,
        data: D,
        *,
        name: Reserve[A] | Use | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, D, Spool[Q, M, D, A]], EnqueueError]: ...
    def enqueue(  # noqa: PLR0913  # keyword arguments, each with a default
        self,
        queue: Q,
        metadata: M,
        data: Any = None,
        *,
        name: Reserve[A] | Use | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, Any, Spool[Q, M, Any, A]], EnqueueError]:
        """Put a new entry into a queue: all of it or, if this fails, nothing; see `trio_multispool.Spool.enqueue`.

        ```python
        match spool.enqueue(Mail.SEND, envelope, message):
            case Ok(entry):
                return JsonResponse({"name": entry.name}, status=202)
            case Err(OutOfSpace()):
                return HttpResponse(status=503)
            case Err(error):
                raise error
        ```
        """
        how: dict[str, Any] = {"name": name, "not_before": not_before, "durability": durability}
        return handed_on(self._call(lambda spool: spool.enqueue(queue, metadata, data, **how))).map(self._own)

    @overload
    def enqueue_if_absent(
        self: Spool[Q, M, None, A],
        queue: Q,
        metadata: M,
        data: None = None,
        *,
        name: Use,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, None, Spool[Q, M, None, A]] | None, EnqueueError]: ...
    @overload
    def enqueue_if_absent(
        self,
        queue: Q,
        metadata: M,
        data: D,
        *,
        name: Use,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, D, Spool[Q, M, D, A]] | None, EnqueueError]: ...
    def enqueue_if_absent(  # noqa: PLR0913  # keyword arguments, each with a default
        self,
        queue: Q,
        metadata: M,
        data: Any = None,
        *,
        name: Use,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, Any, Spool[Q, M, Any, A]] | None, EnqueueError]:
        """Enqueue under a name of the caller's, unless that was done before: then it answers `Ok(None)`.

        See `trio_multispool.Spool.enqueue_if_absent`.

        ```python
        use = Use(f"order-{order.id}", remember=timedelta(days=7))
        if spool.enqueue_if_absent(Mail.SEND, envelope, message, name=use).unwrap() is None:
            print("sent before")
        ```
        """
        how: dict[str, Any] = {"name": name, "not_before": not_before, "durability": durability}
        answer = handed_on(self._call(lambda spool: spool.enqueue_if_absent(queue, metadata, data, **how)))
        return answer.map(lambda entry: None if entry is None else self._own(entry))

    @overload
    def enqueue_many(
        self: Spool[Q, M, None, A],
        queue: Q,
        items: Iterable[M],
        *,
        names: Iterable[Reserve[A] | Use] | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> list[Result[Entry[Q, M, None, Spool[Q, M, None, A]], EnqueueError]]: ...
    @overload
    def enqueue_many(
        self,
        queue: Q,
        items: Iterable[tuple[M, D]],
        *,
        names: Iterable[Reserve[A] | Use] | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> list[Result[Entry[Q, M, D, Spool[Q, M, D, A]], EnqueueError]]: ...
    def enqueue_many(
        self,
        queue: Q,
        items: Iterable[Any],
        *,
        names: Iterable[Reserve[A] | Use] | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> list[Result[Entry[Q, M, Any, Spool[Q, M, Any, A]], EnqueueError]]:
        """Put many new entries into a queue, with shared syncs; see `trio_multispool.Spool.enqueue_many`.

        ```python
        for answer in spool.enqueue_many(Mail.SEND, [(envelope, b"Hello") for envelope in envelopes]):
            print(answer.unwrap().name)
        ```
        """
        # Iterators run here: a query of a database, say, belongs to this thread, and would stop the loop.
        pairs = list(items)
        called = None if names is None else list(itertools.islice(names, len(pairs) + 1))
        how: dict[str, Any] = {"names": called, "not_before": not_before, "durability": durability}
        answers = self._call(lambda spool: spool.enqueue_many(queue, pairs, **how))
        return [handed_on(answer).map(self._own) for answer in answers]

    # How

    def _own(self, entry: Entry[Q, M, Any, AsyncSpool[Q, M, Any, A]]) -> Entry[Q, M, Any, Spool[Q, M, Any, A]]:
        return Entry(self, session_of(entry.spool), entry.queue, entry.name)

    def _call(self, operation: Callable[[AsyncSpool[Q, M, D, A]], Awaitable[T]]) -> T:
        here = loop_thread()
        spool = self._open_in(here)
        return here.run(lambda: operation(spool))

    def _open_in(self, here: LoopThread) -> AsyncSpool[Q, M, D, A]:
        """Return the spool as it is open in this process; a forked child opens it first."""
        where, spool = self._opened
        if where is not here:
            with here.mutex:
                where, spool = self._opened
                if self._closed:
                    raise anyio.ClosedResourceError(f"the spool {self.location} has been closed")
                if where is not here:
                    spool = here.run(self._load).expect(
                        f"the spool {self.location} could not be opened again in this forked process"
                    )
                    here.belongings.add(spool)
                    self._opened = (here, spool)
        return spool


def _shared(
    durability: Durability,
    trust_file_system: bool,  # noqa: FBT001  # as it is called
    system_calls: SystemCalls | None,
    instrumentation: Instrumentation | None,
    now: Callable[[], float],
) -> dict[str, Any]:
    """Return what a spool is opened with, wherever that is done again."""
    return {
        "durability": durability,
        "trust_file_system": trust_file_system,
        "system_calls": system_calls,
        "instrumentation": instrumentation,
        "now": now,
    }
