"""Whisper's decoder in OpenVINO's operators, made so that a step reads as little memory as it can.

A step is bound by the bytes it reads: the weights once for all windows, and each window's
cross-attention keys and values. CTranslate2 keeps the latter in float32; here they are in 16 bits
where the processor multiplies these, and attention with them. Keys lie transposed, as their product
with queries wants them. All else is in float32, the only activations that OpenVINO quantizes by
itself: int8 weights then multiply as they are. To unpack them to 16 bits in each step takes half
again the time of reading them.
All shapes of a step are the same from token to token, since new ones cost OpenVINO time: the
decoder's own keys and values come in memory with room for more, and what is not written yet is
masked out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset15 as op

from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.openvino_layers import Layers, Matrices, integers, join_heads


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a decoder."""

    layers: int
    heads: int
    size: int  #: of a head
    vocabulary: int

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.heads * self.size

    @classmethod
    def of(cls, weights: ConvertedWeights) -> DecoderShape:
        """Read from the file.

        Raises:
            ModelBroken: it lacks a weight.
        """
        vocabulary, width = weights.shape("decoder/embeddings/weight")
        heads, layers = weights.number("decoder/num_heads"), 0
        while f"decoder/layer_{layers}/ffn/linear_0/weight" in weights:
            layers += 1
        return cls(layers, heads, width // heads, vocabulary)


def build_cross(
    weights: ConvertedWeights, matrices: Matrices, kept: Any, positions: int = 0
) -> Any:
    """``[1, positions, width]`` to each layer's cross-attention keys ``[1, heads, size,
    positions]`` and values ``[1, heads, positions, size]`` in the number format ``kept``.

    Without ``positions`` there may be any number, for which OpenVINO takes half again the time.

    Raises:
        ModelBroken: the file lacks a weight.
    """
    shape = DecoderShape.of(weights)
    layers, width = Layers(weights, matrices, shape.heads), shape.width
    states = _parameter([1, positions or -1, width], ov.Type.f32)
    results = []
    for layer in range(shape.layers):
        name = f"decoder/layer_{layer}/attention/linear_1"
        # The product is made as it will be read, since turning it round takes as long.
        keys = op.matmul(layers.matrix(f"{name}/weight", slice(width)), states, False, True)
        bias = weights.float32(f"{name}/bias", slice(width))
        keys = op.add(keys, op.constant(bias[:, None]))
        keys = op.reshape(keys, integers(0, shape.heads, shape.size, -1), True)
        values = layers.split_heads(layers.linear(states, name, slice(width, 2 * width)))
        results += [_result(keys, kept), _result(values, kept)]
    return ov.Model(results, [states], "cross")


def build_step(weights: ConvertedWeights, matrices: Matrices, kept: Any) -> Any:
    """One step of the decoder for rows of tokens; several rows may belong to one window.

    Inputs, in this order:
        ids ``[rows, tokens]``; places ``[tokens]``, where they stand; chosen ``[n]``, the tokens
        whose logits are wanted; seen ``[1, 1, 1, room]``, added to the scores of what is kept;
        ahead ``[1, 1, tokens, tokens]``, added to the scores among the new tokens; then for each
        layer cross-attention keys and values of windows as ``build_cross`` gives them, and the
        rows' own keys ``[rows, heads, size, room]`` and values ``[rows, heads, room, size]``.
    Outputs:
        logits ``[rows, n, vocabulary]``, then each layer's new keys ``[rows, heads, size, tokens]``
        and values ``[rows, heads, tokens, size]``.

    Raises:
        ModelBroken: the file lacks a weight.
    """
    return _Step(weights, matrices, kept).model()


class _Step:
    def __init__(self, weights: ConvertedWeights, matrices: Matrices, kept: Any) -> None:
        self._weights, self._kept = weights, kept
        self._shape = DecoderShape.of(weights)
        self._layers = Layers(weights, matrices, self._shape.heads)
        self._ids = _parameter([-1, -1], ov.Type.i32)
        self._seen = _parameter([1, 1, 1, -1], ov.Type.f32)
        self._ahead = _parameter([1, 1, -1, -1], ov.Type.f32)
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def model(self) -> Any:
        places, chosen = _parameter([-1], ov.Type.i32), _parameter([-1], ov.Type.i32)
        rows = op.constant(self._weights.float32("decoder/embeddings/weight").astype(np.float16))
        x = op.gather(op.convert(rows, "f32"), self._ids, op.constant(0))
        table = op.constant(self._weights.float32("decoder/position_encodings/encodings"))
        x = op.add(x, op.gather(table, places, op.constant(0)))
        for layer in range(self._shape.layers):
            x = self._layer(x, f"decoder/layer_{layer}")
        x = self._layers.norm(op.gather(x, chosen, op.constant(1)), "decoder/layer_norm")
        logits = op.matmul(x, self._layers.matrix("decoder/embeddings/weight"), False, True)
        first = [self._ids, places, chosen, self._seen, self._ahead]
        results = [op.result(op.convert(logits, "f32")), *self._outputs]
        return ov.Model(results, [*first, *self._inputs], "step")

    def _layer(self, x: Any, name: str) -> Any:
        heads, size = self._shape.heads, self._shape.size
        cross = self._pair([-1, heads, size, -1], [-1, heads, -1, size])
        own = self._pair([-1, heads, size, -1], [-1, heads, -1, size])
        y = self._layers.norm(x, f"{name}/self_attention/layer_norm")
        y = self._self_attention(y, f"{name}/self_attention", *own)
        x = op.add(x, y)
        y = self._layers.norm(x, f"{name}/attention/layer_norm")
        x = op.add(x, self._cross_attention(y, f"{name}/attention", *cross))
        return self._layers.feed_forward(x, f"{name}/ffn")

    def _self_attention(self, x: Any, name: str, keys: Any, values: Any) -> Any:
        factor = np.repeat(np.array([self._scale, 1, 1], np.float32), self._shape.width)
        together = self._as_kept(self._layers.linear(x, f"{name}/linear_0", factor=factor))
        parts = op.split(together, op.constant(2), 3).outputs()
        query, key, value = (self._layers.split_heads(part) for part in parts)
        key = op.transpose(key, integers(0, 1, 3, 2))
        self._outputs += [op.result(key), op.result(value)]
        before = op.add(op.matmul(query, keys, False, False), self._as_kept(self._seen))
        now = op.add(op.matmul(query, key, False, False), self._as_kept(self._ahead))
        weights = op.softmax(op.concat([before, now], 3), 3)
        counts = op.concat([_size(self._seen, 3), _size(self._ahead, 3)], 0)
        before, now = op.variadic_split(weights, op.constant(3), counts).outputs()
        y = op.add(op.matmul(before, values, False, False), op.matmul(now, value, False, False))
        y = _as(join_heads(y, self._shape.width), ov.Type.f32)
        return self._layers.linear(y, f"{name}/linear_1")

    def _cross_attention(self, x: Any, name: str, keys: Any, values: Any) -> Any:
        """Rows of one window stand together: they are like more tokens of it."""
        heads, size, width = self._shape.heads, self._shape.size, self._shape.width
        windows = op.concat([_size(keys, 0), integers(-1, heads, size)], 0)
        query = self._as_kept(self._layers.linear(x, f"{name}/linear_0", factor=self._scale))
        query = op.transpose(op.reshape(query, windows, False), integers(0, 2, 1, 3))
        weights = op.softmax(op.matmul(query, keys, False, False), 3)
        y = op.transpose(op.matmul(weights, values, False, False), integers(0, 2, 1, 3))
        rows = op.concat([_size(self._ids, 0), integers(-1, width)], 0)
        y = _as(op.reshape(y, rows, False), ov.Type.f32)
        return self._layers.linear(y, f"{name}/linear_2")

    @property
    def _scale(self) -> float:
        return float(self._shape.size**-0.5)

    def _as_kept(self, x: Any) -> Any:
        return _as(x, self._kept)

    def _pair(self, keys: list[int], values: list[int]) -> tuple[Any, Any]:
        pair = _parameter(keys, self._kept), _parameter(values, self._kept)
        self._inputs += pair
        return pair


def _as(x: Any, kind: Any) -> Any:
    return x if x.get_element_type() == kind else op.convert(x, kind)


def _parameter(shape: list[int], kind: Any) -> Any:
    return op.parameter(ov.PartialShape(shape), kind)


def _result(x: Any, kept: Any) -> Any:
    return op.result(x if kept == ov.Type.f32 else op.convert(x, kept))


def _size(x: Any, axis: int) -> Any:
    """The length of one dimension, as a vector of one."""
    return op.gather(op.shape_of(x), integers(axis), op.constant(0))
