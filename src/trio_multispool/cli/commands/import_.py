"""`multispool import`: enqueue what an archive on standard input holds.

The archive is not trusted (see `archive`): its names are checked as those of any new entry, and nothing but the members
that an entry has is taken from it. What is small is enqueued many at a time, which share their syncs.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, NamedTuple, final

from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.about import LARGEST_ABOUT, NOTHING, About, read_about, read_memory
from trio_multispool.cli.archive import ABOUT, DATA, METADATA, REMEMBERED, Member, Reader, Refused
from trio_multispool.cli.arguments import AnyQueue, AsJson, Location, TrustFileSystem
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
from trio_multispool.storage.requests import Content, NewEntry

_LARGEST_METADATA: Final = 16 << 20
"""Bytes of metadata, which are held in memory: hundreds of times what a variable of `work` may have."""

_SMALL: Final = 256 << 10
"""Bytes of metadata and data up to which an entry waits in memory for others to be enqueued with."""

_TOGETHER: Final = 64
"""How many small entries are enqueued together: with the above, 16 MiB are held, and one entry's metadata."""

_Queue = Annotated[
    AnyQueue, Parameter(name="QUEUE", help="The queue for all of them; that which the archive names unless given.")
]


def import_(
    spool: Location,
    queue: _Queue = None,
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

    Without QUEUE, each entry goes into the queue that an archive of a whole spool names; make the queues before.

    ```console
    $ multispool import var/mail send < failed.tar
    $ multispool export old/mail failed | multispool import var/mail send --new-names
    $ multispool export var/mail | multispool import 'postgresql://db.example.org/shop?spool=mail'
    ```
    """
    with looking(spool, queue) as storage:
        queues = storage.queues() if queue is None else [queue]
    with (
        opened(spool, *queues, trust_file_system=trust_file_system, recover=True) as storage,
        contextlib.closing(Stop()) as stop,
        stopped_by_signals(stop.set) as ending,
        counting("entries") as count,
    ):
        archive, most = Reader(Source(STANDARD_INPUT, stop).read), min(_TOGETHER, storage.at_a_time())
        importing = _Importing(storage, queue, frozenset(queues), archive, count, new_names, as_json, most)
        try:
            importing.run()
        except Interrupted:
            output.complain(f"interrupted; {importing.told()}")
            return BY_SIGNAL + (ending.signal or 0)
        except (Failure, SpoolError) as error:
            raise Failure(f"{said(error)}; {importing.told()}", code_of(error)) from error
    if importing.remembered:
        output.complain(f"note: {output.entries(importing.remembered, 'name is', 'names are')} remembered")
    return importing.troubles.code


@dataclasses.dataclass
class _Pending:
    """An entry whose data is to come."""

    name: str
    metadata: bytes | None
    """`None`, if it is refused."""
    about: About = NOTHING


class _Whole(NamedTuple):
    """An entry to be enqueued."""

    name: str
    queue: str
    metadata: bytes
    content: Content
    about: About


@final
@dataclasses.dataclass
class _Importing:
    """Enqueues what an archive holds."""

    storage: Storage[Any, Reservation]
    queue: str | None
    queues: frozenset[str]
    archive: Reader
    count: Callable[[], None]
    new_names: bool
    as_json: bool
    most: int
    """How many are enqueued together."""
    names: TimeOrdered = dataclasses.field(default_factory=time_ordered_names)
    troubles: output.Troubles = dataclasses.field(default_factory=output.Troubles)
    imported: int = 0
    remembered: int = 0
    together: list[_Whole] = dataclasses.field(default_factory=list)

    def told(self) -> str:
        """Say how far it got."""
        return output.were("imported", self.imported)

    def run(self) -> None:
        """Read the archive to its end."""
        pending: _Pending | None = None
        try:
            while (member := self.archive.next()) is not None:
                if isinstance(member, Refused):
                    self._refuse(f"{member.path}: {member.reason}")
                elif member.part == METADATA:
                    self._expect_no_more(pending)
                    pending = _Pending(member.name, self._metadata(member))
                elif member.part == REMEMBERED:
                    self._remember(member)
                elif pending is None or pending.name != member.name:
                    self._refuse(f"{member.name}: there is no metadata before its {member.part}")
                elif member.part == ABOUT:
                    self._learn(member, pending)
                else:
                    self._take(member, pending)
                    pending = None
            self._expect_no_more(pending)
        finally:
            self._enqueue_together()  # what is whole is enqueued, also if what follows it is damaged

    def _expect_no_more(self, pending: _Pending | None) -> None:
        if pending is not None and pending.metadata is not None:
            self._refuse(f"{pending.name}: there is no {DATA} after its metadata")

    def _metadata(self, member: Member) -> bytes | None:
        if member.size <= _LARGEST_METADATA:
            return self.archive.read(member.size)
        self._refuse(f"{member.name}: metadata of {member.size} bytes")
        return None

    def _learn(self, member: Member, pending: _Pending) -> None:
        """Take in what is told about an entry; refuse the entry if that cannot be read."""
        try:
            pending.about = read_about(self._short(member))
        except ValueError as error:
            pending.metadata = None
            self._refuse(f"{member.name}: what is told about it cannot be read: {error}")

    def _short(self, member: Member) -> bytes:
        if member.size > LARGEST_ABOUT:
            raise ValueError(f"it has {member.size} bytes")
        return self.archive.read(member.size)

    def _remember(self, member: Member) -> None:
        """Remember a name that has no entry, for as long as is left. One that is remembered, or has an entry, stays."""
        try:
            left = read_memory(self._short(member)) - self.storage.now()
        except ValueError as error:
            self._refuse(f"{member.name}: until when it is remembered cannot be read: {error}")
            return
        if left <= 0:
            return
        self._enqueue_together()  # or a name among them might be taken
        try:
            reservation = self.storage.reserve(member.name)
        except (NameTaken, EntryBusy) as error:
            if not (isinstance(error, NameTaken) and error.finished):
                self._pass_over(member.name, error)
            return
        try:
            self.storage.remember(reservation, left, durability=None)
        finally:
            self.storage.give_up(reservation)
        self.remembered += 1

    def _take(self, member: Member, pending: _Pending) -> None:
        """Enqueue the entry whose data is next, now or with others."""
        metadata, queue = pending.metadata, self.queue or pending.about.queue
        if metadata is None:
            return
        if queue is None:
            self._refuse(f"{member.name}: the archive does not tell its queue: multispool import SPOOL QUEUE")
            return
        if queue not in self.queues:
            self._refuse(f"{member.name}: there is no queue {queue!r}; make it with `multispool create`")
            return
        if any(whole.name == member.name for whole in self.together):
            self._enqueue_together()  # or its own name would be busy, and not taken
        is_large = len(metadata) + member.size > _SMALL
        if is_large:
            self._enqueue_together()
        content = self.archive.copy_to if is_large else self.archive.read(member.size)
        self.together.append(_Whole(member.name, queue, metadata, content, pending.about))
        if is_large or len(self.together) >= self.most:
            self._enqueue_together()

    def _reserve(self, name: str) -> Reservation:
        if not self.new_names:
            return self.storage.reserve(name, briefly=True)
        made = name
        for attempt in range(MAX_ATTEMPTS):
            made = self.names.next(None, attempt)
            with contextlib.suppress(NameTaken, EntryBusy):
                return self.storage.reserve(made, briefly=True)
        raise NameTaken(made)

    def _enqueue_together(self) -> None:
        together, self.together = self.together, []
        wanted: list[tuple[str, NewEntry[Reservation]]] = []
        try:
            for whole in together:
                try:
                    wanted.append((whole.name, self._new(whole, self._reserve(whole.name))))
                except (NameTaken, EntryBusy) as error:
                    self._pass_over(whole.name, error)
            answers = self.storage.enqueue_together([new for _, new in wanted]) if wanted else []
        except BaseException:  # Ctrl-C too must leave no reservation
            for _, new in wanted:
                self.storage.give_up(new.reservation)  # unless it was used
            raise
        self._note_all(wanted, answers)

    def _new(self, whole: _Whole, reservation: Reservation) -> NewEntry[Reservation]:
        about, due_at = whole.about, whole.about.due_at
        return NewEntry(
            reservation,
            whole.queue,
            whole.metadata,
            whole.content,
            None,
            withdraw_nothing,
            about.carrier,
            None if due_at is None or due_at <= self.storage.now() else due_at,
            about.remember,
            notes={key: bytes(value) for key, value in about.notes.items()},
        )

    def _note_all(
        self, wanted: list[tuple[str, NewEntry[Reservation]]], answers: Sequence[BaseException | None]
    ) -> None:
        failures: list[BaseException] = []
        for (name, new), answer in zip(wanted, answers, strict=True):
            try:
                self._note(name, new, answer)
            except BaseException as error:  # noqa: BLE001  # raised when all have been noted
                failures.append(error)
        for failure in failures[1:]:
            if isinstance(failure, (Failure, SpoolError)):
                output.complain(said(failure))
        if failures:
            raise failures[0]

    def _note(self, name: str, new: NewEntry[Reservation], answer: BaseException | None) -> None:
        if answer is not None:
            self.storage.give_up(new.reservation)
            if not isinstance(answer, (NameTaken, EntryBusy)):
                raise answer
            self._pass_over(name, answer)
            return
        self.imported += 1
        self.count()
        new_name = new.reservation.name
        with output.outcome(f"{name} was imported as {new_name}"):
            if self.as_json:
                output.document({"name": new_name, "queue": new.queue, "from": output.as_text(name)})
            else:
                output.line(output.printable(new_name))

    def _pass_over(self, name: str, error: NameTaken | EntryBusy) -> None:
        self.troubles.tell(Failure(f"{name}: {said(error)}; not imported", code_of(error)))

    def _refuse(self, message: str) -> None:
        self.troubles.tell(Failure(f"{message}; not imported", Exit.REFUSED))
