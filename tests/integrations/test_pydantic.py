"""The codec for pydantic's types: what comes back, what is refused when it is made, and what at enqueue."""

from __future__ import annotations

import dataclasses
import datetime
import io
import math
from typing import Any

import msgspec
import pydantic
import pytest

from helpers.spools import ANNE, Envelope, Mail, contents, quick_spool
from trio_multispool import (
    CorruptData,
    CorruptMetadata,
    DataCodec,
    EncodingFailed,
    Err,
    MetadataCodec,
    Remove,
    Spoolable,
)
from trio_multispool.integrations.pydantic import PydanticCodec


class Address(pydantic.BaseModel):
    """A model with an alias."""

    to: str = pydantic.Field(alias="To")
    anything: Any = None


class Longer(Address):
    """A subclass, whose field would be lost."""

    more: int = 0


class Read(pydantic.BaseModel):
    """What is validated has another name than what is written."""

    number: int = pydantic.Field(validation_alias=pydantic.AliasChoices("n", "no"))


class Written(pydantic.BaseModel):
    """What is written has a name that is not read."""

    number: int = pydantic.Field(serialization_alias="n")


class Strict(pydantic.BaseModel):
    """A model that coerces nothing, forbids what it does not know, and computes."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True, extra="forbid")
    when: datetime.datetime
    sizes: tuple[int, ...]

    @pydantic.computed_field
    @property
    def total(self) -> int:
        """Return the sum, which is not stored."""
        return sum(self.sizes)


class Open(pydantic.BaseModel):
    """A model that takes more fields than it names."""

    model_config = pydantic.ConfigDict(extra="allow")
    number: int


class Private(pydantic.BaseModel):
    """A model with a private attribute, which is not stored."""

    number: int
    _lock: object = pydantic.PrivateAttr(default_factory=object)


class Masked(pydantic.BaseModel):
    """Has a field that pydantic does not write."""

    key: pydantic.SecretStr


class Hidden(pydantic.BaseModel):
    """A model with a field that is not stored."""

    number: int
    secret: int = pydantic.Field(default=3, exclude=True)


class Measured(pydantic.BaseModel):
    """A model with a float that JSON may not have."""

    size: float


class Constants(Measured):
    """A model that writes NaN all the same."""

    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")


@dataclasses.dataclass
class Letter:
    """A dataclass that holds models."""

    addresses: list[Address]


class Struct(msgspec.Struct):
    """What pydantic does not know."""

    number: int


class Undefined(pydantic.BaseModel):
    """A model that refers to what is not there."""

    nowhere: Nowhere  # noqa: F821  # that is the point


WORK = [
    (Address, Address(To="anne"), b'{"To":"anne","anything":null}'),
    (Read, Read(no=1), b'{"number":1}'),
    (Strict, Strict(when=datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC), sizes=(1, 2)), None),
    (Open, Open.model_validate({"number": 1, "more": [2]}), b'{"number":1,"more":[2]}'),
    (Hidden, Hidden(number=1), b'{"number":1}'),
    (Letter, Letter([Address(To="anne")]), b'{"addresses":[{"To":"anne","anything":null}]}'),
    (list[Address], [Address(To="anne")], b'[{"To":"anne","anything":null}]'),
    (Address | Strict | None, None, b"null"),
    (dict[int, Address], {1: Address(To="anne")}, b'{"1":{"To":"anne","anything":null}}'),
    (list["Address"], [Address(To="anne")], None),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("of", "value", "raw"), WORK)
async def test_these_types_work_through_a_spool_and_a_reader(tmp_path, of, value, raw):
    """What was enqueued is what the handler is given, as metadata and as data; aliases are what is stored."""
    codec = PydanticCodec(of)
    assert isinstance(codec, MetadataCodec)
    assert isinstance(codec, DataCodec)
    assert raw in (None, codec.encode(value))
    spool = await quick_spool(tmp_path / "spool", Spoolable(Mail, codec, codec))
    (await spool.enqueue(Mail.SEND, value, value)).unwrap()
    seen: list[object] = []

    async def handle(metadata, data):
        seen.extend([metadata, (await data.load()).unwrap()])
        return Remove()

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(handle)).unwrap()
    assert seen == [value, value]


def test_a_field_is_read_by_its_name_too():
    """Such as a person writes on the command line."""
    assert PydanticCodec(Address).decode(b'{"to":"anne"}') == Address(To="anne")


def test_private_attributes_are_not_looked_at():
    """A lock that the model makes for itself is equal to no other, and is no reason to refuse it."""
    codec = PydanticCodec(Private)
    value = Private(number=1)
    assert codec.decode(codec.encode(value)).number == 1
    assert codec.decode(codec.encode(value)) != value


def test_not_a_number_comes_back_where_the_model_writes_it():
    """As the model's configuration says."""
    codec = PydanticCodec(Constants)
    file = io.BytesIO()
    codec.dump(Constants(size=math.nan), file)
    assert math.isnan(codec.load(io.BytesIO(file.getvalue())).size)


REFUSED_VALUES = [
    (Address, Address(To="a", anything=b"x"), "`$.anything` is bytes and would come back as str. Annotate"),
    (Address, Address(To="a", anything=(1,)), "`$.anything` is tuple and would come back as list"),
    (Address, Longer(To="a"), "`$` is Longer and would come back as Address"),
    (Letter, Letter([Longer(To="a")]), "`$.addresses[0]` is Longer and would come back as Address"),
    (Address, {"to": "a"}, "Expected `Address`"),
    (Address, Address.model_construct(to=3), "Expected `str`"),
    (Hidden, Hidden(number=1, secret=4), "`$.secret` is 4 and would come back as 3"),
    (Hidden, Hidden(number=1, secret=4), "leaves out what has `exclude`: give such a field a serializer"),
    (Masked, Masked(key=pydantic.SecretStr("x")), "`$.key` is SecretStr('**********') and would come back as another"),
    (Masked, Masked(key=pydantic.SecretStr("x")), "pydantic masks secrets"),
    (Open, Open.model_validate({"number": 1, "more": b"x"}), "`$.more` is bytes and would come back as str"),
    (Written, Written(number=1), "would not be read again: Field required - at `$.number`"),
    (
        Measured,
        Measured(size=math.nan),
        "`$.size` is NaN or infinite, and JSON has no such numbers. Give None, or set ser_json",
    ),
    (Address, Address(To="a", anything=[math.inf]), "`$.anything[0]` is NaN or infinite"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("of", "value", "told"), REFUSED_VALUES)
async def test_a_value_that_would_not_come_back_equal_is_refused_at_enqueue(tmp_path, of, value, told):
    """`Err(EncodingFailed)` says where, and what; nothing is written, and nothing is only warned of."""
    codec = PydanticCodec(of)
    for part, spoolable in {
        "metadata": Spoolable(Mail, codec, bytes),
        "data": Spoolable(Mail, Envelope, codec),
    }.items():
        spool = await quick_spool(tmp_path / "spool", spoolable)
        before = contents(spool.path)
        answer = await spool.enqueue(Mail.SEND, *((value, b"") if part == "metadata" else (ANNE, value)))
        assert isinstance(answer.error, EncodingFailed)
        assert answer.error.part == part
        assert told in answer.error.reason
        assert contents(spool.path) == before


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (Struct, "pydantic cannot store Struct: Unable to generate"),
        (list[Struct], "pydantic cannot store list["),
        (Undefined, "'Nowhere' is not defined"),
        ("Nowhere", "'Nowhere' is not defined"),
    ],
)
def test_a_type_that_pydantic_does_not_know_is_refused_when_the_codec_is_made(of, told):
    """The cure is in the message, and it is not to allow arbitrary types."""
    with pytest.raises(TypeError) as caught:
        PydanticCodec(of)
    assert told in str(caught.value)
    assert "Use a model, or give a codec of your own" in str(caught.value)
    assert "arbitrary" not in str(caught.value)


@pytest.mark.anyio
async def test_what_is_not_valid_is_corrupt_and_says_where_in_one_line(tmp_path):
    """Each fault has its place; values are not told, and pydantic's own error is there to be looked at."""
    codec = PydanticCodec(Letter)
    spool = await quick_spool(tmp_path / "spool", Spoolable(Mail, codec, codec))
    raw = b'{"addresses":[{"To":"anne"},{"To":3},{"secret":"x"}]}'
    for place in ("send", ".data"):
        (spool.path / place / "a").write_bytes(raw)
    told = (
        "ValueError: Input should be a valid string - at `$.addresses[1].To`; Field required - at `$.addresses[2].To`"
    )
    entry = spool.entry(Mail.SEND, "a").unwrap()
    answer = await entry.direct.contents()
    assert answer == Err(CorruptMetadata("send", "a", told))
    assert isinstance(answer.error.__cause__.__cause__, pydantic.ValidationError)
    assert await entry.direct.data_file.load() == Err(CorruptData("a", told))
    for place in ("send", ".data"):
        (spool.path / place / "a").write_bytes(b"{")
    assert "Invalid JSON" in (await entry.direct.contents()).error.reason
