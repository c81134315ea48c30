"""Fair limits: at most `limit` entries of one key are at work at once, in all processes together.

Theory. A key has `limit` slots. Each slot is a lock that all processes of the spool see, and an entry is checked out
with one of them held. The key's hash says which slots it has: two keys with the same hash (one chance in many thousand
million million) share a limit, and nothing worse happens. An entry whose key has no free slot is passed over, the ones
behind it are not: no key starves because of another's limit.

To know an entry's key, its metadata is read before the check-out, and remembered by the entry's name. A key that was
found full counts as full until the queue is listed again, or for a moment: a thousand entries of such a key cost a
thousand looks into a table, and not a thousand check-outs. The check-out notices metadata that changed meanwhile.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, final

from trio_multispool.clock import stopwatch
from trio_multispool.errors import AccessDenied, CorruptMetadata, NotARegularFile, StorageFailure
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.times import whole
from trio_multispool.model.types import M

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_multispool.session.session import Session
    from trio_multispool.storage.handles import Slot


Key: TypeAlias = str | int | bytes
"""What entries have in common that are limited together."""

MOST: Final = 1024
"""The largest limit."""

FULL_FOR: Final = 0.05
"""How long a key that was full is taken to be so, in seconds: a slot that another process frees is noticed later."""

FEW_NAMES: Final = 4096
"""At most this many names are remembered beside those of the last listing."""


UNKNOWN: Final = b"\0unknown"
"""The key of entries for which the caller's function raises: they are limited together."""


@final
class KeySlot:
    """A slot that an entry has for as long as it is in hand; without one, it is not limited."""

    def __init__(
        self, limiter: KeyLimiter[Any] | None = None, key: Key | None = None, slot: Slot | None = None
    ) -> None:
        """Take the slot over."""
        self._limiter = limiter
        self._slot = slot
        self.key: Key | None = key

    def end(self) -> bool:
        """Let the next one of its key have it; tell whether there was anything to let go. Idempotent, in any thread."""
        slot, self._slot = self._slot, None
        if slot is None or self._limiter is None:
            return False
        slot.release()
        self._limiter.is_free(self.key)
        return True


UNLIMITED: Final = KeySlot()


@final
class KeyLimiter(Generic[M]):
    """The limits of one reader; used by any number of threads."""

    def __init__(
        self, session: Session[Any, M, Any, Any], queue: str, by: Callable[[M], Key | None], limit: int
    ) -> None:
        """Begin with nothing known. Raises `ValueError` or `TypeError` for a limit not from 1 to `MOST`."""
        self._limit = whole(limit, "limit", least=1)
        if self._limit > MOST:
            raise ValueError(f"limit is {MOST} at the most, not {limit}")
        if not callable(by):
            raise TypeError(f"limit_by is a function of the metadata, not {by!r}")
        self._session = session
        self._queue = queue
        self._by = by
        self._complained = False
        self._keys: dict[str, Key | None] = {}
        self._full: dict[Key | None, Callable[[], float]] = {}

    def key_of(self, name: str, metadata: M) -> Key | None:
        """Return the key of an entry, `None` if it is not limited."""
        try:
            key = self._by(metadata)
        except Exception as error:  # noqa: BLE001  # logged; of one entry, which must not keep the others from being done
            self._complain(name, error)
            return UNKNOWN
        if key is not None and not isinstance(key, (str, int, bytes)):
            raise TypeError(f"limit_by returns a string, a number, bytes or None, not {key!r}")
        return key

    def _complain(self, name: str, error: Exception) -> None:
        if self._complained:
            return
        self._complained = True
        path, message = self._session.path, "limit_by raised for entry %(entry)s of queue %(queue)s"
        log(LOGGER.error, Event.NO_KEY, path, message, queue=self._queue, entry=name, error=error, traceback_of=error)

    def is_known_full(self, name: str) -> bool:
        """Tell whether an entry was seen before, and its key has just been full."""
        since = self._full.get(self._keys.get(name))  # without a key, it never is
        return since is not None and since() < FULL_FOR

    def slot_of(self, name: str, read: Callable[[], bytes]) -> KeySlot | None:
        """Return a slot for an entry, whose metadata `read` returns; `None`: its key is full."""
        if name not in self._keys:
            try:
                metadata = self._session.encoding.decode(self._queue, name, read())
            except (CorruptMetadata, NotARegularFile, AccessDenied, StorageFailure):
                return UNLIMITED  # met again by the check-out, which sets it aside or passes it over
            self._keys[name] = self.key_of(name, metadata)
        return self.slot(self._keys[name])

    def slot(self, key: Key | None) -> KeySlot | None:
        """Return a slot for a key; `None`: it is full."""
        if key is None:
            return UNLIMITED
        first = self._first_slot(key)
        slot = self._session.storage.slot(range(first, first + self._limit))
        if slot is not None:
            return KeySlot(self, key, slot)
        self._full[key] = stopwatch()
        return None

    def confirmed(self, name: str, slot: KeySlot, metadata: M) -> KeySlot | None:
        """Return a slot for an entry that was checked out, now that its metadata cannot change."""
        key = self.key_of(name, metadata)
        if key == slot.key:
            return slot
        _ = slot.end()
        self._keys[name] = key
        return self.slot(key)

    def is_free(self, key: Key | None) -> None:
        """Say that a key has a free slot again."""
        _ = self._full.pop(key, None)

    def listed(self, names: Iterable[str]) -> None:
        """Ask again which keys are full, and forget names that are not in the queue any more, if there are many."""
        self._full.clear()
        present = list(names)
        if len(self._keys) > FEW_NAMES + 2 * len(present):
            self._keys = {name: self._keys[name] for name in present if name in self._keys}

    def _first_slot(self, key: Key) -> int:
        text = key if isinstance(key, bytes) else str(key).encode(errors="surrogatepass")
        kind = type(key).__name__.encode()
        digest = hashlib.blake2b(b"\0".join((self._queue.encode(), kind, text)), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) * MOST
