"""Which types msgspec can give back: a codec asks when it is made, so that nothing is stored that nobody can read.

msgspec makes a decoder for any class. One that it does not know is found out by the first reader, in each entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import inspect

if TYPE_CHECKING:
    from collections.abc import Iterator

_WITH_FIELDS: Final = (
    inspect.StructType,
    inspect.DataclassType,  # attrs classes too
    inspect.NamedTupleType,
    inspect.TypedDictType,
)

_NO_KEYS: Final = (
    *_WITH_FIELDS,
    inspect.BoolType,
    inspect.CollectionType,
    inspect.NoneType,
    inspect.RawType,
    inspect.TupleType,
)
"""What JSON cannot have as the key of an object. Of a union, the values are looked at when they are encoded."""


def check_storable(type_: object, *, as_json: bool) -> None:
    """Raise `TypeError` for a type whose values msgspec cannot give back; it names the place, and the cure."""
    for fault in _faults(inspect.type_info(type_), "$", set(), as_json=as_json):
        where = "" if fault.at == "$" else f" (`{fault.at}` of {name_of(type_)})"
        raise TypeError(f"msgspec cannot store {fault.what}{where}: {fault.why}. {fault.cure(type_)}")


def name_of(type_: object) -> str:
    """Return how a type is written, without the module of a class."""
    return type_.__qualname__ if isinstance(type_, type) and not hasattr(type_, "__origin__") else str(type_)


class _Fault(NamedTuple):
    """What is wrong at a place, which is written as in the errors of msgspec."""

    at: str
    what: str
    why: str
    cls: object = None

    def cure(self, whole: object) -> str:
        """Say what to do instead."""
        if hasattr(self.cls, "__pydantic_complete__"):  # a model; pydantic is not imported to find that out
            codec = f"PydanticCodec({name_of(whole)}) of trio_multispool.integrations.pydantic"
            return f"Give {codec} instead of the type (pip install 'trio-multispool[pydantic]')"
        kinds = "a dataclass, an attrs class, a TypedDict, a NamedTuple or a msgspec.Struct"
        return f"Use {kinds}, or give a codec of your own (encode and decode; for data, dump and load)"


def _faults(type_: inspect.Type, at: str, seen: set[int], *, as_json: bool) -> Iterator[_Fault]:
    if id(type_) in seen:  # a class may hold others of its kind
        return
    seen.add(id(type_))
    if isinstance(type_, inspect.CustomType) and type_.cls is not object:  # `object` means `Any`
        yield _Fault(at, name_of(type_.cls), "it does not know this class", type_.cls)
    elif isinstance(type_, inspect.ExtType) and as_json:
        yield _Fault(at, "msgspec.msgpack.Ext", "JSON has nothing like it, only MessagePack has")
    elif isinstance(type_, inspect.DataclassType) and hasattr(type_.cls, "__attrs_attrs__"):
        private = [field.name for field in type_.fields if field.required and field.name.startswith("_")]
        why = "of attrs classes it leaves out what begins with an underscore, and this has no default"
        yield from (_Fault(f"{at}.{name}", name, why) for name in private)
    for place, part, is_key in _parts(type_, at):
        if is_key and as_json and isinstance(part, _NO_KEYS):
            yield _Fault(place, "such keys", "JSON has only strings, and what is written as one")
        yield from _faults(part, place, seen, as_json=as_json)


def _parts(type_: Any, at: str) -> Iterator[tuple[str, inspect.Type, bool]]:  # noqa: ANN401  # has these or not
    """Yield the types that a type is made of: where, which, and whether it is that of keys."""
    if isinstance(type_, _WITH_FIELDS):
        yield from ((f"{at}.{field.name}", field.type, False) for field in type_.fields)
    elif isinstance(type_, inspect.CollectionType):
        yield f"{at}[...]", type_.item_type, False
    elif isinstance(type_, inspect.TupleType):
        yield from ((f"{at}[{number}]", part, False) for number, part in enumerate(type_.item_types))
    elif isinstance(type_, inspect.UnionType):
        yield from ((at, part, False) for part in type_.types)
    elif isinstance(type_, inspect.Metadata):
        yield at, type_.type, False
    elif hasattr(type_, "key_type"):  # dict, and frozendict, which older versions of msgspec do not know
        yield f"key of {at}", type_.key_type, True
        yield f"{at}[...]", type_.value_type, False
