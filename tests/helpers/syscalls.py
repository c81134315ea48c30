"""System calls with something between them and the store: to count, record, fail, or kill at each of them.

`helpers.calls` makes chosen calls on chosen paths fail; here every call of `SystemCalls`, of whatever kind, passes one
place, so that a test can go through all calls of an operation without knowing them.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = tuple(name for name, value in vars(SystemCalls).items() if callable(value) and not name.startswith("_"))
"""All system calls that there are."""

NEVER_FAIL = ("close", "unlock", "unlock_byte")
"""Calls that give something back: the kernel does not refuse them for want of room, descriptors or permission."""


class HookedCalls(SystemCalls):
    """The real system calls; each passes `around`."""

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Make a call, or not."""
        return perform()


def _hooked(call: str) -> Callable[..., Any]:
    def pass_by(self: HookedCalls, *arguments: Any) -> Any:
        return self.around(call, arguments, lambda: getattr(super(HookedCalls, self), call)(*arguments))

    return pass_by


for _call in METHODS:
    setattr(HookedCalls, _call, _hooked(_call))


def words_of(call: str, arguments: tuple[Any, ...]) -> str:
    """Say a call in words: `sync send`, `move .tmp/N -> send/N`, with paths relative to the spool's directory."""
    if call in ("move", "exchange", "link"):
        name, directory, new_name, new_directory = arguments
        return f"{call} {_path(directory, name)} -> {_path(new_directory, new_name)}"
    if call == "open":
        name, flags, directory, *_ = *arguments, None
        return f"{'create' if flags & os.O_CREAT else 'open'} {_path(directory, name)}"
    if call in ("stat", "unlink", "remove_directory", "touch"):
        return f"{call} {_path(arguments[1], arguments[0])}"
    if call == "make_directory":
        return f"{call} {_path(arguments[1], arguments[0])}"
    if not arguments:
        return call
    return f"{call} {arguments[0] if isinstance(arguments[0], str) else _path(arguments[0])}"


def _path(directory: int | None, name: str = "") -> str:
    """Return a path below the spool's directory, which tests call `spool`."""
    base = "" if directory is None else os.readlink(f"/proc/self/fd/{directory}")
    return os.path.join(base, name, "").rpartition("/spool/")[2].rstrip("/") or "."


class Recorder(HookedCalls):
    """Writes down every call, in words."""

    def __init__(self) -> None:
        """Begin with none."""
        self.made: list[str] = []

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Write it down."""
        self.made.append(words_of(call, arguments))
        return perform()

    def take(self, *calls: str) -> list[str]:
        """Return what was made of those calls since the last time."""
        made, self.made = self.made, []
        return [words for words in made if not calls or words.split()[0] in calls]


class Unplugged(HookedCalls):
    """Makes no call at all, once it is unplugged: whatever changes then, changed behind its back."""

    def __init__(self) -> None:
        """Begin plugged in."""
        self.unplugged = False

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Refuse, but give back what is held."""
        if self.unplugged and call not in NEVER_FAIL:
            raise OSError(errno.EIO, "unplugged")
        return perform()


class Countdown(HookedCalls):
    """Does something at the n-th call after `arm`."""

    def __init__(self) -> None:
        """Begin unarmed."""
        self._left = 0
        self.met = ""
        """The n-th call in words, if it came to that."""

    def arm(self, n: int) -> None:
        """Count from here; the next call is the first."""
        self._left = n
        self.met = ""

    def disarm(self) -> None:
        """Count no more."""
        self._left = 0

    def counts(self, call: str, arguments: tuple[Any, ...]) -> bool:
        """Tell whether a call counts."""
        return True

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Count."""
        if not self._left or not self.counts(call, arguments):
            return perform()
        self._left -= 1
        if self._left:
            return perform()
        self.met = words_of(call, arguments)
        return self.act(perform)

    def act(self, perform: Callable[[], Any]) -> Any:
        """Do it."""
        raise NotImplementedError


class KillingCalls(Countdown):
    """Kills the process right before the n-th call."""

    def act(self, perform: Callable[[], Any]) -> Any:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


class KillingAndTelling(KillingCalls):
    """Likewise, and says before which call it was, in words, on a pipe."""

    def __init__(self, pipe: int) -> None:
        """Begin unarmed."""
        super().__init__()
        self._pipe = pipe

    def act(self, perform: Callable[[], Any]) -> Any:
        """Tell, and die."""
        os.write(self._pipe, self.met.encode())
        super().act(perform)


class KillingWithoutFlags(KillingAndTelling):
    """Likewise, on a file system whose renames know no flags: a move is a link and an unlink, with time between."""

    def move(self, name: str, directory: int, new_name: str, new_directory: int) -> None:
        """`SystemCalls.move`, as two calls that count."""

        def link() -> None:
            os.link(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False)

        self.around("link", (name, directory, new_name, new_directory), link)
        self.unlink(name, directory)

    def _rename(self, name: str, directory: int, new_name: str, new_directory: int, flag: int) -> bool:
        return False


class StoppingCalls(KillingAndTelling):
    """Stops the process right before the n-th call, having told before which; then it goes on where it was."""

    def act(self, perform: Callable[[], Any]) -> Any:
        """Tell, stop, and do it."""
        os.write(self._pipe, self.met.encode())
        os.kill(os.getpid(), signal.SIGSTOP)
        return perform()


class ForkingCalls(HookedCalls):
    """Forks a child before every call, once that is wanted; it lives until the test closes its standard input."""

    def __init__(self) -> None:
        """Begin without."""
        self.wanted = False
        self.children: list[int] = []

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Fork, and make the call."""
        if self.wanted:
            ready, tell = os.pipe()
            process = os.fork()
            if process == 0:
                os.write(tell, b"!")
                os.close(ready)
                os.close(tell)
                os.close(1)  # the test must see the end of its pipe when the parent dies
                while os.read(0, 1):
                    pass
                os._exit(0)
            os.read(ready, 1)  # it lets go of what it inherits as soon as it runs: not before
            os.close(ready)
            os.close(tell)
            self.children.append(process)
        return perform()


class FailingAt(Countdown):
    """Makes the n-th call fail, without effect or after it."""

    def __init__(self, code: int, *, after_effect: bool = False, only: tuple[str, ...] = ()) -> None:
        """Fail with `code`; count all calls that can fail, or only those."""
        super().__init__()
        self.code = code
        self.after_effect = after_effect
        self._only = only

    def counts(self, call: str, arguments: tuple[Any, ...]) -> bool:
        """Count."""
        return call in self._only if self._only else call not in NEVER_FAIL

    def act(self, perform: Callable[[], Any]) -> Any:
        """Fail."""
        if self.after_effect:
            perform()
        raise OSError(self.code, os.strerror(self.code))


class Interleaved(HookedCalls):
    """Lets somebody else do something right before the next call of a kind."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._call = ""
        self._act: Callable[[], None] | None = None

    def before(self, call: str, act: Callable[[], None]) -> None:
        """Do `act` once, right before the next such call."""
        self._call, self._act = call, act

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Step aside."""
        if self._act is not None and call == self._call:
            act, self._act = self._act, None
            act()
        return perform()
