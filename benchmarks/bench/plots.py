"""Plots of a report, as SVG files that look the same on light and dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

from bench.cases import LIMIT, OWN, SQLITE, TASKS, label_of
from bench.report import Key
from bench.systems import PEERS, SYSTEMS

mpl.use("svg")
from matplotlib import pyplot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.report import Report, Series

OWN_COLOUR, LIMIT_COLOUR, OTHER_COLOUR, WEAKER_COLOUR = "#1f6f8b", "#7a7a7a", "#c99846", "#e3d3b4"
INK = "#6e6e6e"
STYLE = {
    "svg.hashsalt": "bench",  # the same report makes the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PLACES = (("ext4", "power"), ("xfs", "power"), ("btrfs", "power"), ("tmpfs", "process"))
TITLES = {"enqueue": "enqueued", "remove": "checked out and removed"}


def draw(report: Report, directory: Path) -> Iterator[Path]:
    """Draw what a report has the figures for; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        for place, level in PLACES:
            figure = _beside_others(report, place, level)
            if figure is not None:
                yield _saved(figure, directory / f"entries-{place}.svg")
        for name, figure in (
            ("tasks", _tasks(report)),
            ("backlog", _backlog(report)),
            ("consumers", _consumers(report)),
        ):
            if figure is not None:
                yield _saved(figure, directory / f"{name}.svg")


def _saved(figure: pyplot.Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return path


def _spread(series: Series) -> tuple[list[float], list[float]]:
    """Return how far the least and the most are from the median, as error bars take it."""
    return [series.median - min(series.values)], [max(series.values) - series.median]


def _beside_others(report: Report, place: str, level: str) -> pyplot.Figure | None:
    """Draw bars: the limit, this library, and the others, of which the weaker promises are pale."""
    labels = [LIMIT, *(label_of(OWN, tasks) for tasks in TASKS), SQLITE, *PEERS]
    rows = {what: [report.find(Key("entries", place, level, label, what)) for label in labels] for what in TITLES}
    present = [number for number in range(len(labels)) if any(rows[what][number] for what in TITLES)]
    if not present:
        return None
    figure, axes = pyplot.subplots(1, len(TITLES), figsize=(8, 0.9 + 0.24 * len(present)), sharey=True)
    for axis, (what, title) in zip(axes, TITLES.items(), strict=True):
        for row, number in enumerate(reversed(present)):
            found = rows[what][number]
            if found is None:
                continue
            _ = axis.barh(row, found.median, color=_colour(labels[number], level), height=0.7)
            axis.errorbar(found.median, row, xerr=_spread(found), color=INK, linewidth=0.8, capsize=2)
            beside = {"xytext": (5, 0), "textcoords": "offset points", "verticalalignment": "center"}
            _ = axis.annotate(f"{found.median:,.0f}", (max(found.values), row), **beside)
        axis.set_yticks(range(len(present)), [_named(labels[number], level) for number in reversed(present)])
        axis.set_title(f"{title} per second", fontsize=9)
        axis.margins(x=0.18)
        axis.xaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
        axis.xaxis.set_major_locator(pyplot.MaxNLocator(4))
    return figure


def _weaker(label: str, level: str) -> str:
    system = SYSTEMS.get(label.partition(",")[0])
    if system is None:
        return ""
    if system.kind != "acknowledged":
        return system.kind
    return "files only" if system.classes.get(level, level) != level else ""


def _named(label: str, level: str) -> str:
    weaker = _weaker(label, level)
    return f"{label} ({weaker})" if weaker else label


def _colour(label: str, level: str) -> str:
    if label.startswith(OWN):
        return OWN_COLOUR
    if label == LIMIT:
        return LIMIT_COLOUR
    return WEAKER_COLOUR if _weaker(label, level) else OTHER_COLOUR


def _tasks(report: Report) -> pyplot.Figure | None:
    """Draw how the rate grows with the number of tasks, as times the bare loop's."""
    figure, axes = pyplot.subplots(1, len(TITLES), figsize=(8, 2.8), sharey=True)
    drawn = False
    for axis, (what, title) in zip(axes, TITLES.items(), strict=True):
        for place, level in PLACES[:3]:
            limit = Key("entries", place, level, LIMIT, what)
            ratios = [report.ratio(Key("entries", place, level, label_of(OWN, tasks), what), limit) for tasks in TASKS]
            if all(ratios):
                medians = [sorted(ratio)[len(ratio) // 2] for ratio in ratios if ratio]
                _ = axis.plot(TASKS, medians, marker="o", markersize=4, label=place)
                drawn = True
        axis.set_xscale("log", base=2)
        axis.set_xticks(TASKS, map(str, TASKS))
        axis.set_xlabel("tasks")
        axis.set_title(f"{title}, times the bare loop", fontsize=9)
        axis.set_ylim(bottom=0)
    if drawn:
        _ = axes[0].legend(frameon=False, labelcolor=INK)
        return figure
    pyplot.close(figure)
    return None


def _backlog(report: Report) -> pyplot.Figure | None:
    """Draw what one more enqueue and one more claim cost over how many entries wait."""
    waiting = (1_000, 10_000, 100_000, 1_000_000)
    figure, axis = pyplot.subplots(figsize=(5, 2.8))
    for what in ("enqueue", "claim and remove"):
        found = [report.find(Key("backlog", "tmpfs", "process", f"{number:,} waiting", what)) for number in waiting]
        if not all(found):
            pyplot.close(figure)
            return None
        _ = axis.plot(waiting, [one.median for one in found if one], marker="o", markersize=4, label=what)
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("entries waiting")
    axis.set_ylabel("µs")
    axis.legend(frameon=False, labelcolor=INK)
    return figure


def _consumers(report: Report) -> pyplot.Figure | None:
    """Draw what several processes work off together."""
    counts = (1, 2, 4, 8, 16)
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 2.8))
    drawn = False
    for axis, (place, level) in zip(axes, (("ext4", "power"), ("tmpfs", "process")), strict=True):
        found = [report.find(Key("consumers", place, level, f"{count} processes", "remove")) for count in counts]
        if all(found):
            drawn = True
            _ = axis.plot(counts, [one.median for one in found if one], marker="o", markersize=4, color=OWN_COLOUR)
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, map(str, counts))
        axis.set_ylim(bottom=0)
        axis.set_xlabel("processes")
        axis.set_title(f"checked out and removed per second, {place}", fontsize=9)
    if drawn:
        return figure
    pyplot.close(figure)
    return None
