"""The simulation of clusters keeps what arrives, and finds what queueing theory knows."""

from __future__ import annotations

import math
from typing import Any

import pytest
from benchmarks.simulate import Cluster, Model, draw, from_figures, frontier


def plain(**change: Any) -> Cluster:
    """Workers alone: nothing else takes time."""
    free: dict[str, Any] = {
        "workers": 1,
        "speed": 1.0,
        "load": 0.7,
        "mix": ((1.0, 1.0, math.inf),),
        "part_s": 0.0,
        "queue_poll_s": 1e-9,
        "checkpoint_s": 1e9,
        "db_cores": 1.0,
        "storage_bytes_per_s": 1.0,
        "audio_bytes_per_s": 0.0,
        "stretch_bytes_per_s": 0.0,
        "api_nodes": 1,
    }
    costs = ("poll", "rest", "task", "step")
    free |= {f"db_cpu_{name}": 0.0 for name in costs} | {"api_cpu_task": 0.0}
    return Cluster(**{**free, **change})


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that wait in M/M/c."""
    offered = servers * load
    last = offered**servers / math.factorial(servers) / (1 - load)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize("workers", [1, 4])
def test_waits_are_those_of_m_m_c(workers: int) -> None:
    cluster = plain(workers=workers)
    model = Model(cluster)
    outcome = model.run(40_000 / workers)
    mean = erlang_c(workers, 0.7) / (workers * (1 - 0.7))
    assert sum(model.waits) / len(model.waits) == pytest.approx(mean, rel=0.15)
    assert outcome.workers_busy == pytest.approx(0.7, rel=0.05)


def test_equal_files_wait_half_as_long() -> None:
    model = Model(plain(mix=((1.0, 1.0, 1.0),)))
    model.run(40_000)
    expected = 0.7 / 2 / (1 - 0.7)  # M/D/1, Pollaczek and Khinchine
    assert sum(model.waits) / len(model.waits) == pytest.approx(expected, rel=0.1)


def test_nothing_is_lost_and_nothing_done_twice() -> None:
    outcome = Model(from_figures(workers=5, load=0.8)).run(600)
    assert outcome.arrived == outcome.done + outcome.waiting
    assert outcome.done > 20
    assert 0.3 < outcome.workers_busy <= 1
    assert outcome.audio_per_s <= 5 * from_figures().speed


def test_more_than_the_workers_can_do_piles_up() -> None:
    outcome = Model(plain(load=1.5)).run(3000)
    assert outcome.workers_busy == pytest.approx(1, rel=0.02)
    assert outcome.waiting == pytest.approx(outcome.arrived / 3, rel=0.2)


def test_parts_of_one_file_run_at_once() -> None:
    whole = plain(workers=4, load=0.001, mix=((1.0, 100.0, 100.0),))
    for part, expected in ((0.0, 100), (25.0, 25)):
        model = Model(plain(**{**whole.__dict__, "part_s": part}))
        model.run(100_000)
        assert min(model.times) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("stretch", "expected"),
    [
        (0.0, 100 + 4 * 100),  # upload, and the whole for each part
        (2.0, 100 + 100 + 2 * 2 * 100),  # upload, the plan, and each part written and read
    ],
)
def test_bytes_of_a_recording_that_is_cut(stretch: float, expected: float) -> None:
    line = {"audio_bytes_per_s": 1.0, "storage_bytes_per_s": 1e4, "stretch_bytes_per_s": stretch}
    cluster = plain(workers=4, load=0.01, mix=((1.0, 100.0, 100.0),), part_s=25.0, **line)
    model = Model(cluster)
    model.run(100_000)
    assert model.busy["storage"] * 1e4 / model.done == pytest.approx(expected, rel=0.02)


def test_polling_takes_the_database_and_rarer_polling_gives_it_back() -> None:
    often, seldom = (
        Model(plain(workers=10, queue_poll_s=poll, db_cpu_poll=0.01, db_cpu_step=0.001)).run(200)
        for poll in (0.05, 5.0)
    )
    assert often.db_polling == pytest.approx(2.0)
    assert seldom.db_polling == pytest.approx(0.02)
    assert often.first_limit == "database"
    assert often.audio_per_s < seldom.audio_per_s


def test_runs_repeat() -> None:
    cluster = from_figures(workers=3)
    assert Model(cluster).run(100) == Model(cluster).run(100)
    assert Model(cluster).run(100) != Model(cluster, seed=2).run(100)


def test_the_picture_has_a_line_for_each_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.simulate.SIZES", (1, 3))
    found = frontier({"a": {}, "b": {"queue_poll_s": 1.0}}, 20)
    picture = draw(found | {"c": found["a"], "d": found["b"]})
    assert picture.count("<polyline") == 4
