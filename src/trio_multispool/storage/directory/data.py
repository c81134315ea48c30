"""The data of an entry: one file in `.data/`. A worker reads it when it chooses; it is replaced whole or not at all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from trio_multispool.errors import DataNotFound, NotARegularFile
from trio_multispool.model.times import aware
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits
from trio_multispool.storage.directory.disk.files import begin_new, read_file, read_through, unlink_if_there
from trio_multispool.storage.directory.disk.layout import DATA, DATA_PREFIX, TEMPORARY, directory_of
from trio_multispool.storage.directory.disk.locks import lock_entry
from trio_multispool.storage.directory.recovery import collect_if_nowhere, locked_if_possible
from trio_multispool.storage.directory.stamps import written_at
from trio_multispool.storage.directory.syncs.plan import telling_outcome
from trio_multispool.storage.directory.temporaries import unsafe_temporary
from trio_multispool.storage.requests import Stat

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import BinaryIO

    from trio_multispool.model.lifecycle import Place
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.types import T
    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.requests import Content


def as_stat(found: os.stat_result, path: str) -> Stat:
    """Return size and age of a regular file; raises `NotARegularFile` for anything else."""
    if not stat.S_ISREG(found.st_mode):
        raise NotARegularFile(path)
    return Stat(found.st_size, aware(written_at(found)))


def read_data(context: Context, name: str, read: Callable[[BinaryIO], T]) -> T:
    """Call `read` with the entry's data and return its result."""
    try:
        return read_through(context.layout, DATA, name, read)
    except FileNotFoundError as error:
        if context.layout.holds(DATA, name):  # `read` itself did not find some other file
            raise
        raise DataNotFound(name) from error


def stat_data(context: Context, name: str) -> Stat:
    """Return size and age of the entry's data."""
    layout = context.layout
    found = layout.look_at(DATA, name)
    if found is None:
        raise DataNotFound(name)
    return as_stat(found, layout.full(DATA, name))


def replace_data(  # noqa: PLR0913  # each is a word of the operation
    context: Context,
    name: str,
    claim: DirectoryClaim | None,
    content: Content,
    *,
    durability: Durability | None,
    before_commit: Callable[[], None],
) -> None:
    """Replace the data. If an entry has lost its data, only its owner may give it new data."""
    syncs = context.syncs
    plan = syncs.plan(durability)
    if claim is None or claim.lock is None:
        with locked_if_possible(context, name), unsafe_temporary(context, name, content, sync=plan.before) as new:
            before_commit()
            with telling_outcome(name, "" if claim is None else claim.queue):
                if not commits.exchange(context.layout, (TEMPORARY, new.name), DATA, name):
                    raise DataNotFound(name)
    else:
        _replace_own(context, claim, content, sync=plan.before, before_commit=before_commit)
    if plan.after:
        syncs.committed(DATA, name, "" if claim is None else claim.queue)


def _replace_own(
    context: Context, claim: DirectoryClaim, content: Content, *, sync: bool, before_commit: Callable[[], None]
) -> None:
    layout, new = context.layout, DATA_PREFIX + claim.name
    claim.check_owned()
    unlink_if_there(layout, TEMPORARY, new)  # left by a dead owner of this name
    with begin_new(layout, TEMPORARY, new, content) as file:
        if sync:
            file.sync()
        file.close()
        before_commit()
        claim.check_owned()  # it may have been settled while the codec was writing
        with telling_outcome(claim.name, claim.queue):
            if not commits.exchange(layout, (TEMPORARY, new), DATA, claim.name):
                _ = commits.move(layout, new, TEMPORARY, DATA, claim.name)
                return
    with context.tidying(claim.name):
        unlink_if_there(layout, TEMPORARY, new)


def read_entry(
    context: Context, place: Place, name: str, read: Callable[[bytes, Stat, BinaryIO], T]
) -> T | Unavailable:
    """Call `read` with an entry's metadata, their size and age, and its data, under the entry's lock."""
    layout, directory = context.layout, directory_of(place)
    lock = lock_entry(layout, name, directory)
    if isinstance(lock, Unavailable):
        return lock
    with lock:
        try:
            metadata = layout.again_if_replaced(directory, lambda: read_file(layout, directory, name))
            found = layout.look_at(directory, name)  # `None` if a program without locks has moved it
        except FileNotFoundError:
            metadata, found = b"", None
        if found is None:
            if lock.newborn:  # this call made the reservation, and the entry is gone meanwhile
                _ = collect_if_nowhere(context, name)
            return Unavailable.GONE
        seen = as_stat(found, layout.full(directory, name))
        return read_data(context, name, lambda file: read(metadata, seen, file))
