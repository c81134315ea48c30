"""`multispool fsck`: check a spool for problems, and repair what can be repaired."""

import itertools
from typing import Annotated, Final, final

import trio
from cyclopts import Parameter

from trio_multispool.cli import checking, output
from trio_multispool.cli.arguments import AsJson, Location, TrustFileSystem
from trio_multispool.cli.checking import AS_USUAL, Checks, QueueAges
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.running import Ending, run, run_telling
from trio_multispool.cli.spools import looking, opened
from trio_multispool.monitor import Action, Problem, Repair
from trio_multispool.storage.requests import Advice
from trio_multispool.storage.upkeep import is_adopted

_PASSES: Final = 5
"""Check the spool again at most this often: beside running programs, something may always be new."""


def fsck(  # noqa: PLR0913  # the options of the command
    spool: Location,
    /,
    *,
    repair: Annotated[bool, Parameter(help="Repair what can be without losing data.")] = False,
    dry_run: Annotated[bool, Parameter(alias="-n", help="Change nothing; say what --repair would do.")] = False,
    checks: Checks = AS_USUAL,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
    **queue_ages: QueueAges,
) -> int:
    """Check a spool for problems, and repair what can be repaired.

    Finds entries whose owner is dead, that wait or are checked out for too long, that have lost their data or their
    reservation, that lie in several places, or whose metadata is not JSON (with `--json-metadata`). Also finds what
    cannot be read (also notes and remembered names), reservations and data that belong to no entry, old temporary
    files, and what else is no part of a spool.

    It is safe beside running programs: it looks at each suspect again under its lock, and never reports an entry in
    motion. Without `--repair`, nothing is changed. With it, abandoned entries go back to their queues, leftovers are
    deleted, and entries that cannot be read or have lost their data are set aside in quarantine. What needs a person
    is left, and the output says so.

    A store may also have advice for those who look after it: a server's settings, for example. It changes no exit code.

    Exit code: 0 if nothing is wrong, or everything was repaired; 7 if something is still wrong.

    ```console
    $ multispool fsck var/mail --max-send-age 1h
    $ multispool fsck var/mail --repair --dry-run
    $ multispool fsck var/mail --repair
    ```
    """
    limits = checking.limits(spool, checks, queue_ages)
    with looking(spool) as storage:
        path, adopted, advice = storage.location, is_adopted(storage), storage.advice()
    repairs = repair and not dry_run
    if repairs:
        with opened(spool, trust_file_system=trust_file_system):  # which refuses what is not safe
            pass
        if not adopted:
            reason = "is not adopted, so nobody can be taken for dead; see multispool adopt --help"
            raise Failure(f"{path!r} {reason}", Exit.REFUSED)
    seen = _Seen(tells=not as_json)

    async def work(_ending: Ending) -> None:
        async with checking.monitoring(spool, limits, json_metadata=checks.json_metadata, repairs=repairs) as monitor:
            seen.left = (await monitor.run_once()).unwrap()
            if dry_run:
                for planned in (await monitor.repair(seen.left)).unwrap():
                    seen.note(planned)
            elif repair:
                await seen.put_right(monitor)
            else:
                seen.note_found()

    code = run_telling(work, seen.repaired, "repaired") if repairs else run(work)
    if code and not (as_json and seen.repaired):
        return code
    if as_json:
        _print_json(path, seen, advice, adopted=adopted)
    else:
        told = [f"advice: {output.printable(each.what)}; {output.printable(each.cure)}" for each in advice]
        told.append(seen.total(dry_run=dry_run, repair=repair))
        output.outcome_line("\n".join(told), dry_run=not seen.repaired)
    if not adopted:
        note = f"note: {path!r} is not adopted (it has no .spool.json): nobody there is known to be dead"
        output.complain(f"{note}; see multispool adopt --help")
    return code or (Exit.PROBLEMS if seen.left else Exit.SUCCESS)


@final
class _Seen:
    """The problems, and what became of them; printed at once, so that an interrupted run has said what it did.

    One repair may reveal the next problem (an entry that is put back turns out to have no data). So the spool is
    checked again until nothing more is done. What the last check finds is what is left.
    """

    def __init__(self, *, tells: bool) -> None:
        self.problems: dict[Problem, None] = {}
        self.repairs: list[Repair] = []
        self.repaired: dict[str, None] = {}
        """The names of which something was."""
        self.left: list[Problem] = []
        self._tells = tells

    def note_found(self) -> None:
        for problem in self.left:
            if problem not in self.problems:
                self.problems[problem] = None
                self._say(checking.in_words(problem))

    async def put_right(self, monitor: checking.AnyMonitor) -> None:
        for _ in range(_PASSES):
            done = False
            for _name, together in itertools.groupby(self.left, key=lambda problem: problem.name):
                await trio.lowlevel.checkpoint_if_cancelled()
                with trio.CancelScope(shield=True):  # a signal ends it between two names: all that was done is told
                    for repair in (await monitor.repair(together, dry_run=False)).unwrap():
                        done = done or repair.done
                        if repair.done or repair.problem not in self.problems:
                            self.note(repair)
            self.left = (await monitor.run_once()).unwrap() if self.left else []
            if not done:
                break
        self.note_found()  # what is new since, beside running programs

    def total(self, *, dry_run: bool, repair: bool) -> str:
        if not self.problems:
            return "nothing is wrong"
        told = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        if dry_run:
            return f"{told}, {sum(each.action is not Action.LEAVE for each in self.repairs)} can be repaired"
        if repair:
            return f"{told}, {output.entries(len(self.problems) - len(self.left), 'was', 'were')} repaired"
        return told

    def note(self, repair: Repair) -> None:
        self.problems[repair.problem] = None
        self.repairs.append(repair)
        if repair.done:
            self.repaired[repair.problem.name] = None
        outcome = repair.action.value if repair.done else repair.why
        self._say(f"{checking.in_words(repair.problem)}: {output.printable(outcome)}", done=repair.done)

    def _say(self, line: str, *, done: bool = False) -> None:
        if self._tells:
            output.outcome_line(line, dry_run=not done)


def _print_json(path: str, seen: _Seen, advice: list[Advice], *, adopted: bool) -> None:
    found: dict[str, object] = {
        "spool": output.as_text(path),
        "adopted": adopted,
        "problems": [checking.document(problem) for problem in seen.problems | dict.fromkeys(seen.left)],
        "advice": [{"what": output.as_text(each.what), "cure": output.as_text(each.cure)} for each in advice],
    }
    if seen.repairs:
        found["repairs"] = [
            checking.document(each.problem)
            | {"action": each.action.name.lower(), "done": each.done, "why": output.as_text(each.why)}
            for each in seen.repairs
        ]
    output.outcome_document(found, dry_run=not seen.repaired)
