"""Types that people have: which work, which are refused when the `Spoolable` is made, and which values at enqueue."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypedDict
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.spools import ANNE, MAIL, Envelope, Mail, contents, quick_spool
from trio_multispool import DataCodec, EncodingFailed, Json, MessagePack, Remove, Spoolable, Use
from trio_multispool.model.differing import difference

BERLIN = ZoneInfo("Europe/Berlin")
TWICE = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)
"""In the hour that comes twice: Python has it unequal to every time of another zone, also to itself in UTC."""


SINCE = datetime.datetime(1980, 1, 1)  # noqa: DTZ001  # hypothesis adds the zone
"""Earlier, some zones had offsets with seconds, which ISO 8601 does not."""


class Colour(enum.Enum):
    """An enum of strings."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = 1


class Struct(msgspec.Struct, omit_defaults=True):
    """A struct of everything."""

    text: str = ""
    number: float = 0
    when: datetime.datetime | None = None
    pair: tuple[int, str] = (0, "")
    words: frozenset[str] = frozenset()
    price: decimal.Decimal = decimal.Decimal(0)
    raw: bytes = b""
    anything: Any = None
    unread: msgspec.Raw = msgspec.Raw(b"null")
    names: dict[int, Colour] = {}
    inner: Struct | None = None


class Tagged(msgspec.Struct, tag=True):
    """A member of a union."""

    x: int


class Other(msgspec.Struct, tag=True):
    """Another."""

    x: int


class Same(msgspec.Struct, eq=False):
    """A struct that equals nothing but itself."""

    parts: list[Any]


class SameButMore(Same):
    """A subclass, whose field would be lost."""

    more: int = 0


class Points(NamedTuple):
    """A named tuple."""

    x: int
    y: Colour = Colour.RED


class Typed(TypedDict):
    """A dictionary with keys."""

    to: str
    level: Level


@dataclasses.dataclass
class Data:
    """A dataclass."""

    to: str
    points: list[Points] = dataclasses.field(default_factory=list)
    _hidden: int = 0


@dataclasses.dataclass(eq=False, slots=True)
class SameData:
    """A dataclass that equals nothing but itself."""

    when: datetime.datetime


@attrs.define
class Attrs:
    """An attrs class."""

    to: str
    inner: Attrs | None = None
    _cache: int = 0


@attrs.define
class PrivateAttrs:
    """An attrs class of which msgspec leaves out what it needs."""

    _to: str


class Model(pydantic.BaseModel):
    """A pydantic model."""

    to: str


@dataclasses.dataclass
class Holder:
    """A model in a list in a dataclass."""

    models: list[Model]


class Plain:
    """A class of which nothing is known."""


class Speaks(Protocol):
    """What is no class to make instances of."""

    def speak(self) -> str:
        """Speak."""


@dataclasses.dataclass
class Deep:
    """A class deep inside."""

    shelves: dict[str, tuple[int, Plain | None]]


WORK = [
    (Struct, Struct()),
    (Struct, Struct("x", 1.5, TWICE, (1, "a"), frozenset("a"), decimal.Decimal("1.50"), b"\xff", {"a": [1, None]})),
    (Struct, Struct(unread=msgspec.Raw(b'{"a":1}'), names={1: Colour.RED}, inner=Struct("inside"))),
    (Struct, Struct(when=datetime.datetime(2024, 1, 1))),  # noqa: DTZ001  # without a zone it comes back without one
    (Data, Data("anne", [Points(1), Points(2, Colour.RED)], 3)),
    (SameData, SameData(TWICE)),
    (Same, Same([1, {"a": [2.5]}, "x"])),
    (Attrs, Attrs("anne", Attrs("bert"))),
    (Typed, Typed(to="anne", level=Level.LOW)),
    (Points, Points(1)),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Tagged | Other, Other(1)),
    (Tagged | None, None),
    (Literal["a", 1], 1),
    (list[Data], [Data("anne")]),
    (dict[uuid.UUID, Attrs], {uuid.UUID(int=1): Attrs("anne")}),
    (dict[bytes, int], {b"\xff": 1}),
    (tuple[int, ...], (1, 2)),
    (set[datetime.datetime], {TWICE}),
    (dict, {"a": 1}),
    (list, [1, "a", None, 2**70]),
    (object, {"a": [1]}),
    (float, 1),
    (bool, True),
    (str, "x"),
    (bytes, b"\xff"),
]


def same(value: object, back: object) -> bool:
    """Tell whether they are equal, or of one class and stored alike: some are equal to nothing but themselves."""
    return back == value or (type(back) is type(value) and msgspec.json.encode(back) == msgspec.json.encode(value))


@pytest.mark.anyio
@pytest.mark.parametrize(("of", "value"), WORK)
async def test_these_types_work_through_a_spool_and_a_reader(place, of, value):
    """What was enqueued is what the handler is given, as metadata and as data."""
    spool = await quick_spool(place, Spoolable(Mail, of, of))
    (await spool.enqueue(Mail.SEND, value, value)).unwrap()
    seen: list[Any] = []

    async def handle(metadata, data):
        seen.extend([metadata, (await data.load()).unwrap()])
        return Remove()

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(handle)).unwrap()
    assert len(seen) == 2
    assert all(same(value, back) for back in seen)


# The cures are named so that a message can be copied from.
OWN_CODEC = "give a codec of your own"
DATACLASS = "Use a dataclass, an attrs class, a TypedDict, a NamedTuple or a msgspec.Struct"

REFUSED_TYPES = [
    (Model, "cannot store Model:", "PydanticCodec(Model)"),
    (Model | None, "cannot store Model:", "PydanticCodec("),
    (Holder, "cannot store Model (`$.models[...]` of Holder)", "PydanticCodec(Holder)"),
    (list[Model], "cannot store Model (`$[...]` of list[", "trio-multispool[pydantic]"),
    (Plain, "cannot store Plain:", DATACLASS),
    (Deep, "cannot store Plain (`$.shelves[...][1]` of Deep)", OWN_CODEC),
    (list[Annotated[Plain, msgspec.Meta(title="plain")]], "cannot store Plain (`$[...]`", OWN_CODEC),
    (Speaks, "cannot store Speaks:", OWN_CODEC),
    (Callable[[int], int], "cannot store Callable:", OWN_CODEC),
    (type(len), "cannot store builtin_function_or_method:", OWN_CODEC),
    (complex, "cannot store complex:", OWN_CODEC),
    (dict[tuple[int, int], str], "such keys (`key of $`", OWN_CODEC),
    (dict[str, dict[Points, int]], "such keys (`key of $[...]`", OWN_CODEC),
    (list[msgspec.msgpack.Ext], "cannot store msgspec.msgpack.Ext (`$[...]`", OWN_CODEC),
    (PrivateAttrs, "cannot store _to (`$._to` of PrivateAttrs)", OWN_CODEC),
    (enum.Enum("Mixed", {"A": 1, "B": "b"}), "Mixed", "not supported"),
]


@pytest.mark.parametrize(("of", "told", "cure"), REFUSED_TYPES)
def test_a_type_that_cannot_come_back_is_refused_when_the_spoolable_is_made(of, told, cure):
    """The message names the part, the type, where in it the trouble is, and the cure. No entry is ever written."""
    for part, arguments in {"metadata": (of,), "data": (Envelope, of)}.items():
        with pytest.raises(TypeError) as caught:
            Spoolable(Mail, *arguments)
        message = str(caught.value)
        assert message.startswith(f"as {part}, ")
        assert told in message
        assert cure in message
    with pytest.raises(TypeError):
        Json(of)


def test_message_pack_has_keys_and_extensions_that_json_lacks():
    """Only what the format lacks is refused."""
    keys = MessagePack[dict[tuple[int, int], str]](dict[tuple[int, int], str])
    assert keys.decode(keys.encode({(1, 2): "a"})) == {(1, 2): "a"}
    extension = msgspec.msgpack.Ext(1, b"x")
    assert MessagePack(msgspec.msgpack.Ext).encode(extension) == msgspec.msgpack.encode(extension)
    with pytest.raises(TypeError, match="cannot store Plain"):
        MessagePack(Plain)


REFUSED_VALUES = [
    (Struct, Struct(number=math.nan), "`$.number` is NaN or infinite", "Give None, or use MessagePack"),
    (Struct, Struct(anything=[0, -math.inf]), "`$.anything[1]` is NaN or infinite", "Give None, or use MessagePack"),
    (Struct, Struct(anything=b"x"), "`$.anything` is bytes and would come back as str", "Annotate"),
    (Struct, Struct(anything={"a": (1,)}), "`$.anything['a']` is tuple and would come back as list", "Annotate"),
    (Struct, Struct(anything={1}), "`$.anything` is set and would come back as list", "Annotate"),
    (Struct, Struct(anything=TWICE), "`$.anything` is datetime and would come back as str", "Annotate"),
    (Struct, Struct(anything=decimal.Decimal("1.5")), "is Decimal and would come back as str", "Annotate"),
    (Struct, Struct(anything=uuid.UUID(int=1)), "is UUID and would come back as str", "Annotate"),
    (Struct, Struct(anything=Attrs("x")), "is Attrs and would come back as dict", "Annotate"),
    (Struct, Struct(anything={1: 2}), "`$.anything[1]` would not come back", "Annotate"),
    (Struct, Struct(inner=Struct(anything=b"")), "`$.inner.anything` is bytes", "Annotate"),
    (Struct, Struct(when=TWICE.replace(year=1800)), "`$.when` is datetime", "give a value of the type"),
    (Struct, Struct(text=3), "Expected `str`, got `int` - at `$.text`", "Give a value of the type Struct"),
    (dict, {1: "a"}, "`$[1]` would not come back", "Annotate"),
    (list, (1, 2), "`$` is tuple and would come back as list", "give a value of the type"),
    (Envelope, {"recipient": "anne"}, "`$` is dict and would come back as Envelope", "give a value of the type"),
    (Envelope, Data("anne"), "Object missing required field `recipient`", "Give a value of the type Envelope"),
    (Tagged, Other(1), "Invalid value 'Other'", "Give a value of the type Tagged"),
    (Same, SameButMore([1]), "`$` is SameButMore and would come back as Same", "give a value of the type"),
    (list[Same], [Same([]), Same([b"x"])], "`$[1].parts[0]` is bytes and would come back as str", "Annotate"),
    (Typed, {"to": "a", "level": Level.LOW, "more": 1}, "`$['more']` would not come back", "Annotate"),
    (Attrs, Attrs("a", cache=3), "`$._cache` is 3 and would come back as 0", "give a value of the type"),
    (Struct, Struct(anything=Plain()), "Plain", "unsupported"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("of", "value", "told", "cure"), REFUSED_VALUES)
async def test_a_value_that_would_not_come_back_equal_is_refused_at_enqueue(tmp_path, of, value, told, cure):
    """`Err(EncodingFailed)` says of which part, where, what and the cure. Nothing is written."""
    for part, spoolable in {"metadata": Spoolable(Mail, of, bytes), "data": Spoolable(Mail, Envelope, of)}.items():
        spool = await quick_spool(tmp_path / "spool", spoolable)
        before = contents(spool.path)
        arguments = (value, b"") if part == "metadata" else (ANNE, value)
        for answer in (
            await spool.enqueue(Mail.SEND, *arguments),
            *await spool.enqueue_many(Mail.SEND, [arguments]),
        ):
            assert isinstance(answer.error, EncodingFailed)
            assert answer.error.part == part
            assert told in answer.error.reason
            assert cure in answer.error.reason
        assert contents(spool.path) == before


@pytest.mark.anyio
async def test_what_is_saved_must_come_back_equal_too(tmp_path):
    """A job stays in hand, and its entry as it was, if its new metadata or data would not come back."""
    spool = await quick_spool(tmp_path / "spool", Spoolable(Mail, Struct, list))
    entry = (await spool.enqueue(Mail.SEND, Struct("a"), [1])).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        before = contents(spool.path)
        for answer in (await job.save(Mail.RETRY, Struct(anything=b"x")), await job.data.save([b"x"])):
            assert isinstance(answer.error, EncodingFailed)
            assert "is bytes and would come back as str" in answer.error.reason
        assert contents(spool.path) == before
        (await job.save(Mail.RETRY, Struct("b"))).unwrap()
    assert len((await spool.entries(Mail.RETRY)).unwrap()) == 1


def test_two_classes_of_one_name_are_told_apart_by_their_modules():
    """Nobody reads that an Envelope would come back as an Envelope."""
    namesake = msgspec.defstruct("Envelope", [("recipient", str), ("attempts", int, 0)], module="elsewhere")
    told = difference(namesake("anne"), ANNE)
    assert told == "`$` is elsewhere.Envelope and would come back as helpers.spools.Envelope"


def test_not_a_number_comes_back_by_message_pack():
    """What the format has is not refused, though it is not equal to itself."""
    codec = MessagePack(Struct)
    assert math.isnan(codec.decode(codec.encode(Struct(number=math.nan))).number)
    assert MessagePack(list[float]).encode([math.inf, math.nan])


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=3)
    | st.dates()
    | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3)
        | st.builds(Struct, anything=inner)
        | st.builds(Same, st.lists(inner, max_size=2))
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("codec", [Json(Struct), MessagePack(Struct)])
@given(value=ANYTHING)
def test_a_value_of_any_kind_comes_back_equal_or_is_refused(codec, value):
    """In a field typed `Any`, there is no third way; NaN comes back as NaN where the format has it."""
    given_value = Struct(anything=value)
    try:
        raw = codec.encode(given_value)
    except (ValueError, TypeError, OverflowError):
        return
    assert repr(codec.decode(raw)) == repr(given_value)


@pytest.mark.parametrize("codec", [Json(Struct), MessagePack(Struct)])
@given(
    value=st.builds(
        Struct,
        text=st.text(),
        number=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40),
        when=st.datetimes(timezones=st.none() | st.timezones(), min_value=SINCE),
        price=st.decimals(allow_nan=False),
        raw=st.binary(),
        names=st.dictionaries(st.integers(-5, 5), st.just(Colour.RED)),
    )
)
def test_a_value_of_its_type_is_never_refused(codec, value):
    """No time of any zone, no number and no bytes: also none of an hour that comes twice."""
    assert difference(value, codec.decode(codec.encode(value))) is None


def test_the_codec_of_a_struct_compares_without_calling_a_function_of_ours(monkeypatch):
    """The comparison of parts is for what `==` says no to; enqueueing a struct costs none of it."""
    monkeypatch.setattr("trio_multispool.model.codecs.difference", None)
    assert MAIL.metadata.decode(MAIL.metadata.encode(ANNE)) == ANNE
    with pytest.raises(TypeError, match="not callable"):
        Json(Same).encode(Same([]))


@pytest.mark.sample
@pytest.mark.anyio
async def test_a_codec_of_ones_own_answers_for_itself(place):
    """Whether its values come back equal is not looked at, and it may be for any class."""

    class Own:
        def encode(self, value: Plain) -> bytes:
            return b"plain"

        def decode(self, raw: bytes) -> Plain:
            return Plain()

        def dump(self, value: Plain, file) -> None:
            file.write(b"plain")

        def load(self, file) -> Plain:
            return Plain()

    assert isinstance(Own(), DataCodec)
    spool = await quick_spool(place, Spoolable(Mail, Own(), Own()))
    entry = (await spool.enqueue(Mail.SEND, Plain(), Plain())).unwrap()
    assert isinstance((await entry.direct.contents()).unwrap(), Plain)


class Older(msgspec.Struct):
    """What an older version stored."""

    recipient: str
    gone: int = 0


class Renamed(msgspec.Struct):
    """A field under another name in Python, and the old one in what is stored."""

    to: str = msgspec.field(name="recipient")


class Required(msgspec.Struct):
    """A field more, without a default."""

    recipient: str
    more: int


@pytest.mark.anyio
async def test_types_evolve_as_the_page_says(place):
    """A new field with a default, a field that is gone, and one that is renamed are read; a required one is not."""
    old = await quick_spool(place, Spoolable(Mail, Older, bytes))
    (await old.enqueue(Mail.SEND, Older("anne", 7), b"", name=Use("a"))).unwrap()
    stands = {Envelope: Envelope("anne"), Renamed: Renamed("anne"), Required: None}
    for of, value in stands.items():
        new = await quick_spool(place, Spoolable(Mail, of, bytes))
        answer = await new.entry(Mail.SEND, "a").unwrap().direct.contents()
        assert answer.unwrap_or(None) == value
