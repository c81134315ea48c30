"""Batches: what tasks enqueue, check out or settle at about the same time goes through one hop, and shares syncs.

Theory. A task that comes while no batch is under way leads. It takes all pending transactions, its own first, through
one hop, and then hands over to the first task that came meanwhile. So a lone task waits for nobody, and the more tasks
come, the larger the batches become. Three things must hold:

- A *pending* transaction whose task is cancelled leaves the list, and nothing has happened. If its task was about to
  lead, it hands over: nobody waits for a leader that has gone.
- A *taken* transaction's task waits until the batch is done, in a shield, as for any hop (see `offload`). The leader
  raises the shield. It takes no transaction whose task a cancellation is already on its way to: that leaves the list.
- From the moment that a leader hands over until the next one leads, new tasks wait: they must not lead beside the one
  that was woken to lead.

After a shared batch, the leader yields twice first, so that the same tasks can come again; otherwise every second batch
would hold only itself, and the others would wait for its syncs and then for their own.

A leader that has to queue for a thread takes its batch when it has one, and hands over if it is cancelled before.

No two transactions of a batch are about the same job: one may hold the job's lock while the other waits for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import anyio
import msgspec
from anyio.lowlevel import cancel_shielded_checkpoint

from trio_multispool.model.results import Ok
from trio_multispool.model.types import T
from trio_multispool.threads.interrupts import keep_interrupts_out
from trio_multispool.threads.loop import context_for_a_thread
from trio_multispool.threads.running import Running
from trio_multispool.threads.transaction import BeforeCommit, Transaction, Withdrawn

if TYPE_CHECKING:
    import contextvars
    from collections.abc import MutableMapping, Sequence
    from contextlib import AbstractContextManager

    from trio_multispool.threads.loop import Loop, Wait, WaitForThread
    from trio_multispool.threads.transaction import Answer

S = TypeVar("S")

S_co = TypeVar("S_co", covariant=True)

T_co = TypeVar("T_co", covariant=True)

LARGEST_BATCH: Final = 64
"""How many transactions may share a hop: all of them wait for the last."""


class Step(Protocol[S_co, T_co]):
    """One transaction, cut in two, so that the store may do several together; both run in a worker thread."""

    def prepare(self, before_commit: BeforeCommit, /) -> S_co | None:
        """Return what the store is to do; `None` if there is nothing that it has to do."""
        ...

    def conclude(self, failure: BaseException | None, /) -> T_co:
        """Take what the store raised, if it did, and return the outcome. Called after each `prepare` that returned."""
        ...


class Part(Transaction[T], Generic[S, T], eq=False):
    """One transaction of a batch. It runs with the context variables of the task that asked for it."""

    step: Step[S, T]
    context: contextvars.Context
    of: object = None
    """What it is about, and no other of its batch; `None`: it alone knows."""
    owner: object = None
    """Who may have it withdrawn while it is pending."""
    turn: Wait | None = None
    """How its task waits, if it does."""

    def take(self) -> bool:
        """Have no scope cancel its task from now on, as it is in a batch; `False`: something has."""
        if self.turn is None:
            return True
        if self.turn.cancelled:
            return False
        self.turn.shielded = True
        return True

    def wake(self) -> None:
        """Wake its task: it is to lead, or all is done."""
        if self.turn is not None:
            self.turn.wake()

    def prepare(self) -> S | None:
        """Return what the store is to do; `None` if the transaction is over without it, or has failed."""
        self.started = True
        try:
            if self.withdrawn:  # while it was pending
                raise Withdrawn  # noqa: TRY301  # into the task
            request = self.context.run(self.step.prepare, self.before_commit)
            if request is not None:
                return request
        except BaseException as error:  # noqa: BLE001  # raised again in the task
            self.fail(error)
        else:
            self.conclude(None)
        return None

    def conclude(self, failure: BaseException | None) -> None:
        """Take what the store raised, or `None`."""
        try:
            transaction: Transaction[T] = self
            transaction.value = Ok(self.context.run(self.step.conclude, failure))
            transaction.done = True
        except BaseException as error:  # noqa: BLE001  # raised again in the task
            self.fail(error)


class Whole(msgspec.Struct, Generic[T], eq=False):
    """A step that shares nothing but its hop: work as for `Offload.run`, if it is quick."""

    work: Callable[[BeforeCommit], T]
    done: Any = None

    def prepare(self, before_commit: BeforeCommit, /) -> Any:  # noqa: ANN401  # nothing, of whatever type
        """Do the work."""
        self.done = self.work(before_commit)

    def conclude(self, _failure: BaseException | None, /) -> T:
        """Return what it has returned."""
        done: T = self.done
        return done


class Batches(Generic[S]):
    """The transactions of one spool that go through its store in batches; used in its event loop."""

    def __init__(
        self,
        perform: Callable[[Sequence[S]], Sequence[BaseException | None]],
        *,
        limiter: anyio.CapacityLimiter | None = None,
        at_most: Callable[[], int] | None = None,
        around: Callable[[], AbstractContextManager[object]] | None = None,
        running: Running | None = None,
    ) -> None:
        """Begin with nothing pending; `perform` does a batch, in a worker thread, and returns what each raised.

        `limiter`: what a leader queues on for its thread, if on anything. `at_most`: how large a batch may be now.
        `around` surrounds each batch of several, in its thread.
        """
        keep_interrupts_out()
        self._perform = perform
        self._limiter = limiter
        self._at_most = at_most
        self._around = around
        self._running = Running() if running is None else running
        self._pending: dict[Part[S, Any], None] = {}
        self._leader: Part[S, Any] | None = None
        self._taken: list[Part[S, Any]] = []
        self._in_company = False
        self._queueing: anyio.CancelScope | None = None  # of the leader, while it queues on the limiter
        self._phase: int | None = None  # of the leader's hop, from when it may have a thread until it hands over

    def withdraw(self, owner: object) -> None:
        """Withdraw what an owner has pending. What is in a batch already goes on."""
        for part in [each for each in self._pending if each.owner is owner]:
            if part is not self._leader:
                del self._pending[part]
                part.fail(Withdrawn())
                part.wake()
            else:  # it hands over when it runs
                part.withdraw()
                if self._queueing is not None:
                    self._queueing.cancel()

    async def run(  # noqa: PLR0913  # keyword arguments, each with a default
        self,
        operation: str,
        step: Step[S, T],
        *,
        of: object = None,
        insist: bool = False,
        undo: Callable[[T], None] | None = None,
        owner: object = None,
    ) -> Answer[T]:
        """Run a transaction in one hop with those that come at the same time; `of` is what it is about.

        Raises `Withdrawn` if it was pending when its `owner` was given to `withdraw`. For `undo` see `Offload.run`.

        **Cancellation**: as `Offload.run` says. With `insist`, it is never withdrawn: a native cancellation is raised
        afterwards, with a note of what came of it.
        """
        part: Part[S, T] = Part(step, context_for_a_thread(), of, owner, insist=insist)
        loop, cancelled = self._running.begin(), None
        try:
            if not insist and (self._leader is None or not loop.waits_are_checkpoints):
                await loop.checkpoint_if_cancelled()
            self._pending[part] = None
            cancelled = await self._see_through(part, loop)
            if cancelled is None and part.value is not None and not self._running.closed:
                return part.value
            return await part.outcome(operation, cancelled, undo, self._running)
        finally:
            self._running.end()
            del cancelled

    async def finish(
        self, works: Sequence[tuple[str, Step[S, T], object]], answers: MutableMapping[int, Answer[T]]
    ) -> None:
        """Run several transactions, whatever is cancelled, and note in `answers` what came of each, by its number.

        Each is an operation, its step and what it is `of`, as for `run`. Needs no other task: the tasks of an event
        loop that is ending may be cancelled before they have begun.

        What one of them raises is raised when all are over, and has no answer; likewise a cancellation that came
        meanwhile, with a note of each that failed.
        """
        parts: list[tuple[str, Part[S, Any]]]
        parts = [(operation, Part(step, context_for_a_thread(), of, insist=True)) for operation, step, of in works]
        loop = self._running.begin()
        cancellation: BaseException | None = None
        failures: dict[int, BaseException] = {}
        try:
            self._pending.update(dict.fromkeys(part for _, part in parts))
            for number, (_, part) in enumerate(parts):
                try:
                    cancellation = await self._see_through(part, loop) or cancellation
                    answers[number] = part.result()
                except BaseException as error:  # noqa: BLE001  # raised below: the others must not wait for this one
                    failures[number] = error
            raised = cancellation or next(iter(failures.values()), None)
            if raised is not None:
                for number, (operation, _) in enumerate(parts):
                    told = failures.get(number, answers.get(number))
                    if not isinstance(told, Ok) and told is not raised:
                        raised.add_note(f"{operation} failed meanwhile: {told!r}")
                raise raised
        finally:
            cancellation = raised = None
            failures.clear()
            self._running.end()

    async def _see_through(self, part: Part[S, Any], loop: Loop) -> BaseException | None:
        """Return when the transaction is done; the value is a native cancellation, or an interrupt, that came then.

        A cancellation that comes before it is taken is raised: nothing has happened. If it insists, there is no such.
        However this ends, a task that was to lead is no longer the leader.
        """
        cancellation: BaseException | None = None
        wait: WaitForThread | None
        try:
            if self._leader is None:
                self._leader = part
            while not part.done:
                if self._leader is part:
                    wait = await self._lead(part, loop)
                else:
                    wait = part.turn = loop.new_wait(part.insist)
                while wait is not None and not wait.woken:
                    try:
                        _ = await wait.until_woken()
                    except BaseException as cancelled:  # passed on, or returned to be raised later
                        if not wait.shielded:  # it was not taken
                            raise
                        cancellation = cancellation or cancelled
                        part.withdraw()
            return cancellation
        finally:
            del cancellation
            if self._leader is part or part in self._pending:
                _ = self._pending.pop(part, None)
                if self._leader is part:
                    self._hand_over()

    async def _lead(self, part: Part[S, Any], loop: Loop) -> WaitForThread | None:
        """Begin a batch, and return the wait for its end; `None`: what was to lead was withdrawn before."""
        limiter, withdrawn = self._limiter, part.withdrawn
        if limiter is not None and not withdrawn:
            try:
                limiter.acquire_on_behalf_of_nowait(part)
            except anyio.WouldBlock:
                with anyio.CancelScope() as self._queueing:
                    await limiter.acquire_on_behalf_of(part)
                withdrawn, self._queueing = self._queueing.cancelled_caught, None
        if withdrawn:
            part.fail(Withdrawn())
            return None
        self._phase = self._running.grace.begin()
        if self._in_company and not part.insist:  # the tasks of the last batch are about to come again
            for _ in range(2):  # they are awake, but Trio runs the tasks of one step in any order
                await cancel_shielded_checkpoint()
        batch = self._take(part)
        self._in_company = len(batch) > 1
        self._taken = batch
        ended = loop.new_hop(True)  # noqa: FBT003  # shielded
        self._running.start(functools.partial(self._work_off, batch), ended.tell)
        return ended

    def _work_off(self, batch: list[Part[S, Any]]) -> None:
        """Do a batch, in a worker thread. Raises nothing: what cannot be done at all fails for all of it."""
        try:
            if self._around is None or len(batch) == 1:
                work_off(batch, self._perform)
            else:
                with self._around():
                    work_off(batch, self._perform)
        except BaseException as error:  # noqa: BLE001  # as above
            for part in batch:
                if not part.done:
                    part.fail(error)

    def _take(self, leader: Part[S, Any]) -> list[Part[S, Any]]:
        if len(self._pending) == 1:
            self._pending.clear()
            return [leader]
        batch, at_most, taken = [leader], LARGEST_BATCH if self._at_most is None else self._at_most(), {leader.of}
        for part in self._pending:
            if len(batch) >= at_most:
                break
            if part is not leader and (part.of is None or part.of not in taken) and part.take():
                batch.append(part)
                taken.add(part.of)
        for part in batch:
            del self._pending[part]
        return batch

    def _hand_over(self) -> None:
        """End a batch, if one was begun, and wake the next to lead, if anybody is waiting."""
        phase, self._phase = self._phase, None
        if phase is None:
            self._wake_next()
            return
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(self._leader)
        try:
            self._wake_next()
        finally:
            self._running.grace.end(phase)  # may raise, what it does not know

    def _wake_next(self) -> None:
        taken, self._taken = self._taken, []
        if not self._pending and len(taken) == 1 and taken[0] is self._leader:  # nobody else has come
            self._leader = None
            return
        left = [part for part in taken if not part.started and part is not self._leader]  # no thread could be started
        for part in left:
            if part.turn is not None:
                part.turn.shielded = part.insist
        self._pending = dict.fromkeys([*left, *self._pending])
        for part in taken:
            if part.done and part.turn is not None:
                part.turn.wake()
        # One whose task waits for its turn, if there is any: the task of another may be waiting for that one.
        waiting = (part for part in self._pending if part.turn is not None)
        self._leader = next(waiting, next(iter(self._pending), None))
        if self._leader is not None:
            self._leader.wake()


def work_off(batch: Sequence[Part[S, Any]], perform: Callable[[Sequence[S]], Sequence[BaseException | None]]) -> None:
    """Do a batch, in a worker thread; each of it is told there what came of it."""
    requests: list[tuple[Part[S, Any], S]] = []
    for part in batch:
        request = part.prepare()
        if request is not None:
            requests.append((part, request))
    if not requests:
        return
    failures: Sequence[BaseException | None]
    try:
        failures = perform([request for _, request in requests])
    except BaseException as error:  # noqa: BLE001  # each of the tasks raises it
        failures = [error] * len(requests)
    for (part, _), failure in zip(requests, failures, strict=True):
        part.conclude(failure)
