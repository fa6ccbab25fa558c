"""The decoding loop: prompts in, tokens out, with no look at the device's values on the way.

A step is captured as a CUDA graph for each shape it has (windows, beams, length of text, length of
audio) and replayed. Which windows are finished is asked every few steps (``torch_watch``); once
half of a batch is, the rest goes on in a smaller one.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from whisper_api.engines.base import DecodeParams
from whisper_api.engines.torch_memory import POSITIONS, Memory, Room
from whisper_api.engines.torch_network import Decoder
from whisper_api.engines.torch_rules import Rules
from whisper_api.engines.torch_search import Beam, Found, Rowwise, Search, rows_of
from whisper_api.engines.torch_watch import Watch
from whisper_api.tokens import CONTEXT, WhisperTokenizer

log = logging.getLogger(__name__)

BEST_OF = 5
"""Samples drawn at temperatures above 0; the likeliest is kept."""

_SPANS = (64, 128, 256, CONTEXT)
"""Lengths of text that have a graph each: attention looks at no more than it must."""
_GRAPHS = 96  # at most; the least used leave
_LEAST_ON_CARD = 8
"""Windows under which a batch is not made smaller on a card: a step takes the same time there."""

_RECORDING = threading.Lock()
"""Only one graph may be recorded at a time in a process."""

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
    sampled: bool
    position: Any  #: int64 ``[1]``: where the next token stands


@dataclass(slots=True)
class Run:
    """One batch on its way: what it runs on, and the windows that are in it."""

    bench: Bench
    windows: list[int]  #: of the batch as it came; those of the bench's first items
    parted: list[tuple[Bench, list[int], list[int], int]] = field(default_factory=list)
    """Left behind when a batch became smaller: bench, items, their windows, tokens written."""

    def results(self, steps: int, cut: bool) -> list[Found]:
        """The best of each window, in order; waits for the device."""
        found: dict[int, Found] = {}
        for bench, items, windows, written in self.parted:
            found.update(zip(windows, bench.search.results(items, written, False), strict=True))
        rest = self.bench.search.results(range(len(self.windows)), steps, cut)
        found.update(zip(self.windows, rest, strict=True))
        return [found[window] for window in sorted(found)]


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
        self.graphs = True  #: whether they are used where that is possible
        self.graphs_fail = ""  #: why they are not any more
        self.shrinks = True  #: whether batches become smaller as their windows end
        self.watch = Watch(device)
        self.encoding_bytes = POSITIONS * decoder.width * dtype.itemsize  #: of a full window
        self._decoder, self._rules = decoder, rules
        self._device, self._alone = device, alone
        self._sot, self._no_speech = tokenizer.sot, tokenizer.no_speech
        self._memory = Memory(decoder, room, device, dtype)
        self._benches: dict[tuple[int, int, bool], Bench] = {}
        self._graphs: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._on_card = device.type == "cuda"
        self._least = _LEAST_ON_CARD if self._on_card else 1
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
        bench = self._bench(count, self.width(params), params.temperature > 0)
        audio = self._memory.audio(bench.items, positions)
        for kept, fresh in zip(audio, self._decoder.cross(encodings), strict=True):
            kept[0][:count], kept[1][:count] = fresh
        bench.search.reset(count)
        self._seed(bench.search, params)
        no_speech = self._begin(bench, prompts, positions)
        found = self._loop(Run(bench, list(range(count))), length, limit, positions)
        return [Written(*pair) for pair in zip(found, no_speech[:count].tolist(), strict=True)]

    def first_logits(self, encodings: Any, token: int) -> Any:
        """Float32 ``[windows, vocabulary]`` after one token, for any number of windows."""
        tokens = torch.full((encodings.shape[0], 1), token, device=self._device)
        heads = [(0, 0)]
        states, _ = self._decoder.read(tokens, self._decoder.cross(encodings), heads)
        return self._decoder.logits(states[:, -1])

    def check_graphs(
        self,
        encodings: Any,
        prompts: Sequence[list[int]],
        params: DecodeParams,
        found: Sequence[Written],
    ) -> None:
        """Use no graphs any more if they are why this batch was written as ``found``."""
        self.graphs = False
        without = self.write(encodings, prompts, params)
        self.graphs = True
        if [one.found.tokens for one in without] != [one.found.tokens for one in found]:
            self._give_up("they write other tokens")

    # --- one batch ------------------------------------------------------------------------------

    def _bench(self, count: int, width: int, sampled: bool) -> Bench:
        """The search for so many windows, made once for each size that batches have."""
        items = min(self.room.items_of(width), bucket_of(count))
        key = (items, width, sampled)
        if key not in self._benches:
            search: Search
            if sampled or width == 1:
                search = Rowwise(items, width, self._rules, self._decoder.size, self._device)
            else:
                search = Beam(items, width, self._rules, self._device)
            position = torch.zeros(1, dtype=torch.long, device=self._device)
            self._benches[key] = Bench(search, items, sampled, position)
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

    def _loop(self, run: Run, length: int, limit: int, positions: int) -> list[Found]:
        """Write until all are finished, or have ``limit`` tokens."""
        self.watch.forget()
        for written in range(1, limit):
            ended = self.watch.ask(written, run.bench.search.finished)
            if ended is not None:
                alive = [item for item in range(len(run.windows)) if not ended[item]]
                if not alive:
                    return run.results(written, False)
                if self._pays(run.bench, len(alive)):
                    self._shrink(run, alive, written, length, positions)
            self._draw(run.bench.search)
            self._step(run.bench, _span(length + written), positions)
        return run.results(limit, True)

    def _pays(self, bench: Bench, alive: int) -> bool:
        """Moving the keys and values of ``alive`` windows costs about four steps of them."""
        size = bucket_of(alive)
        return self.shrinks and self._least <= size <= bench.items // 2

    def _shrink(
        self, run: Run, alive: list[int], written: int, length: int, positions: int
    ) -> None:
        """Go on with the items that are ``alive`` (or were, when it was asked) alone."""
        old = run.bench
        gone = sorted(set(range(len(run.windows))) - set(alive))
        new = self._bench(len(alive), old.search.width, old.sampled)
        items = self._indices([*alive, *([alive[0]] * (new.items - len(alive)))])
        rows = rows_of(items, old.search.width)
        parents = old.search.parents
        source = rows if parents is None else parents[rows]
        self._memory.gather(items, source, old.items, positions, length + written)
        new.search.follow(old.search, items, len(alive))
        new.position.copy_(old.position)
        run.parted.append((old, gone, [run.windows[item] for item in gone], written))
        run.bench, run.windows = new, [run.windows[item] for item in alive]
        self.watch.forget()

    def _indices(self, values: Sequence[int]) -> Any:
        """On the device, without waiting for it."""
        kept = torch.tensor(values, dtype=torch.long, pin_memory=self._on_card)
        return kept.to(self._device, non_blocking=True)

    # --- one step -------------------------------------------------------------------------------

    def _step(self, bench: Bench, span: int, positions: int) -> None:
        search, recorded = bench.search, self._on_card and self.graphs and not self.graphs_fail
        key = (bench.items, search.width, type(search), span, positions)
        if recorded and key in self._graphs:
            # Nothing else here: what the host does between two steps is all that it does.
            self._graphs.move_to_end(key)
            self._graphs[key].replay()
            return
        step = self._stepper(bench, span, positions)
        step()
        if recorded:
            # This step ran as it is; the next one of its shape finds the graph.
            self._capture(key, step)

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
            # Not torch.cuda.graph: that empties torch's caches at each start, pinned memory too.
            with self._alone, _RECORDING:
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    step()
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            self._give_up((str(error) or repr(error)).splitlines()[0])
            return
        self._graphs[key] = graph
        while len(self._graphs) > _GRAPHS:
            self._graphs.popitem(last=False)

    def _give_up(self, why: str) -> None:
        self.graphs_fail = why
        log.warning("CUDA graphs do not work here, decoding is slower: %s", why)
        self._graphs.clear()


def bucket_of(count: int) -> int:
    """The least size of batches that holds ``count``: 1, 2, 3, 4, 6, 8, 12, 16, 24, …"""
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power > 3 and count <= power * 3 // 4 else power


def _span(length: int) -> int:
    return next(span for span in _SPANS if span >= length)
