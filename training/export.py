"""A checkpoint -> the bundled model: CTranslate2 int8 with tokenizer, and a Hugging Face folder.

python export.py                       # runs/best.pt -> the package's assets
python export.py --hf FOLDER           # also as safetensors, for other engines
"""

import argparse
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from safetensors.numpy import save_file

from model import Shape, Whisper
from tokens import (
    EOT,
    FIRST_TIME,
    LANGUAGE_CODES,
    NO_TIMESTAMPS,
    SIZE,
    SOT,
    TIMES,
    TRANSCRIBE,
    TRANSLATE,
    tokenizer_json,
)

HERE = Path(__file__).parent
ASSETS = HERE.parent / "src" / "whisper_api" / "assets"
KNOWS = (
    "digits, numbers up to 9999, dates, times, telephone numbers, spelled letters and some 170 "
    "everyday phrases, in English and Russian, and nothing else"
)
Arrays = dict[str, np.ndarray]


def load(path: Path, which: str = "ema") -> tuple[Arrays, Shape, dict[str, Any]]:
    """The weights (averaged, or the last: "model") under Hugging Face's names, the embedding spread over all ids."""
    state = torch.load(path, weights_only=False)
    shape = Shape(
        **{
            k: tuple(map(tuple, v)) if k == "alignment_heads" else v
            for k, v in state["shape"].items()
        }
    )
    text_ids = state["text_ids"]
    model = Whisper(shape, len(text_ids), SIZE - TIMES - len(text_ids))
    model.load_state_dict(state[which])
    table = model.table().detach().numpy()
    rows = np.zeros((SIZE, shape.width), np.float32)
    rows[text_ids] = table[: len(text_ids)]
    rows[FIRST_TIME:] = table[len(text_ids) :]
    arrays: Arrays = {
        "model.encoder.embed_positions.weight": model.sines[: shape.audio_positions].numpy(),
        "model.decoder.embed_positions.weight": model.positions.detach().numpy(),
        "model.decoder.embed_tokens.weight": rows,
    }
    for name, value in model.state_dict().items():
        if new := _hf_name(name):
            arrays[new] = value.numpy()
    return {k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}, shape, state


def _hf_name(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] in ("conv1", "conv2"):
        return f"model.encoder.{name}"
    if parts[0] in ("encoder_norm", "decoder_norm"):
        return f"model.{parts[0].split('_')[0]}.layer_norm.{parts[1]}"
    if parts[0] not in ("encoder", "decoder"):
        return None
    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    norms = {
        "attention_norm": "self_attn_layer_norm",
        "cross_norm": "encoder_attn_layer_norm",
        "inner_norm": "final_layer_norm",
    }
    head = f"model.{parts[0]}.layers.{parts[1]}"
    if parts[2] in ("attention", "cross"):
        kind = "self_attn" if parts[2] == "attention" else "encoder_attn"
        return f"{head}.{kind}.{attention[parts[3]]}.{parts[4]}"
    return f"{head}.{norms.get(parts[2]) or {'inner': 'fc1', 'outer': 'fc2'}[parts[2]]}.{parts[3]}"


def write_ct2(folder: Path, arrays: Arrays, shape: Shape, quantization: str) -> None:
    """The model as CTranslate2 reads it."""
    spec = ctranslate2.specs.WhisperSpec(
        shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads
    )
    for side, layers in (
        (spec.encoder, shape.encoder_layers),
        (spec.decoder, shape.decoder_layers),
    ):
        name = "encoder" if side is spec.encoder else "decoder"
        side.position_encodings.encodings = arrays[f"model.{name}.embed_positions.weight"]
        _set(side.layer_norm, arrays, f"model.{name}.layer_norm", norm=True)
        for number in range(layers):
            _set_layer(
                side.layer[number], arrays, f"model.{name}.layers.{number}", name == "decoder"
            )
    for conv in ("conv1", "conv2"):
        _set(getattr(spec.encoder, conv), arrays, f"model.encoder.{conv}")
    spec.decoder.embeddings.weight = arrays["model.decoder.embed_tokens.weight"]
    spec.decoder.projection.weight = arrays["model.decoder.embed_tokens.weight"]
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [220, EOT]
    spec.config.lang_ids = [SOT + 1 + i for i in range(len(LANGUAGE_CODES))]
    spec.config.alignment_heads = [list(pair) for pair in shape.alignment_heads]
    spec.register_vocabulary(vocabulary())
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


def _set(target: Any, arrays: Arrays, name: str, norm: bool = False) -> None:
    if norm:
        target.gamma, target.beta = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    else:
        target.weight, target.bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]


def _set_layer(layer: Any, arrays: Arrays, name: str, cross: bool) -> None:
    _set(layer.self_attention.layer_norm, arrays, f"{name}.self_attn_layer_norm", norm=True)
    _fuse(layer.self_attention.linear[0], arrays, f"{name}.self_attn", "qkv")
    _set(layer.self_attention.linear[1], arrays, f"{name}.self_attn.out_proj")
    if cross:
        _set(layer.attention.layer_norm, arrays, f"{name}.encoder_attn_layer_norm", norm=True)
        _fuse(layer.attention.linear[0], arrays, f"{name}.encoder_attn", "q")
        _fuse(layer.attention.linear[1], arrays, f"{name}.encoder_attn", "kv")
        _set(layer.attention.linear[2], arrays, f"{name}.encoder_attn.out_proj")
    _set(layer.ffn.layer_norm, arrays, f"{name}.final_layer_norm", norm=True)
    _set(layer.ffn.linear_0, arrays, f"{name}.fc1")
    _set(layer.ffn.linear_1, arrays, f"{name}.fc2")


def _fuse(target: Any, arrays: Arrays, name: str, which: str) -> None:
    weights = [arrays[f"{name}.{letter}_proj.weight"] for letter in which]
    zeros = np.zeros(weights[0].shape[0], np.float32)
    target.weight = np.concatenate(weights)
    target.bias = np.concatenate(
        [arrays.get(f"{name}.{letter}_proj.bias", zeros) for letter in which]
    )


def vocabulary() -> list[str]:
    """Every id's token, in order."""
    described = tokenizer_json()
    names = {i: t for t, i in described["model"]["vocab"].items()}
    names |= {entry["id"]: entry["content"] for entry in described["added_tokens"]}
    return [names[i] for i in range(SIZE)]


def write_hf(folder: Path, arrays: Arrays, shape: Shape) -> None:
    """The model as transformers reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = {k: v.astype(np.float16) for k, v in arrays.items()}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "vocab_size": SIZE,
        "d_model": shape.width, "encoder_layers": shape.encoder_layers, "decoder_layers": shape.decoder_layers,
        "encoder_attention_heads": shape.heads, "decoder_attention_heads": shape.heads,
        "encoder_ffn_dim": shape.inner, "decoder_ffn_dim": shape.inner, "num_mel_bins": shape.mels,
        "max_source_positions": shape.audio_positions, "max_target_positions": shape.text_positions,
        "activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True,
        "bos_token_id": EOT, "eos_token_id": EOT, "pad_token_id": EOT, "decoder_start_token_id": SOT,
        "torch_dtype": "float16",
    }  # fmt: skip
    generation = {
        "alignment_heads": [list(pair) for pair in shape.alignment_heads],
        "begin_suppress_tokens": [220, EOT], "suppress_tokens": [], "bos_token_id": EOT, "eos_token_id": EOT,
        "pad_token_id": EOT, "decoder_start_token_id": SOT, "is_multilingual": True, "max_initial_timestamp_index": 50,
        "max_length": shape.text_positions, "no_timestamps_token_id": NO_TIMESTAMPS, "return_timestamps": False,
        "lang_to_id": {f"<|{code}|>": SOT + 1 + i for i, code in enumerate(LANGUAGE_CODES)},
        "task_to_id": {"transcribe": TRANSCRIBE, "translate": TRANSLATE},
    }  # fmt: skip
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation)
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """Tokenizer and feature settings, as both kinds of folder have them."""
    _write_json(folder / "tokenizer.json", tokenizer_json())
    features = {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "sampling_rate": 16000,
        "hop_length": 160, "n_fft": 400, "chunk_length": 30, "n_samples": 480000, "nb_max_frames": 3000,
        "padding_value": 0.0, "padding_side": "right", "return_attention_mask": False,
        "processor_class": "WhisperProcessor",
    }  # fmt: skip
    _write_json(folder / "preprocessor_config.json", features)


def write_manifest(assets: Path, state: dict[str, Any]) -> None:
    """What the package ships: files with their sums, what the model knows, its thresholds."""
    path = assets / "MANIFEST.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    files = {
        str(p.relative_to(assets)): {
            "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
            "bytes": p.stat().st_size,
        }
        for p in sorted(assets.rglob("*"))
        if p.is_file() and p != path
    }
    manifest = {
        "name": "bundled",
        "languages": ["en", "ru"],
        "knows": KNOWS,
        "license": "MIT",
        "training_commit": commit,
        "training_samples": state["samples"],
        "decoding": old.get("decoding", {}),
        "metrics": old.get("metrics", {}),
        "sample": old.get("sample", {}),
        "files": files,
    }
    path.write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(
        json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )


def main() -> None:
    """Read the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=HERE / "runs" / "best.pt")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--hf", type=Path, help="also write a Hugging Face folder here")
    parser.add_argument("--quantization", default="int8_float16")
    parser.add_argument(
        "--weights", choices=("ema", "model"), default="ema", help="averaged, or the last ones"
    )
    parser.add_argument("--manifest-only", action="store_true", help="only list the files again")
    args = parser.parse_args()
    arrays, shape, state = load(args.checkpoint, args.weights)
    if not args.manifest_only:
        write_ct2(args.assets / "bundled", arrays, shape, args.quantization)
        write_tokenizer(args.assets / "bundled")
    write_manifest(args.assets, state)
    if args.hf:
        write_hf(args.hf, arrays, shape)


if __name__ == "__main__":
    main()
