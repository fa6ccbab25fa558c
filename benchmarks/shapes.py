"""Models with random weights in the shapes of Whisper's, that write a fixed number of tokens.

The end token can not be chosen and timestamps never win over text, so that every engine does the
same work on the same audio. They say nothing of accuracy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.checkpoints import Shape, save_checkpoint  # noqa: E402

from whisper_api.convert import convert_folder  # noqa: E402

SHAPES = {
    "tiny": Shape(width=384, heads=6, layers=4),
    "base": Shape(width=512, heads=8, layers=6),
    "small": Shape(width=768, heads=12, layers=12),
    "turbo": Shape(width=1280, heads=20, layers=32, mels=128, vocabulary=51_866, decoder_layers=4),
}
_NEVER = {
    "log_prob": -1e9,
    "no_speech": 1.0,
    "compression_ratio": 1e9,
    "temperatures": [0.0],
}
"""Thresholds under which every decoding is good."""


def random_model(folder: Path, name: str) -> Path:
    """A converted int8 model of the shape ``name`` in ``folder``."""
    target = folder / f"random-{name}"
    checkpoint = save_checkpoint(folder / "checkpoint", SHAPES[name])
    tokens = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    special = [token["id"] for token in tokens]
    path = checkpoint / "generation_config.json"
    said = json.loads(path.read_text("utf-8"))
    # Everything that is not text, but the timestamps: the decoders need those to begin.
    said["suppress_tokens"] = [i for i in special if i < max(special) - 1500]
    path.write_text(json.dumps(said), "utf-8")
    convert_folder(checkpoint, target, "int8")
    (target / "MANIFEST.json").write_text(json.dumps({"decoding": _NEVER}), "utf-8")
    return target


def checkpoint_of(folder: Path) -> Path | None:
    """The random checkpoint that ``random_model`` left in ``folder``, as transformers reads it."""
    path = folder / "checkpoint"
    return path if path.is_dir() else None
