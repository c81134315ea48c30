"""A spool written by the original implementation: it works here as it is, and ours has the layout that it expects."""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from helpers.results import is_err
from helpers.spools import load_spool, make_spool, names_in, snapshot, state_of
from trio_multispool import (
    CorruptMetadata,
    DataFile,
    EntryNotFound,
    Err,
    NameTaken,
    Ok,
    Recovered,
    Release,
    Remove,
    Save,
    Spool,
    Spoolable,
    Use,
    Verdict,
)

if TYPE_CHECKING:
    from typing import BinaryIO

pytestmark = pytest.mark.anyio


# The original's values, and their s-expressions


class Widget(msgspec.Struct, frozen=True):
    """The metadata: `(Cog 1)` or `(Sprocket"some words")`."""

    kind: str
    value: int | str


class Order(msgspec.Struct, frozen=True):
    """The data: `((serial_number 12345) (customer "Acme Incorporated"))`."""

    serial_number: int
    customer: str


class WidgetCodec:
    """Metadata as one s-expression, with no newline."""

    def encode(self, value: Widget) -> bytes:
        """Write it as the original does."""
        return (f"({value.kind} {value.value})" if value.kind == "Cog" else f'({value.kind}"{value.value}")').encode()

    def decode(self, raw: bytes) -> Widget:
        """Read it."""
        text = raw.decode()
        if cog := re.fullmatch(r"\(Cog (\d+)\)", text):
            return Widget("Cog", int(cog[1]))
        if sprocket := re.fullmatch(r'\(Sprocket"([^"]*)"\)', text):
            return Widget("Sprocket", sprocket[1])
        message = f"no widget: {text!r}"
        raise ValueError(message)


class OrderCodec:
    """Data as one s-expression on a line."""

    def dump(self, value: Order, file: BinaryIO) -> None:
        """Write it as the original does."""
        file.write(f'((serial_number {value.serial_number}) (customer "{value.customer}"))\n'.encode())

    def load(self, file: BinaryIO) -> Order:
        """Read it."""
        found = re.fullmatch(r'\(\(serial_number (\d+)\) \(customer "([^"]*)"\)\)\n', file.read().decode())
        if found is None:
            message = "no order"
            raise ValueError(message)
        return Order(int(found[1]), found[2])


class Widgets(enum.Enum):
    """The original's queues."""

    ONE = "queue1"
    TWO = "queue2"
    THREE = "queue3"


WIDGETS = Spoolable(queues=Widgets, metadata=WidgetCodec(), data=OrderCodec())

COG_1 = "seed_1795417479923587437_16650_1_000000"
SPROCKET = "seed_1795417479940738525_16654_1_000000"
COG_42 = "seed_1795417479960272944_16658_1_000000"
ABANDONED = "seed_1795417479978180602_16662_1_000000"


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """Unpack the original's spool."""
    with tarfile.open(Path(__file__).parents[1] / "data" / "widgets.tar.gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 is the first that has it
        archive.extractall(tmp_path)
    return tmp_path / "spool"


async def keep(metadata: Widget, data: DataFile[Order]) -> Verdict[Widgets, Widget]:
    """Return an entry unchanged."""
    return Release()


async def work(metadata: Widget, data: DataFile[Order]) -> Verdict[Widgets, Widget]:
    """Move widgets on, and remove sprockets."""
    order = (await data.load()).unwrap()
    if metadata.kind == "Sprocket":
        return Remove()
    return Save(Widgets.THREE, Widget("Cog", order.serial_number))


# Reading


async def test_loading_the_originals_spool_writes_nothing(seed: Path):
    """Loading, listing and reading leave every inode, time and byte as it was; no `.spool.json` is made."""
    before = snapshot(seed)
    spool = await load_spool(seed, WIDGETS)
    assert await names_in(spool, Widgets.ONE) == [COG_1, SPROCKET]
    assert await names_in(spool, Widgets.TWO) == [COG_42]
    assert await names_in(spool, Widgets.THREE) == []
    read = []
    for queue in Widgets:
        for entry in (await spool.entries(queue)).unwrap():
            (await entry.stat()).unwrap()
            (await entry.direct.data_file.stat()).unwrap()
            read.append(((await entry.direct.contents()).unwrap(), (await entry.direct.data_file.load()).unwrap()))
    assert read == [
        (Widget("Cog", 1), Order(12345, "Acme Incorporated")),
        (Widget("Sprocket", "Hello, world 1!"), Order(1000000, "Acme Corporation")),
        (Widget("Cog", 42), Order(2000001, "Consolidated Amalgamated")),
    ]
    assert [job.metadata for job in (await spool.checkouts_unsafe(Widgets.ONE)).unwrap()] == [Widget("Cog", 7)]
    assert (await spool.recover()).unwrap() == []
    for opened in (
        await Spool.load(seed, WIDGETS, create_if_missing=True),
        await Spool.create(seed, WIDGETS),
        await Spool.load_unsafe(seed, WIDGETS),
    ):
        opened.unwrap().close()
    assert snapshot(seed) == before


async def test_a_checkout_that_is_given_back_leaves_the_originals_spool_as_it_was(seed: Path):
    """An entry that was looked at by a worker is the same file again; its dates and those of directories tell.

    The original dates an entry and its reservation at each move, and so do we in a spool that it may use.
    """
    before = snapshot(seed)
    spool = await load_spool(seed, WIDGETS)
    entry = spool.entry(Widgets.ONE, COG_1).unwrap()
    assert (await spool.with_entry(entry, keep)).unwrap() == Release()
    after = snapshot(seed)
    assert after.keys() == before.keys()
    files = {n: (f, after[n]) for n, f in before.items() if f.kind == "file"}
    moved = {f"queue1/{COG_1}", f".registry/{COG_1}"}
    assert {n for n, (was, is_now) in files.items() if is_now != was} == moved
    for was, is_now in files.values():
        assert is_now.modified_ns >= was.modified_ns
        assert dataclasses.replace(is_now, modified_ns=was.modified_ns) == was


# Working


async def test_the_originals_spool_is_worked_off(seed: Path):
    """Its entries are moved, changed and removed like ours, and what is removed leaves nothing behind."""
    spool = await load_spool(seed, WIDGETS)
    for queue in (Widgets.ONE, Widgets.TWO):
        async with spool.reader(queue) as reader:
            (await reader.iter_available(work)).unwrap()
    state = state_of(seed)
    assert state.available == {
        "queue1": {},
        "queue2": {},
        "queue3": {COG_1: b"(Cog 12345)", COG_42: b"(Cog 2000001)"},
    }
    assert state.checked_out["queue1"] == {ABANDONED: b"(Cog 7)"}
    assert state.registry == {COG_1, COG_42, ABANDONED}
    assert state.data.keys() == {COG_1, COG_42, ABANDONED}
    assert state.data[COG_1] == b'((serial_number 12345) (customer "Acme Incorporated"))\n'
    assert state.faults() == []
    assert not state.adopted


async def test_the_abandoned_entry_is_left_alone_until_the_spool_is_adopted(seed: Path):
    """Its owner may be a program that takes no locks: neither loading nor readers nor `recover` may touch it."""

    def abandoned() -> object:
        return [node for name, node in snapshot(seed).items() if name.endswith(ABANDONED)]

    before = abandoned()
    assert len(before) == 3
    spool = await load_spool(seed, WIDGETS)
    assert (await spool.recover()).unwrap() == []
    async with spool.reader(Widgets.ONE) as reader:
        taken = [job.name async for job in reader.available()]
        assert taken == [COG_1, SPROCKET]
        assert (await reader.dequeue_available()).unwrap() is None
    assert is_err(await spool.entry(Widgets.ONE, ABANDONED).unwrap().checkout())
    assert (await load_spool(seed, WIDGETS)).path == seed
    assert abandoned() == before


async def test_an_adopted_spool_gives_the_abandoned_entry_back(seed: Path):
    """After `adopt`, an entry that nobody has locked is taken for abandoned, in this process and in the next."""
    spool = await load_spool(seed, WIDGETS)
    (await spool.adopt()).unwrap()
    assert state_of(seed).adopted
    assert (await spool.recover()).unwrap() == [Recovered(ABANDONED, "queue1")]
    assert await names_in(spool, Widgets.ONE) == [COG_1, SPROCKET, ABANDONED]
    assert state_of(seed).faults() == []
    assert await spool.entry(Widgets.ONE, ABANDONED).unwrap().direct.contents() == Ok(Widget("Cog", 7))
    assert (await spool.recover()).unwrap() == []


@pytest.mark.parametrize("by", ["a load", "a reader"])
async def test_after_adoption_loading_and_reading_recover_by_themselves(seed: Path, by):
    """Nobody needs to call `recover` to get an abandoned entry back."""
    spool = await load_spool(seed, WIDGETS)
    (await spool.adopt()).unwrap()
    if by == "a load":
        await load_spool(seed, WIDGETS)
        assert state_of(seed).names("queue1") == [COG_1, SPROCKET, ABANDONED]
    else:
        async with spool.reader(Widgets.ONE) as reader:
            assert {job.name async for job in reader.available()} == {COG_1, SPROCKET, ABANDONED}
    assert state_of(seed).faults() == []


async def test_adopting_changes_nothing_but_the_format_file(seed: Path):
    """Every entry stays where it is; adopting again does nothing at all."""
    before = snapshot(seed)
    spool = await load_spool(seed, WIDGETS)
    (await spool.adopt()).unwrap()
    after = snapshot(seed)
    assert after.keys() - before.keys() == {".spool.json"}
    assert {name: node for name, node in after.items() if name in before and name != "."} == {
        name: node for name, node in before.items() if name != "."
    }
    (await spool.adopt()).unwrap()
    (await (await Spool.load_unsafe(seed, WIDGETS)).unwrap().adopt()).unwrap()
    assert snapshot(seed) == after


async def test_before_adoption_nothing_that_looks_left_over_is_collected(seed: Path):
    """Reservations, data and temporary files may be an enqueue of the original in motion."""
    for name in (".registry/young", ".data/young", ".tmp/young"):
        (seed / name).write_bytes(b"")
    before = snapshot(seed)
    spool = await load_spool(seed, WIDGETS)
    assert (await spool.recover()).unwrap() == []
    async with spool.reader(Widgets.THREE) as reader:
        assert (await reader.dequeue_available()).unwrap() is None
    assert await spool.enqueue(Widgets.ONE, Widget("Cog", 1), Order(1, ""), name=Use("young")) == Err(
        NameTaken("young")
    )
    assert snapshot(seed) == before
    (await spool.adopt()).unwrap()
    assert Recovered("young", None) in (await spool.recover()).unwrap()
    assert state_of(seed).faults() == []


async def test_a_name_of_an_entry_of_the_original_is_taken(seed: Path):
    """No new entry can take over an old one's reservation, wherever the old one is."""
    spool = await load_spool(seed, WIDGETS)
    before = snapshot(seed)
    for name in (COG_1, ABANDONED):
        answer = await spool.enqueue(Widgets.THREE, Widget("Cog", 2), Order(2, "x"), name=Use(name))
        assert answer == Err(NameTaken(name))
    assert snapshot(seed) == before


async def test_metadata_of_the_original_that_cannot_be_decoded_is_set_aside_with_its_bytes(seed: Path):
    """What this program cannot read waits in quarantine for a person, with the reason; the others are worked off."""
    (seed / "queue1" / COG_1).write_bytes(b"(Flywheel 3)")
    spool = await load_spool(seed, WIDGETS)
    answer = await spool.entry(Widgets.ONE, COG_1).unwrap().checkout()
    assert isinstance(answer.error, CorruptMetadata)
    state = state_of(seed)
    assert state.quarantined == {"queue1": {COG_1: b"(Flywheel 3)"}}
    assert "no widget" in state.reasons[COG_1]
    assert await spool.entry(Widgets.ONE, COG_1).unwrap().checkout() == Err(EntryNotFound("queue1", COG_1))
    assert state.faults() == []


# The reverse: what we write


async def test_what_we_write_has_the_layout_that_the_original_expects(tmp_path: Path):
    """Metadata and data files hold exactly the codec's bytes, under one name, with an empty file that reserves it."""
    spool = await make_spool(tmp_path / "spool", WIDGETS)
    widget, order = Widget("Cog", 9), Order(5, "Smith")
    (await spool.enqueue(Widgets.ONE, widget, order, name=Use("a"))).unwrap()
    (await spool.enqueue(Widgets.TWO, Widget("Sprocket", "x y"), order, name=Use("b"))).unwrap()
    job = (await spool.entry(Widgets.TWO, "b").unwrap().checkout()).unwrap()
    stored = b'((serial_number 5) (customer "Smith"))\n'
    files = {name: node.content for name, node in snapshot(spool.path).items() if node.kind == "file"}
    assert files.pop(".spool.json") is not None
    assert files == {
        "queue1/a": b"(Cog 9)",
        "queue2/.checkout/b": b'(Sprocket"x y")',
        ".data/a": stored,
        ".data/b": stored,
        ".registry/a": b"",
        ".registry/b": b"",
    }
    directories = {name for name, node in snapshot(spool.path).items() if node.kind == "directory"}
    assert directories >= {".registry", ".tmp", ".data", *(q.value for q in Widgets)}
    assert directories >= {f"{queue.value}/.checkout" for queue in Widgets}
    (await job.save(Widgets.THREE, Widget("Cog", 10))).unwrap()
    assert (spool.path / "queue3" / "b").read_bytes() == b"(Cog 10)"
    assert os.listdir(spool.path / ".tmp") == []


async def test_the_data_file_is_always_there_even_when_empty(tmp_path: Path):
    """An entry without data has an empty data file."""
    plain = Spoolable(queues=Widgets, metadata=WidgetCodec(), data=bytes)
    spool = await make_spool(tmp_path / "spool", plain)
    entry = (await spool.enqueue(Widgets.ONE, Widget("Cog", 9), b"")).unwrap()
    assert (spool.path / ".data" / entry.name).read_bytes() == b""
    assert (await entry.direct.data_file.load()).unwrap() == b""
    assert (await entry.direct.data_file.stat()).unwrap().size == 0


async def test_an_entry_that_the_original_enqueues_meanwhile_is_read(seed: Path):
    """The original's own order of calls - registry, data, metadata, rename - makes an entry of ours."""
    spool = await load_spool(seed, WIDGETS)
    name = "seed_1795417480000000000_1_1_000000"
    (seed / ".registry" / name).touch()
    (seed / ".data" / name).write_bytes(b'((serial_number 3) (customer "Late"))\n')
    (seed / ".tmp" / name).write_bytes(b"(Cog 3)")
    (seed / ".tmp" / name).rename(seed / "queue2" / name)
    async with spool.reader(Widgets.TWO) as reader:
        found = [(job.metadata, (await job.data.load()).unwrap()) async for job in reader.available()]
    assert found[-1] == (Widget("Cog", 3), Order(3, "Late"))


async def test_every_byte_of_what_the_original_wrote_is_what_our_codec_writes(seed: Path):
    """The codec of this test is the original's: encoding what was decoded gives the same bytes."""
    state = state_of(seed)
    for found in [*state.available.values(), *state.checked_out.values()]:
        for raw in found.values():
            assert WidgetCodec().encode(WidgetCodec().decode(raw)) == raw
