"""What a hand, a broken program or an attacker can leave in a spool: each is an `Err`, and everything else goes on."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import posixpath
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from helpers import mounts
from helpers.calls import FailingCalls
from helpers.processes import run_python
from helpers.results import is_err
from helpers.spools import (
    ANNE,
    MAIL,
    Envelope,
    Mail,
    contents,
    load_spool,
    names_in,
    put,
    quick_spool,
    snapshot,
    state_of,
)
from helpers.stores import make_store
from trio_multispool import (
    CorruptData,
    CorruptMetadata,
    DataFile,
    DataNotFound,
    Durability,
    EncodingFailed,
    EntryNotFound,
    Err,
    NameTaken,
    NotARegularFile,
    NotASpool,
    Ok,
    Remove,
    Retry,
    Save,
    Spool,
    Spoolable,
    SpoolError,
    StorageFailure,
    UnreadableEntry,
    Use,
    Verdict,
)
from trio_multispool.events import Event
from trio_multispool.monitor import ForeignFile, Monitor
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio

SECRET = b"a file outside"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Make a directory beside the spool, and insist afterwards that nothing in it was touched."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "file").write_bytes(SECRET)
    (path / "directory").mkdir()
    (path / "directory" / "file").write_bytes(SECRET)
    before = snapshot(path)
    yield path
    assert snapshot(path) == before


def symlink(path: Path, outside: Path) -> None:
    """Plant a symlink to a file outside."""
    path.symlink_to(outside / "file")


def symlink_to_directory(path: Path, outside: Path) -> None:
    """Plant a symlink to a directory outside."""
    path.symlink_to(outside / "directory")


def dangling(path: Path, outside: Path) -> None:
    """Plant a symlink to a file that would be made by following it."""
    path.symlink_to(outside / "made")


def fifo(path: Path, outside: Path) -> None:
    """Plant a FIFO, which blocks whoever opens it without care."""
    os.mkfifo(path)


def directory(path: Path, outside: Path) -> None:
    """Plant a directory, with something in it."""
    path.mkdir()
    (path / "file").write_bytes(SECRET)


def unix_socket(path: Path, outside: Path) -> None:
    """Plant a socket."""
    os.mknod(path, stat.S_IFSOCK | 0o600)  # not bound: the path of a socket has 107 bytes at most


PLANTS = [symlink, symlink_to_directory, dangling, fifo, directory, unix_socket]
planted = pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
planted_for_a_directory = pytest.mark.parametrize(
    "plant", [plant for plant in PLANTS if plant is not directory], ids=lambda plant: plant.__name__
)

seen: list[str] = []


async def remove(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
    """Note the entry's name, and remove it."""
    seen.append(data.name)
    return Remove()


async def move_on(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
    """Note the entry's name, and save it with new metadata."""
    seen.append(data.name)
    return Save(Mail.RETRY, Envelope(metadata.recipient, metadata.attempts + 1))


async def work_off(spool: Spool, handler: Callable = remove, queue: Mail = Mail.SEND) -> list[str]:
    """Work a queue off, insist that nothing stopped the reader, and return the names that it gave."""
    seen.clear()
    async with spool.reader(queue) as reader:
        (await reader.iter_available(handler)).unwrap()
    return list(seen)


async def three(tmp_path: Path, **options: object) -> Spool:
    """Make a spool with the entries `a`, `m` and `z`; the tests spoil `m`."""
    spool = await quick_spool(tmp_path / "spool", durability=Durability.PROCESS, **options)
    await put(spool, Mail.SEND, "a", "m", "z")
    return spool


# In a queue


@planted
async def test_what_is_no_file_in_a_queue_is_left_alone_and_the_others_are_worked_off(tmp_path, outside, plant):
    """A thing in a queue is not listed, not read, not moved and not removed; its name cannot be enqueued."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "z")
    plant(spool.path / "send" / "m", outside)
    thing = contents(spool.path / "send")
    assert await names_in(spool, Mail.SEND) == ["a", "z"]
    entry = spool.entry(Mail.SEND, "m").unwrap()
    for answer in (await entry.checkout(), await entry.try_checkout()):
        assert isinstance(answer, Err)
        assert isinstance(answer.error, UnreadableEntry)
        assert (answer.error.queue, answer.error.name) == ("send", "m")
        assert state_of(spool.path).registry == {"a", "z"}, "what is no entry is not reserved"
    assert isinstance((await entry.direct.contents()).error, NotARegularFile)
    assert await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use("m")) == Err(NameTaken("m"))
    (await spool.recover()).unwrap()
    assert await work_off(spool) == ["a", "z"]
    assert {n: c for n, c in contents(spool.path / "send").items() if n != ".checkout"} == {
        n: c for n, c in thing.items() if n not in ("a", "z", ".checkout")
    }


@planted
async def test_looking_at_what_is_no_file_is_an_err(tmp_path, outside, plant):
    """`stat` tells the size of entries, not of whatever else has a name."""
    spool = await quick_spool(tmp_path / "spool")
    plant(spool.path / "send" / "m", outside)
    answer = await spool.entry(Mail.SEND, "m").unwrap().stat()
    assert answer == Err(NotARegularFile(os.fspath(spool.path / "send" / "m")))


@planted
async def test_replacing_what_is_no_file_is_an_err(tmp_path, outside, plant):
    """`entry.direct` never makes an entry of something else, and never removes it."""
    spool = await quick_spool(tmp_path / "spool")
    plant(spool.path / "send" / "m", outside)
    before = contents(spool.path)
    entry = spool.entry(Mail.SEND, "m").unwrap()
    assert is_err(await entry.direct.save(ANNE))
    assert is_err(await entry.direct.remove())
    assert contents(spool.path) == before


@pytest.mark.parametrize(
    "name",
    [b".hidden", b"\xff\xfe", b"a\nb", b"a\x01", b"x" * 201, b"x" * 255, b"..."],
    ids=lambda name: repr(name[:8]),
)
async def test_a_file_whose_name_is_none_is_passed_over(tmp_path, name):
    """Files that cannot be entries are neither listed nor touched, wherever they are, and readers go on."""
    spool = await three(tmp_path)
    for place in (b"send", b"send/.checkout", b".registry", b".data", b".tmp"):
        with open(os.path.join(os.fsencode(spool.path), place, name), "wb") as file:  # noqa: ASYNC230  # the test is alone
            file.write(SECRET)
    before = contents(spool.path)
    assert await names_in(spool, Mail.SEND) == ["a", "m", "z"]
    assert (await spool.checkouts_unsafe(Mail.SEND)).unwrap() == []
    await load_spool(spool.path)
    assert (await spool.recover()).unwrap() == []
    assert contents(spool.path) == before
    assert await work_off(spool) == ["a", "m", "z"]
    for place in (b"send", b"send/.checkout", b".registry", b".data", b".tmp"):
        with open(os.path.join(os.fsencode(spool.path), place, name), "rb") as file:  # noqa: ASYNC230  # the test is alone
            assert file.read() == SECRET


async def test_a_hard_link_to_a_file_outside_is_an_entry_whose_file_outside_is_never_written(tmp_path, outside):
    """Metadata is replaced by new files and never written in place."""
    (tmp_path / "letter").write_bytes(b'{"recipient":"m"}')
    spool = await quick_spool(tmp_path / "spool")
    for place in ("send", ".data", ".registry"):
        os.link(tmp_path / "letter", spool.path / place / "m")
    entry = spool.entry(Mail.SEND, "m").unwrap()
    (await entry.direct.save(ANNE)).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        (await job.data.save(b"new")).unwrap()
        (await job.save(Mail.RETRY, Envelope("new"))).unwrap()
    assert (tmp_path / "letter").read_bytes() == b'{"recipient":"m"}'
    assert await work_off(spool, queue=Mail.RETRY) == ["m"]
    assert (tmp_path / "letter").read_bytes() == b'{"recipient":"m"}'


# In the registry


@planted
async def test_a_reservation_that_is_no_file_does_not_stop_a_reader(tmp_path, outside, plant):
    """The entry stays where it is, a check-out says why, and the reader goes on with the next."""
    spool = await three(tmp_path)
    (spool.path / ".registry" / "m").unlink()
    plant(spool.path / ".registry" / "m", outside)
    entry = spool.entry(Mail.SEND, "m").unwrap()
    assert isinstance((await entry.checkout()).error, (NotARegularFile, UnreadableEntry))
    assert await work_off(spool) == ["a", "z"]
    assert state_of(spool.path).names("send") == ["m"]


@planted
async def test_a_reservation_that_is_no_file_does_not_stop_recovery(tmp_path, outside, plant):
    """Of two entries whose owners died, the one that can be put back is; the spool loads, and nothing is lost."""
    spool = await three(tmp_path)
    for name in ("a", "m", "z"):
        (spool.path / "send" / name).rename(spool.path / "send" / ".checkout" / name)
    (spool.path / ".registry" / "m").unlink()
    plant(spool.path / ".registry" / "m", outside)
    spool = await load_spool(spool.path)
    assert state_of(spool.path).names("send") == ["a", "z"]
    assert list(state_of(spool.path).checked_out["send"]) == ["m"]
    assert await work_off(spool) == ["a", "z"]


@planted
async def test_a_planted_reservation_refuses_the_name(tmp_path, outside, plant):
    """Nothing is enqueued under a name whose reservation cannot be made."""
    spool = await quick_spool(tmp_path / "spool")
    plant(spool.path / ".registry" / "m", outside)
    before = contents(spool.path)
    answer = await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("m"))
    assert answer == Err(NotARegularFile(os.fspath(spool.path / ".registry" / "m")))
    assert contents(spool.path) == before
    await put(spool, Mail.SEND, "n")
    assert await work_off(spool) == ["n"]


# In the place of data


@planted
async def test_data_that_is_no_file_is_an_err_and_the_handler_decides(tmp_path, outside, plant):
    """Loading it is `Err(NotARegularFile)`; the entry is the handler's to settle, and the reader goes on."""
    spool = await three(tmp_path)
    (spool.path / ".data" / "m").unlink()
    plant(spool.path / ".data" / "m", outside)
    answers = {}

    async def handler(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
        answers[data.name] = await data.load()
        return Save(Mail.FAILED)

    await work_off(spool, handler)
    guilty = os.fspath(spool.path / ".data" / "m")
    assert answers == {"a": Ok(b"Hello"), "m": Err(NotARegularFile(guilty)), "z": Ok(b"Hello")}
    assert state_of(spool.path).names("failed") == ["a", "m", "z"]
    entry = spool.entry(Mail.FAILED, "m").unwrap()
    assert await entry.direct.data_file.load() == Err(NotARegularFile(guilty))


@planted
async def test_the_size_of_data_that_is_no_file_is_an_err(tmp_path, outside, plant):
    """`stat` of data tells about the data file, not about whatever else has its name."""
    spool = await three(tmp_path)
    (spool.path / ".data" / "m").unlink()
    plant(spool.path / ".data" / "m", outside)
    answer = await spool.entry(Mail.SEND, "m").unwrap().direct.data_file.stat()
    assert answer == Err(NotARegularFile(os.fspath(spool.path / ".data" / "m")))


@planted
async def test_saving_data_over_what_is_no_file_never_follows_it(tmp_path, outside, plant):
    """Either the thing is replaced by the data or the save is an `Err`; the owner can settle the entry all the same."""
    spool = await three(tmp_path)
    (spool.path / ".data" / "m").unlink()
    plant(spool.path / ".data" / "m", outside)
    async with (await spool.entry(Mail.SEND, "m").unwrap().checkout()).unwrap() as job:
        if isinstance(await job.data.save(b"new"), Ok):
            assert await job.data.load() == Ok(b"new")
        (await job.save(Mail.RETRY)).unwrap()
    assert state_of(spool.path).names("retry") == ["m"]


@pytest.mark.parametrize("plant", [symlink, dangling, fifo], ids=lambda plant: plant.__name__)
async def test_removing_an_entry_removes_the_link_in_its_datas_place_and_not_what_it_leads_to(tmp_path, outside, plant):
    """What is unlinked is the name in the spool."""
    spool = await three(tmp_path)
    for name in ("m", "z"):
        (spool.path / ".data" / name).unlink()
        plant(spool.path / ".data" / name, outside)
    (await spool.entry(Mail.SEND, "z").unwrap().direct.remove()).unwrap()
    assert await work_off(spool) == ["a", "m"]
    assert state_of(spool.path).entries() == set()
    assert os.listdir(spool.path / ".data") == []


async def test_a_missing_data_file_is_an_err_and_its_entry_can_be_settled(tmp_path):
    """`Err(DataNotFound)` of load and stat; an owner may give new data, or move or remove the entry without."""
    spool = await three(tmp_path)
    for name in ("a", "m"):
        (spool.path / ".data" / name).unlink()
    direct = spool.entry(Mail.SEND, "m").unwrap().direct
    assert await direct.data_file.load() == Err(DataNotFound("m"))
    assert await direct.data_file.stat() == Err(DataNotFound("m"))
    assert await direct.data_file.save(b"new") == Err(DataNotFound("m"))
    async with (await spool.entry(Mail.SEND, "m").unwrap().checkout()).unwrap() as job:
        assert await job.data.load() == Err(DataNotFound("m"))
        assert await job.data.stat() == Err(DataNotFound("m"))
        (await job.save(Mail.RETRY)).unwrap()
    async with (await spool.entry(Mail.RETRY, "m").unwrap().checkout()).unwrap() as job:
        (await job.data.save(b"new")).unwrap()
        assert await job.data.load() == Ok(b"new")
        (await job.save(Mail.FAILED)).unwrap()
    assert await work_off(spool) == ["a", "z"]
    assert state_of(spool.path).names("failed") == ["m"]
    assert state_of(spool.path).faults() == []


# In the place of temporary files


@pytest.mark.parametrize("plant", [dangling, fifo, directory], ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("prefix", ["", ".data.", ".unsafe.", ".unsafe.data."])
async def test_what_lies_where_a_temporary_file_goes_is_never_followed_or_waited_for(tmp_path, outside, plant, prefix):
    """Each operation either clears it away or answers an `Err`; no entry is lost, and the reader ends in order."""
    spool = await three(tmp_path)
    plant(spool.path / ".tmp" / f"{prefix}m", outside)
    entry = spool.entry(Mail.SEND, "m").unwrap()
    for answer in (await entry.direct.save(ANNE), await entry.direct.data_file.save(b"new")):
        assert isinstance(answer, Ok) or is_err(answer)
    job = (await entry.checkout()).unwrap()
    saved = await job.data.save(b"newer")
    settled = await job.save(Mail.RETRY, Envelope("newest"))
    if is_err(settled):
        assert not job.settled
        (await job.release()).unwrap()
    state = state_of(spool.path)
    assert state.data["m"] == (b"newer" if not is_err(saved) else state.data["m"])
    assert state.places("m") == (["retry"] if isinstance(settled, Ok) else ["send"])
    assert {"a", "m", "z"} == state.entries()
    spool = await load_spool(spool.path)
    (await spool.recover()).unwrap()
    assert await work_off(spool) == ["a", *(["m"] if isinstance(settled, Err) else []), "z"]


@planted
async def test_what_lies_where_metadata_is_written_does_not_stop_recovery(tmp_path, outside, plant):
    """Entries of dead owners are put back whatever lies in `.tmp`; none is lost."""
    spool = await three(tmp_path)
    for name in ("a", "m", "z"):
        (spool.path / "send" / name).rename(spool.path / "send" / ".checkout" / name)
    plant(spool.path / ".tmp" / "m", outside)
    spool = await load_spool(spool.path)
    state = state_of(spool.path)
    assert {"a", "z"} <= set(state.names("send"))
    assert state.entries() == {"a", "m", "z"}
    assert {"a", "z"} <= set(await work_off(spool))


@planted
async def test_an_enqueue_over_planted_files_makes_the_entry_or_answers_an_err(tmp_path, outside, plant):
    """A new entry is whole or not there, whatever lies where its files go."""
    for place in (".tmp", ".data"):
        spool = await quick_spool(tmp_path / f"spool{place}")
        plant(spool.path / place / "m", outside)
        match await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use("m")):
            case Ok(entry):
                assert await entry.direct.contents() == Ok(ANNE)
                assert await entry.direct.data_file.load() == Ok(b"data")
                assert state_of(spool.path).faults() == []
            case Err(error):
                assert isinstance(error, (NotARegularFile, StorageFailure))
                assert state_of(spool.path).entries() == set()
        await put(spool, Mail.SEND, "n")
        assert state_of(spool.path).places("n") == ["send"]


# In the place of directories


@planted_for_a_directory
@pytest.mark.parametrize("place", [".registry", ".tmp", ".data", "send", "send/.checkout"])
async def test_a_spool_with_something_else_in_a_directorys_place_is_refused(tmp_path, outside, plant, place):
    """`Err(NotASpool)` of load and create, whether the thing leads outside or nowhere."""
    spool = await quick_spool(tmp_path / "spool")
    shutil.rmtree(spool.path / place)
    plant(spool.path / place, outside)
    before = snapshot(spool.path)
    for answer in (
        await Spool.load(spool.path, MAIL),
        await Spool.create(spool.path, MAIL),
        await Spool.load(spool.path, MAIL, create_if_missing=True),
    ):
        assert isinstance(answer, Err)
        assert isinstance(answer.error, (NotASpool, NotARegularFile))
    assert snapshot(spool.path) == before


@planted
@pytest.mark.parametrize("place", [".registry", ".tmp", ".data", "send", "send/.checkout"])
async def test_a_directory_that_is_replaced_under_an_open_spool_leads_nowhere(tmp_path, outside, plant, place):
    """No operation goes through what was slipped in; each answers, and none blocks."""
    spool = await three(tmp_path)
    entry = spool.entry(Mail.SEND, "m").unwrap()
    with contextlib.suppress(SpoolError):  # leaving the block tells what could not be put back
        async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
            (spool.path / place).rename(tmp_path / "aside")
            if plant is not directory:
                plant(spool.path / place, outside)
            answers = [
                await spool.entries(Mail.SEND),
                await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("n")),
                await entry.stat(),
                await entry.direct.save(ANNE),
                await entry.direct.data_file.save(b"new"),
                await job.data.load(),
                await job.save(Mail.SEND, ANNE),
                await entry.direct.remove(),
                await spool.recover(),
            ]
    assert all(isinstance(answer, Ok) or is_err(answer) for answer in answers)


@planted_for_a_directory
async def test_a_quarantine_that_is_no_directory_keeps_the_undecodable_in_its_queue(tmp_path, outside, plant):
    """Nothing is moved out of the spool; the others are worked off or an `Err` is answered, and no entry is lost."""
    spool = await three(tmp_path)
    (spool.path / "send" / "m").write_bytes(b"nonsense")
    plant(spool.path / ".quarantine", outside)
    answer = await spool.entry(Mail.SEND, "m").unwrap().checkout()
    assert isinstance(answer.error, CorruptMetadata)
    assert state_of(spool.path).available["send"]["m"] == b"nonsense"
    async with spool.reader(Mail.SEND) as reader:
        answer = await reader.iter_available(remove)
        assert isinstance(answer, Ok) or is_err(answer)
    assert "m" in state_of(spool.path).entries()


def a_file(path: Path, outside: Path) -> None:
    """Plant an empty file."""
    path.touch()


@pytest.mark.parametrize(
    ("plant", "place"),
    [
        (a_file, "send/.waiting"),
        (a_file, "extra/.waiting"),
        (dangling, "extra/.waiting"),
        (a_file, "extra/.checkout"),
        (a_file, ".quarantine"),
        (dangling, ".quarantine"),
        (a_file, ".quarantine/send"),
        (a_file, ".quarantine/.reasons"),
        (a_file, ".notes"),
        (dangling, ".notes"),
        (a_file, ".keys"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
async def test_what_is_in_the_place_of_a_directory_stops_nothing_else_and_is_told(tmp_path, outside, plant, place):
    """The spool loads, a dead owner's entry comes back, names are given, all is worked off; a check names the thing."""
    path = (await three(tmp_path)).path
    (path / "send" / "m").rename(path / "send" / ".checkout" / "m")
    (path / place).parent.mkdir(exist_ok=True)
    plant(path / place, outside)
    spool = await load_spool(path)
    assert await names_in(spool, Mail.SEND) == ["a", "m", "z"]
    await put(spool, Mail.SEND, "new")
    assert await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use("a")) == Err(NameTaken("a"))
    assert (await spool.recover()).unwrap() == []
    with contextlib.closing(make_store(path)) as storage:
        assert sorted(item.name for item in storage.inventory()) == ["a", "m", "new", "z"]
        assert storage.count() == 4
    problems = (await Monitor(spool).run_once()).unwrap()
    told = [(type(problem), posixpath.normpath(f"{problem.dir}/{problem.name}")) for problem in problems]
    assert told == [(ForeignFile, place)]
    assert problems[0].what == ("a file" if plant is a_file else "a symbolic link")
    assert await work_off(spool) == ["a", "m", "new", "z"]
    assert os.listdir(path / ".data") == []
    assert os.listdir(path / ".registry") == []
    assert posixpath.basename(place) in os.listdir((path / place).parent)


planted_without_directory = pytest.mark.parametrize("plant", [a_file, dangling])


@planted_without_directory
async def test_what_is_in_the_place_of_the_notes_refuses_them_with_the_cure_and_the_job_is_settled(
    tmp_path, outside, plant
):
    """The error names that path, and not the entry's; the job goes where its owner says, and the thing stays there."""
    spool = await three(tmp_path)
    plant(spool.path / ".notes", outside)
    guilty = NotARegularFile(os.fspath(spool.path / ".notes"), directory=True)
    assert str(guilty).endswith("/.notes' is not a directory; it was left alone, remove it by hand")
    async with (await spool.entry(Mail.SEND, "m").unwrap().checkout()).unwrap() as job:
        assert await job.progress(0.5) == Err(guilty)
        (await job.save(Mail.RETRY, ANNE)).unwrap()
    state = state_of(spool.path)
    assert (state.places("m"), state.faults()) == (["retry"], [])
    assert not stat.S_ISDIR((spool.path / ".notes").lstat().st_mode)


@planted_without_directory
async def test_what_is_in_the_place_of_the_notes_keeps_no_attempt_from_being_made(tmp_path, outside, plant, caplog):
    """It is not counted, and the log says why; what failed waits all the same, and what succeeds is done."""
    spool = await three(tmp_path)
    plant(spool.path / ".notes", outside)

    async def fail_once(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
        if data.name == "m":
            raise ConnectionError
        return Remove()

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(fail_once, retry=Retry(dead_letter=Mail.FAILED))).unwrap()
    state = state_of(spool.path)
    assert (state.entries(), list(state.waiting["send"]), state.faults()) == ({"m"}, ["m"], [])
    told = [record.getMessage() for record in caplog.records if record.event == Event.ATTEMPT_NOT_RECORDED.value]
    assert len(told) == 3
    assert all("/.notes' is not a directory; it was left alone, remove it by hand" in each for each in told)


@planted_without_directory
async def test_what_is_in_the_place_of_what_waits_keeps_nothing_that_is_checked_out_from_being_seen(
    tmp_path, outside, plant
):
    """No entry can lie there: what others have is listed, and can be put back."""
    spool = await three(tmp_path)
    plant(spool.path / "send" / ".waiting", outside)
    (spool.path / "send" / "m").rename(spool.path / "send" / ".checkout" / "m")
    [seen] = (await spool.checkouts_unsafe(Mail.SEND)).unwrap()
    assert seen.name == "m"
    async with seen:
        (await seen.release()).unwrap()
    assert await names_in(spool, Mail.SEND) == ["a", "m", "z"]


@planted_without_directory
async def test_what_is_in_the_place_of_the_check_outs_is_named_by_those_who_look_for_them(tmp_path, outside, plant):
    """The error says what to remove; the entries of the queue are where they were."""
    path = (await three(tmp_path)).path
    (path / "extra").mkdir()
    (path / "send" / "m").rename(path / "extra" / "m")
    guilty = path / "extra" / ".checkout"
    plant(guilty, outside)
    with contextlib.closing(make_store(path)) as storage:
        with pytest.raises(NotARegularFile) as raised:
            storage.claims_unsafe("extra")
        assert raised.value == NotARegularFile(os.fspath(guilty), directory=True)
    assert "m" in state_of(path).names("extra")


@planted_without_directory
async def test_what_is_in_the_place_of_the_remembered_names_is_named_to_those_who_want_one_kept(
    tmp_path, outside, plant
):
    """Nothing is enqueued that would be forgotten early. What need not be is enqueued, unless a link hides names."""
    spool = await three(tmp_path)
    guilty = spool.path / ".keys"
    plant(guilty, outside)
    refused = Err(NotARegularFile(os.fspath(guilty), directory=True))
    assert await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("new", remember=60)) == refused
    assert "new" not in state_of(spool.path).entries()
    answer = await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("new"))
    assert answer == refused if plant is dangling else isinstance(answer, Ok)
    assert state_of(spool.path).faults() == []


async def test_a_queue_that_can_no_longer_be_entered_stops_no_other(tmp_path):
    """A program that holds the directory of a queue goes on with the others when it loses the right to enter that."""
    calls = FailingCalls()
    spool = await three(tmp_path, system_calls=calls)
    (spool.path / "extra" / ".checkout").mkdir(parents=True)
    assert (await spool.recover()).unwrap() == []
    (spool.path / "send" / "m").rename(spool.path / "send" / ".checkout" / "m")
    with calls.failing("stat", errno.EACCES, "/extra/"):
        assert [found.name for found in (await spool.recover()).unwrap()] == ["m"]
        await put(spool, Mail.SEND, "new")
        assert await work_off(spool) == ["a", "m", "new", "z"]


@pytest.mark.parametrize(("place", "within"), [(".quarantine", "send"), ("failed/.waiting", ".")])
async def test_nothing_is_collected_whose_entry_may_be_where_a_symlink_leads(tmp_path, place, within):
    """A directory of entries that was moved away keeps their reservations, their data and their names."""
    path = (await three(tmp_path)).path
    (tmp_path / "moved" / within).mkdir(parents=True)
    for name in ("m", "z"):
        (path / "send" / name).rename(tmp_path / "moved" / within / name)
        (path / ".tmp" / name).touch()  # as a writer leaves it that was killed
    (path / ".data" / "z").unlink()
    (path / place).symlink_to(tmp_path / "moved")
    spool = await load_spool(path)
    assert (await spool.recover()).unwrap() == []
    with contextlib.closing(make_store(path)) as storage:
        assert [found for found in storage.recover_all() if not isinstance(found, SpoolError)] == []
    assert isinstance((await spool.enqueue(Mail.SEND, ANNE, b"new", name=Use("m"))).error, StorageFailure)
    assert sorted(os.listdir(path / ".registry")) == ["a", "m", "z"]
    assert (path / ".data" / "m").read_bytes() == b"Hello"
    assert await work_off(spool) == ["a"]


async def test_a_file_in_the_place_of_the_reasons_keeps_nothing_from_being_collected(tmp_path):
    """No entry can lie there: what has lost its entry goes, with its reservation."""
    path = (await three(tmp_path)).path
    (path / "send" / "m").unlink()
    (path / ".quarantine").mkdir()
    (path / ".quarantine" / ".reasons").touch()
    with contextlib.closing(make_store(path)) as storage:
        found = list(storage.recover_all())
    assert Recovered("m", None) in found
    assert sorted(os.listdir(path / ".registry")) == sorted(os.listdir(path / ".data")) == ["a", "z"]


# Making a spool over what was planted


@pytest.mark.parametrize("what", ["fifo", "symlink", "directory"])
@pytest.mark.parametrize("adopting", [False, True])
def test_what_lies_where_the_format_file_is_begun_never_blocks_a_creator(tmp_path, outside, what, adopting):
    """Making or adopting a spool answers, whatever has the name of its mark."""
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    if adopting:
        for name in (".registry", ".tmp", ".data", *(f"{q}/.checkout" for q in ("send", "retry", "failed"))):
            (path / name).mkdir(parents=True)
    {"fifo": fifo, "symlink": dangling, "directory": directory}[what](path / ".spool.json.new", outside)
    done = run_python(
        """
        import anyio, os, signal
        from helpers.spools import MAIL
        from trio_multispool import Ok, Err, Spool
        signal.alarm(5)  # a thread that blocks in open() is never given up
        async def main():
            if sys.argv[2] == "True":
                answer = await (await Spool.load(sys.argv[1], MAIL)).unwrap().adopt()
            else:
                answer = await Spool.create(sys.argv[1], MAIL)
            print(type(answer).__name__)
        anyio.run(main, backend="trio")
        """,
        path,
        str(adopting),
    )
    assert done.stdout.strip() in ("Ok", "Err")


async def test_a_mark_that_holds_something_else_is_overwritten_whole(tmp_path):
    """A creation that finishes another's leaves a format file that can be read."""
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    (path / ".spool.json.new").write_bytes(b'{"format": 1, "written by": "somebody with more to say"}')
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, "a")
    await load_spool(path)
    assert state_of(path).adopted


# Metadata and data that cannot be read or written


async def test_metadata_that_does_not_decode_is_set_aside_with_its_bytes_and_the_reason(tmp_path, caplog):
    """The entry waits in quarantine, with its data and its name; the log says so, and the reader goes on."""
    spool = await three(tmp_path)
    (spool.path / "send" / "m").write_bytes(b'{"recipient": 3}')
    with caplog.at_level(logging.WARNING, logger="trio_multispool"):
        assert await work_off(spool) == ["a", "z"]
    assert "m" in caplog.text
    state = state_of(spool.path)
    assert state.quarantined == {"send": {"m": b'{"recipient": 3}'}}
    assert "recipient" in state.reasons["m"]
    assert state.data == {"m": b"Hello"}
    assert state.faults() == []
    assert await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("m")) == Err(NameTaken("m"))
    assert (await spool.recover()).unwrap() == []
    assert state_of(spool.path) == state


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"null", b"[]", b"{", b'"\\ud800"', b"[" * 5000])
async def test_a_checkout_of_undecodable_metadata_says_so_once(tmp_path, raw):
    """`Err(CorruptMetadata)` at the check-out, with the codec's exception as its cause; after it the entry is gone."""
    spool = await three(tmp_path)
    (spool.path / "send" / "m").write_bytes(raw)
    entry = spool.entry(Mail.SEND, "m").unwrap()
    answer = await entry.direct.contents()
    assert isinstance(answer.error, CorruptMetadata)
    assert state_of(spool.path).places("m") == ["send"], "reading sets nothing aside"
    answer = await entry.checkout()
    match answer:
        case Err(CorruptMetadata("send", "m", reason) as error):
            assert reason
            assert isinstance(error.__cause__, Exception)
        case _:
            pytest.fail(f"{answer}")
    assert await entry.checkout() == Err(EntryNotFound("send", "m"))
    assert state_of(spool.path).quarantined["send"]["m"] == raw
    assert await work_off(spool) == ["a", "z"]


async def test_a_quarantine_that_fails_keeps_the_entry_in_its_queue(tmp_path):
    """A full disk loses nothing: the check-out says what is wrong with the metadata, and the entry stays available."""
    calls = FailingCalls()
    spool = await three(tmp_path, system_calls=calls)
    (spool.path / "send" / "m").write_bytes(b"nonsense")
    with calls.failing("make_directory", errno.ENOSPC):
        answer = await spool.entry(Mail.SEND, "m").unwrap().checkout()
    assert isinstance(answer.error, CorruptMetadata)
    assert any("could not be set aside" in note for note in answer.error.__notes__)
    state = state_of(spool.path)
    assert state.available["send"]["m"] == b"nonsense"
    assert state.checked_out["send"] == {}
    assert await work_off(spool) == ["a", "z"]
    assert state_of(spool.path).quarantined == {"send": {"m": b"nonsense"}}


async def test_an_entry_set_aside_again_keeps_the_last_reason(tmp_path):
    """Put back by hand and still not decodable, an entry is set aside a second time."""
    spool = await three(tmp_path)
    for raw in (b"nonsense", b"null"):
        (spool.path / "send" / "m").write_bytes(raw)
        assert isinstance((await spool.entry(Mail.SEND, "m").unwrap().checkout()).error, CorruptMetadata)
        assert state_of(spool.path).quarantined["send"] == {"m": raw}
        reason = state_of(spool.path).reasons["m"]
        (spool.path / ".quarantine" / "send" / "m").rename(spool.path / "send" / "m")
    assert "null" in reason


class Refusing:
    """A codec that encodes and decodes nothing."""

    def encode(self, value: object) -> bytes:
        """Refuse."""
        raise LookupError("no such thing")

    def decode(self, raw: bytes) -> object:
        """Refuse."""
        raise LookupError("no such thing")

    def dump(self, value: object, file) -> None:
        """Write something, and then refuse."""
        file.write(b"half")
        raise LookupError("no such thing")

    def load(self, file) -> object:
        """Refuse."""
        raise LookupError("no such thing")


@pytest.mark.parametrize("part", ["metadata", "data"])
async def test_what_does_not_encode_is_not_enqueued(tmp_path, part):
    """`Err(EncodingFailed)` with the codec's own exception as its cause; not one file is left."""
    refusing = {"metadata": Envelope, "data": bytes, part: Refusing()}
    spool = await quick_spool(tmp_path / "spool", Spoolable(queues=Mail, **refusing))
    before = contents(spool.path)
    answer = await spool.enqueue(Mail.SEND, ANNE, b"data", name=Use("m"))
    assert answer == Err(EncodingFailed(part, "LookupError: no such thing"))
    assert isinstance(answer.error.__cause__, LookupError)
    assert contents(spool.path) == before


async def test_metadata_that_does_not_encode_leaves_the_entry_as_it_was(tmp_path):
    """`Err(EncodingFailed)` of a save, in hand or in place; the job is still its owner's."""
    spool = await three(tmp_path)
    before = contents(spool.path)
    bad = Envelope(object())
    entry = spool.entry(Mail.SEND, "m").unwrap()
    assert isinstance((await entry.direct.save(bad)).error, EncodingFailed)
    assert contents(spool.path) == before
    job = (await entry.checkout()).unwrap()
    assert isinstance((await job.save(Mail.RETRY, bad)).error, EncodingFailed)
    assert not job.settled
    (await job.release()).unwrap()
    assert contents(spool.path) == before


async def test_data_that_does_not_encode_leaves_the_old_data(tmp_path):
    """`Err(EncodingFailed)`, and the old data whole, although the codec had begun to write."""
    spool = await three(tmp_path)
    before = contents(spool.path)
    entry = spool.entry(Mail.SEND, "m").unwrap()
    assert isinstance((await entry.direct.data_file.save("no bytes")).error, EncodingFailed)
    refusing = await load_spool(spool.path, Spoolable(queues=Mail, metadata=Envelope, data=Refusing()))
    assert isinstance((await refusing.entry(Mail.SEND, "m").unwrap().direct.data_file.save(b"")).error, EncodingFailed)
    async with (await refusing.entry(Mail.SEND, "m").unwrap().checkout()).unwrap() as job:
        assert isinstance((await job.data.save(b"new")).error, EncodingFailed)
        assert isinstance((await job.data.load()).error, CorruptData)
    assert contents(spool.path) == before


async def test_data_that_does_not_decode_is_the_handlers_to_decide(tmp_path):
    """`Err(CorruptData)` with the codec's exception as its cause; the entry stays as it is."""
    text = Spoolable(queues=Mail, metadata=Envelope, data=str)
    spool = await quick_spool(tmp_path / "spool", text)
    (await spool.enqueue(Mail.SEND, ANNE, "text", name=Use("m"))).unwrap()
    (spool.path / ".data" / "m").write_bytes(b"\xff")
    async with (await spool.entry(Mail.SEND, "m").unwrap().checkout()).unwrap() as job:
        match await job.data.load():
            case Err(CorruptData("m", reason) as error):
                assert "UnicodeDecodeError" in reason
                assert isinstance(error.__cause__, UnicodeDecodeError)
            case answer:
                pytest.fail(f"{answer}")
        (await job.save(Mail.FAILED)).unwrap()
    assert state_of(spool.path).data["m"] == b"\xff"
    assert state_of(spool.path).names("failed") == ["m"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["open", "read"])
async def test_metadata_that_cannot_be_read_is_left_where_it_is_and_passed_over(tmp_path, caplog, call, code):
    """A bad sector under one entry stops neither the others nor the reader; the log says it once."""
    calls = FailingCalls()
    spool = await three(tmp_path, system_calls=calls)
    before = contents(spool.path)
    with calls.failing(call, code, "/send/m"):
        answer = await spool.entry(Mail.SEND, "m").unwrap().checkout()
        assert isinstance(answer.error, UnreadableEntry)
        assert contents(spool.path) == before
        with caplog.at_level(logging.WARNING, logger="trio_multispool"):
            seen.clear()
            async with spool.reader(Mail.SEND) as reader:
                for _ in range(3):
                    (await reader.iter_available(remove)).unwrap()
            assert seen == ["a", "z"]
    assert len([record for record in caplog.records if "'m'" in record.getMessage()]) == 1
    assert await work_off(spool) == ["m"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
async def test_a_reservation_that_cannot_be_opened_stops_nobody_else(tmp_path, code):
    """A registry file with the wrong owner keeps its own entry from being taken, and no other."""
    calls = FailingCalls()
    spool = await three(tmp_path, system_calls=calls)
    with calls.failing("open", code, "/.registry/m"):
        assert await work_off(spool) == ["a", "z"]
    assert await work_off(spool) == ["m"]


# Files that come in by hand


async def test_a_file_that_was_moved_in_by_hand_is_handed_out_once(tmp_path):
    """Without reservation and data it is an entry like any other: one of many readers gets it, once."""
    spool = await quick_spool(tmp_path / "spool")
    for number in range(20):
        (tmp_path / "letter").write_bytes(b'{"recipient":"by hand"}')
        (tmp_path / "letter").rename(spool.path / "send" / f"letter-{number:02}")
    others = [await load_spool(spool.path) for _ in range(4)]
    taken: list[str] = []

    async def take(mine: Spool) -> None:
        async with mine.reader(Mail.SEND) as reader:
            async for job in reader.available():
                async with job:
                    assert job.metadata == Envelope("by hand")
                    assert await job.data.load() == Err(DataNotFound(job.name))
                    taken.append(job.name)
                    (await job.save(Mail.FAILED)).unwrap()

    async with anyio.create_task_group() as tasks:
        for mine in others:
            tasks.start_soon(take, mine)
    assert sorted(taken) == [f"letter-{number:02}" for number in range(20)]
    assert state_of(spool.path).names("failed") == sorted(taken)
    assert state_of(spool.path).registry == set(taken)
    assert await work_off(spool, queue=Mail.FAILED) == sorted(taken)
    assert state_of(spool.path).faults() == []


async def test_an_entry_in_hand_is_not_handed_out_a_second_time_when_a_copy_comes_in(tmp_path):
    """A copy that a hand puts beside an entry in hand is busy, and comes to nobody before that is settled."""
    spool = await three(tmp_path)
    async with (await spool.entry(Mail.SEND, "m").unwrap().checkout()).unwrap() as job:
        shutil.copy(spool.path / "send" / ".checkout" / "m", spool.path / "send" / "m")
        assert await work_off(spool, move_on) == ["a", "z"]
        assert await job.save(Mail.SEND) == Err(NameTaken("m"))
        (await job.save(Mail.FAILED)).unwrap()


async def test_of_two_copies_of_a_dead_owners_entry_the_one_in_the_queue_stays(tmp_path):
    """Recovery never makes two of one."""
    spool = await three(tmp_path)
    (spool.path / "send" / ".checkout" / "m").write_bytes(b'{"recipient":"old"}')
    await load_spool(spool.path)
    state = state_of(spool.path)
    assert state.places("m") == ["send"]
    assert state.available["send"]["m"] == b'{"recipient":"m","attempts":0}'
    assert state.faults() == []


# A spool that may not be written


MAY_NOT = """
    import anyio, os
    from helpers import mounts
    from helpers.spools import *
    from trio_multispool import *

    async def refused(path, error):
        before = snapshot(path)
        spool = (await Spool.load(path, MAIL)).unwrap()
        entry = spool.entry(Mail.SEND, "a").unwrap()
        assert await names_in(spool, Mail.SEND) == ["a"]
        assert await entry.direct.contents() == Ok(Envelope("a"))
        assert await entry.direct.data_file.load() == Ok(b"Hello")
        assert (await entry.stat()).unwrap().size > 0
        assert (await spool.checkouts_unsafe(Mail.SEND)).unwrap() == []
        assert (await spool.recover()).unwrap() == []
        async with spool.reader(Mail.SEND) as reader:
            dequeued = await reader.dequeue_available()
        for answer in (
            dequeued,
            await spool.enqueue(Mail.SEND, ANNE, b""),
            await spool.reserve_name(),
            await entry.checkout(),
            await entry.try_checkout(),
            await entry.direct.save(ANNE),
            await entry.direct.remove(),
            await entry.direct.data_file.save(b""),
        ):
            assert isinstance(answer, Err), answer
            assert type(answer.error) is error, repr(answer)
        assert snapshot(path) == before
        wider = Spoolable(queues=enum.Enum("Wider", {"SEND": "send", "NEW": "new"}), metadata=Envelope, data=bytes)
        answer = await Spool.create(path, wider)
        assert type(answer.error) is error, answer
        answer = await Spool.create(os.path.join(path, "..", "another"), MAIL)
        assert type(answer.error) is error, answer
        assert snapshot(path) == before
"""


def test_a_spool_on_a_read_only_mount_can_be_read_and_refuses_the_rest(tmp_path):
    """`Err(ReadOnlySpool)` of everything that would write, and listing and reading go on."""
    if reason := mounts.why_not():
        pytest.skip(reason)
    run_python(
        MAY_NOT
        + """
    mounts.enter_private()  # while there is one thread: the others would stay where they are

    async def main():
        os.mkdir(sys.argv[1])
        mounts.tmpfs(sys.argv[1])
        path = pathlib.Path(sys.argv[1], "spool")
        spool = await quick_spool(path)
        await put(spool, Mail.SEND, "a")
        spool.close()
        mounts.read_only(sys.argv[1])
        await refused(path, ReadOnlySpool)

    import enum, pathlib
    anyio.run(main, backend="trio")
    """,
        tmp_path / "mount",
    )


OTHER = "need_root = os.getuid() == 0\nif need_root:\n    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"


async def test_a_spool_of_another_user_can_be_read_if_its_mode_says_so_and_refuses_the_rest(shared_directory):
    """`Err(AccessDenied)` of everything that would write; the permission error is never taken for "gone"."""
    path = shared_directory / "spool"
    spool = await quick_spool(path, directory_mode=0o755)
    await put(spool, Mail.SEND, "a")
    if os.getuid() != 0:
        for directory, _, _ in os.walk(path, topdown=False):
            os.chmod(directory, 0o555)
        shared_directory.chmod(0o555)
    try:
        run_python(
            MAY_NOT
            + """
    import enum, trio, anyio._backends._trio
    if os.getuid() == 0:
        import inotify_simple
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    anyio.run(refused, sys.argv[1], AccessDenied, backend="trio")
    """,
            path,
        )
    finally:
        for directory, _, _ in os.walk(path):
            os.chmod(directory, 0o755)
        shared_directory.chmod(0o755)


async def test_what_another_user_may_not_read_is_access_denied_and_never_taken_for_gone(shared_directory):
    """Neither the spool, nor a queue, nor an entry that is forbidden counts as absent, and nothing is collected."""
    path = shared_directory / "spool"
    spool = await quick_spool(path, directory_mode=0o777 & ~0o002)
    await put(spool, Mail.SEND, "a", "m", "z")
    await put(spool, Mail.RETRY, "b")
    if os.getuid() == 0:
        for directory, _, files in os.walk(path):
            for name in (".", *files):
                os.chown(os.path.join(directory, name), 65534, 65534)
    os.chmod(path / "send" / "m", 0)
    os.chmod(path / "retry", 0)
    (path / ".registry" / "left").touch()
    before = snapshot(path)
    run_python(
        """
        import os, trio, anyio, anyio._backends._trio
        from helpers.spools import *
        from trio_multispool import *

        async def main():
            path = sys.argv[1]
            match await Spool.load(path, MAIL):
                case Err(AccessDenied()): pass
                case answer: raise AssertionError(answer)
            spool = (await Spool.load_unsafe(path, MAIL)).unwrap()
            answers = {
                "listing": await spool.entries(Mail.RETRY),
                "contents": await spool.entry(Mail.SEND, "m").unwrap().direct.contents(),
                "hidden": await spool.entry(Mail.RETRY, "b").unwrap().direct.contents(),
                "stat": await spool.entry(Mail.RETRY, "b").unwrap().stat(),
                "checkout": await spool.entry(Mail.RETRY, "b").unwrap().checkout(),
                "enqueue": await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b")),
            }
            for name, answer in answers.items():
                assert isinstance(answer, Err), (name, answer)
                assert isinstance(answer.error, (AccessDenied, UnreadableEntry)), (name, answer)
            assert (await spool.recover()).unwrap() == [], "it passes over what it may not read, and collects nothing"
            async with spool.reader(Mail.SEND) as reader:
                async for job in reader.available():
                    print(job.name)

        if os.getuid() == 0:
            import inotify_simple
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        anyio.run(main, backend="trio")
        """,
        path,
    )
    os.chmod(path / "retry", 0o775)
    after = snapshot(path)
    assert {n: f.content for n, f in after.items()} == {n: f.content for n, f in before.items() if f.kind != "x"} | {
        n: f.content for n, f in after.items() if n.startswith("retry/")
    }
    assert state_of(path).names("retry") == ["b"]


def test_a_spool_that_belongs_to_somebody_else_alone_is_access_denied(shared_directory):
    """`Err(AccessDenied)` of load and create, and nothing else is said about it."""
    if os.getuid() != 0:
        pytest.skip("needs CAP_SETUID to be another user")
    (shared_directory / "spool").mkdir(mode=0o700)
    run_python(
        """
        import os, trio, anyio, anyio._backends._trio
        from helpers.spools import *
        from trio_multispool import *

        async def main():
            for path in (sys.argv[1], os.path.join(sys.argv[1], "below")):
                for opened in (Spool.load, Spool.create, Spool.load_unsafe):
                    answer = await opened(path, MAIL)
                    assert isinstance(answer, Err) and isinstance(answer.error, AccessDenied), answer

        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        anyio.run(main, backend="trio")
        """,
        shared_directory / "spool",
    )


# A spool on several file systems


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_directory_that_is_a_mount_of_its_own_is_refused(tmp_path, kind):
    """`Err(SeveralFileSystems)` names it, also for a bind mount of the same file system; nothing is touched."""
    if reason := mounts.why_not():
        pytest.skip(reason)
    run_python(
        """
        import anyio, os, pathlib
        from helpers import mounts
        from helpers.spools import *
        from trio_multispool import *

        mounts.enter_private()  # while there is one thread: the others would stay where they are

        async def main():
            for number, place in enumerate((".registry", ".tmp", ".data", "send", "retry", "send/.checkout")):
                await refused(pathlib.Path(sys.argv[1], str(number)), place)

        async def refused(path, place):
            (await quick_spool(path)).close()
            if sys.argv[2] == "bind":
                (path.parent / f"beside-{path.name}").mkdir(mode=0o700)
                mounts.bind(path.parent / f"beside-{path.name}", path / place)
            else:
                mounts.tmpfs(path / place)
            if place in ("send", "retry"):
                (path / place / ".checkout").mkdir(mode=0o700)
            before = snapshot(path)
            for answer in (
                await Spool.load(path, MAIL),
                await Spool.load(path, MAIL, create_if_missing=True),
                await Spool.create(path, MAIL),
                await Spool.load(path, MAIL, trust_file_system=True),
            ):
                assert answer == Err(SeveralFileSystems(str(path), place)), answer
            assert snapshot(path) == before

        anyio.run(main, backend="trio")
        """,
        tmp_path,
        kind,
    )


def test_the_modes_of_this_test_are_what_they_seem():
    """A sanity check: the helpers see kinds and modes as `stat` does."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        os.mkfifo(path / "fifo")
        (path / "link").symlink_to("nowhere")
        unix_socket(path / "socket", path)
        kinds = {name: node.kind for name, node in snapshot(path).items()}
        assert kinds == {".": "directory", "fifo": "fifo", "link": "symlink", "socket": "socket"}
        assert stat.S_ISSOCK((path / "socket").lstat().st_mode)
