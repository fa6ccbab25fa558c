"""The second pass over decoded PCM: the old sox chain, or loudness alone; bounded memory.

The chain is what old installations ran as ``sox … norm N compand … pad 2 1``: mono at
``audio_rate``, the peak brought to ``norm_level`` dB, dynamic range compression, 2.0 s of
silence in front and 1.0 s behind. Here libav's ``compand`` (a port of sox's) does it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whisper_api.errors import SettingsError
from whisper_api.types import SAMPLE_RATE

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.filter import Graph

    from whisper_api.audio.libav import Pcm, Samples
    from whisper_api.config import Settings

LEAD_SECONDS, TAIL_SECONDS = 2.0, 1.0
DEFAULT_RATE = 8000
DEFAULT_NORM = -0.5
DEFAULT_COMPAND = "0.3,1 -90,-90,-70,-70,-60,-20,0,0 -5 0 0.2"

TARGET_LUFS = -20.0  #: loudness that ``chunking_strategy=auto`` brings speech to
CEILING_DB = -1.0  #: no sample goes over this while loudness is raised
_SILENT_LUFS = -69.0
_MOST_GAIN_DB = 30.0
_BLOCK = 1 << 16
_GATE_SECONDS = 0.4  #: one measuring block of EBU R128


@dataclass(frozen=True, slots=True)
class Chain:
    """The old chain with its three parameters."""

    rate: int = DEFAULT_RATE
    norm: float = DEFAULT_NORM  #: dB
    compand: str = DEFAULT_COMPAND  #: sox's syntax

    @classmethod
    def of(cls, settings: Settings) -> Chain | None:
        """The chain that the settings turn on; None when they name none of its keys.

        Raises:
            SettingsError: ``compand_params`` is not in sox's syntax.
        """
        if not settings.preprocess:
            return None
        parse_compand(settings.compand_params or DEFAULT_COMPAND)
        return cls(
            rate=settings.audio_rate or DEFAULT_RATE,
            norm=DEFAULT_NORM if settings.norm_level is None else settings.norm_level,
            compand=settings.compand_params or DEFAULT_COMPAND,
        )


def parse_compand(text: str) -> str:
    """sox's ``attack,decay [knee:]in,out{,in,out} [gain [initial [delay]]]`` for libav's filter.

    Raises:
        SettingsError: the text does not follow that syntax; the message says where.
    """
    parts = text.split()
    if not 2 <= len(parts) <= 5:
        raise _bad(text, "it needs two to five parts between spaces")
    times = _numbers(text, parts[0])
    if len(times) < 2 or len(times) % 2 or min(times) < 0:
        raise _bad(text, "the first part is attack,decay in seconds")
    knee, curve = _curve(text, parts[1])
    gain, volume, delay = (_numbers(text, part) for part in (*parts[2:], "0", "0", "0")[:3])
    if len(gain) != 1 or len(volume) != 1 or len(delay) != 1 or not 0 <= delay[0] <= 20:
        raise _bad(text, "gain, initial volume and delay (0 to 20 s) are one number each")
    # sox never lets the knee be sharper than this.
    knee = max(knee, 0.01)
    points = "|".join(f"{level:g}/{out:g}" for level, out in curve)
    return (
        f"attacks={times[0]:g}:decays={times[1]:g}:points={points}:soft-knee={knee:g}"
        f":gain={gain[0]:g}:volume={volume[0]:g}:delay={delay[0]:g}"
    )


def _curve(text: str, part: str) -> tuple[float, list[tuple[float, float]]]:
    knee, _, levels = part.rpartition(":")
    numbers = _numbers(text, levels)
    if len(numbers) % 2:  # sox: an omitted first output is the same as the first input
        numbers.insert(0, numbers[0])
    curve = list(zip(numbers[::2], numbers[1::2], strict=True))
    inputs = [level for level, _ in curve]
    if inputs != sorted(set(inputs)) or inputs[-1] > 0:
        raise _bad(text, "the input levels must rise and end at 0 dB or below")
    return (_numbers(text, knee)[0] if knee else 0.0), curve


def _numbers(text: str, part: str) -> list[float]:
    try:
        numbers = [float(number) for number in part.split(",")]
    except ValueError:
        raise _bad(text, f"{part!r} is not a list of numbers") from None
    if not all(math.isfinite(number) for number in numbers):
        raise _bad(text, f"{part!r} is not a list of finite numbers")
    return numbers


def _bad(text: str, why: str) -> SettingsError:
    return SettingsError(
        f"compand_params: {text!r} is not sox's compand syntax ({why}); "
        f"an example is {DEFAULT_COMPAND!r}"
    )


def run_chain(source: Path, target: Path, peak: int, chain: Chain) -> tuple[Pcm, int, int]:
    """Second pass of the old chain: 16-bit mono at ``chain.rate`` -> padded PCM at 16 kHz.

    Args:
        peak: largest absolute sample of ``source``; 0 is silence, which no gain changes.

    Returns:
        What was written, and the samples of silence in front and behind.
    """
    from whisper_api.audio.libav import Pcm, write_block

    gain = 10 ** (chain.norm / 20) * 32768 / peak if peak else 1.0
    lead, tail = (int(seconds * SAMPLE_RATE) for seconds in (LEAD_SECONDS, TAIL_SECONDS))
    filters = [
        ("volume", f"volume={gain:.9f}:precision=float"),
        ("compand", parse_compand(chain.compand)),
        ("aresample", str(SAMPLE_RATE)),
        ("aformat", "sample_fmts=s16:channel_layouts=mono"),
    ]
    pcm = Pcm()
    with target.open("wb") as out:
        write_block(out, np.zeros(lead, np.int16), pcm)
        for frame in _filtered(source, chain.rate, filters):
            data = memoryview(frame.planes[0])[: 2 * frame.samples]
            write_block(out, np.frombuffer(data, "<i2"), pcm)
        write_block(out, np.zeros(tail, np.int16), pcm)
    return pcm, lead, tail


def normalise_loudness(path: Path, peak: int) -> int:
    """Bring 16 kHz PCM to ``TARGET_LUFS`` in place by one gain for the whole file.

    The gain stays so low that the peak keeps under ``CEILING_DB``; silence is left alone.
    Returns the new peak.
    """
    loudness = measure_loudness(path)
    if loudness is None or not peak:
        return peak
    headroom = CEILING_DB - 20 * math.log10(peak / 32768)
    gain = 10 ** (min(TARGET_LUFS - loudness, headroom, _MOST_GAIN_DB) / 20)
    with path.open("r+b") as file:
        while block := file.read(2 * _BLOCK):
            scaled = np.rint(np.frombuffer(block, "<i2") * gain).astype("<i2")
            file.seek(-len(block), 1)
            file.write(scaled.tobytes())
    return round(peak * gain)


def measure_loudness(path: Path) -> float | None:
    """Integrated loudness (EBU R128) of 16 kHz PCM in LUFS; None for silence."""
    last: dict[str, str] = {}
    rest = np.zeros(int(_GATE_SECONDS * SAMPLE_RATE), np.int16)
    for frame in _filtered(path, SAMPLE_RATE, [("ebur128", "metadata=1:framelog=quiet")], rest):
        last = frame.metadata
    loudness = float(last.get("lavfi.r128.I", "-inf"))
    return loudness if math.isfinite(loudness) and loudness > _SILENT_LUFS else None


def _filtered(
    source: Path, rate: int, filters: list[tuple[str, str]], rest: Samples | None = None
) -> Iterator[AudioFrame]:
    """The PCM of a file (and of ``rest`` behind it) through a chain of libav's filters."""
    import av

    graph = _graph(rate, filters)
    position = 0
    for block in _blocks(source, rest):
        frame = av.AudioFrame.from_ndarray(block[None, :], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
        position += block.size
        graph.push(frame)
        yield from _pull(graph)
    graph.push(None)
    yield from _pull(graph)


def _blocks(source: Path, rest: Samples | None) -> Iterator[Samples]:
    with source.open("rb") as file:
        while data := file.read(2 * _BLOCK):
            yield np.frombuffer(data, "<i2")
    if rest is not None:
        yield rest


def _graph(rate: int, filters: list[tuple[str, str]]) -> Graph:
    from av.filter import Graph

    graph = Graph()
    tail = graph.add_abuffer(
        format="s16", sample_rate=rate, layout="mono", time_base=Fraction(1, rate)
    )
    for name, arguments in filters:
        link = graph.add(name, arguments)
        tail.link_to(link)
        tail = link
    tail.link_to(graph.add("abuffersink"))
    graph.configure()
    return graph


def _pull(graph: Graph) -> Iterator[AudioFrame]:
    import av
    from av.audio.frame import AudioFrame

    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        if isinstance(frame, AudioFrame):
            yield frame
