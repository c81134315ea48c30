"""Durations as a person types them: `90`, `10m`, `1h30m`, `2d`. Plain numbers are seconds."""

import re
from typing import Final

from trio_multispool.cli.exits import Exit, Failure

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
"""Largest first: that is the order in which they are written."""

_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_SECONDS: Final = re.compile(_NUMBER, re.ASCII)
_PARTS: Final = re.compile("".join(f"(?:({_NUMBER}){unit})?" for unit in _UNITS), re.ASCII)


def parse(text: str) -> float:
    """Return a duration in seconds; ends the command, quoting `text`, if it is not one.

    Units are `w`, `d`, `h`, `m` and `s`, the larger first, each once; a number may have a fraction (`1.5h`).
    """
    wanted = text.strip()
    if _SECONDS.fullmatch(wanted):
        found = float(wanted)
    else:
        parts = _PARTS.fullmatch(wanted)
        if parts is None or not any(parts.groups()):
            raise Failure(f"not a duration: {text!r}; write 90, 10m, 1h30m or 2d", Exit.USAGE)
        found = sum(
            float(number) * size for number, size in zip(parts.groups(), _UNITS.values(), strict=True) if number
        )
    if found == float("inf"):
        raise Failure(f"not a duration: {text!r} is too long", Exit.USAGE)
    return found
