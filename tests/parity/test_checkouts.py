"""The rows of the original's `with_entry`, `checkout`, `Checked_out_entry` and `list_checkouts_unsafe`."""

from __future__ import annotations

import errno
import gc
import os

import pytest

from helpers.calls import FailingCalls
from helpers.results import is_err
from helpers.spools import (
    ANNE,
    BERT,
    Envelope,
    Mail,
    contents,
    load_spool,
    make_spool,
    names_in,
    put,
    quick_spool,
    state_of,
)
from trio_multispool import (
    UNCHANGED,
    AccessDenied,
    CorruptMetadata,
    DataFile,
    Durability,
    DurabilityUnknown,
    EncodingFailed,
    EntryBusy,
    EntryNotFound,
    Err,
    NameTaken,
    Ok,
    OutOfSpace,
    OwnershipLost,
    ReadOnlySpool,
    Release,
    Remove,
    Save,
    Spool,
    StorageFailure,
    SyncsRefused,
    TooManyOpenFiles,
    Unavailable,
    UnreadableEntry,
    UnreadErrWarning,
)

pytestmark = pytest.mark.anyio

TROUBLES = [
    (errno.ENOSPC, OutOfSpace),
    (errno.EACCES, AccessDenied),
    (errno.EROFS, ReadOnlySpool),
    (errno.EIO, StorageFailure),
]


async def one(tmp_path, **options) -> tuple[Spool, object]:
    """Make a spool with one entry."""
    spool = await quick_spool(tmp_path / "spool", **options)
    (entry,) = await put(spool, Mail.SEND, "a")
    return spool, entry


# checkout and checkout'


async def test_a_checked_out_entry_is_nobody_elses(tmp_path):
    """`Ok(job)` holds the entry: for others, in this process or another, it has gone from the queue."""
    spool, entry = await one(tmp_path)
    async with (await entry.checkout()).unwrap() as job:
        assert (job.name, job.queue, job.metadata, job.settled) == ("a", Mail.SEND, Envelope("a"), False)
        assert await job.data.load() == Ok(b"Hello")
        assert "checked out" in repr(job)
        assert state_of(spool.path).places("a") == ["send/.checkout"]
        for other in (entry, (await load_spool(spool.path)).entry(Mail.SEND, "a").unwrap()):
            assert isinstance((await other.checkout()).error, (EntryBusy, EntryNotFound))
            assert isinstance((await other.try_checkout()).unwrap(), Unavailable)
        async with spool.reader(Mail.SEND) as reader:
            assert (await reader.dequeue_available()).unwrap() is None
    assert state_of(spool.path).places("a") == ["send"]
    assert "settled" in repr(job)


@pytest.mark.parametrize("name", ["nobody", "elsewhere"])
async def test_an_entry_that_has_gone_is_an_err_of_checkout_and_an_answer_of_try_checkout(tmp_path, name):
    """Not in that queue: `Err(EntryNotFound)`, or `Ok(Unavailable.GONE)`; and nothing is left of the attempt."""
    spool, _ = await one(tmp_path)
    await put(spool, Mail.RETRY, "elsewhere")
    before = contents(spool.path)
    entry = spool.entry(Mail.SEND, name).unwrap()
    assert await entry.checkout() == Err(EntryNotFound("send", name))
    assert await entry.try_checkout() == Ok(Unavailable.GONE)
    assert contents(spool.path) == before


async def test_an_entry_that_is_busy_is_an_err_of_checkout_and_an_answer_of_try_checkout(tmp_path):
    """Somebody has its lock: `Err(EntryBusy)`, or `Ok(Unavailable.BUSY)`; the entry stays where it is."""
    spool, entry = await one(tmp_path)
    job = (await entry.checkout()).unwrap()
    # A hand puts the file back while its owner lives: it is in the queue, and locked.
    (spool.path / "send" / ".checkout" / "a").rename(spool.path / "send" / "a")
    assert await entry.checkout() == Err(EntryBusy("a"))
    assert await entry.try_checkout() == Ok(Unavailable.BUSY)
    assert state_of(spool.path).places("a") == ["send"]
    assert await job.release() == Err(OwnershipLost("send", "a"))
    async with (await entry.checkout()).unwrap():
        pass


async def test_undecodable_metadata_is_an_err_of_both(tmp_path):
    """`Err(CorruptMetadata)`, and the entry is in quarantine."""
    spool, _ = await one(tmp_path)
    await put(spool, Mail.SEND, "b")
    for name in ("a", "b"):
        (spool.path / "send" / name).write_bytes(b"nonsense")
    assert isinstance((await spool.entry(Mail.SEND, "a").unwrap().checkout()).error, CorruptMetadata)
    assert isinstance((await spool.entry(Mail.SEND, "b").unwrap().try_checkout()).error, CorruptMetadata)
    assert state_of(spool.path).quarantined["send"].keys() == {"a", "b"}


@pytest.mark.parametrize(("code", "kind"), [*TROUBLES, (errno.EMFILE, TooManyOpenFiles)])
@pytest.mark.parametrize(("call", "on"), [("open", "/send/a"), ("read", "/send/a"), ("move", "/send/a")])
async def test_a_checkout_that_fails_leaves_the_entry_available(tmp_path, call, on, code, kind):
    """The metadata is read before anything moves: whatever fails, nothing is stranded."""
    calls = FailingCalls()
    spool, entry = await one(tmp_path, system_calls=calls)
    before = contents(spool.path)
    with calls.failing(call, code, on):
        for answer in (await entry.checkout(), await entry.try_checkout()):
            assert isinstance(answer.error, (kind, UnreadableEntry))
    assert contents(spool.path) == before
    async with (await entry.checkout()).unwrap():
        pass


# Checked_out_entry


async def test_a_save_moves_the_entry_with_new_metadata_and_the_data_goes_along(tmp_path):
    """The job is settled; the entry is in its new queue, and only there."""
    spool, entry = await one(tmp_path)
    async with (await entry.checkout()).unwrap() as job:
        assert await job.save(Mail.RETRY, BERT) == Ok(None)
        assert job.settled
        assert job.metadata == BERT
    state = state_of(spool.path)
    assert state.available["retry"] == {"a": b'{"recipient":"bert@example.org","attempts":0}'}
    assert state.data == {"a": b"Hello"}
    assert state.faults() == []


@pytest.mark.parametrize("queue", Mail)
async def test_a_save_without_metadata_keeps_it_byte_for_byte(tmp_path, queue):
    """`UNCHANGED` is the default, in any queue, also the one that the entry came from."""
    spool, entry = await one(tmp_path)
    raw = b'{ "attempts": 3,  "recipient": "a" }'
    (spool.path / "send" / "a").write_bytes(raw)
    async with (await entry.checkout()).unwrap() as job:
        (await job.save(queue, UNCHANGED)).unwrap()
    assert state_of(spool.path).available[queue.value] == {"a": raw}
    assert state_of(spool.path).faults() == []


async def test_update_changes_the_metadata_in_memory_and_save_stores_it(tmp_path):
    """`release` does not store what `update` made, `save` does."""
    _, entry = await one(tmp_path)

    def change(envelope: Envelope) -> Envelope:
        return Envelope(envelope.recipient, envelope.attempts + 1)

    async with (await entry.checkout()).unwrap() as job:
        job.update(change)
        job.update(change)
        assert job.metadata == Envelope("a", 2)
        (await job.release()).unwrap()
    assert await entry.direct.contents() == Ok(Envelope("a"))
    async with (await entry.checkout()).unwrap() as job:
        assert job.metadata == Envelope("a")
        job.update(change)
        (await job.save(Mail.SEND)).unwrap()
    assert await entry.direct.contents() == Ok(Envelope("a", 1))


async def test_a_removal_deletes_the_entry_with_all_that_belongs_to_it(tmp_path):
    """Nothing is left, and the name is free."""
    spool, entry = await one(tmp_path)
    async with (await entry.checkout()).unwrap() as job:
        (await job.data.save(b"new")).unwrap()
        assert await job.remove() == Ok(None)
        assert job.settled
    assert contents(spool.path) == contents((await quick_spool(tmp_path / "other")).path)


async def test_a_release_puts_the_entry_back_as_it_was(tmp_path):
    """The very same file is in the queue again."""
    spool, entry = await one(tmp_path)
    before = contents(spool.path)
    async with (await entry.checkout()).unwrap() as job:
        assert await job.release() == Ok(None)
        assert job.settled
        assert contents(spool.path) == before
    assert contents(spool.path) == before


SETTLING = {
    "save": lambda job, **how: job.save(Mail.RETRY, BERT, **how),
    "save unchanged": lambda job, **how: job.save(Mail.RETRY, **how),
    "save in place": lambda job, **how: job.save(Mail.SEND, BERT, **how),
    "remove": lambda job, **how: job.remove(**how),
    "release": lambda job: job.release(),
}
every_settling = pytest.mark.parametrize("settle", SETTLING.values(), ids=SETTLING)
every_power_settling = pytest.mark.parametrize("settle", list(SETTLING.values())[:-1], ids=list(SETTLING)[:-1])


@pytest.mark.parametrize("first", SETTLING)
@pytest.mark.parametrize("second", SETTLING)
async def test_settling_a_job_twice_is_misuse(tmp_path, first, second):
    """`RuntimeError`, and the entry stays where the first put it."""
    spool, entry = await one(tmp_path)
    async with (await entry.checkout()).unwrap() as job:
        (await SETTLING[first](job)).unwrap()
        after = contents(spool.path)
        with pytest.raises(RuntimeError, match="settled"):
            await SETTLING[second](job)
    assert contents(spool.path) == after


@every_settling
@pytest.mark.parametrize(("code", "kind"), TROUBLES)
async def test_a_settling_that_fails_leaves_the_job_in_hand(tmp_path, settle, code, kind):
    """The entry is checked out as before, with its old metadata and its data; trying again succeeds."""
    calls = FailingCalls()
    spool, entry = await one(tmp_path, system_calls=calls)
    async with (await entry.checkout()).unwrap() as job:
        before = contents(spool.path)
        for call, on in (("move", "/.checkout/a ->"), ("unlink", "/.checkout/a")):
            if (call == "unlink") != (settle is SETTLING["remove"]):
                continue
            with calls.failing(call, code, on):
                answer = await settle(job)
            assert type(answer.error) is kind
            assert not job.settled
            assert contents(spool.path) == before
        (await settle(job)).unwrap()
    assert state_of(spool.path).faults() == []


@every_power_settling
async def test_a_settling_whose_last_sync_fails_has_happened_and_says_so(tmp_path, settle):
    """`Err(DurabilityUnknown)`: the job is settled, and the entry where it was to go."""
    calls = FailingCalls()
    spool, entry = await one(tmp_path, system_calls=calls)
    (tmp_path / "reference").mkdir()
    reference, same = await one(tmp_path / "reference")
    (await settle((await same.checkout()).unwrap())).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        last = "/send/.checkout" if settle is SETTLING["remove"] else "/send" if "place" in _name(settle) else "/retry"
        with calls.failing("sync", errno.EIO, last, skip=1 if "place" in _name(settle) else 0):
            answer = await settle(job)
        assert isinstance(answer.error, DurabilityUnknown)
        assert answer.error.committed
        assert job.settled
    state, wanted = state_of(spool.path), state_of(reference.path)
    assert state.available == wanted.available
    assert state.checked_out == wanted.checked_out


def _name(settle: object) -> str:
    return next(name for name, value in SETTLING.items() if value is settle)


@every_power_settling
async def test_a_settling_whose_first_sync_fails_has_not_happened(tmp_path, settle):
    """`Err(StorageFailure)`; then only what needs no sync is accepted, and the entry can be released."""
    calls = FailingCalls()
    spool, entry = await one(tmp_path, system_calls=calls)
    async with (await entry.checkout()).unwrap() as job:
        before = contents(spool.path)
        with calls.failing("sync", errno.EIO, "/send"):
            assert isinstance((await settle(job)).error, StorageFailure)
        assert not job.settled
        assert contents(spool.path) == before
        assert await settle(job) == Err(SyncsRefused(os.fspath(spool.path)))
        assert await settle(job, durability=Durability.PROCESS) == Err(SyncsRefused(os.fspath(spool.path)))
        (await job.release()).unwrap()
    assert await names_in(spool, Mail.SEND) == ["a"]


async def test_a_save_over_a_file_of_the_same_name_never_replaces_it(tmp_path):
    """`Err(NameTaken)`: both copies are kept, and the job is still in hand with its old metadata."""
    spool, entry = await one(tmp_path)
    async with (await entry.checkout()).unwrap() as job:
        (spool.path / "retry" / "a").write_bytes(b"planted")
        before = contents(spool.path)
        assert await job.save(Mail.RETRY, BERT) == Err(NameTaken("a"))
        assert contents(spool.path) == before
        assert not job.settled
        (await job.save(Mail.FAILED, BERT)).unwrap()


async def test_a_release_over_a_file_of_the_same_name_never_replaces_it(tmp_path):
    """`Err(NameTaken)`: the one in the queue stays, and recovery drops the other."""
    spool, entry = await one(tmp_path)
    job = (await entry.checkout()).unwrap()
    (spool.path / "send" / "a").write_bytes(b'{"recipient":"planted"}')
    assert await job.release() == Err(NameTaken("a"))
    (await spool.recover()).unwrap()
    state = state_of(spool.path)
    assert state.available["send"] == {"a": b'{"recipient":"planted"}'}
    assert state.faults() == []


@every_settling
async def test_an_entry_that_was_taken_away_is_ownership_lost(tmp_path, settle):
    """`Err(OwnershipLost)`: nothing is made where it was, and nothing happens to it where it is."""
    spool, entry = await one(tmp_path)
    job = (await entry.checkout()).unwrap()
    (spool.path / "send" / ".checkout" / "a").rename(spool.path / "failed" / "a")
    before = contents(spool.path)
    assert await settle(job) == Err(OwnershipLost("send", "a"))
    assert contents(spool.path) == before
    if not job.settled:
        with pytest.raises(OwnershipLost):
            async with job:
                pass
    assert contents(spool.path) == before
    async with (await spool.entry(Mail.FAILED, "a").unwrap().checkout()).unwrap():
        pass  # its lock is free


async def test_metadata_that_does_not_encode_is_an_err_of_save(tmp_path):
    """`Err(EncodingFailed)`, and the job is still in hand."""
    spool, entry = await one(tmp_path)
    async with (await entry.checkout()).unwrap() as job:
        before = contents(spool.path)
        assert isinstance((await job.save(Mail.RETRY, Envelope(object()))).error, EncodingFailed)
        assert contents(spool.path) == before
        (await job.save(Mail.RETRY, BERT)).unwrap()


async def test_leaving_a_jobs_block_returns_what_was_not_settled(tmp_path):
    """By its end or by an exception, which passes through as the same object, unchanged metadata in its queue."""
    spool, entry = await one(tmp_path)
    before = contents(spool.path)
    async with (await entry.checkout()).unwrap() as job:
        job.update(lambda _: BERT)
    assert contents(spool.path) == before
    assert job.settled
    error = LookupError()
    with pytest.raises(LookupError) as caught:
        async with (await entry.checkout()).unwrap():
            raise error
    assert caught.value is error
    assert contents(spool.path) == before


async def test_an_err_that_nobody_looked_at_is_raised_at_the_end_of_the_block(tmp_path):
    """A dropped `Err` must not become a silent hot loop: the entry goes back, and the error is raised."""
    spool, entry = await one(tmp_path)
    before = contents(spool.path)
    with pytest.raises(EncodingFailed):  # noqa: PT012  # as above
        async with (await entry.checkout()).unwrap() as job:
            with pytest.warns(UnreadErrWarning, match="save of entry a of queue send"):
                await job.save(Mail.RETRY, Envelope(object()))
    assert contents(spool.path) == before
    async with (await entry.checkout()).unwrap() as job:
        (await job.save(Mail.RETRY, Envelope(object()))).ignore()
        (await job.save(Mail.RETRY)).unwrap()
    error = LookupError()
    with pytest.raises(LookupError) as caught:  # noqa: PT012  # a body that raises
        async with (await spool.entry(Mail.RETRY, "a").unwrap().checkout()).unwrap() as job:
            (await job.save(Mail.SEND, Envelope(object()))).ignore()
            raise error
    assert caught.value is error
    assert any("cannot be encoded" in note for note in error.__notes__)
    assert state_of(spool.path).places("a") == ["retry"]


async def test_a_job_that_is_forgotten_is_let_go_with_a_warning_and_recovered(tmp_path):
    """A `ResourceWarning` names the entry; its lock is free, and recovery brings it back."""
    spool, entry = await one(tmp_path)
    job = (await entry.checkout()).unwrap()
    with pytest.warns(ResourceWarning, match="'a'"):  # noqa: PT031  # the warning comes when it is collected
        del job
        gc.collect()
    assert state_of(spool.path).places("a") == ["send/.checkout"]
    assert [(found.name, found.queue) for found in (await spool.recover()).unwrap()] == [("a", "send")]
    assert state_of(spool.path).faults() == []


# with_entry and with_entry'


every_with = pytest.mark.parametrize("how", ["with_entry", "try_with_entry"])


@every_with
@pytest.mark.parametrize(
    ("verdict", "places", "raw"),
    [
        (Save(Mail.RETRY, BERT), ["retry"], b'{"recipient":"bert@example.org","attempts":0}'),
        (Save(Mail.RETRY), ["retry"], b'{"recipient":"a","attempts":0}'),
        (Save(Mail.SEND, BERT), ["send"], b'{"recipient":"bert@example.org","attempts":0}'),
        (Remove(), [], None),
        (Release(), ["send"], b'{"recipient":"a","attempts":0}'),
    ],
)
async def test_a_handlers_verdict_is_done_and_returned(tmp_path, how, verdict, places, raw):
    """`Ok(verdict)` once it is stored; the handler had the metadata and the data."""
    spool, entry = await one(tmp_path)

    async def handler(metadata: Envelope, data: DataFile[bytes]):
        assert metadata == Envelope("a")
        assert await data.load() == Ok(b"Hello")
        assert state_of(spool.path).places("a") == ["send/.checkout"]
        return verdict

    assert await getattr(spool, how)(entry, handler) == Ok(verdict)
    state = state_of(spool.path)
    assert state.places("a") == places
    assert raw is None or state.available[places[0]]["a"] == raw
    assert state.faults() == []


async def never(metadata: Envelope, data: DataFile[bytes]) -> None:
    """Fail, for it must not be called."""
    pytest.fail("called")


async def test_an_entry_that_is_gone_or_busy_is_an_err_of_with_entry_and_an_answer_of_try_with_entry(tmp_path):
    """The handler is not called."""
    spool, entry = await one(tmp_path)
    nobody = spool.entry(Mail.SEND, "nobody").unwrap()
    assert await spool.with_entry(nobody, never) == Err(EntryNotFound("send", "nobody"))
    assert await spool.try_with_entry(nobody, never) == Ok(Unavailable.GONE)
    job = (await entry.checkout()).unwrap()
    (spool.path / "send" / ".checkout" / "a").rename(spool.path / "send" / "a")
    assert await spool.with_entry(entry, never) == Err(EntryBusy("a"))
    assert await spool.try_with_entry(entry, never) == Ok(Unavailable.BUSY)
    assert is_err(await job.release())


@every_with
async def test_an_entry_that_cannot_be_checked_out_is_an_err(tmp_path, how):
    """`Err(CorruptMetadata)` or `Err(UnreadableEntry)`, and the handler is not called."""
    spool, entry = await one(tmp_path)
    (spool.path / "send" / "m").mkdir()
    assert isinstance((await getattr(spool, how)(spool.entry(Mail.SEND, "m").unwrap(), never)).error, UnreadableEntry)
    (spool.path / "send" / "a").write_bytes(b"nonsense")
    assert isinstance((await getattr(spool, how)(entry, never)).error, CorruptMetadata)


@every_with
async def test_what_a_handler_raises_returns_the_entry_and_passes_through(tmp_path, how):
    """The same object, with no group around it; the entry is in its queue, unchanged."""
    spool, entry = await one(tmp_path)
    before = contents(spool.path)
    for error in (LookupError(), KeyboardInterrupt(), ExceptionGroup("several", [ValueError()])):

        async def handler(metadata: Envelope, data: DataFile[bytes], error: BaseException = error):
            raise error

        with pytest.raises(type(error)) as caught:
            await getattr(spool, how)(entry, handler)
        assert caught.value is error
        assert contents(spool.path) == before


@every_with
@pytest.mark.parametrize("verdict", [None, True, Mail.SEND, "remove", Save, Remove, Ok(Remove())])
async def test_what_is_no_verdict_returns_the_entry_and_raises_type_error(tmp_path, how, verdict):
    """A handler that forgets to answer is a bug, told with the entry's name."""
    spool, entry = await one(tmp_path)
    before = contents(spool.path)

    async def handler(metadata: Envelope, data: DataFile[bytes]):
        return verdict

    with pytest.raises(TypeError, match="'a' goes back"):
        await getattr(spool, how)(entry, handler)
    assert contents(spool.path) == before


@every_with
async def test_a_verdict_that_cannot_be_stored_returns_the_entry_and_is_an_err(tmp_path, how):
    """The error is the `Err`, raised by nobody; the entry is in its queue, unchanged."""
    calls = FailingCalls()
    spool, entry = await one(tmp_path, system_calls=calls)
    before = contents(spool.path)

    async def handler(metadata: Envelope, data: DataFile[bytes]):
        return Save(Mail.RETRY, BERT)

    with calls.failing("open", errno.ENOSPC, "/.tmp/a"):
        assert isinstance((await getattr(spool, how)(entry, handler)).error, OutOfSpace)
    assert contents(spool.path) == before

    async def encodes_not(metadata: Envelope, data: DataFile[bytes]):
        return Save(Mail.RETRY, Envelope(object()))

    assert isinstance((await getattr(spool, how)(entry, encodes_not)).error, EncodingFailed)
    assert contents(spool.path) == before

    async def elsewhere(metadata: Envelope, data: DataFile[bytes]):
        return Save(Unavailable.GONE, BERT)

    with pytest.raises(TypeError):
        await getattr(spool, how)(entry, elsewhere)
    assert contents(spool.path) == before


# list_checkouts_unsafe


async def test_everything_that_is_checked_out_is_listed_by_whomever(tmp_path):
    """Jobs of this process, of another and of the dead are listed; what cannot be decoded is not."""
    spool, entry = await one(tmp_path)
    await put(spool, Mail.SEND, "b", "c", "d")
    await put(spool, Mail.RETRY, "x")
    (spool.path / "send" / "b").rename(spool.path / "send" / ".checkout" / "b")
    (spool.path / "send" / "c").rename(spool.path / "send" / ".checkout" / "c")
    (spool.path / "send" / ".checkout" / "c").write_bytes(b"nonsense")
    async with (await entry.checkout()).unwrap():
        before = contents(spool.path)
        jobs = (await spool.checkouts_unsafe(Mail.SEND)).unwrap()
        assert [(job.name, job.queue, job.metadata) for job in jobs] == [
            ("a", Mail.SEND, Envelope("a")),
            ("b", Mail.SEND, Envelope("b")),
        ]
        assert await jobs[0].data.load() == Ok(b"Hello")
        assert contents(spool.path) == before
    assert (await spool.checkouts_unsafe(Mail.RETRY)).unwrap() == []


@every_settling
async def test_settling_what_is_somebody_elses_takes_it_from_its_owner(tmp_path, settle):
    """The owner's own settling answers `Err(OwnershipLost)`, and the entry is where the other put it."""
    spool, entry = await one(tmp_path)
    owner = (await entry.checkout()).unwrap()
    (unsafe,) = (await (await load_spool(spool.path)).checkouts_unsafe(Mail.SEND)).unwrap()
    (await settle(unsafe)).unwrap()
    after = contents(spool.path)
    assert await owner.save(Mail.FAILED, ANNE) == Err(OwnershipLost("send", "a"))
    with pytest.raises(OwnershipLost):
        async with owner:
            pass
    assert {n: c for n, c in contents(spool.path).items() if not n.startswith(".registry/")} == {
        n: c for n, c in after.items() if not n.startswith(".registry/")
    }
    (await spool.recover()).unwrap()
    assert state_of(spool.path).faults() == []


async def test_of_two_who_settle_what_is_nobodys_one_is_told_that_it_is_lost(tmp_path):
    """Unsafe jobs are settled once too: the second finds nothing, and makes nothing."""
    spool, _ = await one(tmp_path)
    (spool.path / "send" / "a").rename(spool.path / "send" / ".checkout" / "a")
    (first,), *others = [(await spool.checkouts_unsafe(Mail.SEND)).unwrap() for _ in range(1 + len(SETTLING))]
    (await first.save(Mail.RETRY, BERT)).unwrap()
    for settle, (other,) in zip(SETTLING.values(), others, strict=True):
        assert await settle(other) == Err(OwnershipLost("send", "a"))
    assert state_of(spool.path).places("a") == ["retry"]
    assert state_of(spool.path).faults() == []


async def test_leaving_the_block_of_an_unsafe_job_returns_it(tmp_path):
    """Like any job's; of what is abandoned in a spool that is not adopted, too."""
    spool, _ = await one(tmp_path)
    (spool.path / "send" / "a").rename(spool.path / "send" / ".checkout" / "a")
    (spool.path / ".spool.json").unlink()
    spool = await load_spool(spool.path)
    (job,) = (await spool.checkouts_unsafe(Mail.SEND)).unwrap()
    async with job:
        (await job.data.save(b"new")).unwrap()
    assert state_of(spool.path).places("a") == ["send"]
    assert state_of(spool.path).data == {"a": b"new"}
    assert state_of(spool.path).faults() == []


async def test_checkouts_that_cannot_be_listed_are_an_err(tmp_path):
    """An error is never an empty list."""
    calls = FailingCalls()
    spool, entry = await one(tmp_path, system_calls=calls)
    async with (await entry.checkout()).unwrap():
        for call, on in (("regular_files", "/send/.checkout"), ("read", "/send/.checkout/a")):
            with calls.failing(call, errno.EIO, on):
                assert isinstance((await spool.checkouts_unsafe(Mail.SEND)).error, StorageFailure)


@pytest.mark.parametrize("operation", ["with_entry", "try_with_entry"])
async def test_a_handler_may_answer_a_value_beside_its_verdict(operation, tmp_path):
    """The verdict is stored, and the value returned, whatever it is; a verdict alone is returned itself."""
    async with await quick_spool(tmp_path / "spool") as spool:
        for verdict, where in ((Remove(), []), (Save(Mail.FAILED), ["failed"]), (Release(), ["send"])):
            for value in (None, 42, ("two", "things"), Release()):
                name = f"{type(verdict).__name__}-{type(value).__name__}"
                [entry] = await put(spool, Mail.SEND, name)

                async def handler(_metadata, _data, answer=(verdict, value)):
                    return answer

                assert await getattr(spool, operation)(entry, handler) == Ok(value)
                assert state_of(spool.path).places(name) == where


async def test_a_value_is_not_returned_if_its_verdict_cannot_be_stored(tmp_path):
    """The error is, and the entry is back."""
    calls = FailingCalls()
    async with await make_spool(tmp_path / "spool", system_calls=calls) as spool:
        [entry] = await put(spool, Mail.SEND, "a")
        calls.fail("move", errno.ENOSPC, "failed")

        async def handler(_metadata, _data):
            return Save(Mail.FAILED), "receipt"

        answer = await spool.with_entry(entry, handler)
        assert isinstance(answer.error, OutOfSpace)
        assert state_of(spool.path).places("a") == ["send"]


@pytest.mark.parametrize("answer", [(Remove(),), (), (Remove(), 1, 2), ("receipt", Remove()), [Remove(), 1]])
async def test_other_pairs_are_no_verdict(answer, tmp_path):
    """The entry goes back, and the message says what is wanted. In an iteration, which returns no value, no pair is."""
    async with await quick_spool(tmp_path / "spool") as spool:
        [entry] = await put(spool, Mail.SEND, "a")

        async def handler(_metadata, _data):
            return answer

        with pytest.raises(TypeError, match=r"a handler answers Save\(…\), Remove\(\) or Release\(\)"):
            await spool.with_entry(entry, handler)

        async def pair(_metadata, _data):
            return Remove(), 1

        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(TypeError, match=r"not \(Remove\(\), 1\)"):
                await reader.iter_available(pair)
        assert state_of(spool.path).places("a") == ["send"]
