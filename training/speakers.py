"""Speakers of our own: espeak-ng variants with random vocal tracts, pitch, breath and sharpness.

A variant file scales each formant's frequency, height and width, so a few lines make a new mouth.
They lie in a copy of espeak-ng's data, under data/, since the library reads them from there only.
"""

import os
import shutil
from pathlib import Path

import numpy as np

from foreign import ENGLISH_DIGITS, RUSSIAN_DIGITS

LANGUAGES = set(ENGLISH_DIGITS) | set(RUSSIAN_DIGITS)
COUNT = 190
NAMES = [f"own{number}" for number in range(COUNT)]
BREATHY = [f"sigh{number}" for number in range(20)]
KEPT = set(
    "en en-US en-GB-scotland en-GB-x-rp en-GB-x-gbclan en-GB-x-gbcwmd en-029 en-US-nyc ru ru-LV".split()
)
SYSTEM = Path("/usr/lib/x86_64-linux-gnu/espeak-ng-data")


def variant(number: int) -> str:
    """The text of one variant file."""
    rng = np.random.default_rng([41, number])
    tract = float(np.exp(rng.uniform(-0.2, 0.22)))  # length of the vocal tract
    low = rng.uniform(65, 150) if tract < 1.02 else rng.uniform(110, 290)
    lines = [
        "language variant",
        f"name {NAMES[number]}",
        f"pitch {low:.0f} {low * rng.uniform(1.15, 1.8):.0f}",
    ]
    for formant in range(9):
        shift = tract * float(np.exp(rng.normal(0, 0.05 if formant else 0.02)))
        height, width = rng.uniform(60, 135), rng.uniform(60, 170)
        lines.append(f"formant {formant} {100 * shift:.0f} {height:.0f} {width:.0f}")
    if rng.random() < 0.4:
        lines.append("breath " + " ".join(f"{v:.0f}" for v in rng.uniform(0, 30, 6) * rng.random()))
    if rng.random() < 0.5:
        lines.append(f"flutter {rng.integers(0, 25)}")
    if rng.random() < 0.5:
        lines.append(f"roughness {rng.integers(0, 5)}")
    if rng.random() < 0.25:
        lines.append(f"klatt {rng.integers(1, 5)}")
    lines.append(f"voicing {rng.uniform(50, 150):.0f}")
    lines.append(f"consonants {rng.uniform(60, 150):.0f} {rng.uniform(60, 150):.0f}")
    if rng.random() < 0.3:
        lines.append("stressLength " + " ".join(f"{v:.0f}" for v in rng.uniform(120, 290, 8)))
    return "\n".join(lines) + "\n"


def breathy(number: int) -> str:
    """The text of a variant with much breath and little tone or none."""
    rng = np.random.default_rng([43, number])
    tract, low = float(np.exp(rng.uniform(-0.2, 0.22))), rng.uniform(60, 180)
    lines = ["language variant", f"name {BREATHY[number]}", f"pitch {low:.0f} {low * 1.3:.0f}"]
    for formant in range(8):
        shift = tract * float(np.exp(rng.normal(0, 0.05)))
        height = rng.uniform(0, 60) if formant == 0 else rng.uniform(60, 130)
        lines.append(f"formant {formant} {100 * shift:.0f} {height:.0f} {rng.uniform(70, 200):.0f}")
    lines.append(f"voicing {rng.uniform(0, 30):.0f}")
    falling = np.exp(-np.arange(6) * rng.uniform(0.1, 0.5)) * rng.uniform(50, 100)
    lines.append("breath " + " ".join(f"{v * rng.uniform(0.6, 1.4):.0f}" for v in falling))
    lines.append("breathw " + " ".join(f"{v:.0f}" for v in np.sort(rng.uniform(120, 500, 6))))
    if rng.random() < 0.6:
        lines.append(f"flutter {rng.integers(0, 25)}")
    return "\n".join(lines) + "\n"


def data_folder() -> Path:
    """A folder with espeak-ng's data and our variants, made at the first call."""
    folder = Path(__file__).parent / "data" / "espeak"
    if not folder.exists():
        partial = folder.with_name(f"espeak.{os.getpid()}")
        shutil.copytree(SYSTEM, partial / "espeak-ng-data")
        shutil.rmtree(partial / "espeak-ng-data" / "voices" / "mb", ignore_errors=True)
        for path in (partial / "espeak-ng-data" / "lang").rglob("*"):
            if path.is_file() and path.name not in KEPT | LANGUAGES:
                path.unlink()  # the library knows 350 voices at most
        for number, name in enumerate(NAMES):
            Path(partial, "espeak-ng-data", "voices", "!v", name).write_text(
                variant(number), "utf-8"
            )
        for number, name in enumerate(BREATHY):
            Path(partial, "espeak-ng-data", "voices", "!v", name).write_text(
                breathy(number), "utf-8"
            )
        try:
            partial.rename(folder)
        except OSError:  # the other process was first
            shutil.rmtree(partial)
    return folder
