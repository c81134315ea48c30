"""Figures, one line for each run, as they come."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Tally:
    """What one run came to."""

    subject: str
    images: int = 0
    """How often the device was copied, or put together from its log."""
    distinct: int = 0
    bad: int = 0
    example: str = ""
    """The first thing that was wrong."""
    notes: str = ""

    def count(self, problems: list[str]) -> None:
        """Count an image."""
        self.images += 1
        if problems:
            self.bad += 1
            self.example = self.example or problems[0]


def headline(title: str, first: str = "images", second: str = "distinct") -> None:
    """Begin a table."""
    print(f"\n{title}\n{'':34}{first:>9}{second:>9}{'bad':>6}{'seconds':>9}", flush=True)


def line(tally: Tally, seconds: float, *, expected: bool) -> None:
    """Print a line, and an example of what is bad."""
    figures = f"{tally.images:9}{tally.distinct:9}{tally.bad:6}{seconds:9.1f}"
    verdict = "" if expected else "   <-- WRONG"
    print(f"  {tally.subject:32}{figures}   {tally.notes}{verdict}".rstrip(), flush=True)
    if tally.example:
        print(f"    e.g. {tally.example}", flush=True)
