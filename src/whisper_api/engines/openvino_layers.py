"""Transformer layers of Whisper in OpenVINO's operators, from the weights of a converted model.

Names of layers are those of the file (CTranslate2's ``WhisperSpec``); neither torch nor an exporter
is needed.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from openvino import opset15 as op

from whisper_api.converted_weights import ALL, ConvertedWeights

Matrices = Literal["int8", "float16", "float32"]
"""What the weights of the linear layers are kept as."""
Factor = float | NDArray[np.float32]
"""A number, or one for each row of a matrix."""

_EPSILON = 1e-5
_PART = 768
_WHOLE = 3072
"""Rows of an inner matrix that bfloat16 units take best at once, where it has no more than so many
(measured: 8 % less time for the encoder of ``small``, none for that of ``turbo``)."""


class Layers:
    """Makes nodes; every method that names a layer raises ModelBroken where the file lacks it."""

    def __init__(self, weights: ConvertedWeights, matrices: Matrices, heads: int) -> None:
        self.weights = weights
        self.heads = heads
        self._matrices = matrices

    def linear(self, x: Any, name: str, rows: slice = ALL, factor: Factor = 1.0) -> Any:
        """``x`` times the layer's matrix, and its bias; or those rows of it, times ``factor``."""
        y = op.matmul(x, self.matrix(f"{name}/weight", rows, factor=factor), False, True)
        bias = self.weights.float32(f"{name}/bias", rows) * np.asarray(factor, np.float32)
        return op.add(y, op.constant(bias))

    def norm(self, x: Any, name: str) -> Any:
        """Layer normalisation."""
        y = op.mvn(x, integers(-1), True, _EPSILON, "inside_sqrt")
        y = op.multiply(y, op.constant(self.weights.float32(f"{name}/gamma")))
        return op.add(y, op.constant(self.weights.float32(f"{name}/beta")))

    def feed_forward(self, x: Any, name: str) -> Any:
        """``x`` and what the two dense layers add."""
        y, first, second = (
            self.norm(x, f"{name}/layer_norm"),
            f"{name}/linear_0",
            f"{name}/linear_1",
        )
        for part in self._parts(first):
            inner = op.gelu(self.linear(y, first, part), "erf")
            weight = self.matrix(f"{second}/weight", columns=part)
            x = op.add(x, op.matmul(inner, weight, False, True))
        return op.add(x, op.constant(self.weights.float32(f"{second}/bias")))

    def _parts(self, name: str) -> list[slice]:
        """Rows of a large matrix that are multiplied together."""
        rows = self.weights.shape(f"{name}/weight")[0]
        step = _PART if self._matrices == "float16" and rows <= _WHOLE else rows
        return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]

    def split_heads(self, x: Any) -> Any:
        """``[rows, positions, width]`` to ``[rows, heads, positions, size]``."""
        split = op.reshape(x, integers(0, 0, self.heads, -1), True)
        return op.transpose(split, integers(0, 2, 1, 3))

    def matrix(
        self, name: str, rows: slice = ALL, columns: slice = ALL, factor: Factor = 1.0
    ) -> Any:
        """A matrix, or a part of it, times ``factor`` in the wanted format."""
        factors = np.asarray(factor, np.float32).reshape(-1, 1)
        if self._matrices != "int8":
            return self._floats(self.weights.float32(name, rows, columns) * factors)
        values, scales = self.weights.int8(name, rows, columns)
        scales = scales * factors
        return op.multiply(op.convert(op.constant(values), "f32"), op.constant(scales))

    def constant(self, name: str) -> Any:
        """A variable as floating-point numbers."""
        return self._floats(self.weights.float32(name))

    def _floats(self, values: NDArray[np.float32]) -> Any:
        if self._matrices == "float32":
            return op.constant(values)
        wide = op.convert(op.constant(values.astype(np.float16)), "f32")
        # What OpenVINO calls compressed weights: without the mark it makes and keeps a copy in
        # float32 beside the numbers that it multiplies (2.5 GB for turbo).
        wide.get_rt_info()["decompression_0"] = ""
        return wide


def join_heads(x: Any, width: int) -> Any:
    """``[rows, heads, positions, size]`` to ``[rows, positions, width]``."""
    return op.reshape(op.transpose(x, integers(0, 2, 1, 3)), integers(0, 0, width), True)


def integers(*values: int) -> Any:
    """A constant of 64-bit integers."""
    numbers: NDArray[np.int64] = np.array(values, np.int64)
    return op.constant(numbers)
