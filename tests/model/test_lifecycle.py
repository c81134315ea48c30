"""The table of an entry's life."""

from __future__ import annotations

import itertools

import pytest

from trio_multispool.model.lifecycle import STEPS, Commit, IllegalStepError, Operation, State, next_state

TABLE = {
    Operation.ENQUEUE: ({State.NOTHING}, State.AVAILABLE, Commit.MOVE),
    Operation.ENQUEUE_TO_WAIT: ({State.NOTHING}, State.WAITING, Commit.MOVE),
    Operation.CHECK_OUT: ({State.AVAILABLE, State.WAITING}, State.CHECKED_OUT, Commit.MOVE),
    Operation.SAVE: ({State.CHECKED_OUT}, State.AVAILABLE, Commit.MOVE),
    Operation.SAVE_TO_WAIT: ({State.CHECKED_OUT}, State.WAITING, Commit.MOVE),
    Operation.RELEASE: ({State.CHECKED_OUT}, State.AVAILABLE, Commit.MOVE),
    Operation.RELEASE_TO_WAIT: ({State.CHECKED_OUT}, State.WAITING, Commit.MOVE),
    Operation.REMOVE: ({State.CHECKED_OUT}, State.NOTHING, Commit.UNLINK),
    Operation.RECOVER: ({State.CHECKED_OUT}, State.AVAILABLE, Commit.MOVE),
    Operation.QUARANTINE: ({State.CHECKED_OUT, State.AVAILABLE}, State.QUARANTINED, Commit.MOVE),
    Operation.RESTORE: ({State.QUARANTINED}, State.AVAILABLE, Commit.MOVE),
    Operation.DISCARD: ({State.QUARANTINED}, State.NOTHING, Commit.UNLINK),
    Operation.DIRECT_SAVE: ({State.AVAILABLE}, State.AVAILABLE, Commit.EXCHANGE),
    Operation.DIRECT_REMOVE: ({State.AVAILABLE}, State.NOTHING, Commit.UNLINK),
}


def test_the_table_is_the_one_that_was_agreed_on():
    """Every operation has its sources, its target and its commit, and there are no others."""
    assert {o: (set(s.sources), s.target, s.commit) for o, s in STEPS.items()} == TABLE
    assert set(Operation) == set(TABLE)
    assert all(step.operation is operation for operation, step in STEPS.items())


@pytest.mark.parametrize(("operation", "state"), list(itertools.product(Operation, State)))
def test_a_step_is_legal_from_its_sources_and_from_nowhere_else(operation, state):
    """An operation either leads to its row's target, or is refused in words before anything happens."""
    sources, target, _ = TABLE[operation]
    if state in sources:
        assert next_state(operation, state) is target
    else:
        with pytest.raises(IllegalStepError, match=f"cannot {operation.value} an entry that is {state.value}"):
            next_state(operation, state)


def test_nothing_is_done_twice_to_a_claim():
    """From where a settling leads, no settling is legal: an entry that has left is never released or removed again."""
    settling = [
        Operation.SAVE,
        Operation.SAVE_TO_WAIT,
        Operation.RELEASE,
        Operation.RELEASE_TO_WAIT,
        Operation.REMOVE,
        Operation.QUARANTINE,
    ]
    for first, second in itertools.product(settling, [Operation.SAVE, Operation.RELEASE, Operation.REMOVE]):
        with pytest.raises(IllegalStepError):
            next_state(second, next_state(first, State.CHECKED_OUT))


def test_an_illegal_step_is_misuse_and_no_err():
    """Misuse is raised as a `RuntimeError`; it is no member of the family of errors."""
    assert issubclass(IllegalStepError, RuntimeError)
