"""Whisper's encoder in OpenVINO's operators, straight from the weights of a converted model.

Two convolutions, positions, pre-norm transformer layers (Radford et al. 2022, section 2.2). Any
number of windows and of frames up to 3000. Neither torch nor an exporter is needed, and the
layers' names are those of the file (CTranslate2's ``WhisperSpec``).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as op

from whisper_api.converted_weights import ConvertedWeights

Matrices = Literal["int8", "float16", "float32"]
"""What the weights of the linear layers are kept as."""

_EPSILON = 1e-5


def build_encoder(weights: ConvertedWeights, matrices: Matrices) -> Any:
    """An ``openvino.Model``: ``[windows, mels, frames]`` to ``[windows, frames / 2, width]``.

    Raises:
        ModelBroken: the file lacks a weight.
    """
    return _Graph(weights, matrices).model()


class _Graph:
    def __init__(self, weights: ConvertedWeights, matrices: Matrices) -> None:
        self._weights = weights
        self._matrices = matrices
        self._width, self._mels, _ = weights.shape("encoder/conv1/weight")
        self._heads = weights.number("encoder/num_heads")

    def model(self) -> Any:
        mel = op.parameter(ov.PartialShape([-1, self._mels, -1]), ov.Type.f32, name="mel")
        x = self._convolution(mel, "encoder/conv1", 1)
        x = self._convolution(x, "encoder/conv2", 2)
        x = self._positions(op.transpose(x, _integers(0, 2, 1)))
        layer = 0
        while f"encoder/layer_{layer}/ffn/linear_0/weight" in self._weights:
            x = self._layer(x, f"encoder/layer_{layer}")
            layer += 1
        return ov.Model([self._norm(x, "encoder/layer_norm")], [mel], "encoder")

    def _layer(self, x: Any, name: str) -> Any:
        y = self._attention(self._norm(x, f"{name}/self_attention/layer_norm"), name)
        x = op.add(x, y)
        y = self._linear(self._norm(x, f"{name}/ffn/layer_norm"), f"{name}/ffn/linear_0")
        return op.add(x, self._linear(op.gelu(y, "erf"), f"{name}/ffn/linear_1"))

    def _attention(self, x: Any, name: str) -> Any:
        def heads(part: Any) -> Any:
            size = self._width // self._heads
            split = op.reshape(part, _integers(0, 0, self._heads, size), True)
            return op.transpose(split, _integers(0, 2, 1, 3))

        together = self._linear(x, f"{name}/self_attention/linear_0")
        parts = op.split(together, op.constant(2), 3).outputs()
        y = op.scaled_dot_product_attention(*map(heads, parts), causal=False)
        y = op.reshape(op.transpose(y, _integers(0, 2, 1, 3)), _integers(0, 0, self._width), True)
        return self._linear(y, f"{name}/self_attention/linear_1")

    def _positions(self, x: Any) -> Any:
        table = op.constant(self._weights.float32("encoder/position_encodings/encodings"))
        length = op.slice(op.shape_of(x), *map(_integers, (1, 2, 1, 0)))
        return op.add(x, op.slice(table, _integers(0), length, _integers(1), _integers(0)))

    def _convolution(self, x: Any, name: str, stride: int) -> Any:
        y = op.convolution(x, self._constant(f"{name}/weight"), [stride], [1], [1], [1])
        bias = self._weights.float32(f"{name}/bias").reshape(1, -1, 1)
        return op.gelu(op.add(y, op.constant(bias)), "erf")

    def _linear(self, x: Any, name: str) -> Any:
        y = op.matmul(x, self._matrix(f"{name}/weight"), False, True)
        return op.add(y, op.constant(self._weights.float32(f"{name}/bias")))

    def _norm(self, x: Any, name: str) -> Any:
        y = op.mvn(x, _integers(-1), True, _EPSILON, "inside_sqrt")
        y = op.multiply(y, op.constant(self._weights.float32(f"{name}/gamma")))
        return op.add(y, op.constant(self._weights.float32(f"{name}/beta")))

    def _matrix(self, name: str) -> Any:
        if self._matrices != "int8":
            return self._constant(name)
        rows, factors = self._weights.int8(name)
        return op.multiply(op.convert(op.constant(rows), "f32"), op.constant(factors))

    def _constant(self, name: str) -> Any:
        values = self._weights.float32(name)
        if self._matrices == "float32":
            return op.constant(values)
        return op.convert(op.constant(values.astype(np.float16)), "f32")


def _integers(*values: int) -> Any:
    numbers: NDArray[np.int64] = np.array(values, np.int64)
    return op.constant(numbers)
