"""What turns encoded windows into tokens; CTranslate2's own decoder, and the contract."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from whisper_api.engines.base import DecodeParams
from whisper_api.engines.draft import chosen_logprobs, wants_logits
from whisper_api.engines.encodings import Encoding
from whisper_api.engines.search import BEST_OF, Found
from whisper_api.engines.search_rules import MAX_INITIAL_TIMESTAMP
from whisper_api.tokens import CONTEXT, WhisperTokenizer

_LOGIT_BYTES = 256 * 1024 * 1024

# The seed belongs to the whole process, and each worker thread reads it once in its life.
_SAMPLING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Written:
    """One window's tokens."""

    found: Found
    no_speech_prob: float


class Writer(Protocol):
    """Blocking and thread-safe; a window's tokens do not depend on its neighbours."""

    name: str  #: of the library and its number format, for people
    streams: int  #: that run at the same time without taking time from each other
    in_steps: bool  #: whether it lets other calls pass: see ``steps``

    def most(self, params: DecodeParams) -> int:
        """Windows that one call takes."""
        ...

    def write(
        self, encodings: Sequence[Encoding], prompts: Sequence[list[int]], params: DecodeParams
    ) -> list[Written]:
        """Decode windows of equal length with prompts of equal length.

        Raises:
            RuntimeError, ValueError, MemoryError: what the library raises.
        """
        ...

    def probe(self, encodings: Sequence[Encoding], steps: int) -> None:
        """So many tokens for each window, whatever they say: for measuring."""
        ...

    def shrink(self) -> None:
        """Give up the memory that calls leave for later ones."""
        ...


class OwnWriter:
    """The decoder of a model that CTranslate2 loaded."""

    in_steps = False

    def __init__(
        self,
        model: Any,
        library: Any,
        tokenizer: WhisperTokenizer,
        open_model: Callable[[int], Any],
        reopens: bool,
        streams: int,
    ) -> None:
        """``reopens`` says whether the weights are small enough for ``open_model`` to load them for
        every sampled call."""
        self.name = f"ctranslate2 {model.compute_type}"
        self.streams = streams
        self._model = model
        self._library = library
        self._tokenizer = tokenizer
        self._open = open_model
        self._reopens = reopens
        self._suppress = [-1, *tokenizer.suppressed]

    def most(self, params: DecodeParams) -> int:
        """See ``Writer``."""
        if params.temperature > 0:
            return 1  # random numbers must not depend on the neighbours
        if wants_logits(params):
            return max(1, _LOGIT_BYTES // (4 * self._tokenizer.size * params.max_new_tokens))
        return CONTEXT

    def write(
        self, encodings: Sequence[Encoding], prompts: Sequence[list[int]], params: DecodeParams
    ) -> list[Written]:
        """See ``Writer``."""
        memory = view(self._library, encodings)
        results = self._generate(memory, prompts, params)
        return [self._written(result, wants_logits(params)) for result in results]

    def probe(self, encodings: Sequence[Encoding], steps: int) -> None:
        """See ``Writer``."""
        self._model.generate(
            view(self._library, encodings),
            [[self._tokenizer.sot]] * len(encodings),
            beam_size=1,
            max_length=2 * steps,
            suppress_tokens=[self._tokenizer.eot],
        )

    def shrink(self) -> None:
        """See ``Writer``; CTranslate2 leaves none."""

    def _generate(
        self, memory: Any, prompts: Sequence[list[int]], params: DecodeParams
    ) -> Sequence[Any]:
        if params.temperature > 0:
            return self._sample(memory, prompts, params)
        found: Sequence[Any] = self._model.generate(
            memory,
            prompts,
            beam_size=params.beam_size,
            return_logits_vocab=wants_logits(params),
            **self._limits(params, len(prompts[0])),
        )
        return found

    def _limits(self, params: DecodeParams, prompt: int) -> dict[str, Any]:
        # CTranslate2 writes min(max_length / 2, max_length - prompt + 1) tokens at most.
        tokens = min(params.max_new_tokens, CONTEXT - prompt)
        return {
            "max_length": max(2 * tokens, tokens + prompt - 1),
            "return_scores": True,
            "return_no_speech_prob": True,
            "suppress_blank": True,
            "suppress_tokens": self._suppress,
            "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP,
        }

    def _sample(
        self, memory: Any, prompts: Sequence[list[int]], params: DecodeParams
    ) -> Sequence[Any]:
        """Draw with the seed of ``params``: the same window, seed and temperature, the same text.

        CTranslate2's random numbers belong to a worker thread, which takes the seed when it first
        draws and never again. A model opened for this call alone has a fresh thread; that costs
        one load of the weights (50 ms for the bundled model) and is needed for windows only
        that a search at temperature 0 could not decode. Weights too large for that sample on the
        running model: good text, but not the same at every run.
        """
        with _SAMPLING:
            self._library.set_random_seed(params.seed % (2**31 - 1))
            model = self._open(1) if self._reopens else self._model
            found: Sequence[Any] = model.generate(
                memory,
                prompts,
                beam_size=1,
                num_hypotheses=BEST_OF,
                sampling_topk=0,
                sampling_temperature=params.temperature,
                **self._limits(params, len(prompts[0])),
            )
            return found

    def _written(self, result: Any, with_logits: bool) -> Written:
        best = int(np.argmax(result.scores))
        tokens = list(result.sequences_ids[best])
        score = float(result.scores[best]) * max(1, len(tokens))
        logprobs = (
            chosen_logprobs(tokens, result.logits[best], self._tokenizer) if with_logits else None
        )
        return Written(Found(tokens, score, logprobs), float(result.no_speech_prob))


def view(library: Any, encodings: Sequence[Encoding]) -> Any:
    """Encodings as CTranslate2 reads them."""
    stacked = encodings[0] if len(encodings) == 1 else np.concatenate(encodings)
    return library.StorageView.from_array(np.ascontiguousarray(stacked))
