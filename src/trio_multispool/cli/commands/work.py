"""`multispool work`: run a command for each entry of a queue."""

import dataclasses
import math
import shutil
from typing import Annotated, Any, NamedTuple, final

import trio
from cyclopts import Parameter

from trio_multispool.cli import durations
from trio_multispool.cli.arguments import AnyQueue, Location, TrustFileSystem
from trio_multispool.cli.completing import queue_names
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.progress import bar
from trio_multispool.cli.retrying import Attempts, Outcomes, Retrier
from trio_multispool.cli.running import Ending, run
from trio_multispool.cli.sources import Source
from trio_multispool.cli.spools import AnySpool, load, looking, member, settle
from trio_multispool.cli.working import Command, Report
from trio_multispool.entries.job import CheckedOutEntry, checkout_of
from trio_multispool.errors import SpoolError
from trio_multispool.model.verdicts import Remove, Save
from trio_multispool.reader.pool import Jobs
from trio_multispool.reader.reader import QueueReader
from trio_multispool.threads.loop import is_cancellation

Job = CheckedOutEntry[Any, bytes, Source]

_DELAY_HELP = """With --attempts: how long an entry waits after its first failure (`30s`, `5m`); each next wait is twice
as long. Otherwise, without --failed and --once: how long a failed entry is kept until it goes back."""


def work(  # noqa: PLR0913  # what a person can say on the command line
    spool: Location,
    queue: Annotated[
        str,
        Parameter(
            name="QUEUE",
            help="A queue of the spool; or several, `urgent,send`, with weights if you like: `urgent=3,send=1`.",
            completer=queue_names,
        ),
    ],
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
        AnyQueue,
        Parameter(help="Where to move entries whose command failed (all their --attempts); they go back unless given."),
    ] = None,
    cancelled: Annotated[
        AnyQueue, Parameter(help="Where to move entries that somebody cancels; they are removed unless given.")
    ] = None,
    attempts: Annotated[
        int | None,
        Parameter(help="Try each entry again later, up to this many times in all; only then move it to --failed."),
    ] = None,
    once: Annotated[
        bool, Parameter(help="Try each entry once, and end when nothing is left. Exit code 6 if some failed.")
    ] = False,
    retry_delay: Annotated[str, Parameter(help=_DELAY_HELP)] = "1s",
    quiet: Annotated[bool, Parameter(alias="-q", help="No line for each entry.")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="The lines on standard error are JSON.")] = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Run a command for each entry of a queue, or of several.

    The command gets the entry's data on its standard input and, in its environment, `MULTISPOOL_NAME`,
    `MULTISPOOL_METADATA`, `MULTISPOOL_QUEUE`, `MULTISPOOL_SPOOL` and `MULTISPOOL_DATA`, the path of the data. If it
    succeeds (exit status 0), the entry is removed, or moved to `--done`; if it fails, it is moved to `--failed`, or
    goes back.

    Of several queues, each gets its share of the `--jobs` while all of them have entries, in proportion to the weights;
    without weights, all get the same. A queue that has nothing leaves its share to the others.

    With `--attempts N`, an entry whose command failed waits and is tried again, up to N times in all; then it is moved
    to `--failed`. Each wait is twice as long as the one before, up to an hour. `MULTISPOOL_ATTEMPT` is the number of
    the attempt, from 1, and `multispool show` tells how each of them ended.

    If somebody cancels an entry by `multispool cancel`, its command gets SIGTERM, and after 5 seconds SIGKILL. Then the
    entry is removed, or moved to `--cancelled`, and the work goes on with the next.

    Ctrl-C, SIGTERM and SIGHUP end it: commands that are running get SIGTERM, and after 5 seconds (or a second Ctrl-C)
    SIGKILL, and their entries go back as they were. If `work` itself is killed, the entries it had are available again
    as soon as somebody reads the queue.

    ```console
    $ multispool work var/mail send --jobs 4 --failed failed -- sendmail -t
    $ multispool work var/mail send --attempts 5 --retry-delay 30s --failed failed -- ./deliver.sh
    $ multispool work /srv/photos todo --once -- ./thumbnail.py
    ```
    """
    if jobs < 1:
        raise Failure(f"--jobs must be at least 1, not {jobs}", Exit.USAGE)
    delay = durations.parse(retry_delay)
    weights = _weights(spool, queue)
    if done in weights:
        raise Failure("--done must be another queue, or the work would never end", Exit.USAGE)
    if failed in weights:
        raise Failure("--failed must be another queue; without it, entries that failed go back", Exit.USAGE)
    if cancelled in weights:
        raise Failure("--cancelled must be another queue, or what is cancelled would begin anew", Exit.USAGE)
    report = Report(quiet, as_json)
    outcomes = None if attempts is None else Outcomes(_attempts(attempts, delay, failed), report)

    async def working(ending: Ending) -> int:
        queues = [name for name in (*weights, done, failed, cancelled) if name is not None]
        async with await load(spool, queues, trust_file_system=trust_file_system, told=outcomes) as opened:
            if shutil.which(command[0]) is None:
                raise Failure(f"cannot start {command[0]!r}: command not found")
            total = None
            if once:
                with looking(spool) as storage:
                    total = sum(len(storage.names(name)) for name in weights)
            with bar(total, shown=once and not quiet) as shown:
                report.bar, report.begun = shown, True
                running = Command(command, opened.location, ending)
                reader = opened.reader({member(opened, name): weight for name, weight in weights.items()})
                if outcomes is not None:
                    await Retrier(running, done, cancelled, outcomes).run(opened, reader, jobs, once=once)
                else:
                    where = _Where(done, failed, cancelled)
                    await _Worker(opened, running, where, delay, once, report).run(reader, jobs)
        return Exit.SOME_FAILED if once and report.counts["failed"] else Exit.SUCCESS

    try:
        return run(working)
    finally:
        report.summary()


def _weights(spool: str, told: str) -> dict[str, float]:
    """Return the queues that are told, with their weights; a queue may be called what looks like several."""
    with looking(spool) as storage:
        if told in storage.queues():
            return {told: 1.0}
    weights: dict[str, float] = {}
    for each in told.split(","):
        name, is_weighed, weight = each.rpartition("=")
        try:
            weights[name if is_weighed else each] = float(weight) if is_weighed else 1.0
        except ValueError:
            weights[each] = 1.0  # so that it is told that there is no such queue
    wrong = next((name for name, weight in weights.items() if not 0 < weight < math.inf), None)
    if wrong is not None:
        raise Failure(f"the weight of {wrong!r} must be above 0: {told!r}", Exit.USAGE)
    return weights


def _attempts(most: int, delay: float, failed: str | None) -> Attempts:
    if most < 1:
        raise Failure(f"--attempts must be at least 1, not {most}", Exit.USAGE)
    if failed is None:
        raise Failure("--attempts needs --failed QUEUE, for entries whose attempts are used up", Exit.USAGE)
    return Attempts(most, delay, failed)


class _Where(NamedTuple):
    """The queues that entries are moved to, by what became of them; `None`: they are removed, or go back."""

    done: str | None
    failed: str | None
    cancelled: str | None


@final
@dataclasses.dataclass
class _Worker:
    """Works off queues with any number of tasks."""

    spool: AnySpool
    command: Command
    where: _Where
    retry_delay: float
    once: bool
    report: Report
    trouble: Failure | SpoolError | None = None

    async def run(self, reader: QueueReader[Any, bytes, Source], jobs: int) -> None:
        """Work until nothing is left (`once`), the scope is cancelled, or something is wrong (a `Failure`)."""
        async with reader:
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
                    try:
                        await self._attempt(job)
                    except BaseException as ended:  # passed on
                        if _was_cancelled(job, ended) and not job.settled:
                            await self._cancel(job)
                        raise
        except (Failure, SpoolError) as error:  # not through the nursery, which would wrap it
            self.trouble = self.trouble or error
            scope.cancel()

    async def _attempt(self, job: Job) -> None:
        """Run the command on an entry, and settle it."""
        queue = job.queue.value
        try:
            status, told = await self.command.run(job.metadata, job.data)
        except BaseException as ended:  # passed on
            if not _was_cancelled(job, ended):
                # A signal, or the command cannot be started: leaving the job's block returns the entry.
                self.report.tell_returned(job.name, queue)
            raise
        destination = self.where.done if status == 0 else self.where.failed
        # What a command has done is kept, though the work may be ending.
        with trio.CancelScope(shield=True):
            if status == 0 or destination is not None:
                await settle(self.spool, job, destination)
        if status == 0:
            self.report.tell_done(job.name, status, destination)
            return
        now_in = queue if destination is None else destination
        self.report.tell(job.name, "failed", status, now_in, f"failed ({told}), now in {now_in}")
        if not job.settled:
            if not self.once:
                await trio.sleep(self.retry_delay)
            (await job.release()).unwrap()

    async def _cancel(self, job: Job) -> None:
        """Settle an entry that somebody has cancelled; its command has been ended."""
        queue, checkout = self.where.cancelled, checkout_of(job)
        verdict: Save[Any, bytes] | Remove = Remove() if queue is None else Save(member(self.spool, queue))
        (await checkout.settle_cancelled(verdict)).unwrap()
        self.report.tell_cancelled(job.name, queue, checkout.cancel_reason)


def _was_cancelled(job: Job, ended: BaseException) -> bool:
    """Tell whether the work on an entry has ended so because somebody has cancelled it."""
    return job.cancel_requested and is_cancellation(ended)
