"""What is wrong, as a pure function: every rule as a row, for each of those who may have the lock."""

from __future__ import annotations

import datetime

import pytest

from trio_multispool.monitor import (
    Abandoned,
    Duplicated,
    ForeignFile,
    Limits,
    Misdated,
    MissingData,
    MissingReservation,
    Orphaned,
    TooOld,
    Undecodable,
    Unreadable,
)
from trio_multispool.monitor.check import RESERVING, check, may_be_newborn, problems_of
from trio_multispool.storage.directory.disk.layout import (
    CHECKOUT,
    DATA,
    NOTES,
    QUARANTINE,
    REASONS,
    REGISTRY,
    TEMPORARY,
    directory_of,
)
from trio_multispool.storage.findings import Dir, Findings, Foreign, Holder, Kind, Shut, Temporary, Trace

NOW = 1_000_000.0
SEND, RETRY, OUT, ASIDE = (
    Dir(Kind.QUEUE, "send"),
    Dir(Kind.QUEUE, "retry"),
    Dir(Kind.CHECKOUT, "send"),
    Dir(Kind.QUARANTINE, "send"),
)
DIRS = {
    "send": SEND,
    "retry": RETRY,
    "out": OUT,
    "aside": ASIDE,
    "data": Dir(Kind.DATA),
    "notes": Dir(Kind.NOTES),
    "reserved": Dir(Kind.REGISTRY),
}
LIMITS = Limits(max_queue_ages={"send": 3600})


def traces(where: str, holder: Holder = Holder.NOBODY, *, age: float = 5, fault: str | None = None) -> Findings:
    """Return the traces of `a` in some directories, in words: `send data reserved`."""
    then = NOW - age
    files = [Trace(DIRS[word], then, then, 7, fault if word == "send" else None) for word in where.split()]
    return Findings("a", tuple(files), holder)


def found(finding, limits: Limits = LIMITS) -> list:
    """Return what is wrong."""
    return problems_of(finding, limits.ages(), NOW)


WHOLE = ["send data reserved", "send data notes reserved", "aside data reserved", "aside reserved", ""]
IN_MOTION = ["out data reserved", "reserved", "data reserved", "data notes reserved"]
"""What somebody who has the lock leaves lying for moments, or for as long as he works."""
DAMAGE = {
    "out data reserved": [Abandoned("a", OUT)],
    "reserved": [Orphaned("a", DIRS["reserved"])],
    "data reserved": [Orphaned("a", DIRS["data"]), Orphaned("a", DIRS["reserved"])],
    "notes": [Orphaned("a", DIRS["notes"])],
    "send reserved": [MissingData("a", SEND)],
    "out reserved": [MissingData("a", OUT), Abandoned("a", OUT)],
    "send retry data reserved": [Duplicated("a", SEND, (SEND, RETRY))],
    "out send data reserved": [Duplicated("a", OUT, (OUT, SEND))],
    "send aside data reserved": [Duplicated("a", SEND, (SEND, ASIDE))],
}


@pytest.mark.parametrize("where", WHOLE)
@pytest.mark.parametrize("holder", Holder)
def test_nothing_is_wrong_with_a_whole_entry(where, holder):
    """Whoever has the lock, and however old it is, if there is no limit."""
    assert found(traces(where, holder, age=1e6), Limits()) == []


@pytest.mark.parametrize("where", [*IN_MOTION, *DAMAGE])
def test_nothing_is_said_of_what_somebody_has(where):
    """He may be in the middle of a change."""
    assert found(traces(where, Holder.SOMEBODY)) == []


@pytest.mark.parametrize("holder", [Holder.NOBODY, Holder.NOT_ASKED])
@pytest.mark.parametrize("where", DAMAGE)
def test_damage_is_named_when_nobody_has_it(where, holder):
    """The same is suspected as long as nobody was asked."""
    assert found(traces(where, holder)) == DAMAGE[where]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("send data", [MissingReservation("a", SEND)]),
        ("aside", [MissingReservation("a", ASIDE)]),
        ("out data", [MissingReservation("a", OUT)]),
        ("send", [MissingReservation("a", SEND), MissingData("a", SEND)]),
        ("data", [Orphaned("a", DIRS["data"])]),
        ("data reserved", []),
    ],
)
def test_a_name_without_reservation_is_in_nobodys_hands(where, expected):
    """But one that came while it was looked at has somebody; and no lock says that a check-out is abandoned."""
    assert found(traces(where, Holder.NO_RESERVATION)) == expected


def test_a_spool_without_locks_is_believed_when_it_has_come_to_rest():
    """Nothing there is abandoned; what has not been touched for long is judged by the other rules."""
    for where, expected in DAMAGE.items():
        assert found(traces(where, Holder.UNTOLD, age=599)) == []
        old = [problem for problem in found(traces(where, Holder.UNTOLD, age=601)) if not isinstance(problem, TooOld)]
        assert old == [problem for problem in expected if not isinstance(problem, Abandoned)]
        assert (
            found(traces(where, Holder.UNTOLD, age=1e6), Limits(max_tmp_file_age=None, max_checked_out_age=None)) == []
        )


@pytest.mark.parametrize("holder", Holder)
def test_a_file_that_cannot_be_read_is_told_once_whoever_has_the_entry(holder):
    """The first of its files, and whose that is; the owner is not part of what makes two problems the same."""
    files = tuple(Trace(DIRS[word], NOW, NOW, 7, None, shut_by="root:root") for word in ("send", "data", "reserved"))
    [problem] = found(Findings("a", files, holder))
    assert (problem, problem.owner) == (Unreadable("a", SEND, "the metadata of entry"), "root:root")
    assert found(Findings("a", files[1:2], Holder.SOMEBODY)) == [Unreadable("a", DIRS["data"], "the data of", "anne")]
    assert found(Shut(SEND, ".checkout", NOW, "root:root")) == [Unreadable(".checkout", SEND, "the directory", "anne")]


def test_undecodable_metadata_is_told_with_its_reason():
    """Only of those who are not at work on it."""
    [problem] = found(traces("send data reserved", fault="it is torn"))
    assert (problem, problem.reason) == (Undecodable("a", SEND), "it is torn")
    assert found(traces("send data reserved", Holder.SOMEBODY, fault="it is torn")) == []


@pytest.mark.parametrize("holder", [Holder.SOMEBODY, Holder.UNTOLD, Holder.NOT_ASKED])
def test_a_check_out_is_too_old_by_when_it_was_made(holder):
    """A living owner too; the metadata may have been written long before."""
    then = NOW - 601
    files = (Trace(OUT, 0, then, 7), Trace(DIRS["data"], 0, then, 8), Trace(DIRS["reserved"], 0, then, 9))
    problems = found(Findings("a", files, holder))
    assert problems == [Abandoned("a", OUT)] if holder is Holder.NOT_ASKED else [TooOld("a", OUT)]
    assert problems[0].age == 601
    younger = (Trace(OUT, 0, NOW - 600, 7), *files[1:])
    assert TooOld("a", OUT) not in found(Findings("a", younger, holder))


def test_an_entry_has_waited_too_long_by_when_it_was_written():
    """Only in queues that have a limit, and not in quarantine."""
    for holder in Holder:
        assert found(traces("send data reserved", holder, age=3601)) == [TooOld("a", SEND)]
        assert found(traces("send data reserved", holder, age=3600)) == []
        assert found(traces("retry data reserved", holder, age=1e6)) == []
        assert found(traces("aside data reserved", holder, age=1e6)) == []
    back = (Trace(SEND, NOW - 3601, NOW, 7), Trace(DIRS["data"], 0, 0, 8), Trace(DIRS["reserved"], 0, 0, 9))
    assert found(Findings("a", back, Holder.NOBODY)) == [TooOld("a", SEND)]


def test_temporary_files_and_foreign_ones():
    """A temporary file may be as old as its limit; what is no part of a spool is told at once."""
    assert found(Temporary("a", NOW - 601)) == [TooOld("a", Dir(Kind.TEMPORARY))]
    assert found(Temporary("a", NOW - 600)) == []
    assert found(Temporary("a", 0), Limits(max_tmp_file_age=None)) == []
    assert found(Foreign(SEND, "x", NOW, "a FIFO")) == [ForeignFile("x", SEND, "a FIFO")]


@pytest.mark.parametrize(
    ("due_at", "changed_at", "wrong"),
    [
        (NOW + 60, NOW, False),
        (NOW - 60, NOW - 3600, False),
        (NOW - 60, NOW, False),  # it was taken, and given back
        (NOW, NOW, True),
        (2.0**40, NOW, True),
    ],
)
def test_a_date_that_cannot_be_a_due_time_is_told_of(due_at, changed_at, wrong):
    """Of what waits, whose date is set before it is moved there; not while somebody has it, for it may be moving."""
    waits = Dir(Kind.WAITING, "send")
    files = (Trace(waits, due_at, changed_at, 7), Trace(DIRS["data"], 0, 0, 8), Trace(DIRS["reserved"], 0, 0, 9))
    assert found(Findings("a", files, Holder.NOBODY), Limits()) == ([Misdated("a", waits)] if wrong else [])
    assert found(Findings("a", files, Holder.SOMEBODY), Limits()) == []


def test_a_snapshot_is_checked_part_by_part():
    """Each problem comes once, in order; nothing but the parts is remembered."""
    parts = iter([Temporary("a", 0), traces("send data reserved"), traces("send reserved")])
    assert list(check(parts, LIMITS.ages(), NOW)) == [TooOld("a", Dir(Kind.TEMPORARY)), MissingData("a", SEND)]


def test_a_reservation_alone_may_be_newborn():
    """Between making it and locking it, its maker has nothing else."""
    assert may_be_newborn(traces("reserved", age=RESERVING / 2), NOW)
    assert may_be_newborn(traces("reserved", age=-3), NOW)
    assert not may_be_newborn(traces("reserved", age=RESERVING), NOW)
    assert not may_be_newborn(traces("data reserved", age=0), NOW)
    assert not may_be_newborn(traces("", age=0), NOW)


def test_a_problem_is_the_same_at_any_age():
    """Equality and hash leave out the age, and the reason; kind, name and place count."""
    young, old = TooOld("a", OUT, age=1), TooOld("a", OUT, age=2)
    assert young == old
    assert len({young, old}) == 1
    assert Undecodable("a", SEND, "this") == Undecodable("a", SEND, "that")
    different = [young, Abandoned("a", OUT), TooOld("b", OUT), TooOld("a", SEND), Duplicated("a", OUT, (OUT, SEND))]
    different += [Duplicated("a", OUT, (OUT, RETRY)), ForeignFile("a", SEND, "a FIFO"), ForeignFile("a", SEND, "x")]
    assert len(set(different)) == len(different)
    assert young != "a"
    with pytest.raises(AttributeError):
        young.name = "b"


def test_every_problem_has_its_sentences():
    """What is wrong names the entry and the place; the remedy says what becomes of it."""
    problems = [problem for rows in DAMAGE.values() for problem in rows]
    problems += [ForeignFile("a", SEND, "a FIFO"), Undecodable("a", SEND, "torn"), MissingReservation("a", SEND)]
    problems += [TooOld("a", each) for each in (SEND, OUT, Dir(Kind.TEMPORARY))]
    for problem in problems:
        assert "'a'" in problem.message
        assert problem.remedy.startswith(("it ", "its ", "the ", "what ", "of "))
        assert problem.queue == (problem.dir.queue or None)
    assert str(ASIDE) == ".quarantine/send"


def test_directories_are_called_what_they_are_called_on_disk():
    """The pure names are those of the layout."""
    plain = {Kind.REGISTRY: REGISTRY, Kind.TEMPORARY: TEMPORARY, Kind.DATA: DATA, Kind.NOTES: NOTES}
    plain |= {Kind.QUARANTINE: QUARANTINE, Kind.REASONS: REASONS}
    assert {kind: Dir(kind).path for kind in plain} == plain
    assert OUT.path == f"send/{CHECKOUT}"
    for each in (SEND, OUT, ASIDE):
        assert each.place is not None
        assert Dir.of(each.place) == each
        assert directory_of(each.place) == each.path


def test_limits_are_durations():
    """Seconds or timedeltas; queues by member or name; nonsense is refused where it is given."""
    from helpers.spools import Mail

    limits = Limits(
        max_checked_out_age=datetime.timedelta(minutes=1),
        max_tmp_file_age=None,
        max_queue_ages={Mail.SEND: datetime.timedelta(hours=1), "old": 5},
    ).ages()
    assert (limits.checked_out, limits.tmp_file, limits.queues) == (60, None, {"send": 3600, "old": 5})
    assert Limits().ages().checked_out == Limits().ages().tmp_file == 600
    assert Limits().ages().queues == {}
    with pytest.raises(ValueError, match="not negative"):
        Limits(max_checked_out_age=-1)
    with pytest.raises(TypeError):
        Limits(max_queue_ages={"send": "1h"})
    with pytest.raises(TypeError):
        Limits(max_queue_ages={5: 1})
