"""A report as Markdown tables."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from bench.systems import SYSTEMS
from bench.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.report import Report, Series


def tables(report: Report) -> str:
    """Show everything: what is to be reached, and then each case, as medians with the least and the most."""
    machine = ", ".join(f"{what} {value}" for what, value in report.machine.items())
    parts = [f"Measured {report.began}; {machine}.", *_targets(report)]
    settings = itertools.groupby(
        report.series, key=lambda one: (one.key.case, one.key.place, one.key.level, one.key.size)
    )
    for (case, place, level, size), series in settings:
        parts += ["", f"### {case}, {place}, {level}, {size:,} bytes", "", *_setting(list(series), level)]
    return "\n".join(parts)


def shown(values: list[float]) -> str:
    """Show the median, the least and the most, to three digits."""
    median, least, most = (_short(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least} to {most})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _targets(report: Report) -> Iterator[str]:
    yield ""
    yield "| | measured | asked for | aim |"
    yield "|---|---|---|---|"
    for target in TARGETS:
        values = target.values(report)
        if values is None:
            continue
        sign = "at most " if target.at_most else ""
        missed = "" if target.met_by(statistics.median(values)) else ", **missed**"
        yield f"| {target.name} | {shown(values)}{missed} | {sign}{target.least:g} | {sign}{target.aim:g} |"


def _setting(series: list[Series], level: str) -> Iterator[str]:
    labels = list(dict.fromkeys(one.key.label for one in series))
    columns = list(dict.fromkeys(one.key.what for one in series))
    units = {one.key.what: one.unit for one in series}
    yield f"| | {' | '.join(f'{what}, {units[what]}' for what in columns)} | |"
    yield f"|---|{'---|' * len(columns)}---|"
    for label in labels:
        found = {one.key.what: one.values for one in series if one.key.label == label}
        cells = [shown(found[what]) if what in found else "" for what in columns]
        yield f"| {label} | {' | '.join(cells)} | {_promise(label, level)} |"


def _promise(label: str, level: str) -> str:
    """Tell of a peer what it promises, if that is less than was asked for."""
    system = SYSTEMS.get(label.partition(",")[0])
    if system is None:
        return ""
    kept = system.classes.get(level, level)
    parts = [] if system.kind == "acknowledged" else [system.kind]
    if kept != level:
        parts.append("no directory is synced")
    return ", ".join(parts)
