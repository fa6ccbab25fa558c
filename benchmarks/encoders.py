"""Processor time and error of every encoder of this machine, for windows of several lengths.

    python benchmarks/encoders.py [--model bundled | random:SHAPE]

One thread; processor time, not wall time, so that neighbours on a busy machine weigh little. Errors
are relative (L2), against CTranslate2 in float32 on the same weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import ctranslate2
import numpy as np

from shapes import random_model
from whisper_api.config import Settings
from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.choice import distance
from whisper_api.engines.encoder import Encoder, OwnEncoder
from whisper_api.engines.openvino import OpenVinoEncoder, precisions
from whisper_api.engines.placement import Placement
from whisper_api.models import ModelStore
from whisper_api.types import SAMPLE_RATE

PLACE = Placement("cpu", 0, "int8", 1, 1, "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, nargs="+", default=[30, 7.5, 3.5])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = args.model
        if path.startswith("random:"):
            path = str(random_model(Path(name), path.partition(":")[2]))
        settings = Settings(data_dir=Path(name), model_path=path)
        encoders = load(ModelStore(settings).prepare().path)
        for seconds in args.seconds:
            compare(encoders, seconds, args.rounds)


def load(folder: Path) -> dict[str, Encoder]:
    """The encoders by name; the first is the measure of errors."""
    found: dict[str, Encoder] = {}
    for kind in ("float32", "int8"):
        model = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type=kind, inter_threads=1, intra_threads=1
        )
        found[f"ctranslate2 {kind}"] = OwnEncoder(model, ctranslate2, shortens=True)
    weights = ConvertedWeights(folder / "model.bin")
    for form in precisions():
        found[f"openvino {form.name}"] = OpenVinoEncoder(weights, form, PLACE, shortens=True)
    return found


def compare(encoders: dict[str, Encoder], seconds: float, rounds: int) -> None:
    """All of them in turn; the least time of each, after one round to warm up."""
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in encoders}
    outputs = {}
    for _ in range(rounds + 1):
        for name, encoder in encoders.items():
            started = time.process_time()
            (outputs[name],) = encoder.encode([audio])
            times[name].append(time.process_time() - started)
    base = min(times["ctranslate2 int8"][1:])
    print(f"a window of {seconds:g} s")
    for name, taken in times.items():
        least, wrong = min(taken[1:]), distance(outputs[name], outputs["ctranslate2 float32"])
        print(f"  {name:24}{least:9.4f} s{base / least:7.2f}x{100 * wrong:9.2f} % error")


if __name__ == "__main__":
    main()
