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

from model import Shape, Whisper
from tokens import SIZE, TIMES

HERE = Path(__file__).parent
STORED = HERE / "checkpoint" / "model.safetensors"


def store(source: Path, which: str) -> None:
    """The averaged weights or the last ones, CTC head included, as fp16; what they are in the file's metadata."""
    state = torch.load(source, weights_only=False)
    about = {k: json.dumps(state[k]) for k in ("shape", "text_ids", "samples", "step")}
    STORED.parent.mkdir(exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in state[which].items()}, STORED, about)


def restore(target: Path, minute: float) -> None:
    """A state that train.py goes on from, with a fresh optimiser."""
    with safe_open(STORED, "pt") as opened:
        about = {k: json.loads(v) for k, v in opened.metadata().items()}
    weights = {k: v.float() for k, v in load_file(STORED).items()}
    shape = about["shape"] | {
        "alignment_heads": tuple(map(tuple, about["shape"]["alignment_heads"]))
    }
    model = Whisper(Shape(**shape), len(about["text_ids"]), SIZE - TIMES - len(about["text_ids"]))
    model.load_state_dict(weights)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.98), weight_decay=0.01)
    target.parent.mkdir(exist_ok=True)
    state = about | {
        "model": model.state_dict(), "ema": weights, "optimizer": optimizer.state_dict(),
        "elapsed": minute * 60, "best": 9.0,
    }  # fmt: skip
    torch.save(state, target)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "last.pt")
    parser.add_argument("--restore", action="store_true")
    parser.add_argument("--minute", type=float, default=0.0)
    parser.add_argument("--weights", choices=("ema", "model"), default="ema")
    options = parser.parse_args()
    if options.restore:
        restore(options.run, options.minute)
    else:
        store(options.run, options.weights)


if __name__ == "__main__":
    main()
