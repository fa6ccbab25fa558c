"""When a replica idles for a short request, and for how long at most."""

from __future__ import annotations

import pytest

from whisper_api.fairness import Share
from whisper_api.reserve import COMING_SECONDS, Reserve
from whisper_api.types import Lane

MOST = 0.1
LONG = Lane.INTERACTIVE


def short(lane: Lane = Lane.INTERACTIVE) -> Share[str]:
    return Share(lane)


def test_it_idles_from_the_arrival_of_a_short_request_until_its_window_comes() -> None:
    reserve, one = Reserve(MOST), short()
    assert reserve.idle(0.0, LONG) == 0
    reserve.join(one, 0.0)
    assert reserve.idle(0.0, LONG) == pytest.approx(MOST)
    assert reserve.idle(0.04, LONG) == pytest.approx(MOST - 0.04)
    reserve.push(one)
    assert reserve.idle(0.05, LONG) == 0


def test_it_idles_again_when_a_window_is_done_until_the_request_leaves() -> None:
    reserve, one = Reserve(MOST), short()
    reserve.join(one, 0.0)
    reserve.push(one)
    reserve.push(one)
    reserve.done(one, 1.0)
    assert reserve.idle(1.0, LONG) == 0, "its other window waits or runs"
    reserve.done(one, 2.0)
    assert reserve.idle(2.0, LONG) > 0
    reserve.leave(one)
    assert reserve.idle(2.0, LONG) == 0
    reserve.done(one, 2.0)  # a window that was withdrawn with it
    assert reserve.idle(2.0, LONG) == 0


def test_a_request_that_is_long_in_coming_is_not_waited_for() -> None:
    reserve = Reserve(10 * COMING_SECONDS)
    reserve.join(short(), 0.0)
    assert reserve.idle(0.9 * COMING_SECONDS, LONG) == pytest.approx(0.1 * COMING_SECONDS)
    assert reserve.idle(COMING_SECONDS, LONG) == 0


def test_requests_of_lower_lanes_are_not_waited_for() -> None:
    reserve = Reserve(MOST)
    reserve.join(short(Lane.TASK), 0.0)
    assert reserve.idle(0.0, Lane.INTERACTIVE) == 0
    assert reserve.idle(0.0, Lane.TASK) > 0
    reserve.join(short(Lane.REALTIME), 0.0)
    assert reserve.idle(0.0, Lane.INTERACTIVE) > 0


def test_endless_short_requests_let_it_idle_so_long_and_no_longer() -> None:
    reserve, now, idle = Reserve(MOST), 0.0, 0.0
    for _ in range(100):  # each comes 30 ms after the one before is done, which takes 20 ms
        one = short()
        reserve.join(one, now)
        rest = reserve.idle(now, LONG)
        if rest <= 0:
            break
        passed = min(rest, 0.03)
        idle, now = idle + passed, now + passed
        if passed < 0.03:
            continue
        reserve.push(one)
        reserve.begin(now, long=False)
        now += 0.02
        reserve.leave(one)
    assert idle == pytest.approx(MOST)
    assert reserve.idle(now, LONG) == 0
    reserve.begin(now, long=True)
    assert reserve.idle(now + 0.2, LONG) == pytest.approx(min(MOST, COMING_SECONDS - 0.2))


def test_idling_for_nobody_ends_when_nothing_long_waits_any_more() -> None:
    reserve = Reserve(MOST)
    reserve.join(short(), 0.0)
    assert reserve.idle(0.0, LONG) > 0
    reserve.stop(0.02)  # the long request was cancelled
    reserve.join(short(), 60.0)
    reserve.begin(60.0, long=False)
    assert reserve.idle(60.0, LONG) == pytest.approx(MOST - 0.02)
