"""Make ``tests/data/speech/`` anew: numbers said by espeak-ng (not needed to run the tests).

python tests/data/make_speech.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.conftest import encoded  # noqa: E402

SAID = {
    "ru-523": ("ru", "пятьсот двадцать три"),
    "ru-1-to-5": ("ru+m3", "один два три четыре пять"),
}


def main() -> None:
    """Say each of ``SAID`` and store it as Opus in Ogg."""
    for name, (voice, text) in SAID.items():
        command = ["espeak-ng", "-v", voice, "-s", "140", "--stdout", text]
        wav = subprocess.run(command, check=True, capture_output=True).stdout
        (HERE / "speech" / f"{name}.ogg").write_bytes(encoded(wav, "ogg"))


if __name__ == "__main__":
    main()
