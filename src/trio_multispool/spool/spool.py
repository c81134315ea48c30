"""`Spool`: a set of durable queues, opened by this process."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, final, overload

from anyio.lowlevel import cancel_shielded_checkpoint

from trio_multispool.clock import time_ordered_names, wall_clock
from trio_multispool.entries.checkout import Checkout, check_out, check_out_or_tell_why
from trio_multispool.entries.claimer import Claimed
from trio_multispool.entries.enqueue import Enqueuer, Item
from trio_multispool.entries.entry import Entry
from trio_multispool.entries.handlers import handle_for_value
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.entries.key_limits import KeyLimiter
from trio_multispool.entries.reserved_names import Naming, ReservedName, Use
from trio_multispool.errors import CorruptMetadata, InvalidName, NameTaken, SpoolError
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.instrumentation import Instrumentation, Operation
from trio_multispool.model.codecs import NoData
from trio_multispool.model.names import NO_ARGUMENT, NameGenerator, Reserve, invalid_name
from trio_multispool.model.policies import Durability, Retention
from trio_multispool.model.results import Err, Ok, Result, handed_out, peek
from trio_multispool.model.spoolable import Spoolable, queue_names
from trio_multispool.model.times import NotBefore, aware, due_at, whole
from trio_multispool.model.types import A2, D2, M2, Q2, A, D, M, Q, StrPath, T
from trio_multispool.model.verdicts import Unavailable, Verdict
from trio_multispool.reader.reader import POLL_INTERVAL, QueueReader
from trio_multispool.session.session import Session
from trio_multispool.session.stores import (
    Opened,
    SystemCalls,
    is_directory,
    open_store,
    open_store_unsafe,
    without_secrets,
)
from trio_multispool.spool import cancelling, pausing, whereabouts
from trio_multispool.spool.channel import ReceiveChannel, SendChannel, open_channel
from trio_multispool.spool.channel_ends import Shared
from trio_multispool.spool.retention import Expiry, RetentionTask
from trio_multispool.storage.upkeep import adopt
from trio_multispool.threads.loop import keeping_notes_of
from trio_multispool.threads.offload import Offload
from trio_multispool.threads.running import Running

if TYPE_CHECKING:
    import datetime
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import anyio

    from trio_multispool.entries.datafile import DataFile
    from trio_multispool.errors import (
        CheckoutError,
        EnqueueError,
        EntryBusy,
        EntryCancelled,
        EntryNotFound,
        LoadError,
        NotAdopted,
        NotASpool,
        ReleaseError,
        RemoveError,
        ReserveError,
        SaveError,
        Trouble,
        TryCheckoutError,
        UnsupportedFormat,
    )
    from trio_multispool.model.cancellation import Cancelled
    from trio_multispool.model.pauses import Pause
    from trio_multispool.spool.whereabouts import Finished, Found
    from trio_multispool.storage.requests import Recovered
    from trio_multispool.threads.transaction import BeforeCommit


@final
class Spool(Generic[Q, M, D, A]):
    """A set of durable queues that any number of processes share: a directory, or a schema on a PostgreSQL server.

    Made by `create`, `load` or `load_unsafe`. It belongs to the event loop that it was made in, and to its process: a
    forked child must open the spool again. In another loop, operations raise `RuntimeError`; what belongs to a spool
    cannot be pickled (`TypeError`). Send the path and the entry's name, and load the spool there.

    ```python
    spool = (await Spool.create("var/mail", MAIL)).unwrap()
    entry = (await spool.enqueue(Mail.SEND, Envelope("anne@example.org"), b"Hello")).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter(deliver, concurrency=8)).unwrap()
    ```

    Closing it is optional (`close`, `async with spool`): a spool that is garbage collected closes its files.
    """

    def __init__(self, session: Session[Q, M, D, A], names: NameGenerator[A]) -> None:
        """Take over an open spool; use `create` or `load`."""
        if not isinstance(session, Session):  # type checkers refuse it, and newcomers write it
            raise TypeError("open a spool by `await Spool.create(path, spoolable)` or `await Spool.load(…)`")
        self._session = session
        self._naming: Naming[A] = Naming(session, names)
        self._enqueuer: Enqueuer[Q, M, D, A] = Enqueuer(session, self._naming)

    def __repr__(self) -> str:
        return f"<Spool {self._session.path}, {self._session.spoolable!r}{', closed' if self._session.closed else ''}>"

    @property
    def location(self) -> str:
        """Where the spool is, for other processes to load it from.

        It is the absolute path of its directory, or its URL on a server, without the password.
        """
        return self._session.path

    @property
    def path(self) -> Path:
        """The spool's directory, absolute. Raises `RuntimeError` if it is not kept in one; see `location`."""
        if not is_directory(self.location):
            message = f"the spool at {self.location} is not kept in a directory, and has no path; use spool.location"
            raise RuntimeError(message)
        return Path(self.location)

    @property
    def spoolable(self) -> Spoolable[Q, M, D, A]:
        """What the spool holds."""
        return self._session.spoolable

    # Opening and closing

    @classmethod
    async def create(  # noqa: PLR0913  # keyword arguments, each with a default
        cls,
        path: StrPath,
        spoolable: Spoolable[Q2, M2, D2, A2],
        *,
        adopted: bool = True,
        durability: Durability = Durability.POWER,
        limiter: anyio.CapacityLimiter | None = None,
        directory_mode: int = 0o700,
        trust_file_system: bool = False,
        system_calls: SystemCalls | None = None,
        instrumentation: Instrumentation | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> Result[Spool[Q2, M2, D2, A2], LoadError]:
        """Load a spool, and make what is missing: the directory, its parents, and directories of new queues.

        `path` is a directory's, or the URL of a spool on a PostgreSQL server: `postgresql://user@host/database?spool=mail`,
        which needs the extra `postgresql`. (The how-to on PostgreSQL tells what else may be in it.) There, what is
        missing are the schema `mail`, its tables, and rows of new queues. Any other URL is refused with
        `Err(NotASpool)`.

        For everything else see `load`. What follows is about directories; with a URL, an argument that says something
        of them (`adopted`, `directory_mode`, `trust_file_system`, `system_calls`) raises `TypeError`.

        `directory_mode` is the permission of a new spool's directories; its files get the same without the right to
        execute. An existing empty directory gets it too. Use `0o770` for a spool that a group shares.

        `adopted=False` makes a spool that programs without locks may use beside this library: the original, for
        example. Nothing is recovered there, no entry can wait and no name is remembered (that is answered by
        `NotAdopted`), and each move dates the entry anew, as the original does. When the last such program has stopped
        for good, `adopt` it. A spool that exists stays what it is.

        `Err(DirectoryNotEmpty)`: the directory, or the schema, holds something else, and nothing was made.

        **Cancellation**: a spool that is being made is finished, or finished by the next `create`.
        **Durability**: the new directories and the format file are synced.

        ```python
        spool = (await Spool.create("var/mail", MAIL)).unwrap()
        ```
        """
        return await open_spool(
            path,
            spoolable,
            limiter,
            lambda: open_store(
                path,
                queue_names(spoolable.queues),
                create=True,
                adopted=adopted,
                mode=directory_mode,
                durability=durability,
                trust_file_system=trust_file_system,
                calls=system_calls,
                now=now,
            ),
            instrumentation,
        )

    @classmethod
    async def load(  # noqa: PLR0913  # keyword arguments, each with a default
        cls,
        path: StrPath,
        spoolable: Spoolable[Q2, M2, D2, A2],
        *,
        create_if_missing: bool = False,
        durability: Durability = Durability.POWER,
        limiter: anyio.CapacityLimiter | None = None,
        directory_mode: int = 0o700,
        trust_file_system: bool = False,
        system_calls: SystemCalls | None = None,
        instrumentation: Instrumentation | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> Result[Spool[Q2, M2, D2, A2], LoadError]:
        """Open a spool that exists, and put back what dead processes had checked out.

        - `create_if_missing`: make what is missing, as `create` does.
        - `durability`: the level of the spool's operations, for this process.
        - `limiter`: bounds the threads that the spool uses. Every disk operation passes it, except settling and
          releasing. By default, the spool has its own, of 40. One of Trio's own is a `TypeError`.
        - `trust_file_system`: accept a file system that is not known to be local; only if no other host mounts it.
        - `system_calls`: for tests, the object that makes the system calls.
        - `now`: for tests, the wall clock that says when waiting entries are due, in seconds since 1970.
        - `instrumentation`: is told of the operations, for metrics and traces; see `Instrumentation`.

        `Err(NotASpool)`: the directory is missing, is no spool, or has no directory for one of the queues. Likewise of
        a schema on a server; or the URL cannot be understood, a pooler answers in the place of the server, or the
        server does not keep what it commits. `Err(StoreUnreachable)`: the server cannot be reached. Raises
        `ModuleNotFoundError` for a URL where the extra `postgresql` is not installed.
        `Err(DirectoryNotEmpty)`: with `create_if_missing`, it holds something else.
        `Err(UnsupportedFormat)`: it was written by a version that this one does not know.
        `Err(WorldWritable)`, `Err(SharedFileSystem)`, `Err(SeveralFileSystems)`: it is not safe to use. With none of
        these errors was anything touched.

        A spool without `.spool.json` may be in use by programs that take no locks. Until somebody adopts it (`adopt`),
        nothing is recovered in it, and loading writes nothing.

        **Cancellation**: nothing is opened.
        **Durability**: nothing to sync; if power loss undoes what recovery moved, recovery moves it again.

        ```python
        match await Spool.load("var/mail", MAIL):
            case Ok(spool):
                ...
            case Err(NotASpool(path, reason)):
                ...
        ```
        """
        return await open_spool(
            path,
            spoolable,
            limiter,
            lambda: open_store(
                path,
                queue_names(spoolable.queues),
                create=create_if_missing,
                mode=directory_mode,
                durability=durability,
                trust_file_system=trust_file_system,
                calls=system_calls,
                now=now,
            ),
            instrumentation,
        )

    @classmethod
    async def load_unsafe(
        cls,
        path: StrPath,
        spoolable: Spoolable[Q2, M2, D2, A2],
        *,
        durability: Durability = Durability.POWER,
        limiter: anyio.CapacityLimiter | None = None,
        system_calls: SystemCalls | None = None,
    ) -> Result[Spool[Q2, M2, D2, A2], LoadError]:
        """Open a directory as a spool without any of the checks of `load`, and without recovering anything.

        For tools that look at damaged spools. Each operation on something that is missing fails by itself.

        `Err(NotASpool)`: there is no directory. `Err(UnsupportedFormat)`: it was written by an unknown version.

        **Cancellation**: nothing is opened.
        **Durability**: nothing to sync.

        ```python
        spool = (await Spool.load_unsafe("/mnt/rescued/mail", MAIL)).unwrap()
        ```
        """
        return await open_spool(
            path, spoolable, limiter, lambda: open_store_unsafe(path, durability=durability, calls=system_calls)
        )

    def close(self) -> None:
        """Close the spool's files, once operations that are running have ended. Idempotent.

        Using the spool, its entries or its readers afterwards raises `anyio.ClosedResourceError`. Jobs that are not
        settled by then are let go, and recovery puts them back. So first leave their blocks, and those of the readers.
        """
        self._session.close()

    async def __aenter__(self) -> Spool[Q, M, D, A]:
        return self

    async def __aexit__(self, _kind: object, exception: BaseException | None, _traceback: object) -> None:
        self.close()
        with keeping_notes_of(exception):
            await cancel_shielded_checkpoint()

    # Entries

    def entry(self, queue: Q, name: str) -> Result[Entry[Q, M, D, Spool[Q, M, D, A]], InvalidName]:
        """Refer to an entry by queue and name. Only the name is checked; the disk is not read.

        `Err(InvalidName)`: no entry can have that name. Raises `TypeError` if the spool does not have `queue`.

        ```python
        entry = spool.entry(Mail.FAILED, name).unwrap()
        ```
        """
        _ = self._session.check_queue(queue)
        fault = invalid_name(name)
        if fault is not None:
            return handed_out(Err(fault), "naming of an entry", self._session.running.what)
        return Ok(self._entry(queue, name))

    def _entry(self, queue: Q, name: str) -> Entry[Q, M, D, Spool[Q, M, D, A]]:
        return Entry(self, self._session, queue, name)

    async def entries(
        self, queue: Q, *, after: str = "", at_most: int | None = None
    ) -> Result[list[Entry[Q, M, D, Spool[Q, M, D, A]]], Trouble]:
        """List the entries available in a queue, sorted by name, which with generated names is by age.

        A long queue can be listed page by page, in little memory: no more than `at_most` entries, whose names sort
        `after` that of the last one.

        A hint: entries come and go while the list is made and after. Files without a valid name, and anything that is
        not a regular file, are not listed. Raises `TypeError` if the spool does not have `queue`, and `TypeError` or
        `ValueError` if `at_most` is not a positive whole number.

        **Cancellation**: reads only; nothing changes.

        ```python
        for entry in (await spool.entries(Mail.FAILED)).unwrap():
            print(entry.name)
        ```
        """
        name = self._session.check_queue(queue)
        most = None if at_most is None else whole(at_most, "at_most", least=1)
        storage = self._session.storage
        answer = await self._session.run("listing", lambda _before_commit: storage.names(name, after=after, most=most))
        return Ok([self._entry(queue, found) for found in answer.value]) if isinstance(answer, Ok) else answer

    async def waiting(
        self, queue: Q, *, at_most: int | None = None
    ) -> Result[list[tuple[datetime.datetime, Entry[Q, M, D, Spool[Q, M, D, A]]]], Trouble]:
        """List the entries that wait for a queue, each with its due time in UTC, the earliest first.

        A hint, as `entries` is. With `at_most`, no more than that: those due first. To take one of them before it
        is due, use `entry.checkout(early=True)`. Raises `TypeError` if the spool does not have `queue`, and `TypeError`
        or `ValueError` if `at_most` is not a positive whole number.

        **Cancellation**: reads only; nothing changes.

        ```python
        for due_at, entry in (await spool.waiting(Mail.SEND)).unwrap():
            print(entry.name, due_at)
        ```
        """
        name = self._session.check_queue(queue)
        most = None if at_most is None else whole(at_most, "at_most", least=1)
        storage = self._session.storage
        answer = await self._session.run(
            "listing of what waits", lambda _before_commit: storage.waiting(name, most=most)
        )
        if isinstance(answer, Err):
            return answer
        return Ok([(aware(due_at), self._entry(queue, found)) for due_at, found in answer.value])

    async def find(self, name: str) -> Result[Found[Q] | Finished | None, InvalidName | Trouble]:
        """Tell where an entry is, in whatever queue and state, also while somebody works on it.

        `Ok(Found(…))`: its queue and state, when it was written and is due, who has it, its progress and attempts.
        `Ok(Finished(…))`: it was removed, and its name is remembered (`Use(name, remember=…)`). `Ok(None)`: there is no
        such entry, and no memory of one. It locks nothing, and is a hint: the entry may move on at any time.

        `Err(InvalidName)`: no entry can have that name.

        **Cancellation**: reads only; nothing changes.

        ```python
        match (await spool.find(name)).unwrap():
            case Found(state=State.CHECKED_OUT, progress=Progress(done)):
                print(f"in hand, {done:.0%}")
            case Found(queue=Mail.FAILED, attempts=[*_, last]):
                print("failed:", last.failure or "its worker died")
            case Found():
                print("waiting")
            case Finished() | None:
                print("done")
        ```
        """
        return await whereabouts.find(self._session, name)

    async def wait(
        self, name: str, *, until: Q | Iterable[Q] = ()
    ) -> Result[Found[Q] | Finished | None, InvalidName | Trouble]:
        """Wait until an entry has left the spool; also until it is in the queue `until`, or in one of several.

        In whatever state it is there.

        Returns where it is then, as `find` does. An entry that is set aside in quarantine ends the wait too: it waits
        for a person (that is noticed within ten seconds). One that is not there at the beginning has left, and so has
        one that never was: only a remembered name (`Use(name, remember=…)`) tells the two apart. What is done to the
        entry in quick succession may not be seen in between: a queue that it only passes through, or that it was
        removed and its name enqueued anew.

        The kernel tells of each move, so a wait costs next to nothing, and a thousand of them share one descriptor.
        Where the kernel cannot tell, and in a spool that is not adopted, the entry is looked for twice a second.

        `Err(InvalidName)`: no entry can have that name. Raises `TypeError` if the spool does not have a queue.

        **Cancellation**: it only looks; nothing changes. To wait no longer than a while, use `move_on_after`.

        ```python
        with anyio.move_on_after(30):
            match (await spool.wait(name, until=[Mail.FAILED])).unwrap():
                case Found(queue=Mail.FAILED):
                    print("it could not be delivered")
                case Finished() | None:
                    print("delivered")
        ```
        """
        queues: Iterable[Any] = [until]  # a member may be a `str`, which is iterable
        if isinstance(until, Iterable) and not isinstance(until, str):
            queues = until
        return await whereabouts.wait(self._session, name, frozenset(map(self._session.check_queue, queues)))

    async def cancel(
        self, name: str, *, reason: str = ""
    ) -> Result[Cancelled, InvalidName | EntryNotFound | EntryBusy | NotAdopted | RemoveError]:
        """Cancel an entry, wherever it is: remove it, or have whoever works on it end that work.

        `Ok(Cancelled.REMOVED)`: it was available, or waiting, and is removed with its data. If its name is remembered
        (`Use(name, remember=…)`), it counts as done.

        `Ok(Cancelled.ASKED)`: it is in hand, in whatever process. Its owner is told within moments, and the handler is
        cancelled as by a scope around it: it may clean up, and shield what it must finish. Then the entry is removed,
        or goes where the reader's `iter(…, on_cancel=…)` says. A verdict that the handler returns all the same wins; so
        does settling a job by hand. If the owner dies or gives the entry back before that, or it is tried again later,
        the request stands, and the next owner is told; not in another queue. `wait` tells when it is over.

        `reason`, for people, goes to the log, and with an entry that `on_cancel` saves into its history, which
        `multispool show` shows; at most 1,000 characters of it.

        `Err(EntryNotFound)`: there is none, or it is in quarantine (see `trio_multispool.monitor`). `Err(EntryBusy)`:
        for a second it was locked, or moved on, each time that it was looked for. `Err(NotAdopted)`: it is in hand, and
        programs that use this spool need not know of such requests. `Err(InvalidName)`: no entry can have that name.
        `Err(DurabilityUnknown)`: it is removed, and power loss might bring it back. `Err(SyncsRefused)`,
        `Err(OwnershipLost)` (by an `…_unsafe` operation) and trouble of the operating system: it is where it was.
        Raises `TypeError` if `reason` is not a string.

        **Cancellation**: cancelled means that nothing happened. (asyncio's own may come after the commit, with a note.)
        **Durability**: a removal is synced, as by `job.remove`. A request is not: power loss ends the work anyway.

        ```python
        match await spool.cancel(name, reason="the customer has withdrawn the order"):
            case Ok(Cancelled.REMOVED):
                print("it had not begun")
            case Ok(Cancelled.ASKED):
                _ = (await spool.wait(name, until=[Mail.FAILED])).unwrap()
            case Err(EntryNotFound()):
                print("it is done")
        ```
        """
        return await cancelling.cancel(self._session, name, reason)

    async def pause(
        self, queue: Q, duration: float | datetime.timedelta | None = None, *, reason: str = ""
    ) -> Result[Pause, Trouble]:
        """Have all readers, in all processes, take nothing new from a queue, for a time or until `resume`.

        They know of it within a second. What is in hand goes on, and is settled as ever; entries that a reader has
        checked out ahead of need (`prefetch`) count as in hand. Entries may be enqueued, and wait, and come back from
        dead owners. A pause outlives this program, and every other. `entry.checkout()`, `with_entry` and what else
        names an entry do not ask for it. `multispool ls` and `top` show it.

        - `duration`: how long, in seconds or as a `timedelta`; `None`: until somebody resumes the queue.
        - `reason`: for people; at most 1,000 characters of it.

        A queue that is paused is paused anew: the last call counts. Returns what was written down.

        `Err`: trouble of the operating system, or of the server; then the queue is as it was. Raises `TypeError` if the
        spool does not have `queue`, for a `duration` that is none, and for a `reason` that is no string;
        `ValueError` for one that is not above 0.

        **Cancellation**: cancelled means that nothing happened. (asyncio's own may come after the commit, with a note.)
        **Durability**: synced, whatever the level of the spool is.

        ```python
        (await spool.pause(Mail.SEND, timedelta(minutes=10), reason="the relay is being replaced")).unwrap()
        ```
        """
        return await pausing.pause(self._session, self._session.check_queue(queue), duration, reason)

    async def resume(self, queue: Q) -> Result[None, Trouble]:
        """End the pause of a queue; readers go on within a second. It is no error if the queue is not paused.

        `Err`: trouble of the operating system, or of the server. Raises `TypeError` if the spool does not have `queue`.

        **Cancellation**: cancelled means that nothing happened. (asyncio's own may come after the commit, with a note.)
        **Durability**: synced, whatever the level of the spool is.

        ```python
        (await spool.resume(Mail.SEND)).unwrap()
        ```
        """
        return await pausing.resume(self._session, self._session.check_queue(queue))

    async def pauses(self) -> Result[dict[Q, Pause], Trouble]:
        """Return which queues are paused now, and how; without those that this program does not know.

        `Err`: trouble of the operating system, or of the server.

        **Cancellation**: reads only; nothing changes.

        ```python
        if (pause := (await spool.pauses()).unwrap().get(Mail.SEND)) is not None:
            print("paused because", pause.reason)
        ```
        """
        return await pausing.pauses(self._session)

    @overload
    async def enqueue(
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
    async def enqueue(
        self,
        queue: Q,
        metadata: M,
        data: D,
        *,
        name: Reserve[A] | Use | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, D, Spool[Q, M, D, A]], EnqueueError]: ...
    async def enqueue(  # noqa: PLR0913  # keyword arguments, each with a default
        self,
        queue: Q,
        metadata: M,
        data: Any = None,
        *,
        name: Reserve[A] | Use | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, Any, Spool[Q, M, Any, A]], EnqueueError]:
        """Put a new entry into a queue: all of it or, if this fails, nothing.

        `data` is left out where the `Spoolable` has none.

        `name` names the entry. By default, `Reserve(None)`, the name generator makes the name; `Reserve(argument)` is
        for a generator that wants an argument; `Use(name)` gives a name of the caller's, or one from `reserve_name`.

        `not_before` says until when the entry waits: an aware `datetime`, or seconds or a `timedelta` from now on.
        Until then it is in no listing, and nobody gets it. Then readers get it before all entries that have not waited;
        of several, the one that is due first comes first. The wall clock counts. A time in the past means no delay.

        `Err(NameTaken)`: there is an entry of that name, or there was one and its name is remembered (see `Use`), or
        every name that the generator made was taken. `Err(EntryBusy)`: somebody is enqueueing under that name at this
        moment. `Err(InvalidName)`: no entry can have that name. `Err(EncodingFailed)`: a codec raised.
        `Err(OutOfSpace)` and other trouble of the operating system: nothing was enqueued. `Err(SyncsRefused)`: see
        there. `Err(NotAdopted)`: the entry was to wait, or its name to be remembered, in a spool that is not adopted:
        its other programs need not know of that. `Err(TimeNotKept)`: the file system cannot keep a time so late as
        `not_before` or the end of `remember`. `Err(DurabilityUnknown)`: the entry is in the queue, and power loss
        might undo it.

        Raises `TypeError` if the spool does not have `queue`; `RuntimeError` for a reserved name that was used before;
        what the name generator raises; `TypeError` for a `not_before` that is neither a time nor a duration, and
        `ValueError` for a `datetime` without a time zone, a negative duration, and a time later than the year 2445.

        **Cancellation**: cancelled means that nothing was enqueued. (asyncio's own cancellation may come after the
        commit: then the `CancelledError` has a note that says so.)
        **Durability**: the entry's data and metadata are synced before it appears in the queue, and the queue before
        `Ok` is returned.

        ```python
        match await spool.enqueue(Mail.SEND, envelope, message):
            case Ok(entry):
                print(entry.name)
            case Err(OutOfSpace()):
                ...
            case Err(error):
                raise error
        ```
        """
        directory, item = self._session.check_queue(queue), Item(metadata, data, name)
        if name is not None:
            _ = item.check()
        due = None if not_before is None else due_at(not_before, self._session.now)
        answer = await self._enqueuer.one(directory, item, durability, due)
        return Ok(Entry(self, self._session, queue, answer.value)) if isinstance(answer, Ok) else answer

    @overload
    async def enqueue_if_absent(
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
    async def enqueue_if_absent(
        self,
        queue: Q,
        metadata: M,
        data: D,
        *,
        name: Use,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, D, Spool[Q, M, D, A]] | None, EnqueueError]: ...
    async def enqueue_if_absent(  # noqa: PLR0913  # keyword arguments, each with a default
        self,
        queue: Q,
        metadata: M,
        data: Any = None,
        *,
        name: Use,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[Entry[Q, M, Any, Spool[Q, M, Any, A]] | None, EnqueueError]:
        """Enqueue under a name of the caller's, unless that was done before; `Ok(None)`: it was.

        Like `enqueue`, but a name that is taken is an ordinary answer: there is such an entry, in whatever queue, or
        there was one and its name is remembered (`Use(name, remember=…)`). The caller may rely on `Ok(None)`: that
        entry is on disk.

        `Err(EntryBusy)`: somebody is enqueueing under that name at this moment, and may fail. The others are those of
        `enqueue`: `Err(InvalidName)`, `Err(EncodingFailed)`, `Err(SyncsRefused)`, `Err(NotAdopted)`,
        `Err(TimeNotKept)`, `Err(DurabilityUnknown)` and trouble of the operating system; never
        `Err(NameTaken)`. Raises `TypeError` if `name` is not a `Use`, and otherwise as `enqueue` does.

        **Cancellation**: cancelled means that nothing was enqueued. (asyncio's own: see `enqueue`.)
        **Durability**: as for `enqueue`.

        ```python
        use = Use(f"order-{order.id}", remember=timedelta(days=7))
        if (await spool.enqueue_if_absent(Mail.SEND, envelope, message, name=use)).unwrap() is None:
            print("sent before")
        ```
        """
        if not isinstance(name, Use):
            raise TypeError(f"a name is to be absent: say which, by Use(…), not {name!r}")
        answer = await self.enqueue(queue, metadata, data, name=name, not_before=not_before, durability=durability)
        if isinstance(answer, Err) and isinstance(peek(answer), NameTaken):
            answer.ignore()
            return Ok(None)
        return answer

    @overload
    async def enqueue_many(
        self: Spool[Q, M, None, A],
        queue: Q,
        items: Iterable[M],
        *,
        names: Iterable[Reserve[A] | Use] | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> list[Result[Entry[Q, M, None, Spool[Q, M, None, A]], EnqueueError]]: ...
    @overload
    async def enqueue_many(
        self,
        queue: Q,
        items: Iterable[tuple[M, D]],
        *,
        names: Iterable[Reserve[A] | Use] | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> list[Result[Entry[Q, M, D, Spool[Q, M, D, A]], EnqueueError]]: ...
    async def enqueue_many(
        self,
        queue: Q,
        items: Iterable[Any],
        *,
        names: Iterable[Reserve[A] | Use] | None = None,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> list[Result[Entry[Q, M, Any, Spool[Q, M, Any, A]], EnqueueError]]:
        """Put many new entries into a queue, with shared syncs: each of them all or nothing, as `enqueue` does.

        `items` are pairs of metadata and data; where the `Spoolable` has no data, metadata alone will do, unless it is
        itself a pair whose second part is `None`. `names` gives one name for each item; without it, the name generator
        makes them, in order. `not_before` says until when all of them wait. Entries become durable and visible a batch
        at a time. A batch holds as many as this process may have files open for, 256 at most. The whole call is one hop
        to a thread, so give it no more items than you would wait for.

        Returns a `Result` for each item, in order; one that fails does not stop the others. `Ok(entry)`, or as for
        `enqueue`: `Err(NameTaken)`, `Err(EntryBusy)`, `Err(InvalidName)`, `Err(EncodingFailed)`, `Err(SyncsRefused)`,
        `Err(NotAdopted)`, `Err(TimeNotKept)`, `Err(DurabilityUnknown)`, and trouble of the operating system.

        Raises `ValueError` if `names` and `items` differ in number, and otherwise as `enqueue` does. If a name
        generator raises, a note on its exception tells how many entries have been enqueued.

        **Cancellation**: cancelled means that nothing was enqueued. (asyncio's own cancellation may come after the
        first commit: then all are enqueued, and the `CancelledError` has a note that says so.)
        **Durability**: when it returns, every entry that is `Ok` is synced as by `enqueue`.

        ```python
        envelopes = [Envelope("anne@example.org"), Envelope("bert@example.org")]
        for answer in await spool.enqueue_many(Mail.SEND, [(envelope, b"Hello") for envelope in envelopes]):
            print(answer.unwrap().name)
        ```
        """
        directory = self._session.check_queue(queue)
        pairs: list[Any] = list(items)
        if isinstance(self.spoolable.data, NoData):
            pairs = [pair if _is_pair(pair) else (pair, None) for pair in pairs]
        called = [None] * len(pairs) if names is None else list(itertools.islice(names, len(pairs) + 1))
        if len(called) != len(pairs):
            given = "more" if len(called) > len(pairs) else len(called)
            raise ValueError(f"{len(pairs)} items want as many names, not {given}")
        wanted = [Item(metadata, data, name).check() for (metadata, data), name in zip(pairs, called, strict=True)]
        answers = await self._enqueuer.many(directory, wanted, durability, due_at(not_before, self._session.now))
        operation, of = f"enqueue of one of {len(wanted)} entries into {directory}", self._session.running.what
        return [
            Ok(self._entry(queue, answer.value)) if isinstance(answer, Ok) else handed_out(answer, operation, of)
            for answer in answers
        ]

    async def reserve_name(self, argument: A = NO_ARGUMENT) -> Result[ReservedName, ReserveError]:
        """Hold a new name, made by the name generator from `argument`, for an `enqueue` to come.

        Put `async with` around it: if the block ends and the name was not used, the name is given up.

        `Err(NameTaken)`: every name that the generator made was taken, or was just being used.
        `Err(InvalidName)`: it made a name that no entry can have. `Err(SyncsRefused)`: what lies under the name would
        have to be synced first. Raises what the generator raises.

        **Cancellation**: cancelled means that no name is held.
        **Durability**: a reservation is not synced; nothing is lost with it.

        ```python
        async with (await spool.reserve_name()).unwrap() as reserved:
            (await spool.enqueue(Mail.SEND, envelope, message, name=Use(reserved))).unwrap()
        ```
        """
        answer = await self._session.run(
            "reservation of a name",
            lambda _before_commit: self._naming.made(Reserve(argument)),
            undo=self._session.storage.give_up,
        )
        return Ok(ReservedName(self._session, answer.value)) if isinstance(answer, Ok) else answer

    # Working on entries

    @overload
    async def with_entry(
        self,
        entry: Entry[Q, M, D, Spool[Q, M, D, A]],
        handler: Callable[[M, DataFile[D]], Awaitable[tuple[Verdict[Q, M], T]]],
    ) -> Result[T, CheckoutError | SaveError | ReleaseError | EntryCancelled]: ...

    @overload
    async def with_entry(
        self, entry: Entry[Q, M, D, Spool[Q, M, D, A]], handler: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]]
    ) -> Result[Verdict[Q, M], CheckoutError | SaveError | ReleaseError | EntryCancelled]: ...

    async def with_entry(
        self, entry: Entry[Q, M, D, Spool[Q, M, D, A]], handler: Callable[[M, DataFile[D]], Awaitable[Any]]
    ) -> Result[Any, CheckoutError | SaveError | ReleaseError | EntryCancelled]:
        """Check an entry out, give it to `handler`, and do what its verdict says.

        `handler` answers a verdict, which is returned once it is stored; or `(verdict, value)`: then the value is.

        `Err(EntryNotFound)`: it is not available in its queue. `Err(EntryBusy)`: another owner has it.
        `Err(EntryCancelled)`: somebody asked by `spool.cancel` that the work on it ends; the handler was cancelled, and
        the entry removed. The other errors are those of `entry.checkout` and of `job.save`, `remove` and `release`;
        then the entry is back in its queue.

        If the handler raises, is cancelled, or answers no verdict (`TypeError`), the entry is returned; the handler's
        exception passes through as the same object. Raises `ValueError` for an entry of another spool.

        **Cancellation**: cancelled means that the entry is in its queue, unchanged. Once the handler has answered, its
        verdict is stored, and a scope's cancellation takes effect at the next checkpoint. (asyncio's own is raised when
        the verdict is stored, with a note that says so.)
        **Durability**: as `job.save` and `job.remove` say.

        ```python
        async def deliver(envelope, message):
            receipt = await send(envelope, (await message.load()).unwrap())
            return Remove(), receipt


        receipt = (await spool.with_entry(entry, deliver)).unwrap()
        ```
        """
        self._check_own(entry)
        answer = await check_out_or_tell_why(self._session, entry.queue, entry.name)
        return answer if isinstance(answer, Err) else await handle_for_value(answer.value, handler)

    @overload
    async def try_with_entry(
        self,
        entry: Entry[Q, M, D, Spool[Q, M, D, A]],
        handler: Callable[[M, DataFile[D]], Awaitable[tuple[Verdict[Q, M], T]]],
    ) -> Result[T | Unavailable, TryCheckoutError | SaveError | ReleaseError | EntryCancelled]: ...

    @overload
    async def try_with_entry(
        self, entry: Entry[Q, M, D, Spool[Q, M, D, A]], handler: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]]
    ) -> Result[Verdict[Q, M] | Unavailable, TryCheckoutError | SaveError | ReleaseError | EntryCancelled]: ...

    async def try_with_entry(
        self, entry: Entry[Q, M, D, Spool[Q, M, D, A]], handler: Callable[[M, DataFile[D]], Awaitable[Any]]
    ) -> Result[Any, TryCheckoutError | SaveError | ReleaseError | EntryCancelled]:
        """Like `with_entry`, but an entry that is gone or busy is an ordinary answer, `Ok(Unavailable)`.

        `Err`: `EntryCancelled`, the errors of `entry.try_checkout`, and of `job.save`, `remove` and `release`.

        **Cancellation**: as `with_entry` says.
        **Durability**: as `job.save` and `job.remove` say.

        ```python
        match await spool.try_with_entry(entry, deliver):
            case Ok(Unavailable()):
                pass  # somebody else does it
        ```
        """
        self._check_own(entry)
        answer = await check_out(self._session, entry.queue, entry.name)
        if isinstance(answer, Err) or isinstance(answer.value, Unavailable):
            return answer
        return await handle_for_value(answer.value, handler)

    def _check_own(self, entry: Entry[Q, M, D, Spool[Q, M, D, A]]) -> None:
        if session_of(entry.spool) is not self._session:
            raise ValueError(f"{entry!r} belongs to another spool than {self!r}")

    def reader(  # noqa: PLR0913  # keyword arguments, each with a default
        self,
        queue: Q | Mapping[Q, float],
        *,
        poll_interval: float | datetime.timedelta = POLL_INTERVAL,
        limit_by: Callable[[M], str | int | bytes | None] | None = None,
        limit: int | None = None,
        retention: Retention | None = None,
        before_expiry: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]] | None = None,
    ) -> QueueReader[Q, M, D]:
        """Make a reader of a queue, or of several; put `async with` around it.

        - `queue`: one queue, or several with their weights: `{Mail.URGENT: 3, Mail.SEND: 1}`. While all of them have
          entries, each gets its share of what the reader takes, here three of four and one of four; a queue that has
          nothing leaves its share to the others, and saves nothing up. `job.queue` and, in a handler, `data.queue` tell
          which one an entry was taken from. A reader of several takes longer for each entry than a reader of one.
        - `poll_interval`: the longest wait before it looks again, in seconds or as a `timedelta`. It waits longer, up
          to ten seconds, where listing the queue is slow. It waits at least ten seconds where the kernel tells of
          changes and nothing is checked out of the queue: then there is nothing to look for.
        - `limit_by`, `limit`: at most `limit` entries for which `limit_by(metadata)` returns the same key are in hand
          at once, in all readers of the queue that set this, in all processes together. Other entries of that key are
          passed over until one is settled; entries behind them are not held up. An entry whose key is `None` is not
          limited. All readers of a queue should set the same; taking an entry by its name is not limited. `limit_by` is
          called in a worker thread, and must be quick. Entries for which it raises are limited together, as if they had
          one key, and the log says so once; a key of another type is a `TypeError` of the iteration.
        - `retention`: what the queue is not to keep. It is applied when the reader is entered, and then every minute
          (or after twenty times as long as applying it takes), until the reader is stopped; see `expire`, also for
          `before_expiry`. An exception of that hook cancels the reader's block, which raises it. Trouble of the
          operating system is logged, and the retention is tried again.

        With several queues, `limit_by` and `retention` hold for each of them by itself.

        Raises `TypeError` if the spool does not have `queue`, for a weight that is no number, or if only one of
        `limit_by` and `limit` is given; `ValueError` for an interval or a weight that is not positive, without a queue,
        and for a limit that is not from 1 to 1024.

        ```python
        async with spool.reader(Mail.SEND, limit_by=lambda envelope: envelope.host, limit=4) as reader:
            (await reader.iter(deliver, concurrency=32)).unwrap()
        ```
        """
        weights: dict[Q, float] = dict(queue) if isinstance(queue, Mapping) else {queue: 1.0}
        names = {each: self._session.check_queue(each) for each in weights}
        _check_weights(weights)
        key_limiters: dict[Q, KeyLimiter[M]] = {}
        if limit_by is not None and limit is not None:
            key_limiters = {each: KeyLimiter(self._session, name, limit_by, limit) for each, name in names.items()}
        elif limit_by is not None or limit is not None:
            raise TypeError("limit_by= says of which entries, and limit= how many: one needs the other")
        retention_tasks: list[RetentionTask] = []
        if retention is not None:
            for each, name in names.items():
                expiry = functools.partial(self.expire, each, retention, before_expiry=before_expiry)
                retention_tasks.append(RetentionTask(self._session, name, expiry))
        return QueueReader(
            self._session,
            weights,
            poll_interval=poll_interval,
            key_limiters=key_limiters,
            retention_tasks=retention_tasks,
        )

    async def expire(
        self,
        queue: Q,
        retention: Retention,
        *,
        before_expiry: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]] | None = None,
    ) -> Result[list[str], SaveError | ReleaseError]:
        """Remove what a queue is not to keep, once; return the names of the entries that have gone, in no order.

        For queues that have no reader, such as those of dead letters. (`multispool expire` does the same.)

        `before_expiry(metadata, data)` is an async function that is called with each entry before it goes, and answers
        as a handler does: `Remove()` removes it, `Release()` keeps it, `Save(queue)` moves it to another queue. If it
        raises, the entry is kept, and the exception passes through. Without it, entries are removed.

        `Err`: trouble of the operating system, or the hook's answer could not be stored (`Err(EncodingFailed)`,
        `Err(NameTaken)`, `Err(NotAdopted)`, `Err(TimeNotKept)`, `Err(OwnershipLost)`, `Err(SyncsRefused)`,
        `Err(DurabilityUnknown)`).
        Entries that went before the error stay gone. Raises `TypeError` if the spool does not have `queue`, and what
        the hook raises: bare if there was one entry to go, and in an `ExceptionGroup` if there were more.

        **Cancellation**: entries that are being handled go back, unless the hook has answered, and those that have gone
        stay gone.
        **Durability**: as for `job.remove` and `job.save`.

        ```python
        gone = (await spool.expire(Mail.FAILED, Retention(max_age=timedelta(days=30)))).unwrap()
        ```
        """
        _ = self._session.check_queue(queue)
        answer = await Expiry(self._session, queue, retention, before_expiry).run()
        return handed_out(answer, f"expiry of queue {queue.value}", self._session.running.what)

    def channel(
        self, queue: Q, *, max_entries: int | None = None
    ) -> AbstractAsyncContextManager[tuple[SendChannel[M, D], ReceiveChannel[M, D]]]:
        """Open a durable channel over a queue: a send end and a receive end, for the length of an `async with`.

        An entry that was sent survives the process, and any process may receive it. Leaving the block closes both ends
        and their clones, and returns to the queue all that was received and not acknowledged. If you need only one end,
        simply do not use the other.

        `max_entries`: `send` waits while this many entries or more are available in the queue; the limit is
        approximate, see `send`. Raises `TypeError` if the spool does not have `queue`, and `ValueError` for
        `max_entries` below 1.

        ```python
        async with spool.channel(Mail.SEND) as (send, receive):
            await send.send((envelope, message))
            async for received in receive:
                async with received:
                    await deliver(received.metadata, received.data)
        ```
        """
        _ = self._session.check_queue(queue)
        enqueue = functools.partial(self.enqueue, queue)
        return open_channel(Shared(self._session, queue, self.reader(queue), enqueue, max_entries))

    async def checkouts_unsafe(self, queue: Q) -> Result[list[CheckedOutEntry[Q, M, D]], Trouble]:
        """Return everything that is checked out of a queue, by any owner, as jobs that can be settled.

        **Unsafe**: settling a job takes the entry away from its owner. If the owner is alive, its own settling then
        answers `Err(OwnershipLost)`, and the entry may be worked on twice. Use this for spools that are not adopted,
        and to repair by hand what recovery does not. Entries that cannot be decoded are not listed; the log has a line
        for each. Raises `TypeError` if the spool does not have `queue`.

        Leaving such a job's block returns an unsettled one to its queue, like any job's.

        **Cancellation**: reads only; nothing changes.

        ```python
        for job in (await spool.checkouts_unsafe(Mail.SEND)).unwrap():
            (await job.release()).unwrap()
        ```
        """
        name, session = self._session.check_queue(queue), self._session

        def work(_before_commit: BeforeCommit) -> list[Claimed[M]]:
            found: list[Claimed[M]] = []
            for claim in session.storage.claims_unsafe(name):
                try:
                    found.append(Claimed(claim, session.encoding.decode(name, claim.name, claim.metadata)))
                except CorruptMetadata as error:
                    what, entry = "not listed: %(error)s", claim.name
                    log(LOGGER.warning, Event.NOT_LISTED, session.path, what, queue=name, entry=entry, error=error)
            return found

        answer = await session.run("listing of check-outs", work)
        if isinstance(answer, Err):
            return answer
        checkouts = [Checkout(session, queue, claimed) for claimed in answer.value]
        for each in checkouts:
            each.is_unsafe = True
        return Ok([CheckedOutEntry(each) for each in checkouts])

    # Upkeep

    async def recover(self, *, dry_run: bool = False) -> Result[list[Recovered], Trouble]:
        """Put back what dead processes had checked out, in all queues on disk, and collect files that no entry owns.

        Loading and readers put entries back by themselves. This also looks for reservations and data that killed
        enqueues left, and for what power loss left over. It is safe beside running processes, and safe to be killed
        itself: the next recovery goes on. Returns what was done, as `Recovered(name, queue)`; the queue is `None` for
        collected files. What cannot be recovered at present, because its files cannot be read or synced, is passed
        over, with a line in the log. In a spool that is not adopted, nothing is done.

        `dry_run`: change nothing, and return what would be done.

        **Cancellation**: cancelled before it starts, nothing is done; it can be repeated at any time.
        **Durability**: nothing to sync; if power loss undoes something, the next recovery does it again.

        ```python
        for recovered in (await spool.recover()).unwrap():
            print(recovered.name, "is back in", recovered.queue)
        ```
        """
        storage = self._session.storage

        def work(_before_commit: BeforeCommit) -> list[Recovered]:
            found = [each for each in storage.recover_all(dry_run=dry_run) if not isinstance(each, SpoolError | None)]
            if not dry_run:
                self._session.note_recovered(found)
            return found

        hooks = self._session.hooks
        began = hooks.now()
        answer = await self._session.run("recovery", work)
        if isinstance(answer, Err):
            hooks.failed(Operation.RECOVER, None, None, peek(answer), began)
        return answer

    async def adopt(self) -> Result[None, NotASpool | UnsupportedFormat | Trouble]:
        """Declare that from now on every program that uses this spool takes locks, as this library does.

        Writes `.spool.json`. Do it when the last program that takes no locks has stopped: from then on, entries that
        nobody has locked count as abandoned and are put back. Does nothing in a spool that is adopted already.

        `Err(UnsupportedFormat)`: there is a `.spool.json` that this version does not know. `Err(NotASpool)`: the spool
        is in memory.

        **Cancellation**: cancelled before it starts, nothing is done.
        **Durability**: `.spool.json` is synced.

        ```python
        (await spool.adopt()).unwrap()
        ```
        """
        storage = self._session.storage
        return await self._session.run("adoption", lambda _before_commit: adopt(storage))


async def open_spool(
    path: StrPath,
    spoolable: Spoolable[Q2, M2, D2, A2],
    limiter: anyio.CapacityLimiter | None,
    opening: Callable[[], Opened],
    instrumentation: Instrumentation | None = None,
) -> Result[Spool[Q2, M2, D2, A2], LoadError]:
    """Open a spool on the store that `opening` opens, in a worker thread. For the library itself."""
    answer = await Offload(limiter, Running(f"the spool {without_secrets(path)}")).run(
        "opening", lambda _before_commit: opening(), undo=lambda opened: opened.storage.close()
    )
    return Ok(spool_on(answer.value, spoolable, limiter, instrumentation)) if isinstance(answer, Ok) else answer


def spool_on(
    opened: Opened,
    spoolable: Spoolable[Q, M, D, A],
    limiter: anyio.CapacityLimiter | None = None,
    instrumentation: Instrumentation | None = None,
    default_names: Callable[[], NameGenerator[Any]] = time_ordered_names,
) -> Spool[Q, M, D, A]:
    """Make a spool on a store that is open. For the library itself."""
    names: NameGenerator[Any] = default_names() if spoolable.names is None else spoolable.names
    session = Session(opened.storage, spoolable, limiter, instrumentation)
    session.note_recovered(opened.recovered)
    session.hooks.tell_noted()
    return Spool(session, names)


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and item[1:] == (None,)


def session_of(spool: Spool[Q, M, D, A]) -> Session[Q, M, D, A]:
    """Return what the handles of a spool share, for the library itself."""
    return spool._session  # noqa: SLF001  # the one way behind the face


def _check_weights(weights: Mapping[Any, float]) -> None:
    """Raise `TypeError` or `ValueError` for weights of queues that cannot be meant."""
    if not weights:
        raise ValueError("a reader needs a queue")
    for queue, weight in weights.items():
        if not isinstance(weight, (int, float)) or isinstance(weight, bool):
            raise TypeError(f"the weight of {queue} is a number, not {weight!r}")
        if not 0 < weight < math.inf:
            raise ValueError(f"the weight of {queue} is above 0, not {weight!r}")
