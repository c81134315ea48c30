"""A reader of a `Source`, its gate, and threads that are held: what it takes to find the next entry of any store."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from helpers.stores import DATA, OLD, enqueue, nothing, release, remove
from trio_multispool import Durability
from trio_multispool.storage.source import Given, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.source import Next, NothingLeft

CALLS = 2000
"""No look of these tests needs as many calls."""

TRIES = 10_000
"""No look of these tests tries as many entries."""

PATIENCE = 60.0
"""For how long a thread of a test is waited for that has died or hangs, in seconds."""


def put(
    store: Storage, *names: str, metadata: bytes = OLD, due_at: float | None = None, queue: str = "send"
) -> list[str]:
    """Enqueue an entry under each name; return the names."""
    for name in names:
        enqueue(store, queue, name, metadata, DATA, durability=Durability.PROCESS, due_at=due_at)
    return list(names)


class Ticket:
    """An admission: no two are the same."""

    def __init__(self, name: str) -> None:
        """Be for one entry."""
        self.name = name


class Door:
    """A gate that does what a test tells it, and remembers all that it was asked."""

    def __init__(self) -> None:
        """Begin with admitting everything."""
        self.ignored: set[str] = set()
        self.full: set[str] = set()
        self.refused: set[str] = set()
        self.raises: dict[str, BaseException] = {}
        self.before: dict[str, Callable[[], object]] = {}
        """What is done once before an entry is admitted, by its name."""
        self.reads = False
        """Whether the metadata are read."""
        self.asked: list[str] = []
        """The names for which admission was asked."""
        self.read: dict[str, bytes] = {}
        self.admitted: list[Any] = []
        self.left: list[Any] = []
        self.listings: list[list[str]] = []

    admits: Any = None
    """Nothing is admitted without being asked for."""

    def is_full(self, name: str) -> bool:
        """Tell what is full."""
        return name in self.full

    def admit(self, name: str, read: Callable[[], bytes]) -> Any:
        """Admit what is neither refused nor raises."""
        self.asked.append(name)
        self.before.pop(name, nothing)()
        if self.reads:
            self.read[name] = read()
        if name in self.raises:
            raise self.raises[name]
        if name in self.refused:
            return None
        self.admitted.append(self.ticket(name))
        return self.admitted[-1]

    def ticket(self, name: str) -> Any:
        """Make an admission."""
        return Ticket(name)

    def leave(self, admission: Any) -> None:
        """Note it."""
        self.left.append(admission)

    def listed(self, names: Iterable[str]) -> None:
        """Note it."""
        self.listings.append(list(names))

    @property
    def inside(self) -> list[str]:
        """The names of those that were admitted and have not left, sorted; nobody has left twice."""
        assert len(self.left) == len({id(each) for each in self.left}), "an admission has left twice"
        assert {id(each) for each in self.left} <= {id(each) for each in self.admitted}
        return sorted(each.name for each in self.admitted if each not in self.left)


class Reader:
    """One reader of a queue: asks its source until something comes of it, and keeps what it gets."""

    def __init__(
        self,
        store: Storage,
        queue: str = "send",
        *,
        sorts_last: bool = True,
        given: Given | None = None,
        door: Door | None = None,
    ) -> None:
        """Begin with nothing; `given` makes it a pass."""
        self.store = store
        self.source = store.source(queue, sorts_last=sorts_last)
        self.given = given
        self.door = Door() if door is None else door
        self.held: list[tuple[Claim, Any]] = []
        self._tries = 0
        self.passed_over: list[str] | None = None
        """The names of the entries that could not be read; `None`: all can be."""

    def look(self) -> Look:
        """Begin a look."""
        return Look(self.given, waits=False)

    def call(
        self,
        look: Look | None = None,
        most: int | Callable[[], int] = 1,
        *,
        stopped: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> Next[Any]:
        """Ask once."""

        def counting() -> bool:
            self._tries += 1
            assert self._tries < TRIES, "a look does not come to an end"
            return stopped()

        how_many = most if callable(most) else lambda: most
        options = {"before_commit": nothing, "gate": self.door} | options
        found = self.source.claim(self.look() if look is None else look, how_many, stopped=counting, **options)
        if self.passed_over is None:
            assert found.unreadable == []
        else:
            self.passed_over += [error.name for error in found.unreadable]
        assert found.finished is None or not found.claims
        self.held += found.claims
        return found

    def ask(self, look: Look | None = None, most: int | Callable[[], int] = 1, **options: Any) -> Next[Any]:
        """Ask with one look until there are claims, or until it is finished."""
        look, self._tries = self.look() if look is None else look, 0
        for _ in range(CALLS):
            found = self.call(look, most, **options)
            if found.claims or found.finished is not None:
                return found
        raise AssertionError("a look does not come to an end")

    def take(self, most: int | Callable[[], int] = 1, **options: Any) -> list[str]:
        """Return the names of the entries that one look gives; empty if nothing is left."""
        return [claim.name for claim, _ in self.ask(None, most, **options).claims]

    def take_all(self) -> list[str]:
        """Take one entry after the other until nothing is left, and return their names."""
        names: list[str] = []
        while taken := self.take():
            names += taken
            assert len(names) < CALLS, "the entries do not come to an end"
        return names

    def take_at_last(self) -> list[str]:
        """Take one entry, also if the store notices it only after a while: ask again and again, for some time."""
        for _ in range(200_000):
            if taken := self.take():
                return taken
        raise AssertionError("nothing comes")

    def nothing_left(self, **options: Any) -> NothingLeft:
        """Insist that nothing is left."""
        found = self.ask(**options)
        assert [claim.name for claim, _ in found.claims] == []
        assert found.finished is not None
        return found.finished

    def release(self) -> None:
        """Release all that is held, as its owner does that had it."""
        held, self.held = self.held, []
        for claim, _ in held:
            release(self.store, claim)

    def remove(self) -> None:
        """Remove all that is held."""
        held, self.held = self.held, []
        for claim, _ in held:
            remove(self.store, claim, durability=Durability.PROCESS)

    def take_back(self) -> None:
        """Take back all that is held, as if nobody had had it."""
        held, self.held = self.held, []
        self.source.take_back(held, self.look(), self.door)


class Aside:
    """Something that is done in a thread of its own."""

    def __init__(self, act: Callable[[], Any]) -> None:
        """Begin with it."""
        self._act = act
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._act()
        except BaseException as error:  # noqa: BLE001  # raised in the thread that asks for the result
            self._error = error

    def result(self) -> Any:
        """Wait for its end; return what it returned, or raise what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "a thread hangs"
        if self._error is not None:
            raise self._error
        return self._result


def side_by_side(*acts: Callable[[], Any]) -> list[Any]:
    """Do several things in threads that begin together, and return what each returned."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE)
        return act()

    running = [Aside(lambda act=act: run(act)) for act in acts]
    return [each.result() for each in running]


class Halt:
    """A place where a thread waits until it is let go."""

    def __init__(self) -> None:
        """Begin with nobody there."""
        self._there, self._open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Wait here."""
        self._there.set()
        assert self._open.wait(PATIENCE), "nobody let the thread go"

    def reached(self) -> None:
        """Wait until a thread is there."""
        assert self._there.wait(PATIENCE), "no thread came"

    def go(self) -> None:
        """Let it go."""
        self._open.set()


@contextlib.contextmanager
def halted(act: Callable[[Halt], Any]) -> Iterator[Callable[[], Any]]:
    """Do something in a thread, for the length of the block halted where it calls what it is given.

    Yields a function that lets it go, and returns what it returned.
    """
    halt = Halt()
    thread = Aside(lambda: act(halt))

    def go_on() -> Any:
        halt.go()
        return thread.result()

    try:
        halt.reached()
        yield go_on
    finally:
        halt.go()
