"""Faults that the kernel makes: a full disk, no inodes, a quota, a size limit, no descriptors, a read-only mount.

Each comes in the middle of the work, is met by every operation, and goes again. Each test runs in a process of its own,
which alone sees its mounts and bears its limits.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers import mounts
from helpers.processes import run_python
from helpers.spools import BERT, MAIL, Mail, load_spool, make_spool, put, state_of
from trio_multispool import Err, Ok, OutOfSpace, ReadOnlySpool, Spool, TooManyOpenFiles, Use

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Fault:
    """A kind of trouble that can be begun and ended."""

    needs_mount = True
    error: type[Exception] = OutOfSpace
    """What those answer that fail."""
    fails: frozenset[str] = frozenset()
    """Which operations fail; the others must succeed: a full disk is emptied by removing."""

    may_fail: frozenset[str] = frozenset()
    """Which may fail as well: it is the file system's affair."""
    leaves: frozenset[str] = frozenset()
    """Which operations leave something for recovery to collect, once they are committed."""

    def why_not(self) -> str:
        """Say what is missing to try it; empty if nothing is."""
        return mounts.why_not() if self.needs_mount else ""

    def prepare(self, mount: Path) -> None:
        """Mount."""

    def begin(self, mount: Path) -> None:
        """Make trouble; called again before each operation."""

    def end(self, mount: Path) -> None:
        """End it."""


WRITING = frozenset({"enqueue", "save", "data save", "direct save", "direct data save"})


class FullDisk(Fault):
    """No block is left."""

    fails = WRITING

    def prepare(self, mount: Path) -> None:
        """Mount a small file system."""
        mounts.tmpfs(mount, "size=1m")

    def begin(self, mount: Path) -> None:
        """Fill it, to the last byte."""
        with contextlib.suppress(OSError), (mount / "filler").open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size) == size:
                        pass

    def end(self, mount: Path) -> None:
        """Make room."""
        (mount / "filler").unlink(missing_ok=True)


class NoInodes(FullDisk):
    """No file can be made any more."""

    fails = WRITING | {"reserve"}

    def prepare(self, mount: Path) -> None:
        """Mount a file system for few files."""
        mounts.tmpfs(mount, "nr_inodes=200")

    def begin(self, mount: Path) -> None:
        """Make as many as there can be."""
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (mount / f"filler-{number}").touch()

    def end(self, mount: Path) -> None:
        """Unlink them."""
        for filler in mount.glob("filler-*"):
            filler.unlink()


class Quota(FullDisk):
    """The quota is used up: on btrfs, a rename needs room too, and an unlink may."""

    fails = WRITING
    may_fail = frozenset({"reserve", "check out", "read", "save unchanged", "release", "remove", "direct remove"})

    def why_not(self) -> str:
        """Say what is missing for a file system with a quota that counts for everybody."""
        return mounts.why_not() or mounts.why_no_btrfs()

    def prepare(self, mount: Path) -> None:
        """Mount it."""
        mounts.btrfs_with_quota(mount, "2M")

    def end(self, mount: Path) -> None:
        """Make room, and wait until it counts."""
        super().end(mount)
        os.sync()


class ReadOnly(Fault):
    """The file system is mounted read-only meanwhile, as after an error."""

    error = ReadOnlySpool
    fails = WRITING | {"reserve", "check out", "read", "save unchanged", "release", "remove", "direct remove"}

    def prepare(self, mount: Path) -> None:
        """Mount it."""
        mounts.tmpfs(mount)

    def begin(self, mount: Path) -> None:
        """Make it read-only."""
        mounts.read_only(mount)

    def end(self, mount: Path) -> None:
        """Make it writable."""
        mounts.writable(mount)


class FileSize(Fault):
    """Files may be eight bytes long (RLIMIT_FSIZE; its signal is ignored by Python)."""

    needs_mount = False
    fails = WRITING

    def begin(self, mount: Path) -> None:
        """Set the limit."""
        self._set(8)

    def end(self, mount: Path) -> None:
        """Lift it."""
        self._set(resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    def _set(self, soft: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class NoDescriptors(Fault):
    """The process has no descriptor left (RLIMIT_NOFILE)."""

    needs_mount = False
    error = TooManyOpenFiles
    fails = WRITING | {
        "reserve",
        "check out",
        "read",
        "data load",
        "direct load",
        "list",
        "direct remove",
        "recover",
        "load",
    }
    leaves = frozenset({"remove"})  # which looks whether there are notes, before it unlinks the reservation

    def begin(self, mount: Path) -> None:
        """Allow none beyond those that are open."""
        self.end(mount)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def end(self, mount: Path) -> None:
        """Allow what there was."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))


FAULTS: dict[str, Fault] = {
    "full disk": FullDisk(),
    "no inodes": NoInodes(),
    "quota": Quota(),
    "read-only mount": ReadOnly(),
    "file size": FileSize(),
    "no descriptors": NoDescriptors(),
}


class Work:
    """A spool in the middle of its work, and everything that can be done with it."""

    def __init__(self, spool: Any, reader: Any, jobs: dict[str, Any]) -> None:
        """Take over what was prepared."""
        self.spool, self.reader, self.jobs = spool, reader, jobs
        self.new = itertools.count()

    def direct(self) -> Any:
        """Return the entry that is never checked out."""
        return self.spool.entry(Mail.RETRY, "direct").unwrap().direct

    async def reserve(self) -> Any:
        """Reserve a name, and give it up."""
        answer = await self.spool.reserve_name()
        if isinstance(answer, Ok):
            async with answer.value:
                pass
        return answer

    async def take(self, answer: Any) -> Any:
        """Give back what was checked out."""
        if isinstance(answer, Ok):
            assert answer.value is not None
            async with answer.value:
                pass
        return answer

    def acts(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Return the operations by name; those that settle come last."""
        spool, jobs = self.spool, self.jobs

        async def check_out() -> Any:
            return await self.take(await spool.entry(Mail.RETRY, "check out").unwrap().checkout())

        async def read() -> Any:
            return await self.take(await self.reader.dequeue_available())

        async def load() -> Any:
            answer = await Spool.load(spool.path, MAIL)
            if isinstance(answer, Ok):
                answer.value.close()
            return answer

        return {
            "enqueue": lambda: spool.enqueue(Mail.SEND, BERT, b"Hello" * 20_000, name=Use(f"new-{next(self.new)}")),
            "reserve": self.reserve,
            "check out": check_out,
            "read": read,
            "list": lambda: spool.entries(Mail.SEND),
            "data load": jobs["data save"].data.load,
            "data save": partial(jobs["data save"].data.save, b"changed" * 20_000),
            "direct load": self.direct().contents,
            "direct save": lambda: self.direct().save(BERT),
            "direct data save": partial(self.direct().data_file.save, b"changed" * 20_000),
            "recover": spool.recover,
            "load": load,
            "save": lambda: jobs["save"].save(Mail.FAILED, BERT),
            "save unchanged": lambda: jobs["save unchanged"].save(Mail.FAILED),
            "direct remove": spool.entry(Mail.RETRY, "direct remove").unwrap().direct.remove,
            "release": jobs["release"].release,
            "remove": jobs["remove"].remove,
        }


async def meet(path: Path, fault: Fault) -> None:
    """Do everything while there is trouble, and what failed once more when it has gone."""
    settled = ("save", "save unchanged", "release", "remove", "data save")
    await make_spool(path)
    async with await load_spool(path) as spool, spool.reader(Mail.SEND) as reader:
        await put(spool, Mail.SEND, "read", *settled)
        await put(spool, Mail.RETRY, "check out", "direct", "direct remove")
        entries = {entry.name: entry for entry in (await spool.entries(Mail.SEND)).unwrap()}
        work = Work(spool, reader, {name: (await entries[name].checkout()).unwrap() for name in settled})
        assert await work.take(await reader.dequeue_available())
        failed = set()
        for name, act in work.acts().items():
            fault.end(path.parent)
            before = state_of(path)
            fault.begin(path.parent)
            answer = await act()
            fault.end(path.parent)
            if isinstance(answer, Err):
                failed.add(name)
                assert type(answer.error) is fault.error, f"{name}: {answer}"
                assert os.fspath(path) in str(answer.error) or fault.error is TooManyOpenFiles
                assert state_of(path) == before, name
            assert name in fault.leaves or state_of(path).faults() == [], f"{name}: {state_of(path).faults()}"
        assert fault.fails <= failed <= fault.fails | fault.may_fail, failed ^ fault.fails
        (await spool.recover()).unwrap()
        for name in failed:
            again = await work.acts()[name]()
            assert isinstance(again, Ok), f"{name}: {again}"
        assert state_of(path).faults() == []
        (await work.jobs["data save"].release()).unwrap()
    async with await load_spool(path) as spool:
        assert (await spool.recover()).unwrap() == []
    state = state_of(path)
    assert state.faults() == []
    assert state.names("failed") == ["save", "save unchanged"]
    assert set(state.names("retry")) == {"check out", "direct"}
    assert set(state.names("send")) >= {"read", "release", "data save"}
    assert "remove" not in state.entries()


@pytest.mark.parametrize("name", FAULTS)
def test_an_operation_that_meets_real_trouble_answers_so_and_works_again_when_it_has_gone(name: str, tmp_path: Path):
    """Each answers the right error and changes and leaves nothing, or succeeds, needing nothing that is lacking."""
    if reason := FAULTS[name].why_not():
        pytest.skip(reason)
    here = Path(__file__)
    code = f"sys.path.append({str(here.parent)!r}); import {here.stem} as module; module.main(*sys.argv[1:])"
    run_python(code, name, tmp_path / "mount")


def main(name: str, mount: str) -> None:
    """Be the process that has the trouble."""
    fault, path = FAULTS[name], Path(mount)
    path.mkdir()
    if fault.needs_mount:
        mounts.enter_private()  # while there is one thread: the others would stay where they are
    fault.prepare(path)
    trio.run(meet, path / "spool", fault)
