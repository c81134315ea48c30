"""`multispool adopt`: declare that every program that uses a spool takes locks."""

from trio_multispool.cli import output
from trio_multispool.cli.arguments import AsJson, Location, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.running import Ending, run
from trio_multispool.cli.spools import load, looking, refuse_on_a_server
from trio_multispool.storage.upkeep import is_adopted


def adopt(spool: Location, /, *, as_json: AsJson = False, trust_file_system: TrustFileSystem = False) -> int:
    """Declare that every program that uses a spool takes locks.

    A spool without `.spool.json` may be shared with programs that take no locks, so checked-out entries never go back
    by themselves. Adopt the spool when the last of those programs has stopped. From then on, a checked-out entry that
    nobody has locked counts as abandoned, and goes back to its queue.

    ```console
    $ multispool adopt var/mail
    ```
    """
    refuse_on_a_server(spool, "adopting", said=True, code=Exit.REFUSED)
    with looking(spool) as storage:
        queues, path, before = storage.queues(), storage.location, is_adopted(storage)
    if not queues:
        raise Failure(f"{path!r} has no queues; make one with `multispool create`", Exit.REFUSED)

    async def work(_ending: Ending) -> None:
        async with await load(spool, queues[:1], trust_file_system=trust_file_system) as opened:
            (await opened.adopt()).unwrap()

    if not before and (code := run(work)) != Exit.SUCCESS:
        return code
    if as_json:
        output.outcome_document({"spool": output.as_text(path), "adopted": True, "was_adopted": before})
    else:
        output.outcome_line(f"{output.printable(path)} {'was adopted before' if before else 'is adopted'}")
    return Exit.SUCCESS
