"""How much of an enumeration is tried: a representative part in `nox -s tests`, all of it in `nox -s proofs`.

`TRIO_MULTISPOOL_PROOFS=whole` tries everything; `longest` adds the crash states that take longer (`nox -s
crash-states`).
Which part it is never changes from run to run.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

LONGEST = os.environ.get("TRIO_MULTISPOOL_PROOFS") == "longest"
WHOLE = LONGEST or os.environ.get("TRIO_MULTISPOOL_PROOFS") == "whole"


def part(cases: Iterable[T], one_in: int) -> list[T]:
    """Return the first case, each `one_in`-th after it, and the last; all of them in a proof."""
    everything = list(cases)
    return everything if WHOLE else [*everything[:-1:one_in], *everything[-1:]]


def numbers(one_in: int) -> Iterator[int]:
    """Count from 1 without end, by `one_in`; by 1 in a proof. For moments whose number shows only in the doing."""
    return itertools.count(1, 1 if WHOLE else one_in)
