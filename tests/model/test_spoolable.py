"""`Spoolable`: what may be said about a spool, and what is refused at once."""

from __future__ import annotations

import enum

import msgspec
import pytest

from helpers.spools import MAIL, Envelope, Mail
from trio_multispool import Bytes, InvalidName, Json, MessagePack, NoData, Spoolable, Text
from trio_multispool.model.spoolable import queue_names
from trio_multispool.testing import LexicographicTimeOrder


def queues(**members: object) -> type[enum.Enum]:
    """Make an enum of queues."""
    return enum.Enum("Queues", members)


@pytest.mark.parametrize(
    "value", ["", "../x", ".checkout", ".registry", "a/b", "a/", "a\0", "a\nb", "x" * 300, "\udcff"]
)
def test_a_queue_that_cannot_be_a_directory_of_the_spool_is_refused_when_it_is_defined(value):
    """No queue can lie outside the spool, or over one of its own directories."""
    with pytest.raises(InvalidName) as caught:
        Spoolable(queues=queues(GOOD="good", BAD=value), metadata=Envelope, data=bytes)
    assert caught.value.name == value
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [1, None, b"send", ("send",)])
def test_a_queue_whose_value_is_no_string_is_refused(value):
    """A queue's value is its directory's name."""
    with pytest.raises(TypeError, match=r"Queues\.BAD must have a string"):
        Spoolable(queues=queues(GOOD="good", BAD=value), metadata=Envelope, data=bytes)


def test_two_names_for_one_queue_are_refused():
    """Values are distinct: an alias would make two queues of one directory."""
    with pytest.raises(ValueError, match="values must differ"):
        Spoolable(queues=queues(SEND="send", ALSO="send"), metadata=Envelope, data=bytes)


def test_an_enum_without_members_is_refused():
    """A spool has at least one queue."""
    with pytest.raises(ValueError, match="no members"):
        Spoolable(queues=queues(), metadata=Envelope, data=bytes)


@pytest.mark.parametrize("value", ["send", ["send"], Envelope, Mail.SEND, None])
def test_what_is_no_enum_is_refused(value):
    """Queues are given as an `enum.Enum` class."""
    with pytest.raises(TypeError, match="must be an enum"):
        Spoolable(queues=value, metadata=Envelope, data=bytes)


def test_a_string_enum_will_do():
    """Any enum whose values are strings names queues by its values."""
    words = enum.StrEnum("Words", {"SEND": "send", "WORK": "work"})
    assert queue_names(Spoolable(queues=words, metadata=Envelope, data=bytes).queues) == ["send", "work"]


def test_types_stand_for_their_codecs():
    """`bytes` and `str` are stored as they are, msgspec's types as JSON, codecs as they are given."""
    assert isinstance(MAIL.metadata, Json)
    assert isinstance(MAIL.data, Bytes)
    assert isinstance(Spoolable(Mail, bytes, str).metadata, Bytes)
    assert isinstance(Spoolable(Mail, bytes, str).data, Text)
    assert isinstance(Spoolable(Mail, list[int], dict[str, int]).metadata, Json)
    assert isinstance(Spoolable(Mail, list[int], dict[str, int]).data, Json)
    codec = MessagePack(Envelope)
    assert Spoolable(Mail, codec, codec).metadata is codec
    assert Spoolable(Mail, codec, codec).data is codec
    assert isinstance(Spoolable(Mail, Envelope).data, NoData)
    assert isinstance(Spoolable(Mail, Envelope, None).data, NoData)


@pytest.mark.parametrize("value", [1, "json", object()])
def test_what_is_no_type_and_no_codec_is_refused(value):
    """A mistake in the definition is told where the definition is."""
    with pytest.raises(TypeError, match="encode and decode"):
        Spoolable(Mail, value, bytes)
    with pytest.raises(TypeError, match="encode and decode"):
        Spoolable(Mail, None)
    with pytest.raises(TypeError, match="load and dump"):
        Spoolable(Mail, Envelope, value)


def test_a_type_that_cannot_be_stored_is_refused():
    """A class that msgspec knows no way to decode is told at once, and not at the first entry."""

    class Node(msgspec.Struct):
        of: dict[tuple[int, ...] | list[int], int]

    with pytest.raises(TypeError):
        Spoolable(Mail, Node, bytes)


def test_the_names_are_the_default_ones_unless_given():
    """A generator that is given is used as it is."""
    names = LexicographicTimeOrder()
    assert Spoolable(Mail, Envelope, bytes, names=names).names is names
    assert Spoolable(Mail, Envelope, bytes, names).names is names
    assert MAIL.names is None


def test_its_repr_shows_what_is_held():
    """A log that shows a spoolable shows queues and codecs."""
    assert repr(MAIL) == "Spoolable(queues=Mail, metadata=Json(), data=Bytes())"
