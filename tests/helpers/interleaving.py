"""Several owners in one process, of whom one runs at a time, from call to call: a schedule says who, and who dies.

Each owner is a thread with a store of its own. It waits before every system call that others could notice, or that
could notice what others do, until it is told to go on; so a schedule is all that decides what happens, and the same
one does the same again. (Calls that only touch an open file of its own, and the directories of the spool, which nobody
changes, commute with all that others do: there is no need to wait before them.)

An owner that is killed makes no further call: its descriptors are closed, as the kernel does, which drops its locks,
and what its code still does while an exception passes through it comes to nothing.

For the library's table of locks, each owner is a process: otherwise one that waits within the table's mutex would keep
all others from their locks.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from helpers.syscalls import NEVER_FAIL, HookedCalls, words_of
from trio_multispool.storage.directory.disk import locks
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

_SHARED: Final = ("unlink", "move", "exchange", "lock", "unlock", "names", "regular_files")
"""Calls that others may notice, or that notice what others do, whatever they are about."""
_LOOKS: Final = ("open", "stat", "names", "regular_files")
"""Calls that change nothing, but for an `open` that makes a file."""
_MUCH_TOO_LONG: Final = 60
"""Seconds. No owner computes for so long between two calls: it must be waiting for what never comes."""


class Killed(BaseException):
    """Goes through an owner that has been killed."""


class _OwnCalls(HookedCalls):
    """The system calls of one owner."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        owner = self._owner
        if owner.dead:
            if call in NEVER_FAIL:
                return None
            raise Killed
        if _is_shared(call, arguments):
            owner.wait(call, arguments)
        if call == "close":
            owner.descriptors.discard(arguments[0])
        answer = perform()
        if call in ("open", "open_root"):
            owner.descriptors.add(answer)
        return answer


def _is_shared(call: str, arguments: tuple[Any, ...]) -> bool:
    if call in ("open", "stat"):
        name: str = arguments[0]
        return name.rpartition(".")[2] in Owners.names
    return call in _SHARED


class _Tables:
    """Stands for the library's table of locks: each thread has one of its own."""

    def __init__(self) -> None:
        self._own = threading.local()

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self._own, "table"):
            self._own.table = locks._Table()
        return getattr(self._own.table, name)


class Owner:
    """A thread that does what `program(storage)` says, one call at a time."""

    def __init__(self, number: int, path: Path, program: Callable[[Owner], None], trace: list[str]) -> None:
        """Open a store, and get ready to begin."""
        self.number = number
        self.descriptors: set[int] = set()
        self.dead = False
        self.ended = False
        self.failure: BaseException | None = None
        self._program = program
        self._trace = trace
        self._go, self._waits = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._waits.acquire()
        self._calls, self._counts = 0, "call"
        """How many of what it may make before it waits again."""
        self._thread = threading.Thread(target=self._run, name=f"owner {number}")
        self.storage = DirectoryStorage.open_unsafe(path, calls=_OwnCalls(self))
        self._thread.start()
        self._until_it_waits()

    def _run(self) -> None:
        try:
            self._pause()
            self._program(self)
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  # raised in the test
            self.failure = error
        finally:
            self._exit()
            self._waits.release()

    def wait(self, call: str, arguments: tuple[Any, ...]) -> None:
        """Wait before a call, for the owner's next turn; for others, and before it has begun, do nothing."""
        if threading.current_thread() is self._thread:
            words = words_of(call, arguments)
            changes = call not in _LOOKS or words.startswith("create")
            if self._counts == "call" or (self._counts == "change" and changes):
                self._pause()
            self._trace.append(f"owner {self.number}: {words}")

    def _pause(self) -> None:
        if self._calls > 1:
            self._calls -= 1
            return
        self._waits.release()
        self._go.acquire()
        if self.dead:
            raise Killed

    def _until_it_waits(self) -> None:
        assert self._waits.acquire(timeout=_MUCH_TOO_LONG), f"owner {self.number} hangs after {self._trace[-1:]}"

    def rest(self) -> None:
        """Say, in the program, that something is finished: a good moment for others to do something."""
        if self._counts == "rest":
            self._pause()

    def run(self, number: int, counts: str) -> None:
        """Let it go on to before its n-th `call` from here, or `change`, or `rest`; at most to its end."""
        if not self.ended:
            self._calls, self._counts = number, counts
            self._go.release()
            self._until_it_waits()

    def kill(self) -> None:
        """Kill it, wherever it is."""
        if not self.ended:
            self._trace.append(f"owner {self.number} is killed")
            self._exit()
            self._go.release()
            self._until_it_waits()

    def _exit(self) -> None:
        """End as a process does: whatever is open is closed."""
        self.ended = self.dead = True
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()

    def join(self) -> None:
        """Wait until the thread has gone."""
        self._thread.join()


class Owners:
    """Some owners of one spool; put `with` around them, which kills those that are left."""

    names: tuple[str, ...] = ("one", "two")
    """The names of entries that there may be."""

    def __init__(self, path: Path, programs: list[Callable[[Owner], None]]) -> None:
        """Start them; each waits before its beginning."""
        self.trace: list[str] = []
        self.owners: list[Owner] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self._kill_all)
            for number, program in enumerate(programs):
                self.owners.append(Owner(number, path, program, self.trace))
            undo.pop_all()

    def __enter__(self) -> Self:
        """Return them."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave none behind."""
        self._kill_all()

    def _kill_all(self) -> None:
        for owner in self.owners:
            owner.kill()
            owner.join()

    def run(self, number: int, calls: int = sys.maxsize, counts: str = "call") -> None:
        """Let one owner go on for so many calls, changes or rests; or to its end, if it still lives."""
        owner = self.owners[number % len(self.owners)]
        owner.run(calls, counts)
        if owner.failure is not None:
            failure, owner.failure = owner.failure, None
            raise failure

    def kill(self, number: int) -> None:
        """Kill one."""
        self.owners[number % len(self.owners)].kill()


@contextlib.contextmanager
def like_processes() -> Iterator[None]:
    """Let each thread have a table of locks of its own."""
    table = locks._table
    locks._table = _Tables()  # type: ignore[assignment]
    try:
        yield
    finally:
        locks._table = table
