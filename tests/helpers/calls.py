"""System calls of which some fail: what a full disk, a bad sector or a shared mount does, on demand."""

from __future__ import annotations

import contextlib
import dataclasses
import errno as errno_codes
import os
from typing import TYPE_CHECKING, Any

from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Iterator


class WithoutSyncs(SystemCalls):
    """The real system calls, but nothing is synced: only power loss could tell, and the disk takes its time over it."""

    def sync(self, fd: int) -> None:
        """Do nothing."""

    def write_out(self, fd: int) -> None:
        """Do nothing."""

    def sync_file_system(self, fd: int) -> None:
        """Be a file system that syncs each file by itself, so that it does not depend on where the tests run."""
        raise OSError(errno_codes.ENOSYS, os.strerror(errno_codes.ENOSYS))


@dataclasses.dataclass
class Fault:
    """Which calls fail, how, and how many did."""

    call: str
    errno: int
    on: str
    """A part of the path (of both paths, joined by ` -> `, of `move` and `exchange`)."""
    skip: int = 0
    """How many such calls succeed first."""
    times: int | None = None
    """How many fail; all, if not given."""
    after_effect: bool = False
    """Do it, and then report the failure."""
    met: int = 0


class FailingCalls(WithoutSyncs):
    """The real system calls, unsynced, but for those that `fail` names. `made` records all calls with their paths."""

    def __init__(self) -> None:
        """Begin with nothing that fails."""
        self.faults: list[Fault] = []
        self.made: list[tuple[str, str]] = []

    def fail(self, call: str, code: int, on: str = "", **how: Any) -> Fault:
        """Make a call fail from now on."""
        fault = Fault(call, code, on, **how)
        self.faults.append(fault)
        return fault

    @contextlib.contextmanager
    def failing(self, call: str, code: int, on: str = "", **how: Any) -> Iterator[Fault]:
        """Make a call fail for the length of a block, and insist that it was made."""
        fault = self.fail(call, code, on, **how)
        yield fault
        self.faults.remove(fault)
        assert fault.met > fault.skip, f"{call} was never called on {on!r}"

    def mend(self) -> None:
        """Let everything succeed again."""
        self.faults.clear()

    def _path(self, call: str, arguments: tuple[Any, ...]) -> str:
        if call in ("move", "exchange"):
            return f"{_of(arguments[1])}/{arguments[0]} -> {_of(arguments[3])}/{arguments[2]}"
        if call == "open":
            return f"{_of(arguments[2])}/{arguments[0]}" if arguments[2] is not None else arguments[0]
        if call in ("stat", "unlink", "touch"):
            return f"{_of(arguments[1])}/{arguments[0]}"
        if call == "make_directory":
            return arguments[0] if arguments[1] is None else f"{_of(arguments[1])}/{arguments[0]}"
        return arguments[0] if isinstance(arguments[0], str) else _of(arguments[0])

    def _do(self, call: str, *arguments: Any) -> Any:
        path = self._path(call, arguments)
        self.made.append((call, path))
        for fault in self.faults:
            if fault.call != call or fault.on not in path:
                continue
            fault.met += 1
            if fault.met <= fault.skip or (fault.times is not None and fault.met > fault.skip + fault.times):
                continue
            if fault.after_effect:
                getattr(super(), call)(*arguments)
            raise OSError(fault.errno, os.strerror(fault.errno), path)
        return getattr(super(), call)(*arguments)

    def open(self, name: str, flags: int, directory: int | None = None, mode: int = 0o600) -> int:
        """Open."""
        return self._do("open", name, flags, directory, mode)

    def open_root(self, path: str) -> int:
        """Open the spool's directory."""
        return self._do("open_root", path)

    def read(self, fd: int, size: int) -> bytes:
        """Read."""
        return self._do("read", fd, size)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write."""
        return self._do("write", fd, data)

    def sync(self, fd: int) -> None:
        """Sync."""
        self._do("sync", fd)

    def write_out(self, fd: int) -> None:
        """Begin to write to disk."""
        self._do("write_out", fd)

    def sync_file_system(self, fd: int) -> None:
        """Sync everything, or refuse to."""
        self._do("sync_file_system", fd)

    def stat(self, name: str, directory: int) -> os.stat_result:
        """Look."""
        return self._do("stat", name, directory)

    def stat_path(self, path: str) -> os.stat_result:
        """Look at the spool."""
        return self._do("stat_path", path)

    def change_mode(self, fd: int, mode: int) -> None:
        """Change the mode."""
        self._do("change_mode", fd, mode)

    def set_modified(self, fd: int, when: float) -> None:
        """Set the time."""
        self._do("set_modified", fd, when)

    def touch(self, name: str, directory: int) -> None:
        """Set the time to now."""
        self._do("touch", name, directory)

    def make_directory(self, name: str, directory: int | None, mode: int) -> None:
        """Make a directory."""
        self._do("make_directory", name, directory, mode)

    def unlink(self, name: str, directory: int) -> None:
        """Unlink."""
        self._do("unlink", name, directory)

    def move(self, name: str, directory: int, new_name: str, new_directory: int) -> None:
        """Move."""
        self._do("move", name, directory, new_name, new_directory)

    def exchange(self, name: str, directory: int, other_name: str, other_directory: int) -> None:
        """Exchange."""
        self._do("exchange", name, directory, other_name, other_directory)

    def lock(self, fd: int) -> None:
        """Lock."""
        self._do("lock", fd)

    def lock_byte(self, fd: int, number: int) -> None:
        """Lock a byte."""
        self._do("lock_byte", fd, number)

    def unlock_byte(self, fd: int, number: int) -> None:
        """Unlock a byte."""
        self._do("unlock_byte", fd, number)

    def scan(self, fd: int) -> Iterator[tuple[str, bool, bool]]:
        """List the files a piece at a time."""
        return self._do("scan", fd)

    def regular_files(self, fd: int) -> list[str]:
        """List the files."""
        return self._do("regular_files", fd)

    def directories(self, fd: int) -> list[str]:
        """List the directories."""
        return self._do("directories", fd)


class Mounted(WithoutSyncs):
    """The real system calls, on a file system that says it is of another type."""

    def __init__(self, kind: int | None) -> None:
        """Say the type's number."""
        self.kind = kind

    def file_system_type(self, fd: int) -> int | None:
        """Return it."""
        return self.kind


class WithoutRenameFlags(SystemCalls):
    """A file system whose renames know no flags: it can neither refuse to replace nor exchange."""

    def _rename(self, name: str, directory: int, new_name: str, new_directory: int, flag: int) -> bool:
        return False


def _of(fd: int) -> str:
    """Return the path of an open descriptor (Linux)."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError as error:
        if error.errno == errno_codes.ENOENT:
            return f"<closed {fd}>"
        raise
