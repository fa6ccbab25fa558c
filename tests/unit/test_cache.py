"""What is kept: for its time, within its bytes, the oldest use making room."""

from __future__ import annotations

import sys

from whisper_api.cache import Cache, Kept
from whisper_api.engines.base import Decoded, Piece
from whisper_api.merge import WindowResult
from whisper_api.pipeline import Progress
from whisper_api.types import Options, Plan, Segment, TokenLogprob, Transcript, Window, Word

MB = 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def segment(words: int) -> Segment:
    heard = tuple(Word(f" word{n}", n + 0.1, n + 0.2, 0.9) for n in range(words))
    likely = tuple(TokenLogprob(f" word{n}", -0.1 * n, (32, 119)) for n in range(words))
    text = " word" * words
    tokens = tuple(range(1000, 1000 + words))
    return Segment(0, 0, 0, 1, text, tokens, 0, -0.1, 1, 0, words=heard, logprobs=likely)


def result(segments: int, seconds: float = 60, words: int = 10) -> Kept:
    parts = tuple(segment(words) for _ in range(segments))
    return Kept(Transcript("transcribe", "en", 1, 9, parts, "m"), None, seconds)


def test_each_is_kept_for_its_own_time() -> None:
    clock = Clock()
    cache = Cache(MB, clock)
    cache.put(("short",), result(1, seconds=10))
    cache.put(("long",), result(1, seconds=20))
    clock.now = 15
    assert cache.get(("short",)) is None
    assert cache.get(("long",)) is not None
    clock.now = 25
    assert cache.get(("long",)) is None
    assert cache.size == 0


def test_bytes_are_bounded_and_the_last_used_stay() -> None:
    one = result(1)
    cache = Cache(3 * one.size)
    for name in "abc":
        cache.put((name,), one)
    cache.get(("a",))
    cache.put(("d",), one)
    assert [cache.get((name,)) is not None for name in "abcd"] == [True, False, True, True]
    assert cache.size == 3 * one.size


def test_what_is_too_large_is_not_kept_and_pushes_nothing_out() -> None:
    one = result(1)
    cache = Cache(2 * one.size)
    cache.put(("a",), one)
    cache.put(("b",), result(9))
    assert cache.get(("a",)) is not None
    assert cache.get(("b",)) is None
    cache.put(("a",), result(9))
    assert cache.get(("a",)) is None


def test_nothing_is_kept_without_time_or_room() -> None:
    cache = Cache(MB)
    cache.put(("a",), result(1, seconds=0))
    assert cache.get(("a",)) is None
    none = Cache(0)
    none.put(("a",), result(1))
    assert none.get(("a",)) is None


def test_sizes_are_those_of_the_objects_within_a_factor_of_two() -> None:
    kept = result(50)
    assert kept.transcript is not None
    true = sum(map(deep, kept.transcript.segments))
    assert true / 2 < kept.size < true * 2


def test_what_begins_so_is_dropped() -> None:
    cache = Cache(MB)
    for key in (("a", "x", "1"), ("a", "x", "2"), ("a", "y", "1"), ("b", "x", "1")):
        cache.put(key, result(1))
    cache.drop(("a", "x"))
    left = [key for key in (("a", "x", "1"), ("a", "y", "1"), ("b", "x", "1")) if cache.get(key)]
    assert left == [("a", "y", "1"), ("b", "x", "1")]
    assert cache.size == 2 * result(1).size


def test_texts_of_options_and_warnings_count() -> None:
    long = "x" * 100_000
    options = Options(prompt=long, keywords=(long,))
    plan = Plan("m", options, 1, "en", 1, (Window(0, 0, 16_000, 1, ((0, 9),) * 100),), (), (), 0)
    assert Kept(None, Progress(plan, []), 1).size > 800_000
    warned = Transcript("transcribe", "en", 1, 9, (), "m", warnings=(long,))
    assert Kept(warned, None, 1).size > 400_000


def test_windows_count_by_their_pieces() -> None:
    piece = Piece(0, 1, tuple(range(20)), " hello", ())
    decoded = Decoded((piece,), " hello", -0.1, 1, 0, 0, "en")
    window = Window(0, 0, 16_000)
    empty = Kept(None, Progress(None, [WindowResult(window, None)]), 1)
    full = Kept(None, Progress(None, [WindowResult(window, decoded)]), 1)
    assert full.size - empty.size > 20 * 36


def deep(value: object) -> int:
    """Bytes of an object and everything in it."""
    total = sys.getsizeof(value)
    if isinstance(value, tuple):
        return total + sum(map(deep, value))
    names = getattr(value, "__slots__", ())
    return total + sum(deep(getattr(value, name)) for name in names)
