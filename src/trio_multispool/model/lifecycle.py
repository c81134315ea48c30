"""The life of an entry: every state it can be in, and every step between them. No other file decides what is legal.

Theory. An entry is a name. Its metadata file lies in exactly one *place*, and the place is the state. In `QUEUE/` the
entry is available, in `QUEUE/.waiting/` it will be, in `QUEUE/.checkout/` one owner has it, and in `.quarantine/QUEUE/`
it waits for a person. A name that lies in no place is not an entry: it may be a reservation, or the remains of a dead
process. One system call on the metadata file commits a step, and that call is atomic: before it the entry is wholly in
the old state, after it wholly in the new one. Everything else (writing temporary files, syncing, deleting data) comes
before the commit and can be undone, or after it and can be repeated by recovery.

Rule 1: no commit ever replaces a file. A move refuses an existing target; where the target must exist (new metadata for
an entry in place), two files are exchanged and the old one is then unlinked.

Rule 2: to take a step, hold the entry's registry lock. `DIRECT_*` steps, and steps on claims made without a lock, may
do without it. They are therefore exchanges with, or unlinks of, a file that must be there, and never bring back an
entry that has gone.

An entry that waits is *due* at its file's modification time, which is set before the file is synced and the step
committed. Waiting is a place, and not a mark on entries in the queue, for two reasons: a listing of the queue lists
only what can be checked out, and a crash leaves an entry waiting or not, never in between. The time is not in the name,
so that one look finds a waiting entry by its name, like any other. Nothing moves an entry when it becomes due. It is
checked out of `QUEUE/.waiting/` as others are out of `QUEUE/`, so no step in between can be lost. Its owner returns it
to where it came from, because it may have been taken early. Recovery does not know that, and treats it as due.

Rule 3: a claim is in one state at a time. If the table has no such step from that state, the caller has a bug, and gets
an exception before anything happens.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, final

import msgspec


class State(enum.Enum):
    """Where an entry is."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__  # as good, and many times as fast
    NOTHING = "nothing"
    AVAILABLE = "available"
    WAITING = "waiting"
    CHECKED_OUT = "checked out"
    QUARANTINED = "quarantined"


class Commit(enum.Enum):
    """The system call on the metadata file that commits a step."""

    MOVE = "rename that refuses an existing target"
    EXCHANGE = "exchange with the existing file, then unlink the old one"
    UNLINK = "unlink"


class Step(enum.Enum):
    """What can be done to an entry. Not an `instrumentation.Operation`, which is a call."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__  # as above
    ENQUEUE = "enqueue"
    ENQUEUE_TO_WAIT = "enqueue to wait"
    CHECK_OUT = "check out"
    SAVE = "save"
    SAVE_TO_WAIT = "save to wait"
    RELEASE = "release"
    RELEASE_TO_WAIT = "release to wait"
    REMOVE = "remove"
    RECOVER = "recover"
    QUARANTINE = "quarantine"
    RESTORE = "restore"
    DISCARD = "discard"
    DIRECT_SAVE = "direct save"
    DIRECT_REMOVE = "direct remove"


@final
class Row(msgspec.Struct, frozen=True):
    """One row of the table: a step, the states it may start from, the one it ends in, and its commit."""

    step: Step
    sources: tuple[State, ...]
    target: State
    commit: Commit


STEPS: Final = {
    row.step: row
    for row in (
        Row(Step.ENQUEUE, (State.NOTHING,), State.AVAILABLE, Commit.MOVE),
        Row(Step.ENQUEUE_TO_WAIT, (State.NOTHING,), State.WAITING, Commit.MOVE),
        Row(Step.CHECK_OUT, (State.AVAILABLE, State.WAITING), State.CHECKED_OUT, Commit.MOVE),
        Row(Step.SAVE, (State.CHECKED_OUT,), State.AVAILABLE, Commit.MOVE),
        Row(Step.SAVE_TO_WAIT, (State.CHECKED_OUT,), State.WAITING, Commit.MOVE),
        Row(Step.RELEASE, (State.CHECKED_OUT,), State.AVAILABLE, Commit.MOVE),
        Row(Step.RELEASE_TO_WAIT, (State.CHECKED_OUT,), State.WAITING, Commit.MOVE),
        Row(Step.REMOVE, (State.CHECKED_OUT,), State.NOTHING, Commit.UNLINK),
        Row(Step.RECOVER, (State.CHECKED_OUT,), State.AVAILABLE, Commit.MOVE),
        Row(Step.QUARANTINE, (State.CHECKED_OUT, State.AVAILABLE), State.QUARANTINED, Commit.MOVE),
        Row(Step.RESTORE, (State.QUARANTINED,), State.AVAILABLE, Commit.MOVE),
        Row(Step.DISCARD, (State.QUARANTINED,), State.NOTHING, Commit.UNLINK),
        Row(Step.DIRECT_SAVE, (State.AVAILABLE,), State.AVAILABLE, Commit.EXCHANGE),
        Row(Step.DIRECT_REMOVE, (State.AVAILABLE,), State.NOTHING, Commit.UNLINK),
    )
}


class IllegalStepError(RuntimeError):
    """A caller asked for a step that the table does not have. It is a bug in the caller; nothing happened."""


def next_state(step: Step, state: State) -> State:
    """Return the state after a step; raises `IllegalStepError` if it cannot be done from `state`."""
    row = STEPS[step]
    if state not in row.sources:
        raise IllegalStepError(f"cannot {step.value} an entry that is {state.value}")
    return row.target


@final
class Place(msgspec.Struct, frozen=True):
    """A directory that can hold an entry's metadata: a state of a queue."""

    queue: str
    state: State
