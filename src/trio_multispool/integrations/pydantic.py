"""pydantic: a codec for models, and for every other type that pydantic validates.

Needs the extra `pydantic`.
"""

from __future__ import annotations

import re
from typing import Final, cast, final, overload

from trio_multispool.model.codecs import WholeFile
from trio_multispool.model.differing import CURE, difference, not_finite
from trio_multispool.model.storable import name_of
from trio_multispool.model.types import T

try:
    from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
    from pydantic_core import PydanticSerializationError
except ImportError as _missing:
    _message = "pydantic is not installed; it comes with the extra: pip install 'trio-multispool[pydantic]'"
    raise ImportError(_message, name="pydantic") from _missing

_NOT_STORED: Final = "(pydantic masks secrets and leaves out what has `exclude`: give such a field a serializer)"

_CALLER: Final = 3
"""How far up the stack pydantic looks up names that are given as strings: in the frame that makes the codec."""


@final
class PydanticCodec(WholeFile[T]):
    """JSON by pydantic, validated when it is decoded: for metadata, and for data that fits in memory.

    Takes what `pydantic.TypeAdapter` takes: models, dataclasses, `list[Model]`, unions. Fields are stored under their
    aliases, and read by alias or by name. Raises `TypeError` for a type that pydantic does not know. Encoding raises
    `ValueError` for a value that would not come back equal; private attributes are not stored, and not looked at. A
    union is not a class, so annotate the codec, as with `Json`.

    ```python
    class Order(pydantic.BaseModel):
        number: int


    SHOP = Spoolable(queues=Shop, metadata=PydanticCodec(Order))
    ```
    """

    @overload
    def __init__(self, type_: type[T]) -> None: ...
    @overload
    def __init__(self, type_: object) -> None: ...
    def __init__(self, type_: object) -> None:
        """Make a codec for the values of `type_`; raises `TypeError` for a type that pydantic does not know."""
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(cast("type[T]", type_), _parent_depth=_CALLER)
            _ = self._adapter.rebuild(raise_errors=True)  # a name that is not defined is told now, not at first use
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            why = error.message.partition(". ")[0]  # what follows are pydantic's cures, which do not help here
            cure = "Use a model, or give a codec of your own (encode and decode; for data, dump and load)"
            raise TypeError(f"pydantic cannot store {name_of(type_)}: {why}. {cure}") from error

    def encode(self, value: T, /) -> bytes:
        """Return the bytes that stand for `value`; raises `ValueError` if they would not come back equal to it."""
        # `round_trip` leaves out what pydantic computes. Of a value of another type it would only warn.
        try:
            raw = self._adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error")
        except PydanticSerializationError as error:  # whose text has several lines, with the values
            wanted = "; ".join(re.findall(r"Expected `[^`]+`", str(error))) or "it is not of that type"
            raise ValueError(f"{wanted}. {CURE}") from error
        try:
            back = self.decode(raw)
        except ValueError as error:
            raise ValueError(_no_number(value) or f"it would not be read again: {error}") from error.__cause__
        if value != back and (found := difference(value, back)) is not None:
            raise ValueError(_no_number(value) or f"{found}. {CURE}. {_NOT_STORED}")
        return raw

    def decode(self, raw: bytes, /) -> T:
        """Decode and validate; raises `ValueError` in one line, from the `pydantic.ValidationError`."""
        try:
            return self._adapter.validate_json(raw, by_alias=True, by_name=True)
        except ValidationError as error:
            raise ValueError("; ".join(_told(**fault) for fault in error.errors())) from error


def _told(loc: tuple[int | str, ...], msg: str, **_more: object) -> str:
    """Say what is wrong at a place, without the value: a reason may be logged."""
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return f"{msg} - at `${at}`"


def _no_number(value: object) -> str | None:
    at = not_finite(value)
    cure = 'Give None, or set ser_json_inf_nan="constants" in the configuration of the model'
    return None if at is None else f"`{at}` is NaN or infinite, and JSON has no such numbers. {cure}"
