"""Random Whisper checkpoints, saved as transformers saves them; for tests."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from whisper_api.convert import convert_folder
from whisper_api.languages import LANGUAGES

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """Widths of a checkpoint; the defaults are as small as Whisper's vocabulary allows."""

    width: int = 64
    heads: int = 2
    layers: int = 1
    mels: int = 80
    vocabulary: int = 51_865
    decoder_layers: int = 0  #: as many as the encoder's, where 0

    @property
    def decoder(self) -> int:
        return self.decoder_layers or self.layers

    @property
    def feed_forward(self) -> int:
        return 4 * self.width


LARGE_V3 = Shape(width=1280, heads=20, layers=1, mels=128, vocabulary=51_866)
"""Large-v3's widths with one layer instead of 32."""

ENGLISH = Shape(vocabulary=51_864)
"""A model without languages and tasks."""


def save_checkpoint(
    folder: Path,
    shape: Shape | None = None,
    *,
    kind: str = "F32",
    shards: int = 1,
    seed: int = 0,
    slow_tokenizer: bool = False,
    tied_copy: bool = False,
) -> Path:
    """A folder like ``save_pretrained`` leaves: config, weights, tokenizer, generation config."""
    shape = shape or Shape()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(shape, seed)
    if tied_copy:
        tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"]
    _write_shards(folder, tensors, kind, shards)
    _write(folder / "config.json", _config(shape))
    tokenizer = whisper_tokenizer(shape.vocabulary)
    if slow_tokenizer:
        _write_slow(folder, tokenizer)
    else:
        tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "generation_config.json", _generation(shape, tokenizer))
    return folder


@cache
def large_v3_model() -> Path:
    """A model of large-v3's widths, from two float16 shards to int8; made once, read only."""
    root = Path(tempfile.mkdtemp(prefix="large-v3-widths-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    save_checkpoint(root / "hf", LARGE_V3, kind="F16", shards=2)
    convert_folder(root / "hf", root / "ct2", "int8")
    return root / "ct2"


def random_tensors(shape: Shape, seed: int = 0) -> dict[str, Array]:
    """Every tensor of a Whisper checkpoint under transformers' names."""
    rng = np.random.default_rng(seed)
    width = shape.width

    def make(*size: int, scale: float = 0.08) -> Array:
        return rng.standard_normal(size, np.float32) * np.float32(scale)

    tensors = {
        "model.encoder.conv1.weight": make(width, shape.mels, 3),
        "model.encoder.conv1.bias": make(width),
        "model.encoder.conv2.weight": make(width, width, 3),
        "model.encoder.conv2.bias": make(width),
        "model.encoder.embed_positions.weight": make(1500, width),
        "model.decoder.embed_positions.weight": make(448, width),
        "model.decoder.embed_tokens.weight": make(shape.vocabulary, width),
    }

    def attention(name: str) -> None:
        for part in "qkv":
            tensors[f"{name}.{part}_proj.weight"] = make(width, width)
            if part != "k":
                tensors[f"{name}.{part}_proj.bias"] = make(width)
        tensors[f"{name}.out_proj.weight"] = make(width, width)
        tensors[f"{name}.out_proj.bias"] = make(width)
        norm(f"{name}_layer_norm")

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = 1 + make(width)
        tensors[f"{name}.bias"] = make(width)

    for side in ("encoder", "decoder"):
        norm(f"model.{side}.layer_norm")
        for layer in range(shape.layers if side == "encoder" else shape.decoder):
            name = f"model.{side}.layers.{layer}"
            attention(f"{name}.self_attn")
            if side == "decoder":
                attention(f"{name}.encoder_attn")
            norm(f"{name}.final_layer_norm")
            tensors[f"{name}.fc1.weight"] = make(shape.feed_forward, width)
            tensors[f"{name}.fc1.bias"] = make(shape.feed_forward)
            tensors[f"{name}.fc2.weight"] = make(width, shape.feed_forward)
            tensors[f"{name}.fc2.bias"] = make(width)
    return tensors


def whisper_tokenizer(vocabulary: int) -> Tokenizer:
    """The bundled tokenizer with the special tokens of a vocabulary of that size."""
    path = Path(str(files("whisper_api"))) / "assets" / "bundled" / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["added_tokens"] = []
    english = vocabulary == 51_864
    if english:
        words = sorted(data["model"]["vocab"].items(), key=lambda pair: int(pair[1]))
        data["model"]["vocab"] = dict(words[:50_256])
        kept = data["model"]["vocab"]
        merges = [
            pair if isinstance(pair, list) else pair.split() for pair in data["model"]["merges"]
        ]
        data["model"]["merges"] = [pair for pair in merges if "".join(pair) in kept]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    languages = [code for code in LANGUAGES if code != "yue" or vocabulary == 51_866]
    names = ["endoftext", "startoftranscript", *languages, "translate", "transcribe"]
    names += ["startoflm", "startofprev", "nospeech", "notimestamps"]
    names += [f"{i * 0.02:.2f}" for i in range(1501)]
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    return tokenizer


def write_tensors(path: Path, tensors: dict[str, Array], kind: str = "F32") -> None:
    """A safetensors file; written by hand because numpy has no bfloat16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, offset = [], 0
    for name, values in tensors.items():
        blob = _stored(values, kind)
        header[name] = {
            "dtype": kind,
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(blobs)


def _stored(values: Array, kind: str) -> bytes:
    if kind == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype("<f4" if kind == "F32" else "<f2").tobytes()


def _write_shards(folder: Path, tensors: dict[str, Array], kind: str, shards: int) -> None:
    if shards == 1:
        write_tensors(folder / "model.safetensors", tensors, kind)
        return
    names, places = list(tensors), {}
    for number in range(shards):
        part = names[number::shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        write_tensors(folder / file, {name: tensors[name] for name in part}, kind)
        places.update(dict.fromkeys(part, file))
    _write(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def _write_slow(folder: Path, tokenizer: Tokenizer) -> None:
    data = json.loads(tokenizer.to_str())
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in data["model"]["merges"]]
    vocabulary = {**data["model"]["vocab"], "<|endoftext|>": 50_257}
    added = {token["content"]: token["id"] for token in data["added_tokens"]}
    del added["<|endoftext|>"]
    # As in checkpoints of 2022: no timestamp tokens in the tokenizer's files.
    added = {word: number for word, number in added.items() if number <= 50_363}
    _write(folder / "vocab.json", vocabulary)
    _write(folder / "added_tokens.json", added)
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    (folder / "merges.txt").write_text(text, encoding="utf-8")


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "d_model": shape.width,
        "encoder_layers": shape.layers,
        "decoder_layers": shape.decoder,
        "encoder_attention_heads": shape.heads,
        "decoder_attention_heads": shape.heads,
        "encoder_ffn_dim": shape.feed_forward,
        "decoder_ffn_dim": shape.feed_forward,
        "num_mel_bins": shape.mels,
        "vocab_size": shape.vocabulary,
        "max_source_positions": 1500,
        "max_target_positions": 448,
        "num_hidden_layers": shape.layers,
        "tie_word_embeddings": True,
        "bos_token_id": 50_257,
        "eos_token_id": 50_257,
        "pad_token_id": 50_257,
        "decoder_start_token_id": 50_258,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }


def _generation(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    values: dict[str, Any] = {
        "alignment_heads": [[0, 0], [0, shape.heads - 1]],
        "begin_suppress_tokens": [220, tokenizer.token_to_id("<|endoftext|>")],
        "suppress_tokens": [1, 2, 7, 8, 9],
        "no_timestamps_token_id": tokenizer.token_to_id("<|notimestamps|>"),
        "is_multilingual": shape.vocabulary > 51_864,
    }
    if shape.vocabulary > 51_864:
        ids = {code: tokenizer.token_to_id(f"<|{code}|>") for code in LANGUAGES}
        values["lang_to_id"] = {f"<|{c}|>": i for c, i in ids.items() if i is not None}
        tasks = ("transcribe", "translate")
        values["task_to_id"] = {task: tokenizer.token_to_id(f"<|{task}|>") for task in tasks}
    return values


def _write(path: Path, values: object) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")
