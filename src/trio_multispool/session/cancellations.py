"""Requests to cancel what a program has in hand: it is told of them, in one task a spool, and passes them on.

Theory. A request is a file that anybody may make, at any moment of an entry's life. So two must not be missed:

- One that is made while the entry is in hand. The store tells of it. As for queues (`session/changes.py`), the watch is
  begun *before* the look, so what comes after the look makes its descriptor readable.
- One that was there before the entry came into this hand: its owner died, or gave it back. Each look notes all names
  for which there is a request. A check-out of one of them has the task look.

The watch is begun, with the first look, in the hop of the first check-out; from then on nothing is done until the store
tells. The task that waits for that ends with the last reader, or when the spool is closed. It belongs to no nursery,
because entries that are checked out by their names belong to none; so it must never raise. It holds nothing that would
keep a spool open which its users have dropped. Where the store cannot tell, it looks once a second.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

import anyio

from trio_multispool.errors import SpoolError
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.results import Err
from trio_multispool.threads.loop import whatever_is_cancelled

if TYPE_CHECKING:
    import weakref
    from collections.abc import Iterable

    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.session.changes import Polled
    from trio_multispool.storage.handles import Claim, Reservation, Watch
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.threads.loop import Loop
    from trio_multispool.threads.offload import Offload
    from trio_multispool.threads.transaction import BeforeCommit

LOOK_AGAIN: Final = 1.0
"""In seconds, where the store does not tell."""


class InHand(Protocol):
    """A check-out, as this module knows it."""

    def cancel(self, request: CancelRequest) -> None:
        """Cancel the work on it, because somebody asks for that."""
        ...


Held: TypeAlias = "dict[Claim | Reservation, weakref.ref[InHand] | None]"
"""What a session has in hand; with each claim, what is to be told."""


class Cancellations:
    """What passes requests on to the check-outs of one session; used in its event loop."""

    def __init__(self, storage: Storage[Any, Any], offload: Offload, held: Held, polled: Polled) -> None:
        """Begin with nobody to tell."""
        self.begun: bool = False
        """Whether the store was asked to tell, and looked at once."""
        self.loop: Loop | None = None
        """The event loop in which there is a task, or was one that a bug has ended."""
        self.asked: frozenset[str] = frozenset()
        """The names for which there was a request at the last look."""
        self._storage = storage
        self._offload = offload
        self._held = held
        self._polled = polled
        self._mutex = threading.Lock()
        self._over = False
        self._readers = 0
        self._watch: Watch | None = None
        self._listener: _Listener | None = None

    def join(self) -> None:
        """Count one more reader."""
        self._readers += 1

    async def leave(self) -> None:
        """Count one reader less; with the last one the task ends, unless something else is in hand."""
        self._readers -= 1
        if not (self._readers or self._in_hand()):
            listener = self._listener
            self._rest()
            if listener is not None:
                await listener.has_ended()

    def begin(self) -> None:
        """Have the store tell from now on, and look once; in a worker thread, with a check-out."""
        with self._mutex:
            if not (self.begun or self._over):
                self.begun = True
                try:
                    self._watch, self.asked = self.look(None)
                except SpoolError as error:
                    self._polled.tell(error)

    def listen(self, loop: Loop) -> None:
        """Begin the task, when something is in hand."""
        if self._listener is not None:  # of a loop that has ended, and has not ended its tasks
            self._listener.abandon()
        self.loop, self.begun = loop, True
        with self._mutex:
            watch, self._watch = self._watch, None
        self._listener = _Listener(self, loop, watch)
        if watch is None:
            self._listener.look_again()

    def look_again(self) -> None:
        """Have the task look, also if it is only about to wait."""
        if self._listener is not None:
            self._listener.look_again()

    def stop(self) -> None:
        """End the task for ever; in any thread."""
        self._over = True
        self._rest()

    def close(self) -> None:
        """Do so in the event loop: it may be about to end."""
        listener = self._listener
        self.stop()
        if listener is not None:
            listener.end_now()

    def _rest(self) -> None:
        """End the task until something is in hand again; in any thread."""
        with self._mutex:
            watch, self._watch = self._watch, None
            listener, self._listener = self._listener, None
            self.begun, self.loop = False, None
            self.asked = frozenset()
        if watch is not None:
            watch.close()
        if listener is not None:
            listener.end()

    # For the task

    def ended(self, listener: _Listener) -> None:
        """Take note that the event loop has ended: another may follow."""
        if self._listener is listener:
            self._rest()

    async def pass_on(self, watch: Watch | None) -> Watch | None:
        """Look for requests about what is in hand, and pass them on; return what tells of more, if anything can."""
        looked_for: set[Claim] | None = None
        while looked_for is None or any(claim.name in self.asked for claim in self._in_hand() - looked_for):
            looked_for = self._in_hand()
            read = functools.partial(self._read, watch, looked_for)
            undo = functools.partial(_undo_look, watch)
            # Not on the spool's limiter: the work that is to be cancelled may hold all that it has.
            answer = await self._offload.run("look for requests to cancel", read, undo=undo, limited=False)
            if isinstance(answer, Err):
                self._polled.tell(answer.error)
                return None
            watch, self.asked, requests = answer.value
            for claim, request in requests:  # the name may be in hand anew meanwhile, by another claim
                reference = self._held.get(claim)
                checkout = None if reference is None else reference()
                if checkout is not None:
                    checkout.cancel(request)
        return watch

    def _in_hand(self) -> set[Claim]:
        """Return what is in hand, without reserved names."""
        return {cast("Claim", claim) for claim in list(self._held) if self._held.get(claim) is not None}

    def _read(
        self, watch: Watch | None, in_hand: Iterable[Claim], _before_commit: BeforeCommit
    ) -> tuple[Watch | None, frozenset[str], list[tuple[Claim, CancelRequest]]]:
        """Look, and read the requests about what is in hand; in a thread."""
        watch, asked = self.look(watch)
        ours = (claim for claim in in_hand if claim.name in asked)
        found = [(claim, self._storage.cancellation(claim.queue, claim.name)) for claim in ours]
        return watch, asked, [(claim, request) for claim, request in found if request is not None]

    def look(self, watch: Watch | None) -> tuple[Watch | None, frozenset[str]]:
        """Have the store tell of requests from now on, and return the names for which there is one; in a thread.

        Returns what tells of them: what it was given, or a new one.
        """
        telling = watch
        try:
            try:
                telling = self._storage.watch_cancellations() if watch is None else watch
                if telling is not None:
                    telling.add("")
            except SpoolError as error:  # tried again with the next look
                self._polled.tell(error)
                _close_new(telling, watch)
                telling = None
            return telling, frozenset(self._storage.asked_to_cancel())
        except BaseException:  # passed on
            _close_new(telling, watch)
            raise

    def tell_bug(self, error: Exception) -> None:
        """Log what has ended the task."""
        message = "requests to cancel entries of spool %(spool)s are not passed on any more: %(error)s"
        path = self._storage.location
        log(LOGGER.error, Event.NOT_LISTENING, path, message, error=error, traceback_of=error)


def _close_new(watch: Watch | None, before: Watch | None) -> None:
    if watch is not None and watch is not before:
        watch.close()


def _undo_look(before: Watch | None, looked: tuple[Watch | None, object, object]) -> None:
    _close_new(looked[0], before)


class _Listener:
    """The task that waits for requests, from the first check-out until nothing is to be told."""

    def __init__(self, cancellations: Cancellations, loop: Loop, watch: Watch | None) -> None:
        self._cancellations = cancellations
        self._loop = loop
        self._watch = watch
        self._token = loop.token()
        self._begun = self._over = False
        self._ended = anyio.Event()
        self._scope, self._pause = loop.new_scope(), loop.new_scope()
        self._task = loop.start_task(self._run)

    def look_again(self) -> None:
        self._pause.cancel()

    def end_now(self) -> None:
        """End it in the event loop, after `end`."""
        with contextlib.suppress(RuntimeError):  # none runs here any more
            if self._loop.token() is self._token:
                self._scope.cancel()

    def end(self) -> None:
        """End it soon; in any thread."""
        self._over = True
        if self._begun:
            self._loop.call(self._scope.cancel)
        else:  # asyncio never began it, or begins it now
            self._close()

    async def has_ended(self) -> None:
        """Wait for its end, after `end`."""
        if self._begun and self._loop.token() is self._token:
            await whatever_is_cancelled(self._ended.wait)

    def abandon(self) -> None:
        """Close what it has open: it will never run again."""
        self._over = True
        self._close()

    def _close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    async def _run(self) -> None:
        self._begun = not self._over
        if self._over:
            return
        try:
            with self._scope:
                while True:
                    with self._pause:
                        await self._wait()
                    self._pause = self._loop.new_scope()
                    await self._look()
        except anyio.ClosedResourceError:  # the spool is closed
            return
        except Exception as error:  # noqa: BLE001  # a bug; on Trio it would end the program
            self._cancellations.tell_bug(error)
        except BaseException:  # the event loop ends
            self._cancellations.ended(self)
            raise
        finally:
            self._close()
            self._ended.set()

    async def _look(self) -> None:
        watch = await self._cancellations.pass_on(self._watch)
        if watch is not self._watch:
            self._close()
            self._watch = watch

    async def _wait(self) -> None:
        if self._watch is None:
            await anyio.sleep(LOOK_AGAIN)
        else:
            await anyio.wait_readable(self._watch.fileno())
            _ = self._watch.drain()
