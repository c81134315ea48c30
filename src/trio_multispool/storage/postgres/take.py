"""Check out: one entry by its name, or the first of a queue that are to be had, with one statement and one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from trio_multispool.model.attempts import Mark
from trio_multispool.model.lifecycle import State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.postgres import recovery
from trio_multispool.storage.postgres.arrays import Texts
from trio_multispool.storage.postgres.claims import PostgresClaim, Row, without_last
from trio_multispool.storage.postgres.link import Committed, Purpose
from trio_multispool.storage.requests import NotDue

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.model.lifecycle import Place
    from trio_multispool.storage.postgres.context import Context

    Answer: TypeAlias = list[tuple[Any, ...]]

LETTERS: Final = {
    State.AVAILABLE: "a",
    State.WAITING: "w",
    State.CHECKED_OUT: "c",
    State.QUARANTINED: "q",
}
"""How states are called in a row."""

STATES: Final = {letter: state for state, letter in LETTERS.items()}

_COLUMNS: Final = """entry.queue, entry.name, entry.metadata, entry.due_at, entry.written_at, entry.notes,
    entry.begun, entry.carrier, entry.data, entry.chunks > 0, entry.remember IS NOT NULL,
    entry.arrived_at"""

# Not a join: the planner takes an unknown limit for a tenth of all rows, and would read them all.
_TAKE: Final = f"""
    UPDATE SCHEMA.entry AS entry SET state = 'c', owner = %(me)s, token = %(token)s, moved_at = %(now)s,
        begun = COALESCE(entry.begun || ','::bytea || %(begun)s::bytea, %(begun)s::bytea, entry.begun)
    FROM link WHERE entry.name = ANY(ARRAY(SELECT name FROM taken)) RETURNING {_COLUMNS}"""

_BY_NAME: Final = f"""
    taken AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry WHERE name = %(name)s AND queue = %(queue)s AND state = %(state)s::"char"
            AND (due_at IS NULL OR due_at <= %(due_by)s::double precision)
        FOR UPDATE SKIP LOCKED
    ),
    done AS ({_TAKE})"""

# What is due comes first; then what came in since the listing and sorts before what is left of it; then what was listed
# and not tried; then everything else, which is listed anew.
FIRST: Final = f"""
    due AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry
        WHERE queue = %(queue)s AND state = 'w' AND due_at <= %(now)s::double precision
            AND name NOT IN (SELECT unnest(%(but)s::text[]))
        ORDER BY due_at, name LIMIT %(most)s FOR UPDATE SKIP LOCKED
    ),
    early AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry
        WHERE queue = %(queue)s AND state = 'a' AND name < %(begin)s AND arrived_at > %(since)s::double precision
            AND name NOT IN (SELECT unnest(%(but)s::text[])) AND name NOT IN (SELECT unnest(%(early)s::text[]))
        ORDER BY name LIMIT CASE WHEN %(since)s IS NULL THEN 0 ELSE %(most)s - (SELECT count(*) FROM due) END
        FOR UPDATE SKIP LOCKED
    ),
    listed AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry
        WHERE queue = %(queue)s AND state = 'a' AND name >= %(begin)s AND name <= %(end)s
            AND name NOT IN (SELECT unnest(%(but)s::text[]))
        ORDER BY name LIMIT %(most)s - (SELECT count(*) FROM due) - (SELECT count(*) FROM early)
        FOR UPDATE SKIP LOCKED
    ),
    others AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry
        WHERE queue = %(queue)s AND state = 'a' AND (name < %(begin)s OR name > %(end)s)
            AND name NOT IN (SELECT unnest(%(but)s::text[])) AND name NOT IN (SELECT name FROM early)
        ORDER BY name
        LIMIT CASE WHEN %(lists)s
            THEN %(most)s - (SELECT count(*) FROM due) - (SELECT count(*) FROM early) - (SELECT count(*) FROM listed)
            ELSE 0 END
        FOR UPDATE SKIP LOCKED
    ),
    taken AS (TABLE due UNION ALL TABLE early UNION ALL TABLE listed UNION ALL TABLE others),
    claimed AS ({_TAKE})"""

_ALONE: Final = f"{FIRST}, done AS (SELECT name FROM claimed)"

_CLAIMED: Final = """
    SELECT claimed.*, (
        SELECT name FROM SCHEMA.entry WHERE queue = %(queue)s AND state = 'a' ORDER BY name DESC LIMIT 1
    ) FROM link LEFT JOIN claimed ON true"""

_TAKEN: Final = f"""
    SELECT {_COLUMNS} FROM SCHEMA.entry AS entry
    WHERE owner = %s AND token = %s AND state = 'c'"""

_UNSAFE: Final = f"""
    SELECT {_COLUMNS}, entry.owner, entry.token FROM SCHEMA.entry AS entry
    WHERE queue = %(queue)s AND state = 'c' AND owner IS NOT NULL ORDER BY name"""

_WHY_NOT: Final = "SELECT state::text, queue, due_at FROM SCHEMA.entry WHERE name = %s"


def claim(
    context: Context, place: Place, name: str, *, due_by: float, before_commit: Callable[[], None]
) -> PostgresClaim | Unavailable | NotDue:
    """Check an entry out by its name."""
    waits = place.state is State.WAITING
    asked = {"queue": place.queue, "name": name, "state": LETTERS[place.state], "due_by": due_by if waits else 0.0}
    before_commit()
    values: dict[str, Any] = {**asked, **_new_values(context, None)}
    purpose = Purpose("check out from", place.queue, name, is_taken_back=True)
    with context.in_doubt(values["token"]):
        answer = context.links.change(purpose, _BY_NAME, values, "SELECT * FROM done")
        claims = _claims(context, values, answer)
    for claimed in claims:
        return claimed
    return _why_not(context, place, name, due_by) or Unavailable.BUSY


def _why_not(context: Context, place: Place, name: str, due_by: float) -> Unavailable | NotDue | None:
    """Return why an entry cannot be checked out from a place; `None`: nothing seems to be in the way."""
    rows = context.links.read("look for an entry in", _WHY_NOT, (name,))
    if not rows:
        return Unavailable.GONE
    state, queue, due_at = rows[0]
    if state == "r":
        return Unavailable.GONE if recovery.is_of_the_dead(context.links, name) else Unavailable.BUSY
    if state == "c":
        return Unavailable.BUSY
    if (queue, state) != (place.queue, LETTERS[place.state]):
        return Unavailable.GONE
    return NotDue(due_at) if due_at is not None and due_at > due_by else None


class First(msgspec.Struct, frozen=True):
    """A question for the first entries of a queue that can be had.

    First what is due; then what came in `since` a time, with a name before `begin`; then what has a name from `begin`
    to `end`; then, if it `lists`, what has any other name. Those of `but` are passed over.
    """

    at: float
    """When it was asked, in seconds since 1970."""
    queue: str
    most: int
    begin: str
    end: str
    but: list[str]
    lists: bool
    since: float | None
    """In seconds since 1970; `None`: nothing comes in that sorts earlier, or it can wait."""
    early: list[str]
    """What came in since then, and was given already: it may have been released."""
    attempt: Mark | None
    """What begins with each check-out."""

    def turn(self, claimed: PostgresClaim) -> tuple[int, float, str]:
        """Return what sorts the entries that were found."""
        if claimed.due_at is not None:
            return 0, claimed.due_at, claimed.name
        if self.is_early(claimed):
            return 1, 0.0, claimed.name
        return (2 if self.begin <= claimed.name <= self.end else 3), 0.0, claimed.name

    def is_early(self, claimed: PostgresClaim) -> bool:
        """Tell whether an entry has come in since the listing, and sorts before what is left of it."""
        came = self.since is not None and claimed.arrived_at > self.since
        return came and claimed.name < self.begin and claimed.name not in self.early


def claim_first(context: Context, first: First) -> tuple[list[PostgresClaim], str]:
    """Check entries out; return them in their order, and the last name that is available in the queue."""
    values = values_of(context, first)
    with context.in_doubt(values["token"]):
        purpose = Purpose("check out from", first.queue, is_taken_back=True)
        answer = context.links.change(purpose, _ALONE, values, _CLAIMED)
        last = "" if isinstance(answer, Committed) or not answer else answer[0][-1] or ""
        return first_of(context, first, values, answer), last


def values_of(context: Context, first: First) -> dict[str, Any]:
    """Return what the statement `FIRST` is given."""
    asked: dict[str, Any] = {
        "queue": first.queue,
        "most": first.most,
        "begin": first.begin,
        "end": first.end,
        "but": Texts(first.but),
    }
    asked |= {"lists": first.lists, "since": first.since, "early": Texts(first.early)}
    return {**asked, **_new_values(context, first.attempt)}


def first_of(context: Context, first: First, values: dict[str, Any], answer: Answer | Committed) -> list[PostgresClaim]:
    """Return what a statement with `FIRST` has claimed, whose rows begin with those of `claimed`."""
    return sorted(_claims(context, values, answer, first.attempt), key=first.turn)


def _new_values(context: Context, attempt: Mark | None) -> dict[str, Any]:
    begun = None if attempt is None else msgspec.json.encode(attempt)
    return {"token": context.next_token(), "now": context.now(), "begun": begun}


def _claims(
    context: Context, values: dict[str, Any], answer: Answer | Committed, attempt: Mark | None = None
) -> list[PostgresClaim]:
    """Return the claims on what was checked out; if the answer was lost, by asking for it."""
    links, token = context.links, values["token"]
    if isinstance(answer, Committed):
        answer = links.read("look for what was checked out of", _TAKEN, (links.owner, token))
    rows = [Row(*row[: len(Row._fields)]) for row in answer if row[0] is not None]
    if attempt is not None:
        rows = [row._replace(begun=without_last(row.begun)) for row in rows]
    claims = [PostgresClaim(row, links.owner, token, context.let_go, attempt=attempt) for row in rows]
    context.in_hand.add(claims)
    return claims


def claims_unsafe(context: Context, queue: str) -> list[PostgresClaim]:
    """Return claims on all that is checked out of a queue, by whomever."""
    rows = context.links.read("look for check-outs in", _UNSAFE, {"queue": queue})
    return [PostgresClaim(Row(*row[:-2]), row[-2], row[-1], context.let_go, taken=True) for row in rows]
