"""`multispool export`: write a queue to standard output, as a tar archive."""

import io
import sys
from typing import BinaryIO

from trio_multispool.cli import output
from trio_multispool.cli.archive import DATA, METADATA, Writer
from trio_multispool.cli.arguments import AsJson, Location, QueueName
from trio_multispool.cli.exits import Exit, Failure, said
from trio_multispool.cli.progress import bar
from trio_multispool.cli.spools import AnyStorage, looking
from trio_multispool.errors import AccessDenied, DataNotFound, EntryBusy, NotARegularFile, SpoolError
from trio_multispool.model.lifecycle import State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.requests import Stat


def export(spool: Location, queue: QueueName, /, *, as_json: AsJson = False) -> int:
    """Write the entries of a queue to standard output, as a tar archive.

    Each entry is two members, `NAME/metadata` and `NAME/data`, in the order of names. It is locked while it is read, so
    that no worker can take it. It is not moved: nothing in the spool changes, and nothing has to be put back if the
    command is killed. Entries that are checked out are left out. So are entries that somebody has locked; the command
    then says so, and exits with code 4.

    With `--json`, standard error tells what was exported.

    ```console
    $ multispool export var/mail failed > failed.tar
    $ multispool export var/mail send | ssh elsewhere multispool import var/mail send
    ```
    """
    if output.is_terminal(sys.stdout):
        raise Failure("an archive is not for a terminal; redirect standard output", Exit.USAGE)
    exported: list[str] = []
    with looking(spool, queue) as storage:
        names = storage.names(queue)
        with output.writing() as out, bar(len(names)) as shown:
            writer, troubles = Writer(out.buffer), output.Troubles(shown.remark)
            for name in names:
                try:
                    if _export(storage, queue, name, writer):
                        exported.append(name)
                except (EntryBusy, DataNotFound, NotARegularFile, AccessDenied) as error:  # of this entry alone
                    troubles.tell(error, "; not exported")
                shown.advance()
            writer.end()
        held, waiting = (storage.count(queue, state) for state in (State.CHECKED_OUT, State.WAITING))
    if as_json:
        output.remark(output.encoded({"queue": queue, "exported": exported, "checked_out": held, "waiting": waiting}))
        return troubles.code
    for number, what in ((held, "checked out"), (waiting, "waiting")):
        if number:
            output.complain(f"note: {output.entries(number, 'entry is', 'entries are')} {what}, and not exported")
    return troubles.code


def _export(storage: AnyStorage, queue: str, name: str, writer: Writer) -> bool:
    """Write one entry; `False` if it has moved on since it was listed."""

    def write(metadata: bytes, found: Stat, file: BinaryIO) -> None:
        size = file.seek(0, io.SEEK_END)
        _ = file.seek(0)
        modified_at = found.modified_at.timestamp()
        writer.add(name, METADATA, modified_at, len(metadata), io.BytesIO(metadata))
        try:
            writer.add(name, DATA, modified_at, size, file)
        except SpoolError as error:
            raise Failure(f"{said(error)}; the archive is incomplete") from error

    answer = storage.read_entry(queue, name, write)
    if answer is Unavailable.BUSY:
        raise EntryBusy(name)
    return answer is None
