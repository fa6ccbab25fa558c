"""Whisper with OpenVINO's encoder and CTranslate2's decoder, for processors.

Measured: on processors with AMX or AVX-512 BF16 OpenVINO encodes a window of 30 s two to five times
faster than CTranslate2 does, while CTranslate2 stays the faster decoder. Windows go through singly,
so that a window's numbers cannot depend on its neighbours; batches gain OpenVINO next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.choice import Memory, choose_encoder
from whisper_api.engines.ctranslate2 import CTranslate2Engine, read_thresholds
from whisper_api.engines.encoder import Chosen, Encoder, spectrogram
from whisper_api.engines.encodings import Encoding
from whisper_api.engines.openvino_graph import Matrices, build_encoder
from whisper_api.engines.placement import Placement, choose_placement
from whisper_api.engines.timing import ENGINE_CLOCK
from whisper_api.errors import SettingsError
from whisper_api.types import WINDOW_SECONDS, Audio

if TYPE_CHECKING:
    from whisper_api.config import Settings
    from whisper_api.models import ModelFiles


_GROUP = 64
"""Values that share a scale where activations are quantized. Measured on widths of ``small``: of
32, 64, 128 and 256 the fastest that stays closer to float32 than CTranslate2's int8 does."""


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
            "INFERENCE_NUM_THREADS": max(1, place.threads) * place.replicas,
            "NUM_STREAMS": place.replicas,
            # CTranslate2's threads use the same cores.
            "ENABLE_CPU_PINNING": False,
        }


class OpenVinoEncoder:
    """A compiled encoder with one request for each replica; see ``encoder.Encoder``."""

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
        graph = build_encoder(weights, precision.matrices)
        compiled = _core().compile_model(graph, "CPU", precision.options(place))
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(place.replicas):
            self._idle.put(compiled.create_infer_request())

    def encode(self, audios: Sequence[Audio]) -> list[Encoding]:
        """See ``encoder.Encoder``."""
        with self._request() as request:
            return [self._run(request, audio) for audio in audios]

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
    """CTranslate2's decoder with the encoder of ``formats`` that is fastest here.

    With ``own_competes`` CTranslate2's own encoder may win.

    Raises:
        SettingsError: the settings ask for a card.
    """
    import ctranslate2

    place = choose_placement(settings, ctranslate2)
    if place.device != "cpu":
        raise SettingsError("device: the openvino engine runs on cpu only.")

    def choose(own: Encoder, shortens: bool) -> Chosen:
        weights = ConvertedWeights(files.path / "model.bin")

        def make(precision: Precision) -> OpenVinoEncoder:
            return OpenVinoEncoder(weights, precision, place, shortens)

        makers = {f"openvino {form.name}": partial(make, form) for form in formats}
        window = read_thresholds(files.decoding).window_seconds if shortens else WINDOW_SECONDS
        memory = Memory.of(settings.data_dir, files, place, (*makers, window, own_competes))
        name, encoder, reason = choose_encoder(own, makers, window, memory, own_competes)
        return Chosen(encoder, name.split()[0], reason)

    return CTranslate2Engine.load(files, settings, choose)


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
