"""Enqueue: reserve names, and make entries, many with one statement and one commit."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import msgspec

from trio_multispool.errors import DurabilityUnknown, EntryBusy, NameTaken, StorageFailure
from trio_multispool.model.lifecycle import State, Step, next_state
from trio_multispool.model.policies import check_durability
from trio_multispool.storage.postgres import recovery
from trio_multispool.storage.postgres.arrays import Bytes, Columns, Reals, Texts, Whole, columns
from trio_multispool.storage.postgres.claims import PostgresReservation, ReservationInRow, encoded
from trio_multispool.storage.postgres.contents import chunks_of, put_chunks, size_of, written
from trio_multispool.storage.postgres.link import Committed, Purpose, highest
from trio_multispool.storage.postgres.sqlstates import is_locked

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from trio_multispool.model.policies import Durability
    from trio_multispool.storage.postgres.context import Context
    from trio_multispool.storage.requests import NewEntry

    New = NewEntry[PostgresReservation]

_IS_OVER: Final = "entry.state = 'k' AND entry.due_at <= %(now)s::double precision"

_SHORTLY: Final = """
    shortly AS MATERIALIZED (SELECT set_config('lock_timeout', %(patience)s, true)),"""
"""Waits for a name no longer: a program's own transaction may have it, not committed yet, for as long as it likes."""

_PATIENCE: Final = "1s"

_IMPATIENCE: Final = "20ms"
"""For each of several names of which one was waited for in vain."""

_RESERVE: Final = f"""{_SHORTLY}
    done AS (
        INSERT INTO SCHEMA.entry AS entry (name, queue, state, owner, token, written_at, moved_at, data_at, metadata)
        SELECT %(name)s, '', 'r', %(me)s, %(token)s, 0, %(now)s, 0, '' FROM link, shortly
        ON CONFLICT (name) DO UPDATE SET state = 'r', owner = %(me)s, token = %(token)s, due_at = NULL
        WHERE (entry.state = 'r' AND entry.owner = 0) OR {_IS_OVER}
        RETURNING name
    )"""

_GIVE_UP: Final = "DELETE FROM SCHEMA.entry WHERE name = %s AND state = 'r' AND owner = %s AND token = %s"

_REMEMBER: Final = f"""{_SHORTLY}
    done AS (
        INSERT INTO SCHEMA.entry AS entry (name, queue, state, due_at, written_at, moved_at, data_at, metadata)
        SELECT %(name)s, '', 'k', %(until)s, 0, %(now)s, 0, '' FROM link, shortly
        ON CONFLICT (name) DO UPDATE SET state = 'k', due_at = excluded.due_at, owner = NULL, token = NULL
        WHERE (entry.state = 'r' AND entry.owner = %(me)s AND entry.token = %(token)s) OR {_IS_OVER}
        RETURNING name
    )"""

_ENQUEUE: Final = f"""{_SHORTLY}
    done AS (
        INSERT INTO SCHEMA.entry AS entry (
            name, queue, state, due_at, remember, written_at, moved_at, arrived_at, data_at, metadata, data, size,
            chunks, carrier, notes, token)
        SELECT new.name, queue, CASE WHEN due_at IS NULL THEN 'a' ELSE 'w' END::"char", due_at, remember,
            %(now)s, %(now)s, %(now)s, %(now)s, metadata, data, size, chunks, carrier, notes, token
        FROM link, shortly, unnest(%(names)s::text[], %(queues)s::text[], %(due)s::double precision[],
            %(remember)s::double precision[], %(metadata)s::bytea[], %(data)s::bytea[], %(sizes)s::bigint[],
            %(chunks)s::bigint[], %(carriers)s::bytea[], %(notes)s::bytea[], %(tokens)s::bigint[])
            AS new (name, queue, due_at, remember, metadata, data, size, chunks, carrier, notes, token)
        ON CONFLICT (name) DO UPDATE SET queue = excluded.queue, state = excluded.state, due_at = excluded.due_at,
            remember = excluded.remember, written_at = excluded.written_at, moved_at = excluded.moved_at,
            arrived_at = excluded.arrived_at, data_at = excluded.data_at, metadata = excluded.metadata,
            data = excluded.data, size = excluded.size, chunks = excluded.chunks, carrier = excluded.carrier,
            notes = excluded.notes, owner = NULL, token = NULL
        WHERE (entry.state = 'r' AND entry.owner = %(me)s AND entry.token = excluded.token) OR {_IS_OVER}
        RETURNING name
    )"""

_WHY: Final = "SELECT state::text FROM SCHEMA.entry WHERE name = %s"


class _Made(NamedTuple):
    """An entry whose data are written, and which can be committed."""

    number: int
    new: New
    state: State
    data: bytes | BinaryIO


@contextlib.contextmanager
def _busy(name: str) -> Generator[None]:
    """Make `EntryBusy` of a wait for a name that took too long."""
    try:
        yield
    except StorageFailure as failure:
        if is_locked(failure):
            raise EntryBusy(name) from failure
        raise


def reserve(context: Context, name: str, *, is_local: bool) -> PostgresReservation:
    """Hold a name; one that is local has no row."""
    links, token = context.links, context.next_token()
    if is_local:
        return PostgresReservation(name, token)
    for _ in range(2):
        values = {"name": name, "names": [name], "token": token, "now": context.now(), "patience": _PATIENCE}
        with _busy(name), context.in_doubt(token):
            answer = links.change(Purpose("reserve a name in", "", name, is_taken_back=True), _RESERVE, values)
            if name in done(answer, [name]):
                reservation = ReservationInRow(name, token, context.let_go)
                context.in_hand.add_reserved(reservation)
                return reservation
        error = why_not(context, name)
        if not isinstance(error, EntryBusy) or recovery.recover_name(links, context.now(), name) is None:
            raise error
    raise EntryBusy(name)


def give_up(context: Context, reservation: PostgresReservation) -> None:
    """Give a name back."""
    if not reservation.held:
        return
    if reservation.has_row:
        values = (reservation.name, context.links.owner, reservation.token)
        _ = context.links.update("give up a name in", _GIVE_UP, values)
    reservation.end(reservation.state)


def remember(context: Context, reservation: PostgresReservation, length: float, durability: Durability | None) -> None:
    """Remember a name that has no entry."""
    check_durability(durability)
    name, now = reservation.name, context.now()
    values = {"name": name, "names": [name], "until": now + length, "now": now, "token": reservation.token}
    values["patience"] = _PATIENCE
    purpose = Purpose("remember a name in", "", name, context.links.level(durability))
    with _busy(name):
        answer = context.links.change(purpose, _REMEMBER, values)
    if name not in done(answer, [name]):
        raise why_not(context, name)
    reservation.has_row = False


def enqueue_together(context: Context, wanted: Sequence[New]) -> list[BaseException | None]:
    """Make several entries."""
    failures: list[BaseException | None] = [None] * len(wanted)
    made: dict[str, _Made] = {}
    later: list[_Made] = []  # one statement makes a name once
    for number, new in enumerate(wanted):
        try:
            one = _prepared(number, new)
            if isinstance(one.data, bytes):
                new.before_commit()
                if made.setdefault(new.reservation.name, one) is not one:
                    later.append(one)
            else:
                with one.data as file:
                    _enqueue_large(context, one, file)
        except BaseException as error:  # noqa: BLE001  # the answer to who wanted it
            failures[number] = error
    for together in ([*made.values()], *([one] for one in later)) if made else ():
        try:
            _commit(context, together, failures)
        except BaseException as error:  # noqa: BLE001  # as above
            for one in together:
                if one.new.reservation.held and failures[one.number] is None:  # else that has its answer
                    failures[one.number] = about(error, one.new.queue, one.new.reservation.name)
    return failures


def about(error: BaseException, queue: str, name: str) -> BaseException:
    """Return what to answer for one entry of several that share an error."""
    if not isinstance(error, DurabilityUnknown):
        return error
    told = DurabilityUnknown(name, queue, error.committed, error.reason)
    told.__cause__ = error.__cause__
    return told


def _prepared(number: int, new: New) -> _Made:
    check_durability(new.durability)
    reservation = new.reservation
    state = next_state(Step.ENQUEUE if new.due_at is None else Step.ENQUEUE_TO_WAIT, reservation.state)
    if not reservation.held:
        raise EntryBusy(reservation.name)
    return _Made(number, new, state, written(new.content))


def _commit(
    context: Context,
    made: Sequence[_Made],
    failures: list[BaseException | None],
    *,
    again: bool = False,
    patience: str = _PATIENCE,
) -> None:
    made = sorted(made, key=lambda one: one.new.reservation.name)  # so that no two wait for each other
    level = highest(context.links.level(one.new.durability) for one in made)
    first, names = made[0].new, [one.new.reservation.name for one in made]
    values = {**_values(context, made), "patience": patience}
    try:
        with _busy(names[0]):
            answer = context.links.change(Purpose("enqueue in", first.queue, names[0], level), _ENQUEUE, values)
    except EntryBusy:
        if len(made) == 1:
            raise
        _commit_one_by_one(context, made, failures, patience=_IMPATIENCE)
        return
    there = done(answer, names)
    _note(context, [one for one in made if one.new.reservation.name in there])
    freed: list[_Made] = []
    for one in made:
        if one.new.reservation.name not in there:
            with _answering(one, failures):
                error = failures[one.number] = _refusal(context, one.new.reservation.name, again=again)
                freed += [one] if error is None else []
    _commit_one_by_one(context, freed, failures, again=True)


def _refusal(context: Context, name: str, *, again: bool) -> NameTaken | EntryBusy | None:
    """Return why a name was refused; `None`: whoever had reserved it is dead, and it is free."""
    error = why_not(context, name)
    if again or not isinstance(error, EntryBusy) or not recovery.recover_name(context.links, context.now(), name):
        return error
    return None


def _commit_one_by_one(
    context: Context,
    made: Sequence[_Made],
    failures: list[BaseException | None],
    *,
    again: bool = False,
    patience: str = _PATIENCE,
) -> None:
    """Commit entries each on its own: where a name is busy, the others need not wait for it."""
    for one in made:
        with _answering(one, failures):
            _commit(context, [one], failures, again=again, patience=patience)


@contextlib.contextmanager
def _answering(one: _Made, failures: list[BaseException | None]) -> Generator[None]:
    """Give what is raised to who wanted that entry, and not to those whose entries have been made."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001  # the answer
        failures[one.number] = error


def _enqueue_large(context: Context, one: _Made, file: BinaryIO, *, again: bool = False) -> None:
    """Make an entry with data in chunks, in a transaction of its own."""
    links, name = context.links, one.new.reservation.name
    values = _values(context, [one])
    purpose = Purpose("enqueue in", one.new.queue, name, links.level(one.new.durability))
    with _busy(name), links.transaction(purpose) as to:
        fenced = {**values, "me": links.owner, "patience": _PATIENCE}
        row = to.execute(links.sql(f"WITH link AS (SELECT 1), {_ENQUEUE} SELECT name FROM done"), fenced).fetchone()
        if row is not None:
            put_chunks(links, to, name, file)
            one.new.before_commit()
    if row is None:
        error = _refusal(context, name, again=again)
        if error is not None:
            raise error
        _ = file.seek(0)
        _enqueue_large(context, one, file, again=True)
        return
    _note(context, [one])


def _values(context: Context, made: Sequence[_Made]) -> dict[str, Any]:
    return {"now": context.now(), **columns(_COLUMNS, map(_row, made))}


_COLUMNS: Final[Columns] = {
    "names": Texts,
    "queues": Texts,
    "due": Reals,
    "remember": Reals,
    "metadata": Bytes,
    "data": Bytes,
    "sizes": Whole,
    "chunks": Whole,
    "notes": Bytes,
    "carriers": Bytes,
    "tokens": Whole,
}


def _row(one: _Made) -> tuple[Any, ...]:
    _, new, _, data = one
    small = data if isinstance(data, bytes) else None
    size = len(data) if isinstance(data, bytes) else size_of(data)
    return (
        new.reservation.name,
        new.queue,
        new.due_at,
        new.remember,
        new.metadata,
        small,
        size,
        chunks_of(size) if small is None else 0,
        encoded(new.notes) if new.notes else None,
        msgspec.json.encode(dict(new.carrier)) if new.carrier else None,
        new.reservation.token,
    )


def _note(context: Context, made: Sequence[_Made]) -> None:
    """Take note of what was made, and tell of it."""
    arrived: dict[str, list[str]] = {}
    for one in made:
        one.new.reservation.end(one.state)
        arrived.setdefault(one.new.queue, []).append(one.new.reservation.name)
    context.arrived(arrived)


def done(answer: list[tuple[Any, ...]] | Committed, names: Sequence[str]) -> set[str]:
    """Return which of the names an answer to a change is about."""
    return set(names) - answer.refused if isinstance(answer, Committed) else {row[0] for row in answer}


def why_not(context: Context, name: str) -> NameTaken | EntryBusy:
    """Return why a name cannot be had."""
    rows = context.links.read("look for a name in", _WHY, (name,))
    state = rows[0][0] if rows else "r"  # it has just become free
    return EntryBusy(name) if state == "r" else NameTaken(name, finished=state == "k")
