"""The alert rules in `examples/prometheus`: of metrics that there are, and judged by Prometheus' own `promtool`."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from helpers.pages import PROJECT
from helpers.spools import Mail, put, quick_spool
from trio_multispool import DataFile, Remove, Retry
from trio_multispool.instrumentation import AttemptFailed, CheckedOut, Instrumentation
from trio_multispool.integrations.opentelemetry import OpenTelemetry
from trio_multispool.integrations.prometheus import Prometheus, SpoolCollector

FOLDER = PROJECT / "examples" / "prometheus"
RULES, TESTS = ((FOLDER / name).read_text(encoding="utf-8") for name in ("alerts.yml", "alerts_test.yml"))
METRIC = re.compile(r"\bmultispool_\w+")


async def exported(path) -> CollectorRegistry:
    """Have a spool do what metrics tell of; return the registry of both kinds of Prometheus' metrics."""
    registry = CollectorRegistry()
    instrumentation = Prometheus(registry)
    async with await quick_spool(path, instrumentation=instrumentation) as spool:
        await put(spool, Mail.SEND, "a", "b")
        async with spool.reader(Mail.SEND) as reader:

            async def give_up(_envelope: object, _data: DataFile[bytes]) -> Remove:
                reader.stop()
                raise OSError

            (await reader.iter(give_up, retry=Retry(attempts=1, dead_letter=Mail.FAILED))).unwrap()
    registry.register(SpoolCollector(path))
    return registry


async def test_alerts_are_of_metrics_that_the_library_exports(tmp_path):
    """With the labels that it gives them: an alert on a name that nobody writes never comes."""
    text = generate_latest(await exported(tmp_path / "spool")).decode()
    samples = [line.partition("#")[0] for line in text.splitlines() if line.startswith("multispool_")]
    labels = {METRIC.match(line)[0]: set(re.findall(r'(\w+)="', line)) for line in samples}
    expressions = "\n".join(line for line in RULES.splitlines() if not line.lstrip().startswith("#"))
    used = set(METRIC.findall(expressions))
    assert len(used) == 5
    assert used <= labels.keys()
    for series in re.findall(r"series: '(\w+)\{([^}]*)\}'", TESTS):
        given = set(re.findall(r"(\w+)=", series[1])) - {"instance"}
        assert given == labels[series[0]]
    described = set(re.findall(r"\$labels\.(\w+)", RULES)) | set(re.findall(r"by \(([^)]*)\)", RULES)[0].split(", "))
    assert described <= set().union(*labels.values())


def test_each_alert_is_tested_both_ways():
    """It comes, and it does not come."""
    alerts = re.findall(r"alert: (\w+)", RULES)
    assert len(alerts) == len(set(alerts)) == 5
    for alert in alerts:
        cases = re.findall(rf"alertname: {alert}\n +eval_time: \w+\n +exp_alerts:(.*)", TESTS)
        assert {case.strip() == "[]" for case in cases} == {True, False}


def test_promtool_finds_the_rules_to_do_what_their_tests_say():
    """Prometheus' own program, where it is installed (Debian's package `prometheus`)."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    for check in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run([promtool, *check], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


async def test_promtool_accepts_what_the_library_exports(tmp_path):
    """Names, units and help are as Prometheus wants them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    text = generate_latest(await exported(tmp_path / "spool"))
    told = await trio.run_process(
        [promtool, "check", "metrics"], stdin=text, capture_stdout=True, capture_stderr=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


def as_prometheus(name: str, unit: str, *, is_counter: bool) -> str:
    """Translate a metric of OpenTelemetry's as its exporter for Prometheus does."""
    units = {"s": "_seconds", "": "", "{entry}": "", "{attempt}": "", "{message}": ""}
    return name.replace(".", "_") + units[unit] + ("_total" if is_counter else "")


async def test_metrics_that_people_alert_on_have_the_same_names_in_opentelemetry(tmp_path):
    """So that the rules need another prefix only: that of the library's whole name."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    instrumentation = OpenTelemetry(meter_provider=meters)
    async with await quick_spool(tmp_path / "spool"):
        instrumentation.observe(tmp_path / "spool")
        tell_all(instrumentation)
        data = reader.get_metrics_data()
    metrics = [each for resource in data.resource_metrics for scope in resource.scope_metrics for each in scope.metrics]
    names = {
        as_prometheus(each.name, each.unit, is_counter=getattr(each.data, "is_monotonic", False)) for each in metrics
    }
    used = {re.sub("_bucket$", "", name) for name in METRIC.findall(RULES)}
    assert {f"trio_{name}" for name in (*used, "multispool_entries")} <= names


def tell_all(instrumentation: Instrumentation) -> None:
    """Tell of what the rules are about."""
    instrumentation.on_checkout(CheckedOut("s", "q", "e", 0.0, 1.0))
    instrumentation.on_attempt_failed(AttemptFailed("s", "q", "e", 1, "OSError", None, None, "failed"))
