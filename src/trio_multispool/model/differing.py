"""Whether a value and what comes back of it are alike, and where they differ: for codecs that check what they encode.

Alike is what is equal. Where `==` says no, the parts are compared, because some values are equal to nothing else: those
of classes with `eq=False`, NaN, and a time with a zone in the hour that comes twice a year.
"""

from __future__ import annotations

import datetime
import decimal
import math
import reprlib
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

_MISSING: Final = object()

_FIELDS: Final = ("__struct_fields__", "__attrs_attrs__", "__dataclass_fields__", "__pydantic_fields__")
"""Where classes keep their fields: names, dictionaries by name, or what has a name."""

CURE: Final = "Annotate that place with the type of the value, or give a value of the type that is annotated"
"""What to do about a difference."""


def difference(value: object, back: object, at: str = "$") -> str | None:
    """Say where what comes back first differs from the value, and how; return `None` if they are alike."""
    if value == back:
        return None
    (kind, parts), (kind_of_back, parts_of_back) = _parts(value), _parts(back)
    if kind is None or kind is not kind_of_back:
        return None if _alike(value, back) else _told(value, back, at)
    pairs = ((label, parts.get(label, _MISSING), parts_of_back.get(label, _MISSING)) for label in parts | parts_of_back)
    differences = (difference(part, part_of_back, f"{at}{label}") for label, part, part_of_back in pairs)
    return next((found for found in differences if found is not None), None)


def not_finite(value: object, at: str = "$") -> str | None:
    """Return where there is a float in a value that is NaN or infinite, or `None`."""
    if isinstance(value, float):
        return None if math.isfinite(value) else at
    _, parts = _parts(value)
    places = (not_finite(part, f"{at}{label}") for label, part in parts.items())
    return next((place for place in places if place is not None), None)


def _told(value: object, back: object, at: str) -> str:
    if back is _MISSING:
        return f"`{at}` would not come back"
    if value is _MISSING:
        return f"`{at}` would come back, and is not there"
    mine, theirs = type(value), type(back)
    if mine is theirs:
        told = reprlib.repr(value), reprlib.repr(back)
    elif mine.__qualname__ != theirs.__qualname__:
        told = mine.__qualname__, theirs.__qualname__
    else:
        told = f"{mine.__module__}.{mine.__qualname__}", f"{theirs.__module__}.{theirs.__qualname__}"
    return f"`{at}` is {told[0]} and would come back as {'another' if told[0] == told[1] else told[1]}"


def _parts(value: object) -> tuple[type | None, dict[str, object]]:
    """Return what kind of thing has parts, and the parts by their labels; no kind for what has none."""
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return dict, {f"[{key!r}]": part for key, part in items}
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind, {f"[{number}]": part for number, part in enumerate(cast("list[object]", value))}
    for where in _FIELDS:
        fields: Iterable[object] | None = getattr(type(value), where, None)
        if fields is not None:
            extra: Iterable[str] = getattr(value, "__pydantic_extra__", None) or ()
            names = [str(getattr(field, "name", field)) for field in fields]
            return type(value), {f".{name}": getattr(value, name, _MISSING) for name in (*names, *extra)}
    return None, {}


def _alike(value: object, back: object) -> bool:
    """Tell whether two values without parts are alike though they are not equal."""
    if isinstance(value, float | decimal.Decimal) and isinstance(back, type(value)):
        return math.isnan(value) and math.isnan(back)
    if isinstance(value, datetime.datetime) and isinstance(back, datetime.datetime) and value.tzinfo and back.tzinfo:
        return value.astimezone(datetime.UTC) == back.astimezone(datetime.UTC)
    if isinstance(value, set | frozenset) and isinstance(back, set | frozenset):
        ours, theirs = cast("set[object]", value), cast("set[object]", back)
        found = all(any(difference(one, other) is None for other in theirs) for one in ours)
        return found and len(ours) == len(theirs)
    return False
