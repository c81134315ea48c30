"""Check out: one entry by its name, or the first of a queue that are to be had, with one statement and one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trio_multispool.model.lifecycle import State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.postgres.claims import PostgresClaim
from trio_multispool.storage.postgres.contents import LARGEST_IN_ROW
from trio_multispool.storage.postgres.link import Committed
from trio_multispool.storage.requests import NotDue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_multispool.model.lifecycle import Place
    from trio_multispool.storage.postgres.context import Context

LETTERS: Final = {
    State.AVAILABLE: "a",
    State.WAITING: "w",
    State.CHECKED_OUT: "c",
    State.QUARANTINED: "q",
}
"""How states are called in a row."""

STATES: Final = {letter: state for state, letter in LETTERS.items()}

_COLUMNS: Final = """entry.queue, entry.name, entry.metadata, entry.due_at, entry.written_at, entry.notes, entry.carrier,
    entry.data, entry.chunks > 0, entry.remember IS NOT NULL"""

_TAKE: Final = f"""
    UPDATE SCHEMA.entry AS entry SET state = 'c', owner = %(me)s, token = %(token)s, moved_at = %(now)s
    FROM taken, link WHERE entry.name = taken.name RETURNING {_COLUMNS}"""

_BY_NAME: Final = f"""
    taken AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry WHERE name = %(name)s AND queue = %(queue)s AND state = %(state)s::"char"
            AND (due_at IS NULL OR due_at <= %(due_by)s::double precision)
        FOR UPDATE SKIP LOCKED
    ),
    done AS ({_TAKE})"""

# What is due comes first; then what was listed and not tried; then everything else, which is listed anew.
_FIRST: Final = f"""
    due AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry
        WHERE queue = %(queue)s AND state = 'w' AND due_at <= %(now)s::double precision
            AND name <> ALL(%(but)s::text[])
        ORDER BY due_at, name LIMIT %(most)s FOR UPDATE SKIP LOCKED
    ),
    listed AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry
        WHERE queue = %(queue)s AND state = 'a' AND name >= %(begin)s AND name <= %(end)s
            AND name <> ALL(%(but)s::text[])
        ORDER BY name LIMIT %(most)s - (SELECT count(*) FROM due) FOR UPDATE SKIP LOCKED
    ),
    others AS MATERIALIZED (
        SELECT name FROM SCHEMA.entry
        WHERE queue = %(queue)s AND state = 'a' AND (name < %(begin)s OR name > %(end)s)
            AND name <> ALL(%(but)s::text[])
        ORDER BY name
        LIMIT CASE WHEN %(lists)s THEN %(most)s - (SELECT count(*) FROM due) - (SELECT count(*) FROM listed) ELSE 0 END
        FOR UPDATE SKIP LOCKED
    ),
    taken AS (SELECT name FROM due UNION ALL SELECT name FROM listed UNION ALL SELECT name FROM others),
    done AS ({_TAKE})"""

FIRST_ROWS: Final = """
    SELECT done.*, (
        SELECT name FROM SCHEMA.entry WHERE queue = %(queue)s AND state = 'a' ORDER BY name DESC LIMIT 1
    ) FROM (SELECT) AS always LEFT JOIN done ON true"""

_TAKEN: Final = f"""
    SELECT {_COLUMNS} FROM SCHEMA.entry AS entry WHERE owner = %(me)s AND token = %(token)s AND state = 'c'"""

_UNSAFE: Final = f"""
    SELECT {_COLUMNS}, entry.owner, entry.token FROM SCHEMA.entry AS entry
    WHERE queue = %(queue)s AND state = 'c' AND owner IS NOT NULL ORDER BY name"""

_WHY_NOT: Final = "SELECT state::text, queue, due_at FROM SCHEMA.entry WHERE name = %s"


def claim(
    context: Context, place: Place, name: str, *, due_by: float, before_commit: Callable[[], None]
) -> PostgresClaim | Unavailable | NotDue:
    """Check an entry out by its name."""
    waits = place.state is State.WAITING
    values = {"queue": place.queue, "name": name, "state": LETTERS[place.state], "due_by": due_by if waits else 0.0}
    before_commit()
    claims, _ = _take(context, _BY_NAME, values, about=(place.queue, name), rows="SELECT * FROM done")
    if claims:
        return claims[0]
    return _why_not(context, place, name, due_by) or Unavailable.BUSY


def _why_not(context: Context, place: Place, name: str, due_by: float) -> Unavailable | NotDue | None:
    """Return why an entry cannot be checked out from a place; `None`: nothing seems to be in the way."""
    rows = context.links.read("look for an entry in", _WHY_NOT, (name,))
    if not rows:
        return Unavailable.GONE
    state, queue, due_at = rows[0]
    if state in ("c", "r"):
        return Unavailable.BUSY
    if (queue, state) != (place.queue, LETTERS[place.state]):
        return Unavailable.GONE
    return NotDue(due_at) if due_at is not None and due_at > due_by else None


def claim_first(
    context: Context, queue: str, most: int, begin: str, end: str, but: Iterable[str], *, lists: bool
) -> tuple[list[PostgresClaim], str]:
    """Check out the first entries that are to be had; return them, and the last name that is available.

    First what is due, then what has a name from `begin` to `end`; then, if it `lists`, what has any other name. Those
    of `but` are passed over.
    """
    values = {"queue": queue, "most": most, "begin": begin, "end": end, "but": list(but), "lists": lists}
    claims, last = _take(context, _FIRST, values, about=(queue, ""), rows=FIRST_ROWS)

    def turn(claimed: PostgresClaim) -> tuple[int, float, str]:
        if claimed.due_at is not None:
            return 0, claimed.due_at, claimed.name
        return (1 if begin <= claimed.name <= end else 2), 0.0, claimed.name

    return sorted(claims, key=turn), last


def _take(
    context: Context, statement: str, values: dict[str, Any], *, about: tuple[str, str], rows: str
) -> tuple[list[PostgresClaim], str]:
    links, token = context.links, context.next_token()
    values = {**values, "token": token, "now": context.now()}
    answer = links.change("check out from", statement, values, level="off", about=about, rows=rows)
    if isinstance(answer, Committed):
        answer = links.read("look for what was checked out of", _TAKEN, {"me": links.owner, "token": token})
    claims = [
        PostgresClaim(
            context.let_go, links.owner, token, *row[:8], is_large=row[8], is_remembered=row[9]
        )
        for row in answer
        if row[0] is not None
    ]
    context.in_hand.add(claims)
    last = answer[0][10] if answer and len(answer[0]) > len(_FIELDS) else None
    return claims, last or ""


_FIELDS: Final = range(10)


def claims_unsafe(context: Context, queue: str) -> list[PostgresClaim]:
    """Return claims on all that is checked out of a queue, by whomever."""
    rows = context.links.read("look for check-outs in", _UNSAFE, {"queue": queue})
    return [
        PostgresClaim(
            context.let_go, row[10], row[11], *row[:8], is_large=row[8], is_remembered=row[9], taken=True
        )
        for row in rows
    ]
