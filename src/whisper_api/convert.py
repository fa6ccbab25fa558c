"""A Hugging Face Whisper folder to CTranslate2's format, with numpy and without torch.

Tensors are mapped from disk and turned one by one, so that the largest model needs memory for its
result only. What is written is what CTranslate2's own converter writes (tested against it).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from whisper_api.checkpoint import CONFIG, Sizes, Tensors, read_json, read_sizes, read_tokenizer
from whisper_api.errors import ModelBroken

QUANTIZATIONS = ("int8", "int8_float32", "int8_float16", "float16", "float32")
"""Number formats that can be written."""


def convert_folder(source: Path, target: Path, quantization: str = "int8") -> None:
    """Write ``source`` as a CTranslate2 model to ``target``, which must not exist yet.

    The result appears whole or not at all: it is written beside ``target`` and renamed.

    Raises:
        ModelBroken: the folder lacks a file, has pickled weights only, or is no Whisper model.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization must be one of {', '.join(QUANTIZATIONS)}")
    sizes = read_sizes(source)
    tensors = Tensors(source)
    tokenizer = read_tokenizer(source)
    config, words = (
        generation_settings(source, sizes, tokenizer),
        vocabulary(tokenizer, sizes.vocabulary),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    try:
        _build(sizes, tensors, config, words, quantization, work)
        tokenizer.save(str(work / "tokenizer.json"))
        _write_preprocessor(source, work, sizes)
        work.chmod(0o755)
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _build(
    sizes: Sizes,
    tensors: Tensors,
    config: Mapping[str, Any],
    words: list[str],
    quantization: str,
    target: Path,
) -> None:
    # CTranslate2 is loaded only when something is converted.
    from whisper_api.convert_spec import build_spec

    spec = build_spec(sizes, tensors)
    spec.register_vocabulary(words)
    for key, value in config.items():
        setattr(spec.config, key, value)
    spec.validate()
    spec.optimize(quantization)
    spec.save(str(target))


def vocabulary(tokenizer: Tokenizer, size: int) -> list[str]:
    """All tokens by id; timestamps that an older tokenizer file lacks are added.

    Raises:
        ModelBroken: the tokenizer has more tokens than the model, or gaps.
    """
    by_id = {number: word for word, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    count = len(by_id)
    if count > size or set(by_id) != set(range(count)):
        raise ModelBroken(f"The tokenizer's {count} ids do not fit the model's {size}.")
    missing = (f"<|{i * 0.02:.2f}|>" for i in range(size - count))
    return [by_id[number] for number in range(count)] + list(missing)


def generation_settings(folder: Path, sizes: Sizes, tokenizer: Tokenizer) -> dict[str, Any]:
    """What to suppress, language ids, heads that align, under CTranslate2's names."""
    path = folder / "generation_config.json"
    said = read_json(path) if path.is_file() else {}
    general = read_json(folder / CONFIG)
    heads = said.get("alignment_heads") or general.get("alignment_heads")
    if not heads:
        # Nobody measured which heads follow the audio: the later half of the layers mostly does.
        layers = range(sizes.decoder_layers // 2, sizes.decoder_layers)
        heads = [list(pair) for pair in product(layers, range(sizes.decoder_heads))]
    languages = said.get("lang_to_id")
    return {
        "suppress_ids": said.get("suppress_tokens", general.get("suppress_tokens")) or [],
        "suppress_ids_begin": said.get(
            "begin_suppress_tokens", general.get("begin_suppress_tokens")
        )
        or [],
        "lang_ids": sorted(languages.values()) if languages else _language_ids(tokenizer),
        "alignment_heads": heads,
    }


def _language_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids between ``<|startoftranscript|>`` and ``<|translate|>``."""
    first, last = (tokenizer.token_to_id(f"<|{n}|>") for n in ("startoftranscript", "translate"))
    return list(range(first + 1, last)) if first is not None and last is not None else []


def _write_preprocessor(source: Path, target: Path, sizes: Sizes) -> None:
    path = source / "preprocessor_config.json"
    if path.is_file():
        shutil.copyfile(path, target / path.name)
        return
    values = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": sizes.mels,
        "sampling_rate": 16_000,
        "hop_length": 160,
        "chunk_length": 30,
        "n_fft": 400,
        "padding_value": 0.0,
    }
    (target / path.name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
