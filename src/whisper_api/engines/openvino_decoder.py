"""Writes texts with Whisper's decoder in OpenVINO: prompts in, tokens out, for batches of windows.

All memory that a step reads stays where it is from step to step: the windows' cross-attention keys
and values, and the rows' own, which have room for more than is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.base import DecodeParams
from whisper_api.engines.encodings import Encoding
from whisper_api.engines.openvino_decoder_graph import DecoderShape, build_cross, build_step
from whisper_api.engines.openvino_layers import Matrices
from whisper_api.engines.search import BEST_OF, Beam, Rowwise, Search
from whisper_api.engines.search_rules import Rules
from whisper_api.engines.writer import Written
from whisper_api.tokens import CONTEXT, WhisperTokenizer

_ROOMS = (64, 128, 256, CONTEXT)
"""Lengths of text that rows have room for; each is a shape that OpenVINO compiles for."""
_UNFUSED = {"SNIPPETS_MODE": "DISABLE"}
"""Attention as separate products: for one query at a time OpenVINO's fused code packs all keys and
values anew in each step, which takes longer than to use them."""
_HIDDEN = np.float32(-1e9)
"""Added to the scores of what must not be seen."""
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Numbers:
    """How numbers are kept between steps."""

    kind: Any  #: OpenVINO's type
    dtype: Any  #: of the arrays; numpy has no bfloat16, so that these hold its bits

    def zeros(self, *shape: int) -> Array:
        """Memory whose every value is finite."""
        return np.zeros(shape, self.dtype)

    def tensor(self, array: Array) -> Any:
        """The array's memory (of whole rows) as OpenVINO's."""
        return ov.Tensor(array, ov.Shape(list(array.shape)), self.kind)


BFLOAT16 = Numbers(ov.Type.bf16, np.uint16)
FLOAT32 = Numbers(ov.Type.f32, np.float32)


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """How a decoder is built."""

    name: str  #: of the number format
    matrices: Matrices
    numbers: Numbers  #: of keys and values
    options: dict[str, Any]  #: of ``compile_model``
    suppressed: tuple[int, ...]  #: ids that the checkpoint never writes
    suppressed_first: tuple[int, ...]  #: and those it does not begin with


class OpenVinoDecoder:
    """A compiled decoder; see ``writer.Writer``."""

    def __init__(
        self, plan: DecoderPlan, weights: ConvertedWeights, tokenizer: WhisperTokenizer, desks: int
    ) -> None:
        """Build and compile; so many ``desks``, each with memory of its own, serve calls that run
        at the same time.

        Raises:
            ModelBroken: the file lacks a weight.
            RuntimeError: OpenVINO cannot compile it here.
        """
        self.name = f"openvino {plan.name}"
        self.streams = plan.options["NUM_STREAMS"]
        shape, numbers = DecoderShape.of(weights), plan.numbers
        self._rules = Rules(tokenizer, plan.suppressed, plan.suppressed_first, shape.vocabulary)
        self._sot, self._no_speech = tokenizer.sot, tokenizer.no_speech
        cross = build_cross(weights, plan.matrices, numbers.kind)
        step = build_step(weights, plan.matrices, numbers.kind)
        core = ov.Core()
        compiled = core.compile_model(cross, "CPU", plan.options)
        stepper = core.compile_model(step, "CPU", plan.options | _UNFUSED)
        self._idle: SimpleQueue[_Desk] = SimpleQueue()
        for _ in range(desks):
            self._idle.put(_Desk(compiled, stepper, shape, numbers))

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
            no_speech = [_softmax(row)[self._no_speech] for row in logits[:, 0]]
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
            desk.keep([place for place in desk.windows if not finished[place]])
            logits = desk.step(search.last(desk.windows))
            desk.follow(search.take(logits, desk.windows))
        return True

    @contextmanager
    def _desk(self) -> Iterator[_Desk]:
        desk = self._idle.get()
        try:
            yield desk
        finally:
            self._idle.put(desk)


class _Desk:
    """Requests and memory of one call at a time."""

    def __init__(self, cross: Any, step: Any, shape: DecoderShape, numbers: Numbers) -> None:
        self._cross, self._step = cross.create_infer_request(), step.create_infer_request()
        self._shape, self._numbers = shape, numbers
        self._arena: dict[tuple[object, ...], Array] = {}
        self.windows: list[int] = []  #: those still worked on, by their place in the batch
        self._heard: list[Array] = []
        self._own: list[Array] = []
        self._position = self._room = 0
        self._width = 1

    def hear(self, encodings: Sequence[Encoding]) -> None:
        """Compute the windows' cross-attention keys and values."""
        count, positions = len(encodings), encodings[0].shape[1]
        heads, size = self._shape.heads, self._shape.size
        self.windows = list(range(count))
        self._heard = []
        for layer in range(self._shape.layers):
            self._heard.append(self._memory("keys", layer, (count, heads, size, positions)))
            self._heard.append(self._memory("values", layer, (count, heads, positions, size)))
        for window, encoding in enumerate(encodings):
            for place, array in enumerate(self._heard):
                self._cross.set_output_tensor(
                    place, self._numbers.tensor(array[window : window + 1])
                )
            self._cross.infer([np.ascontiguousarray(encoding, np.float32)], share_inputs=True)

    def read(self, prompts: Sequence[list[int]], chosen: Sequence[int]) -> Array:
        """Read the prompts, which are equally long; logits ``[windows, chosen, vocabulary]``."""
        length = len(prompts[0])
        self._position, self._width = 0, 1
        self._make_room(len(prompts), length)
        return self._run(np.array(prompts, np.int32), chosen)

    def spread(self, width: int) -> None:
        """From now on so many rows for each window, all with what was read."""
        if width > 1:
            self._own = [np.repeat(array, width, axis=0) for array in self._own]
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
        for keys, values in zip(self._own[::2], self._own[1::2], strict=True):
            keys[rows, :, :, :upto] = keys[sources, :, :, :upto]
            values[rows, :, :upto] = values[sources, :, :upto]

    def keep(self, windows: Sequence[int]) -> None:
        """Work on these alone from now on, where that halves the work; else all go on."""
        if 2 * len(windows) > len(self.windows):
            return
        places = [self.windows.index(window) for window in windows]
        rows = [place * self._width + i for place in places for i in range(self._width)]
        self._heard = [array[places] for array in self._heard]
        self._own = [array[rows] for array in self._own]
        self.windows = list(windows)
        self._bind()

    # --- memory -----------------------------------------------------------------------------

    def _memory(self, name: str, layer: int, shape: tuple[int, ...]) -> Array:
        """Memory from earlier calls where it is large enough: fresh pages cost more than use."""
        wanted = int(np.prod(shape))
        kept = self._arena.get((name, layer))
        if kept is None or kept.size < wanted:
            kept = self._arena[name, layer] = self._numbers.zeros(wanted)
        return kept[:wanted].reshape(shape)

    def _make_room(self, rows: int, length: int) -> None:
        heads, size = self._shape.heads, self._shape.size
        self._room = next(room for room in _ROOMS if room >= min(length + 1, CONTEXT))
        self._own = []
        for _ in range(self._shape.layers):
            self._own.append(self._numbers.zeros(rows, heads, size, self._room))
            self._own.append(self._numbers.zeros(rows, heads, self._room, size))
        self._bind()

    def _grow(self) -> None:
        more = next(room for room in _ROOMS if room > self._room) - self._room
        for place, array in enumerate(self._own):
            axis = 2 if place % 2 else 3
            wider = [(0, more if i == axis else 0) for i in range(4)]
            self._own[place] = np.pad(array, wider)
        self._room += more
        self._bind()

    def _bind(self) -> None:
        """Show the request where everything lies."""
        tensors = [self._numbers.tensor(array) for array in self._own]
        heard = [self._numbers.tensor(array) for array in self._heard]
        for layer in range(self._shape.layers):
            pairs = (*heard[2 * layer : 2 * layer + 2], *tensors[2 * layer : 2 * layer + 2])
            for place, tensor in enumerate(pairs):
                self._step.set_input_tensor(5 + 4 * layer + place, tensor)

    # --- one run ----------------------------------------------------------------------------

    def _run(self, ids: Array, chosen: Sequence[int]) -> Array:
        """Run the step and keep the new keys and values; logits ``[rows, chosen, vocabulary]``."""
        count = ids.shape[1]
        first, after = self._position, self._position + count
        seen = np.full((1, 1, 1, self._room), _HIDDEN, np.float32)
        seen[..., :first] = 0
        ahead = np.triu(np.full((count, count), _HIDDEN, np.float32), 1)[None, None]
        places = np.arange(first, after, dtype=np.int32)
        inputs = (ids, places, np.array(chosen, np.int32), seen, ahead)
        for place, array in enumerate(inputs):
            self._step.set_input_tensor(place, ov.Tensor(np.ascontiguousarray(array)))
        fresh = self._fresh(ids.shape[0], count)
        self._step.infer()
        for place, (array, new) in enumerate(zip(self._own, fresh, strict=True)):
            if place % 2:
                array[:, :, first:after] = new
            else:
                array[..., first:after] = new
        self._position = after
        return np.asarray(self._step.get_output_tensor(0).data)

    def _fresh(self, rows: int, count: int) -> list[Array]:
        """Where the new keys and values come out."""
        heads, size = self._shape.heads, self._shape.size
        arrays = []
        for place in range(2 * self._shape.layers):
            shape = (rows, heads, count, size) if place % 2 else (rows, heads, size, count)
            array = self._memory("new", place, shape)
            self._step.set_output_tensor(1 + place, self._numbers.tensor(array))
            arrays.append(array)
        return arrays


def _softmax(row: Array) -> Array:
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum())
