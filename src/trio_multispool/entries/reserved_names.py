"""Names before they have an entry: reserve one, let the generator make one, hold its lock until it is used."""

from __future__ import annotations

import datetime
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, final

import msgspec
from anyio.lowlevel import cancel_shielded_checkpoint

from trio_multispool.errors import EntryBusy, NameTaken, SpoolError
from trio_multispool.model.lifecycle import State
from trio_multispool.model.names import MAX_ATTEMPTS, invalid_name, is_plain, makes_none_twice
from trio_multispool.model.results import Err
from trio_multispool.model.times import seconds
from trio_multispool.model.types import A
from trio_multispool.threads.loop import keeping_notes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.model.names import NameGenerator, Reserve
    from trio_multispool.session.session import Session
    from trio_multispool.storage.handles import Reservation
    from trio_multispool.storage.protocol import Storage


Held: TypeAlias = "tuple[Reservation, Callable[[], None] | None]"
"""A name in use, and what to call when that is over; `None`: it was not reserved before, and is given up on failure."""


@final
class ReservedName:
    """A name that no entry has and nobody else can take, until it is used by `enqueue` or its block is left.

    Not made by users: `spool.reserve_name()` gives it.

    ```python
    async with (await spool.reserve_name()).unwrap() as reserved:
        envelope = Envelope(recipient, message_id=reserved.name)
        (await spool.enqueue(Mail.SEND, envelope, message, name=Use(reserved))).unwrap()
    ```

    One that is garbage collected unused is let go with a `ResourceWarning`; if the process dies, its lock is dropped.
    """

    def __init__(self, session: Session[Any, Any, Any, Any], reservation: Reservation) -> None:
        """Take over a reservation."""
        self._session = session
        self._reservation = reservation
        session.held[reservation] = None
        self._mutex = threading.Lock()
        self._given_up = False
        self._finalizer = weakref.finalize(self, _let_go, reservation, session.path, session.held)
        self._finalizer.atexit = False

    def __repr__(self) -> str:
        """Show the name, and whether it is still held."""
        return f"<ReservedName {self.name!r}, {'held' if self._usable else 'used or given up'}>"

    @property
    def name(self) -> str:
        """The name."""
        return self._reservation.name

    @property
    def _usable(self) -> bool:
        return self._reservation.state is State.NOTHING and not self._given_up

    def _use(self, session: Session[Any, Any, Any, Any]) -> Held:
        """Use the reservation, and nobody else until that is over; in a worker thread of `enqueue`."""
        if session is not self._session:
            raise RuntimeError(f"name {self.name!r} was reserved in another spool, {self._session.path}")
        if not self._mutex.acquire(blocking=False):  # never waits: two batches might wait for each other
            raise RuntimeError(f"name {self.name!r} is being used by another enqueue; it can be used once")
        if not self._usable:
            self._mutex.release()
            raise RuntimeError(f"name {self.name!r} was used or given up before; reserve it again")
        return self._reservation, self._mutex.release

    async def __aenter__(self) -> ReservedName:
        """Return the name. No checkpoint: were it cancelled here, the block's end would never come."""
        return self

    async def __aexit__(self, exception_type: object, exception: BaseException | None, traceback: object) -> None:
        """Give the name up if it has not been used, whatever is cancelled meanwhile."""
        self._given_up = True
        _ = self._session.held.pop(self._reservation, None)
        if self._session.closed:
            self._reservation.abandon()
        if self._reservation.state is not State.NOTHING or self._session.closed:
            _ = self._finalizer.detach()
            with keeping_notes_of(exception):
                await cancel_shielded_checkpoint()
            return

        def give_up() -> None:
            try:
                with self._mutex:  # an enqueue may be using it in another thread; then it has been used
                    self._session.storage.give_up(self._reservation)
            finally:  # here, because the caller may be cancelled meanwhile
                _ = self._finalizer.detach()

        with keeping_notes_of(exception):
            answer = await self._session.offload.finish(f"giving up of name {self.name}", give_up)
        if isinstance(answer, Err):
            if exception is None:
                raise answer.error
            exception.add_note(f"name {self.name!r} could not be given up: {answer.error}")


@final
class Use(msgspec.Struct, frozen=True):
    """Enqueue under this name: one that `reserve_name` gave, or a string of the caller's choice.

    With a string, the name is reserved first, and `enqueue` answers `Err(NameTaken)` if an entry has it: a way to
    enqueue a thing once. If the first `enqueue` of a name was killed half-way, the name is free again.

    `remember`: how long the name stays taken after the entry was removed, in seconds or as a `timedelta`. Enqueueing it
    again in that time answers `Err(NameTaken(name, finished=True))`. Any removal counts, by any process, except
    dropping the entry from quarantine. Each remembered name is a small file in `.keys/`.

    Raises `TypeError` if `name` is neither of the two, or `remember` is not a duration, and `ValueError` if it is
    negative.

    ```python
    await spool.enqueue(Mail.SEND, envelope, message, name=Use(f"order-{order.id}", remember=timedelta(days=7)))
    ```
    """

    name: ReservedName | str
    remember: float | datetime.timedelta | None = None

    def __post_init__(self) -> None:
        """Check them here, where a traceback shows who said it, and no batch has others in it."""
        if not isinstance(self.name, (str, ReservedName)):
            raise TypeError(f"a name to use is a string, or one from reserve_name, not {self.name!r}")
        _ = seconds(self.remember)


def _let_go(reservation: Reservation, path: str, held: dict[Any, Any]) -> None:
    _ = held.pop(reservation, None)
    if reservation.state is State.NOTHING:
        warnings.warn(
            f"name {reservation.name!r} of spool {path} was reserved and never used; put `async with` around it",
            ResourceWarning,
            stacklevel=2,
            source=reservation,
        )
        reservation.abandon()


class Naming(Generic[A]):
    """Reserves names in one spool."""

    def __init__(self, session: Session[Any, Any, Any, A], generator: NameGenerator[A]) -> None:
        """Use a name generator."""
        self._session = session
        self._storage: Storage[Any, Reservation] = session.storage
        self._generator = generator
        self._unique = makes_none_twice(generator)

    def for_one_enqueue(self, name: Reserve[A] | Use | None) -> Held:
        """Hold a name for one enqueue."""
        if not isinstance(name, Use):
            return self.made(name, briefly=True), None
        if isinstance(name.name, ReservedName):
            return name.name._use(self._session)  # noqa: SLF001  # one thing in several files
        return self._chosen(name.name, briefly=True), None

    def made(self, name: Reserve[A] | None, *, briefly: bool = False) -> Reservation:
        """Reserve a name that the generator makes, asked again while names are taken; raises `NameTaken` at last."""
        argument: Any = None if name is None else name.argument
        made = ""
        for attempt in range(MAX_ATTEMPTS):
            made = self._generator.next(argument, attempt)
            try:
                return self._chosen(made, unique=self._unique, briefly=briefly and self._unique)
            except (NameTaken, EntryBusy):
                continue
        raise NameTaken(made)

    def _chosen(self, name: str, *, unique: bool = False, briefly: bool) -> Reservation:
        if not (isinstance(name, str) and is_plain(name)) and (fault := invalid_name(name)) is not None:
            raise fault
        return self._storage.reserve(name, unique=unique, briefly=briefly)

    def give_up(self, reservation: Reservation, *, because: BaseException) -> None:
        """Let a name go whose enqueue has failed, while `because` is on its way out."""
        try:
            self._storage.give_up(reservation)
        except SpoolError as error:
            because.add_note(f"the name {reservation.name!r} could not be given up; recovery collects it: {error}")
