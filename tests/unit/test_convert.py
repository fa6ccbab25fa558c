"""Hugging Face checkpoints to CTranslate2: every kind of weights, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
from tests.checkpoints import (
    ENGLISH,
    Array,
    Shape,
    large_v3_model,
    random_tensors,
    save_checkpoint,
    whisper_tokenizer,
    write_tensors,
)

from whisper_api.checkpoint import Tensors, read_sizes, read_tokenizer
from whisper_api.convert import convert_folder, vocabulary
from whisper_api.errors import ModelBroken

PROMPT = [50_258, 50_259, 50_359]


def encode(folder: Path, mels: int = 80, seed: int = 1) -> Array:
    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32")
    rng = np.random.default_rng(seed)
    sound = rng.normal(0, 0.5, (1, mels, 3000)).astype(np.float32)
    return np.array(model.encode(ctranslate2.StorageView.from_array(sound)))


def generate(folder: Path, mels: int = 80) -> list[int]:
    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32")
    sound = np.random.default_rng(1).normal(0, 0.5, (1, mels, 3000)).astype(np.float32)
    view = ctranslate2.StorageView.from_array(sound)
    result = model.generate(view, [PROMPT], beam_size=2, max_length=24)
    return list(result[0].sequences_ids[0])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array]:
    """A float32 checkpoint in one file, converted to float32, and what its encoder says."""
    root = tmp_path_factory.mktemp("reference")
    convert_folder(save_checkpoint(root / "hf"), root / "ct2", "float32")
    return root / "ct2", encode(root / "ct2")


@pytest.mark.parametrize(
    ("kind", "shards", "tolerance"),
    [("F32", 3, 0.0), ("F16", 1, 0.02), ("F16", 2, 0.02), ("BF16", 1, 0.2), ("BF16", 4, 0.2)],
)
def test_every_number_format_and_shards_give_the_same_model(
    tmp_path: Path, reference: tuple[Path, Array], kind: str, shards: int, tolerance: float
) -> None:
    source = save_checkpoint(tmp_path / "hf", kind=kind, shards=shards)
    convert_folder(source, tmp_path / "ct2", "float32")
    difference = np.abs(encode(tmp_path / "ct2") - reference[1]).max()
    assert difference <= tolerance


def test_it_computes_what_whisper_computes(reference: tuple[Path, Array]) -> None:
    """The encoder, in plain numpy, against the converted one."""
    tensors = random_tensors(Shape())
    sound = np.random.default_rng(1).normal(0, 0.5, (1, 80, 3000)).astype(np.float32)
    np.testing.assert_allclose(reference[1][0], _encoder(tensors, sound[0]), atol=2e-3)


def test_the_folder_is_complete(reference: tuple[Path, Array]) -> None:
    folder, _ = reference
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.bin",
        "config.json",
        "vocabulary.json",
        "tokenizer.json",
        "preprocessor_config.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["alignment_heads"] == [[0, 0], [0, 1]]
    assert config["suppress_ids"] == [1, 2, 7, 8, 9]
    assert config["suppress_ids_begin"] == [220, 50_257]
    assert config["lang_ids"] == list(range(50_259, 50_358))
    words = json.loads((folder / "vocabulary.json").read_text())
    assert len(words) == 51_865
    assert (words[50_257], words[50_364], words[-1]) == ("<|endoftext|>", "<|0.00|>", "<|30.00|>")


def test_int8_is_small_and_close(tmp_path: Path, reference: tuple[Path, Array]) -> None:
    source = save_checkpoint(tmp_path / "hf")
    convert_folder(source, tmp_path / "ct2", "int8")
    small = (tmp_path / "ct2" / "model.bin").stat().st_size
    assert small < (reference[0] / "model.bin").stat().st_size * 0.35
    expected = reference[1]
    assert np.abs(encode(tmp_path / "ct2") - expected).mean() < 0.1 * np.abs(expected).mean()


def test_float16_is_half_the_size(tmp_path: Path, reference: tuple[Path, Array]) -> None:
    convert_folder(save_checkpoint(tmp_path / "hf"), tmp_path / "ct2", "float16")
    half = (tmp_path / "ct2" / "model.bin").stat().st_size
    assert half == pytest.approx((reference[0] / "model.bin").stat().st_size / 2, rel=0.01)
    assert np.abs(encode(tmp_path / "ct2") - reference[1]).max() < 0.02


def test_large_v3s_widths() -> None:
    folder = large_v3_model()
    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="int8")
    assert model.n_mels == 128
    assert model.is_multilingual
    config = json.loads((folder / "config.json").read_text())
    assert config["lang_ids"][-1] == 50_358
    words = json.loads((folder / "vocabulary.json").read_text())
    assert (len(words), words[50_358]) == (51_866, "<|yue|>")
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    assert preprocessor["feature_size"] == 128


def test_an_english_model(tmp_path: Path) -> None:
    convert_folder(save_checkpoint(tmp_path / "hf", ENGLISH), tmp_path / "ct2", "float32")
    model = ctranslate2.models.Whisper(str(tmp_path / "ct2"), device="cpu")
    assert not model.is_multilingual


def test_the_old_tokenizer_files(tmp_path: Path, reference: tuple[Path, Array]) -> None:
    source = save_checkpoint(tmp_path / "hf", slow_tokenizer=True)
    convert_folder(source, tmp_path / "ct2", "float32")
    made, expected = (
        json.loads((folder / "vocabulary.json").read_text())
        for folder in (tmp_path / "ct2", reference[0])
    )
    assert made == expected
    text = " Hello, мир! 42 😀"
    tokenizer = read_tokenizer(source)
    assert tokenizer.encode(text, add_special_tokens=False).ids == (
        whisper_tokenizer(51_865).encode(text, add_special_tokens=False).ids
    )


def test_a_stored_copy_of_the_embedding_is_not_written_twice(
    tmp_path: Path, reference: tuple[Path, Array]
) -> None:
    convert_folder(save_checkpoint(tmp_path / "hf", tied_copy=True), tmp_path / "ct2", "float32")
    size = (tmp_path / "ct2" / "model.bin").stat().st_size
    assert size == (reference[0] / "model.bin").stat().st_size
    assert generate(tmp_path / "ct2") == generate(reference[0])


def test_heads_are_guessed_where_the_folder_names_none(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "hf", Shape(layers=2))
    (source / "generation_config.json").unlink()
    convert_folder(source, tmp_path / "ct2", "float32")
    config = json.loads((tmp_path / "ct2" / "config.json").read_text())
    assert config["alignment_heads"] == [[1, 0], [1, 1]]
    assert config["lang_ids"] == list(range(50_259, 50_358))
    assert config["suppress_ids"] == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    source = save_checkpoint(tmp_path / "hf")
    (source / "model.safetensors").rename(source / name)
    with pytest.raises(ModelBroken, match=rf"pickled \({name}\).*run code"):
        convert_folder(source, tmp_path / "ct2")
    assert not (tmp_path / "ct2").exists()


def _cut(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _no_weights(source: Path) -> None:
    (source / "model.safetensors").unlink()


def _lies(source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "num_mel_bins": 128}))


def _other_type(source: Path) -> None:
    (source / "config.json").write_text('{"model_type": "bert"}')


def _no_size(source: Path) -> None:
    (source / "config.json").write_text('{"model_type": "whisper"}')


def _no_tokenizer(source: Path) -> None:
    (source / "tokenizer.json").unlink()


def _integers(source: Path) -> None:
    write_tensors(source / "model.safetensors", {"x": np.zeros(4, np.float32)}, "F32")
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(data.replace(b'"F32"', b'"I32"'))


def _lacking(source: Path) -> None:
    write_tensors(source / "model.safetensors", {"x": np.zeros(4, np.float32)})


def _garbage(source: Path) -> None:
    (source / "model.safetensors").write_bytes(b"\xff" * 200)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "cut off"),
        (_no_weights, r"no model\.safetensors"),
        (_lies, "80 mel bins"),
        (_other_type, "'bert', not 'whisper'"),
        (_no_size, "lacks a size"),
        (_no_tokenizer, "no tokenizer"),
        (_integers, "I32"),
        (_lacking, r"lack the tensor encoder\.conv1\.weight"),
        (_garbage, "no safetensors header"),
    ],
)
def test_broken_folders_are_told_and_leave_nothing(
    tmp_path: Path, damage: Any, message: str
) -> None:
    source = save_checkpoint(tmp_path / "hf")
    damage(source)
    with pytest.raises(ModelBroken, match=message):
        convert_folder(source, tmp_path / "out" / "ct2")
    assert not any((tmp_path / "out").glob("*")) or not (tmp_path / "out").exists()


def test_a_missing_shard_is_told(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "hf", shards=2)
    (source / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelBroken, match="model-00002-of-00002"):
        convert_folder(source, tmp_path / "ct2")


def test_an_index_cannot_point_outside_the_folder(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "hf", shards=2)
    index = json.loads((source / "model.safetensors.index.json").read_text())
    outside = tmp_path / "secret.safetensors"
    write_tensors(outside, {"x": np.zeros(2, np.float32)})
    index["weight_map"] = {"x": "../secret.safetensors"}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelBroken, match=r"secret\.safetensors"):
        Tensors(source)


def test_a_tokenizer_that_does_not_fit_is_told() -> None:
    with pytest.raises(ModelBroken, match="51865 ids do not fit"):
        vocabulary(whisper_tokenizer(51_865), 51_864)


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8"):
        convert_folder(tmp_path, tmp_path / "x", "int4")


def test_sizes_come_from_the_configuration(tmp_path: Path) -> None:
    sizes = read_sizes(save_checkpoint(tmp_path / "hf", Shape(layers=2, heads=4)))
    assert (sizes.encoder_layers, sizes.decoder_heads, sizes.mels) == (2, 4, 80)


def _encoder(tensors: dict[str, Array], sound: Array) -> Array:
    """Whisper's encoder, one layer, straight from the paper."""

    def get(name: str) -> Array:
        return tensors[f"model.encoder.{name}"]

    def gelu(x: Array) -> Array:
        from math import erf

        found: Array = (x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))).astype(np.float32)
        return found

    def convolve(x: Array, name: str, stride: int) -> Array:
        padded = np.pad(x, ((0, 0), (1, 1)))
        weight = get(f"{name}.weight")
        count = (x.shape[1] - 1) // stride + 1
        columns = np.stack([padded[:, i : i + stride * count : stride] for i in range(3)], 1)
        return gelu(np.einsum("oik,ikt->ot", weight, columns) + get(f"{name}.bias")[:, None])

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        found: Array = scaled * get(f"{name}.weight") + get(f"{name}.bias")
        return found

    def linear(x: Array, name: str) -> Array:
        weight = get(f"{name}.weight")
        bias = tensors.get(f"model.encoder.{name}.bias", np.zeros(len(weight), np.float32))
        found: Array = x @ weight.T + bias
        return found

    x = convolve(convolve(sound, "conv1", 1), "conv2", 2).T + get("embed_positions.weight")
    y, heads = norm(x, "layers.0.self_attn_layer_norm"), []
    query, key, value = (linear(y, f"layers.0.self_attn.{part}_proj") for part in "qkv")
    for head in range(2):
        part = slice(32 * head, 32 * head + 32)
        scores = query[:, part] @ key[:, part].T / np.sqrt(32)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ value[:, part])
    x = x + linear(np.concatenate(heads, -1), "layers.0.self_attn.out_proj")
    y = linear(norm(x, "layers.0.final_layer_norm"), "layers.0.fc1")
    return norm(x + linear(gelu(y), "layers.0.fc2"), "layer_norm")
