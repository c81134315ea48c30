"""The rows of the original's `Data_file`, `Entry`, `Entry.Direct` and `list`."""

from __future__ import annotations

import datetime
import errno
import os

import anyio
import pytest

from helpers.calls import FailingCalls
from helpers.results import is_err
from helpers.spools import ANNE, BERT, Envelope, Mail, contents, load_spool, names_in, put, quick_spool, state_of
from trio_multispool import (
    CorruptMetadata,
    DataNotFound,
    Durability,
    DurabilityUnknown,
    EncodingFailed,
    EntryBusy,
    EntryNotFound,
    Err,
    Ok,
    Stat,
    StorageFailure,
    SyncsRefused,
    Use,
)
from trio_multispool.storage.directory.store import DirectoryStorage

pytestmark = pytest.mark.anyio

LONG_AGO = datetime.datetime(2001, 9, 9, 1, 46, 40, tzinfo=datetime.UTC)


# Data_file


async def test_a_data_file_has_the_name_and_the_path_of_its_entry(tmp_path):
    """`path` leads other programs to the data; `name` stays the same for the entry's whole life."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a", data=b"some data")
    assert entry.direct.data_file.name == "a"
    assert entry.direct.data_file.path == tmp_path / "spool" / ".data" / "a"
    assert entry.direct.data_file.path.read_bytes() == b"some data"
    async with (await entry.checkout()).unwrap() as job:
        assert (job.data.name, job.data.path) == ("a", entry.direct.data_file.path)
        assert "a" in repr(job.data)


async def test_data_is_loaded_saved_and_looked_at(tmp_path):
    """What was saved is what is loaded, by whoever asks; `stat` tells its size and age."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a", data=b"old")
    async with (await entry.checkout()).unwrap() as job:
        assert await job.data.load() == Ok(b"old")
        assert await job.data.save(b"longer") == Ok(None)
        assert await job.data.load() == Ok(b"longer")
        os.utime(job.data.path, (LONG_AGO.timestamp(),) * 2)
        assert await job.data.stat() == Ok(Stat(6, LONG_AGO))
    assert await entry.direct.data_file.load() == Ok(b"longer")
    assert await entry.direct.data_file.stat() == Ok(Stat(6, LONG_AGO))
    assert state_of(spool.path).faults() == []


@pytest.mark.parametrize("by", ["the owner", "direct", "unsafe"])
async def test_saving_data_replaces_it_at_once(tmp_path, by):
    """Who has the old file open goes on reading the old data: the new is another file."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a", data=b"old data")
    with open(entry.direct.data_file.path, "rb") as old:  # noqa: ASYNC230  # the test is alone
        if by == "direct":
            (await entry.direct.data_file.save(b"new")).unwrap()
        else:
            async with (await entry.checkout()).unwrap() as job:
                if by == "unsafe":
                    (unsafe,) = (await spool.checkouts_unsafe(Mail.SEND)).unwrap()
                    (await unsafe.data.save(b"new")).unwrap()
                else:
                    (await job.data.save(b"new")).unwrap()
        assert old.read() == b"old data"
    assert state_of(spool.path).data == {"a": b"new"}
    assert state_of(spool.path).faults() == []


async def test_data_that_was_saved_stays_when_the_entry_is_given_back(tmp_path):
    """A data save commits by itself."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    async with (await entry.checkout()).unwrap() as job:
        (await job.data.save(b"new")).unwrap()
    assert state_of(spool.path).places("a") == ["send"]
    assert await entry.direct.data_file.load() == Ok(b"new")


async def test_the_data_of_a_settled_job_is_nobodys(tmp_path):
    """Using it raises `RuntimeError`: the entry may be somebody else's by then."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    async with (await entry.checkout()).unwrap() as job:
        (await job.save(Mail.RETRY)).unwrap()
        for operation in (job.data.load, lambda: job.data.save(b""), job.data.stat):
            with pytest.raises(RuntimeError, match="settled"):
                await operation()
    assert state_of(spool.path).data == {"a": b"Hello"}


async def test_data_that_is_missing_is_not_found_and_not_made(tmp_path):
    """`Err(DataNotFound)`: only an entry's owner may give it new data."""
    spool = await quick_spool(tmp_path / "spool")
    nobody = spool.entry(Mail.SEND, "nobody").unwrap().direct.data_file
    for answer in (await nobody.load(), await nobody.stat(), await nobody.save(b"new")):
        assert answer == Err(DataNotFound("nobody"))
    assert state_of(spool.path).data == {}
    assert state_of(spool.path).temporary == {}


# Entry


async def test_an_entry_tells_its_spool_queue_and_name(tmp_path):
    """Making one looks at nothing but the name; two of one name, queue and spool are equal."""
    spool = await quick_spool(tmp_path / "spool")
    entry = spool.entry(Mail.SEND, "nobody").unwrap()
    assert (entry.spool, entry.queue, entry.name) == (spool, Mail.SEND, "nobody")
    again = (await load_spool(spool.path)).entry(Mail.SEND, "nobody").unwrap()
    assert entry == again
    assert hash(entry) == hash(again)
    other = await quick_spool(tmp_path / "other")
    assert entry not in (spool.entry(Mail.RETRY, "nobody").unwrap(), spool.entry(Mail.SEND, "x").unwrap(), "nobody")
    assert entry != other.entry(Mail.SEND, "nobody").unwrap()
    assert all(word in repr(entry) for word in ("nobody", "send", os.fspath(spool.path)))
    assert state_of(spool.path).entries() == set()


async def test_the_stat_of_an_entry_tells_size_and_age_of_its_metadata(tmp_path):
    """The age is that of the last writing: check-outs and moves do not change it."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    os.utime(spool.path / "send" / "a", (LONG_AGO.timestamp(),) * 2)
    found = Stat(len(b'{"recipient":"a","attempts":0}'), LONG_AGO)
    assert await entry.stat() == Ok(found)
    assert found.modified_at.utcoffset() == datetime.timedelta(0)
    async with (await entry.checkout()).unwrap() as job:
        assert await entry.stat() == Err(EntryNotFound("send", "a"))
        (await job.save(Mail.RETRY)).unwrap()
    assert await entry.stat() == Err(EntryNotFound("send", "a"))
    assert await spool.entry(Mail.RETRY, "a").unwrap().stat() == Ok(found)


# Entry.Direct


async def test_contents_reads_an_entry_where_it_is(tmp_path):
    """Nothing is locked or moved, so that an entry can be read by anybody at any time."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    before = state_of(spool.path)
    assert await entry.direct.contents() == Ok(Envelope("a"))
    assert state_of(spool.path) == before
    async with (await entry.checkout()).unwrap():
        assert await entry.direct.contents() == Err(EntryNotFound("send", "a"))
    (spool.path / "send" / "a").write_bytes(b"nonsense")
    assert isinstance((await entry.direct.contents()).error, CorruptMetadata)
    assert state_of(spool.path).places("a") == ["send"]


async def test_direct_save_replaces_the_metadata_of_an_available_entry(tmp_path):
    """The entry stays in its queue, whole at every moment, with its data."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    with open(spool.path / "send" / "a", "rb") as old:  # noqa: ASYNC230  # the test is alone
        assert await entry.direct.save(BERT) == Ok(None)
        assert old.read() == b'{"recipient":"a","attempts":0}'
    assert await entry.direct.contents() == Ok(BERT)
    assert state_of(spool.path).faults() == []


async def test_direct_remove_deletes_an_available_entry_with_all_that_belongs_to_it(tmp_path):
    """Nothing of it is left, and its name is free."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    assert await entry.direct.remove() == Ok(None)
    assert contents(spool.path) == contents((await quick_spool(tmp_path / "other")).path)
    assert await entry.direct.remove() == Err(EntryNotFound("send", "a"))
    await put(spool, Mail.SEND, "a")


async def test_direct_operations_never_make_or_touch_an_entry_that_is_not_available(tmp_path):
    """`Err(EntryNotFound)` for one that has gone, is in another queue, or is in somebody's hands."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.RETRY, "elsewhere")
    (entry,) = await put(spool, Mail.SEND, "in hand")
    async with (await entry.checkout()).unwrap():
        before = contents(spool.path)
        for name in ("nobody", "elsewhere", "in hand"):
            direct = spool.entry(Mail.SEND, name).unwrap().direct
            for answer in (await direct.save(ANNE), await direct.remove(), await direct.contents()):
                assert answer == Err(EntryNotFound("send", name))
        assert contents(spool.path) == before


async def test_two_direct_saves_at_once_leave_one_of_them_and_no_mixture(tmp_path):
    """Each answers `Ok` or `Err(EntryBusy)`, and what is stored is what one of them wrote."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    answers = {}

    async def save(number: int) -> None:
        answers[number] = (
            await entry.direct.save(Envelope(str(number))),
            await entry.direct.data_file.save(b"%d" % number),
        )

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(save, number)
    assert {a for pair in answers.values() for a in pair} <= {Ok(None), Err(EntryBusy("a"))}
    assert await entry.direct.contents() in [Ok(Envelope(str(n))) for n, (a, _) in answers.items() if a == Ok(None)]
    assert await entry.direct.data_file.load() in [Ok(b"%d" % n) for n, (_, a) in answers.items() if a == Ok(None)]
    assert state_of(spool.path).faults() == []


async def test_a_direct_save_overtaken_by_another_stands_whole_and_so_does_the_other(tmp_path):
    """Whoever comes in between writes a file of its own: what the last one wrote is stored, and none is torn."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    beside = DirectoryStorage.open(spool.path, ["send"])
    overtaken = []

    class Meanwhile(FailingCalls):
        def exchange(self, *arguments) -> None:
            beside.replace_metadata("send", "a", b"{}", durability=None, before_commit=lambda: None)
            beside.replace_data("a", None, lambda file: None, durability=None, before_commit=lambda: None)
            overtaken.append(arguments)
            super().exchange(*arguments)

    slow = await load_spool(spool.path, system_calls=Meanwhile())
    (await slow.entry(Mail.SEND, "a").unwrap().direct.save(BERT)).unwrap()
    assert await entry.direct.contents() == Ok(BERT)
    assert await entry.direct.data_file.load() == Ok(b"")
    (await slow.entry(Mail.SEND, "a").unwrap().direct.data_file.save(b"mine")).unwrap()
    assert isinstance((await entry.direct.contents()).error, CorruptMetadata)
    assert await entry.direct.data_file.load() == Ok(b"mine")
    assert len(overtaken) == 2
    assert state_of(spool.path).faults() == []
    beside.close()


async def test_a_direct_save_whose_temporary_file_a_recovery_has_taken_makes_another(tmp_path):
    """Before it is locked its file looks like one of the dead: a recovery in that moment makes no save fail."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    taken = []

    class Recovering(FailingCalls):
        def open(self, name: str, flags: int, directory: int | None = None, mode: int = 0o600) -> int:
            fd = super().open(name, flags, directory, mode)
            if name.startswith(".unsafe.") and len(taken) % 2 == 0:
                DirectoryStorage.open(spool.path, ["send"]).close()
                assert name not in state_of(spool.path).temporary
                taken.append(name)
            elif name.startswith(".unsafe."):
                taken.append(name)
            return fd

    slow = await load_spool(spool.path, system_calls=Recovering())
    direct = slow.entry(Mail.SEND, "a").unwrap().direct
    (await direct.save(BERT)).unwrap()
    (await direct.data_file.save(b"new")).unwrap()
    assert len(taken) == 4
    assert await entry.direct.contents() == Ok(BERT)
    assert await entry.direct.data_file.load() == Ok(b"new")
    assert state_of(spool.path).faults() == []


async def test_a_direct_operation_that_cannot_be_synced_says_what_is_known(tmp_path):
    """Before the commit nothing has changed; after it `Err(DurabilityUnknown)`, and then the rest is refused."""
    for operation in ("save", "remove", "data"):
        calls = FailingCalls()
        spool = await quick_spool(tmp_path / operation, system_calls=calls)
        first, second = await put(spool, Mail.SEND, "a", "b")

        async def act(entry, operation=operation, **how):
            match operation:
                case "save":
                    return await entry.direct.save(BERT, **how)
                case "remove":
                    return await entry.direct.remove(**how)
                case _:
                    return await entry.direct.data_file.save(b"new", **how)

        before = contents(spool.path)
        if operation != "remove":
            with calls.failing("sync", errno.EIO, "/.tmp/"):
                assert isinstance((await act(first)).error, StorageFailure)
            assert contents(spool.path) == before
        directory = "/.data" if operation == "data" else "/send"
        skip = 1 if operation == "remove" else 0  # the first is of send/.checkout, before the commit
        with calls.failing("sync", errno.EIO, directory, skip=skip):
            answer = await act(first)
        assert isinstance(answer.error, DurabilityUnknown)
        assert (answer.error.name, answer.error.committed) == ("a", True)
        assert contents(spool.path) != before
        after = contents(spool.path)
        assert await act(second) == Err(SyncsRefused(os.fspath(spool.path)))
        assert await act(second, durability=Durability.PROCESS) == Err(SyncsRefused(os.fspath(spool.path)))
        assert contents(spool.path) == after
        assert "b" in await names_in(spool, Mail.SEND)
        fresh = await load_spool(spool.path)
        (await act(fresh.entry(Mail.SEND, "b").unwrap())).unwrap()


async def test_a_direct_save_that_does_not_encode_changes_nothing(tmp_path):
    """`Err(EncodingFailed)` for metadata and for data."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    before = contents(spool.path)
    assert (await entry.direct.save(Envelope(object()))).error.part == "metadata"
    assert isinstance((await entry.direct.data_file.save("text")).error, EncodingFailed)
    assert contents(spool.path) == before


# list


async def test_a_listing_is_sorted_by_name_and_holds_what_is_available(tmp_path):
    """What is checked out, in another queue, or in quarantine is not listed."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "d", "b", "a", "c", "é")
    await put(spool, Mail.RETRY, "x")
    (spool.path / "send" / "c").write_bytes(b"nonsense")
    assert is_err(await spool.entry(Mail.SEND, "c").unwrap().checkout())
    async with (await spool.entry(Mail.SEND, "b").unwrap().checkout()).unwrap():
        entries = (await spool.entries(Mail.SEND)).unwrap()
        assert [entry.name for entry in entries] == ["a", "d", "é"]
        assert all(entry.queue is Mail.SEND and entry.spool is spool for entry in entries)
    assert await names_in(spool, Mail.SEND) == ["a", "b", "d", "é"]
    assert await names_in(spool, Mail.FAILED) == []


async def test_a_long_queue_is_listed_page_by_page(tmp_path):
    """At most so many, after the last one of the page before; a page is a whole number of entries, and not empty."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b", "c")
    pages, after = [], ""
    for _ in range(3):
        pages.append([entry.name for entry in (await spool.entries(Mail.SEND, after=after, at_most=2)).unwrap()])
        after = (pages[-1] or [after])[-1]
    assert pages == [["a", "b"], ["c"], []]
    for name, delay in (("late", 200), ("early", 100)):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name), not_before=delay)).unwrap()
    assert [entry.name for _, entry in (await spool.waiting(Mail.SEND, at_most=1)).unwrap()] == ["early"]
    for listing in (spool.entries, spool.waiting):
        with pytest.raises(ValueError, match="at_most must be at least 1"):
            await listing(Mail.SEND, at_most=0)
    with pytest.raises(TypeError, match="at_most must be a whole number"):
        await spool.entries(Mail.SEND, at_most=1.5)


async def test_data_can_be_given_to_other_programs_as_a_file(tmp_path):
    """Its own file, which stays; data that is missing is told before the block."""
    spool = await quick_spool(tmp_path / "spool")
    [entry] = await put(spool, Mail.SEND, "a")
    async with (await entry.checkout()).unwrap() as job:
        async with job.data.as_file() as path:
            assert path == job.data.path
        assert path.read_bytes() == b"Hello"
        path.unlink()
        with pytest.raises(DataNotFound):
            async with job.data.as_file():
                pass


async def test_a_queue_that_cannot_be_listed_is_an_err(tmp_path):
    """An error is never an empty list."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    with calls.failing("regular_files", errno.EIO):
        answer = await spool.entries(Mail.SEND)
    assert isinstance(answer.error, StorageFailure)
    assert answer.error.errno == errno.EIO
