"""`create`, `load`, `load_unsafe`, `path` and `close` of `Spool`: what becomes a spool, and what is refused."""

from __future__ import annotations

import enum
import errno
import functools
import json
import os
import stat
from typing import TYPE_CHECKING

import anyio
import pytest

from helpers.calls import FailingCalls, Mounted, WithoutSyncs
from helpers.results import is_err
from helpers.spools import ANNE, MAIL, Envelope, Mail, load_spool, names_in, put, quick_spool, snapshot, state_of
from trio_multispool import (
    AccessDenied,
    DirectoryNotEmpty,
    Durability,
    Err,
    NotASpool,
    Ok,
    OutOfSpace,
    ReadOnlySpool,
    SharedFileSystem,
    Spool,
    Spoolable,
    StorageFailure,
    TooManyOpenFiles,
    UnsupportedFormat,
    Use,
    WorldWritable,
)
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.testing import strict_order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from trio_multispool import Result

pytestmark = pytest.mark.anyio

NFS = 0x6969
OURS = {".registry", ".tmp", ".data"}
QUEUES = {"send", "retry", "failed"}

OPENERS: dict[str, Callable[..., Awaitable[Result[Spool, Exception]]]] = {
    "create": Spool.create,
    "load": Spool.load,
    "load with the flag": functools.partial(Spool.load, create_if_missing=True),
    "load_unsafe": Spool.load_unsafe,
}
MAKERS = {"create": OPENERS["create"], "load with the flag": OPENERS["load with the flag"]}
every_opener = pytest.mark.parametrize("open_spool", OPENERS.values(), ids=OPENERS)
every_maker = pytest.mark.parametrize("open_spool", MAKERS.values(), ids=MAKERS)
every_checker = pytest.mark.parametrize(
    "open_spool", [o for n, o in OPENERS.items() if n != "load_unsafe"], ids=[n for n in OPENERS if n != "load_unsafe"]
)


class Wider(enum.Enum):
    """A later version's queues."""

    SEND = "send"
    RETRY = "retry"
    FAILED = "failed"
    DELAYED = "delayed"


WIDER = Spoolable(queues=Wider, metadata=Envelope, data=bytes)


@pytest.fixture(params=[0o022, 0o000, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test under a umask."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(path: Path) -> dict[str, set[int]]:
    """Return the modes of all directories, and of all files."""
    found: dict[str, set[int]] = {"directory": set(), "file": set()}
    for node in snapshot(path).values():
        found[node.kind].add(node.mode)
    return found


# Making


@every_maker
async def test_a_new_spool_has_its_directories_and_says_that_its_users_take_locks(tmp_path: Path, open_spool):
    """A spool is made whole: parents, all directories, and the format file; it is empty and adopted."""
    path = tmp_path / "var" / "spool" / "mail"
    spool = (await open_spool(path, MAIL)).unwrap()
    assert spool.path == path
    assert set(os.listdir(path)) == {*OURS, *QUEUES, ".spool.json"}
    assert all((path / queue / ".checkout").is_dir() for queue in QUEUES)
    assert json.loads((path / ".spool.json").read_bytes())["format"] == 1
    state = state_of(path)
    assert state.adopted
    assert state.faults() == []
    assert state.entries() == set()


@every_maker
async def test_creating_what_exists_loads_it_and_changes_nothing(tmp_path: Path, open_spool):
    """`create` of a spool that is there is `load`: not one inode is touched."""
    first = await quick_spool(tmp_path / "spool")
    await put(first, Mail.SEND, "a")
    before = snapshot(tmp_path)
    second = (await open_spool(tmp_path / "spool", MAIL)).unwrap()
    assert await names_in(second, Mail.SEND) == ["a"]
    assert snapshot(tmp_path) == before


@every_maker
async def test_a_spool_can_be_made_in_an_empty_directory_that_exists(tmp_path: Path, open_spool):
    """An empty directory becomes a spool."""
    (tmp_path / "spool").mkdir(mode=0o700)
    spool = (await open_spool(tmp_path / "spool", MAIL)).unwrap()
    await put(spool, Mail.SEND, "a")
    assert state_of(spool.path).faults() == []


@every_maker
async def test_what_is_missing_of_a_spool_is_made(tmp_path: Path, open_spool):
    """A directory that was lost, and those of a queue that is new, are made again; what is there stays."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    (spool.path / "retry" / ".checkout").rmdir()
    (spool.path / "retry").rmdir()
    (spool.path / ".tmp").rmdir()
    again = (await open_spool(spool.path, WIDER)).unwrap()
    assert await names_in(again, Wider.SEND) == ["a"]
    assert set(os.listdir(spool.path)) == {*OURS, *QUEUES, "delayed", ".spool.json"}
    (await again.enqueue(Wider.DELAYED, ANNE, b"", name=Use("b"))).unwrap()
    assert state_of(spool.path).faults() == []


@every_maker
@pytest.mark.parametrize("content", ["file", ".hidden", "directory/", ".registry/", "send/"])
async def test_a_spool_is_never_made_in_a_directory_that_holds_something_else(tmp_path: Path, open_spool, content):
    """`Err(DirectoryNotEmpty)`, and the directory is as it was."""
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    if content.endswith("/"):
        (path / content).mkdir()
    else:
        (path / content).write_bytes(b"precious")
    before = snapshot(tmp_path)
    assert await open_spool(path, MAIL) == Err(DirectoryNotEmpty(os.fspath(path)))
    assert snapshot(tmp_path) == before


async def test_a_creation_that_died_half_way_is_finished_by_the_next(tmp_path: Path):
    """Wherever making a spool stops, the next `create` makes it whole, and what was enqueued meanwhile is in it."""
    step = 0
    while True:
        path = tmp_path / f"spool-{step}"
        calls = FailingCalls()
        for call in ("make_directory", "open", "write", "sync", "move", "change_mode"):
            calls.fail(call, errno.EIO)
        # The faults share one countdown: all calls from number `step` on fail, as if the process had died there.
        left = step

        def dying(call: str, *arguments: object, calls: FailingCalls = calls) -> object:
            nonlocal left
            if call in {fault.call for fault in calls.faults}:
                left -= 1
                if left < 0:
                    raise OSError(errno.EIO, "dead")
            return getattr(super(FailingCalls, calls), call)(*arguments)

        calls._do = dying  # type: ignore[method-assign]
        answer = await Spool.create(path, MAIL, system_calls=calls)
        if not is_err(answer):
            break
        halfway = await Spool.load(path, MAIL)
        early = [] if is_err(halfway) else ["early"]  # all directories are there: nothing speaks against it
        if isinstance(halfway, Ok):
            await put(halfway.value, Mail.SEND, *early)
        spool = await quick_spool(path)
        await put(spool, Mail.SEND, "later")
        assert state_of(path).adopted
        assert state_of(path).names("send") == [*early, "later"]
        assert state_of(path).faults() == []
        assert not (path / ".spool.json.new").exists()
        step += 1
    assert step > 20


async def test_several_creators_at_once_make_one_spool(tmp_path: Path):
    """Creating is safe beside creating: everybody gets the same spool."""
    answers: list[Spool] = []

    async def create() -> None:
        answers.append(await quick_spool(tmp_path / "var" / "spool"))

    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(create)
    for number, spool in enumerate(answers):
        await put(spool, Mail.SEND, f"entry-{number:02}")
    state = state_of(tmp_path / "var" / "spool")
    assert len(state.available["send"]) == 16
    assert state.adopted
    assert state.faults() == []


# Loading


async def test_a_spool_that_is_missing_cannot_be_loaded_and_is_not_made(tmp_path: Path):
    """`Err(NotASpool)`, and nothing appears."""
    for answer in (await Spool.load(tmp_path / "spool", MAIL), await Spool.load_unsafe(tmp_path / "spool", MAIL)):
        match answer:
            case Err(NotASpool(path, reason)):
                assert path == os.fspath(tmp_path / "spool")
                assert "no such directory" in reason
            case _:
                pytest.fail(f"{answer}")
    assert os.listdir(tmp_path) == []


async def test_a_directory_that_does_not_look_like_a_spool_cannot_be_loaded(tmp_path: Path):
    """`Err(NotASpool)` for an empty directory, and for each of the library's own directories that is missing."""
    (tmp_path / "empty").mkdir(mode=0o700)
    assert isinstance((await Spool.load(tmp_path / "empty", MAIL)).error, NotASpool)
    for number, name in enumerate(sorted(OURS)):
        path = tmp_path / str(number)
        await quick_spool(path)
        (path / name).rmdir()
        before = snapshot(path)
        match await Spool.load(path, MAIL):
            case Err(NotASpool(_, reason)):
                assert name in reason
            case answer:
                pytest.fail(f"{answer}")
        assert snapshot(path) == before


@pytest.mark.parametrize("missing", ["delayed", "delayed/.checkout"])
async def test_a_spool_without_a_directory_of_one_of_the_queues_cannot_be_loaded(tmp_path: Path, missing):
    """`Err(NotASpool)` names the queue's directory; with `create_if_missing` it is made."""
    await quick_spool(tmp_path / "spool")
    if missing != "delayed":
        (tmp_path / "spool" / "delayed").mkdir(mode=0o700)
    before = snapshot(tmp_path)
    match await Spool.load(tmp_path / "spool", WIDER):
        case Err(NotASpool(_, reason)):
            assert f"'{missing}'" in reason
        case answer:
            pytest.fail(f"{answer}")
    assert snapshot(tmp_path) == before
    (await Spool.load(tmp_path / "spool", WIDER, create_if_missing=True)).unwrap()
    assert (tmp_path / "spool" / "delayed" / ".checkout").is_dir()


async def test_loading_puts_back_what_a_dead_process_had_checked_out(tmp_path: Path):
    """After `load`, an entry whose owner is dead is available again, in every queue on disk, known or not."""
    spool = await quick_spool(tmp_path / "spool", WIDER)
    (await spool.enqueue(Wider.SEND, ANNE, b"1", name=Use("a"))).unwrap()
    (await spool.enqueue(Wider.DELAYED, ANNE, b"2", name=Use("b"))).unwrap()
    for queue, name in (("send", "a"), ("delayed", "b")):
        (spool.path / queue / name).rename(spool.path / queue / ".checkout" / name)
    await load_spool(spool.path)
    state = state_of(spool.path)
    assert state.names("send") == ["a"]
    assert state.names("delayed") == ["b"]
    assert state.faults() == []


async def test_load_unsafe_checks_nothing_and_recovers_nothing(tmp_path: Path):
    """Tools can open a damaged spool as it is: not one inode changes, and what is there can be read."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b")
    (spool.path / "send" / "a").rename(spool.path / "send" / ".checkout" / "a")
    (spool.path / "failed" / ".checkout").rmdir()
    (spool.path / "failed").rmdir()
    spool.path.chmod(0o707)
    before = snapshot(tmp_path)
    damaged = (await Spool.load_unsafe(spool.path, MAIL)).unwrap()
    assert await names_in(damaged, Mail.SEND) == ["b"]
    assert isinstance((await damaged.entries(Mail.FAILED)).error, StorageFailure)
    assert snapshot(tmp_path) == before
    spool.path.chmod(0o700)


async def test_load_unsafe_opens_a_directory_that_is_no_spool(tmp_path: Path):
    """Operations on what is not there fail one by one, each with its `Err`, and nothing is made."""
    spool = (await Spool.load_unsafe(tmp_path, MAIL)).unwrap()
    answers = [
        await spool.entries(Mail.SEND),
        await spool.enqueue(Mail.SEND, ANNE, b""),
        await spool.checkouts_unsafe(Mail.SEND),
        await spool.entry(Mail.SEND, "a").unwrap().stat(),
        await spool.entry(Mail.SEND, "a").unwrap().direct.contents(),
        await spool.entry(Mail.SEND, "a").unwrap().direct.remove(),
        await spool.reserve_name(),
    ]
    assert all(is_err(answer) for answer in answers)
    assert os.listdir(tmp_path) == []


# Refusing


@every_opener
async def test_a_path_that_is_a_file_is_no_spool(tmp_path: Path, open_spool):
    """`Err(NotASpool)`, also for a path below a file; the file is as it was."""
    (tmp_path / "spool").write_bytes(b"precious")
    before = snapshot(tmp_path)
    for path in (tmp_path / "spool", tmp_path / "spool" / "below"):
        match await open_spool(path, MAIL):
            case Err(NotASpool(_, reason)):
                assert "not a directory" in reason
            case answer:
                pytest.fail(f"{answer}")
    assert snapshot(tmp_path) == before


@every_opener
@pytest.mark.parametrize(
    "described",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"format": 2}',
        b'{"format": "1"}',
        b'{"format": true}',
        b'{"format": null}',
        b"\xff\xfe",
        b"\0" * 64,
        pytest.param(b"[" * 100_000, id="nested deeply"),
        pytest.param(b'{"format": ' + b"1" * 5000 + b"}", id="a long number"),
    ],
)
async def test_a_format_that_is_not_known_is_refused(tmp_path: Path, open_spool, described):
    """`Err(UnsupportedFormat)` for every `.spool.json` that does not say format 1, and nothing is touched."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    (spool.path / ".spool.json").write_bytes(described)
    before = snapshot(tmp_path)
    answer = await open_spool(spool.path, MAIL)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, UnsupportedFormat)
    assert snapshot(tmp_path) == before


@every_opener
async def test_a_format_file_with_keys_that_are_not_known_is_accepted(tmp_path: Path, open_spool):
    """A later version may say more about a spool of this format."""
    await quick_spool(tmp_path / "spool")
    (tmp_path / "spool" / ".spool.json").write_bytes(b'{"later": [1, 2], "format": 1}')
    assert isinstance(await open_spool(tmp_path / "spool", MAIL), Ok)


@every_checker
@pytest.mark.parametrize("directory", ["", ".registry", ".tmp", ".data", "send", "send/.checkout"])
async def test_a_spool_that_everybody_can_write_into_is_refused(tmp_path: Path, open_spool, directory):
    """`Err(WorldWritable)` names the directory; nothing is touched, and mending the mode is enough."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    guilty = spool.path / directory
    guilty.chmod(0o702)
    before = snapshot(tmp_path)
    assert await open_spool(spool.path, MAIL) == Err(WorldWritable(os.fspath(guilty)))
    assert snapshot(tmp_path) == before
    guilty.chmod(0o700)
    assert isinstance(await open_spool(spool.path, MAIL), Ok)


@every_maker
async def test_no_spool_is_made_in_a_directory_that_everybody_can_write_into(tmp_path: Path, open_spool):
    """`Err(WorldWritable)`, and the directory stays empty."""
    path = tmp_path / "spool"
    path.mkdir()
    path.chmod(0o777)
    assert await open_spool(path, MAIL) == Err(WorldWritable(os.fspath(path)))
    assert list(path.iterdir()) == []


@every_checker
@pytest.mark.parametrize(
    ("kind", "name"),
    [(NFS, "NFS"), (0xFF534D42, "CIFS"), (0x65735546, "FUSE"), (0x01021997, "9p"), (0x12345678, "0x12345678")],
)
async def test_a_file_system_that_is_not_known_to_be_local_is_refused(tmp_path: Path, open_spool, kind, name):
    """`Err(SharedFileSystem)` names it, and nothing is made or touched, unless the caller insists."""
    await quick_spool(tmp_path / "spool")
    before = snapshot(tmp_path)
    match await open_spool(tmp_path / "spool", MAIL, system_calls=Mounted(kind)):
        case Err(SharedFileSystem(path, file_system)):
            assert path == os.fspath(tmp_path / "spool")
            assert name in file_system
        case answer:
            pytest.fail(f"{answer}")
    assert snapshot(tmp_path) == before
    trusting = await open_spool(tmp_path / "spool", MAIL, system_calls=Mounted(kind), trust_file_system=True)
    assert isinstance(trusting, Ok)


@every_maker
async def test_no_spool_is_begun_on_a_shared_file_system(tmp_path: Path, open_spool):
    """`Err(SharedFileSystem)`, and the directory holds nothing that would have to be cleared away."""
    (tmp_path / "spool").mkdir(mode=0o700)
    answer = await open_spool(tmp_path / "spool", MAIL, system_calls=Mounted(NFS))
    assert isinstance(answer.error, SharedFileSystem)
    assert list((tmp_path / "spool").iterdir()) == []


@every_checker
@pytest.mark.parametrize("kind", [0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0x2FC12FC1, 0xF2F52010, None])
async def test_a_local_file_system_is_accepted(tmp_path: Path, open_spool, kind):
    """ext4, XFS, btrfs, tmpfs, overlayfs, ZFS, f2fs, and systems that have no such number."""
    await quick_spool(tmp_path / "spool")
    assert isinstance(await open_spool(tmp_path / "spool", MAIL, system_calls=Mounted(kind)), Ok)


# The operating system's troubles


TROUBLES = [
    (errno.ENOSPC, OutOfSpace),
    (errno.EDQUOT, OutOfSpace),
    (errno.EMFILE, TooManyOpenFiles),
    (errno.ENFILE, TooManyOpenFiles),
    (errno.EACCES, AccessDenied),
    (errno.EPERM, AccessDenied),
    (errno.EROFS, ReadOnlySpool),
    (errno.EIO, StorageFailure),
]


@every_opener
@pytest.mark.parametrize(("code", "error"), TROUBLES)
async def test_trouble_while_opening_a_spool_is_an_err(tmp_path: Path, open_spool, code, error):
    """Whatever the system says to opening the directory, it is an `Err` of its own class; nothing changes."""
    await quick_spool(tmp_path / "spool")
    before = snapshot(tmp_path)
    calls = FailingCalls()
    calls.fail("open_root", code)
    answer = await open_spool(tmp_path / "spool", MAIL, system_calls=calls)
    assert isinstance(answer, Err)
    assert type(answer.error) is error
    assert isinstance(answer.error.__cause__, OSError)
    assert snapshot(tmp_path) == before


@every_checker
@pytest.mark.parametrize("call", ["directories", "regular_files"])
async def test_trouble_while_looking_for_abandoned_entries_is_an_err(tmp_path: Path, open_spool, call):
    """A spool that cannot be listed is not loaded: what cannot be seen is not taken for absent."""
    await quick_spool(tmp_path / "spool")
    calls = FailingCalls()
    calls.fail(call, errno.EIO)
    answer = await open_spool(tmp_path / "spool", MAIL, system_calls=calls)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, StorageFailure)
    assert answer.error.errno == errno.EIO


@every_maker
@pytest.mark.parametrize(("code", "error"), TROUBLES)
@pytest.mark.parametrize("call", ["make_directory", "write", "sync", "change_mode"])
async def test_trouble_while_making_a_spool_is_an_err_and_creating_again_finishes_it(
    tmp_path: Path, open_spool, call, code, error
):
    """A full disk ends making a spool with an `Err`; with room, the same call succeeds."""
    calls = FailingCalls()
    calls.fail(call, code)
    answer = await open_spool(tmp_path / "spool", MAIL, system_calls=calls)
    assert isinstance(answer, Err)
    assert type(answer.error) is error
    calls.mend()
    spool = (await open_spool(tmp_path / "spool", MAIL, system_calls=calls)).unwrap()
    await put(spool, Mail.SEND, "a")
    assert state_of(spool.path).faults() == []


async def test_opening_a_spool_leaks_no_descriptor(tmp_path: Path):
    """A refused spool closes what was opened of it; a closed one has nothing open."""

    def open_files() -> int:
        return sum(os.fspath(tmp_path) in _link(fd) for fd in os.listdir("/proc/self/fd"))

    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    assert open_files() > 0
    spool.close()
    assert open_files() == 0
    for options in ({"system_calls": Mounted(NFS)}, {"spoolable": WIDER}):
        assert is_err(await Spool.load(tmp_path / "spool", **{"spoolable": MAIL, **options}))
    (tmp_path / "spool" / ".spool.json").write_bytes(b"{}")
    assert is_err(await Spool.load_unsafe(tmp_path / "spool", MAIL))
    assert is_err(await Spool.load(tmp_path / "spool", MAIL))
    assert is_err(await Spool.create(tmp_path / "spool", MAIL))
    assert open_files() == 0


def _link(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


# The spool's path


async def test_the_path_of_a_spool_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A relative path is taken from the directory in which the spool was opened, once and for all."""
    monkeypatch.chdir(tmp_path)
    spool = await quick_spool("spool")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert spool.path == tmp_path / "spool"
    (entry,) = await put(spool, Mail.SEND, "a")
    assert entry.direct.data_file.path.read_bytes() == b"Hello"


async def test_a_spool_can_be_reached_through_a_symlink(tmp_path: Path):
    """The spool's own directory may be a symlink, and the path is the one that was given."""
    await quick_spool(tmp_path / "spool")
    (tmp_path / "link").symlink_to("spool")
    spool = await load_spool(tmp_path / "link")
    assert spool.path == tmp_path / "link"
    await put(spool, Mail.SEND, "a")
    assert state_of(tmp_path / "spool").names("send") == ["a"]


# Modes


async def whole_life(spool: Spool) -> None:
    """Do to entries all that makes files, and leave some in each place."""
    (first, second, third) = await put(spool, Mail.SEND, "a", "b", "c")
    (await first.direct.save(ANNE)).unwrap()
    (await first.direct.data_file.save(b"new")).unwrap()
    async with (await second.checkout()).unwrap() as job:
        (await job.data.save(b"new")).unwrap()
        (await job.save(Mail.RETRY, Envelope("new"))).unwrap()
    (spool.path / "send" / "c").write_bytes(b"nonsense")
    assert is_err(await third.checkout())
    (spool.path / ".registry" / "a").unlink()
    async with (await first.checkout()).unwrap() as job:
        (await job.save(Mail.FAILED)).unwrap()


@pytest.mark.usefixtures("umask")
async def test_directories_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path):
    """Nobody but the spool's owner can read or write anything in it, after a whole life of its entries."""
    spool = await quick_spool(tmp_path / "spool")
    await whole_life(spool)
    found = modes(spool.path)
    assert found["directory"] == {0o700}
    assert found["file"] - {0o600} == set()
    assert set(state_of(spool.path).quarantined["send"]) == {"c"}


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mode", "of_files"), [(0o770, 0o660), (0o2770, 0o660), (0o750, 0o640), (0o775, 0o664)])
async def test_a_spool_for_a_group_gives_the_group_its_files_whatever_the_umask(tmp_path: Path, mode, of_files):
    """Directories have the mode that was asked for, and files the same without the right to execute."""
    spool = await quick_spool(tmp_path / "spool", directory_mode=mode)
    await whole_life(spool)
    found = modes(spool.path)
    assert found["directory"] == {mode}
    assert found["file"] == {of_files}


@pytest.mark.usefixtures("umask")
async def test_who_loads_a_spool_for_a_group_goes_on_with_its_modes(tmp_path: Path):
    """The spool's own directory says the mode: one who loads it need not."""
    await quick_spool(tmp_path / "spool", directory_mode=0o770)
    spool = (await Spool.create(tmp_path / "spool", WIDER)).unwrap()
    await whole_life(await load_spool(tmp_path / "spool"))
    (await spool.enqueue(Wider.DELAYED, ANNE, b"")).unwrap()
    assert modes(spool.path) == {"directory": {0o770}, "file": {0o660}}


@every_maker
@pytest.mark.parametrize("existing", [0o755, 0o700, 0o770])
async def test_a_spool_made_in_an_existing_directory_gives_nobody_more_than_was_asked_for(
    tmp_path: Path, open_spool, existing
):
    """By default nobody else can read an entry, also where the empty directory was made with the usual 0755."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(existing)
    spool = (await open_spool(tmp_path / "spool", MAIL)).unwrap()
    await whole_life(spool)
    below = {n: node for n, node in snapshot(spool.path).items() if n != "."}
    assert {stat.filemode(node.mode) for node in below.values() if node.kind == "file"} == {stat.filemode(0o600)}
    assert {oct(node.mode) for node in below.values() if node.kind == "directory"} == {oct(0o700)}


async def test_the_parents_of_a_spool_get_the_usual_modes(tmp_path: Path):
    """Only the spool is private; directories on the way to it are made like any other."""
    before = os.umask(0o022)
    try:
        await quick_spool(tmp_path / "var" / "spool")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "var" / "spool").stat().st_mode) == 0o700


# Closing


async def test_a_closed_spool_refuses_everything_and_can_be_closed_again(tmp_path: Path):
    """Using a closed spool is misuse and raises, whatever is used; closing is idempotent."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")
    async with spool.reader(Mail.SEND) as reader:
        spool.close()
        spool.close()
        operations = {
            "entries": lambda: spool.entries(Mail.SEND),
            "enqueue": lambda: spool.enqueue(Mail.SEND, ANNE, b""),
            "reserve_name": spool.reserve_name,
            "checkouts_unsafe": lambda: spool.checkouts_unsafe(Mail.SEND),
            "recover": spool.recover,
            "adopt": spool.adopt,
            "with_entry": lambda: spool.with_entry(entry, None),
            "try_with_entry": lambda: spool.try_with_entry(entry, None),
            "stat": entry.stat,
            "checkout": entry.checkout,
            "try_checkout": entry.try_checkout,
            "direct.contents": entry.direct.contents,
            "direct.save": lambda: entry.direct.save(ANNE),
            "direct.remove": entry.direct.remove,
            "data.load": entry.direct.data_file.load,
            "data.save": lambda: entry.direct.data_file.save(b""),
            "data.stat": entry.direct.data_file.stat,
            "dequeue": reader.dequeue,
            "dequeue_available": reader.dequeue_available,
            "iter": lambda: reader.iter(None),
            "iter_available": lambda: reader.iter_available(None),
        }
        for name, operation in operations.items():
            with pytest.raises(anyio.ClosedResourceError, match="closed"):
                pytest.fail(f"{name}: {await operation()}")
    with pytest.raises(anyio.ClosedResourceError):
        await spool.reader(Mail.SEND).__aenter__()
    assert "closed" in repr(spool)
    assert state_of(spool.path).names("send") == ["a"]


async def test_a_spools_block_closes_it(tmp_path: Path):
    """`async with` is optional and closes."""
    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "a")
        assert "closed" not in repr(spool)
    with pytest.raises(anyio.ClosedResourceError):
        await spool.entries(Mail.SEND)


# The levels of durability


async def test_a_spool_of_level_power_syncs_in_the_order_that_power_loss_demands(tmp_path: Path):
    """An enqueue syncs data, metadata and `.data/` before the rename, the queue after; level PROCESS syncs nothing."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    calls.made.clear()
    await put(spool, Mail.SEND, "a")
    at = os.fspath(spool.path)
    order = [
        ("sync", f"{at}/.data/a"),
        ("sync", f"{at}/.tmp/a"),
        ("sync", f"{at}/.data"),
        ("move", f"{at}/.tmp/a -> {at}/send/a"),
        ("sync", f"{at}/send"),
    ]
    assert [made for made in calls.made if made[0] in ("sync", "move")] == order
    spool = await load_spool(spool.path, durability=Durability.PROCESS, system_calls=calls)
    calls.made.clear()
    (entry,) = await put(spool, Mail.SEND, "b")
    (await (await entry.checkout()).unwrap().save(Mail.RETRY, ANNE)).unwrap()
    assert [made for made in calls.made if made[0] == "sync"] == []


async def test_a_name_generator_for_tests_makes_readers_see_strict_order(tmp_path: Path):
    """With `strict_order`, entries are listed in the order of their enqueueing, with the same names in every run."""
    spool = await quick_spool(tmp_path / "spool", strict_order(MAIL))
    made = [(await spool.enqueue(Mail.SEND, Envelope(str(n)), b"")).unwrap().name for n in range(12)]
    assert await names_in(spool, Mail.SEND) == made
    assert made[0] == "19700101T000001.000000000Z-00000000"
    assert MAIL.names is None


@every_opener
@pytest.mark.parametrize("what", ["a symlink", "a FIFO", "a directory", "huge", "deep", "not UTF-8", "a long number"])
async def test_a_format_file_that_cannot_be_read_is_refused(tmp_path: Path, open_spool, what):
    """It may say anything: `Err(UnsupportedFormat)`, nothing blocks, and nothing is touched."""
    spool = await quick_spool(tmp_path / "spool")
    described = spool.path / ".spool.json"
    described.rename(tmp_path / "elsewhere.json")
    match what:
        case "a symlink":
            described.symlink_to(tmp_path / "elsewhere.json")
        case "a FIFO":
            os.mkfifo(described)
        case "a directory":
            described.mkdir()
        case "huge":
            described.write_bytes(b'{"format": 1}')
            os.truncate(described, 1 << 40)  # sparse
        case "deep":
            described.write_bytes(b'{"format": 1, "later": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
        case "not UTF-8":
            described.write_bytes(b'{"format": 1, "later": 1}\xff')
        case _:
            described.write_bytes(b'{"format": ' + b"1" * 100_000 + b"}")
    answer = await open_spool(spool.path, MAIL)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, UnsupportedFormat)
    assert answer.error.path == os.fspath(spool.path)
    assert set(os.listdir(spool.path)) == {*OURS, *QUEUES, ".spool.json"}


class Overtaken(FailingCalls):
    """Lets another creator make the whole spool before the call of a given number."""

    def __init__(self, path: Path, number: int) -> None:
        """Wait for that many calls."""
        super().__init__()
        self.path = path
        self.number = number

    def _do(self, call: str, *arguments: object) -> object:
        self.number -= 1
        if self.number == 0:
            DirectoryStorage.open(self.path, sorted(QUEUES), create=True, calls=WithoutSyncs()).close()
        return super()._do(call, *arguments)


@pytest.mark.parametrize("existing", [False, True])
def test_a_creator_that_is_overtaken_by_another_at_any_step_gets_the_spool_all_the_same(tmp_path: Path, existing):
    """Creating is safe beside creating, wherever the two meet."""
    number = 0
    while True:
        number += 1
        path = tmp_path / str(number)
        if existing:
            path.mkdir(mode=0o700)
        calls = Overtaken(path, number)
        DirectoryStorage.open(path, sorted(QUEUES), create=True, calls=calls).close()
        state = state_of(path)
        assert state.adopted
        assert state.faults() == []
        assert json.loads((path / ".spool.json").read_bytes())["format"] == 1
        if calls.number > 0:
            break
    assert number > 40
