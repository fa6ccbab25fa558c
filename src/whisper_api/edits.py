"""Transcripts changed by hand: new text keeps the times of the words that it kept."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from whisper_api.errors import InvalidOption
from whisper_api.types import Segment, Transcript, Word

MOST_SEGMENTS = 100_000
LONGEST_TEXT = 2_000_000
"""Characters of one edited transcript."""
MOST_PAIRS = 5_000_000
"""Comparisons of words up to which an edit is looked at word by word."""
_TOLERANCE_S = 1.0
"""How far past the audio's end a segment may reach; it is cut there."""
_UNSPACED = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})
"""Languages that write no spaces between words."""


@dataclass(frozen=True, slots=True)
class Line:
    """One segment as somebody wrote it."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] | None = None  #: None: as the old segment's words allow


def with_lines(
    transcript: Transcript, lines: Sequence[Line], original: Transcript | None = None
) -> Transcript:
    """``transcript`` with these segments, in their order of time, instead of its own.

    A segment where an old one was keeps that one's figures, and the times of words it kept; one
    whose text is the ``original``'s again becomes that segment again.

    Raises:
        InvalidOption: times out of order or outside the audio, or too much text.
    """
    _check(transcript, lines)
    ordered = sorted(lines, key=lambda line: (line.start, line.end))
    sources = [_Timeline(item.segments) for item in (original, transcript) if item is not None]
    segments = [_segment(transcript, sources, line, n) for n, line in enumerate(ordered)]
    return replace(transcript, segments=tuple(segments))


def with_text(transcript: Transcript, text: str, original: Transcript | None = None) -> Transcript:
    """``transcript`` with another text, spread over its segments where the old words were.

    Raises:
        InvalidOption: too much text.
    """
    if len(text) > LONGEST_TEXT:
        raise _too_much()
    if not transcript.segments:
        lines = [Line(0.0, transcript.duration, text)] if text.strip() else []
        return with_lines(transcript, lines, original)
    shared = _shared_out(transcript.segments, text)
    lines = [
        Line(segment.start, segment.end, part)
        for segment, part in zip(transcript.segments, shared, strict=True)
        if part
    ]
    return with_lines(transcript, lines, original)


def _check(transcript: Transcript, lines: Sequence[Line]) -> None:
    if len(lines) > MOST_SEGMENTS or sum(len(line.text) for line in lines) > LONGEST_TEXT:
        raise _too_much()
    for number, line in enumerate(lines):
        if not 0 <= line.start <= line.end <= transcript.duration + _TOLERANCE_S:
            raise InvalidOption(
                f"segments[{number}]: start and end must be in order and within the "
                f"{transcript.duration:.3f} seconds of the audio.",
                param="segments",
            )


def _too_much() -> InvalidOption:
    return InvalidOption("The text is too long.", param="text", code="too_long")


def _segment(
    transcript: Transcript, sources: Sequence[_Timeline], line: Line, number: int
) -> Segment:
    """The line as a segment; ``sources`` are looked through in their order."""
    end = min(line.end, transcript.duration)
    start = min(line.start, end)
    near = [old for source in sources if (old := source.nearest(start, end)) is not None]
    for old in near:
        if old.text.split() == line.text.split():
            words = old.words if line.words is None else _unless_same(line.words, old.words)
            start, end = _exact(start, old.start), _exact(end, old.end)
            return replace(old, id=number, start=start, end=end, words=words)
    text = _spaced(line.text, transcript.language)
    if not near:
        language = "en" if transcript.task == "translate" else transcript.language
        fresh = Segment(number, round(start * 100), start, end, text, (), 0.0, 0.0, 0.0, 0.0)
        return replace(fresh, language=language, words=line.words or ())
    last = near[-1]
    words = line.words if line.words is not None else retimed(text, last.words, start, end)
    # Tokens and their probabilities belong to the text that the model wrote.
    return replace(
        last, id=number, start=start, end=end, text=text, words=words, tokens=(), logprobs=()
    )


def _exact(given: float, known: float) -> float:
    """``known`` where ``given`` is what callers were shown of it: rounded to milliseconds."""
    return known if round(given * 1000) == round(known * 1000) else given


def _unless_same(given: tuple[Word, ...], known: tuple[Word, ...]) -> tuple[Word, ...]:
    """``known`` where ``given`` is what callers were shown of it."""
    return known if [_shown(word) for word in given] == [_shown(word) for word in known] else given


def _shown(word: Word) -> tuple[str, int, int]:
    return word.text.strip(), round(word.start * 1000), round(word.end * 1000)


class _Timeline:
    """Segments in order of time, for looking up what was where."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._starts = [segment.start for segment in segments]

    def nearest(self, start: float, end: float) -> Segment | None:
        """The segment that shares most time with ``start`` to ``end``; None where none does."""
        first = max(0, bisect_right(self._starts, start) - 2)
        last = bisect_right(self._starts, end)

        def shared(segment: Segment) -> float:
            return min(segment.end, end) - max(segment.start, start)

        best = max(self._segments[first:last], key=shared, default=None)
        return best if best is not None and shared(best) >= 0 else None


def _spaced(text: str, language: str) -> str:
    """One line, with the space in front that joins it to the line before."""
    line = " ".join(text.split())
    return line if not line or language in _UNSPACED else f" {line}"


def retimed(text: str, old: Sequence[Word], start: float, end: float) -> tuple[Word, ...]:
    """The words of ``text`` with times: kept ones keep theirs, others share the room between.

    Empty where there were no words to begin with.
    """
    if not old:
        return ()
    new = text.split()
    before = [word.text.strip() for word in old]
    words: list[Word] = []
    for kind, i, j, a, b in _opcodes(before, new):
        if kind == "equal":
            words += old[i:j]
        elif a < b:
            first = words[-1].end if words else start
            last = old[j].start if j < len(old) else end
            if i < j:
                first, last = max(first, old[i].start), min(last, old[j - 1].end)
            words += _spread(new[a:b], first, max(first, last))
    fitting = (replace(w, start=_within(w.start, start, end), end=_within(w.end, start, end))
               for w in words)  # fmt: skip
    return tuple(fitting)


def _opcodes(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """As ``SequenceMatcher.get_opcodes``, in bounded time for whatever texts."""
    shortest = min(len(old), len(new))
    head = next((n for n in range(shortest) if old[n] != new[n]), shortest)
    most = shortest - head
    tail = next((n for n in range(most) if old[-1 - n] != new[-1 - n]), most)
    old_end, new_end = len(old) - tail, len(new) - tail
    a, b = old[head:old_end], new[head:new_end]
    if _pairs(a, b) > MOST_PAIRS:
        inner = [("replace", 0, len(a), 0, len(b))]
    else:
        inner = list(SequenceMatcher(None, a, b).get_opcodes())
    return [
        ("equal", 0, head, 0, head),
        *((kind, i + head, j + head, k + head, m + head) for kind, i, j, k, m in inner),
        ("equal", old_end, len(old), new_end, len(new)),
    ]


def _pairs(a: Sequence[str], b: Sequence[str]) -> int:
    """Comparisons that ``SequenceMatcher`` makes in one turn; it passes over common words."""
    there = Counter(b)
    popular = len(b) // 100 + 1 if len(b) >= 200 else len(b)
    return sum(there[word] for word in a if there[word] <= popular)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _spread(texts: Sequence[str], start: float, end: float) -> list[Word]:
    """Words from ``start`` to ``end``, each as long as its letters."""
    total = sum(len(text) for text in texts)
    words, behind = [], 0
    for text in texts:
        first = start + (end - start) * behind / total
        behind += len(text)
        words.append(Word(f" {text}", first, start + (end - start) * behind / total, 1.0))
    return words


def _shared_out(segments: Sequence[Segment], text: str) -> list[str]:
    """``text`` in as many parts as there are segments, each with what became of its words."""
    owners = [(word, n) for n, segment in enumerate(segments) for word in segment.text.split()]
    old, new = [word for word, _ in owners], text.split()
    parts: list[list[str]] = [[] for _ in segments]
    if not parts:
        return []
    for kind, i, j, a, b in _opcodes(old, new):
        if kind == "equal":
            for offset in range(j - i):
                parts[owners[i + offset][1]].append(new[a + offset])
            continue
        for offset in range(b - a):
            place = i + offset * (j - i) // (b - a) if j > i else max(i - 1, 0)
            owner = owners[place][1] if owners else 0
            parts[owner].append(new[a + offset])
    return [" ".join(part) for part in parts]
