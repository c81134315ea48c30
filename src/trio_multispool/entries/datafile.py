"""`DataFile`: the data of one entry, loaded, replaced and looked at when the worker chooses to."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import TYPE_CHECKING, Any, Final, Generic, final

import anyio
from anyio.lowlevel import checkpoint

from trio_multispool.model.lifecycle import State
from trio_multispool.model.notes import PROGRESS, encode_progress
from trio_multispool.model.results import Ok
from trio_multispool.model.types import D
from trio_multispool.threads.loop import keeping_notes_of

if TYPE_CHECKING:
    import enum
    from collections.abc import AsyncGenerator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from trio_multispool.errors import DataLoadError, DataNotFound, DataSaveError, OwnershipLost, Trouble
    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.results import Result
    from trio_multispool.session.session import Session
    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.requests import Stat
    from trio_multispool.threads.transaction import BeforeCommit


PROGRESS_INTERVAL: Final = 0.2
"""In seconds: nobody who looks can follow faster."""

_NO_MUTEX: Final = contextlib.nullcontext()  # for data that has no owner


@final
class DataFile(Generic[D]):
    """The data of one entry. Not made by users: a job has it as `job.data`, and a handler is given it.

    Using the data of a job that has been settled raises `RuntimeError`: it may be somebody else's by then.
    """

    def __init__(
        self,
        session: Session[Any, Any, D, Any],
        name: str,
        claim: Claim | None,
        mutex: AbstractContextManager[object] = _NO_MUTEX,
    ) -> None:
        """Refer to the data of an entry, owned through a claim or not; `mutex` keeps others from settling it."""
        self._session = session
        self._mutex = mutex
        self._name = name
        self._claim = claim
        self.attempt: int = 1
        """Which attempt at the entry this is, from 1, of those that count: see `Retry`. Without `retry=`, always 1."""
        self.cancellation: CancelRequest | None = None
        """The request by which somebody cancels the work on the entry, once its owner knows of it: when and why.

        A handler that is being cancelled for another reason, such as the end of its reader, finds `None`.
        """
        self._told_at: float = -math.inf
        self._told: str = ""

    def __repr__(self) -> str:
        """Name the entry."""
        return f"<DataFile of {self._name!r}>"

    @property
    def name(self) -> str:
        """The entry's name, which stays the same for its whole life: good as an idempotency key."""
        return self._name

    @property
    def path(self) -> Path | None:
        """Where the data can be read as a file by other programs; `None` if the store keeps no files.

        Read it only while the entry is yours. To change it, use `save`. Where there may be none, use `as_file`.
        """
        return self._session.storage.data_path(self._name)

    @contextlib.asynccontextmanager
    async def as_file(self) -> AsyncGenerator[Path]:
        """Surround the work of another program with a file that it can read the data from.

        It is the entry's own file, or a copy where the store keeps no files, which is deleted at the end of the block.
        Only read it: what is written there may be lost, or seen half-written by others. To change the data, use `save`.

        Raises `DataNotFound`, and other trouble that `load` answers with; `RuntimeError` if the job has been settled.
        If the spool is closed inside the block, the file may be gone at once, and the entry may be another's; the end
        of the block then raises `anyio.ClosedResourceError`.

        **Cancellation**: cancelled at the beginning, nothing is left; at the end, the copy is deleted all the same.
        **Durability**: nothing to sync: it only reads.

        ```python
        async with job.data.as_file() as path:
            await anyio.run_process(["sendmail", "-t"], stdin=path.open("rb"))
        ```
        """
        self._check()
        file, told = self._session.storage.data_file(self._name), f"the data of {self._name} as a file"
        entered = await self._session.run(
            told, lambda _before_commit: file.__enter__(), undo=lambda _path: _leave(file)
        )
        path, leaving = entered.unwrap(), functools.partial(self._session.offload.finish, told, lambda: _leave(file))
        try:
            yield path
        except BaseException as raised:  # raised again, with its notes: they may say that an effect stands
            with keeping_notes_of(raised):
                _ = await leaving()
            raise
        _ = await leaving()

    @property
    def queue(self) -> enum.Enum:
        """The queue that the entry was taken from, for a handler of several.

        Raises `RuntimeError` for the data of an entry that is not in hand.
        """
        if self._claim is None:
            raise RuntimeError("only the data of an entry in hand know its queue; an entry has `entry.queue`")
        queue: enum.Enum = self._session.spoolable.queues(self._claim.queue)
        return queue

    async def load(self) -> Result[D, DataLoadError]:
        """Return the data, decoded by the data codec.

        `Err(DataNotFound)`: there is no data file. `Err(CorruptData)`: the codec raised, and its exception is the
        `__cause__`. Raises `RuntimeError` if the job has been settled.

        **Cancellation**: reads only; nothing changes.

        ```python
        message = (await job.data.load()).unwrap()
        ```
        """
        self._check()
        session, operation = self._session, f"loading the data of {self._name}"
        at_hand = None if self._claim is None else session.storage.data_at_hand(self._claim)
        if at_hand is not None and session.encoding.data_is_quick:
            return await session.at_once(operation, lambda: session.encoding.decode_data(self._name, at_hand))
        load = session.encoding.loading(self._name)
        return await session.run(
            operation,
            lambda _before_commit: self._session.storage.read_data(self._name, load, owned=self._claim is not None),
        )

    async def save(self, value: D, *, durability: Durability | None = None) -> Result[None, DataSaveError]:
        """Replace the data, all at once.

        It is committed by itself: giving the entry back afterwards does not bring the old data back.

        `Err(EncodingFailed)`: the codec raised, and the old data is unchanged. `Err(OwnershipLost)`: the entry is no
        longer this job's. `Err(DataNotFound)`, from `entry.direct` only: there is none to replace. `Err(EntryBusy)`:
        somebody else is doing the same through `entry.direct`. `Err(SyncsRefused)`: an earlier sync failed, and
        nothing was changed. `Err(DurabilityUnknown)`: the data is replaced, and power loss might undo it. Raises
        `RuntimeError` if the job has been settled.

        **Cancellation**: cancelled means that the old data is in place.
        **Durability**: the new data is synced before it takes the place of the old, and its directory after.

        ```python
        (await job.data.save(rendered)).unwrap()
        ```
        """
        self._check()
        dump = self._session.encoding.dumping(value)

        def work(before_commit: BeforeCommit) -> None:
            with self._mutex:
                self._check()
                self._session.storage.replace_data(
                    self._name, self._claim, dump, durability=durability, before_commit=before_commit
                )

        return await self._session.run(f"saving the data of {self._name}", work)

    async def progress(self, done: float, message: str = "") -> Result[None, OwnershipLost | Trouble]:
        """Tell how far the work on the entry is. `multispool ls`, `show` and `top` show it.

        `done` is from 0 to 1, `message` one short line. What UTF-8 cannot hold of it (in file names from `os.listdir`)
        is shown as an escape. What is told is gone when the entry is settled, and when its owner dies. It is cheap, and
        may be told often: what comes within a fifth of a second of the last is passed over, unless its message is
        another.

        `Err(OwnershipLost)`: somebody took the entry away by an `…_unsafe` operation. `Err(OutOfSpace)` and the other
        troubles of the operating system: it is not shown, and the work need not care. Raises `ValueError` if `done` is
        not from 0 to 1, and `RuntimeError` if the job has been settled, or this is the data of no job.

        **Cancellation**: cancelled means that it was not told.
        **Durability**: none; power loss returns the entry anyway.

        ```python
        (await job.data.progress(0.4, "converting")).unwrap()
        ```
        """
        self._check()
        claim, now = self._claim, anyio.current_time()
        if claim is None:
            raise RuntimeError(f"only its owner can tell of progress with entry {self._name!r}; check it out")
        value = encode_progress(done, message, self._session.now())
        if now - self._told_at < PROGRESS_INTERVAL and message == self._told:
            await checkpoint()
            return Ok(None)
        self._told_at, self._told = now, message

        def work(_before_commit: BeforeCommit) -> None:
            with self._mutex:
                self._check()
                self._session.storage.annotate(claim, PROGRESS, value)

        return await self._session.run(f"progress with {self._name}", work)

    async def stat(self) -> Result[Stat, DataNotFound | Trouble]:
        """Return the size of the data, in bytes as stored, and when it was last written.

        `Err(DataNotFound)`: there is no data file. Raises `RuntimeError` if the job has been settled.

        **Cancellation**: reads only; nothing changes.

        ```python
        size = (await job.data.stat()).unwrap().size
        ```
        """
        self._check()
        return await self._session.run(
            f"looking at the data of {self._name}",
            lambda _before_commit: self._session.storage.stat_data(self._name, owned=self._claim is not None),
        )

    def _check(self) -> None:
        if self._claim is not None and self._claim.state is not State.CHECKED_OUT:
            raise RuntimeError(f"entry {self._name!r} was settled; its data is no longer this job's")


def _leave(file: AbstractContextManager[object]) -> None:
    _ = file.__exit__(None, None, None)
