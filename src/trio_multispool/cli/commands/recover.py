"""`multispool recover`: put back what dead processes had checked out, and collect what belongs to no entry."""

from trio_multispool.cli import output
from trio_multispool.cli.arguments import AsJson, DryRun, Location, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.running import ended_between_entries, say_interrupted
from trio_multispool.cli.spools import opened
from trio_multispool.errors import SpoolError
from trio_multispool.storage.requests import Recovered
from trio_multispool.storage.upkeep import is_adopted


def recover(
    spool: Location, /, *, dry_run: DryRun = False, as_json: AsJson = False, trust_file_system: TrustFileSystem = False
) -> int:
    """Put back what dead processes had, and collect what belongs to no entry.

    Programs that load or read the spool put entries back by themselves. This command does so now, in all queues. It
    also deletes what killed enqueues and power loss have left behind. It acts only on what nobody has locked, so it is
    safe beside running programs. It may be interrupted at any time. If something could not be recovered, standard error
    says what, and the exit code is 1.

    ```console
    $ multispool recover var/mail --dry-run
    $ multispool recover var/mail
    ```
    """
    recovered: list[Recovered] = []
    troubles, failed = output.Troubles(), 0
    with opened(spool, trust_file_system=trust_file_system) as storage, ended_between_entries() as ending:
        if not is_adopted(storage):
            reason = "is not adopted, so nothing can be taken for abandoned; see multispool adopt --help"
            raise Failure(f"{storage.location!r} {reason}", Exit.REFUSED)
        for each in troubles.until(storage.recover_all(dry_run=dry_run)):
            if isinstance(each, SpoolError):  # the log has told it
                failed += 1
            elif each is not None:
                recovered.append(each)
                if not as_json:
                    output.outcome_line(_line(each, dry_run=dry_run), dry_run=dry_run)
            if ending.signal is not None:
                break
    code = troubles.code or (Exit.FAILED if failed else Exit.SUCCESS)
    if ending.signal is not None:
        code = say_interrupted(ending.signal, "recovered", None if dry_run else len(recovered))
    if as_json:
        found = [
            {"name": output.as_text(each.name), "queue": None if each.queue is None else output.as_text(each.queue)}
            for each in recovered
        ]
        told = {"spool": output.as_text(storage.location), "dry_run": dry_run, "recovered": found, "failed": failed}
        output.outcome_document(told, dry_run=dry_run)
    elif not recovered and not code:
        output.line("nothing to recover")
    return code


def _line(recovered: Recovered, *, dry_run: bool) -> str:
    name = output.printable(recovered.name)
    if recovered.queue is None:
        return f"{name}: {'would be' if dry_run else 'was'} collected, it belonged to no entry"
    return f"{name}: {'would go back to' if dry_run else 'is back in'} {output.printable(recovered.queue)}"
