"""The benchmark: that it runs, and what it makes of figures. No figure is asserted here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(os.fspath(BENCHMARKS))

from bench.cases import Cases  # noqa: E402  # found by the line above
from bench.report import Key, Report, Series, load, save  # noqa: E402
from bench.systems import SYSTEMS  # noqa: E402
from bench.tables import tables  # noqa: E402
from bench.targets import TARGETS, Target, shortfalls  # noqa: E402

ONE, OTHER = (Key("entries", "ext4", "power", label, "enqueue") for label in ("one", "other"))


def report(**values: list[float]) -> Report:
    """Return a report with a row for each label."""
    keys = {"one": ONE, "other": OTHER}
    return Report("2026-01-01T00:00", {}, [Series(keys[label], "entries/s", each) for label, each in values.items()])


def of_first_target(*values: float) -> Report:
    """Return a report that has what the first target compares: a ratio for each round."""
    of, to = TARGETS[0].of, TARGETS[0].to
    assert to is not None
    rows = [Series(of, "entries/s", list(values)), Series(to, "entries/s", [1.0] * len(values))]
    return Report("2026-01-01T00:00", {}, rows)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script of the benchmarks."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=120, check=False)


def test_ratios_are_between_values_of_the_same_round() -> None:
    """Not between medians: what slows a whole round down is in both."""
    assert report(one=[10.0, 2.0], other=[5.0, 1.0]).ratio(ONE, OTHER) == [2.0, 2.0]
    assert report(one=[10.0, 2.0]).ratio(ONE, None) == [10.0, 2.0]
    assert report(one=[10.0]).ratio(ONE, OTHER) is None
    assert report(other=[10.0]).ratio(ONE, OTHER) is None


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """To five digits; what is no report says so with its path."""
    path = tmp_path / "report.json"
    save(path, report(one=[1234.5678, 0.00012345678]))
    assert load(path).series == [Series(ONE, "entries/s", [1234.6, 0.00012346])]
    _ = path.write_text("{}")
    with pytest.raises(ValueError, match=r"report\.json is no report"):
        _ = load(path)


def test_what_is_measured_again_takes_the_place_of_what_was() -> None:
    """And the rest stays."""
    merged = report(one=[1.0], other=[2.0]).merged(report(one=[3.0]))
    assert [(one.key.label, one.values) for one in merged.series] == [("other", [2.0]), ("one", [3.0])]


@pytest.mark.parametrize(
    ("now", "worse"),
    [
        ((1.0, 1.1, 0.9, 1.05, 0.95), False),  # the same
        ((0.95, 1.04, 0.86, 1.0, 0.9), False),  # within the noise
        ((0.6, 0.61, 0.59, 0.6, 0.62), True),
        ((0.3, 1.1, 0.6, 0.9, 0.2), False),  # so noisy that it tells nothing
        ((2.0, 2.1, 2.0, 2.2, 1.9), False),  # better
    ],
)
def test_what_is_worse_than_the_noise_falls_short(now: tuple[float, ...], worse: bool) -> None:
    """By more than both runs' noise, and more than a tenth; otherwise nothing is said."""
    found = list(shortfalls(of_first_target(1.0, 1.1, 0.9, 1.05, 0.95), of_first_target(*now)))
    assert [target for target, *_ in found] == ([TARGETS[0]] if worse else [])


def test_less_than_a_tenth_is_never_worse() -> None:
    """However alike the rounds are."""
    before = of_first_target(*[1.0] * 5)
    assert list(shortfalls(before, of_first_target(*[0.91] * 5))) == []
    assert [target for target, *_ in shortfalls(before, of_first_target(*[0.89] * 5))] == [TARGETS[0]]


def test_less_can_be_better() -> None:
    """A latency that grows has become worse, and meets its target below a limit."""
    limit = next(target for target in TARGETS if target.at_most and target.to is None)
    before, after = (Report("", {}, [Series(limit.of, "ms", [value] * 5)]) for value in (1.0, 1.5))
    assert [target for target, *_ in shortfalls(before, after)] == [limit]
    assert list(shortfalls(after, before)) == []
    assert limit.met_by(limit.least)
    assert not limit.met_by(limit.least * 1.01)
    more = Target("more", ONE, OTHER, 2, 3)
    assert more.met_by(2)
    assert not more.met_by(1.99)


def test_tables_tell_what_misses_its_target_and_who_promises_less() -> None:
    """In the row of each."""
    found = of_first_target(0.1, 0.2, 0.3)
    maildir = Key("entries", "ext4", "power", "Maildir", "enqueue")
    huey = Key("entries", "ext4", "power", "huey", "enqueue")
    found.series += [Series(key, "entries/s", [12345.0]) for key in (maildir, huey)]
    lines = tables(found).splitlines()
    assert f"| {TARGETS[0].name} | 0.2 (0.1 to 0.3), **missed** | {TARGETS[0].least:g} | {TARGETS[0].aim:g} |" in lines
    assert "| Maildir | 12,345 (12,345 to 12,345) | unclaimed, no directory is synced |" in lines
    assert "| huey | 12,345 (12,345 to 12,345) | destructive |" in lines


def test_every_target_is_measured_by_a_case() -> None:
    """Its rows have the place, level and label of a setting, so that none is left out by a slip of the pen."""
    settings = {
        (setting.case, setting.place, setting.level, label, setting.size)
        for case in Cases().all.values()
        for setting in case()
        for label in setting.trials
    }
    keys = [key for target in TARGETS for key in (target.of, target.to) if key is not None]
    assert {(key.case, key.place, key.level, key.label, key.size) for key in keys} <= settings
    assert {setting[0] for setting in settings} == set(Cases().all)


@pytest.mark.program
def test_a_case_runs(tmp_path: Path) -> None:
    """Each system that needs nothing installed, a few entries: it is measured, written down and shown."""
    output = tmp_path / "results" / "report.json"
    options = ("--rounds", "2", "--scale", "0.01", "--output", output, "--places", "tmpfs", "--on", f"tmpfs={tmp_path}")
    done = run("-m", "bench", "save", "processes", *options)
    assert done.returncode == 0, done.stderr
    found = load(output)
    assert {one.key.label.partition(",")[0] for one in found.series} == {"trio-multispool", "bare loop", "SQLite"}
    assert {one.key.what for one in found.series} == {"enqueue", "remove", "save"}
    assert all(len(one.values) == 2 and min(one.values) > 0 for one in found.series)
    assert "### save, tmpfs, process, 1,024 bytes" in done.stdout
    assert list(tmp_path.iterdir()) == [output.parent], "nothing is left where it measured"

    assert run("compare.py", output, "--baseline", output).returncode == 2, "no target is among them"
    again = run("-m", "bench", "hop", "--add", *options)
    assert again.returncode == 0, again.stderr
    assert {one.key.case for one in load(output).series} == {"save", "processes", "hop"}


@pytest.mark.program
@pytest.mark.parametrize(
    ("probe", "values"),
    [
        (
            'backlog {"entries":400}',
            {"enqueue", "first claim", "claim and remove", "worst claim and remove", "memory"},
        ),
        ('dead_owners {"owners":3}', {"recover"}),
        pytest.param('monitoring {"entries":50}', {"check", "memory"}, marks=pytest.mark.sample),
        ('importing {"times":1}', {"trio, anyio, msgspec, trio_multispool", "trio, anyio, msgspec"}),
    ],
)
def test_a_probe_runs(probe: str, values: set[str], tmp_path: Path) -> None:
    """It says what the case that asks for it has units for."""
    import json

    name, options = probe.split()
    done = run("-m", f"bench.probes.{name}", tmp_path, options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == values
    assert min(found.values()) > 0


@pytest.mark.program
@pytest.mark.postgresql
def test_a_case_on_a_server_runs() -> None:
    """It starts a server of its own, measures on it, and leaves nothing."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        options = ("--rounds", "1", "--scale", "0.01", "--places", "tmpfs", "--on", f"tmpfs={folder}")
        cases = ("postgresql-waking", "postgresql-deaths", "postgresql-backlog")
        done = run("-m", "bench", *cases, *options, "--output", Path(folder, "report.json"))
        if "left out" in done.stderr:
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        found = load(Path(folder, "report.json"))
        assert {one.key.case for one in found.series} == set(cases)
        assert "| postgresql, waking, p50, tmpfs, ms |" in done.stdout
        assert [path.name for path in Path(folder).iterdir()] == ["report.json"]


@pytest.mark.program
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["everything"], "there is no case everything; there are entries"),
        (["--places", "ntfs"], "--places takes some of tmpfs,ext4,xfs,btrfs"),
        (["--on", "ext4=/nowhere/at/all"], "a directory that is there"),
        (["--rounds", "0"], "--rounds takes a number from 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], said: str) -> None:
    """In one line, before anything is measured."""
    done = run("-m", "bench", *words)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.program
def test_compare_fails_if_something_has_become_worse(tmp_path: Path) -> None:
    """Status 1, and 0 if not; with `--targets` also 1 for what is below what is asked for."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    save(good, of_first_target(0.9, 0.9, 0.9))
    save(bad, of_first_target(0.5, 0.5, 0.5))
    worse = run("compare.py", bad, "--baseline", good)
    assert worse.returncode == 1, worse.stderr
    assert f"worse: {TARGETS[0].name}: 0.5, where it was 0.9" in worse.stdout
    assert run("compare.py", good, "--baseline", bad).returncode == 0
    assert run("compare.py", bad, "--baseline", bad).returncode == 0
    assert run("compare.py", bad, "--baseline", bad, "--targets").returncode == 1
    missing = run("compare.py", tmp_path / "none.json", "--baseline", good)
    assert missing.returncode == 2
    assert "none.json" in missing.stderr


def test_every_system_has_its_module_and_says_what_it_promises() -> None:
    """A peer's level is one that exists, and the same or weaker than what it was asked for."""
    for system in SYSTEMS.values():
        assert (BENCHMARKS / "bench" / "systems" / f"{system.module}.py").is_file()
        assert system.classes
        for level, promised in system.classes.items():
            assert promised in ({"power", "files"} if level == "power" else {"process"})
