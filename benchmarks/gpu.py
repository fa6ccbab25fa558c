"""Speed of the transformers engine, on random weights in the exact shapes of Whisper's models.

python benchmarks/gpu.py                               # large-v3-turbo on the first card
python benchmarks/gpu.py --models tiny --batches 1 2 --device cpu --tokens 8 --no-peer

Nothing is downloaded: weights are made in memory. Every window has 30 s of noise and writes the
same number of tokens, so that all engines do the same work; it says nothing of accuracy. One JSON
object goes to ``--json``, a table to the terminal.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.checkpoints import whisper_tokenizer  # noqa: E402

from whisper_api.config import Settings  # noqa: E402
from whisper_api.engines.base import DecodeParams, Thresholds, WindowItem  # noqa: E402
from whisper_api.engines.torch_load import Parts, build_parts  # noqa: E402
from whisper_api.engines.torch_network import encode  # noqa: E402
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
    return build_parts(make_model(name, place), tokenizer, said, place, windows, 1, alone)


def timed(device: Any, work: Callable[[], Any], rounds: int) -> float:
    """Least seconds of some rounds, after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        settle(device)
        started = time.perf_counter()
        work()
        settle(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def settle(device: Any) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


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

    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    with torch.inference_mode(), torch.cuda.stream(stream):
        encoder = timed(device, run_encoder, rounds)
        # Twice as many rounds: the first ones of a shape record graphs.
        decoder = timed(device, lambda: parts.generator.write(kept[0], prompts, params), 2 * rounds)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    least = batch * encoder_flop(name) / limit[0]
    least += decoder_bytes(name, batch, tokens, parts.dtype.itemsize) / limit[1]
    return {
        "batch": batch,
        "encoder_ms": 1000 * encoder / batch,
        "decoder_ms": 1000 * decoder / batch,
        "rtfx": WINDOW_SECONDS * batch / (encoder + decoder),
        "share_of_limit": least / (encoder + decoder),
        "memory_gb": memory / 1e9,
    }


def measure_engine(name: str, place: TorchPlace, batch: int, tokens: int, turns: int) -> float:
    """RTFx of the engine as the scheduler calls it: two batches at a time, from sound to text."""
    alone = threading.Lock()
    parts = make_parts(name, place, batch, alone)
    settings = Settings(engine="transformers", device=place.device)
    info = describe_parts(ModelFiles(name, Path(), kind="huggingface"), place, parts, settings)
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

    model = make_model(name, place)
    extra = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    recognise = pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=WhisperTokenizerFast(tokenizer_object=whisper_tokenizer(SHAPES[name][5])),
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


def measure_model(name: str, place: TorchPlace, options: argparse.Namespace) -> dict[str, Any]:
    """Every batch of one model, the engine as a whole, and the peer."""
    device = torch.device(place.device)
    limit = roofline(device, getattr(torch, place.dtype))
    found: dict[str, Any] = {"model": name, "tflops": limit[0] / 1e12, "gb_per_s": limit[1] / 1e9}
    rows = found["batches"] = []
    for batch in options.batches:
        try:
            parts = make_parts(name, place, batch, threading.Lock())
            if parts.generator.room.items < batch:
                rows.append({"batch": batch, "note": "does not fit"})
                continue
            rows.append(measure_batch(name, parts, batch, options.tokens, options.rounds, limit))
            print(json.dumps({"model": name, **rows[-1]}), flush=True)
        finally:
            parts = None
            clear(device)
    fits = [row for row in rows if "rtfx" in row]
    if fits and options.engine_turns:
        batch = max(fits, key=lambda row: row["rtfx"])["batch"]
        speed = measure_engine(name, place, batch, options.tokens, options.engine_turns)
        found["engine"] = {"batch": batch, "rtfx": speed}
        clear(device)
    found["peer"] = []
    for batch in options.peer_batches if options.peer else ():
        speed = measure_peer(name, place, batch, options.tokens)
        found["peer"].append({"batch": batch, "rtfx": speed})
        clear(device)
    return found


def clear(device: Any) -> None:
    """Give back what the last measurement held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def table(results: Sequence[dict[str, Any]]) -> str:
    """The figures for people, in Markdown."""
    lines = [
        "| model | batch | encoder ms | decoder ms | RTFx | share of limit | memory GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in results:
        for row in found["batches"]:
            if "note" in row:
                lines.append(f"| {found['model']} | {row['batch']} | {row['note']} | | | | |")
                continue
            lines.append(
                f"| {found['model']} | {row['batch']} | {row['encoder_ms']:.2f} |"
                f" {row['decoder_ms']:.2f} | {row['rtfx']:.0f} | {row['share_of_limit']:.0%} |"
                f" {row['memory_gb']:.1f} |"
            )
        for who in [found["engine"]] if "engine" in found else []:
            lines.append(
                f"| {found['model']}, whole engine | {who['batch']} | | | {who['rtfx']:.0f} | | |"
            )
        for who in found["peer"]:
            lines.append(
                f"| {found['model']}, pipeline | {who['batch']} | | | {who['rtfx']:.0f} | | |"
            )
    return "\n".join(lines)


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
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    settings = Settings(device=options.device, compute_type=options.compute_type)
    place = choose_torch_place(settings, torch)
    on_card = place.on_card
    about = {
        "device": torch.cuda.get_device_name(place.device) if on_card else place.device,
        "dtype": place.dtype,
        "attention": place.attention,
        "reason": place.reason,
        "torch": torch.__version__,
        "tokens": options.tokens,
        "commit": commit(),
    }
    print(json.dumps(about), flush=True)
    results = [measure_model(name, place, options) for name in options.models]
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps({**about, "results": results}, indent=1), "utf-8")


def commit() -> str:
    """The commit that is measured, if this is a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
