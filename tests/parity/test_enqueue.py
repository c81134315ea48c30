"""The rows of the original's `Unique_name.reserve` and `enqueue`."""

from __future__ import annotations

import contextlib
import errno
import gc
import os

import pytest

from helpers.calls import FailingCalls
from helpers.results import is_err
from helpers.spools import ANNE, BERT, MAIL, Envelope, Mail, contents, load_spool, names_in, put, quick_spool, state_of
from trio_multispool import (
    AccessDenied,
    Durability,
    DurabilityUnknown,
    EncodingFailed,
    EntryBusy,
    Err,
    InvalidName,
    NameTaken,
    Ok,
    OutOfSpace,
    ReadOnlySpool,
    Reserve,
    SpoolError,
    StorageFailure,
    SyncsRefused,
    TooManyOpenFiles,
    Use,
)
from trio_multispool.model.names import invalid_name

pytestmark = pytest.mark.anyio


# reserve_name


async def test_a_reserved_name_is_held_until_it_is_used(tmp_path):
    """Nobody else can have the name; `Use` makes the entry under it, and then the name is used."""
    spool = await quick_spool(tmp_path / "spool")
    async with (await spool.reserve_name()).unwrap() as reserved:
        assert invalid_name(reserved.name) is None
        assert reserved.name in repr(reserved)
        assert state_of(spool.path).registry == {reserved.name}
        other = await load_spool(spool.path)
        assert await other.enqueue(Mail.SEND, BERT, b"", name=Use(reserved.name)) == Err(EntryBusy(reserved.name))
        assert (await other.recover()).unwrap() == []
        entry = (await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use(reserved))).unwrap()
        assert entry.name == reserved.name
        before = contents(spool.path)
        with pytest.raises(RuntimeError, match="used"):
            await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved))
    assert contents(spool.path) == before
    assert await names_in(spool, Mail.SEND) == [reserved.name]
    assert state_of(spool.path).faults() == []


@pytest.mark.parametrize("how", ["normally", "by an exception"])
async def test_a_reserved_name_is_given_up_if_its_block_is_left_unused(tmp_path, how):
    """Nothing of it stays; the block's exception passes, and using the name later is misuse."""
    spool = await quick_spool(tmp_path / "spool")
    before = contents(spool.path)
    error = LookupError()
    raising = how == "by an exception"
    with pytest.raises(LookupError) if raising else contextlib.nullcontext() as caught:  # a body that raises
        async with (await spool.reserve_name()).unwrap() as reserved:
            if raising:
                raise error
    assert not raising or caught.value is error
    assert contents(spool.path) == before
    with pytest.raises(RuntimeError, match="given up"):
        await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved))
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved.name))).unwrap()


async def test_a_reserved_name_is_of_its_own_spool(tmp_path):
    """Using it in another spool is misuse, and it stays held."""
    spool, other = await quick_spool(tmp_path / "spool"), await quick_spool(tmp_path / "other")
    async with (await spool.reserve_name()).unwrap() as reserved:
        with pytest.raises(RuntimeError, match="another spool"):
            await other.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved))
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved))).unwrap()


async def test_a_reserved_name_that_is_forgotten_is_let_go_with_a_warning(tmp_path):
    """A `ResourceWarning` names it; recovery collects what it left."""
    spool = await quick_spool(tmp_path / "spool")
    reserved = (await spool.reserve_name()).unwrap()
    name = reserved.name
    with pytest.warns(ResourceWarning, match=name):  # noqa: PT031  # the warning comes when it is collected
        del reserved
        gc.collect()
    assert [found.name for found in (await spool.recover()).unwrap()] == [name]
    assert state_of(spool.path).registry == set()


async def test_a_name_that_cannot_be_reserved_is_an_err(tmp_path):
    """The system's troubles are told, and no reservation stays."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    before = contents(spool.path)
    for code, error in ((errno.EMFILE, TooManyOpenFiles), (errno.EACCES, AccessDenied), (errno.EIO, StorageFailure)):
        with calls.failing("open", code, "/.registry/"):
            assert type((await spool.reserve_name()).error) is error
    assert contents(spool.path) == before


# enqueue


async def test_an_enqueued_entry_is_available_with_its_metadata_and_data(tmp_path):
    """`Ok(entry)` names it; everything is in its place and nothing else is left."""
    spool = await quick_spool(tmp_path / "spool")
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"data")).unwrap()
    assert entry.queue is Mail.SEND
    state = state_of(spool.path)
    assert state.available["send"] == {entry.name: b'{"recipient":"anne@example.org","attempts":0}'}
    assert state.data == {entry.name: b"data"}
    assert state.registry == {entry.name}
    assert state.faults() == []


async def test_names_are_reserved_by_default_in_the_order_of_enqueueing(tmp_path):
    """`Reserve` is the default: a listing is first-in first-out."""
    spool = await quick_spool(tmp_path / "spool")
    ways = (None, Reserve(), Reserve(None))
    made = [(await spool.enqueue(Mail.SEND, ANNE, b"", name=name)).unwrap().name for name in ways]
    assert await names_in(spool, Mail.SEND) == made


@pytest.mark.parametrize("where", ["the queue", "another queue", "check-out", "quarantine"])
async def test_use_of_a_name_that_an_entry_has_is_name_taken(tmp_path, where):
    """`Err(NameTaken)`, wherever the entry is, and it stays as it is."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.RETRY if where == "another queue" else Mail.SEND, "a")
    if where == "check-out":
        async with (await entry.checkout()).unwrap():
            assert await spool.enqueue(Mail.SEND, BERT, b"new", name=Use("a")) == Err(NameTaken("a"))
    if where == "quarantine":
        (spool.path / "send" / "a").write_bytes(b"nonsense")
        assert is_err(await entry.checkout())
    before = contents(spool.path)
    assert await spool.enqueue(Mail.SEND, BERT, b"new", name=Use("a")) == Err(NameTaken("a"))
    assert contents(spool.path) == before


async def test_use_of_a_name_whose_entry_has_gone_makes_a_new_one(tmp_path):
    """A name is free again when its entry is removed, and the new entry has nothing of the old."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a", data=b"old")
    (await (await entry.checkout()).unwrap().remove()).unwrap()
    (await spool.enqueue(Mail.RETRY, BERT, b"new", name=Use("a"))).unwrap()
    state = state_of(spool.path)
    assert state.available["retry"] == {"a": b'{"recipient":"bert@example.org","attempts":0}'}
    assert state.data == {"a": b"new"}
    assert state.faults() == []


async def test_use_of_a_name_that_a_killed_enqueue_left_takes_it_over(tmp_path):
    """Reservation, data and temporary metadata of the dead are cleared away first."""
    spool = await quick_spool(tmp_path / "spool")
    for left in (".registry/a", ".data/a", ".tmp/a", ".tmp/.data.a"):
        (spool.path / left).write_bytes(b"left")
    (await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use("a"))).unwrap()
    state = state_of(spool.path)
    assert state.data == {"a": b"data"}
    assert state.faults() == []


async def test_an_invalid_name_is_an_err(tmp_path):
    """`Err(InvalidName)`, before anything is written."""
    spool = await quick_spool(tmp_path / "spool")
    before = contents(spool.path)
    answer = await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("../a"))
    assert isinstance(answer.error, InvalidName)
    assert contents(spool.path) == before


STEPS = [
    ("open", "/.registry/"),
    ("open", "/.data/"),
    ("write", "/.data/"),
    ("sync", "/.data/"),
    ("open", "/.tmp/"),
    ("write", "/.tmp/"),
    ("sync", "/.tmp/"),
    ("move", "/.tmp/"),
]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, OutOfSpace),
        (errno.EDQUOT, OutOfSpace),
        (errno.EMFILE, TooManyOpenFiles),
        (errno.EACCES, AccessDenied),
        (errno.EROFS, ReadOnlySpool),
        (errno.EIO, StorageFailure),
    ],
)
@pytest.mark.parametrize(("call", "on"), STEPS)
async def test_an_enqueue_that_fails_leaves_nothing(tmp_path, call, on, code, kind):
    """All or nothing: the error is of its class and names operation and path, and all of this call's files are gone."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    before = contents(spool.path)
    with calls.failing(call, code, on):
        answer = await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use("a"))
    assert type(answer.error) is kind
    assert answer.error.operation in str(answer.error)
    assert contents(spool.path) == before
    (await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use("a"))).unwrap()
    assert state_of(spool.path).faults() == []


@contextlib.contextmanager
def umask(mask):
    """Take these permissions from every file that is made in the block."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("call", ["change_mode", "lock"])
async def test_a_reservation_that_could_not_be_locked_is_in_nobodys_way(tmp_path, call):
    """Without its lock it must not be unlinked, for somebody else may have it: the next to come takes it."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    before = contents(spool.path)
    with umask(0o400), calls.failing(call, errno.EIO, "/.registry/"):  # the mode is set where a umask took some of it
        assert isinstance((await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).error, StorageFailure)
        assert isinstance((await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b"))).error, StorageFailure)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
    (await (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap().remove()).unwrap()
    (await spool.recover()).unwrap()
    assert contents(spool.path) == before


async def test_an_enqueue_whose_last_sync_fails_is_there_and_says_that_it_may_not_last(tmp_path):
    """`Err(DurabilityUnknown)`: the entry is there; then nothing durable is taken until the spool is loaded anew."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    with calls.failing("sync", errno.EIO, "/send"):
        answer = await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use("a"))
    assert answer == Err(DurabilityUnknown("a", "send", committed=True))
    assert await names_in(spool, Mail.SEND) == ["a"]
    assert state_of(spool.path).faults() == []
    after = contents(spool.path)
    refused = Err(SyncsRefused(os.fspath(spool.path)))
    assert await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b")) == refused
    assert await spool.enqueue(Mail.SEND, ANNE, b"", durability=Durability.PROCESS) == refused
    assert contents(spool.path) == after
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
        assert await job.save(Mail.RETRY) == refused
        assert await job.remove() == refused
        assert await job.data.save(b"") == refused
        (await job.release()).unwrap()
    assert contents(spool.path) == after
    await put(await load_spool(spool.path), Mail.SEND, "b")


async def test_what_does_not_encode_keeps_the_reserved_name(tmp_path):
    """`Err(EncodingFailed)`: the name was not used, and can be used for what does encode."""
    spool = await quick_spool(tmp_path / "spool")
    async with (await spool.reserve_name()).unwrap() as reserved:
        for metadata, data in ((Envelope(object()), b""), (ANNE, "text")):
            answer = await spool.enqueue(Mail.SEND, metadata, data, name=Use(reserved))
            assert isinstance(answer.error, EncodingFailed)
        (await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use(reserved))).unwrap()
    assert state_of(spool.path).data == {reserved.name: b"data"}
    assert state_of(spool.path).faults() == []


@pytest.mark.parametrize("spools", Durability)
@pytest.mark.parametrize("calls", [None, *Durability])
async def test_an_entry_can_be_enqueued_at_every_level_of_durability(tmp_path, spools, calls):
    """The level changes what is synced and nothing else."""
    spool = await quick_spool(tmp_path / "spool", durability=spools)
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"data", durability=calls)).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        (await job.data.save(b"new", durability=calls)).unwrap()
        (await job.save(Mail.RETRY, BERT, durability=calls)).unwrap()
    moved = spool.entry(Mail.RETRY, entry.name).unwrap()
    assert (await moved.direct.contents(), await moved.direct.data_file.load()) == (Ok(BERT), Ok(b"new"))
    (await moved.direct.save(ANNE, durability=calls)).unwrap()
    assert state_of(spool.path).faults() == []
    async with (await moved.checkout()).unwrap() as job:
        (await job.remove(durability=calls)).unwrap()
    assert state_of(spool.path).faults() == []
    assert state_of(spool.path).entries() == set()


async def test_the_files_that_a_failed_enqueue_could_not_remove_are_collected(tmp_path):
    """If even tidying up fails, a note says so, and recovery does it."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    with calls.failing("write", errno.ENOSPC, "/.tmp/"), calls.failing("unlink", errno.EIO, "/.data/", skip=1):
        answer = await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use("a"))
    assert isinstance(answer.error, OutOfSpace)
    assert any("recovery" in note for note in answer.error.__notes__)
    assert state_of(spool.path).entries() == set()
    (await spool.recover()).unwrap()
    assert state_of(spool.path).faults() == []


async def test_an_error_of_enqueue_can_be_raised(tmp_path):
    """`unwrap` raises what the `Err` holds."""
    spool = await quick_spool(tmp_path / "spool", MAIL)
    await put(spool, Mail.SEND, "a")
    with pytest.raises(SpoolError, match="already exists"):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
