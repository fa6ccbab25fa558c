"""Writes texts with Whisper's decoder in OpenVINO: prompts in, tokens out, for batches of windows.

All memory that a step reads stays where it is from step to step: the windows' cross-attention keys
and values, and the rows' own, which have room for more than is written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.base import DecodeParams
from whisper_api.engines.encodings import Encoding
from whisper_api.engines.openvino_decoder_graph import DecoderShape, build_cross, build_step
from whisper_api.engines.openvino_layers import Matrices
from whisper_api.engines.pages import expect_huge
from whisper_api.engines.search import BEST_OF, Beam, Rowwise, Search
from whisper_api.engines.search_rules import Rules, softmax
from whisper_api.engines.steps import step
from whisper_api.engines.writer import Written
from whisper_api.tokens import CONTEXT, WhisperTokenizer

_ROOMS = (64, 128, 256, CONTEXT)
"""Lengths of text that rows have room for; each is a shape that OpenVINO compiles for."""
_STEP = {
    # Attention as separate products: for one query at a time OpenVINO's fused code packs all keys
    # and values anew in each step, which takes longer than to use them.
    "SNIPPETS_MODE": "DISABLE",
    # With bf16 here OpenVINO would quantize no activations. Attention is in 16 bits all the same,
    # since the graph says so.
    "INFERENCE_PRECISION_HINT": "f32",
}
"""Options of a step beside those of the plan."""
_HIDDEN = np.float32(-1e9)
"""Added to the scores of what must not be seen."""
_HEADING = 5
"""Inputs of a step before those of its layers."""
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Numbers:
    """How numbers are kept between steps."""

    kind: Any  #: OpenVINO's type
    dtype: Any  #: of the arrays; numpy has no bfloat16, so that these hold its bits

    def zeros(self, *shape: int) -> Array:
        """Memory whose every value is finite."""
        return expect_huge(np.zeros(shape, self.dtype))

    def tensor(self, array: Array) -> Any:
        """The array's memory (of whole rows) as OpenVINO's."""
        return ov.Tensor(array, ov.Shape(list(array.shape)), self.kind)


BFLOAT16 = Numbers(ov.Type.bf16, np.uint16)
FLOAT32 = Numbers(ov.Type.f32, np.float32)


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """How a decoder is built."""

    name: str  #: of the number format
    matrices: Matrices  #: of a step
    positions: int  #: that every window is encoded to; 0: any number
    numbers: Numbers  #: of keys and values
    group: int  #: activations of a step that share a scale when they are quantized; 0: they are not
    options: dict[str, Any]  #: of ``compile_model``
    suppressed: tuple[int, ...]  #: ids that the checkpoint never writes
    suppressed_first: tuple[int, ...]  #: and those it does not begin with

    @property
    def title(self) -> str:
        """How the decoder is called where others have names."""
        return f"openvino {self.name}"


class OpenVinoDecoder:
    """A compiled decoder; see ``writer.Writer``."""

    in_steps = True

    def __init__(
        self, plan: DecoderPlan, weights: ConvertedWeights, tokenizer: WhisperTokenizer, desks: int
    ) -> None:
        """Build and compile; so many ``desks``, each with memory of its own, serve calls that run
        at the same time.

        Raises:
            ModelBroken: the file lacks a weight.
            RuntimeError: OpenVINO cannot compile it here.
        """
        self.name = plan.title
        self.streams = plan.options["NUM_STREAMS"]
        shape, numbers = DecoderShape.of(weights), plan.numbers
        self._rules = Rules(tokenizer, plan.suppressed, plan.suppressed_first, shape.vocabulary)
        self._sot, self._no_speech = tokenizer.sot, tokenizer.no_speech
        # All positions at once: 16 bits take half the time, since nothing is unpacked.
        wide: Matrices = "float16" if plan.matrices == "int8" else plan.matrices
        cross = build_cross(weights, wide, numbers.kind, plan.positions)
        following = build_step(weights, plan.matrices, numbers.kind)
        core = ov.Core()
        compiled = core.compile_model(cross, "CPU", plan.options)
        groups = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": plan.group}
        stepper = core.compile_model(following, "CPU", plan.options | groups | _STEP)
        self._new_desk = partial(_Desk, compiled, stepper, shape, numbers)
        self._idle: SimpleQueue[_Desk] = SimpleQueue()
        for _ in range(desks):
            self._idle.put(self._new_desk())
        self._spares: SimpleQueue[_Desk] = SimpleQueue()
        self._held = threading.local()

    def most(self, params: DecodeParams) -> int:
        """See ``Writer``."""
        return CONTEXT

    def write(
        self, encodings: Sequence[Encoding], prompts: Sequence[list[int]], params: DecodeParams
    ) -> list[Written]:
        """Decode windows with prompts of equal length; options are those of ``params``."""
        count, length = len(prompts), len(prompts[0])
        limit = max(1, min(params.max_new_tokens, CONTEXT - length))
        search = self._search(count, params)
        with self._desk() as desk:
            desk.hear(encodings)
            logits = desk.read(prompts, [prompts[0].index(self._sot), length - 1])
            no_speech = [softmax(row)[self._no_speech] for row in logits[:, 0]]
            search.begin(np.ascontiguousarray(logits[:, -1]))
            desk.spread(search.width)
            cut = self._loop(desk, search, limit)
        found = search.results(cut)
        return [Written(one, float(prob)) for one, prob in zip(found, no_speech, strict=True)]

    def probe(self, encodings: Sequence[Encoding], steps: int) -> None:
        """So many steps for windows, whatever they say: for measuring."""
        with self._desk() as desk:
            desk.hear(encodings)
            desk.read([[self._sot]] * len(encodings), [0])
            desk.spread(1)
            for _ in range(steps):
                desk.step([self._rules.eot] * len(encodings))

    def shrink(self) -> None:
        """See ``Writer``."""
        for _ in range(self._idle.qsize()):
            with self._desk() as desk:
                desk.forget()

    def _search(self, windows: int, params: DecodeParams) -> Search:
        if params.temperature > 0:
            return Rowwise(windows, BEST_OF, self._rules, params.temperature, params.seed)
        if params.beam_size == 1:
            return Rowwise(windows, 1, self._rules)
        return Beam(windows, params.beam_size, self._rules)

    @staticmethod
    def _loop(desk: _Desk, search: Search, limit: int) -> bool:
        """Write until all are finished; whether the limit cut a text off."""
        for _ in range(1, limit):
            finished = search.finished
            if all(finished):
                return False
            step()
            desk.keep([place for place in desk.windows if not finished[place]])
            logits = desk.step(search.last(desk.windows))
            desk.follow(search.take(logits, desk.windows))
        return True

    @contextmanager
    def _desk(self) -> Iterator[_Desk]:
        """One call's memory; what passes another in its thread (``steps``) cannot wait."""
        nested = self._held.__dict__.setdefault("desks", 0)
        desk = self._spare() if nested else self._idle.get()
        self._held.desks += 1
        try:
            yield desk
        except BaseException:
            if nested:
                desk.forget()  # memory may be short
            raise
        finally:
            self._held.desks -= 1
            (self._spares if nested else self._idle).put(desk)

    def _spare(self) -> _Desk:
        try:
            return self._spares.get_nowait()
        except Empty:
            return self._new_desk()


class _Desk:
    """Requests and memory of one call at a time.

    Keys and values of all layers lie together: ``[layers, rows, heads, size, positions]`` and
    ``[layers, rows, heads, positions, size]``.
    """

    def __init__(self, cross: Any, step: Any, shape: DecoderShape, numbers: Numbers) -> None:
        self._models = cross, step
        self._shape, self._numbers = shape, numbers
        self._arena: dict[str, Array] = {}
        self.windows: list[int] = []  #: those still worked on, by their place in the batch
        self._position = self._room = 0
        self._width = 1
        self.forget()

    def forget(self) -> None:
        """Give up all memory; requests hold on to what they were shown, so they begin anew."""
        self._arena.clear()
        self._heard: list[Array] = []
        self._own: list[Array] = []
        self._bound: _Bound | None = None
        self._cross, self._step = (model.create_infer_request() for model in self._models)

    def hear(self, encodings: Sequence[Encoding]) -> None:
        """Compute the windows' cross-attention keys and values."""
        count, positions = len(encodings), encodings[0].shape[1]
        self.windows = list(range(count))
        if not self._fits("heard", count, positions):
            self.forget()  # first: these are the largest by far
        self._heard = self._pair("heard", count, positions)
        for window, encoding in enumerate(encodings):
            step()
            for layer in range(self._shape.layers):
                for place, array in enumerate(self._heard):
                    tensor = self._numbers.tensor(array[layer, window : window + 1])
                    self._cross.set_output_tensor(2 * layer + place, tensor)
            self._cross.infer([np.ascontiguousarray(encoding, np.float32)], share_inputs=True)

    def read(self, prompts: Sequence[list[int]], chosen: Sequence[int]) -> Array:
        """Read the prompts, which are equally long; logits ``[windows, chosen, vocabulary]``."""
        rows, length = len(prompts), len(prompts[0])
        self._position, self._width = 0, 1
        self._room = next(room for room in _ROOMS if room >= min(length + 1, CONTEXT))
        self._own = [self._numbers.zeros(*shape) for shape in self._shapes(rows, self._room)]
        self._bind()
        return self._run(np.array(prompts, np.int32), chosen)

    def spread(self, width: int) -> None:
        """From now on so many rows for each window, all with what was read."""
        if width > 1:
            self._own = [np.repeat(array, width, axis=1) for array in self._own]
        self._width = width
        self._bind()

    def step(self, tokens: Sequence[int]) -> Any:
        """One more token of each row; float32 logits ``[rows, vocabulary]``."""
        if self._position == self._room:
            self._grow()
        return self._run(np.array(tokens, np.int32)[:, None], [0])[:, 0]

    def follow(self, parents: Sequence[int]) -> None:
        """Let each row go on from the keys and values of another."""
        rows = [row for row, parent in enumerate(parents) if row != parent]
        if not rows:
            return
        sources, upto = [parents[row] for row in rows], self._position
        keys, values = self._own
        keys[:, rows, :, :, :upto] = keys[:, sources, :, :, :upto]
        values[:, rows, :, :upto] = values[:, sources, :, :upto]

    def keep(self, windows: Sequence[int]) -> None:
        """Work on these alone from now on, where that halves the work; else all go on."""
        if 2 * len(windows) > len(self.windows):
            return
        places = [self.windows.index(window) for window in windows]
        rows = [place * self._width + i for place in places for i in range(self._width)]
        self._heard = [_to_front(array, places) for array in self._heard]
        self._own = [array.take(rows, axis=1) for array in self._own]
        self.windows = list(windows)
        self._bind()

    # --- memory -----------------------------------------------------------------------------

    def _pair(self, name: str, rows: int, positions: int) -> list[Array]:
        """Memory for keys and for values, of earlier calls where it is large enough: fresh pages
        cost more than use."""
        keys, values = self._shapes(rows, positions)
        wanted = prod(keys)
        if not self._fits(name, rows, positions):
            self._arena[name] = self._numbers.zeros(2 * wanted)
        kept = self._arena[name]
        return [kept[:wanted].reshape(keys), kept[wanted : 2 * wanted].reshape(values)]

    def _fits(self, name: str, rows: int, positions: int) -> bool:
        """Whether there is memory for so many already."""
        kept = self._arena.get(name)
        return kept is not None and kept.size >= 2 * prod(self._shapes(rows, positions)[0])

    def _shapes(self, rows: int, positions: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of keys and of values."""
        layers, heads, size = self._shape.layers, self._shape.heads, self._shape.size
        return (layers, rows, heads, size, positions), (layers, rows, heads, positions, size)

    def _grow(self) -> None:
        more = next(room for room in _ROOMS if room > self._room) - self._room
        for place, array in enumerate(self._own):
            wider = [(0, 0)] * array.ndim
            wider[3 if place else 4] = (0, more)
            self._own[place] = np.pad(array, wider)
        self._room += more
        self._bind()

    def _bind(self) -> None:
        """Show the request where everything lies."""
        for layer in range(self._shape.layers):
            for place, array in enumerate((*self._heard, *self._own)):
                tensor = self._numbers.tensor(array[layer])
                self._step.set_input_tensor(_HEADING + 4 * layer + place, tensor)
        self._bound = None

    # --- one run ----------------------------------------------------------------------------

    def _run(self, ids: Array, chosen: Sequence[int]) -> Array:
        """Run the step and keep the new keys and values; logits ``[rows, chosen, vocabulary]``."""
        first, after = self._position, self._position + ids.shape[1]
        if self._bound is None or self._bound.ids.shape != ids.shape:
            self._bound = self._bind_run(ids.shape, len(chosen))
        bound = self._bound
        bound.ids[:] = ids
        bound.places[:] = range(first, after)
        bound.chosen[:] = chosen
        bound.seen[..., :first] = 0
        self._step.infer()
        keys, values = self._own
        keys[..., first:after] = bound.keys
        values[:, :, :, first:after] = bound.values
        self._position = after
        return np.asarray(self._step.get_output_tensor(0).data)

    def _bind_run(self, shape: tuple[int, int], chosen: int) -> _Bound:
        """Memory of what changes from run to run, and the request told of it."""
        rows, count = shape
        bound = _Bound(
            ids=np.zeros(shape, np.int32),
            places=np.zeros(count, np.int32),
            chosen=np.zeros(chosen, np.int32),
            seen=np.full((1, 1, 1, self._room), _HIDDEN, np.float32),
            ahead=np.triu(np.full((1, 1, count, count), _HIDDEN, np.float32), 1),
            new=self._pair("new", rows, count),
        )
        for place, array in enumerate(bound.heading):
            self._step.set_input_tensor(place, ov.Tensor(array, shared_memory=True))
        for layer in range(self._shape.layers):
            for place, array in enumerate(bound.new):
                tensor = self._numbers.tensor(array[layer])
                self._step.set_output_tensor(1 + 2 * layer + place, tensor)
        return bound


@dataclass(frozen=True, slots=True)
class _Bound:
    """Inputs and outputs of steps of one shape."""

    ids: Array
    places: Array
    chosen: Array
    seen: Array
    ahead: Array
    new: list[Array]

    @property
    def heading(self) -> tuple[Array, ...]:
        """The inputs that stand before all layers', in their order."""
        return self.ids, self.places, self.chosen, self.seen, self.ahead

    @property
    def keys(self) -> Array:
        """The new ones of all layers."""
        return self.new[0]

    @property
    def values(self) -> Array:
        """The new ones of all layers."""
        return self.new[1]


def _to_front(array: Array, rows: Sequence[int]) -> Array:
    """These rows of the second axis, which rise, in the memory where the array begins: a copy of
    most windows' keys would be what memory is short for."""
    layers, before, *rest = array.shape
    flat = array.reshape(layers * before, *rest)
    for place, (layer, row) in enumerate(product(range(layers), rows)):
        flat[place] = flat[layer * before + row]
    return flat[: layers * len(rows)].reshape(layers, len(rows), *rest)
