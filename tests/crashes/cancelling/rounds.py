"""The storm: rounds, each with a spool, an event loop and clients of its own; and what must be so after each."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import gc
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
import trio

from cancelling.clients import Client
from cancelling.places import Thunder
from cancelling.records import Records
from cancelling.watchdog import Watchdog, asyncio_tasks, format_stack, trio_tasks
from cancelling.workers import SHARED
from helpers.calls import WithoutSyncs
from helpers.inside import open_descriptors, rest_of, threads_of, waiters_of
from helpers.ledger import Stamp
from helpers.spools import Mail, load_spool, make_spool
from helpers.stores import make_store, sweep
from helpers.syscalls import NEVER_FAIL, HookedCalls
from trio_multispool import Durability, Spoolable
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.threads.loop import apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOOPS: Final = ("trio", "asyncio", "uvloop", "eager")
STORMY: Final = Spoolable(queues=Mail, metadata=Stamp, data=bytes)
CLIENTS: Final = 4
DEEDS: Final = 8
"""How much each client does in a round."""
INTERRUPTED: Final = 0.15
"""In what share of the rounds there is an interrupt."""
PAUSE: Final = 0.002
"""How long a system call is made to take at most, in seconds."""
DAWDLES: Final = (0, 0.03, 0.15)
"""What share of them, in one round or another."""


class Dawdling(HookedCalls, WithoutSyncs):
    """The system calls, unsynced, some of them slow, so that cancellations come at all points between them."""

    def __init__(self, chance: random.Random) -> None:
        """Dawdle as a round does."""
        self._chance = chance
        self._share = chance.choice(DAWDLES)
        self._mutex = threading.Lock()
        self.before_writing: dict[bytes, Callable[[], None]] = {}
        """What to do, once and in the thread, before something is written that contains these bytes."""

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Make a call."""
        if call == "write" and self.before_writing:
            written = bytes(arguments[1][:200])
            for content in list(self.before_writing):
                if content in written and (act := self.before_writing.pop(content, None)) is not None:
                    act()
        with self._mutex:
            pause = self._chance.uniform(0, PAUSE) if self._chance.random() < self._share else 0
        if pause and call not in NEVER_FAIL:
            time.sleep(pause)
        return perform()


for _call in ("sync", "write_out", "sync_file_system"):
    setattr(
        Dawdling,
        _call,
        lambda self, *arguments, _call=_call: self.around(
            _call, arguments, lambda: getattr(WithoutSyncs, _call)(self, *arguments)
        ),
    )


class Round:
    """One round, while it runs."""

    def __init__(self, path: Path, seed: int, *, native: bool) -> None:
        """Choose what is to be."""
        self.records = Records()
        self.native = native
        """Whether the tasks are asyncio's."""
        self.queues = SHARED
        self.interrupted = False
        self.stood = ""
        """Where the main task stood when it was interrupted."""
        self.ended = False
        """Whether the clients came to their end."""
        self.spool: Any = None
        self._path = path
        self._chance = random.Random(seed)
        self._interrupts = self._chance.random() < INTERRUPTED
        self.attempts = self._chance.choice([1, 3, None])
        """How many attempts there are at an entry, under `retry=`."""
        self._level = self._chance.choice(list(Durability))
        self.calls = Dawdling(random.Random(self._chance.random()))
        self._tasks: Any = None

    async def open(self) -> Any:
        """Open the spool once more."""
        return await load_spool(self._path, STORMY, system_calls=self.calls, durability=self._level)

    def later(self, act: Callable[[], object], *, seconds: float = 0, turns: int = 0) -> None:
        """Do something after a while, in another task."""
        if self.native:  # not in a task of AnyIO's group: the caller may be a task that AnyIO does not know
            task = asyncio.ensure_future(self._later(act, seconds, turns))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._tasks.start_soon(self._later, act, seconds, turns)

    @trio.lowlevel.enable_ki_protection
    async def _later(self, act: Callable[[], object], seconds: float, turns: int) -> None:
        await anyio.sleep(seconds)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        act()

    def _interrupt(self) -> None:
        self.interrupted = True
        if self.native:
            self.stood = format_stack(self._main.get_coro())
        os.kill(os.getpid(), signal.SIGINT)

    @trio.lowlevel.enable_ki_protection  # so it is raised where the main task waits, and the records are kept whole
    async def run(self) -> None:
        """Have the clients do what they do, in the program's main task and in others."""
        options = {"system_calls": self.calls, "durability": self._level}
        async with await make_spool(self._path, STORMY, **options) as self.spool:
            try:
                if self.native:
                    asyncio.get_running_loop().set_exception_handler(self._complain)
                    self._tasks, self._main = set(), asyncio.current_task()
                    try:
                        await self._run_clients()
                    finally:
                        for task in list(self._tasks):
                            task.cancel()
                else:
                    async with trio.open_nursery() as self._tasks:
                        await self._run_clients()
                        self._tasks.cancel_scope.cancel()
                self.ended = True
            finally:
                self._check_rest()

    async def _run_clients(self) -> None:
        if self._interrupts:
            self.later(self._interrupt, seconds=self._chance.uniform(0, 0.1))
        clients = [
            Client(self, number, random.Random(self._chance.random()), in_main_task=number == 0)
            for number in range(CLIENTS)
        ]
        async with anyio.create_task_group() as tasks:
            for client in clients[1:]:
                tasks.start_soon(apart, functools.partial(client.run, DEEDS))
            await clients[0].run(DEEDS)

    def _complain(self, _loop: Any, context: dict[str, Any]) -> None:
        if not self.interrupted:
            self.records.fault("raised", context["message"], repr(context.get("exception")))

    def _check_rest(self) -> None:
        """See that nothing of the spool is at work or waits, though it is still open."""
        before = len(self.records.faults)
        if threads_of(self.spool):
            self.records.fault("at work", "the spool", f"{threads_of(self.spool)} operations are in threads")
        if waiters_of(self.spool):
            self.records.fault("waiting", "the spool", f"{len(waiters_of(self.spool))} readers wait")
        for what in rest_of(self.spool):
            self.records.fault("at work", "the spool", what)
        if len(self.records.faults) > before and self.native:
            for name, coroutine in asyncio_tasks(asyncio.get_running_loop()):
                self.records.fault("at work", name, "\n" + format_stack(coroutine))


class Storm:
    """Rounds on one kind of event loop, in a directory."""

    def __init__(self, directory: Path, loop: str, patience: float) -> None:
        """Begin with none; one that takes longer than `patience`, in seconds, ends the process."""
        self._directory = directory
        self._loop = loop
        self._counts: collections.Counter[str] = collections.Counter()
        self._rounds = self._interrupted = 0
        self._watchdog = Watchdog(patience)
        if loop != "trio":  # some of what an event loop opens stays open for the next
            with asyncio.Runner(loop_factory=self._make_loop) as runner:
                runner.run(anyio.lowlevel.checkpoint())
        gc.collect()
        gc.freeze()  # a round's garbage is found more quickly where there is nothing else
        self._began = time.monotonic()

    def rage(self, seed: int) -> list[str]:
        """Run one round, and return what was wrong, in lines."""
        path = self._directory / str(seed)
        self._watchdog.about = f"python -m cancelling --loop {self._loop} --seed {seed} --rounds 1"
        self._watchdog.feed()
        this = Round(path, seed, native=self._loop != "trio")
        before = _descriptors()
        self._run_whole(this)
        if _descriptors() != before:
            this.records.fault("left open", "descriptors", f"{before} before, {_descriptors()} after")
        with contextlib.closing(DirectoryStorage.open_unsafe(path)) as store:  # it recovers nothing else
            for name in this.records.left_to_recovery:
                store.recover_name(name)
        if this.interrupted:
            store = make_store(path)
            sweep(store)
            store.close()
        this.records.judge(path)
        shutil.rmtree(path)
        self._rounds += 1
        self._interrupted += this.interrupted
        self._counts += this.records.counts
        told: list[str] = []
        for fault in this.records.faults:
            told += [f"FAULT: {fault.kind}: {fault.about}: {fault.why}", *this.records.history(fault)]
        if told and this.interrupted:
            told.append("(The round was interrupted.)")
        return told

    def _run_whole(self, this: Round) -> None:
        """Run a round from its beginning to its end; all that is raised and warned of is a fault."""
        unraised: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sys.unraisablehook = lambda found: unraised.append(f"{found.exc_value!r} in {found.object!r}")
            try:
                self._run(this)
                if this.interrupted:
                    why = f"the interrupt; the main task stood at\n{this.stood}"
                    this.records.fault("swallowed", "the program", why)
            except BaseException as error:  # noqa: BLE001  # a fault, but for what came with an interrupt
                if not this.interrupted or not _comes_with_an_interrupt(error):
                    this.records.fault("raised", "the program", traceback.format_exc())
            finally:
                this.spool = None
                gc.collect()
                sys.unraisablehook = sys.__unraisablehook__
        if not this.interrupted:  # else what was in hand between two lines may have been dropped
            for each in unraised:
                this.records.fault("unraised", "the program", each)
            if not this.ended:
                this.records.fault("cancelled", "the program", "the clients did not come to their end")

    def _run(self, this: Round) -> None:
        if self._loop == "trio":
            trio.run(self._on_trio, this)
            return
        with asyncio.Runner(loop_factory=self._make_loop) as runner:
            runner.run(this.run())

    async def _on_trio(self, this: Round) -> None:
        root = trio.lowlevel.current_root_task()
        self._watchdog.tasks = functools.partial(trio_tasks, root)
        await this.run()

    def _make_loop(self) -> Any:
        if self._loop == "uvloop":
            import uvloop

            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        if self._loop == "eager":
            loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        self._watchdog.tasks = functools.partial(asyncio_tasks, loop)
        return loop

    def summary(self) -> Iterator[str]:
        """Yield what happened, in lines."""
        seconds = time.monotonic() - self._began
        speed = f"{self._rounds / seconds:.1f} a second"
        yield f"{self._loop}: {self._rounds} rounds, {self._interrupted} interrupted, {speed}"
        for what, count in sorted(self._counts.items()):
            yield f"{count:8} x {what}"


def _comes_with_an_interrupt(error: BaseException) -> bool:
    """Tell whether an exception may end a program that was interrupted.

    The runner of asyncio makes no interrupt of a cancellation if another one is counted at the same time; and what
    fails on purpose may take its place.
    """
    kinds = (KeyboardInterrupt, asyncio.CancelledError, Thunder, TimeoutError)
    return BaseExceptionGroup("", [error]).split(kinds)[1] is None


def _descriptors() -> collections.Counter[str]:
    """Count what is open, by kind."""
    found: collections.Counter[str] = collections.Counter()
    for fd in open_descriptors():
        try:
            found[os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0]] += 1
        except FileNotFoundError:  # that of the listing itself
            continue
    return found
