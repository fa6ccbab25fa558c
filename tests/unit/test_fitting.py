"""What is learnt of an engine's memory: what fits is found, and asked in vain ever more rarely."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_api.fitting import Fitting

LARGEST = 64
SIZES = st.integers(1, LARGEST)
PATIENCE, MOST_PATIENCE = 2, 64


class Memory:
    """Batches of a queue that never ends, in a memory that takes ``room`` windows."""

    def __init__(self, batch_size: int, room: int) -> None:
        self.fitting = Fitting(batch_size, PATIENCE, MOST_PATIENCE)
        self.room = room
        self.failures = 0

    def run(self, batches: int) -> None:
        for _ in range(batches):
            windows = self.fitting.most
            if windows > self.room:
                self.failures += 1
                self.fitting.failed(windows)
            else:
                self.fitting.held(windows)


@given(batch_size=SIZES, room=SIZES)
@settings(max_examples=50, deadline=None)
def test_what_fits_is_found_and_more_is_asked_for_ever_more_rarely(
    batch_size: int, room: int
) -> None:
    memory = Memory(batch_size, room)
    memory.run(800)
    assert memory.fitting.good == min(batch_size, room)
    assert memory.failures <= 2 * math.log2(LARGEST) + 800 / MOST_PATIENCE
    before = memory.failures
    memory.run(10 * MOST_PATIENCE)
    assert memory.failures - before <= 10  # each wait is as long as it gets


@given(batch_size=SIZES, little=SIZES, much=SIZES)
@settings(max_examples=50, deadline=None)
def test_memory_that_comes_back_is_used(batch_size: int, little: int, much: int) -> None:
    memory = Memory(batch_size, min(little, much))
    memory.run(500)
    memory.room = max(little, much)
    memory.run(4000)  # at the longest wait up to some twenty tries
    assert memory.fitting.good == min(batch_size, memory.room)


@given(sizes=st.lists(st.integers(1, 31), max_size=50))
@settings(max_examples=20)
def test_batches_that_are_not_full_prove_nothing(sizes: list[int]) -> None:
    fitting = Fitting(64, PATIENCE)
    fitting.failed(64)
    for size in sizes:
        fitting.held(size)
    assert fitting.most == 32


def test_batches_that_were_under_way_already_are_no_news() -> None:
    fitting = Fitting(8, PATIENCE)
    fitting.failed(8)
    fitting.failed(8)  # of another replica
    assert fitting.most == 4
    for _ in range(PATIENCE):
        fitting.held(4)
    assert fitting.most == 6


def test_less_memory_than_before_is_noticed_at_once() -> None:
    fitting = Fitting(32)
    for size in (32, 16, 8, 4, 2):
        fitting.failed(size)
        assert fitting.most == size // 2
