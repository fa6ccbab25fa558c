"""Our conversion against CTranslate2's own, which needs torch and an environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
from tests.checkpoints import LARGE_V3, Shape, save_checkpoint
from tests.other_env import ensure_env
from tests.unit.test_convert import generate

from whisper_api.convert import convert_folder

_OFFICIAL = """
import sys
from ctranslate2.converters import TransformersConverter
TransformersConverter(sys.argv[1]).convert(sys.argv[2], quantization=sys.argv[3] or None)
"""

_REQUIREMENTS = (
    "torch==2.13.0",
    "transformers==5.23.0",
    f"ctranslate2=={ctranslate2.__version__}",
    f"numpy=={np.__version__}",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "kind", "shards", "quantization"),
    [
        (Shape(layers=2), "F32", 1, "float32"),
        (Shape(layers=2), "F32", 2, "int8"),
        (Shape(), "F16", 1, "float16"),
        (Shape(), "BF16", 1, "int8"),
        (LARGE_V3, "F16", 2, "int8"),
    ],
    ids=["float32", "int8-shards", "float16", "bf16-int8", "large-v3-widths"],
)
def test_equal_to_the_official_converter(
    tmp_path: Path, shape: Shape, kind: str, shards: int, quantization: str
) -> None:
    python = ensure_env("transformers", _REQUIREMENTS)
    source = save_checkpoint(tmp_path / "hf", shape, kind=kind, shards=shards)
    command = [str(python), "-c", _OFFICIAL, str(source), str(tmp_path / "official"), quantization]
    subprocess.run(command, check=True, timeout=900, capture_output=True)
    convert_folder(source, tmp_path / "ours", quantization)
    official, ours = (_variables(tmp_path / name / "model.bin") for name in ("official", "ours"))
    assert set(ours) == set(official)
    for name, (kind_, sizes, data) in official.items():
        own_kind, own_sizes, own = ours[name]
        assert (own_kind, own_sizes) == (kind_, sizes) or kind_ != own_kind, name
        _assert_close(name, kind_, data, own_kind, own)
    for name in ("official", "ours"):
        _write_tokenizer(source, tmp_path / name)
    assert _read_config(tmp_path / "ours") == _read_config(tmp_path / "official")
    assert generate(tmp_path / "ours", shape.mels) == generate(tmp_path / "official", shape.mels)


_KINDS = ("<f4", "i1", "<i2", "<i4", "<f2", "<u2")


def _assert_close(name: str, kind: int, data: bytes, own_kind: int, own: bytes) -> None:
    expected, found = (
        np.frombuffer(*pair) for pair in ((data, _KINDS[kind]), (own, _KINDS[own_kind]))
    )
    if kind == 5:  # bfloat16 is kept by the official one where nothing is quantised
        expected = (expected.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(
        found.astype(np.float32), expected.astype(np.float32), rtol=2e-3, atol=1e-6, err_msg=name
    )


def _write_tokenizer(source: Path, target: Path) -> None:
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())


def _read_config(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    words = json.loads((folder / "vocabulary.json").read_text())
    return {**config, "words": words}


def _variables(path: Path) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """Name -> (type, shape, bytes) of a model.bin, aliases resolved."""
    data, place = path.read_bytes(), 0

    def number(size: int) -> int:
        nonlocal place
        place += size
        return int.from_bytes(data[place - size : place], "little")

    def text() -> str:
        nonlocal place
        length = number(2)
        place += length
        return data[place - length : place - 1].decode()

    number(4), text(), number(4)
    found = {}
    for _ in range(number(4)):
        name = text()
        shape = tuple(number(4) for _ in range(number(1)))
        kind, size = number(1), number(4)
        place += size
        found[name] = (kind, shape, data[place - size : place])
    for _ in range(number(4)):
        alias = text()
        found[alias] = found[text()]
    return found
