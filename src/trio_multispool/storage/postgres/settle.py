"""Settle claims: save, remove and release, many with one statement and one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trio_multispool.errors import DurabilityUnknown, OwnershipLost, SpoolError, StoreUnreachable
from trio_multispool.model.lifecycle import State, Step
from trio_multispool.model.policies import check_durability
from trio_multispool.model.text import encodable
from trio_multispool.storage.postgres.arrays import Bytes, Columns, Flags, Reals, Texts, Whole, columns
from trio_multispool.storage.postgres.enqueue import about, done
from trio_multispool.storage.postgres.link import Committed, Purpose, highest
from trio_multispool.storage.postgres.source import PostgresSource
from trio_multispool.storage.postgres.take import FIRST, First, first_of, values_of
from trio_multispool.storage.requests import Releasing, Removing, Saving
from trio_multispool.storage.singly import claim_next

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_multispool.storage.postgres.claims import PostgresClaim
    from trio_multispool.storage.postgres.context import Context
    from trio_multispool.storage.requests import Settlement
    from trio_multispool.storage.source import Claiming

_WANTED: Final = """
    wanted AS MATERIALIZED (
        SELECT entry.name, entry.remember, entry.chunks, wanted.queue, wanted.due_at, wanted.metadata, wanted.notes,
            wanted.annotates, wanted.removes, wanted.withdraws
        FROM link, SCHEMA.entry AS entry JOIN unnest(%(names)s::text[], %(owners)s::bigint[], %(tokens)s::bigint[],
            %(queues)s::text[], %(due)s::double precision[], %(metadata)s::bytea[], %(notes)s::bytea[],
            %(annotates)s::boolean[], %(removes)s::boolean[], %(withdraws)s::boolean[])
            AS wanted (name, owner, token, queue, due_at, metadata, notes, annotates, removes, withdraws)
            ON entry.name = wanted.name AND entry.owner = wanted.owner AND entry.token = wanted.token
        WHERE entry.state = 'c' ORDER BY entry.name FOR UPDATE OF entry
    ),"""

_MOVED: Final = """
    moved AS (
        UPDATE SCHEMA.entry AS entry SET queue = wanted.queue, due_at = wanted.due_at,
            state = CASE WHEN wanted.due_at IS NULL THEN 'a' ELSE 'w' END::"char",
            owner = NULL, token = NULL, progress = NULL, begun = NULL, moved_at = %(now)s,
            arrived_at = CASE WHEN entry.queue = wanted.queue THEN entry.arrived_at ELSE %(now)s END,
            notes = CASE WHEN wanted.annotates THEN wanted.notes ELSE entry.notes END,
            metadata = COALESCE(wanted.metadata, entry.metadata),
            written_at = CASE WHEN wanted.metadata IS NULL THEN entry.written_at ELSE %(now)s END,
            cancel = CASE WHEN wanted.withdraws THEN NULL ELSE cancel END
        FROM wanted WHERE entry.name = wanted.name AND NOT wanted.removes RETURNING entry.name
    )"""

_REMOVED: Final = """,
    removed AS (
        DELETE FROM SCHEMA.entry AS entry USING wanted
        WHERE entry.name = wanted.name AND wanted.removes AND COALESCE(wanted.remember, 0) <= 0 RETURNING entry.name
    )"""

_KEPT: Final = """,
    kept AS (
        UPDATE SCHEMA.entry AS entry SET state = 'k', queue = '', owner = NULL, token = NULL,
            due_at = %(now)s + wanted.remember, metadata = '', data = NULL, chunks = 0, size = 0, notes = NULL,
            progress = NULL, begun = NULL, carrier = NULL, cancel = NULL, reason = NULL
        FROM wanted WHERE entry.name = wanted.name AND wanted.removes AND wanted.remember > 0 RETURNING entry.name
    )"""

_CLEARED: Final = """,
    cleared AS (
        DELETE FROM SCHEMA.chunk USING wanted WHERE chunk.name = wanted.name AND wanted.removes AND wanted.chunks > 0
    )"""

# What is settled is not claimed: each row is of one of them.
_CLAIMED_AND_DONE: Final = "SELECT claimed.*, done.name FROM claimed FULL JOIN done ON done.name = claimed.name"

_QUARANTINE: Final = """
    done AS (
        UPDATE SCHEMA.entry SET state = 'q', owner = NULL, token = NULL, due_at = NULL, progress = NULL,
            reason = %(reason)s, moved_at = %(now)s, begun = NULL,
            notes = CASE WHEN %(annotates)s THEN %(notes)b ELSE notes END
        FROM link WHERE name = %(name)s AND entry.owner = %(owner)s AND token = %(token)s AND state = 'c'
        RETURNING name
    )"""


class _Settling(NamedTuple):
    """A settlement that can be committed."""

    number: int
    settlement: Settlement[Any]
    queue: str
    due_at: float | None
    target: State


def settle(context: Context, settlements: Sequence[Settlement[PostgresClaim]]) -> list[BaseException | None]:
    """Settle several claims, and then make the claims that they ask for."""
    failures: list[BaseException | None] = [None] * len(settlements)
    ready: dict[str, _Settling] = {}
    later: list[_Settling] = []  # one statement settles an entry once
    for number, settlement in enumerate(settlements):
        try:
            one = _prepared(number, settlement)
            if ready.setdefault(settlement.claim.name, one) is not one:
                later.append(one)
        except BaseException as error:  # noqa: BLE001  # the answer to who wanted it
            failures[number] = error
    source: PostgresSource | None = None
    for together in (list(ready.values()), *([one] for one in later)):
        try:
            source = _commit(context, together, failures) or source
        except BaseException as error:  # noqa: BLE001  # as above
            for one in together:
                claim = one.settlement.claim
                if claim.state is State.CHECKED_OUT and failures[one.number] is None:  # else that has its answer
                    failures[one.number] = _told(context, one, error)
    try:
        claim_next(settlements, failures)
    finally:
        if source is not None:
            for claim in source.take_ahead():
                source.release(claim)
    return failures


def _told(context: Context, one: _Settling, error: BaseException) -> BaseException:
    """Return what to answer for one of several. An entry that was to be released comes back in either case."""
    if isinstance(one.settlement, Releasing) and isinstance(error, DurabilityUnknown):
        told = StoreUnreachable("release an entry in", context.links.address.location, error.reason)
        told.__cause__ = error.__cause__
        return told
    return about(error, one.settlement.claim.queue, one.settlement.claim.name)


def _prepared(number: int, settlement: Settlement[PostgresClaim]) -> _Settling:
    claim = settlement.claim
    queue, due_at = claim.queue, claim.due_at
    match settlement:
        case Saving():
            queue, due_at = settlement.queue, settlement.due_at
            step = Step.SAVE if due_at is None else Step.SAVE_TO_WAIT
        case Removing():
            step = Step.REMOVE
        case _:
            step = Step.RELEASE if due_at is None else Step.RELEASE_TO_WAIT
    if not isinstance(settlement, Releasing):
        check_durability(settlement.durability)
    target = claim.check(step)
    if not isinstance(settlement, Releasing):
        settlement.before_commit()
    return _Settling(number, settlement, queue, due_at, target)


def _commit(
    context: Context, ready: Sequence[_Settling], failures: list[BaseException | None]
) -> PostgresSource | None:
    """Settle, and claim what the settlements ask for in the same statement; return the source that has the claims."""
    if not ready:
        return None
    claims = [one.settlement.claim for one in ready]
    parts, answers = [_WANTED, _MOVED], ["moved"]
    if any(isinstance(one.settlement, Removing) for one in ready):
        parts.append(_REMOVED)
        answers.append("removed")
        if any(claim.is_remembered for claim in claims):
            parts.append(_KEPT)
            answers.append("kept")
        parts.append(_CLEARED)  # others may have replaced the data since
    parts.append(", done AS (" + " UNION ALL ".join(f"SELECT name FROM {answer}" for answer in answers) + ")")
    claiming = _claiming(ready)
    first = None if claiming is None else _first(claiming, len(ready))
    purpose = Purpose("settle in", claims[0].queue, claims[0].name, _level(context, ready))
    statement, values = "".join(parts), _values(context, ready)
    if claiming is None or first is None:
        _note(context, ready, context.links.change(purpose, statement, values), failures)
        return None
    values |= values_of(context, first)
    with context.in_doubt(values["token"]):
        answer = context.links.change(purpose, f"{statement}, {FIRST}", values, _CLAIMED_AND_DONE)
        _note(
            context,
            ready,
            answer if isinstance(answer, Committed) else [row[-1:] for row in answer if row[-1] is not None],
            failures,
        )
        try:
            with context.in_doubt(values["token"]):
                found = first_of(context, first, values, answer)
        except SpoolError:  # the settlements went well; the next ordinary check-out meets it again
            return None
    source = claiming.source
    assert isinstance(source, PostgresSource), "looked at above"  # noqa: S101  # for the type checkers
    source.answered(first, found, "")
    source.keep_ahead(found)
    return source


def _claiming(ready: Sequence[_Settling]) -> Claiming[Any] | None:
    """Return what all of them ask for next, if it can be claimed without asking anybody else."""
    wanted = {one.settlement.then for one in ready}
    claiming = wanted.pop()
    if wanted or claiming is None or not isinstance(claiming.source, PostgresSource):
        return None
    return None if claiming.gate.admits is None or claiming.stopped() else claiming


def _first(claiming: Claiming[Any], most: int) -> First:
    assert isinstance(claiming.source, PostgresSource), "looked at before"  # noqa: S101  # for the type checkers
    return claiming.source.first(most, claiming.gate, claiming.given, claiming.attempt, lists=False)


def _note(
    context: Context,
    ready: Sequence[_Settling],
    answer: list[tuple[Any, ...]] | Committed,
    failures: list[BaseException | None],
) -> None:
    """Take note of what was settled, and tell of it."""
    claims = [one.settlement.claim for one in ready]
    arrived: dict[str, list[str]] = {}
    left: list[str] = []
    there = done(answer, [claim.name for claim in claims])
    for one in ready:
        claim = one.settlement.claim
        if claim.name not in there:
            failures[one.number] = OwnershipLost(claim.queue, claim.name)
            if isinstance(one.settlement, Releasing):  # somebody else has done what it was to do
                claim.settle(one.target)
            continue
        claim.settle(one.target)
        if isinstance(one.settlement, Removing):
            left.append(claim.name)
        else:
            arrived.setdefault(one.queue, []).append(claim.name)
    context.arrived(arrived, left)


def _level(context: Context, ready: Sequence[_Settling]) -> str:
    """Return the highest level that is asked for. Nothing need survive a release: recovery does the same."""
    return highest(
        context.links.level(one.settlement.durability) for one in ready if not isinstance(one.settlement, Releasing)
    )


def _values(context: Context, ready: Sequence[_Settling]) -> dict[str, Any]:
    return {"now": context.now(), **columns(_COLUMNS, map(_row, ready))}


_COLUMNS: Final[Columns] = {
    "names": Texts,
    "owners": Whole,
    "tokens": Whole,
    "queues": Texts,
    "due": Reals,
    "metadata": Bytes,
    "notes": Bytes,
    "annotates": Flags,
    "removes": Flags,
    "withdraws": Flags,
}


def _row(one: _Settling) -> tuple[Any, ...]:
    _, settlement, queue, due_at, _ = one
    claim, withdraws = settlement.claim, settlement.withdraws
    whose = (claim.name, claim.owner, claim.token)
    if isinstance(settlement, Removing):
        return (*whose, queue, due_at, None, None, False, True, withdraws)
    metadata = settlement.metadata if isinstance(settlement, Saving) else None
    return (*whose, queue, due_at, metadata, *claim.notes(settlement.notes or {}), False, withdraws)


def quarantine(context: Context, claim: PostgresClaim, reason: str) -> None:
    """Set an entry aside."""
    target = claim.check(Step.QUARANTINE)
    told = encodable(reason).replace("\0", "\ufffd")
    notes, annotates = claim.notes({})
    values = {"owner": claim.owner, "token": claim.token, "name": claim.name, "names": [claim.name]}
    values |= {"notes": notes, "annotates": annotates}
    answer = context.links.change(
        Purpose("set aside an entry in", claim.queue, claim.name, context.links.level(None)),
        _QUARANTINE,
        {**values, "reason": told, "now": context.now()},
    )
    if claim.name not in done(answer, [claim.name]):
        raise OwnershipLost(claim.queue, claim.name)
    claim.settle(target)
    context.moved([claim.name])
