"""What `top` concludes from successive looks: rates, sparklines and problems, as tables. No clock, no files."""

from __future__ import annotations

import random

import msgspec
import pytest
import trio

from helpers.stores import make_store
from trio_multispool import monitor
from trio_multispool.cli.top.checks import check_again_and_again
from trio_multispool.looks.problems import MOST_ENTRIES, Problem, of_monitor, ownerless
from trio_multispool.looks.seen import Entry, Look, QueueLook, Sample
from trio_multispool.looks.state import WINDOW, Model, Sampling, advance, changes, checked, pause_after
from trio_multispool.model.lifecycle import State


def queue(names, *, held=(), waiting=(), aside=0, most=1 << 15):
    """Return a queue as it is seen with these names."""
    sampling = Sampling(most)
    for each in [*names, *held, *waiting]:
        sampling.add(each)
    return QueueLook("send", len(names), len(held), aside, sampling.sample(), waiting=len(waiting))


def look(instant, *queues, **more):
    """Return a look at these queues."""
    return Look(at=1000.0 + instant, instant=instant, took=0.01, queues=queues, **more)


def after(*looks):
    """Return what is known after these looks."""
    model = Model()
    for each in looks:
        model = advance(model, each)
    return model


@pytest.mark.parametrize(
    ("looks", "rates"),
    [
        ([look(0, queue("ab"))], None),
        ([look(0, queue("ab")), look(1, queue("ab"))], (0, 0)),
        ([look(0, queue("ab")), look(1, queue("abcd"))], (2, 0)),
        ([look(0, queue("abc")), look(2, queue("a"))], (0, 1)),
        ([look(0, queue("ab")), look(1, queue("bc"))], (1, 1)),
        ([look(0, queue("ab")), look(1, queue("b", held="a"))], (0, 0)),  # taken is not gone
        ([look(0, queue("b", held="a")), look(1, queue("ab"))], (0, 0)),  # given back is not new
        ([look(0, queue("b", held="a")), look(1, queue("b"))], (0, 1)),  # settled is gone
        ([look(0, queue("b", held="a")), look(1, queue("b", waiting="a"))], (0, 0)),  # to be tried again is not gone
        ([look(0, queue("b", waiting="a")), look(1, queue("ab"))], (0, 0)),  # due is not new
        ([look(0, queue("b")), look(1, queue("b", waiting="a"))], (1, 0)),  # enqueued for later is new at once
        ([look(0, queue("ab")), look(0, queue("abc"))], None),  # no time has gone by
        ([look(0, queue("ab")), look(1, queue("abc")), look(4, queue("abcd"))], (0.5, 0)),
        ([look(0, queue("ab")), look(1), look(2, queue("xyz"))], None),  # it came back as another queue
    ],
)
def test_rates_are_what_appeared_and_went_between_looks(looks, rates):
    """A rate is a number of names divided by the seconds between the looks, and nothing before the second look."""
    assert after(*looks).lines["send"].rates == rates


def test_a_rate_forgets_what_is_longer_ago_than_its_window():
    """A burst does not show for ever."""
    burst = [look(0, queue("")), look(1, queue("abcdefghij"))]
    quiet = [look(1 + step, queue("abcdefghij")) for step in range(1, int(WINDOW) + 1)]
    assert after(*burst, *quiet[:-1]).lines["send"].rates == (10 / WINDOW, 0)
    assert after(*burst, *quiet).lines["send"].rates == (0, 0)


def test_a_rate_of_rare_looks_is_taken_over_the_last_step():
    """One step is enough, however long it took."""
    model = after(look(0, queue("a")), look(100, queue("ab")), look(300, queue("abcd")))
    assert model.lines["send"].rates == (2 / 200, 0)


def test_a_sample_is_bounded_and_the_same_in_each_look():
    """Of a long queue a part is kept, chosen by the names alone, in whatever order they come."""
    names = [f"name-{number}" for number in range(20_000)]
    kept = queue(names, most=500).sample
    random.Random(1).shuffle(names)
    assert queue(names, most=500).sample == kept
    assert 0 < len(kept.names) <= 500
    assert kept.bits >= 6
    assert queue(names[:400], most=500).sample == Sample(0, frozenset(names[:400]))


@pytest.mark.parametrize(("came", "went"), [(0, 0), (3_000, 0), (0, 3_000), (7_000, 2_000)])
def test_growth_of_a_sampled_queue_is_exact_and_the_rest_estimated(came, went):
    """What a queue has grown by is known from its length; only what came and went both ways comes from the sample."""
    names = [f"name-{number}" for number in range(40_000)]
    before, later = queue(names[:30_000], most=1_000), queue(names[went : 30_000 + came], most=1_000)
    appeared, gone = changes(before, later)
    assert appeared - gone == came - went
    assert abs(appeared - came) <= 0.2 * max(came, 1)


def test_in_a_sampled_queue_too_what_waits_is_neither_gone_nor_new():
    """It counts for the length from which the growth is known."""
    names = [f"name-{number}" for number in range(30_000)]
    all_due, some_wait = queue(names, most=1_000), queue(names[100:], waiting=names[:100], most=1_000)
    assert changes(all_due, some_wait) == (0, 0)
    assert changes(some_wait, all_due) == (0, 0)


def test_a_queue_that_outgrows_its_sample_can_still_be_compared():
    """The finer sample is made as coarse as the other."""
    names = [f"name-{number}" for number in range(3_000)]
    before, later = queue(names[:900], most=1_000), queue(names, most=1_000)
    assert (before.sample.bits, later.sample.bits) == (0, 2)
    assert changes(before, later) == (2_100, 0)


def test_a_name_that_is_no_unicode_is_sampled_too():
    """A file name may hold any bytes."""
    assert queue(["\udcff", "b"], most=1).sample.bits > 0


def test_depths_are_kept_look_by_look():
    """A sparkline has a bar for each look, the latest last, of entries that are available."""
    model = after(*[look(step, queue("abcdef"[:step], held="z")) for step in range(4)])
    assert model.lines["send"].depths == (0, 1, 2, 3)


def test_queues_come_and_go():
    """Only queues of the last look are shown."""
    new = msgspec.structs.replace(queue("b"), queue="new")
    assert set(after(look(0, queue("a"), new)).lines) == {"send", "new"}
    assert set(after(look(0, queue("a"), new), look(1, queue("a"))).lines) == {"send"}


def held(name="a", owner=None):
    """Return a check-out."""
    told = "unknown" if owner is None else f"python[{owner}]"
    return Entry("send", name, State.CHECKED_OUT, 990.0, by=told, owner=owner)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"held": (held(),)}, "ownerless/send/a"),
        ({"queues": (queue("", aside=2),), "aside": (Entry("send", "a", State.QUARANTINED, 1.0),)}, "quarantine/send"),
        ({"troubles": (("send", "Permission denied"),)}, "unreadable/send"),
    ],
)
def test_a_problem_starts_at_the_second_look_that_sees_it_and_ends_with_the_first_that_does_not(wrong, key):
    """Entries in motion are never called a problem; one that lasts is told when it starts and when it ends, once."""

    def seen(instant, *, bad):
        return Look(**({"at": 1000.0 + instant, "instant": instant, "took": 0.0} | (wrong if bad else {})))

    model = advance(Model(), seen(0, bad=True))
    assert (model.problems, model.events) == ({}, ())
    assert advance(advance(model, seen(1, bad=False)), seen(2, bad=True)).events == ()
    for instant in (1, 2, 3):
        model = advance(model, seen(instant, bad=True))
    assert list(model.problems) == [key]
    assert model.since == {key: 1001.0}
    assert [(event.at, event.started) for event in model.events] == [(1001.0, True)]
    model = advance(model, seen(4, bad=False))
    assert (model.problems, model.since) == ({}, {})
    assert [(event.at, event.started) for event in model.events] == [(1001.0, True), (1004.0, False)]


def test_no_owner_is_missed_where_none_can_be_seen():
    """On btrfs and overlayfs no owner is ever shown: that says nothing about the entries."""
    looks = [look(step, owners_shown=False, held=(held(),)) for step in range(3)]
    assert after(*looks).problems == {}
    looks = [look(step, held=(held(owner=7),)) for step in range(3)]
    assert after(*looks).problems == {}


@pytest.mark.parametrize(
    ("took", "every", "pause"),
    [(0.0, 1.0, 1.0), (0.05, 1.0, 0.95), (0.1, 1.0, 0.9), (0.5, 1.0, 4.5), (3.0, 1.0, 27.0), (3.0, 60.0, 57.0)],
)
def test_looking_takes_a_tenth_of_the_time_at_most(took, every, pause):
    """Looks come as often as was asked for, unless they take long."""
    assert pause_after(took, every) == pytest.approx(pause)


LOST = Problem("monitor/MissingData/send/a", "entry 'a' has lost its data", "send", "a")


def test_what_the_monitor_finds_starts_at_once_and_ends_when_it_finds_it_no_more():
    """It has confirmed it; looks in between change nothing about it."""
    model = checked(after(look(0)), {LOST.key: LOST}, 1000.5)
    model = advance(advance(model, look(1)), look(2))
    model = checked(model, {LOST.key: LOST}, 1002.5)
    assert (model.problems, model.since) == ({LOST.key: LOST}, {LOST.key: 1000.5})
    model = checked(model, {}, 1003.5)
    assert model.problems == {}
    assert [(event.at, event.started) for event in model.events] == [(1000.5, True), (1003.5, False)]


def test_an_owner_that_is_dead_is_one_problem_whoever_finds_it_first_and_ends_with_the_check_out():
    """The monitor's word replaces the guess, and an entry that is back is no problem until the monitor looks again."""
    dead = ownerless("send", "a", "checked out, and its owner is dead")
    stuck = [look(step, queue("", held="a"), held=(held(),)) for step in range(4)]
    model = checked(after(*stuck[:3]), {dead.key: dead}, 1002.5)
    model = advance(model, stuck[3])
    assert list(model.problems.values()) == [dead]
    assert model.since == {dead.key: 1001.0}
    assert len(model.events) == 1
    model = advance(model, look(5, queue("a")))
    assert (model.problems, [event.started for event in model.events]) == ({}, [True, False])


def test_a_check_out_among_too_many_to_be_listed_is_not_taken_for_over():
    """What is not in the list may well be there."""
    dead = ownerless("send", "z", "dead")
    many = look(1, queue("", held="abc"), held=(held("a"),))
    assert dead.key in advance(checked(after(many), {dead.key: dead}, 1001.0), many).problems


def test_each_kind_of_problem_has_an_identity_and_words():
    """Two problems of one entry are two; the same one, older, is the same."""
    place = monitor.Dir(monitor.Kind.QUEUE, "send")
    found = [
        monitor.TooOld("a", place, age=3.0),
        monitor.MissingData("a", place),
        monitor.MissingReservation("a", place),
    ]
    problems = [of_monitor(each) for each in found]
    assert len({problem.key for problem in problems}) == 3
    assert {(problem.queue, problem.name) for problem in problems} == {("send", "a")}
    assert of_monitor(monitor.TooOld("a", place, age=9.0)) == problems[0]
    abandoned = monitor.Abandoned("a", monitor.Dir(monitor.Kind.CHECKOUT, "send"))
    assert of_monitor(abandoned).key == ownerless("send", "a", "").key


async def test_while_the_monitor_cannot_look_what_it_found_stays(tmp_path, autojump_clock):
    """There may be too many entries for now, or the spool cannot be read: neither says that all is well."""
    path, elsewhere = tmp_path / "spool", tmp_path / "elsewhere"
    make_store(path).close()
    (path / "README").touch()
    told: list[dict[str, Problem]] = []
    steps = iter(["look", "too many", "gone", "back and sound"])
    told_before: dict[str, int] = {}

    def entries() -> int:
        step = next(steps, "end")
        told_before[step] = len(told)
        if step == "gone":
            path.rename(elsewhere)
        elif step == "back and sound":
            elsewhere.rename(path)
            (path / "README").unlink()
        elif step == "end":
            scope.cancel()
        return 1 if step != "too many" else MOST_ENTRIES + 1

    with trio.CancelScope() as scope:
        await check_again_and_again(path, 1.0, entries, told.append)
    assert told_before == {"look": 0, "too many": 1, "gone": 1, "back and sound": 1, "end": 2}
    assert [problem.text for problem in told[0].values()] == ["'README' in . is no part of a spool (a file)"]
    assert told[1:] == [{}]
