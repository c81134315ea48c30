"""`multispool fsck`: look a spool over for what is wrong, and put right what can be."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli import checking, output
from trio_multispool.cli.arguments import AsJson, SpoolPath, TrustFileSystem
from trio_multispool.cli.checking import TEN_MINUTES, JsonMetadata, MaxAge, MaxCheckedOutAge, MaxTmpFileAge, QueueAges
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.opening import looking
from trio_multispool.cli.running import Ending, run
from trio_multispool.monitor import Action, Problem, Repair
from trio_multispool.storage.directory import DirectoryStorage


def fsck(  # noqa: PLR0913  # the options of the command
    spool: SpoolPath,
    /,
    *,
    repair: Annotated[
        bool,
        Parameter(name="--repair", negative="", show_default=False, help="Put right what can be without losing data."),
    ] = False,
    dry_run: Annotated[
        bool,
        Parameter(
            name=["--dry-run", "-n"],
            negative="",
            show_default=False,
            help="Change nothing; say what --repair would do.",
        ),
    ] = False,
    max_checked_out_age: MaxCheckedOutAge = TEN_MINUTES,
    max_tmp_file_age: MaxTmpFileAge = TEN_MINUTES,
    max_age: MaxAge = None,
    json_metadata: JsonMetadata = False,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
    **queue_ages: QueueAges,
) -> int:
    """Look a spool over for what is wrong, and put right what can be.

    Finds entries whose owner is dead, that wait or are checked out for too long, that have lost their data or their
    reservation, that lie in several places, whose metadata is not JSON (with `--json-metadata`); reservations and data
    of no entry, old temporary files, and whatever else does not belong in a spool.

    It is safe beside running programs: what looks wrong is looked at again under its lock, so that an entry in motion
    is never reported. Without `--repair`, nothing is changed. With it, abandoned entries go back to their queues,
    leftovers are deleted, and what cannot be read or has lost its data is set aside in quarantine; what needs a person
    is left, and said so.

    Exit code: 0 if nothing is wrong, or everything was put right; 1 if something is.

    ```console
    $ multispool fsck var/mail --max-send-age 1h
    $ multispool fsck var/mail --repair --dry-run
    $ multispool fsck var/mail --repair
    ```
    """
    limits = checking.limits(spool, max_checked_out_age, max_tmp_file_age, max_age or [], queue_ages)
    with looking(spool) as storage:
        path, adopted = storage.path, storage.adopted
    if repair and not dry_run:
        _refuse_unless_safe(path, trust_file_system=trust_file_system)
    problems: list[Problem] = []
    repairs: list[Repair] = []

    async def work(_ending: Ending) -> int:
        async with checking.monitoring(spool, limits, json_metadata=json_metadata) as monitor:
            problems.extend((await monitor.run_once()).unwrap())
            if repair or dry_run:
                planned = dry_run or not repair
                repairs.extend((await monitor.repair(problems, dry_run=planned)).unwrap())
        return Exit.SUCCESS

    if (code := run(work)) != Exit.SUCCESS:
        return code
    if as_json:
        _print_json(path, problems, repairs, adopted=adopted)
    else:
        _print(problems, repairs, dry_run=dry_run)
    if not adopted:
        note = f"note: {path!r} is not adopted (it has no .spool.json): nobody there is known to be dead"
        output.complain(f"{note}; see multispool adopt --help")
    done = sum(each.done for each in repairs)
    return Exit.SUCCESS if done == len(problems) else Exit.FAILED


def _refuse_unless_safe(path: str, *, trust_file_system: bool) -> None:
    storage = DirectoryStorage.open(path, [], trust_file_system=trust_file_system, recover=False)
    try:
        if not storage.adopted:
            reason = "is not adopted, so nobody can be taken for dead; see multispool adopt --help"
            raise Failure(f"{path!r} {reason}", Exit.REFUSED)
    finally:
        storage.close()


def _print(problems: list[Problem], repairs: list[Repair], *, dry_run: bool) -> None:
    for problem in problems if not repairs else ():
        output.line(checking.in_words(problem))
    for repair in repairs:
        output.line(f"{checking.in_words(repair.problem)}: {output.printable(_outcome(repair))}")
    if not problems:
        output.line("nothing is wrong")
        return
    told = _number(len(problems), "problem")
    if repairs:
        could = sum(each.action is not Action.LEAVE for each in repairs)
        told += (
            f", {could if dry_run else sum(each.done for each in repairs)} {'can be' if dry_run else 'were'} put right"
        )
    output.line(told)


def _outcome(repair: Repair) -> str:
    return repair.action.value if repair.done else repair.why


def _number(number: int, of: str) -> str:
    return f"{number} {of}{'' if number == 1 else 's'}"


def _print_json(path: str, problems: list[Problem], repairs: list[Repair], *, adopted: bool) -> None:
    found: dict[str, object] = {
        "spool": output.as_text(path),
        "adopted": adopted,
        "problems": [checking.document(problem) for problem in problems],
    }
    if repairs:
        found["repairs"] = [
            checking.document(each.problem)
            | {"action": each.action.name.lower(), "done": each.done, "why": output.as_text(each.why)}
            for each in repairs
        ]
    output.document(found)
