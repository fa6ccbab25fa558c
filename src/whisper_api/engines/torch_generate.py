"""The decoding loop: prompts in, tokens out, with no look at the device's values on the way.

A step is captured as a CUDA graph for each shape it has (windows, beams, length of text, length of
audio) and replayed. Whether all windows are finished is asked every few steps, by a copy that the
host waits for only when the next one has been sent off.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from whisper_api.engines.base import DecodeParams
from whisper_api.engines.torch_memory import Memory, Room
from whisper_api.engines.torch_network import Decoder
from whisper_api.engines.torch_rules import Rules
from whisper_api.engines.torch_search import Beam, Found, Rowwise, Search
from whisper_api.tokens import CONTEXT, WhisperTokenizer

log = logging.getLogger(__name__)

BEST_OF = 5
"""Samples drawn at temperatures above 0; the likeliest is kept."""

_SPANS = (64, 128, 256, CONTEXT)
"""Lengths of text that have a graph each: attention looks at no more than it must."""
_ASK_EVERY = 8  # steps between two questions whether all is finished
_GRAPHS = 96  # at most; the least used leave

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Written:
    """One window's tokens."""

    found: Found
    no_speech_prob: float


@dataclass(slots=True)
class Bench:
    """A search with all that one shape of batch needs; its tensors never move."""

    search: Search
    items: int
    position: Any  #: int64 ``[1]``: where the next token stands


class Generator:
    """Writes texts for batches of encoded windows. Not thread-safe: one call at a time."""

    def __init__(
        self,
        decoder: Decoder,
        rules: Rules,
        room: Room,
        device: Any,
        dtype: Any,
        tokenizer: WhisperTokenizer,
        alone: AbstractContextManager[Any],
    ) -> None:
        """Allocates the decoder's memory; ``alone`` is held while a graph is recorded."""
        self.room = room
        self.graphs_fail = ""  #: why graphs are not used any more
        self._decoder, self._rules = decoder, rules
        self._device, self._alone = device, alone
        self._sot, self._no_speech = tokenizer.sot, tokenizer.no_speech
        self._memory = Memory(decoder, room, device, dtype)
        self._benches: dict[tuple[int, int, bool], Bench] = {}
        self._graphs: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._on_card = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._on_card else None
        self._random = torch.Generator(device=device)

    def width(self, params: DecodeParams) -> int:
        """Rows that each window takes."""
        return BEST_OF if params.temperature > 0 else params.beam_size

    def write(
        self, encodings: Any, prompts: Sequence[list[int]], params: DecodeParams
    ) -> list[Written]:
        """Decode ``[windows, positions, width]`` with prompts of equal length.

        At most ``room.items_of(width(params))`` windows; options are those of ``params``.
        """
        count, length, positions = len(prompts), len(prompts[0]), encodings.shape[1]
        limit = max(1, min(params.max_new_tokens, CONTEXT - length))
        bench = self._bench(count, params)
        audio = self._memory.audio(bench.items, positions)
        for kept, fresh in zip(audio, self._decoder.cross(encodings), strict=True):
            kept[0][:count], kept[1][:count] = fresh
        bench.search.reset(count)
        self._seed(bench.search, params)
        no_speech = self._begin(bench, prompts, positions)
        steps, cut = self._loop(bench, length, limit, positions)
        found = bench.search.results(count, steps, cut)
        return [Written(*pair) for pair in zip(found, no_speech[:count].tolist(), strict=True)]

    def first_logits(self, encodings: Any, token: int) -> Any:
        """Float32 ``[windows, vocabulary]`` after one token, for any number of windows."""
        tokens = torch.full((encodings.shape[0], 1), token, device=self._device)
        heads = [(0, 0)]
        states, _ = self._decoder.read(tokens, self._decoder.cross(encodings), heads)
        return self._decoder.logits(states[:, -1])

    # --- one batch ------------------------------------------------------------------------------

    def _bench(self, count: int, params: DecodeParams) -> Bench:
        """The search for so many windows, made once for each power of two."""
        width = self.width(params)
        most = self.room.items_of(width)
        items = min(most, 1 << (count - 1).bit_length())
        key = (items, width, params.temperature > 0)
        if key not in self._benches:
            size = self._decoder.size
            search: Search
            if params.temperature > 0 or width == 1:
                search = Rowwise(items, width, self._rules, size, self._device)
            else:
                search = Beam(items, width, self._rules, self._device)
            position = torch.zeros(1, dtype=torch.long, device=self._device)
            self._benches[key] = Bench(search, items, position)
        return self._benches[key]

    def _begin(self, bench: Bench, prompts: Sequence[list[int]], positions: int) -> Any:
        """Read the prompts and take the first tokens; answers the no-speech probabilities."""
        filled = [*prompts, *([prompts[0]] * (bench.items - len(prompts)))]
        tokens = torch.tensor(filled, device=self._device)
        width, length = bench.search.width, tokens.shape[1]
        states = self._decoder.step(
            tokens,
            torch.arange(length, device=self._device),
            self._memory.heads_of(bench.items, width),
            self._memory.audio(bench.items, positions),
            _span(length),
        )
        self._memory.spread(bench.items, width, length)
        bench.position.fill_(length)
        self._draw(bench.search)
        bench.search.begin(self._decoder.logits(states[:, -1]))
        start = states[:, prompts[0].index(self._sot)]
        return self._decoder.logits(start).softmax(dim=1)[:, self._no_speech]

    def _seed(self, search: Search, params: DecodeParams) -> None:
        if isinstance(search, Rowwise) and search.noise is not None:
            search.warmth.fill_(params.temperature)
            self._random.manual_seed(params.seed % 2**63)

    def _draw(self, search: Search) -> None:
        """New random numbers for the next tokens, outside of any graph."""
        if isinstance(search, Rowwise) and search.noise is not None:
            search.noise.exponential_(generator=self._random)

    def _loop(self, bench: Bench, length: int, limit: int, positions: int) -> tuple[int, bool]:
        """Write until all are finished; how many tokens at most, and whether the limit cut."""
        asked: list[tuple[Any, Any]] = []
        for written in range(1, limit):
            if self._all_finished(bench, written, asked):
                return written, False
            self._draw(bench.search)
            self._step(bench, _span(length + written), positions)
        return limit, True

    def _all_finished(self, bench: Bench, written: int, asked: list[tuple[Any, Any]]) -> bool:
        if not self._on_card:
            return bool(bench.search.finished.all())
        if written % _ASK_EVERY:
            return False
        answer = torch.zeros((), dtype=torch.bool, pin_memory=True)
        answer.copy_(bench.search.finished.all(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        asked.append((answer, event))
        if len(asked) < 2:
            return False
        earlier, done = asked.pop(0)
        done.synchronize()
        return bool(earlier)

    # --- one step -------------------------------------------------------------------------------

    def _step(self, bench: Bench, span: int, positions: int) -> None:
        step = self._stepper(bench, span, positions)
        if not self._on_card or self.graphs_fail:
            step()
            return
        search = bench.search
        key = (bench.items, search.width, type(search), span, positions)
        graph = self._graphs.get(key)
        if graph is None:
            # This step runs as it is; the next one of its shape finds the graph.
            step()
            self._capture(key, step)
            return
        self._graphs.move_to_end(key)
        graph.replay()

    def _stepper(self, bench: Bench, span: int, positions: int) -> Step:
        search, memory, decoder = bench.search, self._memory, self._decoder
        text = memory.text(bench.items * search.width)
        audio = memory.audio(bench.items, positions)

        def step() -> None:
            if search.parents is not None:
                memory.reorder(search.parents, span)
            states = decoder.step(search.last[:, None], bench.position, text, audio, span)
            search.take(decoder.logits(states[:, -1]))
            bench.position.add_(1)

        return step

    def _capture(self, key: tuple[object, ...], step: Step) -> None:
        """Record ``step``; recording runs nothing, so that no state changes."""
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                self._alone,
                torch.cuda.graph(
                    graph,
                    pool=self._pool,
                    stream=torch.cuda.current_stream(),
                    capture_error_mode="thread_local",
                ),
            ):
                step()
        except RuntimeError as error:
            self.graphs_fail = str(error).splitlines()[0]
            log.warning("CUDA graphs do not work here, decoding is slower: %s", self.graphs_fail)
            self._graphs.clear()
            return
        self._graphs[key] = graph
        while len(self._graphs) > _GRAPHS:
            self._graphs.popitem(last=False)


def _span(length: int) -> int:
    return next(span for span in _SPANS if span >= length)
