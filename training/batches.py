"""The stages of a run, and the batches of each: windows as tensors, made in a process of their own."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from augment import Noises
from features import Mouths
from model import AUDIO_POSITIONS, Rest
from tokens import EOT, NO_SPEECH, TokenSet
from windows import FRAME, Corpus, Maker, Recipe, Window, ctc_ids

DATA = Path(__file__).parent / "data"
Part = tuple[float, int, Recipe]  # probability, batch, how its windows look


@dataclass(frozen=True)
class Stage:
    """A share of the whole time, its windows and its weights."""

    share: float
    parts: tuple[Part, ...]
    ctc: float
    guide: float


def _mix(
    strength: float, timestamps: float, words: float, parts: tuple[tuple[float, float, int], ...]
) -> tuple[Part, ...]:
    """(probability, seconds, batch) of each kind of window; those over 10 s hold several phrases.

    Short windows are for digits; `words` is how often the others prefer phrases that are no numbers.
    """
    return tuple(
        (
            share,
            batch,
            Recipe(
                seconds,
                strength,
                timestamps,
                full=seconds > 10,
                prompt=0.12 if seconds > 5 else 0.01,
                words=0.1 if seconds < 2 else words,
            ),
        )
        for share, seconds, batch in parts
    )


STAGES = (
    Stage(0.06, _mix(0.3, 0.2, 0.3, ((0.5, 1.2, 24), (0.5, 2.2, 14))), 1.0, 0.5),
    Stage(
        0.16,
        _mix(0.7, 0.4, 0.3, ((0.25, 1.2, 24), (0.3, 2.2, 14), (0.3, 3.5, 10), (0.15, 6, 6))),
        0.5,
        0.3,
    ),
    Stage(
        0.42,
        _mix(1.0, 0.6, 0.45, ((0.16, 1.2, 24), (0.22, 2.5, 14), (0.27, 4, 10), (0.35, 8, 6))),
        0.3,
        0.25,
    ),
    Stage(
        0.36,
        _mix(1.0, 0.75, 0.45, ((0.42, 1.2, 24), (0.31, 3.5, 11), (0.27, 8, 6))),
        0.2,
        0.2,
    ),
)


ACCENTED = 0.85
"""Up to this share of the time recorded people count twice."""


def stage_at(done: float) -> Stage:
    """The stage of this fraction of the time."""
    for stage in STAGES:
        if done < stage.share:
            return stage
        done -= stage.share
    return STAGES[-1]


@dataclass
class Batch:
    """Tensors of one step."""

    mels: Tensor
    rest: Rest
    inputs: Tensor
    targets: Tensor  # -1 where nothing is asked
    spans: list[tuple[int, int, int, int]]  # item, row, first and last encoder position
    ctc: list[list[int]]
    ctc_lengths: list[int]


def collate(
    windows: list[Window], tokens: TokenSet, mouths: Mouths, rng: np.random.Generator, mask: float
) -> Batch:
    """Windows of one length -> a batch, with some of the spectrogram masked."""
    audio = torch.from_numpy(np.stack([w.audio for w in windows]))
    mels = mouths.log_mel(audio, [w.mouth for w in windows], rng)
    zeros = torch.tensor([w.zero_features for w in windows])
    values = torch.where(zeros, torch.zeros(()), mels.amax((1, 2)) - 2).clamp(min=-1.5)
    longest = max(len(w.tokens) for w in windows) - 1
    inputs = torch.full((len(windows), longest), tokens.compact(EOT))
    targets = torch.full((len(windows), longest), -1)
    spans = []
    for i, w in enumerate(windows):
        if w.zero_features:
            mels[i, :, math.ceil(w.valid / 160) :] = 0
        _mask(mels[i], w.valid // 160, rng, mask)
        ids = [tokens.compact(t) for t in w.tokens]
        inputs[i, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[i, w.loss_from : len(ids) - 1] = torch.tensor(ids[w.loss_from + 1 :])
        if not w.placed and len(ids) - w.loss_from <= 6:
            targets[i, w.loss_from] = tokens.compact(NO_SPEECH)
        last = mels.shape[2] // 2 - 1
        for row, start, end in w.spans:
            first = min(max(int(start * 50), 0), last)
            spans.append((i, row, first, min(max(int(end * 50), first), last)))
    lengths = [max(1, min(len(w.audio), w.valid + FRAME) // FRAME) for w in windows]
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    length = mels.shape[2] // 2
    brief = rng.random() < 0.3  # as engines see it that do not fill windows up to 30 s
    total = min(length + int(rng.integers(10, 150)), AUDIO_POSITIONS) if brief else AUDIO_POSITIONS
    rest = Rest.sample(values, length, generator, total)
    return Batch(mels, rest, inputs, targets, spans, [ctc_ids(w.ctc) for w in windows], lengths)


def _mask(mel: Tensor, frames: int, rng: np.random.Generator, strength: float) -> None:
    """SpecAugment (Park et al. 2019): bands and short stretches set to the mean."""
    for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.8 * strength else 0):
        low = int(rng.integers(0, 70))
        mel[low : low + int(rng.integers(2, 14))] = mel.mean()
    for _ in range(int(rng.integers(0, 3)) if rng.random() < strength else 0):
        at = int(rng.integers(0, max(frames, 1)))
        mel[:, at : at + int(rng.integers(2, 12))] = mel.mean()


class Feed(IterableDataset[Batch]):
    """Makes batches in a process beside the trainer, which tells it how far the run is."""

    def __init__(self, rank: int, step: int, done: Tensor, tokens: TokenSet) -> None:
        self.rank, self.step, self.done, self.tokens = rank, step, done, tokens

    def __iter__(self) -> Iterator[Batch]:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        torch.set_num_threads(1)
        rng = np.random.default_rng([7, self.rank, self.step])
        accented = True
        maker = Maker(Corpus(DATA, held=False, accents=2), Noises(3), self.tokens)
        mouths, step = Mouths(9), self.step
        while True:
            done = float(self.done[0])
            if accented and done >= ACCENTED:
                accented, maker.corpus = False, Corpus(DATA, held=False)
            stage = stage_at(done)
            shared = np.random.default_rng([11, step])  # the same choice in every process
            share = [p for p, _, _ in stage.parts]
            _, count, recipe = stage.parts[int(shared.choice(len(share), p=share))]
            windows = [maker.window(rng, recipe) for _ in range(count)]
            yield collate(windows, self.tokens, mouths, rng, recipe.strength)
            step += 1
