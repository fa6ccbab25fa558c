"""Whether a model may read windows shorter than 30 s without silence behind them.

    python short.py [--human FOLDER] [--model ../src/whisper_api/assets/bundled] [--count 360]

Measures the model through the server's own pipeline, with and without that silence
(``benchmarks/accuracy.py`` with ``short_windows`` at ``never`` and ``always``). It may, where no kind
of synthetic speech is heard worse by more than half a point. ``evaluate.py --write`` asks, too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ACCURACY = HERE.parent / "benchmarks" / "accuracy.py"
BUNDLED = HERE.parent / "src" / "whisper_api" / "assets" / "bundled"
WRONG = ("wer_en", "wer_ru", "wer_en_10db", "wer_ru_10db", "translate_ru")
RIGHT = ("language_detected_en", "language_detected_ru", "empty_on_non_speech")
PEOPLE = "human_digits"  # told, but recordings of people choose nothing
LIMIT = 0.005

Figures = dict[str, float]


def compare(model: Path, human: Path | None, count: int) -> dict[str, float | bool]:
    """How much worse each figure is without silence (below 0: better), and the verdict."""
    full, short = (measure(model, human, count, how) for how in ("never", "always"))
    return judge(full, short)


def judge(full: Figures, short: Figures) -> dict[str, float | bool]:
    """Differences of the figures that both have; ``allowed`` says whether all are small."""
    worse = {name: short[name] - full[name] for name in WRONG if name in full}
    worse |= {name: full[name] - short[name] for name in RIGHT if name in full}
    allowed = all(value <= LIMIT for value in worse.values())
    if PEOPLE in full:
        worse[PEOPLE] = full[PEOPLE] - short[PEOPLE]
    speed = full["real_time_factor"] / max(short["real_time_factor"], 1e-9)
    rounded = {f"{name}_worse_by": round(value, 4) for name, value in worse.items()}
    return rounded | {"long_file_times_faster": round(speed, 2), "allowed": allowed}


def measure(model: Path, human: Path | None, count: int, how: str) -> Figures:
    """The figures of ``benchmarks/accuracy.py`` with the setting at ``how``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, str(ACCURACY), "--held", str(HERE / "data")]
        command += ["--count", str(count), "--json", str(out)]
        command += ["--digits", str(human)] if human else []
        settings = {
            "WHISPER_API_SHORT_WINDOWS": how,
            "WHISPER_API_MODEL_PATH": str(model),
            "WHISPER_API_DATA_DIR": folder,
        }
        subprocess.run(command, check=True, env=os.environ | settings)
        return dict(json.loads(out.read_text(encoding="utf-8")))


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--human", type=Path, help="folder of human digits")
    parser.add_argument("--count", type=int, default=360)
    options = parser.parse_args()
    print(json.dumps(compare(options.model, options.human, options.count), indent=1))


if __name__ == "__main__":
    main()
