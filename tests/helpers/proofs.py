"""How much of an enumeration runs: a representative part in `nox -s tests`, all of it in `nox -s proofs`.

A test that enumerates (calls, errnos, states of a disk, orders, moments of a cancellation) is marked `proof` and asks
here what to leave out. Nothing is left out at random: the same cases run each time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

T = TypeVar("T")

WHOLE: Final = os.environ.get("TRIO_MULTISPOOL_PROOFS") == "whole"
"""Whether nothing is left out."""


def every(number: int) -> int:
    """Return by how many to go on in a count that has no end known before: by 1, if nothing is left out."""
    return 1 if WHOLE else number


def thinned(cases: Iterable[T], number: int, kind: Callable[[T], Hashable] = lambda _: None) -> list[T]:
    """Return every `number`-th case of each kind, with the first and the last of each; or all, in their order."""
    everything = list(cases)
    if WHOLE:
        return everything
    kinds: dict[Hashable, list[int]] = {}
    for index, case in enumerate(everything):
        kinds.setdefault(kind(case), []).append(index)
    kept = {index for indices in kinds.values() for index in (*indices[::number], indices[-1])}
    return [everything[index] for index in sorted(kept)]
