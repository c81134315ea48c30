"""Files that are given up half-way: nothing is written to, or closed under, a number that may be another file's."""

from __future__ import annotations

import errno
import gc
import os
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from helpers.children import quick_directory
from helpers.spools import state_of
from helpers.stores import DATA, enqueue, enqueue_reserved, make_store, nothing, writing
from helpers.syscalls import HookedCalls
from trio_multispool import StorageFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


def open_all_descriptors_of(numbers: set[int], victims: Path) -> dict[int, Path]:
    """Open files until they have these numbers; return all that were opened."""
    found: dict[int, Path] = {}
    while not numbers <= set(found):
        victim = victims / f"{len(found)}"
        found[os.open(victim, os.O_RDWR | os.O_CREAT)] = victim
        assert len(found) < 100, f"{numbers} are open still"
    return found


@pytest.mark.parametrize("operation", ["enqueue", "replace"])
def test_what_a_failed_writer_left_unflushed_is_not_written_into_a_file_that_is_opened_later(path, tmp_path, operation):
    """The writer's file may live on in a traceback, and is flushed when it is dropped: its number is another's then."""
    storage = make_store(path)
    if operation == "replace":
        enqueue(storage, "send", "a")
    kept: list[BinaryIO] = []

    def write(file: BinaryIO) -> None:
        file.write(b"half of it")
        kept.append(file)
        raise LookupError("the other half")

    def perform() -> None:
        if operation == "enqueue":
            enqueue_reserved(
                storage, storage.reserve("a"), "send", b"{}", write, durability=None, before_commit=nothing
            )
        else:
            storage.replace_data("a", None, write, durability=None, before_commit=nothing)

    with pytest.raises(LookupError):
        perform()
    number = kept[0].fileno()
    others = open_all_descriptors_of({number}, tmp_path)
    try:
        kept.clear()
        gc.collect()
        assert {victim.read_bytes() for victim in others.values()} == {b""}
    finally:
        for fd in others:
            os.close(fd)
    storage.close()
    assert state_of(path).data == ({"a": DATA} if operation == "replace" else {})


class FailingOnce(HookedCalls):
    """Closes a file that is being written, says that this failed, and writes down what is closed from then on."""

    def __init__(self) -> None:
        """Begin unarmed."""
        self.armed = False
        self.failed: int | None = None
        self.closed: list[int] = []

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Close."""
        if call != "close" or not self.armed:
            return perform()
        if self.failed is None and "/.tmp/" in os.readlink(f"/proc/self/fd/{arguments[0]}"):
            self.failed = arguments[0]
            perform()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.closed.append(arguments[0])
        return None if arguments[0] == self.failed else perform()


def test_a_file_whose_closing_failed_is_not_closed_again(path):
    """Its descriptor has gone all the same, and the number may be another thread's by then."""
    calls = FailingOnce()
    storage = make_store(path, calls=calls)
    reservation = storage.reserve("a")
    calls.armed = True
    with pytest.raises(StorageFailure):
        enqueue_reserved(storage, reservation, "send", b"{}", writing(b""), durability=None, before_commit=nothing)
    calls.armed = False
    assert calls.failed is not None
    assert calls.failed not in calls.closed
    storage.close()
    assert state_of(path).data == {}
