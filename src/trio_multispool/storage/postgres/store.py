"""`PostgresStorage`: the store in one schema of a PostgreSQL database, shared by processes on any number of hosts."""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias, final

import msgspec
import psycopg

from trio_multispool.clock import random_below, this_process, wall_clock
from trio_multispool.errors import DataNotFound, NotASpool, OwnershipLost, SpoolError, StoreUnreachable
from trio_multispool.model.cancellation import CancelRequest
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.notes import PROGRESS
from trio_multispool.model.pauses import decode_pause
from trio_multispool.model.policies import Durability, check_durability
from trio_multispool.storage.postgres import advice, enqueue, examine, inplace, looks, recovery, settle, standing, take
from trio_multispool.storage.postgres.address import Address
from trio_multispool.storage.postgres.claims import encoded
from trio_multispool.storage.postgres.connecting import connect, no_longer_than
from trio_multispool.storage.postgres.context import Context
from trio_multispool.storage.postgres.control import SilentError
from trio_multispool.storage.postgres.hints import ARRIVED, CANCELLED, MOVED, PostgresWatch
from trio_multispool.storage.postgres.keeper import Keeper
from trio_multispool.storage.postgres.link import Links, Purpose
from trio_multispool.storage.postgres.patience import PATIENT
from trio_multispool.storage.postgres.schema import add_queues, check_queues, migrate
from trio_multispool.storage.postgres.source import PostgresSource
from trio_multispool.storage.postgres.sqlstates import translated
from trio_multispool.storage.reading import as_file
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from trio_multispool.model.pauses import Pause
    from trio_multispool.model.types import T
    from trio_multispool.model.verdicts import Unavailable
    from trio_multispool.storage.findings import Findings, Judge, Wanted
    from trio_multispool.storage.handles import Slot
    from trio_multispool.storage.postgres.claims import PostgresClaim, PostgresReservation
    from trio_multispool.storage.postgres.connecting import Connection
    from trio_multispool.storage.postgres.patience import Patience
    from trio_multispool.storage.requests import Advice, Content, Item, NewEntry, NotDue, Settlement, Standing, Stat

    BeforeCommit: TypeAlias = Callable[[], None]

MOST_AT_A_TIME: Final = 100
"""How many entries are made, or claimed, by one statement: more gain nothing."""

MOST_SETTLED: Final = 32
"""How many claims are settled by one statement: of a pool of 64, half are at work while the server settles the rest."""

_ASK_TO_CANCEL: Final = """
    UPDATE SCHEMA.entry SET cancel = %b, cancel_in = %s
    WHERE name = %s AND queue = %s AND state IN ('a', 'w', 'c') AND (cancel IS NULL OR cancel_in <> %s)"""

_WITHDRAW: Final = "UPDATE SCHEMA.entry SET cancel = NULL WHERE name = %s AND cancel IS NOT NULL"

_CANCELLATION: Final = """
    SELECT cancel FROM SCHEMA.entry WHERE name = %s AND cancel IS NOT NULL AND cancel_in = %s AND queue = %s"""

_ASKED: Final = "SELECT name FROM SCHEMA.entry WHERE cancel IS NOT NULL"

_ANNOTATE: Final = """
    UPDATE SCHEMA.entry SET notes = %b, begun = NULL
    WHERE name = %s AND owner = %s AND token = %s AND state = 'c' RETURNING 1"""

_PROGRESS: Final = """
    UPDATE SCHEMA.entry SET progress = %b WHERE name = %s AND owner = %s AND token = %s AND state = 'c' RETURNING 1"""

_PAUSE: Final = """
    done AS (
        INSERT INTO SCHEMA.queue AS queue (name, pause) SELECT %(queue)s, %(pause)b FROM link
        ON CONFLICT (name) DO UPDATE SET pause = excluded.pause RETURNING name
    )"""

_RESUME: Final = """
    done AS (
        UPDATE SCHEMA.queue SET pause = NULL FROM link WHERE name = %(queue)s AND pause IS NOT NULL RETURNING name
    )"""

_PAUSES: Final = "SELECT name, pause FROM SCHEMA.queue WHERE pause IS NOT NULL"

_CUT_OFF: Final = "the server has not answered for so long that it may have given the entry to somebody else"


@contextlib.contextmanager
def _opening(address: Address) -> Generator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise translated(error, "open", address.location, opening=True) from error
    except SilentError as error:
        raise StoreUnreachable("open", address.location, "it does not answer") from error


def _checked(
    location: str,
    patience: Patience,
    durability: Durability = Durability.PROCESS,
    *,
    create: bool = False,
    queues: Iterable[str] | None = None,
) -> Address:
    """Return the address of a store that can be used; with `create`, once what is missing has been made."""
    address = Address.parse(location)
    with _opening(address), connect(address, patience) as connection:
        with no_longer_than(patience.answer, connection) as take_your_time:
            migrate(connection, address, create=create, before_making=take_your_time)
        with no_longer_than(patience.answer, connection):
            if durability is Durability.POWER and not address.trusted:
                _check_syncs(connection, address)
            if queues is not None:
                (add_queues if create else check_queues)(connection, address, list(queues))
    return address


def _check_syncs(connection: Connection, address: Address) -> None:
    """Raise `NotASpool` for a server that does not keep what it has committed."""
    row = connection.execute("SELECT current_setting('fsync'), current_setting('full_page_writes')").fetchone()
    setting = None if row is None else advice.unsynced(*row)
    if setting is not None:
        reason = (
            f"its server runs with {setting}, so power loss may undo or damage what was acknowledged; turn that on, "
            "use Durability.PROCESS, or say with ?trust=yes that it is safe all the same"
        )
        raise NotASpool(address.location, reason)


@final
class PostgresStorage:
    """One open store. Made by `open`, `open_unsafe` or `look`."""

    blocks: bool = True
    """It waits for a server."""

    def __init__(self, context: Context) -> None:
        """Take over what `open` and its like have made."""
        self._context = context
        self._links = context.links
        self.location: str = context.links.address.location
        self._process = this_process()
        self.recovered_at_first: list[Recovered] = []
        """What recovery did when the store was opened."""

    @classmethod
    def open(  # noqa: PLR0913  # what the caller of Spool.load can say
        cls,
        location: str,
        queues: Iterable[str] = (),
        *,
        create: bool = False,
        durability: Durability = Durability.POWER,
        recover: bool = True,
        now: Callable[[], float] = wall_clock,
        patience: Patience = PATIENT,
    ) -> PostgresStorage:
        """Open a store, and put back what dead owners had; with `create`, make what is missing.

        A clock of the caller's own counts as the server's.
        """
        check_durability(durability)
        address = _checked(location, patience, durability, create=create, queues=queues)
        made = cls._opened(address, durability, now, patience)
        try:
            if recover:
                made.recovered_at_first = made.recover(insist=False)
        except BaseException:  # passed on, of any kind: nobody gets the store
            made.close()
            raise
        return made

    @classmethod
    def open_unsafe(cls, location: str, *, durability: Durability = Durability.POWER) -> PostgresStorage:
        """Open a store without checking that it has any queues, and without recovering anything."""
        return cls._opened(_checked(location, PATIENT, durability), durability, wall_clock, PATIENT)

    @classmethod
    def _opened(
        cls, address: Address, durability: Durability, now: Callable[[], float], patience: Patience
    ) -> PostgresStorage:
        owner = (random_below(2**30) << 32) + random_below(2**32) + 1
        links = Links(address, owner, durability, patience)
        context = Context(links, now)
        with _opening(address):
            context.keeper = Keeper(links, context.hints, context.in_hand, own_clock=now is not wall_clock)
        return cls(context)

    @classmethod
    def look(cls, location: str) -> PostgresStorage:
        """Open a store to look at it: has no owner, recovers nothing, and writes nothing."""
        context = Context(Links(_checked(location, PATIENT), 0, Durability.POWER), wall_clock)
        context.ahead = looks.ahead(context.links)
        return cls(context)

    def now(self) -> float:
        """Return the time of day by the server's clock."""
        return self._context.now()

    def close_afterwards(self, afterwards: Callable[[Callable[[], None]], None]) -> None:
        """Do nothing: connections that are in use are closed by who uses them."""

    # Names

    def reserve(self, name: str, *, unique: bool = False, briefly: bool = False) -> PostgresReservation:
        """Hold a name; one that is made by nobody else, or is used at once, only here."""
        return enqueue.reserve(self._context, name, is_local=unique or briefly)

    def remember(self, reservation: PostgresReservation, remember: float, *, durability: Durability | None) -> None:
        """Remember a name that has no entry."""
        enqueue.remember(self._context, reservation, remember, durability)

    def give_up(self, reservation: PostgresReservation) -> None:
        """Give an unused name back."""
        enqueue.give_up(self._context, reservation)

    def carrier(self, name: str) -> dict[str, str]:
        """Return the carrier of an entry; empty if it cannot be read."""
        claim = self._context.in_hand.find(name)
        raw = looks.carrier(self._links, name) if claim is None else claim.carrier
        try:
            return msgspec.json.decode(raw, type=dict[str, str]) if raw else {}
        except msgspec.DecodeError:
            return {}

    def enqueue_together(self, enqueuings: Sequence[NewEntry[PostgresReservation]]) -> list[BaseException | None]:
        """Make several entries."""
        return enqueue.enqueue_together(self._context, enqueuings)

    # Finding entries

    def in_one_look(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: each statement looks for itself."""
        return contextlib.nullcontext()

    def at_a_time(self) -> int:
        """Return how many may be made, or claimed, at once."""
        return MOST_AT_A_TIME

    def settled_at_a_time(self) -> int:
        """Return how many claims are settled at once."""
        return MOST_SETTLED

    def source(self, queue: str, *, sorts_last: bool) -> PostgresSource:
        """Begin to find the entries of a queue."""
        return PostgresSource(self, self._context, queue, sorts_last=sorts_last)

    def names(self, queue: str, *, after: str = "", most: int | None = None) -> list[str]:
        """List what is available in a queue."""
        return looks.names(self._links, queue, after, most)

    def waiting(
        self, queue: str, *, after: tuple[float, str] | None = None, most: int | None = None
    ) -> list[tuple[float, str]]:
        """List what waits for a queue."""
        return looks.waiting(self._links, queue, after, most)

    def read_metadata(self, place: Place, name: str) -> bytes:
        """Return an entry's metadata."""
        return looks.read_metadata(self._links, place, name)

    def stat(self, place: Place, name: str) -> Stat:
        """Return size and age of an entry's metadata."""
        return looks.stat(self._links, place, name)

    def quarantine_reason(self, name: str) -> str | None:
        """Return why an entry was set aside."""
        return looks.reason(self._links, name)

    # Checking out and settling

    def claim(
        self, place: Place, name: str, *, due_by: float = math.inf, before_commit: BeforeCommit
    ) -> PostgresClaim | Unavailable | NotDue:
        """Check the entry out."""
        return take.claim(self._context, place, name, due_by=due_by, before_commit=before_commit)

    def settle(self, settlements: Sequence[Settlement[PostgresClaim]]) -> list[BaseException | None]:
        """Settle several claims."""
        return settle.settle(self._context, settlements)

    def quarantine(self, claim: PostgresClaim, reason: str) -> None:
        """Set the entry aside."""
        settle.quarantine(self._context, claim, reason)

    def claims_unsafe(self, queue: str) -> list[PostgresClaim]:
        """Return claims on all that is checked out."""
        return take.claims_unsafe(self._context, queue)

    # Without ownership

    def restore(
        self,
        queue: str,
        name: str,
        *,
        to: str | None = None,
        durability: Durability | None,
        before_commit: BeforeCommit,
    ) -> None:
        """Put back an entry that was set aside."""
        inplace.restore(
            self._context, queue, name, queue if to is None else to, durability=durability, before_commit=before_commit
        )

    def discard(self, queue: str, name: str, *, durability: Durability | None, before_commit: BeforeCommit) -> None:
        """Delete an entry that was set aside."""
        inplace.discard(self._context, queue, name, durability, before_commit)

    def replace_metadata(
        self, queue: str, name: str, metadata: bytes, *, durability: Durability | None, before_commit: BeforeCommit
    ) -> None:
        """Replace an available entry's metadata."""
        inplace.replace_metadata(
            self._context, queue, name, metadata, durability=durability, before_commit=before_commit
        )

    def delete(self, queue: str, name: str, *, durability: Durability | None, before_commit: BeforeCommit) -> None:
        """Delete an available entry."""
        inplace.delete(self._context, queue, name, durability, before_commit)

    # Data and notes

    def read_data(self, name: str, read: Callable[[BinaryIO], T], *, owned: bool = False) -> T:
        """Read the entry's data. Those that came with a check-out are read from memory."""
        claim = self._context.in_hand.find(name) if owned else None
        at_hand = None if claim is None else self.data_at_hand(claim)
        if at_hand is not None:
            return read(as_file(at_hand))
        return inplace.read_data(self._context, name, read)

    def data_at_hand(self, claim: PostgresClaim) -> bytes | None:
        """Return what came with the check-out, unless its owner has replaced it."""
        return None if claim.is_large else claim.data

    def read_entry(
        self,
        queue: str,
        name: str,
        read: Callable[[bytes, Stat, BinaryIO], T],
        *,
        state: State = State.AVAILABLE,
    ) -> T | Unavailable:
        """Read a whole entry under its lock."""
        return inplace.read_entry(self._context, Place(queue, state), name, read)

    def replace_data(
        self,
        name: str,
        claim: PostgresClaim | None,
        content: Content,
        *,
        durability: Durability | None,
        before_commit: BeforeCommit,
    ) -> None:
        """Replace the entry's data."""
        inplace.replace_data(self._context, name, claim, content, durability=durability, before_commit=before_commit)

    def stat_data(self, name: str, *, owned: bool = False) -> Stat:  # noqa: ARG002  # it is in one place
        """Return size and age of the entry's data."""
        found = looks.stat_data(self._links, name)
        if found is None:
            raise DataNotFound(name)
        return found

    def data_path(self, name: str) -> Path | None:  # noqa: ARG002  # there is none for any
        """Return nothing: the server keeps the data."""
        return None

    @contextlib.contextmanager
    def data_file(self, name: str) -> Generator[Path]:
        """Yield the path of a copy of the data."""
        with tempfile.NamedTemporaryFile(prefix="multispool-") as file:

            def copy(data: BinaryIO) -> None:
                while part := data.read(2**20):
                    _ = file.write(part)

            self.read_data(name, copy)
            file.flush()
            yield Path(file.name)

    def annotate(
        self,
        claim: PostgresClaim,
        key: str,
        value: bytes | None,
        found: dict[str, msgspec.Raw] | None = None,  # noqa: ARG002  # the claim knows them
    ) -> None:
        """Set a key of an entry's notes."""
        claim.check_owned()
        if claim.taken:  # from its owner, who writes the notes
            raise OwnershipLost(claim.queue, claim.name)
        is_progress = key == PROGRESS
        notes = encoded({key: value}) if is_progress else claim.annotate(key, value)
        values = (notes, claim.name, claim.owner, claim.token)
        if not self._links.update("annotate an entry in", _PROGRESS if is_progress else _ANNOTATE, values):
            raise OwnershipLost(claim.queue, claim.name)

    def notes(self, name: str) -> dict[str, msgspec.Raw]:
        """Return an entry's notes."""
        return looks.notes(self._links, name)

    # The whole

    def slot(self, numbers: range) -> Slot | None:
        """Hold a free slot."""
        keeper = self._context.keeper
        assert keeper is not None, "only readers ask for slots, and they are no onlookers"  # noqa: S101
        return keeper.slots.take(numbers, self._links.patience.answer)

    def depths(self) -> dict[Place, int]:
        """Count the entries in every place."""
        return looks.depths(self._links)

    def standings(self) -> list[Standing]:
        """Ask for what metrics tell."""
        return standing.standings(self._links, self._context.now())

    def recover(self, queue: str | None = None, *, insist: bool = True) -> list[Recovered]:
        """Put back what dead owners had; tell also of what the keeper has put back."""
        context = self._context
        found = recovery.recover(self._links, context.now(), queue, insist=insist)
        self._tell(found)
        if context.keeper is not None:
            found += [Recovered(name, place) for name, place in context.keeper.take_recovered(queue)]
        return found

    def recover_all(self, *, dry_run: bool = False) -> Iterator[Recovered | SpoolError]:
        """Recover, and collect names that nobody has."""
        if dry_run:
            yield from recovery.foresee(self._links, self._context.now())
            return
        yield from self.recover()
        yield from recovery.sweep(self._links, self._context.now())

    def recover_name(self, name: str) -> Recovered | None:
        """Put one entry back, or forget a name."""
        found = recovery.recover_name(self._links, self._context.now(), name)
        if found is not None:
            self._tell([found])
        return found

    def _tell(self, recovered: Iterable[Recovered]) -> None:
        back: dict[str, list[str]] = {}
        for each in recovered:
            if each.queue is not None:
                back.setdefault(each.queue, []).append(each.name)
        self._context.arrived(back)

    def watch(self) -> PostgresWatch:
        """Begin to watch queues."""
        return self._context.hints.watch(ARRIVED)

    def watch_entries(self) -> PostgresWatch:
        """Begin to watch entries."""
        watch = self._context.hints.watch(MOVED)
        if self._context.keeper is not None:
            self._context.keeper.poke()
        return watch

    def ask_to_cancel(self, queue: str, name: str, request: CancelRequest) -> None:
        """Make a request."""
        values = (msgspec.json.encode(request), queue, name, queue, queue)
        _ = self._links.update("ask to cancel an entry in", _ASK_TO_CANCEL, values)
        self._context.hints.cancelled(name)
        if self._context.keeper is not None:
            self._context.keeper.poke()

    def withdraw_cancellation(self, name: str) -> None:
        """Delete a request."""
        _ = self._links.update("withdraw a request in", _WITHDRAW, (name,))

    def cancellation(self, queue: str, name: str) -> CancelRequest | None:
        """Return a request; also one of the keeper's, about what was lost."""
        if name in self._context.in_hand.lost():
            return CancelRequest(self._context.now(), _CUT_OFF)
        rows = self._links.read("look for a request in", _CANCELLATION, (name, queue, queue))
        try:
            return msgspec.json.decode(rows[0][0], type=CancelRequest) if rows else None
        except msgspec.DecodeError:
            return None

    def asked_to_cancel(self) -> list[str]:
        """List the requests, and what was lost. A server that does not answer is not asked."""
        lost = self._context.in_hand.lost()
        keeper = self._context.keeper
        if lost and (keeper is None or keeper.cut_off):
            return lost
        return [*lost, *(name for (name,) in self._links.read("look for requests in", _ASKED))]

    def watch_cancellations(self) -> PostgresWatch:
        """Begin to watch for requests."""
        return self._context.hints.watch(CANCELLED)

    def pause(self, queue: str, wanted: Pause) -> None:
        """Pause a queue."""
        purpose = Purpose("pause a queue in", queue, level=self._links.level(None))
        _ = self._links.change(purpose, _PAUSE, {"queue": queue, "pause": wanted.encode()})

    def resume(self, queue: str) -> None:
        """End a pause."""
        purpose = Purpose("resume a queue in", queue, level=self._links.level(None))
        _ = self._links.change(purpose, _RESUME, {"queue": queue})

    def pauses(self) -> dict[str, Pause]:
        """List the pauses."""
        return {queue: decode_pause(raw) for queue, raw in self._links.read("look for pauses in", _PAUSES)}

    def find(self, name: str) -> Item | None:
        """Look for an entry."""
        return looks.find(self._links, name)

    def remembered_until(self, name: str) -> float | None:
        """Look until when a name is remembered."""
        return looks.remembered_until(self._links, name, self._context.now())

    def remembered(self, *, after: str = "", most: int | None = None) -> list[tuple[str, float]]:
        """List the names that are remembered."""
        return looks.remembered(self._links, self._context.now(), after, most)

    def remember_for(self, name: str) -> float | None:
        """Look for how long the name of an entry is to be remembered."""
        return looks.remember_for(self._links, name)

    def queues(self) -> list[str]:
        """Return the queues, sorted."""
        return looks.queues(self._links)

    def inventory(
        self, queue: str | None = None, state: State | None = None, *, most: int | None = None
    ) -> Iterator[Item]:
        """Yield every entry."""
        return looks.inventory(self._links, queue, state, most)

    def count(self, queue: str | None = None, state: State | None = None) -> int:
        """Count entries."""
        return looks.count(self._links, queue, state)

    def examine(self, wanted: Wanted, judge: Judge) -> Iterator[Findings | None]:
        """Look for what may be wrong."""
        return examine.examine(self._links, wanted, judge)

    def look_closely(self, name: str, judge: Judge) -> Findings:
        """Look at one name."""
        return examine.look_closely(self._links, name, judge)

    def advice(self) -> list[Advice]:
        """Return what a person who looks after the server should know."""
        return list(advice.advice(self._links))

    def close(self) -> None:
        """End all sessions. What is in hand is let go of with them. In a forked child they are the parent's."""
        if self._process != this_process():
            return
        if self._context.keeper is not None:
            self._context.keeper.close()
        self._links.close()
