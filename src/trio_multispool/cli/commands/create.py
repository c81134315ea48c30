"""`multispool create`: make a spool, or add queues to one."""

import stat
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.arguments import AsJson, Location, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.running import Ending, run
from trio_multispool.cli.spools import looking, refuse_on_a_server, spoolable
from trio_multispool.errors import NotASpool
from trio_multispool.model.names import invalid_name
from trio_multispool.spool.spool import Spool
from trio_multispool.storage.upkeep import is_adopted

_WORLD_WRITABLE = 0o002
_ALL = 0o777
_PRIVATE = 0o700


def create(
    spool: Location,
    /,
    *queues: Annotated[str, Parameter(name="QUEUE", required=True, help="The queues to make.")],
    mode: Annotated[str | None, Parameter(help="The permissions of a new spool, in octal; 700 unless given.")] = None,
    not_adopted: Annotated[bool, Parameter(help="Make a spool also for programs that take no locks.")] = False,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Make a spool, or add queues to one.

    Queues that exist are left as they are, so it can be repeated. A directory that holds something else is refused.

    ```console
    $ multispool create var/mail send retry failed
    $ multispool create --mode 770 /srv/jobs todo
    $ multispool create --not-adopted var/mail send
    ```
    """
    for queue in queues:
        if (fault := invalid_name(queue)) is not None:
            raise fault
    wanted = None if mode is None else _parsed(mode)
    for option, said in (("--mode", mode is not None), ("--not-adopted", not_adopted)):
        refuse_on_a_server(spool, option, said=said)
    refuse_on_a_server(spool, "--trust-file-system", said=trust_file_system)
    before, adopted = _looked_at(spool)
    if before is not None and wanted is not None:
        found = stat.S_IMODE(Path(spool).stat().st_mode)
        if found != wanted:
            raise Failure(f"{spool!r} exists with mode {found:o}; change it with chmod", Exit.REFUSED)
    if not_adopted and adopted:
        raise Failure(f"{spool!r} exists, and is adopted: programs that take no locks must not use it", Exit.REFUSED)

    async def work(_ending: Ending) -> None:
        opened = await Spool.create(
            spool,
            spoolable(queues),
            adopted=not not_adopted,
            directory_mode=_PRIVATE if wanted is None else wanted,
            trust_file_system=trust_file_system,
        )
        opened.unwrap().close()

    if (code := run(work)) != Exit.SUCCESS:
        return code
    made = [queue for queue in dict.fromkeys(queues) if queue not in (before or [])]
    with looking(spool) as storage:
        everything, path = storage.queues(), storage.location
    if as_json:
        output.outcome_document({"spool": output.as_text(path), "queues": everything, "created": made})
        return Exit.SUCCESS
    added = f"added {', '.join(made)}" if made else "nothing to add"
    told = f"created, with {', '.join(made)}" if before is None else f"was there; {added}"
    output.outcome_line(output.printable(f"{path} {told}"))
    return Exit.SUCCESS


def _parsed(mode: str) -> int:
    try:
        parsed = int(mode, 8)
    except ValueError:
        parsed = -1
    if not _PRIVATE <= parsed <= _ALL:
        told = f"--mode is three octal digits that give the owner everything, such as 770, not {mode!r}"
    elif parsed & _WORLD_WRITABLE:
        told = f"--mode {mode} would let everybody write; a spool that everybody can write is refused"
    else:
        return parsed
    raise Failure(told, Exit.USAGE)


def _looked_at(spool: Location) -> tuple[list[str] | None, bool]:
    """Return the queues that are there, `None` if there is no spool, and whether it is adopted."""
    try:
        with looking(spool) as storage:
            return storage.queues(), is_adopted(storage)
    except NotASpool:  # to be made, or refused by the library with its reason
        return None, False
