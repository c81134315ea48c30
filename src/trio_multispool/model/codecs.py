"""How metadata becomes bytes, and how data becomes a file.

Metadata is small and rewritten often, so its codec works on `bytes`. Data is large and read when the worker chooses to,
so its codec reads from and writes to a binary file and can stream. `Json`, `MessagePack`, `Bytes` and
`Text` are both kinds at once. Files hold exactly what the codec wrote, so that `cat` shows it.

`Json` and `MessagePack` refuse what would not come back equal: a type when they are made (`storable`), a value when
they encode it (`differing`). Other codecs answer for themselves.

Codecs run in a worker thread of the library, in the context (`contextvars`) of the task that called. There is no event
loop in that thread, so a codec may block, and even run a loop of its own (`anyio.run`). To call into the program's
loop, it needs that loop's token: `anyio.from_thread.run(…, token=…)`. While it does, its task waits, and cannot be
cancelled by a scope. All this is the same for every operation. An `Exception` from a codec is
answered as `Err(EncodingFailed)`, `Err(CorruptMetadata)` or `Err(CorruptData)`, with the exception as its `__cause__`.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast, final, get_origin, overload, runtime_checkable

import msgspec

from trio_multispool.model.differing import CURE, difference, not_finite
from trio_multispool.model.storable import check_storable, name_of
from trio_multispool.model.types import T

if TYPE_CHECKING:
    from typing import BinaryIO


@runtime_checkable
class MetadataCodec(Protocol[T]):
    """Turns metadata into bytes and back."""

    def encode(self, value: T, /) -> bytes:
        """Return the bytes that stand for `value`."""
        ...

    def decode(self, raw: bytes, /) -> T:
        """Return the value that `raw` stands for. Raise if `raw` is not valid."""
        ...


@runtime_checkable
class DataCodec(Protocol[T]):
    """Streams data to a binary file and back. The library opens, syncs, renames and closes the file."""

    def dump(self, value: T, file: BinaryIO, /) -> None:
        """Write `value` to `file`, from its start."""
        ...

    def load(self, file: BinaryIO, /) -> T:
        """Read a value from `file`. Raise if it is not valid. The value must not need the file afterwards."""
        ...


class WholeFile(MetadataCodec[T], abc.ABC):
    """Makes a data codec of a metadata codec: the file holds the bytes of one value."""

    @abc.abstractmethod
    def encode(self, value: T, /) -> bytes:
        """Return the bytes that stand for `value`."""

    @abc.abstractmethod
    def decode(self, raw: bytes, /) -> T:
        """Return the value that `raw` stands for."""

    def dump(self, value: T, file: BinaryIO, /) -> None:
        """Write the encoded value."""
        _ = file.write(self.encode(value))

    def load(self, file: BinaryIO, /) -> T:
        """Read the file to its end and decode it."""
        return self.decode(file.read())

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Checked(WholeFile[T]):
    """A format of msgspec. The type is checked when the codec is made, a value when it is encoded and decoded."""

    _format: ClassVar[Any]
    """The module of msgspec."""

    @overload
    def __init__(self, type_: type[T]) -> None: ...
    @overload
    def __init__(self, type_: object) -> None: ...
    def __init__(self, type_: object) -> None:
        """Make a codec for the values of `type_`; raises `TypeError` for a type whose values would not come back."""
        self._decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T] = self._format.Decoder(type_)
        self._type = type_
        check_storable(type_, as_json=self._format is msgspec.json)

    def encode(self, value: T, /) -> bytes:
        """Return the bytes that stand for `value`; raises `ValueError` if they would not come back equal to it."""
        raw: bytes = self._format.encode(value)
        # msgspec encodes what it can, whatever the type says, and the next owner must get what was given.
        try:
            back = self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            told = f"{error}. Give a value of the type {name_of(self._type)}"
            raise msgspec.ValidationError(self._no_number(value) or told) from error
        if value != back and (found := difference(value, back)) is not None:  # of structs, one comparison in C
            raise ValueError(self._no_number(value) or f"{found}. {CURE}")
        return raw

    def _no_number(self, value: object) -> str | None:
        """Say where there is a number that the format does not have."""
        if self._format is not msgspec.json or (at := not_finite(value)) is None:
            return None
        return f"`{at}` is NaN or infinite, and JSON has no such numbers. Give None, or use MessagePack"

    def decode(self, raw: bytes, /) -> T:
        """Decode and check; raises `msgspec.DecodeError`."""
        return self._decoder.decode(raw)


@final
class Json(_Checked[T]):
    """JSON by msgspec, in UTF-8 on one line, checked against a type when it is decoded: the default for metadata.

    Raises `TypeError` for a type whose values msgspec cannot give back. Encoding raises `ValueError` for a value that
    would not come back equal. A union is not a class, so annotate the codec:

    ```python
    codec: Json[Parcel | Letter] = Json(Parcel | Letter)
    ```
    """

    _format: ClassVar[Any] = msgspec.json


@final
class MessagePack(_Checked[T]):
    """MessagePack by msgspec, checked against a type when decoded: smaller and faster than JSON, not for people.

    Raises `TypeError` for a type whose values msgspec cannot give back. Encoding raises `ValueError` for a value that
    would not come back equal.
    """

    _format: ClassVar[Any] = msgspec.msgpack


@final
class Bytes(WholeFile[bytes]):
    """Bytes as they are: what `data=bytes` means."""

    def encode(self, value: bytes, /) -> bytes:
        """Return the value, which must be bytes."""
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"bytes are wanted, not {type(value).__name__}")
        return bytes(value)

    def decode(self, raw: bytes, /) -> bytes:
        """Return the stored bytes."""
        return raw


@final
class Text(WholeFile[str]):
    """Text in UTF-8: what `data=str` means."""

    def encode(self, value: str, /) -> bytes:
        """Return the text in UTF-8."""
        if not isinstance(value, str):
            raise TypeError(f"text is wanted, not {type(value).__name__}")
        return value.encode()

    def decode(self, raw: bytes, /) -> str:
        """Decode UTF-8; raises `UnicodeDecodeError`."""
        return raw.decode()


@final
class NoData(WholeFile[None]):
    """No data: what a `Spoolable` without `data` means. The file for data is there, and empty."""

    def encode(self, value: None, /) -> bytes:
        """Return no bytes; raises `TypeError` for a value that is not `None`."""
        if value is not None:
            raise TypeError(f"the entries have no data, by their Spoolable, and {type(value).__name__} is given")
        return b""

    def decode(self, raw: bytes, /) -> None:
        """Return `None`; raises `ValueError` if there are data."""
        if raw:
            raise ValueError("there are data, and by its Spoolable an entry has none")


QUICK: Final[frozenset[type[object]]] = frozenset({Json, MessagePack, Bytes, Text, NoData})
"""Those that take no time for little data, so that an event loop need not be spared it."""


def metadata_codec(of: type[T] | MetadataCodec[T]) -> MetadataCodec[T]:
    """Return `of` if it is a codec, and else the codec for the type that it is."""
    return cast("MetadataCodec[T]", _codec(of, MetadataCodec, "metadata", "encode", "decode"))


def data_codec(of: type[T] | DataCodec[T] | None) -> DataCodec[T]:
    """Return `of` if it is a codec, and else the codec for the type that it is, or for no data."""
    return cast("DataCodec[T]", NoData() if of is None else _codec(of, DataCodec, "data", "load", "dump"))


def _codec(of: object, protocol: type, part: str, *methods: str) -> object:
    if isinstance(of, type) and all(hasattr(of, method) for method in methods):
        raise TypeError(f"{of.__name__} is the class of a codec; give one, {of.__name__}(…)")
    if of is bytes:
        return Bytes()
    if of is str:
        return Text()
    if isinstance(of, type) or get_origin(of) is not None:  # such as `list` or `list[int]`
        try:
            return Json[object](of)
        except TypeError as error:
            raise TypeError(f"as {part}, {error}") from error
    if isinstance(of, protocol):
        return of
    raise TypeError(f"{part} must be a type or have {' and '.join(methods)}, and {of!r} is neither")
