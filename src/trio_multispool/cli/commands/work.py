"""`multispool work`: run a command for each entry of a queue."""

import dataclasses
import shutil
from collections import Counter
from typing import Annotated, Any, Final, final

import trio
from cyclopts import Parameter

from trio_multispool.cli import child, output
from trio_multispool.cli.arguments import AnyQueue, QueueName, SpoolPath, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.progress import Bar, bar
from trio_multispool.cli.running import Ending, run
from trio_multispool.cli.sources import Source
from trio_multispool.cli.spools import AnySpool, load, looking, member, settle
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.errors import SpoolError
from trio_multispool.reader.pool import Jobs

Job = CheckedOutEntry[Any, bytes, Source]


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
    jobs: Annotated[int, Parameter(alias="-j", help="How many commands run at a time.")] = 1,
    done: Annotated[
        AnyQueue, Parameter(help="Where to move entries whose command succeeded; they are removed unless given.")
    ] = None,
    failed: Annotated[
        AnyQueue, Parameter(help="Where to move entries whose command failed; they go back unless given.")
    ] = None,
    once: Annotated[
        bool, Parameter(help="Try each entry once, and end when nothing is left. Exit code 6 if some failed.")
    ] = False,
    retry_delay: Annotated[
        float,
        Parameter(help="How many seconds a failed entry is kept before it goes back (without --failed and --once)."),
    ] = 1.0,
    quiet: Annotated[bool, Parameter(alias="-q", help="No line for each entry.")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="The lines on standard error are JSON.")] = False,
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
    if jobs < 1:
        raise Failure(f"--jobs must be at least 1, not {jobs}", Exit.USAGE)
    if not 0 <= retry_delay < float("inf"):
        raise Failure(f"--retry-delay must be a number of seconds, not {retry_delay}", Exit.USAGE)
    if done == queue:
        raise Failure("--done must be another queue, or the work would never end", Exit.USAGE)
    if failed == queue:
        raise Failure("--failed must be another queue; without it, entries that failed go back", Exit.USAGE)
    report = _Report(quiet, as_json)

    async def working(ending: Ending) -> int:
        queues = [name for name in (queue, done, failed) if name is not None]
        async with await load(spool, queues, trust_file_system=trust_file_system) as opened:
            if shutil.which(command[0]) is None:
                raise Failure(f"cannot start {command[0]!r}: command not found")
            total = None
            if once:
                with looking(spool) as storage:
                    total = len(storage.names(queue))
            with bar(total, shown=once and not quiet) as shown:
                report.bar = shown
                await _Worker(opened, queue, command, done, failed, retry_delay, once, report, ending).run(jobs)
        return Exit.SOME_FAILED if once and report.counts["failed"] else Exit.SUCCESS

    try:
        return run(working)
    finally:
        report.summary()


_STYLES: Final = {"done": "green", "failed": "red", "returned": "yellow"}


@final
@dataclasses.dataclass
class _Report:
    """Counts what became of the entries, and prints it."""

    quiet: bool
    as_json: bool
    bar: Bar = dataclasses.field(default_factory=Bar)
    begun: bool = False
    """Whether there was work to do or to wait for, so that a summary is printed."""
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def tell(self, name: str, outcome: str, status: int | None, queue: str | None, told: str) -> None:
        """Tell what became of an entry, the `status` of its command, and in which queue it is now, if in any."""
        self.counts[outcome] += 1
        self.bar.advance()
        if self.as_json:
            output.remark(output.encoded({"name": name, "outcome": outcome, "status": status, "queue": queue}))
        elif not self.quiet:
            self.bar.remark(output.printable(f"multispool: {name}: {told}"), _STYLES[outcome])

    def summary(self) -> None:
        """Sum up, once the work has ended."""
        if not self.begun:
            return
        counts = {outcome: self.counts[outcome] for outcome in _STYLES}
        if self.as_json:
            output.remark(output.encoded(counts))
        else:
            returned = f", returned {counts['returned']}" if counts["returned"] else ""
            output.complain(f"done {counts['done']}, failed {counts['failed']}{returned}")


@final
@dataclasses.dataclass
class _Worker:
    """Works off one queue with any number of tasks."""

    spool: AnySpool
    queue: str
    command: tuple[str, ...]
    done: str | None
    failed: str | None
    retry_delay: float
    once: bool
    report: _Report
    ending: Ending
    trouble: Failure | SpoolError | None = None

    async def run(self, jobs: int) -> None:
        """Work until nothing is left (`once`), the scope is cancelled, or something is wrong (a `Failure`)."""
        self.report.begun = True
        async with self.spool.reader(member(self.spool, self.queue)) as reader:
            coming = reader.available() if self.once else aiter(reader)
            async with trio.open_nursery() as nursery:
                for _ in range(jobs):
                    nursery.start_soon(self._work_off, coming, nursery.cancel_scope)
        if self.trouble is not None:
            raise self.trouble

    async def _work_off(self, coming: Jobs[Any, bytes, Source], scope: trio.CancelScope) -> None:
        try:
            async for job in coming:
                async with job:
                    await self._attempt(job)
        except (Failure, SpoolError) as error:  # not through the nursery, which would wrap it
            self.trouble = self.trouble or error
            scope.cancel()

    async def _attempt(self, job: Job) -> None:
        """Run the command on an entry, and settle it."""
        queue, told = self.queue, None
        try:
            status, told = await self._run(job)
        finally:
            if told is None:  # cancelled, or the command cannot be started: leaving the job's block returns the entry
                self.report.tell(job.name, "returned", None, queue, f"returned to {queue}")
        destination = self.done if status == 0 else self.failed
        # What a command has done is kept, though the work may be ending.
        with trio.CancelScope(shield=True):
            if status == 0 or destination is not None:
                await settle(self.spool, job, destination)
        if status == 0:
            moved = "" if destination is None else f", moved to {destination}"
            self.report.tell(job.name, "done", status, destination, f"done{moved}")
            return
        now_in = queue if destination is None else destination
        self.report.tell(job.name, "failed", status, now_in, f"failed ({told}), now in {now_in}")
        if not job.settled:
            if not self.once:
                await trio.sleep(self.retry_delay)
            (await job.release()).unwrap()

    async def _run(self, job: Job) -> tuple[int | None, str]:
        """Run the command, and return its status, `None` if there is no data to run it on, and how to say it."""
        task = child.Task(str(self.spool.path), self.queue, job.name, job.metadata, str(job.data.path))
        try:
            status, told = await child.run_command(self.command, task, self.ending)
        except OSError as error:
            raise Failure(f"cannot start {self.command[0]!r}: {error.strerror}") from error
        if status is not None and child.ended_with_us(status):
            await trio.sleep(child.ECHO)
        return status, told
