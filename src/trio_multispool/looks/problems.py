"""What is wrong with a spool, as far as a look shows it: the one seam to the code that finds problems.

`problems_of` is the cheap look that can be afforded once a second: it draws conclusions from names alone, takes no
lock and reads no file. The monitor knows more, because it confirms each suspect under its lock (`checks`). By the
identity of a `Problem`, `state` knows which problems start, go on and end.
"""

from typing import Final, final

import msgspec

from trio_multispool.looks.seen import Look
from trio_multispool.monitor import Abandoned
from trio_multispool.monitor import Problem as Found

MOST_ENTRIES: Final = 20_000
"""In a larger spool the monitor does not run for a live view, and what it found before stays."""

OWNERLESS: Final = "ownerless/"
"""How the identities of problems begin that are about check-outs: they end with the check-out."""


@final
class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong."""

    key: str
    """What makes it this problem and not another."""
    text: str
    """For a person; may change while the problem goes on."""
    queue: str = ""
    name: str = ""
    """The entry, if it is about one."""


def problems_of(look: Look) -> dict[str, Problem]:
    """Return what a look shows to be wrong, by the problems' identity."""
    found = [
        Problem(f"quarantine/{seen.queue}", f"{seen.queue}: {_entries(seen.aside)} set aside in quarantine", seen.queue)
        for seen in look.queues
        if seen.aside
    ]
    if look.owners_shown:
        found += [ownerless(held.queue, held.name, "no living owner") for held in look.held if held.owner is None]
    found += [Problem(f"unreadable/{where}", f"{where} cannot be read: {why}") for where, why in look.troubles]
    return {problem.key: problem for problem in found}


def ownerless(queue: str, name: str, told: str) -> Problem:
    """Return the problem that a checked-out entry has no owner."""
    return Problem(f"{OWNERLESS}{queue}/{name}", f"{queue}/{name}: {told}", queue, name)


def of_monitor(found: Found) -> Problem:
    """Return a problem that the monitor found. A dead owner is the same problem as an owner that cannot be seen."""
    queue = found.queue or ""
    if isinstance(found, Abandoned):
        return ownerless(queue, found.name, "checked out, and its owner is dead")
    key = f"monitor/{type(found).__name__}/{found.dir.path}/{found.name}"
    return Problem(key, found.message, queue, found.name)


def _entries(number: int) -> str:
    return "1 entry is" if number == 1 else f"{number:,} entries are"
