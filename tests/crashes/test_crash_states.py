"""Power loss at any point: in no state that a disk can be left in is an entry lost, torn, doubled or stuck.

How the states are found is told in `crash_states`.
Proofs (see `helpers.proofs`) add the cases that take longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crash_states import cases, company
from crash_states.enumeration import MODELS
from crash_states.known import KNOWN
from crash_states.playing import theatre
from helpers.figures import Proof
from helpers.proofs import WHOLE, thinned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crash_states.checking import Tally
    from crash_states.playing import Theatre

pytestmark = pytest.mark.proof

CASES = cases.CASES | company.CASES
if WHOLE:
    CASES |= company.MORE

_RECOVERED = (
    "enqueue",
    "save changed",
    "save in place",
    "release",
    "remove",
    "data save",
    "direct save",
    "round and round",
)
_BAD = {case for case, _ in KNOWN}
RECOVERED = tuple(case for case in CASES if case not in _BAD) if WHOLE else tuple(thinned(_RECOVERED, 6))
"""Cases from whose states recovery has something to do; a state that is known to be bad stays bad."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Play all cases in one theatre, which examines each state once."""
    with theatre(tmp_path_factory.mktemp("crash")) as stage:
        yield stage


def _report(count: Callable[..., None], case: str, tallies: dict[str, Tally]) -> None:
    wrong: list[str] = []
    for model in MODELS:
        tally, is_known = tallies[model], (case, model) in KNOWN
        bad, known = (0, len(tally.bad)) if is_known else (len(tally.bad), 0)
        count(Proof.CRASH_STATES, states=tally.states, of_them_known_to_be_bad=known, bad=bad)
        if is_known:
            assert tally.bad, f"{case}, {model}: no state is bad any more; strike it from `known`"
        wrong += [f"{model}: {words}" for _, words in tally.bad[:5] if not is_known]
        assert tally.states
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", thinned(CASES, 8, lambda case: case in _BAD))
def test_no_entry_is_lost_torn_doubled_or_stuck_when_the_power_fails(
    case: str, stage: Theatre, count: Callable[..., None]
) -> None:
    """From every state that may be on disk, recovery brings back what was promised, whole and once, and no litter."""
    _report(count, case, stage.play(CASES[case]))


@pytest.mark.parametrize("case", RECOVERED)
def test_the_power_may_fail_again_while_recovery_is_at_work(
    case: str, stage: Theatre, count: Callable[..., None]
) -> None:
    """From every state that power loss leaves of a recovery, whatever that had found, the same holds."""
    _report(count, f"{case}, then recovery", stage.play_recovery(CASES[case]))
