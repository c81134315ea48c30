"""Power loss at any point: in no state that a disk can be left in is an entry lost, torn, doubled or stuck.

How the states are found is told in `crash_states`. The table of all cases is shown at the end of a run with `-v`.
Proofs (see `helpers.proofs`) add the cases that take longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crash_states import cases, company
from crash_states.enumeration import MODELS
from crash_states.known import KNOWN
from crash_states.playing import theatre
from helpers.proofs import WHOLE, thinned

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class _Table:
    """How many states each case had, printed when all tests have run."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, Tally]] = []

    def add(self, case: str, model: str, tally: Tally) -> None:
        self.lines.append((case, model, tally))
        print(f"{case}, {model}: {tally.states} states, {len(tally.bad)} bad")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        states = sum(tally.states for *_, tally in self.lines)
        known = sum(len(tally.bad) for case, model, tally in self.lines if (case, model) in KNOWN)
        bad = sum(len(tally.bad) for *_, tally in self.lines) - known
        terminalreporter.section("crash states")
        for case, model, tally in self.lines if terminalreporter.verbosity > 0 else ():
            terminalreporter.write_line(f"{case:45} {model:8} {tally.states:6} states {len(tally.bad):5} bad")
        terminalreporter.write_line(
            f"{states} states in all, {bad} bad; {known} known to be bad, see crash_states/known.py"
        )


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> _Table:
    """Collect what is told at the end."""
    table = _Table()
    request.config.pluginmanager.register(table)
    return table


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Play all cases in one theatre, which examines each state once."""
    with theatre(tmp_path_factory.mktemp("crash")) as stage:
        yield stage


def _report(table: _Table, case: str, tallies: dict[str, Tally]) -> None:
    wrong: list[str] = []
    for model in MODELS:
        tally = tallies[model]
        table.add(case, model, tally)
        if (case, model) in KNOWN:
            assert tally.bad, f"{case}, {model}: no state is bad any more; strike it from `known`"
        wrong += [f"{model}: {words}" for _, words in tally.bad[:5] if (case, model) not in KNOWN]
        assert tally.states
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", thinned(CASES, 8, lambda case: case in _BAD))
def test_no_entry_is_lost_torn_doubled_or_stuck_when_the_power_fails(case: str, stage: Theatre, table: _Table) -> None:
    """From every state that may be on disk, recovery brings back what was promised, whole and once, and no litter."""
    _report(table, case, stage.play(CASES[case]))


@pytest.mark.parametrize("case", RECOVERED)
def test_the_power_may_fail_again_while_recovery_is_at_work(case: str, stage: Theatre, table: _Table) -> None:
    """From every state that power loss leaves of a recovery, whatever that had found, the same holds."""
    _report(table, f"{case}, then recovery", stage.play_recovery(CASES[case]))
