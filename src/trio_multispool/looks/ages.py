"""Ages, sizes and progress as a person says them."""

import datetime
import math
from typing import Final

from trio_multispool.model.notes import Progress

UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_KIB: Final = 1024
_SHORT: Final = 10
"""Of these many seconds, tenths count."""


def age_of(moment: datetime.datetime, now: float) -> float:
    """Return how many seconds ago `moment` was; never negative, though clocks may step back."""
    return max(0.0, now - moment.timestamp())


def human_age(seconds: float) -> str:
    """Say an age in its largest whole unit: `12s`, `3m`, `2h`, `5d`. None is negative, though clocks may step back.

    Times that any program has written may be further apart than there are numbers.
    """
    if not math.isfinite(seconds):
        return "unknown"
    seconds = max(0.0, seconds)
    return next((f"{int(seconds // size)}{unit}" for size, unit in UNITS if seconds >= size), "0s")


def human_length(seconds: float) -> str:
    """Say how long something took, to a tenth of a second if that was short."""
    return f"{seconds:.1f}s" if 0 <= seconds < _SHORT else human_age(seconds)


def human_size(size: int) -> str:
    """Say a size in bytes, kibibytes and so on."""
    if size < _KIB:
        return f"{size} B"
    scaled = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        scaled /= _KIB
        if scaled < _KIB:
            return f"{scaled:.1f} {unit}"
    return f"{scaled / _KIB:.1f} PiB"


def human_time(moment: datetime.datetime) -> str:
    """Say a time in UTC, to the second."""
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def told_progress(progress: Progress) -> str:
    """Say how far an owner says that it is: `40 %, converting`."""
    return ", ".join(part for part in (f"{progress.done:.0%}".replace("%", " %"), progress.message) if part)
