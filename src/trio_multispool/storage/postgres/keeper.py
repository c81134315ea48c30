"""The keeper: a thread of an open spool. It keeps its owner alive, hears and sends hints, and notices silence.

Theory. An owner is alive for as long as any session holds its lock, shared. Every connection of it does, so one that is
lost is no death. What the keeper adds:

- It asks the server for the time, once a second. Without an answer for some (`Patience.cut_off`), this process must
  take itself for one that was cut off: what it has in hand is lost, and cancelled before the server gives it away.
- When it has connected again, it looks which entries are still this owner's: somebody else may have got one. And it
  lets go of those that are its own again, because the server has lost that it gave them back.
- A server that was started anew, or has taken over from another, has none of the old one's locks. Owners register with
  it anew, and those that have not are not judged until it has been known for a while (`Patience.grace`).
- Of all keepers of a spool, one is elected, by a lock. It looks many times a second for owners that have died, so that
  their entries are back at once. Another is its deputy, by a second lock, and looks as often whether it has died.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import socket
import threading
from typing import TYPE_CHECKING, Final, final

import psycopg
from psycopg.errors import DiskFull, InsufficientResources, LockNotAvailable, OutOfMemory, ReadOnlySqlTransaction

from trio_multispool.clock import stopwatch, this_process, wall_clock
from trio_multispool.errors import SpoolError
from trio_multispool.storage.postgres.connecting import UNSYNCED
from trio_multispool.storage.postgres.control import Control, SilentError, wait_for
from trio_multispool.storage.postgres.hints import MOVED, OPENED
from trio_multispool.storage.postgres.recovery import BURY, DEATHS, RECOVER, SERVER, UNLINK
from trio_multispool.storage.postgres.schema import with_schema
from trio_multispool.storage.postgres.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_multispool.storage.postgres.claims import InHand
    from trio_multispool.storage.postgres.hints import Hints
    from trio_multispool.storage.postgres.link import Links

ASKED_LATELY: Final = 5.0
"""For how long names are told to processes that wait for entries, after one has said that it does, in seconds."""

IN_DOUBT: Final = 60.0
"""For how long what was taken without a known outcome may still take place, in seconds: a server gives up before."""

MOST_RECOVERED: Final = 10_000
"""So many are remembered of what was put back, until somebody asks."""

_HINTS_EVERY: Final = 0.005
"""So long after hints were told, in seconds, the next are: what comes in between is told with them. Nobody need hear
more often that there is work, and each costs as much as an entry."""

_UNSAFE: Final = (UNSYNCED, "local")
"""Where commits are not synced, or not by who takes over."""

_NOT_NOW: Final = (DiskFull, InsufficientResources, LockNotAvailable, OutOfMemory)
"""Somebody works on the tables, or the server has no room: something is done later then, and in the same session."""

_FAREWELL: Final = 1.0
_LATER: Final = 0.01
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_REGISTER: Final = """
    INSERT INTO SCHEMA.owner (id, host, pid, server) VALUES ($1::bigint, $2, $3::integer, $4)
    ON CONFLICT (id) DO UPDATE SET server = excluded.server"""

_SEE: Final = """
    INSERT INTO SCHEMA.server (id, since) VALUES ($1, extract(epoch FROM clock_timestamp())) ON CONFLICT DO NOTHING"""

_PING: Final = "SELECT extract(epoch FROM clock_timestamp())"

_OTHERS: Final = "SELECT 1 FROM SCHEMA.owner WHERE id <> $1::bigint LIMIT 1"

# Of two offices: to look for deaths (0), and to be the deputy of who does (1).
_TAKE_OFFICE: Final = """
    SELECT pg_try_advisory_lock(hashtextextended('multispool recovery ' || 'SCHEMA', $1::bigint))"""

_LEAVE_OFFICE: Final = """
    SELECT pg_advisory_unlock(hashtextextended('multispool recovery ' || 'SCHEMA', $1::bigint))"""

_LET_GO: Final = """
    UPDATE SCHEMA.entry AS entry SET owner = 0 FROM unnest($2::text[], $3::bigint[]) AS gone (name, token)
    WHERE entry.name = gone.name AND entry.owner = $1::bigint AND entry.token = gone.token"""

_LET_GO_ALL: Final = """
    UPDATE SCHEMA.entry SET owner = 0
    WHERE owner = $1::bigint AND token = ANY($2::bigint[]) AND state IN ('c', 'r')"""

_BUSY: Final = """
    SELECT pid FROM pg_stat_activity WHERE pid = ANY($1::integer[])
        AND (state IN ('active', 'disabled') OR state_change > clock_timestamp() - make_interval(secs => $2))"""
"""Those that the server works on; and those that it has answered lately, as between two pieces of large data."""

_TELL: Final = "SELECT pg_notify($1, hint) FROM unnest($2::text[]) AS hint"

_OURS: Final = "SELECT name, token, state = 'c' FROM SCHEMA.entry WHERE owner = $1::bigint"


@final
class Keeper:
    """The thread, and what other threads give it to do."""

    def __init__(self, links: Links, hints: Hints, in_hand: InHand, *, own_clock: bool) -> None:
        """Connect, and begin. `own_clock`: the caller's clock is what counts, and not the server's."""
        self.slots: Slots = Slots(links.address, self.poke)
        """Those of its session."""
        self._links = links
        self._patience = links.patience
        self._schema = links.address.schema
        self._hints = hints
        self._in_hand = in_hand
        self._own_clock = own_clock
        self.ahead: float = 0.0
        """How many seconds the server's clock is ahead of this host's."""
        self.cut_off: bool = False
        """Whether the server has not answered for so long that it may have given this process up."""
        self.recovered: collections.deque[tuple[str, str]] = collections.deque(maxlen=MOST_RECOVERED)
        """What the elected one has put back, and nobody has been told of: names and queues."""
        self._let_go: list[tuple[str, int]] = []
        self._let_go_later: list[tuple[str, int]] = []
        self._in_doubt: dict[int, Callable[[], float]] = {}
        self._mutex = threading.RLock()  # a garbage collection may drop a claim in any line
        self._closed = False
        self._wake_end, self._poke_end = socket.socketpair()
        for end in (self._wake_end, self._poke_end):
            end.settimeout(0)
        self._elected = self._deputy = self._alone = self._poked = self._tells = False
        self._answered = stopwatch()
        self._told: Callable[[], float] | None = None  # since hints were told
        self._unregistered: str | None = None  # the server that has not been told of this owner
        self._asked: Callable[[], float] | None = None  # since another process asked for names
        self._control: Control | None = None
        try:
            self._control = self._connect()
        except BaseException:  # passed on, whatever it was: there is no keeper
            self._close_ends()
            raise
        self._thread = threading.Thread(target=self._run, name=f"keeper of {links.address.location}", daemon=True)
        self._thread.start()

    # From other threads

    def poke(self) -> None:
        """Have it look for something to do."""
        if self._poked:
            return
        self._poked = True
        with contextlib.suppress(OSError):  # full, or closed
            _ = self._poke_end.send(b".")

    def tell(self) -> None:
        """Have it tell others, soon, what the hints have."""
        if not self._tells:
            self._tells = True
            self.poke()

    def let_go(self, name: str, token: int) -> None:
        """Have an entry, or a name, let go of soon: recovery brings it back."""
        with self._mutex:
            self._let_go.append((name, token))
        self.poke()

    def let_go_all(self, token: int) -> None:
        """Have let go of what was taken with a token, if anything was: nobody knows, now and for a while."""
        with self._mutex:
            self._in_doubt[token] = stopwatch()
        self.poke()

    def take_recovered(self, queue: str | None) -> list[tuple[str, str]]:
        """Return what was put back, of one queue or of all, and has not been returned before."""
        with self._mutex:
            found = [each for each in self.recovered if queue in (None, each[1])]
            left = [each for each in self.recovered if queue not in (None, each[1])]
            self.recovered.clear()
            self.recovered.extend(left)
        return found

    def close(self) -> None:
        """End it, and with it the session; wait for that, but not for a server that does not answer."""
        self._closed = True
        self.poke()
        if threading.current_thread() is not self._thread:
            self._thread.join(_FAREWELL)

    # In its own

    def _run(self) -> None:
        pause = threading.Event()
        wait = _PAUSE
        try:
            while not self._closed:
                try:
                    if self._control is None:
                        self._control = self._connect()
                        self._check_what_is_ours(self._control)
                        self.slots.take_again(self._asking(self._control), _array)
                        self._hints.tell_all()
                    wait = _PAUSE
                    self._serve(self._control)
                except (psycopg.Error, SpoolError, SilentError, OSError, ValueError):
                    # Whatever it was: the connection is made anew. Until then, silence grows.
                    self._drop()
                    self._notice_silence()
                    self._links.cut_silent()
                    _ = pause.wait(wait)
                    wait = min(wait * 2, _LONGEST_PAUSE)
        finally:
            self._say_goodbye()
            self._close_ends()

    def _sql(self, statement: str) -> str:
        return with_schema(statement, self._schema)

    def _connect(self) -> Control:
        control = Control(self._links.address, self._patience)
        links, within = self._links, self._patience.cut_off
        try:
            _ = control.ask("SELECT pg_advisory_lock_shared($1::bigint)", links.owner, within=within)
            [[server, syncs]] = control.ask(f"SELECT {SERVER}, current_setting('synchronous_commit')", within=within)
            links.synced = "on" if syncs is None or syncs in _UNSAFE else syncs
            self._unregistered = server
            self._register(control)
            _ = control.ask(f'LISTEN "{self._schema}"', within=within)
            _ = control.ask(_TELL, self._schema, _array([OPENED]), within=within)
            self._elected = self._deputy = False
            self._ping(control)
            self._run_for_office(control)
        except BaseException:  # passed on, whatever it was: nobody would close it
            control.close()
            raise
        return control

    def _register(self, control: Control) -> None:
        """Tell the server of this owner, unless it takes no writes, or none now: then later."""
        server, within = self._unregistered, self._patience.cut_off
        if server is not None:
            with contextlib.suppress(ReadOnlySqlTransaction, *_NOT_NOW):
                host, pid = this_process()
                _ = control.ask(self._sql(_SEE), server, within=within)
                _ = control.ask(self._sql(_REGISTER), self._links.owner, host, pid, server, within=within)
                self._unregistered = None

    def _ping(self, control: Control) -> None:
        before = wall_clock()
        patience = self._patience.cut_off
        within = patience if self.cut_off else max(self._patience.every, patience - self._answered())
        [[time]] = control.ask(self._sql(_PING), within=within)
        if not self._own_clock:
            self.ahead = float(time or 0.0) - (before + wall_clock()) / 2
        self._answered = stopwatch()
        self.cut_off = False
        if self._elected:
            with contextlib.suppress(LockNotAvailable):
                self._alone = not control.ask(self._sql(_OTHERS), self._links.owner, within=self._patience.cut_off)

    def _run_for_office(self, control: Control) -> None:
        """Be the one that is elected, or else its deputy, if there is none."""
        if not self._elected:
            self._elected = self._asked_for_office(control, _TAKE_OFFICE, 0)
            if self._elected and self._deputy:
                self._deputy = not self._asked_for_office(control, _LEAVE_OFFICE, 1)
            elif not self._elected and not self._deputy:
                self._deputy = self._asked_for_office(control, _TAKE_OFFICE, 1)

    def _asked_for_office(self, control: Control, question: str, office: int) -> bool:
        return control.ask(self._sql(question), office, within=self._patience.cut_off) == [["t"]]

    def _serve(self, control: Control) -> None:
        pinged, looked, looks_every = stopwatch(), stopwatch(), self._patience.deaths_every
        while not self._closed:
            wait = self._patience.every - pinged()
            judges = (self._elected and not self._alone) or self._deputy
            if judges:
                wait = min(wait, looks_every - looked())
            if not self._has_something_to_do():
                if self._hints.waiting:
                    wait = min(wait, self._hints_due_in())
                _ = wait_for(wait, control.fileno(), self._wake_end.fileno())
            with contextlib.suppress(BlockingIOError):
                _ = self._wake_end.recv(4096)
            self._poked = False  # after that, and before the work: what nobody pokes it for any more is done now
            self._work(control)
            if pinged() >= self._patience.every:
                pinged = stopwatch()
                self._ping(control)
                self._run_for_office(control)
                self._register(control)
                self._let_go_of_the_rest()
                self._let_go_of_doubtful(control)
                self._cut_the_silent(control)
                self._listen_for_names(control)
            if judges and looked() >= looks_every:
                looked = stopwatch()
                self._run_for_office(control)
                judged = not self._elected or self._judge(control)
                looks_every = self._patience.deaths_every if judged else self._patience.every
            for pid, hint in control.notified():
                if pid != control.pid:
                    self._hear(hint)

    def _has_something_to_do(self) -> bool:
        return bool(self._let_go or self.slots.waiting or (self._hints.waiting and self._hints_due_in() <= 0))

    def _hints_due_in(self) -> float:
        return 0.0 if self._told is None else _HINTS_EVERY - self._told()

    def _asking(self, control: Control) -> Callable[..., list[list[str | None]]]:
        return functools.partial(control.ask, within=self._patience.cut_off)

    def _work(self, control: Control) -> None:
        with self._mutex:
            gone, self._let_go = self._let_go, []
        if gone:
            names, tokens = (_array(each) for each in zip(*gone, strict=True))
            try:
                _ = control.ask(self._sql(_LET_GO), self._links.owner, names, tokens, within=self._patience.cut_off)
            except _NOT_NOW:
                self._let_go_later += gone
            except BaseException:  # passed on, of any kind: the next connection does it
                with self._mutex:
                    self._let_go += gone
                raise
        if self.slots.waiting:
            self.slots.work(self._asking(control), _array)
        if self._hints.waiting and (self._hints_due_in() <= 0 or self._closed):
            self._tell(control)

    def _let_go_of_the_rest(self) -> None:
        """Try again what could not be let go of the last time."""
        later, self._let_go_later = self._let_go_later, []
        with self._mutex:
            self._let_go += later

    def _let_go_of_doubtful(self, control: Control) -> None:
        """Let go of what may have been taken with some tokens; again and again: it may take place late."""
        with self._mutex:
            tokens = list(self._in_doubt)
        if tokens:
            with contextlib.suppress(*_NOT_NOW):
                within = self._patience.cut_off
                _ = control.ask(self._sql(_LET_GO_ALL), self._links.owner, _array(tokens), within=within)
            with self._mutex:
                self._in_doubt = {token: since for token, since in self._in_doubt.items() if since() < IN_DOUBT}

    def _cut_the_silent(self, control: Control) -> None:
        """End operations that wait for an answer in vain: the server, which answers here, does not work on them."""
        if waiting := self._links.waiting_long():
            busy = control.ask(_BUSY, _array(waiting), math.ceil(self._patience.answer), within=self._patience.cut_off)
            self._links.cut_silent([int(pid) for (pid,) in busy if pid is not None])

    def _tell(self, control: Control) -> None:
        self._tells = False  # before that: what comes later is told the next time
        hints = self._hints.take()
        if hints:
            _ = control.ask(_TELL, self._schema, _array(hints), within=self._patience.cut_off)
            self._told = stopwatch()

    def _hear(self, hint: str) -> None:
        if hint == OPENED:
            self._alone = False
        self._hints.heard(hint)
        if self._hints.names_wanted:
            self._asked = self._asked or stopwatch()

    def _listen_for_names(self, control: Control) -> None:
        """Say that somebody here waits for entries to move; and forget that somebody elsewhere did, after a while."""
        if self._hints.is_watching(MOVED):
            self._tell(control)
            self._hints.tell_here(MOVED, [""])  # what moved before the others heard it
        if self._asked is not None and self._asked() > ASKED_LATELY:
            self._asked, self._hints.names_wanted = None, False

    def _judge(self, control: Control) -> bool:
        """Put back what owners had that have died, and tell of it; return whether that can be done now."""
        try:
            self._put_back(control)
        except _NOT_NOW:
            return False
        return True

    def _put_back(self, control: Control) -> None:
        grace = self._patience.grace
        if not control.ask(self._sql(DEATHS), self._links.owner, grace, within=self._patience.cut_off):
            return
        _ = control.ask(self._sql(BURY), self._links.owner, grace, within=self._patience.cut_off)
        _ = control.ask(self._sql(UNLINK), within=self._patience.cut_off)
        found = control.ask(
            self._sql(RECOVER), self._links.owner, grace, None, self.now(), within=self._patience.cut_off
        )
        back = [(name, queue) for name, queue in found if name is not None and queue is not None]
        with self._mutex:
            self.recovered += back
        for name, queue in back:
            self._hints.arrived(queue, 1)
            self._hints.moved([name])

    def now(self) -> float:
        """Return the time of day by the server's clock."""
        return wall_clock() + self.ahead

    # Silence

    def _notice_silence(self) -> None:
        if self._answered() >= self._patience.cut_off and not self.cut_off:
            self.cut_off = True
            self._lose(self._in_hand.all())

    def _lose(self, lost: dict[str, int]) -> None:
        self._in_hand.lose(lost)
        for name, token in lost.items():
            self.let_go(name, token)
            self._hints.cancelled(name)

    def _check_what_is_ours(self, control: Control) -> None:
        """Look what is still this owner's: entries may have been given away while nobody answered.

        And some may be its own again, or a name: a crash of the server undoes what was not synced, as a release is.
        """
        held = self._in_hand.all()
        rows = control.ask(self._sql(_OURS), self._links.owner, within=self._patience.cut_off)
        ours = {(name, int(token or 0)) for name, token, is_entry in rows if is_entry == "t"}
        now_in_hand = self._in_hand.all()
        gone = {
            name: token for name, token in held.items() if (name, token) not in ours and now_in_hand.get(name) == token
        }
        self._lose(gone)
        known = self._in_hand.tokens()
        for name, token, _ in rows:
            if name is not None and token is not None and int(token) not in known:
                self.let_go(name, int(token))

    def _drop(self) -> None:
        control, self._control = self._control, None
        self._elected = self._deputy = False
        if control is not None:
            with contextlib.suppress(psycopg.Error, OSError, ValueError):
                control.cut()
            # Somebody must notice it in time: to connect, to several hosts or by slow names, may take longer.
            timer = threading.Timer(max(0.0, self._patience.cut_off - self._answered()) + _LATER, self._notice_silence)
            timer.daemon = True
            timer.start()

    def _say_goodbye(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            with contextlib.suppress(psycopg.Error, SilentError, OSError, ValueError):
                self._work(control)
                for statement in _LEAVE:
                    _ = control.ask(self._sql(statement), self._links.owner, within=_FAREWELL)
            with contextlib.suppress(psycopg.Error, OSError):
                control.close()

    def _close_ends(self) -> None:
        self._wake_end.close()
        self._poke_end.close()


_LEAVE: Final = (
    "DELETE FROM SCHEMA.link WHERE owner = $1::bigint",
    """DELETE FROM SCHEMA.owner AS owner WHERE id = $1::bigint
        AND NOT EXISTS (SELECT 1 FROM SCHEMA.entry WHERE entry.owner = owner.id)""",
)


def _array(values: Iterable[object]) -> str:
    """Return a PostgreSQL array of texts or numbers, as text."""
    quoted = (str(value).replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"
