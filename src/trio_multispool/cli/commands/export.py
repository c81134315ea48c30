"""`multispool export`: write a queue, or a whole spool, to standard output, as a tar archive."""

import dataclasses
import io
import math
import sys
from typing import Annotated, BinaryIO, Final, final

import msgspec
from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.about import Memory, about
from trio_multispool.cli.archive import ABOUT, DATA, METADATA, REMEMBERED, Writer
from trio_multispool.cli.arguments import AnyQueue, AsJson, Location
from trio_multispool.cli.exits import Exit, Failure, said
from trio_multispool.cli.progress import Bar, bar
from trio_multispool.cli.spools import AnyStorage, looking
from trio_multispool.errors import AccessDenied, DataNotFound, EntryBusy, NotARegularFile, SpoolError
from trio_multispool.model.lifecycle import State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.requests import Stat

_PAGE: Final = 1000
"""How many remembered names are held in memory."""

_Queue = Annotated[AnyQueue, Parameter(name="QUEUE", help="The queue to export; the whole spool unless given.")]


def export(spool: Location, queue: _Queue = None, /, *, as_json: AsJson = False) -> int:
    """Write a queue, or a whole spool, to standard output, as a tar archive.

    What is available and what waits is written, with all that belongs to it: its name, metadata and data, when it is
    due, the history of its attempts, and for how long its name is to be remembered. Of a whole spool, so are the queues
    and the names that are remembered. `import` makes the same of it in another spool, of any kind.

    An entry is locked while it is read, so that no worker can take it. It is not moved: nothing in the spool changes,
    and nothing has to be put back if the command is killed. Entries that are checked out are left out. So are entries
    that somebody has locked; the command then says so, and exits with code 4.

    With `--json`, standard error tells what was exported.

    ```console
    $ multispool export var/mail failed > failed.tar
    $ multispool export var/mail send | ssh elsewhere multispool import var/mail send
    $ multispool export var/mail | multispool import 'postgresql://db.example.org/shop?spool=mail'
    ```
    """
    if output.is_terminal(sys.stdout):
        raise Failure("an archive is not for a terminal; redirect standard output", Exit.USAGE)
    with looking(spool, queue) as storage:
        queues = storage.queues() if queue is None else [queue]
        found = [each for name in queues for each in _listed(storage, name)]
        with output.writing() as out, bar(len(found)) as shown:
            exporting = _Exporting(storage, Writer(out.buffer), shown, is_whole=queue is None)
            exporting.run(found)
        left = {state: sum(storage.count(each, state) for each in queues) for state in _LEFT_OUT}
    left[State.WAITING] = max(0, left[State.WAITING] - exporting.waiting)
    if as_json:
        told: dict[str, object] = {"queue": queue, "exported": exporting.exported}
        told |= {"checked_out": left[State.CHECKED_OUT], "waiting": left[State.WAITING]}
        if queue is None:
            told |= {"quarantined": left[State.QUARANTINED], "remembered": exporting.remembered}
        output.remark(output.encoded(told))
        return exporting.troubles.code
    for state in (State.CHECKED_OUT, State.QUARANTINED) if queue is None else (State.CHECKED_OUT,):
        if left[state]:
            what = output.entries(left[state], "entry is", "entries are")
            output.complain(f"note: {what} {_LEFT_OUT[state]}, and not exported")
    return exporting.troubles.code


_LEFT_OUT: Final = {
    State.CHECKED_OUT: "checked out",
    State.QUARANTINED: "in quarantine",
    State.WAITING: "waiting",
}
"""What may be left out, and how that is said."""


@dataclasses.dataclass(frozen=True)
class _Listed:
    """An entry, as it was listed."""

    queue: str
    name: str
    due_at: float | None = None
    """If it waits."""


def _listed(storage: AnyStorage, queue: str) -> list[_Listed]:
    """List a queue; what waits comes last, and is listed first: so none is missed that becomes due."""
    waiting = [_Listed(queue, name, due_at) for due_at, name in storage.waiting(queue)]
    return [*(_Listed(queue, name) for name in storage.names(queue)), *waiting]


@final
@dataclasses.dataclass
class _Exporting:
    """Writes entries, one after the other."""

    storage: AnyStorage
    writer: Writer
    shown: Bar
    is_whole: bool
    exported: list[str] = dataclasses.field(default_factory=list)
    waiting: int = 0
    """How many of them wait."""
    remembered: int = 0

    def __post_init__(self) -> None:
        self.troubles = output.Troubles(self.shown.remark)

    def run(self, found: list[_Listed]) -> None:
        """Write all that was listed, and what is remembered of a whole spool."""
        for each in found:
            try:
                if self._export(each):
                    self.exported.append(each.name)
                    self.waiting += each.due_at is not None
            except (EntryBusy, DataNotFound, NotARegularFile, AccessDenied) as error:  # of this entry alone
                self.troubles.tell(error, "; not exported")
            self.shown.advance()
        if self.is_whole:
            self._export_memory()
        self.writer.end()

    def _export(self, listed: _Listed) -> bool:
        """Write one entry; `False` if it has moved on since it was listed."""
        name, storage = listed.name, self.storage

        def write(metadata: bytes, found: Stat, file: BinaryIO) -> None:
            size = file.seek(0, io.SEEK_END)
            _ = file.seek(0)
            modified_at = found.modified_at.timestamp()
            more = about(storage, name, listed.queue if self.is_whole else None, listed.due_at)
            self.writer.add(name, METADATA, modified_at, len(metadata), io.BytesIO(metadata))
            if more:
                self.writer.add(name, ABOUT, modified_at, len(more), io.BytesIO(more))
            try:
                self.writer.add(name, DATA, modified_at, size, file)
            except SpoolError as error:
                raise Failure(f"{said(error)}; the archive is incomplete") from error

        state = State.AVAILABLE if listed.due_at is None else State.WAITING
        answer = storage.read_entry(listed.queue, name, write, state=state)
        if answer is Unavailable.BUSY:
            raise EntryBusy(name)
        return answer is None

    def _export_memory(self) -> None:
        """Write the names that are remembered, and until when."""
        page = self.storage.remembered(most=_PAGE)
        while page:
            for name, until in page:
                if math.isinf(until):
                    told = f"{name}: until when it is remembered cannot be told; that is not exported"
                    self.troubles.tell(Failure(told))
                    continue
                raw = msgspec.json.encode(Memory(until))
                self.writer.add(name, REMEMBERED, 0, len(raw), io.BytesIO(raw))
                self.remembered += 1
            page = self.storage.remembered(after=page[-1][0], most=_PAGE)
