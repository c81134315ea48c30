"""Getting a name for a new entry: made by the generator until one is free, chosen by the caller, or reserved before.

Everything here runs in the worker thread of the operation that wants the name.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, cast

from trio_multispool.entries.reserved_names import ReservedName, Use
from trio_multispool.errors import EntryBusy, NameTaken, SpoolError
from trio_multispool.model.names import MAX_ATTEMPTS, invalid_name, makes_none_twice
from trio_multispool.model.types import A

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio_multispool.model.names import NameGenerator, Reserve
    from trio_multispool.session.session import Core
    from trio_multispool.storage.protocol import Reservation, Storage


class Naming(Generic[A]):
    """Reserves names in one spool."""

    def __init__(self, core: Core[Any, Any, Any, A], generator: NameGenerator[A]) -> None:
        """Use a name generator."""
        self._core = core
        self._storage: Storage[Any, Reservation] = core.storage
        self._generator = generator
        self._unique = makes_none_twice(generator)

    @contextlib.contextmanager
    def for_one_enqueue(self, name: Reserve[A] | Use | None) -> Generator[Reservation]:
        """Hold a name for one enqueue; one that was not reserved before is given up if the enqueue fails."""
        if isinstance(name, Use) and isinstance(name.name, ReservedName):
            with name.name._use(self._core) as reservation:  # noqa: SLF001  # one thing in several files
                yield reservation
            return
        reservation = self._chosen(cast("str", name.name)) if isinstance(name, Use) else self.made(name)
        try:
            yield reservation
        except BaseException as error:  # passed on; withdrawn or failed, the name is not needed
            self._give_up(reservation, because=error)
            raise

    def made(self, name: Reserve[A] | None) -> Reservation:
        """Reserve a name that the generator makes, asked again while names are taken; raises `NameTaken` at last."""
        argument: Any = None if name is None else name.argument
        made = ""
        for attempt in range(MAX_ATTEMPTS):
            made = self._generator.next(argument, attempt)
            try:
                return self._chosen(made, unique=self._unique)
            except (NameTaken, EntryBusy):
                continue
        raise NameTaken(made)

    def _chosen(self, name: str, *, unique: bool = False) -> Reservation:
        if (fault := invalid_name(name)) is not None:
            raise fault
        return self._storage.reserve(name, unique=unique)

    def _give_up(self, reservation: Reservation, *, because: BaseException) -> None:
        """Let a name go whose enqueue has failed, while `because` is on its way out."""
        try:
            self._storage.give_up(reservation)
        except SpoolError as error:
            because.add_note(f"the name {reservation.name!r} could not be given up; recovery collects it: {error}")
