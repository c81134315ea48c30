"""A spool beside a model of it that fits in a dictionary: whatever is done, in whatever order, they agree."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.from_thread
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helpers import postgresql
from helpers.children import quick_directory
from helpers.conformance import letting_go_at_once
from helpers.inside import storage_of
from helpers.operations import DUE
from helpers.spools import MAIL, Envelope, Mail, load_spool, make_spool, state_of
from helpers.tampering import forget, write_metadata
from trio_multispool import (
    UNCHANGED,
    CorruptMetadata,
    DataNotFound,
    EntryBusy,
    EntryNotFound,
    Err,
    NameTaken,
    Ok,
    OwnershipLost,
    Remove,
    Save,
    Unavailable,
    Use,
)
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.requests import Recovered
from trio_multispool.testing import strict_order

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from helpers.spools import Location

NAMES = st.sampled_from(["a", "b", "c", "d"])
QUEUES = st.sampled_from(Mail)
ENVELOPES = st.builds(Envelope, recipient=st.sampled_from(["anne", "bert", "é"]), attempts=st.integers(0, 3))
DATA = st.sampled_from([b"", b"Hello", b"\x00\xff" * 20])
HANDLES = st.integers(0, 1)
SETTLINGS = st.sampled_from(["save", "save new", "save to wait", "update", "remove", "release"])


@dataclasses.dataclass
class Modelled:
    """What is known of one entry."""

    queue: Mail
    metadata: bytes
    data: bytes
    state: State = State.AVAILABLE
    job: Any = None
    """Of its living owner."""
    waited: bool = False
    """Whether it was taken early, so that its owner returns it to where it waits."""
    remember: bool = False
    """Whether its name is remembered when it is gone."""


@dataclasses.dataclass
class InHand:
    """A job that is held, or was and has lost its entry."""

    job: Any
    handle: int
    lost: bool = False


class SpoolBesideModel(RuleBasedStateMachine):
    """Two handles on one spool, and what ought to be in it."""

    def __init__(self) -> None:
        """Make an empty spool, an event loop for it, and an empty model."""
        super().__init__()
        self.cleanup = contextlib.ExitStack()
        self.place = self.cleanup.enter_context(self._place())
        self.portal = self.cleanup.enter_context(anyio.from_thread.start_blocking_portal("trio"))
        self.spoolable = strict_order(MAIL)
        self.spools = [self.opened(make_spool) for _ in range(2)]
        self.entries: dict[str, Modelled] = {}
        self.jobs: list[InHand] = []
        self.leftovers: set[str] = set()
        """Names whose reservations the dead left behind."""
        self.remembered: set[str] = set()

    @contextlib.contextmanager
    def _place(self) -> Iterator[Location]:
        with tempfile.TemporaryDirectory() as otherwise, quick_directory(Path(otherwise)) as directory:
            yield directory / "spool"

    def opened(self, how: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
        """Open a handle on the spool."""
        return self.run(lambda: how(self.place, self.spoolable))

    def teardown(self) -> None:
        """Let go of everything; nothing is checked here, where a failure would hide the one before."""
        with self.cleanup:
            for held in self.jobs:
                held.job._checkout.claim.abandon()
            for spool in self.spools:
                spool.close()

    def run(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run async code in the machine's event loop."""
        return self.portal.call(function)

    async def _leave(self, job, error: Exception | None = None) -> None:
        """Leave a job's block, by its end or by an exception."""
        with contextlib.suppress(ZeroDivisionError):
            async with job:
                if error is not None:
                    raise error

    def entry(self, handle: int, queue: Mail, name: str) -> Any:
        """Refer to an entry."""
        return self.spools[handle].entry(queue, name).unwrap()

    def is_in(self, queue: Mail, name: str) -> bool:
        """Tell whether the model has an entry available."""
        found = self.entries.get(name)
        return found is not None and found.queue is queue and found.state is State.AVAILABLE

    def take(self, handle: int, name: str, job: Any) -> InHand:
        """Note that a job was checked out."""
        modelled = self.entries[name]
        assert job.name == name
        assert job.metadata == msgspec.json.decode(modelled.metadata, type=Envelope)
        modelled.state, modelled.job = State.CHECKED_OUT, job
        self.jobs.append(InHand(job, handle))
        return self.jobs[-1]

    def put_back(self, name: str) -> None:
        """Note that an entry was returned by its owner."""
        modelled = self.entries[name]
        modelled.state, modelled.job = State.WAITING if modelled.waited else State.AVAILABLE, None
        modelled.waited = False

    def make_available(self, modelled: Modelled) -> None:
        """Note that an entry is in its queue, and waits no more."""
        modelled.state, modelled.job, modelled.waited = State.AVAILABLE, None, False

    def remove(self, name: str) -> None:
        """Note that an entry has gone."""
        if self.entries.pop(name).remember:
            self.remembered.add(name)

    def revive(self, queue: Mail | None = None) -> set[tuple[str, str | None]]:
        """Put back what the dead held in the model; return it as recovery would tell it."""
        back = set()
        for name, modelled in self.entries.items():
            if modelled.state is State.CHECKED_OUT and modelled.job is None and queue in (None, modelled.queue):
                self.make_available(modelled)
                back.add((name, modelled.queue.value))
        return back

    # Enqueueing

    @rule(
        handle=HANDLES,
        queue=QUEUES,
        name=NAMES,
        envelope=ENVELOPES,
        data=DATA,
        waits=st.booleans(),
        remember=st.booleans(),
    )
    def enqueue_under_a_name(self, handle, queue, name, envelope, data, waits, remember) -> None:  # noqa: PLR0913, PLR0917  # what can be said
        """A name that any entry has, wherever it is, is taken, and so is one that is remembered."""
        use, not_before = Use(name, remember=3600 if remember else None), DUE if waits else None
        answer = self.run(lambda: self.spools[handle].enqueue(queue, envelope, data, name=use, not_before=not_before))
        if name in self.entries:
            assert answer == Err(NameTaken(name))
        elif name in self.remembered:
            assert answer == Err(NameTaken(name, finished=True))
            self.leftovers.discard(name)
        else:
            assert answer == Ok(self.entry(handle, queue, name))
            self.leftovers.discard(name)
            self.entries[name] = Modelled(queue, msgspec.json.encode(envelope), data, remember=remember)
            self.entries[name].state = State.WAITING if waits else State.AVAILABLE

    @precondition(lambda self: self.remembered)
    @rule(handle=HANDLES, queue=QUEUES, which=st.integers(0, 99))
    def enqueue_again(self, handle, queue, which) -> None:
        """What was done is not done again, in whatever queue."""
        name = sorted(self.remembered)[which % len(self.remembered)]
        answer = self.run(lambda: self.spools[handle].enqueue(queue, Envelope("again"), b"", name=Use(name)))
        assert answer == Err(NameTaken(name, finished=True))

    @rule(name=NAMES)
    def forget(self, name) -> None:
        """A person may have a name forgotten by deleting its file, or its row."""
        if name in self.remembered:
            forget(self.place, name)
            self.remembered.discard(name)

    @precondition(lambda self: len(self.entries) < 8)
    @rule(handle=HANDLES, queue=QUEUES, envelope=ENVELOPES, data=DATA)
    def enqueue(self, handle, queue, envelope, data) -> None:
        """A generated name is a new one."""
        entry = self.run(lambda: self.spools[handle].enqueue(queue, envelope, data)).unwrap()
        assert entry.name not in self.entries
        self.entries[entry.name] = Modelled(queue, msgspec.json.encode(envelope), data)

    @rule(handle=HANDLES, queue=QUEUES, envelope=ENVELOPES, use=st.booleans())
    def reserve_and_perhaps_enqueue(self, handle, queue, envelope, use) -> None:
        """A reserved name becomes an entry if it is used, and leaves nothing if it is not."""

        async def work() -> str:
            spool = self.spools[handle]
            async with (await spool.reserve_name()).unwrap() as reserved:
                other = self.spools[1 - handle]
                assert await other.enqueue(queue, envelope, b"", name=Use(reserved.name)) == Err(
                    EntryBusy(reserved.name)
                )
                if use:
                    (await spool.enqueue(queue, envelope, b"reserved", name=Use(reserved))).unwrap()
            return reserved.name

        name = self.run(work)
        assert name not in self.entries
        if use:
            self.entries[name] = Modelled(queue, msgspec.json.encode(envelope), b"reserved")

    @rule(handle=HANDLES, name=NAMES)
    def die_with_a_reservation(self, handle, name) -> None:
        """A reservation of the dead is no entry, keeps nobody from its name, and is collected."""
        if name not in self.entries and name not in self.remembered:
            storage_of(self.spools[handle]).reserve(name).abandon()
            self.leftovers.add(name)

    # Checking out

    @rule(handle=HANDLES, queue=QUEUES, name=NAMES, insist=st.booleans(), early=st.booleans())
    def check_out_by_name(self, handle, queue, name, insist, early) -> None:
        """It is had if it is available in that queue, or waits for it and is taken early; busy if somebody has it."""
        entry = self.entry(handle, queue, name)
        answer = self.run(lambda: (entry.checkout if insist else entry.try_checkout)(early=early))
        modelled = self.entries.get(name)
        waits = modelled is not None and modelled.queue is queue and modelled.state is State.WAITING
        if self.is_in(queue, name) or (early and waits):
            self.take(handle, name, answer.unwrap())
            self.entries[name].waited = waits
        elif modelled is not None and modelled.job is not None:
            assert answer == (Err(EntryBusy(name)) if insist else Ok(Unavailable.BUSY))
        else:
            assert answer == (Err(EntryNotFound(queue.value, name)) if insist else Ok(Unavailable.GONE))

    @precondition(lambda self: any(each.state is State.WAITING for each in self.entries.values()))
    @rule(handle=HANDLES, which=st.integers(0, 99))
    def take_early(self, handle, which) -> None:
        """What waits can be had by its name."""
        waiting = sorted(name for name, each in self.entries.items() if each.state is State.WAITING)
        name = waiting[which % len(waiting)]
        entry = self.entry(handle, self.entries[name].queue, name)
        assert self.run(entry.checkout) == Err(EntryNotFound(self.entries[name].queue.value, name))
        self.take(handle, name, self.run(lambda: entry.checkout(early=True)).unwrap())
        self.entries[name].waited = True

    @rule(handle=HANDLES, queue=QUEUES, settle=st.sampled_from(["leave", "raise", "release", "remove", "save"]))
    def read(self, handle, queue, settle) -> None:
        """A reader brings back what the dead held in its queue, takes the first, and returns what is unsettled."""

        async def work() -> str | None:
            async with self.spools[handle].reader(queue) as reader:
                job = (await reader.dequeue_available()).unwrap()
                if job is None or settle == "leave":
                    return None if job is None else job.name
                if settle == "raise":
                    await self._leave(job, ZeroDivisionError())
                elif settle == "save":
                    (await job.save(Mail.FAILED)).unwrap()
                else:
                    (await getattr(job, settle)()).unwrap()
                return job.name

        name = self.run(work)
        self.revive(queue)
        expected = sorted(name for name in self.entries if self.is_in(queue, name))
        assert name == (expected[0] if expected else None)
        if name is not None and settle == "remove":
            self.remove(name)
        elif name is not None and settle == "save":
            self.entries[name].queue = Mail.FAILED

    @rule(handle=HANDLES, queue=QUEUES, change=st.booleans(), concurrency=st.integers(1, 3))
    def work_off(self, handle, queue, change, concurrency) -> None:
        """A handler gets every entry of a queue once, and its verdict is done."""
        handled = []

        async def handle_one(envelope, data):
            handled.append(data.name)
            assert (await data.load()).unwrap() == self.entries[data.name].data
            return Save(queue, msgspec.structs.replace(envelope, attempts=9)) if change else Remove()

        async def work() -> None:
            async with self.spools[handle].reader(queue) as reader:
                (await reader.iter_available(handle_one, concurrency=concurrency)).unwrap()

        self.run(work)
        self.revive(queue)
        expected = sorted(name for name in self.entries if self.is_in(queue, name))
        assert sorted(handled) == expected
        for name in expected:
            if change:
                envelope = msgspec.json.decode(self.entries[name].metadata, type=Envelope)
                self.entries[name].metadata = msgspec.json.encode(msgspec.structs.replace(envelope, attempts=9))
            else:
                self.remove(name)

    # Settling what is in hand

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 99), how=SETTLINGS, queue=QUEUES)
    def settle(self, which, how, queue) -> None:
        """The entry goes where it is to go; one that was lost stays where it is."""
        held = self.jobs.pop(which % len(self.jobs))
        job, new = held.job, Envelope("new", 7)
        match how:
            case "remove" | "release":
                answer = self.run(getattr(job, how))
            case "save":
                answer = self.run(lambda: job.save(queue))
            case "save to wait":
                answer = self.run(lambda: job.save(queue, not_before=DUE))
            case "save new":
                answer = self.run(lambda: job.save(queue, new))
            case _:
                job.update(lambda envelope: msgspec.structs.replace(envelope, attempts=8))
                answer = self.run(lambda: job.save(queue, UNCHANGED))
        if held.lost:
            assert answer == Err(OwnershipLost(job._checkout.claim.queue, job.name))
            return
        assert answer == Ok(None)
        modelled = self.entries[job.name]
        if how == "remove":
            self.remove(job.name)
        elif how == "release":
            self.put_back(job.name)
        else:
            self.make_available(modelled)
            modelled.queue = queue
            if how == "save to wait":
                modelled.state = State.WAITING
            elif how != "save":
                modelled.metadata = msgspec.json.encode(job.metadata)
                assert how == "update" or job.metadata == new

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 99), error=st.sampled_from([None, ZeroDivisionError()]))
    def leave_the_block(self, which, error) -> None:
        """An unsettled job goes back as it was, whatever ends its block."""
        held = self.jobs.pop(which % len(self.jobs))
        held.job.update(lambda envelope: msgspec.structs.replace(envelope, attempts=99))
        if held.lost:
            with contextlib.suppress(OwnershipLost):
                self.run(lambda: self._leave(held.job, error))
            return
        self.run(lambda: self._leave(held.job, error))
        self.put_back(held.job.name)

    @precondition(lambda self: any(not held.lost for held in self.jobs))
    @rule(which=st.integers(0, 99))
    def die(self, which) -> None:
        """An owner that dies lets go of its lock, and moves nothing."""
        living = [held for held in self.jobs if not held.lost]
        self.abandon(living[which % len(living)])

    def abandon(self, held: InHand) -> None:
        """Let go as a process that dies does."""
        held.job._checkout.claim.abandon()
        held.lost = True
        self.entries[held.job.name].job = None

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 99), data=DATA)
    def save_data(self, which, data) -> None:
        """Data is replaced by its owner only, and at once."""
        held = self.jobs[which % len(self.jobs)]
        answer = self.run(lambda: held.job.data.save(data))
        if held.lost:
            assert answer == Err(OwnershipLost(held.job._checkout.claim.queue, held.job.name))
        else:
            assert answer == Ok(None)
            self.entries[held.job.name].data = data

    # Without owning

    @rule(handle=HANDLES, queue=QUEUES, name=NAMES, envelope=ENVELOPES)
    def direct_save(self, handle, queue, name, envelope) -> None:
        """Metadata is replaced where the entry is available, and nowhere else."""
        answer = self.run(lambda: self.entry(handle, queue, name).direct.save(envelope))
        if self.is_in(queue, name):
            assert answer == Ok(None)
            self.entries[name].metadata = msgspec.json.encode(envelope)
        else:
            assert answer == Err(EntryNotFound(queue.value, name))

    @rule(handle=HANDLES, queue=QUEUES, name=NAMES)
    def direct_remove(self, handle, queue, name) -> None:
        """An entry is removed where it is available, and nowhere else."""
        answer = self.run(self.entry(handle, queue, name).direct.remove)
        if self.is_in(queue, name):
            assert answer == Ok(None)
            self.remove(name)
        else:
            assert answer == Err(EntryNotFound(queue.value, name))

    @rule(handle=HANDLES, queue=QUEUES, name=NAMES, data=DATA)
    def direct_data_save(self, handle, queue, name, data) -> None:
        """Data is replaced wherever the entry is; none is made for a name that has none."""
        answer = self.run(lambda: self.entry(handle, queue, name).direct.data_file.save(data))
        if name in self.entries:
            assert answer == Ok(None)
            self.entries[name].data = data
        else:
            assert answer == Err(DataNotFound(name))

    @rule(handle=HANDLES, queue=QUEUES, name=NAMES)
    def spoil_metadata(self, handle, queue, name) -> None:
        """What cannot be decoded is set aside when it is checked out, keeps its data, and its name."""
        if not self.is_in(queue, name):
            return
        write_metadata(self.place, queue.value, name, b"not to be read")
        modelled = self.entries[name]
        modelled.metadata = b"not to be read"
        answer = self.run(self.entry(handle, queue, name).checkout)
        assert isinstance(answer, Err)
        assert isinstance(answer.error, CorruptMetadata)
        modelled.state = State.QUARANTINED

    @rule(handle=HANDLES, queue=QUEUES)
    def take_from_their_owners(self, handle, queue) -> None:
        """Everything that is checked out of a queue, by the living and the dead, is shown and can be released."""

        async def work() -> set[str]:
            jobs = (await self.spools[handle].checkouts_unsafe(queue)).unwrap()
            for job in jobs:
                (await job.release()).unwrap()
            return {job.name for job in jobs}

        taken = self.run(work)
        held = {n for n, e in self.entries.items() if e.queue is queue and e.state is State.CHECKED_OUT}
        assert taken == held
        for name in held:
            modelled = self.entries[name]
            for job in self.jobs:
                if job.job is modelled.job:
                    self.abandon(job)
            self.release_unsafe(name)

    def release_unsafe(self, name: str) -> None:
        """Note that what another owner had was released: a directory does not know whether it had waited."""
        self.make_available(self.entries[name])

    # The whole

    @rule(handle=HANDLES)
    def recover(self, handle) -> None:
        """Everything that the dead held is back, and told."""
        recovered = self.run(self.spools[handle].recover).unwrap()
        assert {(each.name, each.queue) for each in recovered} == self.revive() | {(n, None) for n in self.leftovers}
        self.leftovers.clear()
        assert all(isinstance(each, Recovered) for each in recovered)
        assert state_of(self.place).faults() == []

    @rule(handle=HANDLES)
    def give_everything_back(self, handle) -> None:
        """When every block has been left, and the dead have been recovered, everything is available or set aside."""
        for held in self.jobs:
            if not held.lost:
                self.run(lambda held=held: self._leave(held.job))
                self.put_back(held.job.name)
        self.jobs.clear()
        self.recover(handle)
        assert not any(state_of(self.place).checked_out.values())

    @rule(handle=HANDLES)
    def load_again(self, handle) -> None:
        """Closing a spool lets go of what is in hand; loading brings back what the dead held."""
        self.spools[handle].close()
        for held in self.jobs:
            if held.handle == handle and not held.lost:
                assert not held.job._checkout.claim.held
                self.abandon(held)
        self.jobs = [held for held in self.jobs if held.handle != handle]
        self.spools[handle] = self.opened(load_spool)
        self.revive()

    @rule(handle=HANDLES, queue=QUEUES)
    def look(self, handle, queue) -> None:
        """A listing shows what is available, sorted, and each can be looked at."""

        async def work() -> list[tuple[str, bytes, bytes]]:
            return [
                (
                    entry.name,
                    msgspec.json.encode((await entry.direct.contents()).unwrap()),
                    (await entry.direct.data_file.load()).unwrap(),
                )
                for entry in (await self.spools[handle].entries(queue)).unwrap()
            ]

        expected = [(n, e.metadata, e.data) for n, e in sorted(self.entries.items()) if self.is_in(queue, n)]
        assert self.run(work) == expected

    @invariant()
    def agree(self) -> None:
        """What lies on disk is what the model says: every entry in one place, with its data and its reservation."""
        state = state_of(self.place)
        for places, kind in (
            (state.available, State.AVAILABLE),
            (state.waiting, State.WAITING),
            (state.checked_out, State.CHECKED_OUT),
            (state.quarantined, State.QUARANTINED),
        ):
            found = {(queue, name): raw for queue, entries in places.items() for name, raw in entries.items()}
            assert found == {(e.queue.value, n): e.metadata for n, e in self.entries.items() if e.state is kind}
        assert state.data == {name: modelled.data for name, modelled in self.entries.items()}
        assert state.registry == set(self.entries) | self.leftovers
        assert state.temporary == {}


class SpoolOnAServerBesideModel(SpoolBesideModel):
    """The same, where the spool is in PostgreSQL, and no process puts back by itself what the dead held."""

    @contextlib.contextmanager
    def _place(self) -> Iterator[Location]:
        location = postgresql.new_spool()
        with postgresql.unrecovered(location):
            yield location
        postgresql.drop_spool(location)

    def opened(self, how: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
        """Open a handle that lets go at once, as one on a directory does."""
        spool = super().opened(how)
        letting_go_at_once(storage_of(spool))
        return spool

    def release_unsafe(self, name: str) -> None:
        """Note that it is where its owner had it from, which the server knows."""
        self.put_back(name)


SpoolBesideModel.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
SpoolOnAServerBesideModel.TestCase.settings = settings(
    SpoolBesideModel.TestCase.settings,
    max_examples=20,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a step takes ten times as long
)
test_a_spool_and_its_model_agree_after_every_step = SpoolBesideModel.TestCase
test_a_spool_on_a_server_and_its_model_agree_after_every_step = pytest.mark.postgresql(
    SpoolOnAServerBesideModel.TestCase
)
