"""Values to bytes and back, by the codecs of one spool, in worker threads.

Any `Exception` that a codec raises means that it cannot encode or decode; it becomes the cause of an `Err`. Only
`MemoryError` passes through: it says nothing about the entry.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

from trio_multispool.errors import CorruptData, CorruptMetadata, EncodingFailed, SpoolError
from trio_multispool.model.codecs import QUICK, WholeFile
from trio_multispool.model.types import A, D, M, Q, T

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.model.spoolable import Spoolable
    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.requests import Content

Given = TypeVar("Given")


class Encoding(Generic[Q, M, D, A]):
    """The codecs of one spool, and what it means when one fails."""

    def __init__(self, spoolable: Spoolable[Q, M, D, A]) -> None:
        """Use the codecs of what the spool holds."""
        self._metadata = spoolable.metadata
        self._data = spoolable.data
        self.data_is_whole: bool = isinstance(spoolable.data, WholeFile)
        """Whether the codec encodes data as a whole."""
        self.data_is_quick: bool = type(spoolable.data) in QUICK
        """Whether the codec is one of this library that takes no time for little data."""

    def encode(self, metadata: M) -> bytes:
        """Return the bytes that stand for metadata, or raise `EncodingFailed`."""
        return _encoded("metadata", self._metadata.encode, metadata)

    def encode_if_changed(self, metadata: M, claim: Claim) -> bytes | None:
        """Return the bytes of a job's metadata, or `None` if they stand for what was checked out.

        In that case the stored bytes stay, with any fields that this program's type does not know.
        """
        raw = self.encode(metadata)
        if raw == claim.metadata or raw == self.encode(self.decode(claim.queue, claim.name, claim.metadata)):
            return None
        return raw

    def decode(self, queue: str, name: str, raw: bytes) -> M:
        """Return the metadata that bytes stand for, or raise `CorruptMetadata`."""
        return _by_codec(self._metadata.decode, raw, CorruptMetadata, queue, name)

    def dumping(self, data: D) -> Callable[[BinaryIO], None]:
        """Return a function that writes data to a file, or raises `EncodingFailed`."""
        dump = functools.partial(self._data.dump, data)
        return lambda file: _by_codec(dump, file, EncodingFailed, "data")

    def dumped(self, data: D) -> Content:
        """Like `dumping`, but what a codec can encode as a whole is encoded now."""
        codec: Any = self._data
        return _encoded("data", codec.encode, data) if self.data_is_whole else self.dumping(data)

    def decode_data(self, name: str, raw: bytes) -> D:
        """Return the data that bytes stand for, or raise `CorruptData`, with a codec that `data_is_quick` is about."""
        codec: Any = self._data
        decoded: D = _by_codec(codec.decode, raw, CorruptData, name)
        return decoded

    def loading(self, name: str) -> Callable[[BinaryIO], D]:
        """Return a function that reads data from a file, or raises `CorruptData`."""
        return lambda file: _by_codec(self._data.load, file, CorruptData, name)


def _encoded(what: str, encode: Callable[[T], bytes], value: T) -> bytes:
    try:
        raw = encode(value)
    except MemoryError:  # says nothing about the entry
        raise
    except Exception as error:  # a codec's way of saying no
        raise EncodingFailed(what, _told(error)) from error
    if not isinstance(raw, bytes):
        raise EncodingFailed(what, f"encode returned {type(raw).__name__} and not bytes")
    return raw


def _by_codec(work: Callable[[Given], T], given: Given, refusal: Callable[..., SpoolError], *about: str) -> T:
    """Return what a codec makes of `given`; what it raises becomes the cause of a refusal, and its last field."""
    try:
        return work(given)
    except MemoryError:  # as above
        raise
    except Exception as error:  # a codec's way of saying no
        raise refusal(*about, _told(error)) from error


def _told(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
