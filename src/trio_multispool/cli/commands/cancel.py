"""`multispool cancel`: remove entries that nobody has, and have whoever has the others end the work on them."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Final, final

import trio
from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.arguments import FromQueue, Location
from trio_multispool.cli.checkouts import with_each
from trio_multispool.cli.completing import names_to_cancel
from trio_multispool.cli.exits import Failure
from trio_multispool.cli.finding import each_named, find, no_entry, not_set_aside
from trio_multispool.cli.progress import bar, counting
from trio_multispool.cli.running import Ending, run_telling
from trio_multispool.cli.selecting import NOTHING_CHOSEN, Criteria, Settling, criteria_of, selected
from trio_multispool.cli.spools import AnySpool, AnyStorage, load, looking
from trio_multispool.errors import EntryBusy, EntryNotFound, NotAdopted, SpoolError
from trio_multispool.looks import owners
from trio_multispool.model.cancellation import Cancelled
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.requests import Item

_ANYWHERE: Final = (State.AVAILABLE, State.WAITING, State.CHECKED_OUT)
"""In this order: a worker whose entry is cancelled would take the next one that is available."""


def cancel(
    spool: Location,
    /,
    *names: Annotated[str, Parameter(name="NAME", help="The entries to cancel.", completer=names_to_cancel)],
    reason: Annotated[
        str | None, Parameter(help="Why, for people: whoever has the entry is told, and `show` shows it.")
    ] = None,
    source: FromQueue = None,
    in_hand: Annotated[bool, Parameter(help="Select only entries that somebody works on.")] = False,
    options: Settling = NOTHING_CHOSEN,
) -> int:
    """Cancel entries, wherever they are.

    An entry that is available or waits is removed, with its data. Of one that is being worked on, the owner is asked to
    end the work: it is told within moments, cancels its handler (`work` ends its command), and then removes the entry,
    or moves it to where it keeps what is cancelled. This command does not wait for that. `show` tells that it was asked
    for, until it is done.

    If you name entries, all are tried; the exit code is that of the first that failed. If you select them, it cancels
    those that fit in any state but quarantine, and with `--in-hand` only those that somebody works on.

    ```console
    $ multispool cancel var/mail 20261124T013810.123456789Z-8f31c2aa --reason "withdrawn"
    $ multispool cancel var/mail --from send --in-hand --older-than 2h --dry-run
    ```
    """
    criteria = criteria_of(options, names, more=source is not None or in_hand)
    states = (State.CHECKED_OUT,) if in_hand else _ANYWHERE
    done: list[_Outcome] = []
    with looking(spool, source) as storage:
        choosing = _Choosing(spool, storage, names, source, states, criteria)
        if options.dry_run:
            code = _rehearse(choosing, done, as_json=options.as_json)
        else:
            work = functools.partial(_cancel_all, choosing, options, reason or "", done)
            code = run_telling(work, done, "cancelled")
    if options.as_json:
        output.outcome_document([outcome.document() for outcome in done], dry_run=options.dry_run)
    elif criteria is not None:
        output.outcome_sum("cancelled", len(done), dry_run=options.dry_run)
    return code


@final
@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What was, or would be, done about an entry; `item` is how it was seen last."""

    item: Item
    done: Cancelled

    def told(self, *, dry_run: bool = False) -> str:
        """Say it to a person."""
        item, would = self.item, "would be " if dry_run else ""
        if self.done is Cancelled.REMOVED:
            told = f"{would}removed from {item.place.queue}"
        else:
            owner = "its owner" if item.owner is None else f"its owner, {owners.told(item.owner)},"
            told = f"{owner} {would or 'was '}asked to end the work on it"
        return output.printable(f"{item.name}: {told}")

    def document(self) -> dict[str, object]:
        """Describe it for a script."""
        item, asked = self.item, self.done is Cancelled.ASKED
        owner = owners.described(item.owner) if asked else None
        return {"name": item.name, "from": item.place.queue, "outcome": self.done.value, "owner": owner}


@final
@dataclasses.dataclass(frozen=True)
class _Choosing:
    """Which entries are meant."""

    location: str
    storage: AnyStorage
    names: tuple[str, ...]
    source: str | None
    states: tuple[State, ...]
    criteria: Criteria | None

    def items(self, troubles: output.Troubles) -> Iterator[Item | None]:
        """Yield them, and `None` now and then, as they are when they are looked at."""
        if self.criteria is None:
            yield from each_named(self.names, lambda name: not_set_aside(find(self.storage, name)), troubles)
        else:
            for state in self.states:
                yield from selected(self.storage, self.source, state, self.criteria, troubles)

    def fits_still(self, item: Item) -> bool:
        """Tell whether a selected entry is where it was, and as it was."""
        found = self.storage.find(item.name)
        return (
            found is not None
            and found.place.state in self.states
            and (found.place.queue, found.modified_at) == (item.place.queue, item.modified_at)
        )


def _rehearse(choosing: _Choosing, done: list[_Outcome], *, as_json: bool) -> int:
    troubles = output.Troubles()
    for item in choosing.items(troubles):
        if item is not None:
            asked = item.place.state is State.CHECKED_OUT
            done.append(_Outcome(item, Cancelled.ASKED if asked else Cancelled.REMOVED))
            if not as_json:
                output.line(done[-1].told(dry_run=True))
    return troubles.code


async def _cancel_all(
    choosing: _Choosing, options: Settling, reason: str, done: list[_Outcome], _ending: Ending
) -> int:
    """Cancel the entries; note in `done` what became of them, and return the exit code."""
    named = choosing.criteria is None
    async with contextlib.AsyncExitStack() as stack:
        shown = stack.enter_context(bar(len(choosing.names), shown=named and len(choosing.names) > 1))
        count: Callable[[], object] = shown.advance if named else stack.enter_context(counting("cancelled"))
        troubles = output.Troubles(shown.remark)
        canceller = _Canceller(choosing, options, reason, stack)

        async def cancel_one(item: Item) -> None:
            try:
                outcome = await canceller.cancel(item)
            except (EntryBusy, NotAdopted, Failure) as error:  # of this entry alone
                troubles.tell(error)
                outcome = None
            if outcome is not None:
                done.append(outcome)
                if not options.as_json:
                    with output.outcome(outcome.told()):
                        shown.result(outcome.told())
            count()

        if named:
            for item in choosing.items(troubles):
                await trio.lowlevel.checkpoint()
                if item is None:
                    count()
                    continue
                try:
                    await cancel_one(item)
                except SpoolError as error:
                    troubles.tell(error)
                    count()
        else:
            await with_each(choosing.items(troubles), cancel_one)
        return troubles.code


@final
@dataclasses.dataclass
class _Canceller:
    """Cancels entries one by one."""

    choosing: _Choosing
    options: Settling
    reason: str
    stack: contextlib.AsyncExitStack
    spool: AnySpool | None = None
    opening: trio.Lock = dataclasses.field(default_factory=trio.Lock)

    async def cancel(self, item: Item) -> _Outcome | None:
        """Cancel an entry; `None` if it was selected, and is not what was selected any more."""
        spool = await self._opened(item.place.queue)
        named, storage = self.choosing.criteria is None, self.choosing.storage
        if not (named or self.choosing.fits_still(item)):
            return None
        try:
            answer = (await spool.cancel(item.name, reason=self.reason)).unwrap()
        except EntryNotFound as error:
            if not named:
                return None
            _ = not_set_aside(find(storage, item.name))  # says where it is, or was
            raise no_entry(storage, item.name) from error
        if answer is Cancelled.ASKED:
            found = storage.find(item.name)
            item = item if found is None or found.owner is None else found
        return _Outcome(item, answer)

    async def _opened(self, queue: str) -> AnySpool:
        """Return the spool, loaded with the first queue that has one of the entries: others are found all the same."""
        async with self.opening:
            if self.spool is None:
                trusting = self.options.trust_file_system
                loaded = await load(self.choosing.location, [queue], trust_file_system=trusting, recover=False)
                self.spool = await self.stack.enter_async_context(loaded)
            return self.spool
