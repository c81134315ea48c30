"""`multispool import`: enqueue what an archive on standard input holds.

The archive is not trusted (see `archive`): its names are checked as those of any new entry, and nothing but the two
members that an entry has is taken from it. What is small is enqueued many at a time, which share their syncs.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Final, final

from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.archive import METADATA, Member, Reader, Refused
from trio_multispool.cli.arguments import AsJson, Location, QueueName, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure, code_of, said
from trio_multispool.cli.progress import counting
from trio_multispool.cli.running import BY_SIGNAL, stopped_by_signals
from trio_multispool.cli.sources import STANDARD_INPUT, Interrupted, Source, Stop
from trio_multispool.cli.spools import looking, opened, withdraw_nothing
from trio_multispool.clock import time_ordered_names
from trio_multispool.errors import EntryBusy, NameTaken, SpoolError
from trio_multispool.model.names import MAX_ATTEMPTS, TimeOrdered
from trio_multispool.storage.handles import Reservation
from trio_multispool.storage.protocol import Storage
from trio_multispool.storage.requests import NewEntry

_LARGEST_METADATA: Final = 16 << 20
"""Bytes of metadata, which are held in memory: hundreds of times what a variable of `work` may have."""

_SMALL: Final = 256 << 10
"""Bytes of metadata and data up to which an entry waits in memory for others to be enqueued with."""

_TOGETHER: Final = 64
"""How many small entries are enqueued together: with the above, 16 MiB are held, and one entry's metadata."""


def import_(
    spool: Location,
    queue: QueueName,
    /,
    *,
    new_names: Annotated[bool, Parameter(help="Give each entry a new name, made from the time.")] = False,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Enqueue the entries of a tar archive, from standard input.

    The archive is one that `export` wrote, or any that has `NAME/metadata` and right after it `NAME/data` for each
    entry. An entry's name is printed once it is on disk and synced. Entries keep their names; one whose name is taken
    is told of and passed over, so that an import that was interrupted can be done again. The same goes for members that
    are not those of an entry (links, devices, other paths): no path in the archive is ever used. An archive that is
    damaged or truncated ends the command; what was enqueued before stays. The exit code is that of the first trouble.

    ```console
    $ multispool import var/mail send < failed.tar
    $ multispool export old/mail failed | multispool import var/mail send --new-names
    ```
    """
    with looking(spool, queue):
        pass
    with (
        opened(spool, queue, trust_file_system=trust_file_system, recover=True) as storage,
        contextlib.closing(Stop()) as stop,
        stopped_by_signals(stop.set) as ending,
        counting("entries") as count,
    ):
        archive, most = Reader(Source(STANDARD_INPUT, stop).read), min(_TOGETHER, storage.at_a_time())
        importing = _Importing(storage, queue, archive, count, new_names, as_json, most)
        try:
            importing.run()
        except Interrupted:
            output.complain(f"interrupted; {importing.told()}")
            return BY_SIGNAL + (ending.signal or 0)
        except (Failure, SpoolError) as error:
            raise Failure(f"{said(error)}; {importing.told()}", code_of(error)) from error
    return importing.troubles.code


@final
@dataclasses.dataclass
class _Importing:
    """Enqueues what an archive holds."""

    storage: Storage[Any, Reservation]
    queue: str
    archive: Reader
    count: Callable[[], None]
    new_names: bool
    as_json: bool
    most: int
    """How many are enqueued together."""
    names: TimeOrdered = dataclasses.field(default_factory=time_ordered_names)
    troubles: output.Troubles = dataclasses.field(default_factory=output.Troubles)
    imported: int = 0
    together: list[tuple[str, NewEntry[Reservation]]] = dataclasses.field(default_factory=list)

    def told(self) -> str:
        """Say how far it got."""
        return output.were("imported", self.imported)

    def run(self) -> None:
        """Read the archive to its end."""
        pending: tuple[str, bytes | None] | None = None  # whose data is to come, and the metadata, unless it is refused
        try:
            while (member := self.archive.next()) is not None:
                if isinstance(member, Refused):
                    self._refuse(f"{member.path}: {member.reason}")
                elif member.part == METADATA:
                    self._expect_no_more(pending)
                    pending = member.name, self._metadata(member)
                elif pending is None or pending[0] != member.name:
                    self._refuse(f"{member.name}: there is no metadata before its data")
                else:
                    if pending[1] is not None:
                        self._take(member, pending[1])
                    pending = None
            self._expect_no_more(pending)
        finally:
            self._enqueue_together()  # what is whole is enqueued, also if what follows it is damaged

    def _expect_no_more(self, pending: tuple[str, bytes | None] | None) -> None:
        if pending is not None and pending[1] is not None:
            self._refuse(f"{pending[0]}: there is no data after its metadata")

    def _metadata(self, member: Member) -> bytes | None:
        if member.size <= _LARGEST_METADATA:
            return self.archive.read(member.size)
        self._refuse(f"{member.name}: metadata of {member.size} bytes")
        return None

    def _take(self, member: Member, metadata: bytes) -> None:
        """Enqueue the entry whose data is next, now or with others."""
        if any(wanted.reservation.name == member.name for _, wanted in self.together):
            self._enqueue_together()  # or its own name would be busy, and not taken
        try:
            reservation = self._reserve(member.name)
        except (NameTaken, EntryBusy) as error:
            self.troubles.tell(Failure(f"{member.name}: {said(error)}; not imported", code_of(error)))
            return
        large = len(metadata) + member.size > _SMALL
        try:
            if large:
                self._enqueue_together()
            content = self.archive.copy_to if large else self.archive.read(member.size)
            wanted = NewEntry(reservation, self.queue, metadata, content, None, withdraw_nothing)
            self.together.append((member.name, wanted))
            if large or len(self.together) >= self.most:
                self._enqueue_together()
        except BaseException:  # Ctrl-C too must leave no reservation
            self.storage.give_up(reservation)  # unless it was used
            raise

    def _reserve(self, name: str) -> Reservation:
        if not self.new_names:
            return self.storage.reserve(name)
        made = name
        for attempt in range(MAX_ATTEMPTS):
            made = self.names.next(None, attempt)
            with contextlib.suppress(NameTaken, EntryBusy):
                return self.storage.reserve(made)
        raise NameTaken(made)

    def _enqueue_together(self) -> None:
        waiting, self.together = self.together, []
        if not waiting:
            return
        answers = self.storage.enqueue_together([wanted for _, wanted in waiting])
        failures: list[BaseException] = []
        for (name, wanted), answer in zip(waiting, answers, strict=True):
            try:
                self._note(name, wanted, answer)
            except BaseException as error:  # noqa: BLE001  # raised when all have been noted
                failures.append(error)
        for failure in failures[1:]:
            if isinstance(failure, (Failure, SpoolError)):
                output.complain(said(failure))
        if failures:
            raise failures[0]

    def _note(self, name: str, wanted: NewEntry[Reservation], answer: BaseException | None) -> None:
        if answer is not None:
            self.storage.give_up(wanted.reservation)
            raise answer
        self.imported += 1
        self.count()
        new_name = wanted.reservation.name
        with output.outcome(f"{name} was imported as {new_name}"):
            if self.as_json:
                output.document({"name": new_name, "queue": self.queue, "from": output.as_text(name)})
            else:
                output.line(output.printable(new_name))

    def _refuse(self, message: str) -> None:
        self.troubles.tell(Failure(f"{message}; not imported", Exit.REFUSED))
