"""Requests to cancel what a program has in hand: it is told of them, in one task a spool, and passes them on.

Theory. A request is a file that anybody may make, at any moment of an entry's life. So two must not be missed:

- One that is made while the entry is in hand. The store tells of it. As for queues (`session/changes.py`), the watch is
  begun *before* the look, so what comes after the look makes its descriptor readable.
- One that was there before the entry came into this hand: its owner died, or gave it back. Each look notes all names
  for which there is a request. A check-out of one of them has the task look.

The watch is begun, with the first look, in the hop of the first check-out; from then on nothing is done until the store
tells. The task that waits for that ends when the spool is closed. It belongs to no nursery, because entries that are
checked out by their names belong to none; so it must never raise. It holds nothing that would keep a spool open which
its users have dropped. Where the store cannot tell, it looks once a second.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import anyio

from trio_multispool.errors import SpoolError
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.results import Err

if TYPE_CHECKING:
    import weakref
    from collections.abc import Collection

    from trio_multispool.model.cancellation import CancelRequest
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

    def __init__(self, storage: Storage[Any, Any], offload: Offload, held: Held) -> None:
        """Begin with nobody to tell."""
        self.listening: bool = False
        """Whether the task was begun, and has not ended with its event loop."""
        self.asked: frozenset[str] = frozenset()
        """The names for which there was a request at the last look."""
        self._storage = storage
        self._offload = offload
        self._held = held
        self._over = False
        self._beginning = threading.Lock()
        self.begun: bool = False
        """Whether the store was asked to tell, and looked at once."""
        self._watch: Watch | None = None
        self._failed = self._complained = False
        self._loop: Loop | None = None
        self._task: object = None
        self._pause: anyio.CancelScope | None = None

    def begin(self) -> None:
        """Have the store tell from now on, and look once; in a worker thread, with a check-out."""
        with self._beginning:
            if not (self.begun or self._over):
                self.begun = True
                try:
                    self._watch = self._storage.watch_cancellations()
                    self.asked = self._asked()
                except SpoolError as error:
                    self._failed = True
                    self._complain(error)

    def listen(self, loop: Loop) -> None:
        """Begin the task, when something is in hand."""
        self.listening = True
        self._loop, self._pause = loop, loop.new_scope()
        self._task = loop.start_task(functools.partial(self._listen, loop))

    def look_again(self) -> None:
        """Have the task look, also if it is only about to wait."""
        if self._pause is not None:
            self._pause.cancel()

    def stop(self) -> None:
        """End the task, if there is one; in any thread."""
        with self._beginning:
            self._over = True
            if self.listening and self._loop is not None:
                self._loop.call(self.look_again)
            else:
                self._close()

    async def _listen(self, loop: Loop) -> None:
        try:
            while not self._over:
                assert self._pause is not None  # noqa: S101  # for the type checkers: the task was begun
                with self._pause:
                    await self._wait()
                self._pause = loop.new_scope()
                if not self._over:
                    await self._look()
        except anyio.ClosedResourceError:  # the spool is closed
            pass
        except Exception as error:  # noqa: BLE001  # a bug; on Trio it would end the program
            message = "requests to cancel entries of spool %(spool)s are not passed on any more: %(error)s"
            path = self._storage.location
            log(LOGGER.error, Event.NOT_LISTENING, path, message, error=error, traceback_of=error)
        except BaseException:  # the event loop ends; another may follow
            self.listening = self.begun = False
            raise
        finally:
            self._close()

    def _close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    async def _wait(self) -> None:
        watch = self._watch
        if watch is None or self._failed:
            await anyio.sleep(LOOK_AGAIN)
        else:
            await anyio.wait_readable(watch.fileno())
            _ = watch.drain()

    async def _look(self) -> None:
        """Look for requests about what is in hand, and pass them on."""
        looked_for: set[str] | None = None
        while looked_for is None or self._in_hand().intersection(self.asked) - looked_for:
            looked_for = self._in_hand()
            read = functools.partial(self._read, looked_for)
            answer = await self._offload.run("look for requests to cancel entries", read)
            self._failed = isinstance(answer, Err)
            if isinstance(answer, Err):
                self._complain(answer.error)
                return
            self.asked, requests = answer.value
            for claim, reference in list(self._held.items()):
                checkout = None if reference is None else reference()
                if checkout is not None and claim.name in requests:
                    checkout.cancel(requests[claim.name])

    def _in_hand(self) -> set[str]:
        return {claim.name for claim in list(self._held)}

    def _read(
        self, in_hand: Collection[str], _before_commit: BeforeCommit
    ) -> tuple[frozenset[str], dict[str, CancelRequest]]:
        """Return the names for which there is a request, and the requests about what is in hand; in a thread."""
        asked = self._asked()
        found = ((name, self._storage.cancellation(name)) for name in asked.intersection(in_hand))
        return asked, {name: request for name, request in found if request is not None}

    def _asked(self) -> frozenset[str]:
        if self._watch is not None:
            self._watch.add("")
        return frozenset(self._storage.asked_to_cancel())

    def _complain(self, error: SpoolError) -> None:
        if not self._complained:
            self._complained = True
            message = "requests to cancel entries of spool %(spool)s are looked for by polling: %(error)s"
            log(LOGGER.warning, Event.POLLING, self._storage.location, message, error=error)
