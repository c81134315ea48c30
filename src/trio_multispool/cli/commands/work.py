"""`multispool work`: run a command for each entry of a queue."""

import shutil
from typing import Annotated, Any, Literal, final

import msgspec
import trio
from cyclopts import Parameter

from trio_multispool.cli import child, output
from trio_multispool.cli.arguments import QueueName, SpoolPath, TrustFileSystem
from trio_multispool.cli.completing import queue_names
from trio_multispool.cli.exits import Exit, Failure, code_of, said
from trio_multispool.cli.progress import Bar, bar
from trio_multispool.cli.running import Ending, run
from trio_multispool.cli.sources import Source
from trio_multispool.cli.spools import AnySpool, load, looking, member
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.errors import SpoolError
from trio_multispool.model.results import Err, Result
from trio_multispool.reader.pool import Jobs

_RETRY_DELAY = 1.0

Job = CheckedOutEntry[Any, bytes, Source]


class Orders(msgspec.Struct, frozen=True):
    """What to do with entries."""

    queue: str
    command: tuple[str, ...]
    done: str | None
    failed: str | None
    retry_delay: float


def work(  # noqa: PLR0913  # what a person can say on the command line
    spool: SpoolPath,
    queue: QueueName,
    /,
    *command: Annotated[
        str,
        Parameter(
            name="COMMAND", required=True, help="The command and its arguments, after `--`. No shell is involved."
        ),
    ],
    jobs: Annotated[int, Parameter(name=["--jobs", "-j"], help="How many commands run at a time.")] = 1,
    done: Annotated[
        str | None,
        Parameter(
            name="--done",
            help="Where to move entries whose command succeeded; they are removed unless given.",
            completer=queue_names,
        ),
    ] = None,
    failed: Annotated[
        str | None,
        Parameter(
            name="--failed",
            help="Where to move entries whose command failed; they go back unless given.",
            completer=queue_names,
        ),
    ] = None,
    once: Annotated[
        bool,
        Parameter(
            name="--once",
            negative="",
            show_default=False,
            help="Try each entry once, and end when nothing is left. Exit code 6 if some failed.",
        ),
    ] = False,
    retry_delay: Annotated[
        float,
        Parameter(
            name="--retry-delay",
            help="How many seconds a failed entry is kept before it goes back (without --failed and --once).",
        ),
    ] = _RETRY_DELAY,
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], negative="", show_default=False, help="No line for each entry.")
    ] = False,
    as_json: Annotated[
        bool, Parameter(name="--json", negative="", show_default=False, help="The lines on standard error are JSON.")
    ] = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Run a command for each entry of a queue.

    The command gets the entry's data on its standard input and, in its environment, `MULTISPOOL_NAME`,
    `MULTISPOOL_METADATA`, `MULTISPOOL_QUEUE`, `MULTISPOOL_SPOOL` and `MULTISPOOL_DATA`, the path of the data. If it
    succeeds (exit status 0), the entry is removed, or moved to `--done`; if it fails, it is moved to `--failed`, or
    goes back.

    Ctrl-C, SIGTERM and SIGHUP end it: commands that are running get SIGTERM, and after 5 seconds (or a second Ctrl-C)
    SIGKILL, and their entries go back as they were. If `work` itself is killed, the entries it had are available again
    as soon as somebody reads the queue.

    ```console
    $ multispool work var/mail send --jobs 4 --failed failed -- sendmail -t
    $ multispool work /srv/photos todo --once -- ./thumbnail.py
    ```
    """
    orders = Orders(queue, command, done, failed, retry_delay)
    _check(orders, jobs)
    report = _Report(quiet=quiet, as_json=as_json)

    async def working(ending: Ending) -> int:
        queues = [name for name in (queue, done, failed) if name is not None]
        async with await load(spool, queues, trust_file_system=trust_file_system) as opened:
            if shutil.which(command[0]) is None:
                raise Failure(f"cannot start {command[0]!r}: command not found")
            total = _available(spool, queue) if once else None
            with bar(total, shown=once and not quiet) as shown:
                report.bar = shown
                await _Worker(opened, orders, report, ending, once=once).run(jobs)
        return Exit.SOME_FAILED if once and report.failed else Exit.SUCCESS

    try:
        return run(working)
    finally:
        report.summary()


def _check(orders: Orders, jobs: int) -> None:
    if jobs < 1:
        raise Failure(f"--jobs must be at least 1, not {jobs}", Exit.USAGE)
    if not 0 <= orders.retry_delay < float("inf"):
        raise Failure(f"--retry-delay must be a number of seconds, not {orders.retry_delay}", Exit.USAGE)
    if orders.done == orders.queue:
        raise Failure("--done must be another queue, or the work would never end", Exit.USAGE)
    if orders.failed == orders.queue:
        raise Failure("--failed must be another queue; without it, entries that failed go back", Exit.USAGE)


def _available(spool: SpoolPath, queue: str) -> int:
    with looking(spool) as storage:
        return len(storage.names(queue))


Outcome = Literal["done", "failed", "returned"]


@final
class _Report:
    """Counts what became of the entries, and prints it."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.bar = Bar(None, None)
        self.failed = 0
        self._done = 0
        self._returned = 0
        self._begun = False
        self._quiet = quiet
        self._as_json = as_json

    def begin(self) -> None:
        """Note that there was work to do or to wait for, so that a summary is printed."""
        self._begun = True

    def succeeded(self, name: str, queue: str | None) -> None:
        """Tell of a command that succeeded, and where its entry is now."""
        self._done += 1
        self._tell(name, "done", 0, queue, "done" if queue is None else f"done, moved to {queue}", "green")

    def failure(self, name: str, status: int | None, told: str, queue: str) -> None:
        """Tell of a command that failed, and where its entry is now."""
        self.failed += 1
        self._tell(name, "failed", status, queue, f"failed ({told}), now in {queue}", "red")

    def returned(self, name: str, queue: str) -> None:
        """Tell of an entry that went back because the work ended."""
        self._returned += 1
        self._tell(name, "returned", None, queue, f"returned to {queue}", "yellow")

    def _tell(self, name: str, outcome: Outcome, status: int | None, queue: str | None, told: str, style: str) -> None:  # noqa: PLR0913, PLR0917  # two ways to say it
        self.bar.advance()
        if self._as_json:
            _write_json({"name": name, "outcome": outcome, "status": status, "queue": queue})
        elif not self._quiet:
            self.bar.remark(output.printable(f"multispool: {name}: {told}"), style)

    def summary(self) -> None:
        """Sum up, once the work has ended."""
        if not self._begun:
            return
        if self._as_json:
            _write_json({"done": self._done, "failed": self.failed, "returned": self._returned})
        else:
            returned = f", returned {self._returned}" if self._returned else ""
            output.complain(f"done {self._done}, failed {self.failed}{returned}")


def _write_json(document: dict[str, object]) -> None:
    output.remark(msgspec.json.encode(document).decode())


@final
class _Worker:
    """Works off one queue with any number of tasks."""

    def __init__(self, spool: AnySpool, orders: Orders, report: _Report, ending: Ending, *, once: bool) -> None:
        self._spool = spool
        self._orders = orders
        self._report = report
        self._ending = ending
        self._once = once
        self._failure: Failure | None = None

    async def run(self, jobs: int) -> None:
        """Work until nothing is left (`once`), the scope is cancelled, or something is wrong (a `Failure`)."""
        self._report.begin()
        async with self._spool.reader(member(self._spool, self._orders.queue)) as reader:
            coming = reader.available() if self._once else aiter(reader)
            async with trio.open_nursery() as nursery:
                for _ in range(jobs):
                    nursery.start_soon(self._work_off, coming, nursery.cancel_scope)
        if self._failure is not None:
            raise self._failure

    async def _work_off(self, coming: Jobs[Any, bytes, Source], scope: trio.CancelScope) -> None:
        try:
            async for job in coming:
                async with job:
                    await self._attempt(job)
        except (Failure, SpoolError) as error:  # not through the nursery, which would wrap it
            failure = error if isinstance(error, Failure) else Failure(said(error), code_of(error))
            self._failure = self._failure or failure
            scope.cancel()

    async def _attempt(self, job: Job) -> None:
        """Run the command on an entry, and settle it."""
        ended = False
        try:
            status, told = await self._run(job)
            ended = True
        finally:
            if not ended:  # cancelled, or the command cannot be started: leaving the job's block returns the entry
                self._report.returned(job.name, self._orders.queue)
        # What a command has done is kept, though the work may be ending.
        with trio.CancelScope(shield=True):
            if status == 0:
                await self._settle(job, self._orders.done)
                self._report.succeeded(job.name, self._orders.done)
            elif self._orders.failed is not None:
                await self._settle(job, self._orders.failed)
                self._report.failure(job.name, status, told, self._orders.failed)
        if not job.settled:
            self._report.failure(job.name, status, told, self._orders.queue)
            if not self._once:
                await trio.sleep(self._orders.retry_delay)
            (await job.release()).unwrap()

    async def _run(self, job: Job) -> tuple[int | None, str]:
        """Run the command, and return its status, `None` if there is no data to run it on, and how to say it."""
        task = child.Task(str(self._spool.path), self._orders.queue, job.name, job.metadata, str(job.data.path))
        try:
            status = await child.run_command(self._orders.command, task, self._ending)
        except OSError as error:
            if error.filename == task.data:
                return None, f"its data cannot be read: {error.strerror}"
            raise Failure(f"cannot start {self._orders.command[0]!r}: {error.strerror}") from error
        if child.ended_with_us(status):
            await trio.sleep(child.ECHO)
        return status, child.told(status)

    async def _settle(self, job: Job, queue: str | None) -> None:
        answer: Result[None, Any]
        if queue is None:
            answer = await job.remove()
        else:
            answer = await job.save(member(self._spool, queue))
        if isinstance(answer, Err):
            raise Failure(said(answer.error), code_of(answer.error))
