"""`multispool expire`: remove what a queue need not keep."""

from typing import Annotated, Any

import trio
from cyclopts import Parameter

from trio_multispool.cli import durations, output
from trio_multispool.cli.arguments import AsJson, DryRun, Location, QueueName, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.running import Ending, run_telling
from trio_multispool.cli.spools import Done, load, looking, member
from trio_multispool.cli.working import Command
from trio_multispool.entries.datafile import DataFile
from trio_multispool.model.policies import Retention
from trio_multispool.model.verdicts import Release, Remove
from trio_multispool.spool.retention import not_to_be_kept


def expire(  # noqa: PLR0913  # what a person can say on the command line
    spool: Location,
    queue: QueueName,
    /,
    *command: Annotated[
        str,
        Parameter(
            name="COMMAND", help="After `--`: run for each entry before it is removed; if it fails, the entry is kept."
        ),
    ],
    max_age: Annotated[
        str | None, Parameter(help="Remove entries whose metadata was written longer ago: `12h`, `30d`.")
    ] = None,
    max_count: Annotated[int | None, Parameter(help="Keep at most this many entries; remove the oldest first.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Remove entries that are too old, and the oldest if there are too many.

    Use it, from a timer for example, for queues that have no reader, such as dead letters. It removes only available
    entries, and prints how many. A command gets the same as that of `work`: the data on its standard input, and
    `MULTISPOOL_NAME` and the others in its environment.

    ```console
    $ multispool expire var/mail failed --max-age 30d --max-count 100000
    $ multispool expire var/mail failed --max-age 30d -- ./archive.sh
    ```
    """
    if max_age is None and max_count is None:
        raise Failure("say what is not to be kept: --max-age, or --max-count, or both", Exit.USAGE)
    if max_count is not None and max_count < 0:
        raise Failure(f"--max-count must not be negative, and is {max_count}", Exit.USAGE)
    retention = Retention(max_age=None if max_age is None else durations.parse(max_age), max_count=max_count)
    if dry_run:
        with looking(spool, queue) as storage:
            found = not_to_be_kept(storage, queue, retention, storage.now())
        if found.misdated:
            first = output.printable(found.misdated[0].name)
            output.complain(f"{len(found.misdated)} would be left: their dates cannot be, such as that of {first}")
        return _tell([name for _, name in found.to_go], dry_run=True, as_json=as_json)
    done = Done()

    async def work(ending: Ending) -> None:
        async with await load(spool, [queue], trust_file_system=trust_file_system, told=done) as opened:
            running, one_at_a_time = Command(command, opened.location, ending), trio.CapacityLimiter(1)

            async def before(metadata: bytes, data: DataFile[Any]) -> Remove | Release:
                if not command:
                    return Remove()
                async with one_at_a_time:
                    try:
                        status, told = await running.run(metadata, data)
                    except Failure as failure:
                        status, told = None, str(failure)
                if status == 0:
                    return Remove()
                output.complain(f"{data.name} is kept: {told}")
                return Release()

            _ = (await opened.expire(member(opened, queue), retention, before_expiry=before)).unwrap()

    code = run_telling(work, done.entries, "removed")
    return _tell(sorted(name for name, _ in done.entries), dry_run=False, as_json=as_json) or code


def _tell(names: list[str], *, dry_run: bool, as_json: bool) -> int:
    if as_json:
        output.outcome_document(names, dry_run=dry_run)
        return Exit.SUCCESS
    for name in names if dry_run else ():
        output.line(f"{output.printable(name)}: would be removed")
    output.outcome_sum("removed", len(names), dry_run=dry_run)
    return Exit.SUCCESS
