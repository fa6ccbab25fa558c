"""Words with their times, out of cross-attention alignments; pure functions over plain values.

The steps follow openai/whisper's ``timing.py``: tokens become words, the alignment gives each its
times, punctuation joins its neighbour, absurdly long words at pauses are shortened. Segment times
stay what the timestamp tokens say; words are fitted into them.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whisper_api.languages import UNSPACED

FRAMES_PER_SECOND = 50
"""Alignment frames in a second (one encoder position each)."""

MEDIAN_FILTER = 7
"""Width of the median filter over attention weights."""

_BEFORE = "\"'“¿([{-"
_AFTER = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001
_SENTENCE_END = ".。!！?？"  # noqa: RUF001
_SHORTEST = 0.02
_TYPICAL = 0.7  # seconds; median word durations above it are not believed


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """A word, how many tokens it took, its times in seconds and its mean probability."""

    text: str
    tokens: int
    start: float
    end: float
    probability: float


def split_words(
    tokens: Sequence[int], token_bytes: Callable[[int], bytes], language: str
) -> list[tuple[str, int]]:
    """(text, token count) of each word: at spaces, or per character where there are none."""
    characters = _whole_characters(tokens, token_bytes)
    if language in UNSPACED:
        return characters
    words: list[tuple[str, int]] = []
    for text, count in characters:
        begins = text.startswith(" ") or text.strip() in string.punctuation
        if begins or not words:
            words.append((text, count))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1] + count)
    return words


def time_words(
    words: Sequence[tuple[str, int]],
    path: Sequence[tuple[int, int]],
    probabilities: Sequence[float],
) -> list[AlignedWord]:
    """Give words their times; ``path`` holds (token, frame) pairs, the end token included.

    Empty where the path does not reach every token.
    """
    jumps: dict[int, float] = {}
    for token, frame in path:
        jumps.setdefault(token, frame / FRAMES_PER_SECOND)
    timed, first = [], 0
    for text, count in words:
        last = first + count
        if first not in jumps or last not in jumps:
            return []
        probability = float(np.mean(probabilities[first:last]))
        timed.append(AlignedWord(text, count, jumps[first], jumps[last], probability))
        first = last
    return timed


def place_words(
    words: Sequence[AlignedWord], pieces: Sequence[tuple[int, float, float]]
) -> list[list[AlignedWord]]:
    """The words of each piece, punctuation joined, times inside the piece and ascending.

    ``pieces`` are (text tokens, start, end) and take the words in order.
    """
    typical, longest = _durations(words)
    glued = _glue(_shorten(words, longest))
    placed, taken, due = [], 0, 0
    for count, start, end in pieces:
        due += count
        inside = []
        while glued and taken < due:
            word = glued.pop(0)
            taken += word.tokens
            inside.append(word)
        if _astray(inside, start, end):
            inside = _spread_over(inside, start, end)
        placed.append(_fit(_trim(inside, typical, longest, start, end), start, end))
    return placed


def spread_words(words: Sequence[tuple[str, int]], start: float, end: float) -> list[AlignedWord]:
    """Times in proportion to length, for text that could not be aligned; probability 0."""
    edges = np.cumsum([0, *(max(1, len(text)) for text, _ in words)])
    times = start + (end - start) * edges / max(1, edges[-1])
    return [
        AlignedWord(text, count, float(times[i]), float(times[i + 1]), 0.0)
        for i, (text, count) in enumerate(words)
    ]


def _whole_characters(
    tokens: Sequence[int], token_bytes: Callable[[int], bytes]
) -> list[tuple[str, int]]:
    """Fewest tokens at a time that are valid UTF-8; what never becomes valid stays as U+FFFD."""
    found: list[tuple[str, int]] = []
    data, count = b"", 0
    for token in tokens:
        data, count = data + token_bytes(token), count + 1
        try:
            found.append((data.decode(), count))
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and count < 4:
                continue
            found.append((data.decode("utf-8", "replace"), count))
        data, count = b"", 0
    if count:
        found.append((data.decode("utf-8", "replace"), count))
    return found


def _durations(words: Sequence[AlignedWord]) -> tuple[float, float]:
    lengths = [word.end - word.start for word in words if word.end > word.start]
    typical = min(_TYPICAL, float(np.median(lengths))) if lengths else 0.0
    return typical, 2 * typical


def _shorten(words: Sequence[AlignedWord], longest: float) -> list[AlignedWord]:
    """Cut words at sentence ends that swallowed the pause."""
    cut = list(words)
    for i in range(1, len(cut)):
        if cut[i].end - cut[i].start <= longest:
            continue
        if cut[i].text.strip() in _SENTENCE_END:
            cut[i] = replace(cut[i], end=cut[i].start + longest)
        elif cut[i - 1].text.strip()[-1:] in tuple(_SENTENCE_END):
            cut[i] = replace(cut[i], start=cut[i].end - longest)
    return cut


def _glue(words: Sequence[AlignedWord]) -> list[AlignedWord]:
    """Join opening punctuation to the next word, closing punctuation to the one before."""
    glued: list[AlignedWord] = []
    for word in words:
        last = glued[-1] if glued else None
        if last and not last.text.endswith(" ") and word.text and word.text in _AFTER:
            # The mark's own time says nothing about the word before it.
            glued[-1] = replace(last, text=last.text + word.text, tokens=last.tokens + word.tokens)
        elif last and last.text.startswith(" ") and last.text.strip() in tuple(_BEFORE):
            glued[-1] = replace(word, text=last.text + word.text, tokens=last.tokens + word.tokens)
        else:
            glued.append(word)
    return glued


def _astray(words: Sequence[AlignedWord], start: float, end: float) -> bool:
    """Whether the alignment put more than half of the words outside their piece."""
    outside = [word for word in words if not start <= (word.start + word.end) / 2 <= end]
    return 2 * len(outside) > len(words)


def _spread_over(words: Sequence[AlignedWord], start: float, end: float) -> list[AlignedWord]:
    spread = spread_words([(word.text, word.tokens) for word in words], start, end)
    return [
        replace(place, probability=word.probability)
        for word, place in zip(words, spread, strict=True)
    ]


def _trim(
    words: list[AlignedWord], typical: float, longest: float, start: float, end: float
) -> list[AlignedWord]:
    """Shorten a first or last word that reaches far beyond the piece or over a pause."""
    if not words:
        return words
    first, last = words[0], words[-1]
    if first.end - first.start > longest:
        first = replace(first, start=max(min(first.end, start), first.end - longest))
    words[0] = first
    if len(words) > 1 and last.end - last.start > longest:
        words[-1] = replace(last, end=min(max(last.start, end), last.start + longest))
    return words


def _fit(words: list[AlignedWord], start: float, end: float) -> list[AlignedWord]:
    """Clamp into the piece, ascending, each at least 20 ms long where there is room."""
    shortest = min(_SHORTEST, max(0.0, end - start) / max(1, len(words)))
    forward, earliest = [], start
    for word in words:
        begin = min(max(word.start, earliest), end)
        earliest = min(max(word.end, begin + shortest), end)
        forward.append(replace(word, start=begin, end=earliest))
    fitted, latest = [], end
    for word in reversed(forward):
        finish = min(word.end, latest)
        latest = min(word.start, finish - shortest)
        fitted.append(replace(word, start=max(latest, start), end=max(finish, start)))
    return fitted[::-1]
