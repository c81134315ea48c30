"""`Monitor`: checks a spool for problems, once or continuously, and repairs what can be repaired."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Generic, final

import anyio

from trio_multispool.errors import CorruptMetadata, Trouble
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.codecs import Bytes
from trio_multispool.model.results import Err, Ok, Result
from trio_multispool.model.spoolable import queue_names
from trio_multispool.model.times import length_of, whole
from trio_multispool.model.types import A, D, M, Q
from trio_multispool.monitor.check import RESERVING
from trio_multispool.monitor.episodes import Watching
from trio_multispool.monitor.examiner import Examiner, Past
from trio_multispool.monitor.limits import Limits
from trio_multispool.monitor.problems import Orphaned, Problem
from trio_multispool.monitor.repairs import Action, Repair, plan, repair
from trio_multispool.spool.spool import Spool, session_of

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable

    from trio_multispool.threads.transaction import BeforeCommit


CHECK_EVERY = 15.0
ALERT_AFTER_CYCLES = 2


@final
class Monitor(Generic[Q, M, D, A]):
    """Checks a spool: finds entries that are stuck, have lost their data, lie twice, or belong to nobody.

    It works beside producers and workers, in any process. It looks at each suspect again under the entry's lock, so it
    never reports an entry in motion. Checking writes nothing. The spool's codec judges the metadata in the queues that
    the spool knows; other queues are checked too, but their metadata is not decoded. In a spool that is not adopted,
    nobody is known to be dead: nothing is `Abandoned`, and a name is skipped if one of its files has moved or changed
    within `max_tmp_file_age`, unless it is `TooOld`.

    `limits` says how old each kind of file may be; `clock` returns the time of day in seconds since 1970, for tests: by
    default, the spool's clock is asked.

    ```python
    monitor = Monitor(spool, Limits(max_queue_ages={Mail.SEND: 300}))
    for problem in (await monitor.run_once()).unwrap():
        print(problem.message)
    ```
    """

    def __init__(
        self, spool: Spool[Q, M, D, A], limits: Limits | None = None, *, clock: Callable[[], float] | None = None
    ) -> None:
        """Take the spool to check, and the limits."""
        self.spool: Spool[Q, M, D, A] = spool
        self.limits: Limits = Limits() if limits is None else limits
        session = session_of(spool)
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
        clock = session.storage.now if clock is None else clock
        self._examiner = Examiner(session.storage, self.limits.ages(), judged, judge, clock)

    def __repr__(self) -> str:
        return f"<Monitor of {self._session.path}>"

    async def run_once(self) -> Result[list[Problem], Trouble]:
        """Check the whole spool once, and return what is wrong.

        Reads all metadata. A name that somebody may be reserving is checked twice, half a second apart. Briefly locks
        only what looks wrong; meanwhile that entry is busy for others.

        `Err(AccessDenied)`, `Err(StorageFailure)`, …: the spool could not be checked.

        **Cancellation**: the check stops within a thousand names. Nothing is changed in any case.
        **Durability**: nothing to sync.

        ```python
        problems = (await monitor.run_once()).unwrap()
        ```
        """
        return await self._look(None)

    async def _look(self, past: Past | None) -> Result[list[Problem], Trouble]:
        examine = functools.partial(self._examiner.examine, past=past)
        answer = await self._session.run("check", examine, interruptible=True)
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
        self, check_every: float | datetime.timedelta = CHECK_EVERY, alert_after_cycles: int = ALERT_AFTER_CYCLES
    ) -> Watching:
        """Check the spool repeatedly, and tell when a problem starts and when it ends.

        The events are an asynchronous iterator: `Start(problem)` once `alert_after_cycles` checks in a row have found
        the problem, `End(problem)` when it is gone. The first check is made at once, each other one `check_every`
        (seconds or a `timedelta`) after the one before began, or later if checks take long. Asking for the next event
        makes the check: handling an event for long delays the next check. After the first check, only new metadata is
        read.

        Asking for an event raises the `SpoolError` of a check that fails. Raises `TypeError` or `ValueError` if
        `check_every` is not a valid duration, or if `alert_after_cycles` is less than one.

        **Cancellation**: cancelling the wait for an event loses none; ask again.
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
            began = self._examiner.clock()
            problems = (await self._look(past)).unwrap()
            past = Past(began, tuple(problems))
            return problems

        cycles = whole(alert_after_cycles, "alert_after_cycles", least=1)
        return Watching(check, length_of(check_every, "check_every"), cycles)

    async def repair(self, problems: Iterable[Problem], *, dry_run: bool = True) -> Result[list[Repair], Trouble]:
        """Repair what can be repaired without losing data; by default, only say what would be done.

        Abandoned entries go back to their queues, orphans are collected, reservations are made again. Entries whose
        metadata cannot be decoded or whose data is missing are set aside in quarantine, with the reason. Stale copies
        of an entry that nobody has checked out are deleted, and so are temporary files of dead processes. Everything
        else is left, and the answer says so: entries that are too old, copies that cannot be proved stale, foreign
        files. In a spool that is not adopted, everything is left.

        Each problem is first looked at again under its lock, so this is safe beside running programs, and can be
        repeated. Each repair is logged as `multispool.repaired`, and reported to the spool's hooks as a recovery or a
        quarantine. Returns one `Repair` per problem, in order: what is to be done, what was done (`Repair.done`), or
        why it was left.

        **Cancellation**: finished repairs stay; the current problem is either repaired or untouched.
        **Durability**: the next check finds again what power loss has undone.

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
            answer = await self._session.run("repair", functools.partial(self._repair, problem, collected))
            if isinstance(answer, Err):
                return answer
            repairs.append(answer.value)
            if answer.value.done and isinstance(problem, Orphaned):
                collected.add(problem.name)
        return Ok(repairs)

    def _repair(self, problem: Problem, collected: set[str], before_commit: BeforeCommit) -> Repair:
        """Repair a problem, log that, and report it to the hooks as a recovery or a quarantine."""
        repaired = repair(self._examiner, problem, collected, before_commit)
        if not repaired.done:
            return repaired
        hooks, path, done = self._session.hooks, self._session.path, repaired.action.value
        queue, name, what = problem.queue, problem.name, problem.message
        log(LOGGER.info, Event.REPAIRED, path, "%(error)s: %(done)s", queue=queue, entry=name, error=what, done=done)
        if repaired.action is Action.QUARANTINE and queue is not None:
            hooks.note_quarantined(queue, name, what)
        elif repaired.action is Action.RETURN or isinstance(problem, Orphaned):
            hooks.note_recovered(name, queue)
        return repaired
