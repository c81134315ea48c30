"""Arrays as PostgreSQL takes them in its binary format.

psycopg has dumpers for lists, which look at each element, and send bytes as text. These send twenty columns of a
hundred entries in a fraction of the time.
"""

from __future__ import annotations

import abc
import itertools
import struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psycopg

_HEAD: Final = struct.Struct("!5i")
_LENGTH: Final = struct.Struct("!i").pack
_NULL: Final = _LENGTH(-1)


class Bytes(list["bytes | None"]):
    """Values for a `bytea[]`."""


class Texts(list["str | None"]):
    """Values for a `text[]`."""


class Whole(list[int]):
    """Values for a `bigint[]`."""


class Reals(list["float | None"]):
    """Values for a `double precision[]`."""


class Flags(list[bool]):
    """Values for a `boolean[]`."""


Columns: TypeAlias = "dict[str, Callable[[Iterable[Any]], list[Any]]]"
"""Columns of a statement, by the names of their values, with their types."""


def columns(of: Columns, rows: Iterable[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Return the columns of rows that have these in this order."""
    return {name: kind(values) for (name, kind), values in zip(of.items(), zip(*rows, strict=True), strict=True)}


class _ArrayDumper(Dumper, abc.ABC):
    format: Format = Format.BINARY
    element: int
    """The number of the elements' type."""

    def _whole(self, number: int, body: bytes) -> bytes:
        """Return an array of one dimension, from 1 on, that may have nulls."""
        return _HEAD.pack(1, 1, self.element, number, 1) + body if number else _HEAD.pack(0, 0, self.element, 0, 0)[:12]


def _joined(values: list[bytes | None]) -> bytes:
    """Return values, each with its length before it."""
    parts: list[bytes] = []
    for value in values:
        parts += (_NULL,) if value is None else (_LENGTH(len(value)), value)
    return b"".join(parts)


class _BytesDumper(_ArrayDumper):
    oid: int = 1001
    element: int = 17

    def dump(self, obj: Bytes) -> bytes:
        return self._whole(len(obj), _joined(obj))


class _TextsDumper(_ArrayDumper):
    oid: int = 1009
    element: int = 25

    def dump(self, obj: Texts) -> bytes:
        return self._whole(len(obj), _joined([None if value is None else value.encode() for value in obj]))


class _WholeDumper(_ArrayDumper):
    oid: int = 1016
    element: int = 20

    def dump(self, obj: Whole) -> bytes:
        flat = itertools.chain.from_iterable((8, value) for value in obj)
        return self._whole(len(obj), struct.pack("!" + "iq" * len(obj), *flat))


class _RealsDumper(_ArrayDumper):
    oid: int = 1022
    element: int = 701

    def dump(self, obj: Reals) -> bytes:
        parts = [_NULL if value is None else struct.pack("!id", 8, value) for value in obj]
        return self._whole(len(obj), b"".join(parts))


class _FlagsDumper(_ArrayDumper):
    oid: int = 1000
    element: int = 16

    def dump(self, obj: Flags) -> bytes:
        return self._whole(len(obj), b"".join(b"\0\0\0\1\1" if value else b"\0\0\0\1\0" for value in obj))


_DUMPERS: Final[dict[type[list[Any]], type[Dumper]]] = {
    Bytes: _BytesDumper,
    Texts: _TextsDumper,
    Whole: _WholeDumper,
    Reals: _RealsDumper,
    Flags: _FlagsDumper,
}


def register(connection: psycopg.Connection[Any]) -> None:
    """Let a connection send these; and whole numbers as what they may become: a plan is of types."""
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    for kind, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(kind, dumper)
