"""Whisper checkpoints of Hugging Face on torch: CUDA cards, Apple's, and the processor.

transformers loads the weights and encodes; batches, search, timestamps, words and quality are this
server's own, and the same as on the other engines. Two calls may run at once: one encodes while
the other decodes, on streams of their own, so that the next batch is ready in time.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from whisper_api import features
from whisper_api.accelerators import INSTALL, missing_libraries
from whisper_api.engines.base import Decoded, EngineInfo, Thresholds, WindowItem
from whisper_api.engines.ctranslate2 import read_thresholds
from whisper_api.engines.draft import Draft
from whisper_api.engines.encoder import frames_for
from whisper_api.engines.encodings import Encodings
from whisper_api.engines.torch_generate import BEST_OF, Written
from whisper_api.engines.torch_load import load_parts
from whisper_api.engines.torch_network import encode
from whisper_api.engines.torch_parts import Parts, in_stream, let_go, on_device
from whisper_api.engines.torch_place import choose_torch_place
from whisper_api.engines.torch_trial import is_out_of_memory
from whisper_api.errors import EngineError, EngineOutOfMemory, ModelBroken, SettingsError
from whisper_api.model_folder import CHECKPOINT
from whisper_api.tokens import PROMPT_LIMIT
from whisper_api.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from whisper_api.config import Settings
    from whisper_api.models import ModelFiles

log = logging.getLogger(__name__)

_KEPT_BYTES = 512 * 1024 * 1024

_ENCODING: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""One for each card, for all models on it: two encoders side by side gain nothing, and while a
graph is recorded nothing else may be new to the card."""


class TransformersEngine:
    """A model loaded by transformers; see ``engines.base.Engine`` for the contract.

    Log-probabilities of tokens: a greedy decode gives those it chose by, others the alignment pass.
    Sampling draws the same numbers for every window of a batch: neighbours change nothing.
    """

    def __init__(
        self,
        parts: Parts,
        info: EngineInfo,
        thresholds: Thresholds,
        shortens: bool,
        encoding: threading.Lock,
    ) -> None:
        """Use ``load``; ``encoding`` is the lock that also keeps recording apart."""
        self._parts: Parts | None = parts
        self._info, self._thresholds, self._shortens = info, thresholds, shortens
        room = parts.generator.room.items
        self._encodings = Encodings(max(_KEPT_BYTES, 2 * room * parts.generator.encoding_bytes))
        self._encoding, self._decoding = encoding, threading.Lock()
        self._device = parts.device

    @classmethod
    def load(cls, files: ModelFiles, settings: Settings) -> TransformersEngine:
        """Load a Hugging Face folder on the device that the settings and the hardware call for.

        Raises:
            SettingsError: the device or compute type does not exist here.
            ModelBroken: the folder is no Whisper checkpoint with safetensors.
            EngineOutOfMemory: it does not fit.
        """
        if missing := missing_libraries():
            raise SettingsError(f"engine: transformers needs {', '.join(missing)}: {INSTALL}.")
        if files.kind != CHECKPOINT:
            raise ModelBroken(
                f"The model {files.id!r} is in CTranslate2's format; the transformers engine reads"
                " Hugging Face folders with safetensors. Set model_path to one or to a hub name,"
                " or engine to ctranslate2."
            )
        place = choose_torch_place(settings, torch)
        if place.fell_back:
            log.warning("attention is %s: %s", place.attention, place.fell_back)
        if settings.cpu_threads and place.device == "cpu":
            torch.set_num_threads(settings.cpu_threads)
        encoding = _ENCODING[place.device] if place.on_card else threading.Lock()
        width = max(BEST_OF, settings.beam_size)
        with _as_engine_errors(loading=files.id), on_device(torch.device(place.device)):
            parts = load_parts(files, place, settings.batch_size, width, encoding)
        thresholds = read_thresholds(files.decoding)
        wanted = settings.short_windows
        shortens = thresholds.short_windows if wanted == "auto" else wanted == "always"
        return cls(parts, describe_parts(files, parts, settings), thresholds, shortens, encoding)

    @property
    def info(self) -> EngineInfo:
        """What is loaded, on what."""
        parts = self._parts
        if parts is not None and parts.generator.graphs_fail:
            reason = f"{self._info.reason}; no CUDA graphs ({parts.generator.graphs_fail})"
            return replace(self._info, reason=reason)
        return self._info

    @property
    def thresholds(self) -> Thresholds:
        """The model's own limits, from its manifest."""
        return self._thresholds

    def detect(self, audios: Sequence[tuple[str, Audio]]) -> list[dict[str, float]]:
        """Language probabilities of each (key, audio), best first, over the model's languages."""
        parts = self._open()
        if not self._info.multilingual:
            return [{"en": 1.0} for _ in audios]
        codes = self._info.languages
        ids = [parts.tokenizer.languages[code] for code in codes]
        encodings = self._encode(parts, audios)
        found: list[dict[str, float]] = [{} for _ in audios]
        with self._decode_alone(parts):
            size = parts.generator.room.items
            for places in self._same_length(range(len(audios)), encodings, size):
                stacked = torch.cat([encodings[place] for place in places])
                logits = parts.generator.first_logits(stacked, parts.tokenizer.sot)
                odds = logits[:, ids].softmax(dim=1).tolist()
                for place, row in zip(places, odds, strict=True):
                    ordered = sorted(zip(codes, row, strict=True), key=lambda pair: -pair[1])
                    found[place] = dict(ordered)
        return found

    def decode(self, items: Sequence[WindowItem]) -> list[Decoded]:
        """Decode windows in order; items of one call should have equal ``batch_key``.

        Raises:
            EngineOutOfMemory: the batch did not fit; a smaller one may.
            EngineError: closed, or anything else.
        """
        parts = self._open()
        encodings = self._encode(parts, [(item.key, item.audio) for item in items])
        results: dict[int, Decoded] = {}
        for places in self._batches(parts, items, encodings):
            chosen = [items[place] for place in places]
            with self._decode_alone(parts):
                stacked = torch.cat([encodings[place] for place in places])
                drafts = self._decode_batch(parts, chosen, stacked)
            results.update(zip(places, (draft.result() for draft in drafts), strict=True))
        return [results[place] for place in range(len(items))]

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of ``text``."""
        return self._open().tokenizer.encode(text)

    def count_limit(self) -> int:
        """Most prompt tokens one window takes: 223."""
        return PROMPT_LIMIT

    def release(self, keys: Sequence[str]) -> None:
        """Forget the encodings of these windows."""
        self._encodings.release(keys)

    def close(self) -> None:
        """Free the model's memory, once calls that run are over."""
        # In this order: a call that decodes takes the other lock to record a graph.
        with self._decoding, self._encoding:
            self._parts = None
            self._encodings.clear()
            let_go(self._device)

    def _open(self) -> Parts:
        parts = self._parts
        if parts is None:
            raise EngineError("The engine was closed.")
        return parts

    # --- encoding ---------------------------------------------------------------------------

    def _encode(self, parts: Parts, audios: Sequence[tuple[str, Audio]]) -> list[Any]:
        """Each window's encoding, ``[1, positions, width]`` on the device, ready to be read."""
        with self._errors(), on_device(self._device):
            found: dict[str, Any] = {key: self._encodings.get(key) for key, _ in audios}
            missing = {key: audio for key, audio in audios if found[key] is None}
            for keys, frames in self._equal(missing, parts.generator.room.items):
                # Beside the batch that is encoded now.
                with in_stream(parts.streams.copy):
                    sound = parts.mel.stage([missing[key] for key in keys], frames)
                with self._encoding, in_stream(parts.streams.encode):
                    mels = parts.mel.transform(sound).to(parts.dtype)
                    rows = encode(parts.encoder, mels).split(1)
                    # Each its own memory: a view would keep the whole batch.
                    found.update(zip(keys, (row.clone() for row in rows), strict=True))
            for key in missing:
                self._encodings.put(key, found[key])
        return [found[key] for key, _ in audios]

    def _equal(self, audios: dict[str, Audio], most: int) -> Iterator[tuple[list[str], int]]:
        """Keys of audios that are encoded together, and their mel frames."""

        def frames_of(key: str) -> int:
            return self._frames(audios[key])

        for frames, group in groupby(sorted(audios, key=frames_of), key=frames_of):
            keys = list(group)
            yield from ((keys[i : i + most], frames) for i in range(0, len(keys), most))

    def _frames(self, audio: Audio) -> int:
        return frames_for(audio.size) if self._shortens else features.FRAMES

    # --- decoding ---------------------------------------------------------------------------

    def _batches(
        self, parts: Parts, items: Sequence[WindowItem], encodings: Sequence[Any]
    ) -> Iterator[list[int]]:
        """Places of items that one pass can hold: equal options and lengths."""

        def kind(place: int) -> str:
            return repr(items[place].params.batch_key)

        for _, group in groupby(sorted(range(len(items)), key=kind), key=kind):
            places = list(group)
            width = parts.generator.width(items[places[0]].params)
            size = parts.generator.room.items_of(width)
            yield from self._same_length(places, encodings, size)

    def _same_length(
        self, places: Sequence[int], encodings: Sequence[Any], most: int
    ) -> Iterator[list[int]]:
        def length(place: int) -> int:
            return int(encodings[place].shape[1])

        for _, group in groupby(sorted(places, key=length), key=length):
            equal = list(group)
            yield from (equal[i : i + most] for i in range(0, len(equal), most))

    def _decode_batch(
        self, parts: Parts, items: Sequence[WindowItem], encodings: Any
    ) -> list[Draft]:
        prompts = [
            parts.tokenizer.prompt(item.params.prompt, item.params.language, item.params.task)
            for item in items
        ]
        written = parts.generator.write(encodings, prompts, items[0].params)
        drafts = [_draft(parts, *pair) for pair in zip(items, written, strict=True)]
        needy = [place for place, draft in enumerate(drafts) if draft.needs_alignment]
        if needy:
            chosen = [drafts[place] for place in needy]
            starts = [
                parts.tokenizer.start_sequence(draft.item.params.language, draft.item.params.task)
                for draft in chosen
            ]
            texts, frames = [draft.text_tokens for draft in chosen], [d.frames for d in chosen]
            aligned = parts.aligner.align(encodings[needy], starts, texts, frames)
            for draft, alignment in zip(chosen, aligned, strict=True):
                draft.take_alignment(*alignment)
        return drafts

    # --- threads and streams ----------------------------------------------------------------

    @contextmanager
    def _decode_alone(self, parts: Parts) -> Iterator[None]:
        on = on_device(self._device)
        with self._errors(), self._decoding, on, in_stream(parts.streams.write):
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with _as_engine_errors():
                yield
        except EngineOutOfMemory:
            self._encodings.clear()
            let_go(self._device)
            raise


def _draft(parts: Parts, item: WindowItem, written: Written) -> Draft:
    found, params = written.found, item.params
    logprobs = None
    if found.logprobs is not None and params.temperature == 0:
        pairs = zip(found.tokens, found.logprobs, strict=True)
        logprobs = [logprob for token, logprob in pairs if token < parts.tokenizer.eot]
    return Draft(
        item=item,
        tokenizer=parts.tokenizer,
        spans=parts.tokenizer.split_pieces(found.tokens, item.audio.size / SAMPLE_RATE),
        avg_logprob=found.score / (len(found.tokens) + 1),
        no_speech_prob=written.no_speech_prob,
        logprobs=logprobs,
    )


def describe_parts(files: ModelFiles, parts: Parts, settings: Settings) -> EngineInfo:
    """What was loaded, and where."""
    place = parts.place
    codes = tuple(parts.tokenizer.languages) or ("en",)
    known = tuple(code for code in codes if not files.languages or code in files.languages)
    room = parts.generator.room
    return EngineInfo(
        engine="transformers",
        model=files.id,
        device=place.device,
        compute_type=place.dtype,
        multilingual=parts.tokenizer.multilingual,
        languages=known or codes,
        # The second one encodes while the first one writes.
        replicas=settings.replicas or (2 if place.on_card else 1),
        reason=f"{place.reason}; batches of {room.items} windows",
        batch_size=room.items,
    )


@contextmanager
def _as_engine_errors(loading: str | None = None) -> Iterator[None]:
    """Turn what torch and transformers raise into errors of this package."""
    try:
        yield
    except (RuntimeError, ValueError, OSError, KeyError, IndexError, MemoryError) as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        if is_out_of_memory(error):
            error.__traceback__ = None  # its frames hold what the failed call held
            raise EngineOutOfMemory(f"The engine ran out of memory: {text}") from None
        if loading is not None:
            raise ModelBroken(f"The model {loading!r} cannot be loaded: {text}") from error
        raise EngineError(f"The engine failed: {text}") from error
