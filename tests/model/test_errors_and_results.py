"""The values that operations answer with."""

from __future__ import annotations

import copy
import dataclasses
import errno
import pickle
import typing

import msgspec
import pytest

import trio_multispool
from helpers.spools import Envelope, Mail
from trio_multispool import (
    UNCHANGED,
    EntryBusy,
    EntryNotFound,
    Err,
    InvalidName,
    NameTaken,
    Ok,
    Release,
    Remove,
    Save,
    SpoolError,
    StorageFailure,
    Unavailable,
    errors,
)

FAMILY = sorted(SpoolError.__subclasses__(), key=lambda kind: kind.__name__)


def example(kind: type[SpoolError], salt: str = "") -> SpoolError:
    """Make an error of a kind, with a different value in each field."""
    hints = typing.get_type_hints(kind)
    values = []
    for number, field in enumerate(dataclasses.fields(kind)):
        of = hints[field.name]
        values.append(errno.EIO if field.name == "errno" else True if of is bool else f"{salt}{field.name}-{number}")
    return kind(*values)


def test_the_family_is_closed():
    """Every error that the module defines is a direct member of the family, and can be imported from the package."""
    defined = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)} - {SpoolError}
    assert set(FAMILY) == defined
    assert all(getattr(trio_multispool, kind.__name__) is kind for kind in FAMILY)
    assert len(FAMILY) >= 20


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_survives_pickling_and_copying(kind):
    """An error that crosses a process is equal to what it was, with fields, message and notes."""
    error = example(kind)
    error.add_note("and this")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert again == error
        assert str(again) == str(error)
        assert dataclasses.astuple(again) == dataclasses.astuple(error)
        assert again.__notes__ == ["and this"]


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_is_equal_to_its_like_and_to_nothing_else(kind):
    """Equality is of class and fields; equal errors have equal hashes."""
    error = example(kind)
    assert error == example(kind)
    assert hash(error) == hash(example(kind))
    assert error != example(kind, salt="other ")
    assert all(error != example(other) for other in FAMILY if other is not kind)
    assert error != error.args
    assert len({error, example(kind)}) == 1


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_can_be_matched_by_position_and_by_field(kind):
    """`case EntryNotFound(queue, name)` works for each, in the order in which the fields are made."""
    error = example(kind)
    fields = tuple(field.name for field in dataclasses.fields(kind))
    assert kind.__match_args__ == fields
    assert error.args == tuple(getattr(error, name) for name in fields)
    assert fields, "an error without fields says nothing"


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_says_what_it_is_about_and_when_it_occurs(kind):
    """The message names what the trouble is with; the docstring is the class's own and says when it occurs."""
    error = example(kind)
    assert str(error) != kind.__name__
    named = [value for value in error.args if isinstance(value, str) and value in str(error)]
    assert named, f"{error} names none of {error.args}"
    assert "__doc__" in vars(kind)
    assert len(kind.__doc__.split()) >= 8
    assert not kind.__doc__.startswith(kind.__name__ + "("), "a dataclass's own docstring says nothing"


def test_a_storage_failure_names_the_errno_in_letters():
    """What the operating system said can be looked up."""
    assert "(EIO)" in str(StorageFailure("sync", "/spool", errno.EIO))
    assert "99999" in str(StorageFailure("sync", "/spool", 99999))


def test_an_invalid_name_is_a_value_error_too():
    """Code that knows nothing of this library catches a bad value as such."""
    assert issubclass(InvalidName, ValueError)


# Ok and Err


def test_unwrap_gives_the_value_of_ok_and_raises_the_very_error_of_err():
    """`unwrap` loses nothing: the object that comes out, or is raised, is the one that went in."""
    value = object()
    assert Ok(value).unwrap() is value
    error = NameTaken("x")
    error.__cause__ = OSError(1, "why")
    with pytest.raises(NameTaken) as caught:
        Err(error).unwrap()
    assert caught.value is error
    assert isinstance(caught.value.__cause__, OSError)


def test_an_expectation_is_told_with_the_error():
    """The error is the same object, and its traceback says what the program was about."""
    assert Ok(1).expect("the first entry") == 1
    error = NameTaken("x")
    with pytest.raises(NameTaken) as caught:
        Err(error).expect("the first entry of the day")
    assert caught.value is error
    assert error.__notes__ == ["the first entry of the day"]


def test_a_default_stands_in_for_an_error_only():
    """Also a value that is false is a value."""
    assert Ok(0).unwrap_or(1) == 0
    assert Err(NameTaken("x")).unwrap_or(1) == 1


def test_a_function_is_applied_to_values_only():
    """What it raises passes through."""
    assert Ok(2).map(str) == Ok("2")
    failed = Err(NameTaken("x"))
    assert failed.map(pytest.fail) is failed
    with pytest.raises(ZeroDivisionError):
        Ok(0).map(lambda value: 1 // value)


@pytest.mark.parametrize("result", [Ok(1), Err(NameTaken("x")), Save(Mail.SEND), Remove(), Release()])
def test_results_and_verdicts_are_frozen(result):
    """A value that was answered stays what it was."""
    for name in ("value", "error", "other", *getattr(result, "__struct_fields__", ())):
        with pytest.raises(AttributeError):
            setattr(result, name, 2)


def test_results_compare_hash_and_pickle_by_what_they_hold():
    """`Ok` and `Err` are plain values."""
    assert Ok(1) == Ok(1) != Ok(2)
    assert Err(NameTaken("x")) == Err(NameTaken("x")) != Err(EntryBusy("x"))
    assert Ok(1) != Err(NameTaken("x"))
    assert len({Ok(1), Ok(1), Err(NameTaken("x")), Err(NameTaken("x"))}) == 2
    for result in (Ok(1), Err(EntryNotFound("send", "x"))):
        assert pickle.loads(pickle.dumps(result)) == result
    assert repr(Ok(1)) == "Ok(value=1)"
    assert repr(Err(EntryBusy("x"))) == "Err(error=EntryBusy(name='x'))"


def test_results_are_matched_by_position():
    """The way they are meant to be read."""
    match Err(EntryNotFound("send", "x")):
        case Err(EntryNotFound(queue, name)):
            assert (queue, name) == ("send", "x")
        case _:
            pytest.fail("not matched")
    match Ok(Unavailable.GONE):
        case Ok(Unavailable()):
            pass
        case _:
            pytest.fail("not matched")


# Verdicts


def test_a_verdict_is_a_plain_value():
    """Verdicts compare by what they say, and `Save` without metadata says unchanged."""
    assert Save(Mail.SEND) == Save(Mail.SEND, UNCHANGED)
    assert Save(Mail.SEND, Envelope("x")) == Save(queue=Mail.SEND, metadata=Envelope("x"))
    assert Save(Mail.SEND) != Save(Mail.RETRY)
    assert Remove() == Remove()
    assert Remove() != Release()
    assert isinstance(Save(Mail.SEND), msgspec.Struct)
    assert {Unavailable.GONE, Unavailable.BUSY} == set(Unavailable)
