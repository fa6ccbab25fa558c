"""Whisper with OpenVINO's encoder, and its decoder where that is faster, for processors.

Measured: on processors with AMX or AVX-512 BF16 OpenVINO encodes a window of 30 s two to five times
faster than CTranslate2 does. Windows go through the encoder singly, so that a window's numbers
cannot depend on its neighbours; batches gain OpenVINO next to nothing. CTranslate2's model is there
in any case: it detects languages and aligns words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.choice import OWN, PROBED, Memory, choose_encoder, choose_writer
from whisper_api.engines.ctranslate2 import CTranslate2Engine, read_thresholds
from whisper_api.engines.encoder import spectrogram
from whisper_api.engines.encodings import Encoding
from whisper_api.engines.openvino_decoder import BFLOAT16, FLOAT32, DecoderPlan, OpenVinoDecoder
from whisper_api.engines.openvino_decoder_graph import DecoderShape
from whisper_api.engines.openvino_graph import build_encoder
from whisper_api.engines.openvino_layers import Matrices
from whisper_api.engines.pages import make_huge
from whisper_api.engines.parts import Chosen, Parts
from whisper_api.engines.placement import Placement, choose_placement
from whisper_api.engines.steps import step
from whisper_api.engines.timing import ENGINE_CLOCK
from whisper_api.engines.trim import trim
from whisper_api.engines.writer import Writer
from whisper_api.errors import SettingsError
from whisper_api.features import FRAMES
from whisper_api.tokens import WhisperTokenizer
from whisper_api.types import WINDOW_SECONDS, Audio

if TYPE_CHECKING:
    from whisper_api.config import Settings
    from whisper_api.models import ModelFiles


_GROUP = 64
"""Values that share a scale where activations are quantized. Measured on widths of ``small``: of
32, 64, 128 and 256 the fastest that stays closer to float32 than CTranslate2's int8 does."""


_BATCH = 16
"""Windows in one batch of OpenVINO's decoder where nobody says: with keys and values in 16 bits it
takes no more memory than CTranslate2's does for eight, and half again the time of eight."""
AUDIO_POSITIONS = 1500
"""What a window of 30 s is encoded to."""
_STREAM_THREADS = 4
"""Threads beyond which a window gains little from more."""


@dataclass(frozen=True, slots=True)
class Precision:
    """A number format of the encoder."""

    name: str
    matrices: Matrices
    hint: str  #: what OpenVINO computes in where it may
    group: int = 0  #: values that share a scale when activations are quantized; 0: they are not

    def options(self, place: Placement) -> dict[str, Any]:
        """For ``compile_model``."""
        return {
            "INFERENCE_PRECISION_HINT": self.hint,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.group,
            **threads_of(place),
        }


def threads_of(place: Placement) -> dict[str, Any]:
    """All of the place's threads, in streams of up to about four.

    A lone window gets a whole stream; two that come together take turns, which costs them little.
    """
    total = max(1, place.threads) * place.replicas
    return {
        "INFERENCE_NUM_THREADS": total,
        "NUM_STREAMS": max(1, total // _STREAM_THREADS),
        # CTranslate2's threads use the same cores.
        "ENABLE_CPU_PINNING": False,
    }


class OpenVinoEncoder:
    """A compiled encoder with one request for each call at a time; see ``encoder.Encoder``."""

    def __init__(
        self, weights: ConvertedWeights, precision: Precision, place: Placement, shortens: bool
    ) -> None:
        """Build and compile: a second for a model of the size of ``small``.

        Raises:
            ModelBroken: the file lacks a weight.
            RuntimeError: OpenVINO cannot compile it here.
        """
        self.name = f"openvino {precision.name}"
        self._mels = weights.shape("encoder/conv1/weight")[1]
        self._shortens = shortens
        graph = build_encoder(weights, precision.matrices, 0 if shortens else FRAMES)
        options = precision.options(place)
        self.streams = options["NUM_STREAMS"]
        compiled = _core().compile_model(graph, "CPU", options)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(place.replicas + place.spare):
            self._idle.put(compiled.create_infer_request())

    def encode(self, audios: Sequence[Audio]) -> list[Encoding]:
        """See ``encoder.Encoder``."""
        found = []
        for audio in audios:
            step()
            with self._request() as request:
                found.append(self._run(request, audio))
        return found

    def _run(self, request: Any, audio: Audio) -> Encoding:
        mel = spectrogram(audio, self._mels, self._shortens)
        with ENGINE_CLOCK.time("encode"):
            request.infer([mel[None]], share_inputs=True)
        # A copy: the request's own memory is used again by the next window.
        return np.array(request.get_output_tensor().data)

    @contextmanager
    def _request(self) -> Iterator[Any]:
        request = self._idle.get()
        try:
            yield request
        finally:
            self._idle.put(request)


class OpenVinoEngine:
    """The engine ``openvino``: CTranslate2's, with the fastest of the encoders above."""

    @staticmethod
    def load(files: ModelFiles, settings: Settings) -> CTranslate2Engine:
        """As ``CTranslate2Engine.load``; ``compute_type`` may be a format of the encoder, too.

        Raises:
            SettingsError: a card is asked for, or a number format that does not exist here.
        """
        formats = precisions(settings.compute_type)
        if not formats:
            raise SettingsError(
                f"compute_type: the openvino engine does not compute in {settings.compute_type}"
                f" here; choose auto or one of {', '.join(form.name for form in _all())}."
            )
        if settings.compute_type == "bfloat16":  # the decoder has none on processors
            settings = settings.model_copy(update={"compute_type": "auto"})
        return load_hybrid(files, settings, formats, own_competes=False)


def load_hybrid(
    files: ModelFiles, settings: Settings, formats: Sequence[Precision], own_competes: bool
) -> CTranslate2Engine:
    """A CTranslate2 model with the encoder of ``formats`` and the decoder that are fastest here.

    With ``own_competes`` CTranslate2's own encoder may win.

    Raises:
        SettingsError: the settings ask for a card.
    """
    import ctranslate2

    place = choose_placement(settings, ctranslate2)
    if place.device != "cpu":
        raise SettingsError("device: the openvino engine runs on cpu only.")

    def choose(own: Parts, shortens: bool) -> Chosen:
        trim()  # of what CTranslate2's loading left
        weights = ConvertedWeights(files.path / "model.bin")

        def make(precision: Precision) -> OpenVinoEncoder:
            return OpenVinoEncoder(weights, precision, place, shortens)

        # Decoders first: their trial takes the most memory, and no encoder is there yet.
        plan = decoder_plan(files, place, settings.compute_type, 0 if shortens else AUDIO_POSITIONS)
        trial = ("decoder", plan.title, PROBED, plan.positions, plan.group, "streams together")
        memory = Memory.of(settings.data_dir, files, place, trial)
        writer, why = _writer(own.writer, files, settings, plan, weights, memory)
        trim()
        makers = {f"openvino {form.name}": partial(make, form) for form in formats}
        window = read_thresholds(files.decoding).window_seconds if shortens else WINDOW_SECONDS
        memory = Memory.of(settings.data_dir, files, place, (*makers, window, own_competes))
        name, encoder, reason = choose_encoder(own.encoder, makers, window, memory, own_competes)
        engine = "ctranslate2" if name == OWN and writer is own.writer else "openvino"
        # One batch for each stream: two in one would only wait for each other.
        replicas = 0 if writer is own.writer or settings.replicas else writer.streams
        batch = 0 if writer is own.writer or settings.batch_size else _BATCH
        return Chosen(Parts(encoder, writer), engine, f"{reason}; {why}", replicas, batch)

    engine = CTranslate2Engine.load(files, settings, choose)
    trim()
    return engine


def _writer(
    own: Writer,
    files: ModelFiles,
    settings: Settings,
    plan: DecoderPlan,
    weights: ConvertedWeights,
    memory: Memory,
) -> tuple[Writer, str]:
    """The decoder, and why this one."""
    if settings.decoder == "ctranslate2" or (settings.decoder == "auto" and not has_bfloat16()):
        why = "as set" if settings.decoder != "auto" else "the processor has no bfloat16"
        return own, f"decoder ctranslate2, {why}"

    tokenizer = WhisperTokenizer.from_file(files.path / "tokenizer.json", files.vocabulary_size)

    shape = (1, AUDIO_POSITIONS, DecoderShape.of(weights).width)
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)

    def make() -> Writer:
        desks = settings.replicas or int(plan.options["NUM_STREAMS"])
        decoder = OpenVinoDecoder(plan, weights, tokenizer, desks)
        decoder.probe([noise], 1)  # packs the weights
        make_huge()
        return decoder

    if settings.decoder == "openvino":
        return make(), f"decoder {plan.title}, as set"
    return choose_writer(own, plan.title, make, noise, tokenizer.sot, memory)


def decoder_plan(
    files: ModelFiles, place: Placement, compute_type: str, positions: int = 0
) -> DecoderPlan:
    """The decoder in the format that fits ``compute_type`` and the processor.

    All windows are encoded to so many ``positions``, or to any number (0).
    """
    said = json.loads((files.path / "config.json").read_text(encoding="utf-8"))
    fast = has_bfloat16() and compute_type != "float32"
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
        **threads_of(place),
    }
    return DecoderPlan(
        name="bfloat16" if fast else "float32",
        matrices="int8" if fast else "float32",
        positions=positions,
        numbers=BFLOAT16 if fast else FLOAT32,
        group=_GROUP if fast else 0,
        options=options,
        suppressed=tuple(said.get("suppress_ids") or ()),
        suppressed_first=tuple(said.get("suppress_ids_begin") or ()),
    )


def precisions(wanted: str = "auto") -> list[Precision]:
    """The formats worth trying on this processor, or the one that is wanted; empty if not here."""
    if wanted == "auto":
        return _all()[:2]
    return [form for form in _all() if form.name == wanted.split("_")[0]]


def _all() -> list[Precision]:
    """What runs here, the fastest first."""
    fast = has_bfloat16()
    int8 = Precision("int8", "int8", "bf16" if fast else "f32", _GROUP)
    others = [Precision("bfloat16", "float16", "bf16")] if fast else []
    return [int8, *others, Precision("float32", "float32", "f32")]


@cache
def _core() -> Any:
    return ov.Core()


def has_bfloat16() -> bool:
    """Whether the processor has instructions for it (AMX or AVX-512 BF16)."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
