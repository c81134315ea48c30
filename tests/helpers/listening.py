"""An instrumentation that keeps all that it is told, in order."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from helpers.spools import quick_spool
from trio_multispool.instrumentation import (
    AttemptFailed,
    CheckedOut,
    Enqueued,
    Enqueueing,
    Failed,
    Instrumentation,
    Quarantined,
    Returned,
    Settled,
    Waited,
    Working,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from helpers.spools import Location

HOOKS = (
    "on_enqueue",
    "on_checkout",
    "on_settle",
    "on_recover",
    "on_quarantine",
    "on_error",
    "on_attempt_failed",
    "on_wait",
)


class Listening(Instrumentation):
    """Keeps what happened; waits of readers apart, of which there may be any number."""

    def __init__(self, carrier: Mapping[str, str] | None = None) -> None:
        """Send `carrier` along with all entries, if one is given."""
        self.carries = carrier is not None
        self.carrier = carrier
        self._thread = threading.get_ident()
        self.told: list[Any] = []
        self.waits: list[Waited] = []

    def _hear(self, what: Any) -> None:
        assert threading.get_ident() == self._thread, "hooks run in the event loop's thread"
        self.told.append(what)

    def on_enqueue(self, enqueued: Enqueued) -> None:
        """Keep it."""
        self._hear(enqueued)

    def on_checkout(self, checked_out: CheckedOut) -> None:
        """Keep it."""
        self._hear(checked_out)

    def on_settle(self, settled: Settled) -> None:
        """Keep it."""
        self._hear(settled)

    def on_attempt_failed(self, attempt_failed: AttemptFailed) -> None:
        """Keep it."""
        self._hear(attempt_failed)

    def on_recover(self, returned: Returned) -> None:
        """Keep it."""
        self._hear(returned)

    def on_quarantine(self, quarantined: Quarantined) -> None:
        """Keep it."""
        self._hear(quarantined)

    def on_error(self, failed: Failed) -> None:
        """Keep it."""
        self._hear(failed)

    def on_wait(self, waited: Waited) -> None:
        """Keep it apart."""
        assert threading.get_ident() == self._thread
        self.waits.append(waited)

    @contextlib.contextmanager
    def enqueueing(self, enqueueing: Enqueueing) -> Iterator[Mapping[str, str] | None]:
        """Keep it, and how it ended."""
        self._hear(enqueueing)
        with self._ending("enqueueing"):
            yield self.carrier

    @contextlib.contextmanager
    def working(self, working: Working) -> Iterator[None]:
        """Keep it, and how it ended."""
        self._hear(working)
        with self._ending("working"):
            yield

    @contextlib.contextmanager
    def _ending(self, what: str) -> Iterator[None]:
        try:
            yield
        except BaseException as raised:
            self._hear((what, type(raised).__name__))
            raise
        self._hear((what, None))

    def take(self, *kinds: type) -> list[Any]:
        """Return what was told since the last time, or that of these kinds, and forget all of it."""
        told, self.told = self.told, []
        return [one for one in told if not kinds or isinstance(one, kinds)]

    def events(self) -> list[Any]:
        """Return likewise what was told to the hooks that are called `on_…`."""
        return self.take(Enqueued, CheckedOut, Settled, Returned, Quarantined, Failed, AttemptFailed)


@contextlib.asynccontextmanager
async def listened_to(place: Location, **options: Any) -> AsyncIterator[tuple[Any, Listening]]:
    """Make a spool there, and listen; `carrier` is sent along with each entry."""
    heard = Listening(options.pop("carrier", None))
    async with await quick_spool(place, instrumentation=heard, **options) as spool:
        yield spool, heard


class Raising(Instrumentation):
    """Raises whatever it is told; its context managers raise when they are made, or at their `beginning` or `end`."""

    def __init__(self, at: str = "call") -> None:
        """Raise there."""
        self._at = at
        for hook in HOOKS:
            setattr(self, hook, self._raising(hook))
        for hook in ("enqueueing", "working"):
            setattr(self, hook, self._raising(hook) if at == "call" else self._surrounding)

    def _raising(self, name: str) -> Any:
        def hook(_what: object) -> None:
            raise ValueError(name)

        hook.__name__ = name
        return hook

    def _surrounding(self, _what: object) -> contextlib.AbstractContextManager[None]:
        return _Raising(self._at)


class _Raising(contextlib.AbstractContextManager[None]):
    def __init__(self, at: str) -> None:
        self._at = at

    def __enter__(self) -> None:
        if self._at == "beginning":
            raise ValueError(self._at)

    def __exit__(self, *_: object) -> bool:
        raise ValueError(self._at)


def kinds(told: list[Any]) -> list[str]:
    """Return the names of what was told."""
    return [type(one).__name__ for one in told]
