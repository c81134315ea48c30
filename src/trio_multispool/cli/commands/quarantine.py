"""`multispool quarantine`: look at what was set aside, put it back, or drop it."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, NamedTuple

from cyclopts import App, Parameter

from trio_multispool.cli import output
from trio_multispool.cli.arguments import AnyQueue, AsJson, Location
from trio_multispool.cli.commands.ls import item_document
from trio_multispool.cli.commands.show import show as show_entry
from trio_multispool.cli.completing import quarantined_names
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.finding import each_named, find
from trio_multispool.cli.render import table
from trio_multispool.cli.running import ended_between_entries, say_interrupted
from trio_multispool.cli.selecting import NOTHING_CHOSEN, Criteria, Settling, criteria_of, selected
from trio_multispool.cli.spools import AnyStorage, looking, opened, require_queues, withdraw_nothing
from trio_multispool.errors import SpoolError
from trio_multispool.looks.ages import age_of, human_age
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.requests import Item

_HELP = """Look at what was set aside, put it back, or drop it.

A reader that cannot read an entry's metadata sets the entry aside, with the reason, and goes on with the others. The
entry keeps its name and its data. Once the program has been fixed, `retry` puts it back into its queue; `drop` deletes
it.

```console
$ multispool quarantine ls var/mail
$ multispool quarantine show var/mail 20261124T013810.123456789Z-8f31c2aa
$ multispool quarantine retry var/mail --all --dry-run
$ multispool quarantine drop var/mail 20261124T013810.123456789Z-8f31c2aa
```
"""

_Name = Annotated[
    str, Parameter(name="NAME", help="The name of an entry that was set aside.", completer=quarantined_names)
]
_From = Annotated[AnyQueue, Parameter(name="--from", help="Select what was set aside from this queue.")]


def quarantine_app(sort_key: int) -> App:
    """Return the command, which has commands of its own."""
    app = App(name="quarantine", help=_HELP, help_format="markdown", result_action="return_value", sort_key=sort_key)
    commands: dict[Callable[..., int | None], str] = {
        ls: "ls [OPTIONS] SPOOL [QUEUE]",
        show: "show [OPTIONS] SPOOL NAME",
        retry: "retry [OPTIONS] SPOOL [NAME...]",
        drop: "drop [OPTIONS] SPOOL [NAME...]",
    }
    for position, (command, usage) in enumerate(commands.items()):
        _ = app.command(command, sort_key=position, usage=f"Usage: multispool quarantine {usage}")
    return app


def ls(
    spool: Location,
    queue: Annotated[AnyQueue, Parameter(name="QUEUE", help="Only what was set aside from this queue.")] = None,
    /,
    *,
    as_json: AsJson = False,
) -> None:
    """List what was set aside, with the reasons.

    The age counts from when the metadata was written. It only looks: nothing is locked or written.

    ```console
    $ multispool quarantine ls var/mail
    ```
    """
    with looking(spool) as storage:
        items = sorted(storage.inventory(queue, State.QUARANTINED), key=lambda item: (item.place.queue, item.name))
        if not items:  # if there are, the queue may have been removed since
            require_queues(storage, queue)
        found, now = [(item, storage.quarantine_reason(item.name)) for item in items], storage.now()
    if as_json:
        output.document([item_document(item, now) | {"quarantine_reason": reason} for item, reason in found])
    elif not found:
        output.line("nothing is in quarantine")
    else:
        columns = {
            "NAME": [output.printable(item.name) for item, _ in found],
            "QUEUE": [output.printable(item.place.queue) for item, _ in found],
            "AGE": [human_age(age_of(item.modified_at, now)) for item, _ in found],
            "REASON": ["unknown" if reason is None else output.printable(reason) for _, reason in found],
        }
        table(columns, numbers={"AGE"})


def show(spool: Location, name: _Name, /, *, as_json: AsJson = False) -> None:
    """Show everything that is known about an entry that was set aside.

    The reason, its metadata as it is, and where its data is. It only looks: nothing is locked or written.

    ```console
    $ multispool quarantine show var/mail 20261124T013810.123456789Z-8f31c2aa
    ```
    """
    with looking(spool) as storage:
        _ = _find(storage, name)
    show_entry(spool, name, as_json=as_json)


def retry(
    spool: Location,
    /,
    *names: _Name,
    to: Annotated[AnyQueue, Parameter(help="The queue to put them into, instead of their own.")] = None,
    source: _From = None,
    options: Settling = NOTHING_CHOSEN,
) -> int:
    """Put entries that were set aside back into their queues.

    Metadata and data are unchanged. First fix the program that could not read them, or the reader sets the entry aside
    again. All are tried; the exit code is that of the first that failed.

    ```console
    $ multispool quarantine retry var/mail --all --dry-run
    $ multispool quarantine retry var/mail 20261124T013810.123456789Z-8f31c2aa
    ```
    """

    def restore(storage: AnyStorage, item: Item) -> str:
        target = item.place.queue if to is None else to
        require_queues(storage, target)
        if not options.dry_run:
            storage.restore(item.place.queue, item.name, to=to, durability=None, before_commit=withdraw_nothing)
        return target

    words = _Words("is back in {}", "would go back to {}", "nothing to put back", "put back")
    return _do(spool, names, source, options, restore, words)


def drop(spool: Location, /, *names: _Name, source: _From = None, options: Settling = NOTHING_CHOSEN) -> int:
    """Drop what was set aside, with its data, for good.

    All are tried; the exit code is that of the first that failed.

    ```console
    $ multispool quarantine drop var/mail 20261124T013810.123456789Z-8f31c2aa
    $ multispool quarantine drop var/mail --older-than 30d --dry-run
    ```
    """

    def discard(storage: AnyStorage, item: Item) -> None:
        if not options.dry_run:
            storage.discard(item.place.queue, item.name, durability=None, before_commit=withdraw_nothing)

    words = _Words("was dropped", "would be dropped", "nothing to drop", "dropped")
    return _do(spool, names, source, options, discard, words)


class _Words(NamedTuple):
    """What is told of an entry, with the queue that it goes to, if to any; if there was none; and of all of them."""

    done: str
    would: str
    nothing: str
    were: str


def _do(  # noqa: PLR0913, PLR0917  # what the two commands are given
    spool: str,
    names: Sequence[str],
    source: str | None,
    options: Settling,
    step: Callable[[AnyStorage, Item], str | None],
    words: _Words,
) -> int:
    """Take `step` with each entry; it returns the queue that the entry goes to, and keeps to `--dry-run` itself."""
    criteria = criteria_of(options, names, more=source is not None)
    told: list[dict[str, str]] = []
    troubles = output.Troubles()
    with opened(spool, trust_file_system=options.trust_file_system) as storage, ended_between_entries() as ending:
        if criteria is None:
            items = each_named(names, functools.partial(_find, storage), troubles)
        else:
            items = _selected(storage, source, criteria, troubles)
        for item in troubles.until(items):
            if ending.signal is not None:
                break
            if item is None:
                continue
            try:
                target = step(storage, item)
            except (Failure, SpoolError) as error:
                troubles.tell(error)
                continue
            told.append({"name": item.name, "from": item.place.queue} | ({} if target is None else {"to": target}))
            if not options.as_json:
                done = (words.would if options.dry_run else words.done).format(output.printable(target or ""))
                output.outcome_line(f"{output.printable(item.name)}: {done}", dry_run=options.dry_run)
    code = troubles.code
    if ending.signal is not None:
        code = say_interrupted(ending.signal, words.were, None if options.dry_run else len(told))
    if options.as_json:
        output.outcome_document(told, dry_run=options.dry_run)
    elif not told and not code:
        output.line(words.nothing)
    return code


def _selected(
    storage: AnyStorage, source: str | None, criteria: Criteria, troubles: output.Troubles
) -> Iterator[Item | None]:
    found = False
    for item in selected(storage, source, State.QUARANTINED, criteria, troubles):
        found = found or item is not None
        yield item
    if not found:  # if something is there, its queue may have been removed since
        require_queues(storage, source)


def _find(storage: AnyStorage, name: str) -> Item:
    item = find(storage, name)
    if item.place.state is not State.QUARANTINED:
        where = f"is {item.place.state.value}, in {item.place.queue!r}"
        raise Failure(f"entry {name!r} is not in quarantine: it {where}", Exit.NOT_FOUND)
    return item
