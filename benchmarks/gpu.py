"""Speed of the transformers engine, on random weights in the exact shapes of Whisper's models.

python benchmarks/gpu.py --check --json figures.json --picture figures.svg   # on a card
python benchmarks/gpu.py --models tiny --batches 1 2 --device cpu --tokens 8 --peer-batches 2

Nothing is downloaded: weights are made in memory. Every window has 30 s of noise and writes the
same number of tokens, so that all engines do the same work; it says nothing of accuracy. Figures
are written as they come, so that the run may be cut at any time; what fails is named and the rest
goes on. ``--check`` runs the tests that need a card first.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Nothing need be installed of this checkout, nor of what only the server needs.
sys.path[1:1] = [str(ROOT), str(ROOT / "src")]

from tests.checkpoints import whisper_tokenizer  # noqa: E402

from gpu_parts import measure_parts, timed  # noqa: E402
from gpu_report import WHO, Report, table, whereabouts  # noqa: E402
from whisper_api.config import Settings  # noqa: E402
from whisper_api.engines.base import DecodeParams, Thresholds, WindowItem  # noqa: E402
from whisper_api.engines.torch_load import build_parts  # noqa: E402
from whisper_api.engines.torch_network import encode  # noqa: E402
from whisper_api.engines.torch_parts import Parts, in_stream, on_device  # noqa: E402
from whisper_api.engines.torch_place import TorchPlace, choose_torch_place  # noqa: E402
from whisper_api.engines.transformers import TransformersEngine, describe_parts  # noqa: E402
from whisper_api.model_folder import ModelFiles  # noqa: E402
from whisper_api.tokens import WhisperTokenizer  # noqa: E402
from whisper_api.types import SAMPLE_RATE, WINDOW_SECONDS  # noqa: E402

# width, heads, encoder layers, decoder layers, mels, vocabulary
SHAPES = {
    "tiny": (384, 6, 4, 4, 80, 51_865),
    "base": (512, 8, 6, 6, 80, 51_865),
    "small": (768, 12, 12, 12, 80, 51_865),
    "medium": (1024, 16, 24, 24, 80, 51_865),
    "large-v3": (1280, 20, 32, 32, 128, 51_866),
    "large-v3-turbo": (1280, 20, 32, 4, 128, 51_866),
}
POSITIONS = 1500
CARD = "tests/unit/test_engine_transformers_card.py"


def make_model(name: str, place: TorchPlace) -> Any:
    """A WhisperForConditionalGeneration with random weights, made on the device."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    width, heads, encoder, decoder, mels, size = SHAPES[name]
    config = WhisperConfig(
        d_model=width, encoder_attention_heads=heads, decoder_attention_heads=heads,
        encoder_layers=encoder, decoder_layers=decoder, encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width, num_mel_bins=mels, vocab_size=size, pad_token_id=50_257,
        bos_token_id=50_257, eos_token_id=50_257, decoder_start_token_id=50_258,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(place.device):
        model = WhisperForConditionalGeneration._from_config(
            config, dtype=getattr(torch, place.dtype), attn_implementation=place.attention
        )
    return model.to(place.device).eval().requires_grad_(False)


def make_parts(name: str, place: TorchPlace, windows: int, alone: threading.Lock) -> Parts:
    """The engine's parts; the end token and special ones can not be written."""
    words = whisper_tokenizer(SHAPES[name][5])
    tokenizer = WhisperTokenizer(words, SHAPES[name][5])
    never = range(tokenizer.eot, tokenizer.timestamp_begin)
    said = {"suppress_ids": list(never), "suppress_ids_begin": [], "alignment_heads": [[0, 0]]}
    with on_device(torch.device(place.device)):
        return build_parts(make_model(name, place), tokenizer, said, place, windows, 1, alone)


def roofline(device: Any, dtype: Any) -> tuple[float, float]:
    """(matrix multiplications per second in FLOP, bytes per second) that this device reaches."""
    size, bytes_ = (8192, 2 << 30) if device.type == "cuda" else (1024, 64 << 20)
    one = torch.randn(size, size, device=device, dtype=dtype)
    seconds = timed(device, lambda: one @ one, 3)
    source = torch.empty(bytes_, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copied = timed(device, lambda: target.copy_(source), 3)
    return 2 * size**3 / seconds, 2 * bytes_ / copied


def encoder_flop(name: str) -> float:
    """Operations for one window of 30 s."""
    width, _, layers, _, mels, _ = SHAPES[name]
    each = 8 * width**2 + 16 * width**2 + 4 * POSITIONS * width
    return POSITIONS * (layers * each + 12 * mels * width + 6 * width**2)


def decoder_bytes(name: str, batch: int, tokens: int, number: int) -> float:
    """Bytes that writing ``tokens`` must read for a batch: weights, and keys and values."""
    width, _, _, layers, _, size = SHAPES[name]
    weights = layers * 14 * width**2 + size * width
    kept = batch * layers * 2 * width * (POSITIONS + tokens / 2)
    return number * tokens * (weights + kept)


def measure_batch(
    name: str, parts: Parts, batch: int, tokens: int, rounds: int, limit: tuple[float, float]
) -> dict[str, Any]:
    """Encoder and decoder of one batch, one after the other."""
    device = parts.device
    audios = list(noise(batch))
    params = DecodeParams("en", beam_size=1, max_new_tokens=tokens)
    prompts = [parts.tokenizer.prompt((), "en", "transcribe")] * batch
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    kept: list[Any] = []

    def run_encoder() -> None:
        kept[:] = [encode(parts.encoder, parts.mel(audios).to(parts.dtype))]

    with on_device(device):
        with in_stream(parts.streams.encode):
            encoder = timed(device, run_encoder, rounds)
        with in_stream(parts.streams.write):
            # Twice as many rounds: the first ones of a shape record graphs.
            decoder = timed(
                device, lambda: parts.generator.write(kept[0], prompts, params), 2 * rounds
            )
    least = batch * encoder_flop(name) / limit[0]
    least += decoder_bytes(name, batch, tokens, parts.dtype.itemsize) / limit[1]
    return {
        "batch": batch,
        "encoder_ms": 1000 * encoder / batch,
        "decoder_ms": 1000 * decoder / batch,
        "rtfx": WINDOW_SECONDS * batch / (encoder + decoder),
        "share_of_limit": least / (encoder + decoder),
        "memory_gb": memory_gb(device),
        "graphs": parts.generator.graphs_fail or ("yes" if device.type == "cuda" else "none here"),
        "attention": parts.place.attention,
    }


def memory_gb(device: Any) -> float:
    """Most memory since it was last asked for: of the card, elsewhere of the process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def measure_engine(name: str, place: TorchPlace, batch: int, tokens: int, turns: int) -> float:
    """RTFx of the engine as the scheduler calls it: two batches at a time, from sound to text."""
    alone = threading.Lock()
    parts = make_parts(name, place, batch, alone)
    settings = Settings(engine="transformers", device=place.device)
    info = describe_parts(ModelFiles(name, Path(), kind="huggingface"), parts, settings)
    engine = TransformersEngine(parts, info, Thresholds(), False, alone)
    audios = list(noise(batch))
    params = DecodeParams("en", beam_size=1, max_new_tokens=tokens)

    def call(turn: int) -> None:
        keys = [f"{turn}-{number}" for number in range(batch)]
        engine.decode([WindowItem(*pair, params) for pair in zip(keys, audios, strict=True)])
        engine.release(keys)

    for turn in range(2):
        call(-turn - 1)
    started = time.perf_counter()
    with ThreadPoolExecutor(info.replicas) as pool:
        list(pool.map(call, range(turns)))
    seconds = time.perf_counter() - started
    engine.close()
    return WINDOW_SECONDS * batch * turns / seconds


def measure_peer(name: str, place: TorchPlace, batch: int, tokens: int) -> float:
    """RTFx of ``transformers.pipeline`` with the same shapes and as many tokens."""
    from transformers import WhisperFeatureExtractor, WhisperTokenizerFast, pipeline

    if place.on_card:
        # As torch has it; the engine has switched this off for the whole process.
        torch.backends.cuda.enable_cudnn_sdp(True)
    model = make_model(name, place)
    extra = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    extra["num_beams"] = 1  # it takes five where nobody says
    recognise = pipeline(
        "automatic-speech-recognition",
        model=model,
        # It refuses batches without a padding token, and a bare tokenizer names none.
        tokenizer=WhisperTokenizerFast(
            tokenizer_object=whisper_tokenizer(SHAPES[name][5]), pad_token="<|endoftext|>"
        ),
        feature_extractor=WhisperFeatureExtractor(feature_size=SHAPES[name][4]),
        device=place.device,
        dtype=getattr(torch, place.dtype),
    )
    sounds = [{"raw": audio, "sampling_rate": SAMPLE_RATE} for audio in noise(batch)]

    def run() -> None:
        recognise([dict(one) for one in sounds], batch_size=batch, generate_kwargs=extra)

    return WINDOW_SECONDS * batch / timed(torch.device(place.device), run, 1)


def noise(count: int) -> Sequence[Any]:
    """Full windows of noise."""
    rng = np.random.default_rng(0)
    one = rng.standard_normal(WINDOW_SECONDS * SAMPLE_RATE, np.float32) * np.float32(0.1)
    return [np.roll(one, 997 * number) for number in range(count)]


def measure_model(
    name: str, place: TorchPlace, options: argparse.Namespace, report: Report
) -> None:
    """Every batch of one model, the engine as a whole, and the peer."""
    device = torch.device(place.device)
    limit = roofline(device, getattr(torch, place.dtype))
    found: dict[str, Any] = {"model": name, "tflops": limit[0] / 1e12, "gb_per_s": limit[1] / 1e9}
    rows, engine, peer = found["batches"], found["engine"], found["peer"] = [], [], []
    found["parts"] = []
    report.found["results"].append(found)

    def one(batch: int) -> dict[str, Any]:
        parts = make_parts(name, place, batch, threading.Lock())
        if parts.generator.room.items < batch:
            return {"note": "does not fit"}
        return measure_batch(name, parts, batch, options.tokens, options.rounds, limit)

    for batch in options.batches:
        report.add(rows, {"model": name, "batch": batch}, lambda batch=batch: one(batch))
        clear(device)
    fits = [row for row in rows if "rtfx" in row]
    best = max(fits, key=lambda row: row["rtfx"])["batch"] if fits else 0
    if fits and options.engine_turns:
        turns = options.engine_turns
        report.add(
            engine,
            {"model": name, "who": "engine", "batch": best},
            lambda: {"rtfx": measure_engine(name, place, best, options.tokens, turns)},
        )
        clear(device)
    for batch in options.peer_batches if options.peer else ():
        report.add(
            peer,
            {"model": name, "who": "transformers.pipeline", "batch": batch},
            lambda batch=batch: {"rtfx": measure_peer(name, place, batch, options.tokens)},
        )
        clear(device)
    if fits and options.parts:
        where = {"model": name, "batch": best}
        report.add(found["parts"], where, lambda: parts_of(name, place, best, options))
        clear(device)
    speeds = {kind: [row["rtfx"] for row in found[kind] if "rtfx" in row] for kind in WHO}
    if speeds["engine"] and speeds["peer"]:
        found["times_the_peer"] = speeds["engine"][0] / max(speeds["peer"])
    report.save()


def parts_of(
    name: str, place: TorchPlace, batch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Where the time of one batch goes."""
    parts = make_parts(name, place, batch, threading.Lock())
    params = DecodeParams("en", beam_size=1, max_new_tokens=options.tokens)
    return measure_parts(parts, noise(batch), params, options.rounds)


def check(tests: str = CARD) -> dict[str, Any]:
    """What the tests that need a card come to.

    Without the options and plugins of the whole suite, which may not be installed here.
    """
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*command, "--noconftest", "-o", "addopts=-ra", tests],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=240,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if re.match(r"(FAILED|ERROR|SKIPPED)", line)]
    found = {"rc": done.returncode, "summary": lines[-1] if lines else "", "not": failed}
    # 5: none was chosen.
    return found if done.returncode in (0, 5) else found | {"log": _tail(done.stdout + done.stderr)}


def _tail(text: str) -> str:
    return text[-6000:]


def clear(device: Any) -> None:
    """Give back what the last measurement held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["large-v3-turbo"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16, 64, 128, 256])
    parser.add_argument("--tokens", type=int, default=100, help="written for each window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine-turns", type=int, default=12, help="batches through the engine")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peer-batches", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--parts", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--check", action="store_true", help="run the tests of cards first")
    parser.add_argument("--minutes", type=float, default=9, help="nothing is begun after them")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--picture", type=Path, help="draw them here, as SVG")
    options = parser.parse_args()
    settings = Settings(device=options.device, compute_type=options.compute_type)
    place = choose_torch_place(settings, torch)
    about = {
        "device": torch.cuda.get_device_name(place.device) if place.on_card else place.device,
        "dtype": place.dtype,
        "attention": place.attention,
        "reason": place.reason,
        "torch": torch.__version__,
        "tokens": options.tokens,
        "commit": commit(),
    }
    print(json.dumps(about), flush=True)
    report = Report(options, about)
    if options.check:
        checked: list[dict[str, Any]] = []
        report.add(checked, {"who": "tests"}, check)
        report.found["tests"] = checked[0]
    for name in options.models:
        measure_model(name, place, options, report)
    print(table(report.found["results"]))
    print(whereabouts(report.found["results"]))


def commit() -> str:
    """The commit that is measured, if this is a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
