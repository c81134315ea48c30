"""`Cron`: the times of a calendar, as a cron expression and a time zone."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Final, final

from trio_multispool.model.calendar import Calendar

_FIELDS: Final = 5

_EXTRA: Final = 'python -m pip install "trio-multispool[cron]"'


@final
@dataclasses.dataclass(frozen=True)
class Cron:
    """Times of a calendar, for `every`: `Cron("0 8 * * 1-5", zone="Europe/Berlin")` is 8 o'clock on weekdays there.

    The expression is read as Debian's cron reads it: minute (0-59), hour (0-23), day of the month (1-31), month (1-12
    or JAN-DEC) and day of the week (0-7 or SUN-SAT; 0 and 7 are Sunday). Each is a number, a range, a list, `*`, or
    `*/5` for each fifth. If both days are given, either will do. Also `L` for the last day of the month, `LW` for its
    last weekday, `5L` for its last Friday, and `MON#1` for its first Monday.

    Summer time is dealt with as in Debian's cron. Where minute and hour both name times (neither begins with `*`), each
    of these comes once a day: one that is left out because clocks are put forward comes when they are, and one that
    comes twice counts the first time. Otherwise an entry is due whenever the clock shows such a time.

    - `expression`: five fields.
    - `zone`: the name of a time zone, such as `Europe/Berlin`; UTC by default.

    Raises `ValueError` if the expression cannot be read, if it never comes (such as the 30th of February), and if no
    zone has that name; `TypeError` for what is no text; `ModuleNotFoundError` without the extra `cron`.

    ```python
    await every(spool, Mail.DIGEST, Cron("0 8 * * 1-5", zone="Europe/Berlin"), make, name="digest")
    ```
    """

    expression: str
    zone: str = dataclasses.field(default="UTC", kw_only=True)

    def __post_init__(self) -> None:
        """Read both, to say at once what is wrong with them."""
        if not self.calendar().ever_comes():
            raise ValueError(f"the cron expression {self.expression!r} never comes in {self.zone}")

    def next_after(self, moment: datetime.datetime) -> datetime.datetime:
        """Return the first of these times after a moment, by the clocks of the zone: to see what an expression means.

        `moment` has a time zone, whichever. Raises `ValueError` if it has none.

        ```python
        Cron("0 8 * * 1-5", zone="Europe/Berlin").next_after(datetime.now(UTC))
        ```
        """
        if moment.utcoffset() is None:
            raise ValueError(f"a moment wants a time zone: not {moment!r}")
        return self.calendar().first_after(moment.astimezone(datetime.UTC)).astimezone(_zone(self.zone))

    def calendar(self) -> Calendar:
        """Return the times, for a search. Not public."""
        zone = _zone(self.zone)
        try:
            from cronsim import CronSim, CronSimError  # noqa: PLC0415  # the extra may be missing
        except ModuleNotFoundError as error:
            message = f"the module {error.name} is missing, which cron expressions need: {_EXTRA}"
            raise ModuleNotFoundError(message, name=error.name) from error
        if not isinstance(self.expression, str):
            raise TypeError(f"a cron expression is text, not {self.expression!r}")
        fields = self.expression.split()
        if len(fields) != _FIELDS:
            told = "minute, hour, day of the month, month and day of the week"
            raise ValueError(f"a cron expression has five fields ({told}), not {self.expression!r}")
        try:
            parsed = CronSim(self.expression, datetime.datetime(1970, 1, 1))  # noqa: DTZ001  # only parsed
        except CronSimError as error:
            told = f"look at its {str(error).removeprefix('Bad ')}"
            raise ValueError(f"the cron expression {self.expression!r} has no sense, or never comes: {told}") from error
        except ValueError as error:
            raise ValueError("a cron expression has a number that is far too long") from error
        return Calendar(
            minutes=parsed.minutes,
            hours=parsed.hours,
            months=parsed.months,
            is_day=parsed.match_day,
            zone=zone,
            fixed=not any(field.startswith("*") for field in fields[:2]),
        )


def _zone(name: str) -> datetime.tzinfo:
    """Return a time zone. Raises `ValueError` if there is none of that name."""
    if not isinstance(name, str):
        raise TypeError(f"a time zone is given by its name, such as 'Europe/Berlin', and not as {name!r}")
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415  # most programs have no calendars

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError(f"there is no time zone {name!r}; one is called 'Europe/Berlin', for example") from error
