"""`Monitor`: looks a spool over for what is wrong, once or all the time, and puts right what can be."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Generic, final

import anyio

from trio_multispool.clock import wall_clock
from trio_multispool.errors import CorruptMetadata
from trio_multispool.events import Event, log
from trio_multispool.model.codecs import Bytes
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.spoolable import queue_names
from trio_multispool.model.times import seconds, whole
from trio_multispool.model.types import A, D, M, Q
from trio_multispool.monitor.check import RESERVING
from trio_multispool.monitor.episodes import Watching
from trio_multispool.monitor.examiner import Examiner, Past
from trio_multispool.monitor.limits import Limits
from trio_multispool.monitor.problems import Orphaned
from trio_multispool.monitor.repairs import Action, plan, repair

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable

    from trio_multispool.errors import Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.monitor.examiner import Found
    from trio_multispool.monitor.problems import Problem
    from trio_multispool.monitor.repairs import Repair
    from trio_multispool.spool.spool import Spool
    from trio_multispool.threads.transaction import BeforeCommit


_LOG: Final = logging.getLogger("trio_multispool")

CHECK_EVERY = 15.0
ALERT_AFTER_CYCLES = 2


@final
class Monitor(Generic[Q, M, D, A]):
    """Looks a spool over: entries that are stuck, lost their data, lie twice, or belong to nobody.

    It works beside producers and workers, in any process: what it suspects, it looks at again under the entry's lock,
    so that an entry in motion is never reported. Looking writes nothing. Metadata is judged by the spool's codec, in
    the queues that the spool knows; queues that it does not know are looked at like any other. In a spool that is not
    adopted nobody is known to be dead, so that nothing is `Abandoned`, and names of which a file has moved or changed
    within `max_tmp_file_age` are passed over, unless they are `TooOld`.

    `limits` says how old what may be; `clock` returns the time of day in seconds since 1970, for tests.

    ```python
    monitor = Monitor(spool, Limits(max_queue_ages={Mail.SEND: 300}))
    for problem in (await monitor.run_once()).unwrap():
        print(problem.message)
    ```
    """

    def __init__(
        self,
        spool: Spool[Q, M, D, A],
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = wall_clock,
    ) -> None:
        """Say what to look at."""
        self.spool: Spool[Q, M, D, A] = spool
        self.limits: Limits = Limits() if limits is None else limits
        session = spool._session  # noqa: SLF001  # a part of the library, in the room above
        any_will_do = isinstance(spool.spoolable.metadata, Bytes)
        judged = frozenset[str]() if any_will_do else frozenset(queue_names(spool.spoolable.queues))

        def judge(queue: str, raw: bytes) -> str | None:
            if queue not in judged:
                return None
            try:
                _ = session.encoding.decode(queue, "", raw)
            except CorruptMetadata as error:
                return error.reason
            return None

        self._session = session
        self._clock = clock
        self._examiner = Examiner(session.storage, self.limits.ages(), judged, judge, clock)

    def __repr__(self) -> str:
        """Show what is looked at."""
        return f"<Monitor of {self._session.path}>"

    async def run_once(self) -> Result[list[Problem], Trouble]:
        """Look the whole spool over once, and return what is wrong.

        All metadata is read. A name that may just be being reserved is looked at twice, half a second apart. Takes
        locks for moments, of what looks wrong and of nothing else, in which the entry is busy for others.

        `Err(AccessDenied)`, `Err(StorageFailure)`, …: it could not be looked at.

        **Cancellation**: it is given up within a thousand names. Nothing is changed in any case.
        **Durability**: nothing to sync.

        ```python
        problems = (await monitor.run_once()).unwrap()
        ```
        """
        return await self._look(None)

    async def _look(self, past: Past | None) -> Result[list[Problem], Trouble]:
        def check(withdrawn: BeforeCommit) -> Found:
            def keep_on() -> None:
                withdrawn()  # by asyncio's own cancellation
                anyio.from_thread.check_cancelled()

            return self._examiner.examine(keep_on, past)

        answer = await self._session.run("check", check)
        if isinstance(answer, Err):
            return answer
        problems, newborn = answer.value.problems, answer.value.perhaps_newborn
        if newborn:
            await anyio.sleep(RESERVING)
            again = await self._session.run("check", lambda _keep_on: self._examiner.confirm(newborn))
            if isinstance(again, Err):
                return again
            problems += again.value
        return Ok(problems)

    def watch(
        self,
        check_every: float | datetime.timedelta = CHECK_EVERY,
        alert_after_cycles: int = ALERT_AFTER_CYCLES,
    ) -> Watching:
        """Look the spool over again and again, and tell when a problem starts and when it ends.

        The events are an asynchronous iterator: `Start(problem)` once the problem was there in `alert_after_cycles`
        checks running, `End(problem)` when it is gone. The first check is made at once, the others `check_every`
        (seconds or a `timedelta`) after the one before began, or later if checks take long. The checks are made when
        the next event is asked for: whoever deals with one for long delays the next. After the first check, only
        metadata that is new is read.

        Asking for an event raises the `SpoolError` of a check that fails. Raises `TypeError` and `ValueError` for what
        is no duration, and for fewer cycles than one.

        **Cancellation**: whoever is cancelled while he waits for an event misses none, and may ask again.
        **Durability**: nothing to sync.

        ```python
        async with monitor.watch(check_every=15, alert_after_cycles=2) as events:
            async for event in events:
                print(type(event).__name__, event.problem.message)
        ```
        """
        past: Past | None = None

        async def check() -> list[Problem]:
            nonlocal past
            began = self._clock()
            problems = (await self._look(past)).unwrap()
            past = Past(began, tuple(problems))
            return problems

        return Watching(check, seconds(check_every), whole(alert_after_cycles, "alert_after_cycles", least=1))

    async def repair(self, problems: Iterable[Problem], *, dry_run: bool = True) -> Result[list[Repair], Trouble]:
        """Put right what can be without losing data; by default, only say what would be done.

        Abandoned entries go back to their queues, orphans are collected, reservations are made again; entries whose
        metadata cannot be decoded or whose data is missing are set aside in quarantine, with the reason. Stale copies
        of an entry, checked out by nobody, are dropped, and so is what dead processes were writing. All else is left,
        and said so: what is too old, copies of which none can be proved stale, foreign files. In a spool that is not
        adopted, everything is left.

        Each problem is looked at again under its lock first, so this is safe beside running programs, and can be
        repeated. Each is logged as `multispool.repaired`, and the spool's hooks are told what it was to the entry.
        Returns, in order, what is to be done about each problem, or was (`Repair.done`), or why it was left.

        **Cancellation**: what was done stays done; the problem in hand is put right or not touched.
        **Durability**: what power loss undoes is found again by the next check.

        ```python
        problems = (await monitor.run_once()).unwrap()
        for repair in (await monitor.repair(problems, dry_run=False)).unwrap():
            print(repair.problem.message, "-", repair.why)
        ```
        """
        wanted = list(problems)
        self._session.check_open()
        if dry_run:
            return await self._session.run("plan", lambda _before_commit: [plan(problem) for problem in wanted])
        repairs: list[Repair] = []
        collected: set[str] = set()
        for problem in wanted:
            answer = await self._session.run("repair", self._repairing(problem, collected))
            if isinstance(answer, Err):
                return answer
            repairs.append(answer.value)
            if answer.value.done and isinstance(problem, Orphaned):
                collected.add(problem.name)
        return Ok(repairs)

    def _repairing(self, problem: Problem, collected: set[str]) -> Callable[[BeforeCommit], Repair]:
        def work(before_commit: BeforeCommit) -> Repair:
            repaired = repair(self._examiner, problem, collected, before_commit)
            if repaired.done:
                self._note(repaired)
            return repaired

        return work

    def _note(self, repaired: Repair) -> None:
        """Log a repair, and have it told as what it was to the entry: a recovery, or a setting aside."""
        problem, hooks = repaired.problem, self._session.hooks
        queue, name, what, path = problem.queue, problem.name, problem.message, self._session.path
        message, done = "%(error)s: %(done)s", repaired.action.value
        log(_LOG.info, Event.REPAIRED, path, message, queue=queue, entry=name, error=what, done=done)
        if repaired.action is Action.QUARANTINE and problem.queue is not None:
            hooks.note_quarantined(problem.queue, problem.name, problem.message)
        elif repaired.action is Action.RETURN or isinstance(problem, Orphaned):
            hooks.note_recovered(problem.name, problem.queue)
