"""How a checkpoint hears single English digits of held-out voices whose consonants are weak or cut off.

python edges.py runs/last.pt
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from augment import Noises, add_noise, cut_weak_ends, faint_hisses, telephone
from batches import DATA
from features import log_mel
from model import Shape, Whisper
from text import normalise, vocabulary
from tokens import TokenSet
from train import greedy
from windows import RATE, Corpus, Utterance

SECONDS = 1.6
Spoil = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def cut(rng: np.random.Generator, audio: np.ndarray) -> np.ndarray:
    """What a careless cut leaves."""
    first, stop = cut_weak_ends(rng, audio)
    return audio[first:stop]


def wrong(model: Whisper, tokens: TokenSet, digits: list[Utterance], spoil: Spoil) -> float:
    """The share that is not heard as the digit that it is, on a telephone under 12 to 25 dB of noise."""
    rng, noises, missed = np.random.default_rng(2), Noises(8), 0
    for at in range(0, len(digits), 50):
        some = digits[at : at + 50]
        batch = np.zeros((len(some), int(SECONDS * RATE)), np.float32)
        for row, digit in zip(batch, some, strict=True):
            audio = spoil(rng, digit.samples.astype(np.float32) / 32768)[: len(row)]
            audio = add_noise(rng, audio, noises.take(rng, len(audio)), rng.uniform(12, 25))
            audio = telephone(rng, audio)
            row[: len(audio)] = audio * (0.6 / max(float(np.abs(audio).max()), 1e-6))
        texts = greedy(model, tokens, log_mel(torch.from_numpy(batch)), ["en"] * len(some))
        missed += sum(
            normalise(text) != normalise(digit.words[0])
            for text, digit in zip(texts, some, strict=True)
        )
    return missed / len(digits)


def main() -> None:
    """Prints one line for each way of spoiling them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    tokens = TokenSet.of_words(vocabulary())
    model = Whisper(Shape(), tokens.text_count, tokens.unused)
    model.load_state_dict(torch.load(parser.parse_args().checkpoint, weights_only=False)["ema"])
    held = Corpus(DATA, held=True).items["en"]
    digits = [u for u in held if u.kind == "digit" and "whisper" not in u.voice]
    ways: dict[str, Spoil] = {
        "whole": lambda rng, audio: audio,
        "faint hisses": faint_hisses,
        "cut": cut,
        "faint hisses, cut": lambda rng, audio: cut(rng, faint_hisses(rng, audio)),
    }
    for name, spoil in ways.items():
        print(
            f"{name:20} {100 * wrong(model.eval(), tokens, digits, spoil):5.1f} % of {len(digits)}"
        )


if __name__ == "__main__":
    main()
