"""Transformer layers of Whisper in OpenVINO's operators, from the weights of a converted model.

Names of layers are those of the file (CTranslate2's ``WhisperSpec``); neither torch nor an exporter
is needed.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from openvino import opset15 as op

from whisper_api.converted_weights import ConvertedWeights

Matrices = Literal["int8", "float16", "float32"]
"""What the weights of the linear layers are kept as."""

_EPSILON = 1e-5


class Layers:
    """Makes nodes; every method that names a layer raises ModelBroken where the file lacks it."""

    def __init__(self, weights: ConvertedWeights, matrices: Matrices, heads: int) -> None:
        self.weights = weights
        self.heads = heads
        self._matrices = matrices

    def linear(self, x: Any, name: str) -> Any:
        """``x`` times the layer's matrix, and its bias."""
        y = op.matmul(x, self.matrix(f"{name}/weight"), False, True)
        return op.add(y, op.constant(self.weights.float32(f"{name}/bias")))

    def norm(self, x: Any, name: str) -> Any:
        """Layer normalisation."""
        y = op.mvn(x, integers(-1), True, _EPSILON, "inside_sqrt")
        y = op.multiply(y, op.constant(self.weights.float32(f"{name}/gamma")))
        return op.add(y, op.constant(self.weights.float32(f"{name}/beta")))

    def feed_forward(self, x: Any, name: str) -> Any:
        """``x`` and what the two dense layers add."""
        y = self.linear(self.norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
        return op.add(x, self.linear(op.gelu(y, "erf"), f"{name}/linear_1"))

    def split_heads(self, x: Any) -> Any:
        """``[rows, positions, width]`` to ``[rows, heads, positions, size]``."""
        split = op.reshape(x, integers(0, 0, self.heads, -1), True)
        return op.transpose(split, integers(0, 2, 1, 3))

    def matrix(self, name: str) -> Any:
        """A matrix in the wanted format."""
        if self._matrices != "int8":
            return self.constant(name)
        rows, factors = self.weights.int8(name)
        return op.multiply(op.convert(op.constant(rows), "f32"), op.constant(factors))

    def constant(self, name: str) -> Any:
        """A variable as floating-point numbers."""
        values = self.weights.float32(name)
        if self._matrices == "float32":
            return op.constant(values)
        return op.convert(op.constant(values.astype(np.float16)), "f32")


def join_heads(x: Any, width: int) -> Any:
    """``[rows, heads, positions, size]`` to ``[rows, positions, width]``."""
    return op.reshape(op.transpose(x, integers(0, 2, 1, 3)), integers(0, 0, width), True)


def integers(*values: int) -> Any:
    """A constant of 64-bit integers."""
    numbers: NDArray[np.int64] = np.array(values, np.int64)
    return op.constant(numbers)
