"""`multispool put`: enqueue files, or standard input."""

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, final

import trio
from cyclopts import Parameter

from trio_multispool.cli import durations, metadata, output
from trio_multispool.cli.arguments import AsJson, Location, QueueName, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure, code_of, said
from trio_multispool.cli.progress import Bar, bar
from trio_multispool.cli.running import Ending, beside, run, when_cancelled
from trio_multispool.cli.sources import STANDARD_INPUT, Source, Stop, size_of
from trio_multispool.cli.spools import AnySpool, load, member
from trio_multispool.clock import wall_clock
from trio_multispool.entries.reserved_names import Use
from trio_multispool.errors import EncodingFailed, NameTaken, SpoolError
from trio_multispool.model.names import invalid_name
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.times import NotBefore, due_at

_META_HELP = """`key=value` of the metadata, a JSON object; may be repeated. A value that is JSON is taken as such
(`n=1`, `ok=true`, `to='["anne"]'`), any other is a string."""

_LARGE = 64 << 20
"""A single file of at least this many bytes gets a progress bar."""

Files = Annotated[
    Path,
    Parameter(
        name="FILE",
        required=True,
        allow_leading_hyphen=True,  # for `-` itself
        help="Files, each of which becomes the data of an entry; `-` is standard input.",
    ),
]


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Described:
    """What `put` and `enqueue-at` have in common: what is said of the new entries."""

    meta: Annotated[list[str] | None, Parameter(help=_META_HELP)] = None
    meta_json: Annotated[str | None, Parameter(help="The metadata as JSON, stored as it is; `{}` unless given.")] = None
    name: Annotated[
        str | None, Parameter(help="The entry's name, for a single file; made from the time unless given.")
    ] = None


NOTHING_SAID: Final = Described()
"""Without any of the options."""


def put(  # noqa: PLR0913  # what a person can say on the command line
    spool: Location,
    queue: QueueName,
    /,
    *files: Files,
    described: Described = NOTHING_SAID,
    delay: Annotated[
        str | None, Parameter(help="Let the entries wait this long before anybody gets them: `90`, `10m`, `2d`.")
    ] = None,
    at: Annotated[
        str | None,
        Parameter(
            help="Let them wait until this time: `2027-01-31T08:00`, in this machine's time zone, or with one: `…Z`."
        ),
    ] = None,
    remember: Annotated[
        str | None,
        Parameter(help="With --name: refuse that name for this long after the entry has been removed: `1h`, `7d`."),
    ] = None,
    if_absent: Annotated[
        bool, Parameter(help="With --name: if the entry exists, or its name is remembered, do nothing, and succeed.")
    ] = False,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Enqueue files, or standard input.

    Each file becomes an entry. Its name is printed once the entry is on disk and synced. Files are copied piece by
    piece, so they may be large. The first that fails ends the command; what was enqueued before stays. If a name cannot
    be printed, standard error tells it, and the exit code is 8: the entry is in the queue.

    ```console
    $ multispool put var/mail send letter.txt --meta to=anne@example.org
    $ pg_dump shop | multispool put /srv/backups upload - --name shop
    $ multispool put var/mail send reminder.txt --delay 2d
    $ multispool put var/shop orders order.json --name order-17 --remember 7d --if-absent
    ```
    """
    not_before, name = _not_before(delay, at), described.name
    if name is None and (remember is not None or if_absent):
        raise Failure("--remember and --if-absent are about a name: say which, by --name", Exit.USAGE)
    remembered = None if remember is None else durations.parse(remember)
    paths = _paths(files, name)
    raw = metadata.from_options(described.meta or [], described.meta_json)
    sizes = [size_of(path) for path in paths]  # before anything is enqueued: a typing error enqueues nothing
    known = [size for size in sizes if size is not None]
    total = sum(known) if len(known) == len(sizes) else None
    use = None if name is None else Use(name, remembered)
    putting = _Putting(queue, raw, use, not_before, if_absent, as_json)

    async def work(_ending: Ending) -> None:
        worth_it = len(paths) > 1 or total is None or total > _LARGE
        async with await load(spool, [queue], trust_file_system=trust_file_system) as opened:
            with bar(total, shown=worth_it, sizes=True) as shown:
                await putting.put_all(paths, opened, shown)

    try:
        if (code := run(work)) == Exit.SUCCESS:
            return code
        told = "interrupted"
    except (Failure, SpoolError) as error:
        if len(paths) == 1 or not putting.began:
            raise
        told, code = said(error), code_of(error)
    if len(paths) > 1 and putting.began:
        told = f"{told}; {putting.enqueued} of {len(paths)} files were enqueued"
    output.complain(told)
    return code


def _paths(files: Sequence[Path], name: str | None) -> list[str]:
    """Return the files to enqueue; ends the command if they cannot be what was meant."""
    paths = [os.fspath(file) for file in files]
    for path in paths:
        if path.startswith("-") and path != STANDARD_INPUT and not os.path.lexists(path):
            raise Failure(f"unknown option {path}; see multispool put --help", Exit.USAGE)
    if paths.count(STANDARD_INPUT) > 1:
        raise Failure("standard input (-) can be enqueued only once", Exit.USAGE)
    if name is not None and len(paths) != 1:
        raise Failure("--name is for a single file", Exit.USAGE)
    if name is not None and (fault := invalid_name(name)) is not None:
        raise fault
    return paths


def _not_before(delay: str | None, at: str | None) -> NotBefore | None:
    if delay is not None and at is not None:
        raise Failure("--delay and --at exclude each other", Exit.USAGE)
    try:
        time = None if at is None else datetime.datetime.fromisoformat(at).astimezone()  # without a zone, it is ours
    except (ValueError, OverflowError, OSError) as error:
        told = f"not a time: {at!r}; write 2027-01-31T08:00, or with a zone 2027-01-31T08:00Z"
        raise Failure(told, Exit.USAGE) from error
    not_before = time if delay is None else durations.parse(delay)
    try:
        _ = due_at(not_before, wall_clock)
    except ValueError as error:
        raise Failure(f"that is too late: {delay or at!r}; times end in the year 2445", Exit.USAGE) from error
    return not_before


@final
@dataclasses.dataclass
class _Putting:
    """Enqueues files one after the other."""

    queue: str
    raw: bytes
    name: Use | None
    not_before: NotBefore | None
    if_absent: bool
    as_json: bool
    began: bool = False
    enqueued: int = 0

    async def put_all(self, paths: list[str], spool: AnySpool, shown: Bar) -> None:
        """Enqueue each, and print its name; raises a `Failure` that tells which failed."""
        self.began = True
        with contextlib.closing(Stop()) as stop:
            async with beside(lambda: when_cancelled(stop.set)):
                for path in paths:
                    with contextlib.closing(Source(path, stop, shown.advance)) as source:
                        await self._put(spool, source, shown)

    async def _put(self, spool: AnySpool, source: Source, shown: Bar) -> None:
        queue = member(spool, self.queue)
        match await spool.enqueue(queue, self.raw, source, name=self.name, not_before=self.not_before):
            case Ok(entry):
                self.enqueued += 1
                with output.outcome(f"{source.path} was enqueued as {entry.name}"):
                    if self.as_json:
                        output.document({"name": entry.name, "queue": self.queue, "file": output.as_text(source.path)})
                    else:
                        shown.result(output.printable(entry.name))
            case Err(NameTaken()) if self.if_absent:
                return
            case Err(EncodingFailed()) if source.failure is not None:
                raise source.failure
            case Err(error):
                # A `put` that was interrupted ends here by its signal, and not by what that did to the copying.
                await trio.lowlevel.checkpoint_if_cancelled()
                raise Failure(f"{source.path}: {said(error)}", code_of(error))
