"""Greedy decoding in PyTorch and word errors, for choosing checkpoints while training."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from model import Whisper
from text import normalise
from tokens import EOT, FIRST_TIME, NO_TIMESTAMPS, TokenSet, tokenizer
from windows import Maker, Recipe, Window

HELD_COUNT = 160


def edit_distance(said: list[str], heard: list[str]) -> int:
    """Words to insert, delete or replace."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def held_out_windows(maker: Maker, recipe: Recipe, part: int, parts: int) -> list[Window]:
    """The same windows every time, shared out among the processes."""
    count = HELD_COUNT if recipe.seconds < 20 else 64
    made = (maker.window(np.random.default_rng([77, i]), recipe) for i in range(part, count, parts))
    return [w for w in made if w.placed]


@torch.no_grad()
def greedy(model: Whisper, audio: torch.Tensor, prompt: list[int], end: int, limit: int) -> list[list[int]]:
    """Compact ids after the prompt, for a batch."""
    tokens = torch.tensor([prompt] * len(audio))
    over = torch.zeros(len(audio), dtype=torch.bool)
    for _ in range(limit):
        step = model.decode(tokens, audio)[0][:, -1, :-1].argmax(-1)
        step[over] = end
        tokens = torch.cat([tokens, step[:, None]], 1)
        over |= step == end
        if bool(over.all()):
            break
    return [row[len(prompt) :].tolist() for row in tokens]


def score(
    model: Whisper, windows: list[Window], tokens: TokenSet, collate: Callable[[list[Window]], Any]
) -> tuple[float, ...]:
    """Sums: wrong and all words for en and ru, exact and all windows, start errors (s) and their count."""
    sums = dict.fromkeys(("en", "en_words", "ru", "ru_words", "exact", "count", "start", "starts"), 0.0)
    groups: dict[tuple[str, bool], list[Window]] = {}
    for window in windows:
        groups.setdefault((window.lang, NO_TIMESTAMPS not in window.tokens), []).append(window)
    for (lang, timed), members in groups.items():
        for at in range(0, len(members), 8):
            part = members[at : at + 8]
            batch = collate(part)
            with torch.no_grad():
                audio = model.encode(batch.mels, batch.offsets)
            prompt = [tokens.compact(t) for t in part[0].tokens[part[0].loss_from :][: 3 if timed else 4]]
            limit = max(len(w.tokens) for w in part) + 8
            for window, ids in zip(part, greedy(model, audio, prompt, tokens.compact(EOT), limit), strict=True):
                heard = [tokens.full(i) for i in ids]
                said = [w for words, _, _ in window.placed for w in words]
                text = normalise(tokenizer().decode([t for t in heard if t < EOT]))
                wrong = edit_distance(said, text)
                sums[lang] += wrong
                sums[f"{lang}_words"] += len(said)
                sums["exact"] += wrong == 0
                sums["count"] += 1
                if timed and heard and heard[0] >= FIRST_TIME:
                    first = (heard[0] - FIRST_TIME - window.offset) / 50
                    sums["start"] += min(abs(first - window.placed[0][1]), 2.0)
                    sums["starts"] += 1
    return tuple(sums.values())
