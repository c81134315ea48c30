"""Workers that are killed at any moment: a short storm, and its checker, which must be able to fail."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from helpers.ledger import FIRST, TORN, Found, Line, What, Whole, check, found_in, stamp, stamped, version_of
from helpers.postgresql import server
from helpers.processes import run_python
from helpers.proofs import WHOLE
from helpers.spools import state_of
from helpers.stores import claim, enqueue, make_store

KILLS = 100 if WHOLE else 25

COMMAND = """
import sys
from storm.__main__ import main
sys.exit(main())
"""


@pytest.mark.proof
def test_nothing_is_lost_doubled_stale_or_resurrected_in_a_storm_of_kills(capsys):
    """What six workers in three queues were told is so when all of them are dead, however often they were killed."""
    done = run_python(COMMAND, "--kills", f"{KILLS}", "--seed", "4", check=False)
    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.proof
@pytest.mark.postgresql
def test_nor_in_a_storm_over_a_spool_on_a_server(capsys):
    """There it is the server that must notice who is dead."""
    done = run_python(COMMAND, "--kills", f"{KILLS}", "--seed", "5", "--url", server().base, check=False)
    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


# The checker


def attempt(operation: str, turn: int = 0, **words: Any) -> Line:
    """Say that something is tried with the life `a`."""
    return Line(What.ATTEMPT, operation, "a", turn, **words)


def done(operation: str, turn: int = 0, **words: Any) -> Line:
    """Say that it was acknowledged."""
    return Line(What.DONE, operation, "a", turn, **words)


def refused(operation: str, turn: int = 0, **words: str) -> Line:
    """Say that it did not happen."""
    return Line(What.REFUSED, operation, "a", turn, **words)


def taken(turn: int, queue: str = "send", metadata: str = FIRST, data: str = FIRST) -> Line:
    """Say what an owner saw."""
    return Line(What.TAKEN, "", "a", turn, "one", queue, metadata, data)


def judged(*lines: Line, there: tuple[str, str, str] | None = None, names: tuple[str, ...] = ("one",)) -> list[str]:
    """Return the kinds of faults that the checker finds, if the entry is there, or not, at the end."""
    found = {} if there is None else {"a": [Found(name, Whole(*there)) for name in names]}
    return [fault.kind for fault in check([lines], found).faults]


ENQUEUED = (attempt("enqueue", queue="send"), done("enqueue", queue="send", name="one"))
TRYING = (*ENQUEUED, taken(1))
SAVE = {"queue": "retry", "metadata": "1"}
SAVED = (*TRYING, attempt("save", 1, **SAVE), done("save", 1, **SAVE))
REWRITTEN = (*TRYING, attempt("data save", 1, data="1.0"), done("data save", 1, data="1.0"))
LATER = {"queue": "send", "due": 50.0}
FAILING = {"queue": "failed", "due": 50.0}
FAILED = (*TRYING, attempt("fail", 1, **FAILING), done("fail", 1, **FAILING))
REMOVED = (*TRYING, attempt("remove", 1), done("remove", 1))
AS_ENQUEUED = ("send", FIRST, FIRST)

LEGAL = {
    "an enqueue": (ENQUEUED, [AS_ENQUEUED]),
    "an enqueue that was killed": (ENQUEUED[:1], [AS_ENQUEUED, None]),
    "an enqueue that was refused": ((*ENQUEUED[:1], refused("enqueue")), [None]),
    "an owner that was killed": (TRYING, [AS_ENQUEUED]),
    "a save": (SAVED, [("retry", "1", FIRST)]),
    "a save that was killed": (SAVED[:-1], [AS_ENQUEUED, ("send", "1", FIRST), ("retry", "1", FIRST)]),
    "a save that was cancelled": ((*SAVED[:-1], refused("save", 1)), [AS_ENQUEUED]),
    "a move that was killed": ((*TRYING, attempt("save", 1, queue="retry")), [AS_ENQUEUED, ("retry", FIRST, FIRST)]),
    "new data": (REWRITTEN, [("send", FIRST, "1.0")]),
    "new data, killed": (REWRITTEN[:-1], [AS_ENQUEUED, ("send", FIRST, "1.0")]),
    "an enqueue to wait": ((attempt("enqueue", **LATER), done("enqueue", name="one", **LATER)), [AS_ENQUEUED]),
    "a failure": (FAILED, [AS_ENQUEUED, ("failed", FIRST, FIRST)]),
    "a removal": (REMOVED, [None]),
    "a failure that was killed": (FAILED[:-1], [AS_ENQUEUED, ("failed", FIRST, FIRST)]),
    "a removal that was killed": (REMOVED[:-1], [AS_ENQUEUED, None]),
    "a second turn": ((*SAVED, taken(2, "retry", "1")), [("retry", "1", FIRST)]),
    "an enqueue that was seen before it was told": ((ENQUEUED[0], taken(1), ENQUEUED[1]), [AS_ENQUEUED]),
}
"""Histories, and all the ends that each may have."""

ENDS = {end for _, ends in LEGAL.values() for end in ends}


@pytest.mark.parametrize("history", LEGAL)
def test_the_checker_finds_fault_with_every_end_that_a_history_cannot_have(history):
    """What is legal passes; everything else is lost, resurrected or stale, as the case is."""
    lines, ends = LEGAL[history]
    assert [judged(*lines, there=end) for end in ends] == [[]] * len(ends)
    for end in ENDS - set(ends):
        expected = "lost" if end is None else "resurrected" if ends == [None] else "stale"
        assert judged(*lines, there=end) == [expected], end


@pytest.mark.parametrize(
    ("kind", "lines", "there"),
    [
        ("stale", (*SAVED, taken(2), attempt("remove", 2), done("remove", 2)), None),
        ("stale", (*SAVED, taken(2, "send", "1"), attempt("remove", 2), done("remove", 2)), None),
        ("stale", (*REWRITTEN, taken(2), attempt("remove", 2), done("remove", 2)), None),
        ("resurrected", (*REMOVED, taken(2)), AS_ENQUEUED),
        ("torn", (*ENQUEUED, taken(1, data=TORN), attempt("remove", 1), done("remove", 1)), None),
        ("torn", (*ENQUEUED, taken(1, metadata=TORN), attempt("remove", 1), done("remove", 1)), None),
        ("torn", ENQUEUED, ("send", FIRST, TORN)),
        ("two owners", (*TRYING, Line(What.TWICE, life="a", turn=2)), AS_ENQUEUED),
        ("failed", (*TRYING, attempt("save", 1, **SAVE), Line(What.FAILED, "save", "a", 1)), AS_ENQUEUED),
    ],
)
def test_the_checker_sees_what_an_owner_must_not_have_seen(kind, lines, there):
    """A fault that the end does not show any more, because somebody went on from there, is found all the same."""
    assert judged(*lines, there=there) == [kind]


@pytest.mark.parametrize("history", ["an enqueue to wait", "a failure"])
def test_the_checker_sees_who_has_an_entry_before_it_is_due(history):
    """Whoever has it too early is at fault, but not who took it by its name, nor who comes later."""
    lines, _ = LEGAL[history]
    for at, faults in ((49.0, ["early"]), (50.0, []), (0.0, [])):
        assert judged(*lines, msgspec.structs.replace(taken(2), at=at), there=AS_ENQUEUED) == faults
    if history == "a failure":  # that was killed before it was stored
        assert judged(*lines[:-1], msgspec.structs.replace(taken(2), at=49.0), there=AS_ENQUEUED) == []
    given_up = msgspec.structs.replace(taken(2, "failed"), at=49.0)
    assert judged(*FAILED, given_up, there=("failed", FIRST, FIRST)) == []


def test_the_checker_lets_an_entry_be_given_up_by_itself_only_where_that_may_be():
    """Nobody is asked any more when too many of those who tried it have died."""
    found = {"a": [Found("one", Whole("failed", FIRST, FIRST))]}
    assert check([TRYING], found, {"send": "failed"}).faults == []
    assert [fault.kind for fault in check([TRYING], found, {"retry": "failed"}).faults] == ["stale"]
    assert [fault.kind for fault in check([TRYING], found).faults] == ["stale"]


def test_the_checker_finds_what_is_done_again_though_its_name_is_remembered():
    """Or refused as done though nobody has removed it."""
    first = [msgspec.structs.replace(line, name="one", once=line.operation == "enqueue") for line in REMOVED]
    again = [msgspec.structs.replace(line, life="b", turn=2 * (line.turn > 0)) for line in first[:3]]
    refusal = [again[0], msgspec.structs.replace(again[0], what=What.REFUSED, why="remembered")]
    still = {"b": [Found("one", Whole(*AS_ENQUEUED))]}
    assert [fault.kind for fault in check([first, again], still).faults] == ["done again"]
    assert check([first, refusal], {}).faults == []
    assert check([first[:-1], refusal], {}).faults == []
    assert [fault.kind for fault in check([first[:2], refusal], {"a": still["b"]}).faults] == ["lost"]
    forgetful = [[msgspec.structs.replace(line, once=False) for line in each] for each in (first, again)]
    assert check(forgetful, still).faults == []


def test_the_checker_finds_an_entry_that_is_there_twice_or_under_another_name_or_of_nobody():
    """Each life has one entry, under the name that was told; and every entry has a life."""
    assert judged(*ENQUEUED, there=AS_ENQUEUED, names=("one", "two")) == ["doubled"]
    assert judged(*ENQUEUED, there=AS_ENQUEUED, names=("two",)) == ["stale"]
    found = {"b": [Found("one", Whole(*AS_ENQUEUED))]}
    assert [fault.kind for fault in check([], found).faults] == ["unknown"]


def test_the_checker_puts_turns_in_order_whoever_took_them_and_counts():
    """Turns are told by several ledgers, and the later one may begin before the earlier one's answer is written."""
    one, two = (*ENQUEUED, *SAVED[2:]), (taken(2, "retry", "1"), attempt("remove", 2))
    verdict = check([two, one], {})
    assert verdict.faults == []
    assert verdict.acknowledged == {"enqueue": 1, "save": 1}
    assert verdict.unanswered == {"remove": 1}
    assert check([TRYING, [taken(2)]], {"a": [Found("one", Whole(*AS_ENQUEUED))]}).brought_back == 2


def test_what_is_left_in_a_spool_is_found(tmp_path):
    """An entry that is checked out, one in two places, one without data, and one that is torn are faults."""
    path = tmp_path / "spool"
    storage = make_store(path)
    for name in ["good", "held", "moved", "without", "mixed", "cut"]:
        enqueue(storage, "send", name, version_and_life(name), stamped(name, FIRST))
    assert found_in(state_of(path))[1] == []
    held = claim(storage, "send", "held")
    (path / "retry" / "moved").write_bytes(version_and_life("moved"))
    (path / ".data" / "without").unlink()
    (path / ".data" / "mixed").write_bytes(stamped("mixed", "1")[:-1])
    (path / "send" / "cut").write_bytes(version_and_life("cut")[:-1])
    found, faults = found_in(state_of(path))
    held.abandon()
    storage.close()
    assert {(fault.kind, fault.about) for fault in faults} == {
        ("left over", "the spool"),
        ("stuck", "held"),
        ("torn", "cut"),
    }
    assert sorted(found) == ["good", "mixed", "moved", "without"]
    assert found["good"] == [Found("good", Whole("send", FIRST, FIRST))]
    assert [each.entry.queue for each in found["moved"]] == ["retry", "send"]
    assert [found[name][0].entry.data for name in ("without", "mixed")] == [TORN, TORN]


def test_a_version_is_whole_or_torn():
    """A mixture of two versions, or of two lives, has no version."""
    one, two = stamp("a", "1"), stamp("b", "2")
    assert version_of("a", one) == "1"
    for torn in (stamp("b", "1"), type(one)("a", "1", two.filler), type(one)("a", "2", one.filler)):
        assert version_of("a", torn) == TORN


def version_and_life(name: str) -> bytes:
    """Return the metadata of an entry that is called after its life."""
    return msgspec.json.encode(stamp(name, FIRST))
