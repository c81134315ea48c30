"""Calendars: which points in time they mean, beside an enumeration of all minutes, and beside cronsim's own."""

from __future__ import annotations

import datetime
import functools
import itertools
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as some

from trio_multispool import Cron, Missed
from trio_multispool.model.calendar import Calendar, CalendarTicks
from trio_multispool.model.ticks import EPOCH, back_from, due, name_of, to_remember

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE, HOUR, DAY = (datetime.timedelta(minutes=each) for each in (1, 60, 24 * 60))


def utc(text: str) -> datetime.datetime:
    """Return a point in time."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


def ticks_between(calendar: Calendar, begin: datetime.datetime, end: datetime.datetime) -> list[datetime.datetime]:
    """Return the ticks after one moment and until another, by looking for the next again and again."""
    found, tick = [], calendar.first_after(begin)
    while tick <= end:
        found.append(tick)
        tick = calendar.first_after(tick)
    return found


def local(calendar_zone: str, expression: str, begin: str, end: str) -> list[str]:
    """Return the ticks of an expression between two days of a zone, as the clock there shows them, with the offset."""
    zone = ZoneInfo(calendar_zone)
    first, last = (datetime.datetime.fromisoformat(day).replace(tzinfo=zone) for day in (begin, end))
    found = ticks_between(Cron(expression, zone=calendar_zone).calendar(), first, last)
    return [f"{tick.astimezone(zone):%d. %H:%M %z}" for tick in found]


# Summer time


@pytest.mark.parametrize(
    ("zone", "expression", "between", "expected"),
    [
        # 2:30 is left out: it comes when the clock jumps over it.
        (
            "Europe/Berlin",
            "30 2 * * *",
            ("2027-03-27", "2027-03-30"),
            ["27. 02:30 +0100", "28. 03:00 +0200", "29. 02:30 +0200"],
        ),
        # Several that are left out come as one.
        ("Europe/Berlin", "0,30 2,3 * * *", ("2027-03-28", "2027-03-29"), ["28. 03:00 +0200", "28. 03:30 +0200"]),
        # 2:30 comes twice: the first one counts.
        (
            "Europe/Berlin",
            "30 2 * * *",
            ("2027-10-30", "2027-11-02"),
            ["30. 02:30 +0200", "31. 02:30 +0200", "01. 02:30 +0100"],
        ),
        # Every so often, it goes on being so often, by the clock on the wall.
        (
            "Europe/Berlin",
            "*/30 1-3 * * *",
            ("2027-03-28", "2027-03-29"),
            ["28. 01:00 +0100", "28. 01:30 +0100", "28. 03:00 +0200", "28. 03:30 +0200"],
        ),
        (
            "Europe/Berlin",
            "*/30 2 * * *",
            ("2027-10-31", "2027-11-01"),
            ["31. 02:00 +0200", "31. 02:30 +0200", "31. 02:00 +0100", "31. 02:30 +0100"],
        ),
        (
            "Europe/Berlin",
            "0 * * * *",
            ("2027-10-31T01:30", "2027-10-31T03:30"),
            ["31. 02:00 +0200", "31. 02:00 +0100", "31. 03:00 +0100"],
        ),
        # Half an hour's summer time.
        ("Australia/Lord_Howe", "15 2 * * *", ("2027-10-03", "2027-10-04"), ["03. 02:30 +1100"]),
        (
            "Australia/Lord_Howe",
            "*/20 3 * * *",
            ("2027-10-03", "2027-10-04"),
            ["03. 03:00 +1100", "03. 03:20 +1100", "03. 03:40 +1100"],
        ),
        ("Australia/Lord_Howe", "45 1 * * *", ("2027-04-04", "2027-04-05"), ["04. 01:45 +1100"]),
        # At midnight, forwards and back to the day before.
        (
            "America/Sao_Paulo",
            "0 0 * * *",
            ("2018-11-03T12:00", "2018-11-05T12:00"),
            ["04. 01:00 -0200", "05. 00:00 -0200"],
        ),
        (
            "America/Sao_Paulo",
            "*/30 0 * * *",
            ("2018-11-03T12:00", "2018-11-05T12:00"),
            ["05. 00:00 -0200", "05. 00:30 -0200"],
        ),
        (
            "America/Sao_Paulo",
            "*/30 23 * * *",
            ("2018-02-17T12:00", "2018-02-18T12:00"),
            ["17. 23:00 -0200", "17. 23:30 -0200", "17. 23:00 -0300", "17. 23:30 -0300"],
        ),
        (
            "America/St_Johns",
            "*/30 0,23 * * *",
            ("2010-11-06T12:00", "2010-11-07T12:00"),
            [
                "06. 23:00 -0230",
                "06. 23:30 -0230",
                "07. 00:00 -0230",
                "06. 23:30 -0330",
                "07. 00:00 -0330",
                "07. 00:30 -0330",
            ],
        ),
        # A day that never was: all of it came when the next began.
        (
            "Pacific/Apia",
            "0 8 * * *",
            ("2011-12-29", "2012-01-01"),
            ["29. 08:00 -1000", "31. 00:00 +1400", "31. 08:00 +1400"],
        ),
        # Winter time, which is what Ireland changes to.
        ("Europe/Dublin", "30 1 * * *", ("2027-03-28", "2027-03-29"), ["28. 02:00 +0100"]),
        ("UTC", "30 2 28 3 *", ("2027-01-01", "2028-01-01"), ["28. 02:30 +0000"]),
    ],
)
def test_what_becomes_of_times_that_are_left_out_or_come_twice(zone, expression, between, expected):
    """A fixed time comes once, when the clock reaches or jumps over it; what is so often goes by the clock."""
    assert local(zone, expression, *between) == expected


@pytest.mark.parametrize(
    ("zone", "expression"),
    [
        *(("Europe/Berlin", each) for each in ("30 2 * * *", "*/30 2 * * *", "0,59 1,2,3 * * *")),
        # A minute past midnight, back to the day before: the days are not in the order of their ticks.
        *(("America/St_Johns", each) for each in ("*/30 0,23 * * *", "30 23 * * *")),
    ],
)
def test_a_schedule_goes_on_alike_from_wherever_it_is_looked_at(zone, expression):
    """From any minute around a change, in any direction: the same points in time."""
    begin = utc({"Europe/Berlin": "2027-10-30T12:00", "America/St_Johns": "2010-11-06T12:00"}[zone])
    calendar = Cron(expression, zone=zone).calendar()
    every = ticks_between(calendar, begin, begin + 2 * DAY)
    for number in range(24 * 60):
        moment = begin + number * MINUTE
        assert calendar.first_after(moment) == next(tick for tick in every if tick > moment)
        last = next((tick for tick in reversed(every) if tick <= moment), None)
        assert calendar.last_until(moment, begin + MINUTE) == last


# Beside an enumeration of all minutes


class Fields(NamedTuple):
    """The fields of an expression: whole numbers, or `None` for all of them."""

    minutes: frozenset[int] | None
    hours: frozenset[int] | None
    days: frozenset[int] | None
    months: frozenset[int] | None
    weekdays: frozenset[int] | None

    def expression(self) -> str:
        """Write it."""
        return " ".join("*" if field is None else ",".join(map(str, sorted(field))) for field in self)

    def fits(self, when: datetime.datetime) -> bool:
        """Tell whether a time on the wall is meant."""
        found = (when.minute, when.hour, when.day, when.month, when.isoweekday() % 7)
        minute, hour, day, month, weekday = (
            field is None or value in field for field, value in zip(self, found, strict=True)
        )
        is_day = day and weekday if None in (self.days, self.weekdays) else day or weekday
        return minute and hour and month and is_day


def enumerated(fields: Fields, zone: ZoneInfo, begin: datetime.datetime, end: datetime.datetime) -> list:
    """Return the ticks between two moments, by looking at the clock on the wall each minute."""
    found = []
    is_fixed = fields.minutes is not None and fields.hours is not None
    furthest = begin.astimezone(zone).replace(tzinfo=None) - 2 * DAY
    moment = begin - 2 * DAY
    while moment <= end:
        shown = moment.astimezone(zone).replace(tzinfo=None)
        if not is_fixed:
            comes = fields.fits(shown)
        else:
            passed = minutes_between(furthest, shown)
            comes = any(map(fields.fits, passed))
            furthest = max(furthest, shown)
        if comes and moment > begin:
            found.append(moment)
        moment += MINUTE
    return found


def minutes_between(after: datetime.datetime, until: datetime.datetime) -> Iterator[datetime.datetime]:
    """Yield the times on the wall from one to another."""
    return (after + number * MINUTE for number in range(1, (until - after) // MINUTE + 1))


def numbers(first: int, last: int) -> some.SearchStrategy[frozenset[int] | None]:
    """Return a field's values: a few, or all."""
    return some.none() | some.frozensets(some.integers(first, last), min_size=1, max_size=4)


CHANGES = [
    ("Europe/Berlin", "2027-03-28T01:00"),
    ("Europe/Berlin", "2027-10-31T01:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Australia/Lord_Howe", "2027-10-02T15:30"),
    ("Australia/Lord_Howe", "2027-04-03T15:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00"),
    ("America/Sao_Paulo", "2018-02-18T02:00"),
    ("America/St_Johns", "2010-11-07T02:31"),
    ("Africa/Casablanca", "2027-02-07T02:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Asia/Kathmandu", "2027-01-01T00:00"),
    ("UTC", "2028-02-29T00:00"),
]
"""Zones, and when their clocks are changed there, in UTC; some of which never are."""


@given(
    some.builds(Fields, numbers(0, 59), numbers(0, 4) | numbers(21, 23), numbers(1, 31), numbers(1, 12), numbers(0, 6)),
    some.sampled_from(CHANGES),
    some.integers(-2000, 2000),
)
def test_ticks_are_what_an_enumeration_of_all_minutes_finds(fields, change, offset):
    """Forwards and backwards, around changes of the clock, in any of these zones."""
    zone_name, changes_at = change
    zone, begin = ZoneInfo(zone_name), utc(changes_at) + offset * MINUTE
    end = begin + 1.5 * DAY
    try:
        calendar = Cron(fields.expression(), zone=zone_name).calendar()
    except ValueError:  # the 31st of June
        assert not any(fields.fits(utc("2028-01-01") + number * HOUR) for number in range(0, 366 * 24, 24))
        return
    expected = enumerated(fields, zone, begin, end)
    assert ticks_between(calendar, begin, end) == expected
    backwards, tick = [], calendar.last_until(end, begin + MINUTE)
    while tick is not None:
        backwards.append(tick)
        tick = calendar.last_until(tick - datetime.timedelta.resolution, begin + MINUTE)
    assert backwards == expected[::-1]


@pytest.mark.parametrize(
    "expression",
    [
        "*/20 * * * *",
        "0 8 * * 1-5",
        "30 2 * * *",
        "0 */3 * * *",
        "15 1 L * *",
        "0 9 LW * *",
        "0 9 * * MON#1,5L",
        "5 4 13 * 5",
        "0 12 */10 * 1",
        "59 23 31 12 *",
        "0 0 29 2 *",
    ],
)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
def test_it_is_what_cronsim_says_where_both_know_summer_time(expression, zone):
    """Whose fields these are: four hundred days of each."""
    begin = datetime.datetime(2027, 1, 1, tzinfo=ZoneInfo(zone))
    oracle = (tick.astimezone(datetime.UTC) for tick in CronSim(expression, begin))
    expected = list(itertools.takewhile(lambda tick: tick <= begin + 400 * DAY, itertools.islice(oracle, 300_000)))
    assert ticks_between(Cron(expression, zone=zone).calendar(), begin, begin + 400 * DAY) == expected


# As ticks of a schedule


@functools.cache
def workdays() -> CalendarTicks:
    """Return a schedule: at 8 o'clock in Berlin, from Monday to Friday, since the 2nd of March 2027."""
    return CalendarTicks("t", Cron("0 8 * * 1-5", zone="Europe/Berlin").calendar(), utc("2027-03-02T12:00"))


FRIDAY, MONDAY = utc("2027-03-26T07:00"), utc("2027-03-29T06:00")  # a change of the clock lies between them


def test_which_ticks_of_a_calendar_are_due():
    """Nothing before the start; all since the last, or the latest of them."""
    ticks = workdays()
    assert ticks.next_after(None) == utc("2027-03-03T07:00")
    assert ticks.latest(utc("2027-03-03T06:59")) is None
    assert ticks.before(utc("2027-03-03T07:00")) is None
    assert due(ticks, None, utc("2027-03-03T06:59"), Missed.ALL) == []
    assert due(ticks, None, utc("2027-03-04T07:00"), Missed.ALL) == [utc("2027-03-03T07:00"), utc("2027-03-04T07:00")]
    assert due(ticks, FRIDAY, MONDAY - MINUTE, Missed.ALL) == []
    assert due(ticks, FRIDAY - DAY, MONDAY + HOUR, Missed.ALL) == [FRIDAY, MONDAY]
    assert due(ticks, FRIDAY - DAY, MONDAY + HOUR, Missed.LATEST) == [MONDAY]
    assert due(ticks, MONDAY, FRIDAY, Missed.ALL) == [], "the clock was put back"
    assert name_of("t", MONDAY) == "t-20270329T060000Z"
    exactly = CalendarTicks("t", ticks.calendar, MONDAY)
    assert (exactly.next_after(None), exactly.latest(MONDAY), exactly.before(MONDAY)) == (MONDAY, MONDAY, None)


def test_two_ticks_at_least_are_looked_for_and_so_many_at_most():
    """However short the memory, and however long."""
    ticks = workdays()
    assert list(back_from(ticks, MONDAY, 0 * DAY, most=9)) == [MONDAY, FRIDAY]
    assert list(back_from(ticks, MONDAY, 4 * DAY, most=9)) == [MONDAY, FRIDAY, FRIDAY - DAY]
    assert list(back_from(ticks, MONDAY, 1000 * DAY, most=3)) == [MONDAY, FRIDAY, FRIDAY - DAY]
    assert len(list(back_from(ticks, MONDAY, 1000 * DAY, most=1000))) == 19
    assert list(back_from(ticks, utc("2027-03-01"), DAY, most=9)) == []


@given(some.integers(0, 10_000), some.integers(0, 200))
def test_a_tick_is_remembered_for_as_long_as_it_is_looked_for(minutes, hours):
    """Whenever that is: else its entry would be made once more, or the schedule begun anew."""
    for expression in ("0 8 * * 1-5", "30 2 28-31 3,10 *", "0 0 1 * *"):
        ticks = CalendarTicks("t", Cron(expression, zone="Europe/Berlin").calendar(), EPOCH)
        now, memory = utc("2027-03-25") + minutes * MINUTE, hours * HOUR
        for tick in back_from(ticks, now, memory, most=50):
            assert now < tick + to_remember(ticks, tick, memory)


def test_as_many_ticks_take_as_many_days_as_have_them():
    """A bound for what is kept: of minutes, a week; of days, years."""
    assert CalendarTicks("t", Cron("* * * * *").calendar(), EPOCH).span(14_400) == 10 * DAY
    assert workdays().span(10_000) == 10_000 * DAY


def test_there_is_an_end_to_time():
    """Which is told, and not looked for, for ever."""
    never = Calendar(
        minutes=[0], hours=[0], months=[2], is_day=lambda day: day.day == 30, zone=datetime.UTC, fixed=True
    )
    assert not never.ever_comes()
    with pytest.raises(ValueError, match="never comes again after 2027-01-01"):
        never.first_after(utc("2027-01-01"))
    assert never.last_until(utc("2027-01-01"), EPOCH) is None
