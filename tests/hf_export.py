"""The bundled model as transformers saves one: its weights taken out of CTranslate2's int8 file."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
from tests.checkpoints import Array, write_tensors

from whisper_api.converted_weights import ConvertedWeights

BUNDLED = Path(str(files("whisper_api"))) / "assets" / "bundled"


def export_bundled(folder: Path) -> Path:
    """A Hugging Face folder with the bundled model's weights, dequantized to float32."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = ConvertedWeights(BUNDLED / "model.bin")
    tensors = _tensors(weights)
    write_tensors(folder / "model.safetensors", tensors)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copyfile(BUNDLED / name, folder / name)
    said = json.loads((BUNDLED / "config.json").read_text(encoding="utf-8"))
    embedding = tensors["model.decoder.embed_tokens.weight"]
    heads = weights.number("encoder/num_heads")
    config = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "vocab_size": embedding.shape[0],
        "d_model": embedding.shape[1],
        "encoder_layers": _layers(weights, "encoder"),
        "decoder_layers": _layers(weights, "decoder"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": weights.number("decoder/num_heads"),
        "encoder_ffn_dim": tensors["model.encoder.layers.0.fc1.weight"].shape[0],
        "decoder_ffn_dim": tensors["model.decoder.layers.0.fc1.weight"].shape[0],
        "num_mel_bins": tensors["model.encoder.conv1.weight"].shape[1],
        "max_source_positions": 1500,
        "max_target_positions": 448,
        "tie_word_embeddings": True,
        "bos_token_id": 50_257,
        "eos_token_id": 50_257,
        "pad_token_id": 50_257,
        "decoder_start_token_id": 50_258,
    }
    generation = {
        "alignment_heads": said["alignment_heads"],
        "suppress_tokens": said["suppress_ids"],
        "begin_suppress_tokens": said["suppress_ids_begin"],
        "is_multilingual": True,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return folder


def _layers(weights: ConvertedWeights, side: str) -> int:
    return next(n for n in range(100) if f"{side}/layer_{n}/ffn/linear_0/weight" not in weights)


def _tensors(weights: ConvertedWeights) -> dict[str, Array]:
    found = {
        f"model.encoder.{name}.{part}": weights.float32(f"encoder/{name}/{part}")
        for name in ("conv1", "conv2")
        for part in ("weight", "bias")
    }
    found["model.decoder.embed_tokens.weight"] = weights.float32("decoder/embeddings/weight")
    for side in ("encoder", "decoder"):
        places = weights.float32(f"{side}/position_encodings/encodings")
        found[f"model.{side}.embed_positions.weight"] = places
        found |= _norm(weights, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for number in range(_layers(weights, side)):
            found |= _layer(weights, f"{side}/layer_{number}", f"model.{side}.layers.{number}")
    return {name: np.ascontiguousarray(values, np.float32) for name, values in found.items()}


def _layer(weights: ConvertedWeights, old: str, new: str) -> dict[str, Array]:
    found = _norm(weights, f"{old}/self_attention/layer_norm", f"{new}.self_attn_layer_norm")
    found |= _norm(weights, f"{old}/ffn/layer_norm", f"{new}.final_layer_norm")
    found |= _linear(weights, f"{old}/self_attention/linear_0", f"{new}.self_attn", "qkv")
    found |= _linear(weights, f"{old}/self_attention/linear_1", f"{new}.self_attn", "out")
    if f"{old}/attention/linear_0/weight" in weights:
        found |= _norm(weights, f"{old}/attention/layer_norm", f"{new}.encoder_attn_layer_norm")
        for number, letters in enumerate(("q", "kv", "out")):
            cross = f"{new}.encoder_attn"
            found |= _linear(weights, f"{old}/attention/linear_{number}", cross, letters)
    for number in (0, 1):
        plain = _plain(weights, f"{old}/ffn/linear_{number}")
        found |= {f"{new}.fc{number + 1}.{part}": values for part, values in plain.items()}
    return found


def _norm(weights: ConvertedWeights, old: str, new: str) -> dict[str, Array]:
    return {
        f"{new}.weight": weights.float32(f"{old}/gamma"),
        f"{new}.bias": weights.float32(f"{old}/beta"),
    }


def _plain(weights: ConvertedWeights, old: str) -> dict[str, Array]:
    return {part: weights.float32(f"{old}/{part}") for part in ("weight", "bias")}


def _linear(weights: ConvertedWeights, old: str, new: str, which: str) -> dict[str, Array]:
    """One matrix of CTranslate2's as the projections that it joins; keys have no bias."""
    names = ["out"] if which == "out" else list(which)
    found = {}
    for part, values in _plain(weights, old).items():
        for name, piece in zip(names, np.split(values, len(names)), strict=True):
            if not (name == "k" and part == "bias"):
                found[f"{new}.{name}_proj.{part}"] = piece
    return found
