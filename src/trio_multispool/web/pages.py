"""What each page shows: it asks the spool, and returns what the template of that name is given."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from trio_multispool.errors import SpoolError
from trio_multispool.looks.ages import human_age
from trio_multispool.looks.pauses import until
from trio_multispool.model.lifecycle import State
from trio_multispool.web import charts, pausing
from trio_multispool.web.letters import letters_in
from trio_multispool.web.reading import MOST, Filter

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from trio_multispool.looks.problems import Problem
    from trio_multispool.looks.state import Line, Model
    from trio_multispool.web.watched import Snapshot, Watched

_MOST_EVENTS: Final = 20
_EPS: Final = 0.05
_NONE: Final = "\N{EN DASH}"
_TEN: Final = 10

STATES: Final = {
    State.AVAILABLE: "Ready",
    State.WAITING: "Not due yet",
    State.CHECKED_OUT: "In hand",
    State.QUARANTINED: "In quarantine",
}
"""The states of an entry, in the words of the pages."""


class Asked(NamedTuple):
    """What a page is asked for."""

    spool: int
    """Its number among those that are watched."""
    root: str
    """What comes before all paths."""
    may_act: bool
    hidden: Collection[str]
    parameters: Mapping[str, str]

    def href(self, *parts: str, **query: str) -> str:
        """Return the address of a page of this spool."""
        path = "/".join(quote(part, safe="") for part in parts)
        asked = {key: value for key, value in query.items() if value}
        return f"{self.root}/{self.spool}/{path}" + (f"?{urlencode(asked)}" if asked else "")


class Row(NamedTuple):
    """A queue on the overview."""

    name: str
    href: str
    available: int
    held: int
    waiting: int
    aside: int
    oldest: str
    came: str
    went: str
    spark: charts.Spark | None
    paused: str
    """Until when, and why; empty if it is not."""


class Told(NamedTuple):
    """A problem, for a person."""

    text: str
    since: str
    meaning: str
    remedy: str
    href: str


class Past(NamedTuple):
    """A problem that started or ended."""

    text: str
    ago: str
    started: bool


Context = dict[str, Any]


def rate(per_minute: float, *, estimated: bool = False) -> str:
    """Say how many a minute."""
    if per_minute < _EPS:
        return "0"
    told = f"{per_minute:.1f}" if per_minute < _TEN else f"{per_minute:,.0f}"
    return f"~{told}" if estimated else told


def queue_row(asked: Asked, line: Line, snapshot: Snapshot) -> Row:
    """Return what is known of a queue."""
    seen, flow = line.seen, snapshot.flows.get(line.seen.queue)
    lately = None if flow is None else flow.lately
    at = snapshot.at if snapshot.model.look is None else snapshot.model.look.at
    oldest = _NONE if seen.oldest_at is None else human_age(at - seen.oldest_at)
    return Row(
        seen.queue,
        asked.href("queue", seen.queue),
        seen.available,
        seen.held,
        seen.waiting,
        seen.aside,
        oldest if seen.oldest_of_all or oldest == _NONE else f"~{oldest}",
        _NONE if lately is None else rate(lately[0], estimated=line.estimated),
        _NONE if lately is None else rate(lately[1], estimated=line.estimated),
        None if flow is None else charts.spark(flow.points),
        "" if seen.pause is None else until(seen.pause, at),
    )


def problem_rows(asked: Asked, snapshot: Snapshot) -> list[Told]:
    """Return the problems, the first to start first."""
    model = snapshot.model
    return [_problem(asked, key, problem, snapshot) for key, problem in model.problems.items()]


def _problem(asked: Asked, key: str, problem: Problem, snapshot: Snapshot) -> Told:
    found = snapshot.found.get(key)
    if found is not None:
        about = inspect.getdoc(type(found)) or ""
        meaning, remedy = " ".join(about.partition("\n\n")[0].replace("`", "").split()), found.remedy
    else:
        meaning, remedy = next((told for begins, told in _MEANT.items() if key.startswith(begins)), ("", ""))
    since = human_age(snapshot.at - snapshot.model.since.get(key, snapshot.at))
    href = asked.href("entry", problem.name) if problem.name else ""
    if not href and problem.queue:
        href = asked.href("queue", problem.queue, state=State.QUARANTINED.name.lower())
    return Told(problem.text, since, meaning, remedy, href)


_MEANT: Final = {
    "quarantine/": (
        "A reader could not read these entries' metadata, and set them aside, so as to go on with the others.",
        "nothing: mend the program that reads them, or the one that wrote them, and put them back",
    ),
    "ownerless/": (
        "The kernel names no process that holds the entry's lock: its owner has died, or is in another container.",
        "if the owner is dead, it goes back to its queue; the next reader of the queue does that too",
    ),
    "unreadable/": (
        "This process may not read a part of the spool, so what is in there is not shown.",
        "nothing: only its owner and root can change that",
    ),
}
"""What the problems mean that a look finds, and what `fsck --repair` does about them."""


def _events(model: Model, at: float) -> list[Past]:
    events = reversed(model.events[-_MOST_EVENTS:])
    return [Past(event.problem.text, human_age(at - event.at), event.started) for event in events]


def _sum(snapshot: Snapshot) -> dict[str, int]:
    lines = [line.seen for line in snapshot.model.lines.values()]
    return {
        "available": sum(seen.available for seen in lines),
        "held": sum(seen.held for seen in lines),
        "waiting": sum(seen.waiting for seen in lines),
        "aside": sum(seen.aside for seen in lines),
        "problems": len(snapshot.model.problems),
    }


async def base(watched: Watched, asked: Asked, here: str) -> tuple[Snapshot, Context]:
    """Return how the spool was seen last, and what every page of it shows."""
    snapshot = (await watched.looks.get()).value
    return snapshot, {
        "State": State,
        "asked": asked,
        "here": here,
        "location": watched.location,
        "sums": _sum(snapshot),
        "trouble": snapshot.trouble,
        "seen": snapshot.model.look is not None,
        "at": snapshot.at,
        "lengths": [*pausing.LENGTHS],
        "most": MOST,
        "queues": sorted(snapshot.model.lines),
    }


async def overview(watched: Watched, asked: Asked) -> Context:
    """Show each queue, and the problems."""
    snapshot, context = await base(watched, asked, "overview")
    context["rows"] = [queue_row(asked, line, snapshot) for line in snapshot.model.lines.values()]
    context["problems"] = problem_rows(asked, snapshot)
    context["events"] = _events(snapshot.model, snapshot.at)
    context["title"] = watched.location
    return context


async def queue(watched: Watched, asked: Asked, name: str) -> Context:
    """Show a queue, and a page of its entries."""
    snapshot, context = await base(watched, asked, "queue")
    given = asked.parameters
    state = State.__members__.get(given.get("state", "").upper(), State.AVAILABLE)
    wanted = Filter(given.get("name", ""), given.get("field", ""), given.get("value", ""))
    if wanted.field in asked.hidden and wanted.field:
        wanted = wanted._replace(value="\0")  # it would tell what is hidden, by guesses
    line = snapshot.model.lines.get(name)
    if line is None and snapshot.trouble is None:
        raise LookupError(f"There is no queue {name!r}.")
    after = given.get("after", "")
    context |= {"title": name, "name": name, "row": None if line is None else queue_row(asked, line, snapshot)}
    context |= {"state": state, "states": STATES, "wanted": wanted, "after": after, "rows": None, "ages": None}
    filters = {"name": wanted.name, "field": wanted.field, "value": wanted.value}
    try:
        found = await watched.ask("a page", lambda: watched.reader.rows(name, state, after, wanted))
        ages = await watched.ask("ages", lambda: watched.reader.ages(name)) if state is State.AVAILABLE else None
    except SpoolError as error:
        return context | {"trouble": snapshot.trouble or str(error)}
    except LookupError:
        raise LookupError(f"There is no queue {name!r}.") from None
    state_name = state.name.lower()
    context |= {
        "rows": found.rows,
        "searched": found.searched,
        "ages": None if ages is None or not ages.counted else charts.bars(ages.labels, ages.numbers),
        "counted": ages,
        "next": None
        if found.after is None
        else asked.href("queue", name, state=state_name, after=found.after, **filters),
        "tabs": [
            (label, _number(line, each), asked.href("queue", name, state=each.name.lower(), **filters), each is state)
            for each, label in STATES.items()
        ],
        "first": asked.href("queue", name, state=state_name, **filters) if after else None,
    }
    return context


def _number(line: Line | None, state: State) -> int:
    if line is None:
        return 0
    seen = line.seen
    return {
        State.AVAILABLE: seen.available,
        State.WAITING: seen.waiting,
        State.CHECKED_OUT: seen.held,
        State.QUARANTINED: seen.aside,
    }[state]


async def letters(watched: Watched, asked: Asked) -> Context:
    """Show the dead letters, grouped by error."""
    snapshot, context = await base(watched, asked, "dead")
    context |= {"title": "Dead letters", "letters": None}
    try:
        context["letters"] = await watched.ask("dead letters", lambda: watched.reader.with_storage(letters_in))
    except SpoolError as error:
        context["trouble"] = snapshot.trouble or str(error)
    return context


async def held(watched: Watched, asked: Asked) -> Context:
    """Show what is checked out."""
    return await _all_in(watched, asked, "held", State.CHECKED_OUT, "In hand")


async def quarantine(watched: Watched, asked: Asked) -> Context:
    """Show what was set aside."""
    return await _all_in(watched, asked, "quarantine", State.QUARANTINED, "Quarantine")


async def _all_in(watched: Watched, asked: Asked, here: str, state: State, title: str) -> Context:
    snapshot, context = await base(watched, asked, here)
    context |= {"title": title, "rows": None}
    try:
        found = await watched.ask(title, lambda: watched.reader.all_in(state))
    except SpoolError as error:
        return context | {"trouble": snapshot.trouble or str(error)}
    return context | {"rows": found.rows, "cut": found.searched is not None}


async def problems(watched: Watched, asked: Asked) -> Context:
    """Show what is wrong, and what was."""
    snapshot, context = await base(watched, asked, "problems")
    return context | {
        "title": "Problems",
        "problems": problem_rows(asked, snapshot),
        "events": _events(snapshot.model, snapshot.at),
        "checked": snapshot.checked,
    }
