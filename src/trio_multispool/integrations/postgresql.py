"""PostgreSQL: enqueue in a transaction of the program's own, so that its rows and the entry are committed together.

Needs the extra `postgresql`.
"""

from __future__ import annotations

import datetime
import functools
import io
from collections.abc import Mapping  # a field's type
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, cast, overload

import msgspec

from trio_multispool.clock import wall_clock
from trio_multispool.entries.reserved_names import Use
from trio_multispool.errors import EncodingFailed, EntryBusy, InvalidName, NameTaken
from trio_multispool.model.names import MAX_ATTEMPTS, Reserve, invalid_name
from trio_multispool.model.results import Err, Ok, Result, handed_out
from trio_multispool.model.spoolable import Spoolable  # a field's type
from trio_multispool.model.times import NotBefore, due_at, length_of, seconds
from trio_multispool.model.types import A, D, M, Q
from trio_multispool.session.encoding import Encoding

try:
    import psycopg
    from psycopg.rows import tuple_row
except ImportError as _missing:
    _message = "psycopg is not installed; it comes with the extra: pip install 'trio-multispool[postgresql]'"
    raise ImportError(_message, name="psycopg") from _missing

from trio_multispool.storage.postgres.address import Address
from trio_multispool.storage.postgres.schema import with_schema

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["EnqueueInError", "Located", "enqueue_in"]

EnqueueInError: TypeAlias = InvalidName | NameTaken | EntryBusy | EncodingFailed
"""What `enqueue_in` can answer: after each of them the transaction can go on."""

_ENQUEUE: Final = """
    SELECT SCHEMA.enqueue(
        %(queue)s::text, %(metadata)b::bytea, %(data)b::bytea,
        not_before => coalesce(%(at)s::timestamptz, clock_timestamp() + make_interval(secs => %(wait)s)),
        name => %(name)s::text, remember => make_interval(secs => %(remember)s), carrier => %(carrier)s::jsonb,
        if_absent => true)"""

_WHY_NOT: Final = "SELECT SCHEMA.state_of(%(name)s::text)"

_LONGEST: Final = 9e12
"""In seconds: some 285,000 years. An interval holds no more."""


class Located(Protocol):
    """An open spool."""

    @property
    def location(self) -> str:
        """Where it is."""
        ...


class _Question(msgspec.Struct, frozen=True):
    """A statement for the caller's connection, with the value that it answers."""

    statement: bytes
    values: dict[str, Any]


_Steps: TypeAlias = "Generator[_Question, str | None, Result[str, EnqueueInError]]"


@overload
def enqueue_in(
    connection: psycopg.Connection[object],
    spool: Located | str,
    spoolable: Spoolable[Q, M, None, A],
    queue: Q,
    metadata: M,
    data: None = None,
    *,
    name: Reserve[A] | Use | None = None,
    not_before: NotBefore | None = None,
    carrier: Mapping[str, str] | None = None,
) -> Result[str, EnqueueInError]: ...
@overload
def enqueue_in(
    connection: psycopg.AsyncConnection[object],
    spool: Located | str,
    spoolable: Spoolable[Q, M, None, A],
    queue: Q,
    metadata: M,
    data: None = None,
    *,
    name: Reserve[A] | Use | None = None,
    not_before: NotBefore | None = None,
    carrier: Mapping[str, str] | None = None,
) -> Coroutine[object, None, Result[str, EnqueueInError]]: ...
@overload
def enqueue_in(
    connection: psycopg.Connection[object],
    spool: Located | str,
    spoolable: Spoolable[Q, M, D, A],
    queue: Q,
    metadata: M,
    data: D,
    *,
    name: Reserve[A] | Use | None = None,
    not_before: NotBefore | None = None,
    carrier: Mapping[str, str] | None = None,
) -> Result[str, EnqueueInError]: ...
@overload
def enqueue_in(
    connection: psycopg.AsyncConnection[object],
    spool: Located | str,
    spoolable: Spoolable[Q, M, D, A],
    queue: Q,
    metadata: M,
    data: D,
    *,
    name: Reserve[A] | Use | None = None,
    not_before: NotBefore | None = None,
    carrier: Mapping[str, str] | None = None,
) -> Coroutine[object, None, Result[str, EnqueueInError]]: ...
def enqueue_in(  # noqa: PLR0913, PLR0917  # keyword arguments, each with a default
    connection: psycopg.Connection[object] | psycopg.AsyncConnection[object],
    spool: Located | str,
    spoolable: Spoolable[Q, M, Any, A],
    queue: Q,
    metadata: M,
    data: Any = None,
    *,
    name: Reserve[A] | Use | None = None,
    not_before: NotBefore | None = None,
    carrier: Mapping[str, str] | None = None,
) -> Result[str, EnqueueInError] | Coroutine[object, None, Result[str, EnqueueInError]]:
    """Put a new entry into a queue, in the transaction of a psycopg connection; return its name.

    The entry is there when that transaction is committed, together with all else that it does; if it is rolled back,
    the entry was never there. The connection is one to the database that the spool is in, as a role that may use the
    spool's tables. With an `AsyncConnection`, await what this returns.

    - `spool`: an open spool, or its location: of a URL, only the schema counts (`?spool=…`).
    - `spoolable`: what the spool holds; its codecs encode `metadata` and `data`, in this thread. Data are in memory as
      a whole.
    - `name`, `not_before`: as for `Spool.enqueue`. If the spoolable has no name generator, the server makes the name.
      `Use(name, remember=…)` takes a string, and not a name that an open spool has reserved.
    - `carrier`: what a trace needs to go on where the entry is worked on, as OpenTelemetry's `inject` fills it.

    Returns the entry's name. `Err(NameTaken)`: there is an entry of that name, or there was one and its name is
    remembered. `Err(EntryBusy)`: another process has reserved the name. `Err(InvalidName)`: no entry can have it.
    `Err(EncodingFailed)`: a codec raised. After each of them nothing was enqueued, and the transaction can go on, and
    be committed.

    Raises what psycopg raises for all else, such as a lost connection, a lock that another transaction holds for too
    long, a spool or a queue that is not in this database. PostgreSQL has then aborted the transaction, and will commit
    nothing of it: that is no answer to be overlooked. Roll back, and begin again. Raises `TypeError` if the spool does
    not have `queue`, or for a reserved name; `NotASpool` for the location of a directory; what the name generator
    raises; and for `not_before` what `Spool.enqueue` raises.

    An entry of the same name in another transaction, not committed yet: this waits until that one has ended. So enqueue
    late in a transaction, and several names in an order that all programs share.

    **Cancellation**: psycopg's; the transaction is aborted.
    **Durability**: that of the transaction, which the server's `synchronous_commit` decides.

    ```python
    with psycopg.connect(DATABASE) as connection:
        connection.execute("INSERT INTO orders (id, address) VALUES (%s, %s)", (order.id, order.address))
        enqueue_in(connection, SPOOL, MAIL, Mail.SEND, envelope, message, name=Use(f"order-{order.id}")).unwrap()
    ```
    """
    location = spool if isinstance(spool, str) else spool.location
    entry = _Entry(spoolable, queue, metadata, data, name, not_before, carrier)
    about = f"enqueue into {queue.value}", location
    steps = entry.steps(_schema_of(location))
    if isinstance(connection, psycopg.AsyncConnection):
        return _driven_async(connection, steps, *about)
    return handed_out(_driven(connection, steps, *about), *about)


@functools.lru_cache(maxsize=64)
def _schema_of(location: str) -> str:
    return Address.parse(location).schema


def _driven(
    connection: psycopg.Connection[object], steps: _Steps, operation: str, location: str
) -> Result[str, EnqueueInError]:
    """Have a connection answer the questions; return what comes of them."""
    value: str | None = None
    # A cursor of its own: the program's own kind may take other placeholders, and give rows of any kind.
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        while True:
            try:
                question = steps.send(value)
            except StopIteration as end:
                return cast("Result[str, EnqueueInError]", end.value)
            try:
                row = cursor.execute(question.statement, question.values).fetchone()
            except psycopg.Error as error:
                error.add_note(_note(operation, location))
                raise
            value = row[0] if row else None


async def _driven_async(
    connection: psycopg.AsyncConnection[object], steps: _Steps, operation: str, location: str
) -> Result[str, EnqueueInError]:
    value: str | None = None
    async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
        while True:
            try:
                question = steps.send(value)
            except StopIteration as end:
                return handed_out(cast("Result[str, EnqueueInError]", end.value), operation, location)
            try:
                row = await (await cursor.execute(question.statement, question.values)).fetchone()
            except psycopg.Error as error:
                error.add_note(_note(operation, location))
                raise
            value = row[0] if row else None


def _note(operation: str, location: str) -> str:
    return f"in the {operation} of the spool {location}: nothing of this transaction will be committed"


class _Entry(msgspec.Struct, Generic[Q, M, A], frozen=True):
    """What is to be enqueued."""

    spoolable: Spoolable[Q, M, Any, A]
    queue: Q
    metadata: M
    data: object
    name: Reserve[A] | Use | None
    not_before: NotBefore | None
    carrier: Mapping[str, str] | None

    def __post_init__(self) -> None:
        """Check what only a bug brings here, where a traceback shows who said it."""
        queues = self.spoolable.queues
        if not isinstance(self.queue, queues):
            raise TypeError(f"{self.queue!r} is no member of {queues.__name__}, the queues of this spool")
        if self.name is not None and not isinstance(self.name, (Reserve, Use)):
            raise TypeError(f"a name is Reserve(…) or Use(…), not {self.name!r}")
        if isinstance(self.name, Use) and not isinstance(self.name.name, str):
            raise TypeError(f"{self.name.name!r} is reserved by an open spool, which alone can use it; give a string")

    def steps(self, schema: str) -> _Steps:
        """Yield what to ask the server, and take what it answers; return the result."""
        waits = due_at(self.not_before, wall_clock) is not None
        try:
            values = {**self._values(), **self._when(waits=waits)}
        except EncodingFailed as error:
            return Err(error)
        ask = with_schema(_ENQUEUE, schema).encode()
        refusal: NameTaken | EntryBusy | None = None
        for attempt in range(MAX_ATTEMPTS):
            name = self._name(attempt)
            if name is not None and (fault := invalid_name(name)) is not None:
                return Err(fault)
            made = yield _Question(ask, {**values, "name": name})
            if made is not None:
                return Ok(made)
            state = yield _Question(with_schema(_WHY_NOT, schema).encode(), {"name": name})
            # It has become free in between, or is reserved: else it is there, or remembered.
            refusal = EntryBusy(name or "") if state in (None, "r") else NameTaken(name or "", finished=state == "k")
            if isinstance(self.name, Use):
                break
        return Err(refusal) if refusal is not None else Err(NameTaken(""))

    def _name(self, attempt: int) -> str | None:
        """Return the name; `None`: the server makes it."""
        if isinstance(self.name, Use):
            return cast("str", self.name.name)
        argument: Any = None if self.name is None else self.name.argument
        return None if self.spoolable.names is None else self.spoolable.names.next(argument, attempt)

    def _values(self) -> dict[str, Any]:
        """Encode; raises `EncodingFailed`."""
        encoding = Encoding(self.spoolable)
        content = encoding.dumped(self.data)
        if not isinstance(content, bytes):
            file = io.BytesIO()
            content(file)
            content = file.getvalue()
        carrier = None if not self.carrier else msgspec.json.encode(dict(self.carrier)).decode()
        return {
            "queue": self.queue.value,
            "metadata": encoding.encode(self.metadata),
            "data": content,
            "carrier": carrier,
        }

    def _when(self, *, waits: bool) -> dict[str, Any]:
        """Return when it is due, by the server's clock if a duration was given, and how long its name is remembered."""
        remember = seconds(self.name.remember) if isinstance(self.name, Use) else None
        at, wait = None, None
        if isinstance(self.not_before, datetime.datetime):
            at = self.not_before if waits else None
        elif self.not_before is not None:
            wait = length_of(self.not_before)
        return {"at": at, "wait": wait, "remember": None if remember is None else min(remember, _LONGEST)}
