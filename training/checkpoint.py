"""Keep the float weights small enough for git, and make a run go on from them.

python checkpoint.py                          # runs/last.pt -> checkpoint/
python checkpoint.py --restore --minute 33    # checkpoint/ -> runs/last.pt, as if at that minute
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import Shape, Whisper
from text import vocabulary
from tokens import TokenSet

HERE = Path(__file__).parent
STORED = HERE / "checkpoint" / "model.safetensors"


def store(source: Path, which: str) -> None:
    """The averaged weights or the last ones, CTC head included, as fp16; what they are in the file's metadata."""
    state = torch.load(source, weights_only=False)
    about = {k: json.dumps(state[k]) for k in ("shape", "text_ids", "samples", "step")}
    STORED.parent.mkdir(exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in state[which].items()}, STORED, about)


def restore(target: Path, minute: float, stored: Path = STORED) -> None:
    """A state that train.py goes on from, with a fresh optimiser."""
    with safe_open(stored, "pt") as opened:
        about = {k: json.loads(v) for k, v in opened.metadata().items()}
    weights = {k: v.float() for k, v in load_file(stored).items()}
    shape = about["shape"] | {
        "alignment_heads": tuple(map(tuple, about["shape"]["alignment_heads"]))
    }
    tokens = TokenSet.of_words(vocabulary())
    model = Whisper(Shape(**shape), tokens.text_count, tokens.unused)
    weights["tokens"] = grown(weights["tokens"], about["text_ids"], tokens)
    about["text_ids"] = tokens.text_ids
    model.load_state_dict(weights)
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-3, (0.9, 0.98), weight_decay=0.01, fused=True
    )
    target.parent.mkdir(exist_ok=True)
    state = about | {
        "model": model.state_dict(), "ema": {k: v.clone() for k, v in weights.items()}, "optimizer": optimizer.state_dict(),
        "elapsed": minute * 60, "best": 9.0,
    }  # fmt: skip
    torch.save(state, target)


def grown(rows: Tensor, old_ids: list[int], tokens: TokenSet) -> Tensor:
    """Embedding rows for today's vocabulary: known ids keep theirs, new ones start at random."""
    generator = torch.Generator().manual_seed(23)
    size = float(rows.norm(dim=1).mean()) / rows.shape[1] ** 0.5
    wide = torch.randn(tokens.text_count, rows.shape[1], generator=generator) * size * 0.7
    for place, token in enumerate(old_ids):
        if token in tokens.index:
            wide[tokens.compact(token)] = rows[place]
    return wide


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "last.pt")
    parser.add_argument("--restore", action="store_true")
    parser.add_argument("--stored", type=Path, default=STORED, help="the weights to restore")
    parser.add_argument("--minute", type=float, default=0.0)
    parser.add_argument("--weights", choices=("ema", "model"), default="ema")
    options = parser.parse_args()
    if options.restore:
        restore(options.run, options.minute, options.stored)
    else:
        store(options.run, options.weights)


if __name__ == "__main__":
    main()
