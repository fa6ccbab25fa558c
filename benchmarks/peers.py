"""The peers of ``run.py``, each in a process of its own, so that its memory is its own too.

A peer is asked for files one by one and says how long each took and how many tokens it wrote.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from machine import cpu_seconds
from whisper_api.cli.allocator import environment

FASTER_WHISPER = "faster-whisper"
BATCHED = "faster-whisper batched"
TRANSFORMERS = "transformers"
WHISPER_CPP = "whisper.cpp"
_START_SECONDS = 300.0
_PROMPT = 4  # tokens: start, language, task, no timestamps

Transcribe = Callable[[str], int]
"""Transcribes a file; gives the tokens written, timestamps included."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every peer is to do."""

    model: str  #: folder of the model in CTranslate2's format
    checkpoint: str  #: the same weights as transformers saves them; empty where there are none
    ggml: str  #: the same weights in whisper.cpp's format; empty where there are none
    language: str
    beam: int
    tokens: int  #: forced for each window; 0: the model ends by itself
    batch: int
    compute_type: str
    allocator: str  #: as the server's setting


@dataclass(frozen=True, slots=True)
class Done:
    """One file."""

    seconds: float
    tokens: int
    begun: float = 0.0  #: processor time of the process before
    ended: float = 0.0  #: and after

    @property
    def cpu(self) -> float:
        """Seconds of processor time that it took."""
        return self.ended - self.begun


@dataclass(slots=True)
class Peer:
    """A running peer."""

    name: str
    work: Work
    pid: int = 0
    _pipe: Connection | None = field(default=None, repr=False)
    _process: Any = field(default=None, repr=False)

    def start(self) -> None:
        """Load the model.

        Raises:
            RuntimeError: it cannot be loaded.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self.name, asdict(self.work)), daemon=True
        )
        with _allocator(self.work.allocator):
            self._process.start()
        theirs.close()
        self.pid = self._process.pid
        self._answer(_START_SECONDS)

    def __call__(self, path: Path) -> Done:
        """Transcribe a file.

        Raises:
            RuntimeError: the peer failed.
        """
        assert self._pipe is not None
        before = cpu_seconds(self.pid)
        self._pipe.send(str(path))
        seconds, tokens = self._answer(None)
        return Done(seconds, tokens, before, cpu_seconds(self.pid))

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            self._process.join()

    def _answer(self, seconds: float | None) -> Any:
        assert self._pipe is not None
        try:
            if not self._pipe.poll(seconds):
                raise RuntimeError(f"{self.name} does not answer")
            kind, value = self._pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"{self.name} died") from error
        if kind == "error":
            raise RuntimeError(f"{self.name}: {value}")
        return value


def missing(name: str, work: Work) -> str:
    """Why a peer cannot take part; empty where it can."""
    if name == TRANSFORMERS:
        lacks = [lib for lib in ("torch", "transformers") if importlib.util.find_spec(lib) is None]
        if lacks:
            return f"{' and '.join(lacks)} not installed"
        return "" if work.checkpoint else "it needs the checkpoint before conversion (--checkpoint)"
    if name == WHISPER_CPP:
        if importlib.util.find_spec("pywhispercpp") is None:
            return "pywhispercpp is not installed"
        return (
            "" if work.ggml else "it reads ggml files only: name one of the same weights (--ggml)"
        )
    return ""


@contextmanager
def _allocator(name: str) -> Iterator[None]:
    """The environment with which a process has the allocator that the server's setting names."""
    before = dict(os.environ)
    if name != "system":
        os.environ.update(environment(before, huge=name == "keep-huge"))
    try:
        yield
    finally:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)


def _serve(pipe: Connection, name: str, work: dict[str, Any]) -> None:
    makers = {
        FASTER_WHISPER: _faster_whisper,
        BATCHED: _batched,
        TRANSFORMERS: _transformers,
        WHISPER_CPP: _whisper_cpp,
    }
    try:
        transcribe = makers[name](Work(**work))
        pipe.send(("ready", None))
        while True:
            path = pipe.recv()
            started = time.perf_counter()
            tokens = transcribe(path)
            pipe.send(("done", (time.perf_counter() - started, tokens)))
    except EOFError:
        return
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))


def _limits(work: Work) -> dict[str, Any]:
    """Options of faster-whisper's for the same work, where the model does not end by itself."""
    if not work.tokens:
        return {}
    # CTranslate2 writes half of max_length, which faster-whisper sets to prompt + max_new_tokens.
    return {
        "max_new_tokens": 2 * work.tokens - _PROMPT,
        "temperature": 0,
        "compression_ratio_threshold": None,
        "log_prob_threshold": None,
        "no_speech_threshold": None,
        "condition_on_previous_text": False,
        # With timestamps it would drop what random weights write after the last one.
        "without_timestamps": True,
    }


class _Written:
    """Stands before faster-whisper's decoder and counts what it writes: of that the segments keep
    only a part."""

    def __init__(self, model: Any) -> None:
        self._decoder = model.model
        self._count = 0
        model.model = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The decoder's own."""
        results = self._decoder.generate(*args, **kwargs)
        self._count += sum(len(result.sequences_ids[0]) for result in results)
        return results

    def after(self, segments: Iterable[Any]) -> int:
        """Tokens written while ``segments`` were made."""
        self._count = 0
        for _ in segments:
            pass
        return self._count


def _faster_whisper(work: Work) -> Transcribe:
    from faster_whisper import WhisperModel

    model = WhisperModel(work.model, device="cpu", compute_type=work.compute_type)
    limits, written = _limits(work), _Written(model)

    def run(path: str) -> int:
        segments, _ = model.transcribe(
            path, language=work.language, beam_size=work.beam, vad_filter=True, **limits
        )
        return written.after(segments)

    return run


def _batched(work: Work) -> Transcribe:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(work.model, device="cpu", compute_type=work.compute_type)
    pipeline = BatchedInferencePipeline(model)
    limits, written = _limits(work), _Written(model)

    def run(path: str) -> int:
        segments, _ = pipeline.transcribe(
            path,
            language=work.language,
            beam_size=work.beam,
            batch_size=work.batch,
            **limits,
        )
        return written.after(segments)

    return run


def _transformers(work: Work) -> Transcribe:
    """Whole windows of 30 s in batches, float32: what ``generate`` does on a processor."""
    import torch
    from faster_whisper import decode_audio
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(work.checkpoint).eval()
    # Random checkpoints have their special tokens in the model's configuration alone.
    for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(model.generation_config, name) is None:
            setattr(model.generation_config, name, getattr(model.config, name))
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    fixed = {"min_new_tokens": work.tokens, "max_new_tokens": work.tokens} if work.tokens else {}

    def run(path: str) -> int:
        audio = decode_audio(path)
        windows = [audio[at : at + 480_000] for at in range(0, audio.size, 480_000)]
        count = 0
        for first in range(0, len(windows), work.batch):
            part = windows[first : first + work.batch]
            features = extractor(part, sampling_rate=16_000, return_tensors="pt").input_features
            with torch.inference_mode():
                written = model.generate(
                    features,
                    language=work.language,
                    task="transcribe",
                    num_beams=work.beam,
                    **fixed,
                )
            count += int((written != model.config.pad_token_id).sum())
        return count

    return run


def _whisper_cpp(work: Work) -> Transcribe:
    import _pywhispercpp as library
    from faster_whisper import decode_audio
    from pywhispercpp.model import Model

    model = Model(work.ggml, print_progress=False, print_realtime=False)

    def run(path: str) -> int:
        segments = model.transcribe(decode_audio(path), language=work.language)
        return sum(
            library.whisper_full_n_tokens(model._ctx, place) for place, _ in enumerate(segments)
        )

    return run
