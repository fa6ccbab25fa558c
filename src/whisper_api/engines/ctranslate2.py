"""Whisper on CTranslate2: int8 on the processor, float16 on CUDA cards.

Facts this file rests on (measured with CTranslate2 4.8): a batch through the decoder is faster than
one window after another; an encoder output, whoever made it, may be used any number of times; a
running call cannot be stopped; scores are the sum of log-probabilities, the end token's included,
over the count without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from whisper_api.alignment import MEDIAN_FILTER
from whisper_api.engines.base import Decoded, EngineInfo, Thresholds, WindowItem
from whisper_api.engines.draft import Draft, wants_logits
from whisper_api.engines.encoder import OwnEncoder
from whisper_api.engines.encodings import Encoding, Encodings
from whisper_api.engines.parts import Choose, Chosen, Parts
from whisper_api.engines.placement import Placement, choose_placement
from whisper_api.engines.steps import step
from whisper_api.engines.timing import ENGINE_CLOCK
from whisper_api.engines.writer import OwnWriter, Written, view
from whisper_api.errors import EngineError, EngineOutOfMemory, ModelBroken
from whisper_api.tokens import PROMPT_LIMIT, WhisperTokenizer
from whisper_api.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from whisper_api.config import Settings
    from whisper_api.models import ModelFiles

_KEPT_BYTES = 512 * 1024 * 1024
_REOPEN_BYTES = 256 * 1024 * 1024
_ALIGNED = 4
"""Windows whose words are aligned at once where others may pass in between."""
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "cublas_status_alloc_failed", "failed to allocate")


class CTranslate2Engine:
    """A model loaded by CTranslate2; see ``engines.base.Engine`` for the contract.

    Log-probabilities of tokens (``params.logprobs``): a greedy decode gives those it chose by; a
    beam search or a sampled decode keeps none, so they come from the alignment pass, which scores
    the same tokens without timestamps between them and without previous text.
    """

    def __init__(
        self,
        open_model: Callable[[int], Any],
        library: Any,
        tokenizer: WhisperTokenizer,
        info: EngineInfo,
        thresholds: Thresholds,
        reopens: bool = True,
        shortens: bool = False,
        choose: Choose | None = None,
    ) -> None:
        """``open_model`` loads the weights with so many replicas; use ``load``.

        ``reopens`` says whether the weights are small enough to be loaded for every sampled call,
        ``shortens`` whether short windows are encoded without silence up to 30 s; ``choose`` picks
        another encoder or decoder than CTranslate2's own.
        """
        self._library = library
        self._model = open_model(info.replicas + info.spare)
        self._tokenizer = tokenizer
        self._thresholds = thresholds
        own = Parts(
            OwnEncoder(self._model, library, shortens, info.replicas),
            OwnWriter(self._model, library, tokenizer, open_model, reopens, info.replicas),
        )
        chosen = choose(own, shortens) if choose else Chosen(own, info.engine)
        self._encoder, self._writer = chosen.parts.encoder, chosen.parts.writer
        reason = "; ".join(filter(None, (info.reason, chosen.reason)))
        replicas = chosen.replicas or info.replicas
        self._info = replace(
            info,
            engine=chosen.engine,
            reason=reason,
            replicas=replicas,
            batch_size=chosen.batch_size,
            in_steps=self._writer.in_steps,
            spare=0 if self._writer.in_steps else info.spare,
        )
        self._encodings = Encodings(_KEPT_BYTES)
        self._closed = False

    @classmethod
    def load(
        cls, files: ModelFiles, settings: Settings, choose: Choose | None = None
    ) -> CTranslate2Engine:
        """Load the folder on the device that the settings and the hardware call for.

        ``choose`` picks another encoder or decoder than CTranslate2's own.

        Raises:
            SettingsError: the device or compute type does not exist here.
            ModelBroken: the folder is no Whisper model of CTranslate2's.
            EngineOutOfMemory: it does not fit.
        """
        import ctranslate2

        place = choose_placement(settings, ctranslate2)

        def open_model(replicas: int) -> Any:
            return ctranslate2.models.Whisper(
                str(files.path),
                device=place.device,
                device_index=place.index,
                compute_type=place.compute_type,
                inter_threads=replicas,
                intra_threads=place.threads,
            )

        tokenizer = WhisperTokenizer.from_file(files.path / "tokenizer.json", files.vocabulary_size)
        info = _info(files, place, tokenizer)
        with _as_engine_errors(loading=files.id):
            small = (files.path / "model.bin").stat().st_size <= _REOPEN_BYTES
            thresholds = read_thresholds(files.decoding)
            short = _shortens(settings, thresholds)
            return cls(open_model, ctranslate2, tokenizer, info, thresholds, small, short, choose)

    @property
    def info(self) -> EngineInfo:
        """What is loaded, on what."""
        return self._info

    @property
    def thresholds(self) -> Thresholds:
        """The model's own limits, from its manifest."""
        return self._thresholds

    def detect(self, audios: Sequence[tuple[str, Audio]]) -> list[dict[str, float]]:
        """Language probabilities of each (key, audio), best first, over the model's languages."""
        self._check_open()
        if not self._info.multilingual:
            return [{"en": 1.0} for _ in audios]
        with _as_engine_errors():
            encodings = self._encode(audios)
            found = [
                self._model.detect_language(view(self._library, [encoding]))[0]
                for encoding in encodings
            ]
        return [self._probabilities(pairs) for pairs in found]

    def decode(self, items: Sequence[WindowItem]) -> list[Decoded]:
        """Decode windows in order; items of one call should have equal ``batch_key``.

        Raises:
            EngineOutOfMemory: the batch did not fit; a smaller one may.
            EngineError: closed, or anything else.
        """
        self._check_open()
        with _as_engine_errors():
            encodings = self._encode([(item.key, item.audio) for item in items])
            results: dict[int, Decoded] = {}
            for batch in self._batches(items, encodings):
                chosen = [items[place] for place in batch]
                memory = [encodings[place] for place in batch]
                results.update(zip(batch, self._decode_batch(chosen, memory), strict=True))
            return [results[place] for place in range(len(items))]

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of ``text``."""
        return self._tokenizer.encode(text)

    def count_limit(self) -> int:
        """Most prompt tokens one window takes: 223."""
        return PROMPT_LIMIT

    def release(self, keys: Sequence[str]) -> None:
        """Forget the encodings of these windows."""
        self._encodings.release(keys)

    def close(self) -> None:
        """Free the model's memory; calls that run are waited for by CTranslate2 itself."""
        if not self._closed:
            self._closed = True
            self._encodings.clear()
            self._model.unload_model()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("The engine was closed.")

    # --- encoding ---------------------------------------------------------------------------

    def _encode(self, audios: Sequence[tuple[str, Audio]]) -> list[Encoding]:
        found: dict[str, Encoding | None] = {key: self._encodings.get(key) for key, _ in audios}
        missing = {key: audio for key, audio in audios if found[key] is None}
        fresh = self._encoder.encode(list(missing.values())) if missing else []
        for key, encoding in zip(missing, fresh, strict=True):
            self._encodings.put(key, encoding)
            found[key] = encoding
        return [kept for key, _ in audios if (kept := found[key]) is not None]

    def _probabilities(self, pairs: Sequence[tuple[str, float]]) -> dict[str, float]:
        """Languages the model is said to know, their probabilities adding up to 1."""
        known = {token[2:-2]: float(p) for token, p in pairs if token[2:-2] in self._info.languages}
        total = sum(known.values()) or 1.0
        return {code: p / total for code, p in sorted(known.items(), key=lambda pair: -pair[1])}

    # --- decoding ---------------------------------------------------------------------------

    def _batches(
        self, items: Sequence[WindowItem], encodings: Sequence[Encoding]
    ) -> Iterator[list[int]]:
        """Places of items that one call of CTranslate2 can hold: equal options and lengths."""

        def kind(place: int) -> tuple[str, bool, int]:
            params = items[place].params
            return repr(params.batch_key), wants_logits(params), encodings[place].shape[1]

        for _, group in groupby(sorted(range(len(items)), key=kind), key=kind):
            places = list(group)
            size = self._writer.most(items[places[0]].params)
            yield from (places[i : i + size] for i in range(0, len(places), size))

    def _decode_batch(
        self, items: Sequence[WindowItem], encodings: Sequence[Encoding]
    ) -> list[Decoded]:
        prompts = [
            self._tokenizer.prompt(item.params.prompt, item.params.language, item.params.task)
            for item in items
        ]
        with ENGINE_CLOCK.time("decode"):
            written = self._writer.write(encodings, prompts, items[0].params)
        drafts = [self._draft(*pair) for pair in zip(items, written, strict=True)]
        with ENGINE_CLOCK.time("align"):
            self._align(drafts, encodings)
        return [draft.result() for draft in drafts]

    def _draft(self, item: WindowItem, written: Written) -> Draft:
        tokens = written.found.tokens
        return Draft(
            item=item,
            tokenizer=self._tokenizer,
            spans=self._tokenizer.split_pieces(tokens, item.audio.size / SAMPLE_RATE),
            avg_logprob=written.found.score / (len(tokens) + 1),
            no_speech_prob=written.no_speech_prob,
            logprobs=written.found.logprobs if wants_logits(item.params) else None,
        )

    def _align(self, drafts: Sequence[Draft], encodings: Sequence[Encoding]) -> None:
        """Fill in words, and log-probabilities that decoding did not give."""
        needy = [place for place, draft in enumerate(drafts) if draft.needs_alignment]

        def start(place: int) -> list[int]:
            params = drafts[place].item.params
            return self._tokenizer.start_sequence(params.language, params.task)

        for sequence, group in groupby(sorted(needy, key=start), key=start):
            alike = list(group)
            size = _ALIGNED if self._writer.in_steps else len(alike)
            for first in range(0, len(alike), size):
                step()
                places = alike[first : first + size]
                results = self._model.align(
                    view(self._library, [encodings[place] for place in places]),
                    sequence,
                    [drafts[place].text_tokens for place in places],
                    [drafts[place].frames for place in places],
                    median_filter_width=MEDIAN_FILTER,
                )
                for place, result in zip(places, results, strict=True):
                    drafts[place].take_alignment(result.alignments, result.text_token_probs)


def read_thresholds(said: Mapping[str, Any]) -> Thresholds:
    """A manifest's ``decoding``: known names, also with ``_threshold`` behind; lists as tuples."""
    known = {field.name for field in fields(Thresholds)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for key, value in said.items()
        if (name := key.removesuffix("_threshold")) in known
    }
    return Thresholds(**values)


def _shortens(settings: Settings, thresholds: Thresholds) -> bool:
    """Whether short windows stay short: as set, else as the model allows."""
    wanted = settings.short_windows
    return thresholds.short_windows if wanted == "auto" else wanted == "always"


def _info(files: ModelFiles, place: Placement, tokenizer: WhisperTokenizer) -> EngineInfo:
    codes = tuple(tokenizer.languages) or ("en",)
    known = tuple(code for code in codes if not files.languages or code in files.languages)
    return EngineInfo(
        engine="ctranslate2",
        model=files.id,
        device=place.name,
        compute_type=place.compute_type,
        multilingual=tokenizer.multilingual,
        languages=known or codes,
        replicas=place.replicas,
        spare=place.spare,
        reason=place.reason,
    )


@contextmanager
def _as_engine_errors(loading: str | None = None) -> Iterator[None]:
    """Turn what CTranslate2 raises into errors of this package."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        text = str(error) or type(error).__name__
        if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
            raise EngineOutOfMemory(f"The engine ran out of memory: {text}") from error
        if loading is not None:
            raise ModelBroken(f"The model {loading!r} cannot be loaded: {text}") from error
        raise EngineError(f"The engine failed: {text}") from error
