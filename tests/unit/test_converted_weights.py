"""Weights read out of CTranslate2's file: every number format, and files that are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.checkpoints import Shape, random_tensors, save_checkpoint

from whisper_api.convert import convert_folder
from whisper_api.converted_weights import ConvertedWeights
from whisper_api.errors import ModelBroken

LAYER = "encoder/layer_0/ffn/linear_0"
ORIGINAL = "model.encoder.layers.0.fc1.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "hf")


@pytest.mark.parametrize(
    ("kind", "exact"), [("float32", 0.0), ("float16", 5e-4), ("int8", 2e-3), ("int8_float16", 2e-3)]
)
def test_a_matrix_comes_back_as_it_went_in(
    tmp_path: Path, checkpoint: Path, kind: str, exact: float
) -> None:
    convert_folder(checkpoint, tmp_path / "ct2", kind)
    weights = ConvertedWeights(tmp_path / "ct2" / "model.bin")
    tensors = random_tensors(Shape())
    assert weights.shape(f"{LAYER}/weight") == (256, 64)
    found = weights.float32(f"{LAYER}/weight")
    np.testing.assert_allclose(found, tensors[ORIGINAL], atol=exact)
    convolution = weights.float32("encoder/conv1/weight")
    np.testing.assert_allclose(convolution, tensors["model.encoder.conv1.weight"], atol=exact)
    bias = weights.float32(f"{LAYER}/bias")
    np.testing.assert_allclose(bias, tensors["model.encoder.layers.0.fc1.bias"], atol=5e-4)
    assert weights.number("encoder/num_heads") == 2


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_a_part_is_that_of_the_whole(tmp_path: Path, checkpoint: Path, kind: str) -> None:
    convert_folder(checkpoint, tmp_path / "ct2", kind)
    weights, name = ConvertedWeights(tmp_path / "ct2" / "model.bin"), f"{LAYER}/weight"
    rows, columns = slice(100, 130), slice(5, 60)
    np.testing.assert_array_equal(
        weights.float32(name, rows, columns), weights.float32(name)[rows, columns]
    )
    if kind == "int8":  # others are quantized by what is read of them
        values, factors = weights.int8(name, rows, columns)
        whole, all_factors = weights.int8(name)
        np.testing.assert_array_equal(values, whole[rows, columns])
        np.testing.assert_array_equal(factors, all_factors[rows])


def test_integers_are_the_stored_ones_or_made_now(tmp_path: Path, checkpoint: Path) -> None:
    for kind in ("int8", "float32"):
        convert_folder(checkpoint, tmp_path / kind, kind)
    stored, made = (
        ConvertedWeights(tmp_path / kind / "model.bin").int8(f"{LAYER}/weight")
        for kind in ("int8", "float32")
    )
    for rows, factors in (stored, made):
        assert rows.dtype == np.int8
        assert factors.shape == (256, 1)
        assert np.abs(rows).max(axis=1).min() == 127
        original = random_tensors(Shape())[ORIGINAL]
        assert np.abs(rows * factors - original).max() <= factors.max() * 0.51
    assert np.abs(stored[0].astype(int) - made[0]).max() <= 1


def test_a_row_of_zeros_stays_zero(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(_file("w", 0, np.array([[0, 0], [2, -4]], np.float32)))
    rows, factors = ConvertedWeights(path).int8("w")
    assert rows.tolist() == [[0, 0], [64, -127]]
    assert factors[0] == 1


def test_bfloat16_and_int16_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(_file("w", 5, np.array([0x3F80, 0xC000], np.uint16)))
    assert ConvertedWeights(path).float32("w").tolist() == [1.0, -2.0]
    path.write_bytes(_file("w", 2, np.array([[1024, -512]], np.int16)))
    assert ConvertedWeights(path).float32("w").tolist() == [[1.0, -0.5]]


def test_what_is_broken_says_so(tmp_path: Path) -> None:
    whole = _file("w", 0, np.ones((2, 2), np.float32))
    cases = {
        "cut off": whole[:-9],
        "version 9": b"\x09" + whole[1:],
        "cannot be read": whole[:9],
        "format 7": _file("w", 7, np.ones((2, 2), np.float32)),
    }
    path = tmp_path / "model.bin"
    for said, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(ModelBroken, match=said):
            ConvertedWeights(path)
    path.write_bytes(whole)
    with pytest.raises(ModelBroken, match="lacks the variable encoder"):
        ConvertedWeights(path).float32("encoder")
    with pytest.raises(ModelBroken):
        ConvertedWeights(tmp_path / "nothing.bin")


def _file(name: str, kind: int, values: NDArray[Any]) -> bytes:
    """A file with one variable, as CTranslate2 writes it."""

    def text(value: str) -> bytes:
        return (len(value) + 1).to_bytes(2, "little") + value.encode() + b"\0"

    def number(value: int) -> bytes:
        return value.to_bytes(4, "little")

    shape = bytes([values.ndim]) + b"".join(map(number, values.shape))
    data = values.tobytes()
    head = number(6) + text("WhisperSpec") + number(3) + number(1)
    return head + text(name) + shape + bytes([kind]) + number(len(data)) + data + number(0)
