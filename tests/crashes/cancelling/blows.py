"""Blows: all the ways in which what a task does may be cut short, at random moments, several at once.

Theory. A blow surrounds a deed. It says by a function whether it has *struck*, and knows what must follow. What a scope
cancelled goes on behind it undisturbed, unless a blow around it has struck too. A native cancellation that has struck
must leave the deed as an exception: if the deed ends normally, somebody has swallowed it. Both may be replaced by an
exception of the deed's own, `Thunder`, as a failing task group does. Notes that an operation put on a cancellation are
still there when it leaves the deed, whatever blocks it came through.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from cancelling.places import PLACE, Thunder, at, words_of
from cancelling.records import notes_of
from trio_multispool.threads.loop import apart

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterator

    from cancelling.rounds import Round

MOMENTS: Final = (0.001, 0.003, 0.01)
"""How long until a blow strikes, in seconds, on average, for one client or another."""


MOST: Final = 3
"""How many blows befall a deed at once, at the most; inside of it, there are fewer."""


class Blows:
    """The blows that befall one client."""

    def __init__(self, of: Round, chance: random.Random, *, in_main_task: bool) -> None:
        """Begin with none under way."""
        self.noted: list[str] = []
        """The notes of operations whose cancellation is on its way out."""
        self._round = of
        self._chance = chance
        self._mean = chance.choice(MOMENTS)
        self._kinds = [self._deadline, self._failing_deadline, self._scope, self._two_scopes, self._shield, self._group]
        self._native = [self._timeout, self._own_task, self._task_group, self._wait_for]
        if of.native:
            self._kinds += [self._task, self._task, *self._native, self._timeout]
        if in_main_task:  # it is the runner that cancels it, when an interrupt comes, as for any program
            self._kinds = [kind for kind in self._kinds if kind != self._own_task]

    async def befall(self, deed: Callable[[], Awaitable[None]], most: int = MOST) -> None:
        """Do something under several blows, or none; what they do not absorb passes."""
        for _ in range(min(most, self._chance.choice([0, 0, 0, 1, 1, 1, 1, 2, 2, 3]))):
            deed = functools.partial(self._under, self._chance.choice(self._kinds), deed)
        inner = most < MOST  # then the blocks of a deed are around it, which have scopes too
        with at(in_scopes=inner or PLACE.get().mark is not None):
            await deed()

    async def _under(self, kind: Callable[[Any], Awaitable[None]], deed: Callable[[], Awaitable[None]]) -> None:
        self._round.records.counts[kind.__name__.strip("_").replace("_", " ")] += 1
        before = self._cancelling()
        mark = len(self.noted)
        with at(mark=mark):
            if kind not in self._native:
                with at(in_scopes=True):
                    await kind(deed)
            elif kind in (self._task_group, self._wait_for) or PLACE.get().in_scopes:
                await self._in_a_task(functools.partial(kind, deed))
            else:
                await kind(deed)
        del self.noted[mark:]  # absorbed
        if self._cancelling() != before and not self.is_struck():
            self._fault("left cancelled", f"{kind.__name__}: {self._cancelling()} instead of {before}")

    # What blows share

    def _fault(self, kind: str, why: object) -> None:
        self._round.records.fault(kind, "a blow", why)

    def _cancelling(self) -> int:
        if not self._round.native:
            return 0
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    def is_struck(self, *, natively: bool = False) -> bool:
        """Tell whether a blow around this place has struck, or the round is being interrupted."""
        return self._round.interrupted or any(
            struck() for struck, is_native in PLACE.get().struck if is_native or not natively
        )

    @contextlib.contextmanager
    def striking(self, struck: Callable[[], bool], *, natively: bool = False) -> Iterator[None]:
        """Surround what something may cut short, in one way or the other; `struck` tells whether it has."""
        with at(struck=(*PLACE.get().struck, (struck, natively))):
            yield

    async def _watched(
        self, deed: Callable[[], Awaitable[None]], struck: Callable[[], bool], *, natively: bool = False
    ) -> None:
        """Do it, and see that a cancellation that leaves it has all notes."""
        mark = len(self.noted)
        with self.striking(struck, natively=natively):
            try:
                await deed()
            except asyncio.CancelledError as error:
                missing = set(self.noted[mark:]) - set(notes_of(error))
                if missing:
                    self._fault("lost note", f"{sorted(missing)} is not on {error!r} with {notes_of(error)}")
                raise

    async def _watched_in_its_task(self, deed: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        await self._watched(deed, lambda: task.cancelling() > before, natively=True)

    async def _undisturbed(self) -> None:
        """Do a few things that nothing may cut short, unless a blow has struck that is still around."""
        del self.noted[PLACE.get().mark :]  # what was on its way out has been absorbed
        try:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            if self._round.native:
                await asyncio.sleep(0)
            if self._chance.random() < 0.2:
                (await self._round.spool.entries(self._round.queues[0])).unwrap()
        except BaseException as error:
            if not self.is_struck():
                self._fault("doubled", f"{error!r} came after a cancellation that was caught")
            raise

    def _moment(self) -> float:
        return self._chance.choice([0, 1, 1]) * self._chance.expovariate(1 / self._mean)

    def _at_a_moment(self, strike: Callable[[], object]) -> None:
        if self._chance.random() < 0.5:
            self._round.later(strike, turns=self._chance.randrange(30))
        else:
            self._round.later(strike, seconds=self._moment())

    async def _thunder(self, moment: float, turns: int) -> None:
        await anyio.sleep(moment)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        raise Thunder

    # Scopes

    async def _deadline(self, deed: Any) -> None:
        with anyio.move_on_after(self._moment()) as scope:
            await self._watched(deed, lambda: scope.cancel_called)
        if scope.cancelled_caught:
            await self._undisturbed()

    async def _failing_deadline(self, deed: Any) -> None:
        caught = False
        try:
            with anyio.fail_after(self._moment()) as scope:
                await self._watched(deed, lambda: scope.cancel_called)
        except TimeoutError:
            caught = True
        if caught:
            await self._undisturbed()

    async def _scope(self, deed: Any) -> None:
        with anyio.CancelScope() as scope:
            self._at_a_moment(scope.cancel)
            await self._watched(deed, lambda: scope.cancel_called)
        if scope.cancelled_caught:
            await self._undisturbed()

    async def _two_scopes(self, deed: Any) -> None:
        """Cancel both at the same time, in either order."""
        with anyio.CancelScope() as outer:
            with anyio.CancelScope() as inner:
                scopes = [outer, inner]
                self._chance.shuffle(scopes)
                self._at_a_moment(lambda: [scope.cancel() for scope in scopes])
                await self._watched(deed, lambda: outer.cancel_called)
            await anyio.lowlevel.checkpoint()
        if outer.cancelled_caught:
            await self._undisturbed()

    async def _shield(self, deed: Any) -> None:
        """Keep the scopes outside away; its own is cancelled."""
        with anyio.move_on_after(self._moment(), shield=True) as scope:
            await self._watched(deed, lambda: scope.cancel_called)
        if scope.cancelled_caught:
            await self._undisturbed()

    async def _group(self, deed: Any) -> None:
        """Have another task of the same group fail."""
        mark = len(self.noted)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._thunder, self._moment(), self._chance.randrange(20))
                try:
                    if self._chance.random() < 0.5:
                        await self._watched(deed, lambda: tasks.cancel_scope.cancel_called)
                    else:
                        with self.striking(lambda: True):
                            done = anyio.Event()
                            tasks.start_soon(apart, functools.partial(self._and_set, deed, done))
                            await done.wait()
                finally:
                    # Else the end of the group might swallow what a scope sends that is around it, behind a native one.
                    tasks.cancel_scope.shield = True
                    tasks.cancel_scope.cancel()
        finally:
            del self.noted[mark:]  # a group need not pass them on

    async def _and_set(self, deed: Any, done: anyio.Event) -> None:
        try:
            await self._watched(deed, lambda: True)
        finally:
            done.set()

    # asyncio's own

    async def _timeout(self, deed: Any) -> None:
        expiring = asyncio.timeout(self._moment())
        caught = False
        try:
            async with expiring:
                await self._watched(deed, expiring.expired, natively=True)
                if expiring.expired():
                    self._fault("swallowed", f"the cancellation by asyncio.timeout around {words_of(deed)}")
        except TimeoutError:
            caught = True
        if caught:
            await self._undisturbed()

    async def _in_a_task(self, deed: Callable[[], Awaitable[None]]) -> None:
        """Do it in a task of its own, and pass on what it raises.

        In one task, what absorbs native cancellations cannot be in a scope. If both strike at the same time, there is
        but one exception, and neither takes it for its own. That is so without any library of ours. The groups of
        asyncio swallow a second cancellation while they wait for their tasks; and `wait_for`, until 3.12, one that
        comes when what it waits for has just ended.
        """
        mark = len(self.noted)
        hits: list[bool] = []
        with at(in_scopes=False), self.striking(lambda: bool(hits), natively=True):
            task = asyncio.ensure_future(deed())
            try:
                await self.end_of(task, hits, again=False)
            finally:
                del self.noted[mark:]
        await task

    async def _wait_for(self, deed: Any) -> None:
        caught = False
        task = asyncio.ensure_future(self._watched_in_its_task(deed))
        try:
            await asyncio.wait_for(task, self._moment())
        except TimeoutError:
            caught = True
        finally:
            await self.end_of(task, [])  # until 3.12, it does not wait if it is cancelled when the time is just over
            _ = task.cancelled() or task.exception()
        if caught:
            await self._undisturbed()

    async def _task_group(self, deed: Any) -> None:
        """Have another task of the same group of asyncio's fail."""
        before = self._cancelling()
        async with asyncio.TaskGroup() as tasks:
            failing = tasks.create_task(self._thunder(self._moment(), self._chance.randrange(20)))
            if self._chance.random() < 0.5:
                await self._watched(deed, lambda: self._cancelling() > before, natively=True)
                if self._cancelling() > before and not self.is_struck():
                    self._fault("swallowed", f"the cancellation by asyncio.TaskGroup around {words_of(deed)}")
            else:
                with self.striking(lambda: True):
                    child = tasks.create_task(self._watched_in_its_task(deed))
                    await asyncio.wait([child])
            failing.cancel()

    async def _own_task(self, deed: Any) -> None:
        """Cancel the task itself, whose program catches that and goes on, as `Task.uncancel` is for."""
        task = asyncio.current_task()
        assert task is not None
        hits: list[bool] = []
        is_open = True

        def strike() -> None:
            if is_open:
                hits.append(task.cancel())

        self._several_times(strike)
        try:
            try:
                await self._watched(deed, lambda: bool(hits), natively=True)
            finally:
                is_open = False
                for _ in hits:
                    task.uncancel()
            if hits:
                self._fault("swallowed", f"a cancellation of the task itself around {words_of(deed)}")
        except asyncio.CancelledError:
            if self.is_struck(natively=True) or not hits:
                raise  # it may be that of another; what a scope sent comes again
        if hits:
            await self._undisturbed()

    async def _task(self, deed: Any) -> None:
        """Cancel another task, once or several times; in half of the cases a scope in it too, at about that time."""
        mark = len(self.noted)
        hits: list[bool] = []
        passed_on: list[bool] = []
        scope = anyio.CancelScope()
        both = self._chance.random() < 0.5

        async def work() -> None:
            with scope:
                await self._watched(deed, lambda: scope.cancel_called)
            if scope.cancelled_caught:
                await self._undisturbed()

        with self.striking(lambda: bool(hits or passed_on), natively=True), at(in_scopes=True):
            task = asyncio.ensure_future(work())
            self._strike_at_a_moment(task, hits, scope if both else None)
            try:
                await self.end_of(task, passed_on)
            finally:
                del self.noted[mark:]
        if task.cancelled():
            if not hits and not passed_on:
                self._fault("doubled", "a task that nobody cancelled ended as cancelled")
            return
        if (error := task.exception()) is not None:
            raise error
        if hits:
            self._fault(
                "swallowed",
                f"a cancellation of a task, {len(hits)} times, around {words_of(deed)}",
            )

    def _strike_at_a_moment(self, task: asyncio.Task[None], hits: list[bool], scope: anyio.CancelScope | None) -> None:
        """Cancel a task once or several times, and a scope in it if there is one, at once or not, in any order."""

        def strike() -> None:
            if task.cancel():
                hits.append(True)

        if scope is None:
            self._several_times(strike)
            return
        strikes: list[Callable[[], object]] = [*[strike] * self._chance.choice([1, 1, 2, 3]), scope.cancel]
        self._chance.shuffle(strikes)
        if self._chance.random() < 0.5:
            self._at_a_moment(lambda: [each() for each in strikes])
        else:
            for each in strikes:
                self._at_a_moment(each)

    def _several_times(self, strike: Callable[[], object]) -> None:
        """Strike once or several times, at moments of any kind, or turn after turn: each step on a way out is met."""
        if self._chance.random() < 0.4:
            moment = self._moment()
            for turn in range(20):
                self._round.later(strike, seconds=moment, turns=turn)
            return
        for _ in range(self._chance.choice([1, 1, 2, 3])):
            self._at_a_moment(strike)

    async def end_of(self, task: asyncio.Task[None], hits: list[bool], *, again: bool = True) -> None:
        """Wait for a task; what cancels this one cancels that one too (`again`, if so), and is raised at its end.

        Each time that it was cancelled, this is added to `hits`.
        """
        cancelled: BaseException | None = None
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            hits.append(True)
            task.cancel()
        with anyio.CancelScope(shield=True):
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:
                    if again:
                        task.cancel()
        if cancelled is not None:
            if not task.cancelled():
                task.exception()  # looked at: it is not this task's affair any more
            raise cancelled
