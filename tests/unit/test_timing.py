"""The clock of the engines' parts."""

from __future__ import annotations

import pytest

from whisper_api.engines.timing import PARTS, PartClock
from whisper_api.metrics import Metrics


def test_seconds_add_up_by_part_also_where_the_work_fails() -> None:
    clock = PartClock()
    assert clock.read() == dict.fromkeys(PARTS, 0.0)
    with clock.time("encode"):
        pass
    first = clock.read()["encode"]
    with pytest.raises(ValueError, match="broken"), clock.time("encode"):
        raise ValueError("broken")
    assert clock.read()["encode"] > first > 0
    assert clock.read()["decode"] == 0


def test_metrics_show_the_clock_of_the_moment() -> None:
    clock, metrics = PartClock(), Metrics()
    metrics.follow_engines(clock.read)
    name, labels = "whisper_engine_seconds_total", {"part": "decode"}
    assert metrics.registry.get_sample_value(name, labels) == 0
    with clock.time("decode"):
        pass
    assert (metrics.registry.get_sample_value(name, labels) or 0) > 0
