"""For how long a spool on a server waits for what. Each number depends on the others, and stands beside them."""

from __future__ import annotations

import dataclasses
from typing import Final, final


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds. Tests take shorter ones; whoever opens a store takes `PATIENT`."""

    answer: float = 10.0
    """An operation waits so long for a server that cannot be reached, or does not answer."""
    again: float = 0.05
    """How long it waits between two attempts to connect."""
    connect: int = 5
    """To connect to one host may take so long."""
    every: float = 1.0
    """How often the keeper asks the server for the time."""
    cut_off: float = 5.0
    """After so long without an answer, a process takes itself for one that the server will give up: sooner than that
    does."""
    given_up: int = 8
    """A host that was cut off is given up after so long, at both ends of a connection."""
    grace: float = 10.0
    """Owners that were known to another server are not judged for so long by a new one: their keepers need less to find
    it, which try again every second."""
    deaths_every: float = 0.025
    """How often the keeper that is elected looks for owners that have died."""


PATIENT: Final = Patience()
