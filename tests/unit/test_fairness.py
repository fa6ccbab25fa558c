"""Fair queueing: lanes, shares, batch keys, the dead."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_api.fairness import FairQueue
from whisper_api.types import Lane


def queue(dead: set[str] | None = None, task_share: float = 0.0) -> FairQueue[str]:
    gone = dead if dead is not None else set()
    return FairQueue(lambda job: job in gone, task_share)


def test_higher_lane_goes_first() -> None:
    q = queue()
    for lane in (Lane.TASK, Lane.INTERACTIVE, Lane.REALTIME):
        q.push(q.join(lane), lane.value, 1, None)
    assert [q.take(8) for _ in range(4)] == [["realtime"], ["interactive"], ["task"], []]


def test_short_clip_passes_a_long_file() -> None:
    q = queue()
    long = q.join(Lane.INTERACTIVE)
    for n in range(100):
        q.push(long, f"long{n}", 30, None)
    assert q.take(2) == ["long0", "long1"]
    q.push(q.join(Lane.INTERACTIVE), "short", 3, None)
    assert "short" in q.take(2)


def test_short_clip_is_next_however_many_long_files_there_are() -> None:
    q = queue()
    for length in range(5, 13):
        long = q.join(Lane.INTERACTIVE)
        long.short = False
        for _ in range(40):
            q.push(long, "long", length, None)
    for _ in range(20):
        assert [q.take(1) for _ in range(8)] == [["long"]] * 8
        q.push(q.join(Lane.INTERACTIVE), "short", 3, None)
        assert q.take(1) == ["short"]


@pytest.mark.parametrize("short", [True, False])
def test_newcomers_do_not_starve_a_long_file(short: bool) -> None:
    q = queue()
    long = q.join(Lane.INTERACTIVE)
    long.short = short
    for n in range(5):
        q.push(long, "long", 30, n)
    served: Counter[str] = Counter()
    for n in range(60):
        q.push(q.join(Lane.INTERACTIVE), "short", 30, f"s{n}")
        served.update(q.take(1))
    assert served["long"] == 5


def endless(q: FairQueue[str], lane: Lane, turns: int, seconds: float = 10) -> list[str]:
    """What is served while ``lane`` never runs dry."""
    served: list[str] = []
    share = q.join(lane)
    for _ in range(turns):
        q.push(share, lane.value, seconds, None)
        served += q.take(1)
    return served


def test_strict_lanes_let_tasks_wait_for_ever() -> None:
    q = queue(task_share=0)
    q.push(q.join(Lane.TASK), "task", 10, None)
    assert "task" not in endless(q, Lane.INTERACTIVE, 1000)


def test_tasks_get_their_share_under_endless_interactive_work() -> None:
    q = queue(task_share=0.05)
    task = q.join(Lane.TASK)
    for _ in range(100):
        q.push(task, "task", 10, None)
    served = endless(q, Lane.INTERACTIVE, 1000)
    assert served.count("task") == 50
    # Evenly, and never two in a row: a short clip waits for one window at most.
    places = [n for n, name in enumerate(served) if name == "task"]
    assert {b - a for a, b in pairwise(places)} == {20}


def test_realtime_gives_nothing_away() -> None:
    q = queue(task_share=0.5)
    q.push(q.join(Lane.TASK), "task", 10, None)
    assert "task" not in endless(q, Lane.REALTIME, 100)


def test_tasks_have_no_claim_from_a_time_when_they_did_not_wait() -> None:
    q = queue(task_share=0.05)
    endless(q, Lane.INTERACTIVE, 1000)
    q.push(q.join(Lane.TASK), "task", 10, None)
    assert endless(q, Lane.INTERACTIVE, 25).index("task") == 19


def test_a_batch_of_tasks_takes_no_more_than_their_claim() -> None:
    q = queue(task_share=0.5)
    task, other = q.join(Lane.TASK), q.join(Lane.INTERACTIVE)
    for _ in range(20):
        q.push(task, "task", 10, None)
        q.push(other, "clip", 10, None)
    assert q.take(4) == ["clip"] * 4
    assert q.take(8) == ["task"] * 4
    assert q.take(4) == ["clip"] * 4


def test_short_ones_pass_beside_the_order_and_whatever_tasks_may_claim() -> None:
    q = queue(task_share=0.5)
    task, file, clip = q.join(Lane.TASK), q.join(Lane.INTERACTIVE), q.join(Lane.INTERACTIVE)
    file.short = False
    for _ in range(6):
        q.push(task, "task", 10, None)
        q.push(file, "file", 10, None)
    assert q.take(2) == ["file"] * 2
    assert q.next_lane() is Lane.TASK
    q.push(clip, "clip", 100, None)
    assert q.short_lane() is Lane.INTERACTIVE
    assert q.take_short(4) == ["clip"]
    assert q.short_lane() is None
    newcomer = q.join(Lane.INTERACTIVE)
    assert newcomer.virtual == file.virtual  # not a hundred seconds behind
    assert q.take(8) == ["task"] * 2


def test_whoever_has_least_audio_left_goes_first_when_the_server_stops() -> None:
    q = queue()
    shares = {name: q.join(Lane.INTERACTIVE) for name in ("long", "short", "middle")}
    for name, left in (("long", 3600), ("short", 20), ("middle", 60)):
        shares[name].left = left
        for _ in range(2):
            q.push(shares[name], name, 10, None)
    q.shortest_first = True
    assert [q.take(1)[0] for _ in range(3)] == ["short", "short", "middle"]
    shares["long"].left = 5
    assert q.take(8) == ["long", "long", "middle"]


def test_tasks_take_nothing_of_the_last_seconds() -> None:
    q = queue(task_share=0.5)
    q.push(q.join(Lane.TASK), "task", 10, None)
    q.shortest_first = True
    assert "task" not in endless(q, Lane.INTERACTIVE, 100)


def test_batch_holds_one_key_and_mixes_requests() -> None:
    q = queue()
    a, b = q.join(Lane.INTERACTIVE), q.join(Lane.INTERACTIVE)
    q.push(a, "a-first", 30, "prompted")
    q.push(a, "a1", 30, "plain")
    q.push(b, "b1", 30, "plain")
    assert q.take(8) == ["a-first"]
    assert sorted(q.take(8)) == ["a1", "b1"]


def test_a_second_attempt_goes_before_later_windows() -> None:
    q = queue()
    share = q.join(Lane.INTERACTIVE)
    for n in range(3):
        q.push(share, f"window{n}", 30, None, order=n)
    assert q.take(1) == ["window0"]
    q.push(share, "window0 again", 30, None, order=0)
    assert q.take(2) == ["window0 again", "window1"]


def test_dead_jobs_vanish() -> None:
    dead = {"x"}
    q = queue(dead)
    share = q.join(Lane.TASK)
    q.push(share, "x", 1, None)
    assert q.next_lane() is None
    q.push(share, "y", 1, None)
    assert q.take(2) == ["y"]


def test_leave_returns_what_waited() -> None:
    q = queue()
    share = q.join(Lane.TASK)
    q.push(share, "x", 1, None)
    assert q.leave(share) == ["x"]
    assert q.take(1) == []
    assert q.leave(share) == []


jobs = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0.1, 30), st.sampled_from("ab")), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(
    jobs,
    st.integers(1, 6),
    st.sets(st.integers(0, 40)),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.booleans(),
)
def test_every_live_job_comes_out_once(
    todo: list[tuple[int, float, str]], most: int, gone: set[int], task_share: float, hasty: bool
) -> None:
    q: FairQueue[int] = FairQueue(lambda job: job in gone, task_share)
    q.shortest_first = hasty
    shares = [q.join(lane) for lane in (Lane.REALTIME, Lane.TASK, Lane.TASK, Lane.INTERACTIVE)]
    keys = {}
    for number, (share, seconds, key) in enumerate(todo):
        q.push(shares[share], number, seconds, key)
        keys[number] = key
    out: list[int] = []
    while batch := q.take(most):
        assert len(batch) <= most
        assert len({keys[job] for job in batch}) == 1
        out += batch
    assert sorted(out) == [n for n in range(len(todo)) if n not in gone]
