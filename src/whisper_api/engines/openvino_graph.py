"""Whisper's encoder in OpenVINO's operators, straight from the weights of a converted model.

Two convolutions, positions, pre-norm transformer layers (Radford et al. 2022, section 2.2).
"""

from __future__ import annotations

from typing import Any

import openvino as ov
from openvino import opset15 as op

from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.openvino_layers import Layers, Matrices, integers, join_heads


def build_encoder(weights: ConvertedWeights, matrices: Matrices, frames: int = 0) -> Any:
    """An ``openvino.Model``: ``[1, mels, frames]`` to ``[1, frames / 2, width]``.

    With ``frames`` it takes just so many, which is faster than any number of them (0).

    Raises:
        ModelBroken: the file lacks a weight.
    """
    return _Graph(weights, matrices, frames).model()


class _Graph:
    def __init__(self, weights: ConvertedWeights, matrices: Matrices, frames: int) -> None:
        self._weights, self._frames = weights, frames or -1
        self._width, self._mels, _ = weights.shape("encoder/conv1/weight")
        self._layers = Layers(weights, matrices, weights.number("encoder/num_heads"))

    def model(self) -> Any:
        mel = op.parameter(ov.PartialShape([1, self._mels, self._frames]), ov.Type.f32, name="mel")
        x = self._convolution(mel, "encoder/conv1", 1)
        x = self._convolution(x, "encoder/conv2", 2)
        x = self._positions(op.transpose(x, integers(0, 2, 1)))
        layer = 0
        while f"encoder/layer_{layer}/ffn/linear_0/weight" in self._weights:
            x = self._layer(x, f"encoder/layer_{layer}")
            layer += 1
        return ov.Model([self._layers.norm(x, "encoder/layer_norm")], [mel], "encoder")

    def _layer(self, x: Any, name: str) -> Any:
        y = self._attention(self._layers.norm(x, f"{name}/self_attention/layer_norm"), name)
        return self._layers.feed_forward(op.add(x, y), f"{name}/ffn")

    def _attention(self, x: Any, name: str) -> Any:
        """Written out: OpenVINO runs this faster than its own attention operator, whose queries it
        scales in a step of their own, and three matrices faster than one that is split."""
        query, key, value = (self._projected(x, name, part) for part in range(3))
        weights = op.softmax(op.matmul(query, key, False, True), 3)
        y = op.matmul(weights, value, False, False)
        return self._layers.linear(join_heads(y, self._width), f"{name}/self_attention/linear_1")

    def _projected(self, x: Any, name: str, part: int) -> Any:
        """Queries (0), divided by the root of their size, keys (1) or values (2)."""
        rows = slice(part * self._width, (part + 1) * self._width)
        factor = 1.0 if part else (self._width // self._layers.heads) ** -0.5
        y = self._layers.linear(x, f"{name}/self_attention/linear_0", rows, factor)
        return self._layers.split_heads(y)

    def _positions(self, x: Any) -> Any:
        table = op.constant(self._weights.float32("encoder/position_encodings/encodings"))
        length = op.slice(op.shape_of(x), *map(integers, (1, 2, 1, 0)))
        return op.add(x, op.slice(table, integers(0), length, integers(1), integers(0)))

    def _convolution(self, x: Any, name: str, stride: int) -> Any:
        weight = self._layers.constant(f"{name}/weight")
        y = op.convolution(x, weight, [stride], [1], [1], [1])
        bias = self._weights.float32(f"{name}/bias").reshape(1, -1, 1)
        return op.gelu(op.add(y, op.constant(bias)), "erf")
