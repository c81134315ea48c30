"""The small charts: what came in and went out, step by step."""

from __future__ import annotations

from trio_multispool.web.charts import WIDTH, bars, spark
from trio_multispool.web.flows import POINTS, STEP, Flow


def test_a_flow_is_told_in_a_minute_step_by_step():
    """Looks of one step are added up, and a step that has just begun is not shown yet."""
    flow = Flow()
    assert (flow.points, flow.lately) == ([], None)
    flow.add(0.0, 5, 5)
    for _ in range(6):
        flow.add(2.0, 4, 1)
    assert flow.points == [(120.0, 30.0)]
    assert flow.lately == (120.0, 30.0)
    flow.add(4.0, 0, 0)
    assert [came for came, _ in flow.points] == [120.0, 40.0]
    for _ in range(2 * POINTS):
        flow.add(STEP, 1, 1)
    assert len(flow.points) == POINTS


def test_charts_stay_inside_their_frames():
    """Whatever the numbers; nothing is drawn of what is not known."""
    assert spark([]) is None
    drawn = spark([(0.0, 0.0), (1e9, 5.0)])
    assert drawn is not None
    assert drawn.came.endswith(f"{WIDTH:.1f},1.5")
    assert spark([(0.0, 0.0)]) is not None
    assert [bar.height for bar in bars(["a", "b", "c"], [0, 1, 1000])] == [0.0, 3.0, 100.0]
