"""Small charts, as numbers for SVG: where lines run and bars stand. Pure; the templates draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 180
HEIGHT: Final = 36

_FEWEST: Final = 12
"""For how many points there is room at least, so that the first ones do not fill it: two minutes."""


class Spark(NamedTuple):
    """Two lines over the last minutes."""

    came: str
    """The points of the line of what came in, as SVG has them."""
    went: str
    area: str
    """The points of the area below the first."""
    highest: float
    """In a minute."""


def spark(points: Sequence[tuple[float, float]]) -> Spark | None:
    """Return the lines for what came in and went out in a minute, the latest to the right; `None`: nothing is known."""
    if not points:
        return None
    highest = max(max(pair) for pair in points)
    scale = (HEIGHT - 3) / highest if highest else 0.0
    step = WIDTH / (max(_FEWEST, len(points)) - 1)
    first = WIDTH - step * (len(points) - 1)
    across = [first + step * number for number in range(len(points))]

    def line(which: int) -> str:
        return " ".join(
            f"{x:.1f},{HEIGHT - 1.5 - pair[which] * scale:.1f}" for x, pair in zip(across, points, strict=True)
        )

    came = line(0)
    return Spark(came, line(1), f"{first:.1f},{HEIGHT} {came} {WIDTH},{HEIGHT}", highest)


class Bar(NamedTuple):
    """A bar of the histogram."""

    label: str
    number: int
    height: float
    """In hundredths."""


def bars(labels: Sequence[str], numbers: Sequence[int]) -> list[Bar]:
    """Return the bars, the highest of which is a hundred high; one that is not empty can be seen."""
    highest = max(numbers, default=0)
    return [
        Bar(label, number, max(3.0, 100 * number / highest) if number else 0.0)
        for label, number in zip(labels, numbers, strict=True)
    ]
