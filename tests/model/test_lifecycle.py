"""The table of an entry's life."""

from __future__ import annotations

import itertools

import pytest

from trio_multispool.model.lifecycle import STEPS, Commit, IllegalStepError, State, Step, next_state

TABLE = {
    Step.ENQUEUE: ({State.NOTHING}, State.AVAILABLE, Commit.MOVE),
    Step.ENQUEUE_TO_WAIT: ({State.NOTHING}, State.WAITING, Commit.MOVE),
    Step.CHECK_OUT: ({State.AVAILABLE, State.WAITING}, State.CHECKED_OUT, Commit.MOVE),
    Step.SAVE: ({State.CHECKED_OUT}, State.AVAILABLE, Commit.MOVE),
    Step.SAVE_TO_WAIT: ({State.CHECKED_OUT}, State.WAITING, Commit.MOVE),
    Step.RELEASE: ({State.CHECKED_OUT}, State.AVAILABLE, Commit.MOVE),
    Step.RELEASE_TO_WAIT: ({State.CHECKED_OUT}, State.WAITING, Commit.MOVE),
    Step.REMOVE: ({State.CHECKED_OUT}, State.NOTHING, Commit.UNLINK),
    Step.RECOVER: ({State.CHECKED_OUT}, State.AVAILABLE, Commit.MOVE),
    Step.QUARANTINE: ({State.CHECKED_OUT, State.AVAILABLE}, State.QUARANTINED, Commit.MOVE),
    Step.RESTORE: ({State.QUARANTINED}, State.AVAILABLE, Commit.MOVE),
    Step.DISCARD: ({State.QUARANTINED}, State.NOTHING, Commit.UNLINK),
    Step.DIRECT_SAVE: ({State.AVAILABLE}, State.AVAILABLE, Commit.EXCHANGE),
    Step.DIRECT_REMOVE: ({State.AVAILABLE}, State.NOTHING, Commit.UNLINK),
}


def test_the_table_is_the_one_that_was_agreed_on():
    """Every operation has its sources, its target and its commit, and there are no others."""
    assert {o: (set(s.sources), s.target, s.commit) for o, s in STEPS.items()} == TABLE
    assert set(Step) == set(TABLE)
    assert all(row.step is step for step, row in STEPS.items())


@pytest.mark.parametrize(("operation", "state"), list(itertools.product(Step, State)))
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
        Step.SAVE,
        Step.SAVE_TO_WAIT,
        Step.RELEASE,
        Step.RELEASE_TO_WAIT,
        Step.REMOVE,
        Step.QUARANTINE,
    ]
    for first, second in itertools.product(settling, [Step.SAVE, Step.RELEASE, Step.REMOVE]):
        with pytest.raises(IllegalStepError):
            next_state(second, next_state(first, State.CHECKED_OUT))


def test_an_illegal_step_is_misuse_and_no_err():
    """Misuse is raised as a `RuntimeError`; it is no member of the family of errors."""
    assert issubclass(IllegalStepError, RuntimeError)
