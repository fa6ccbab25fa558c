"""Check that a wheel carries everything that is not code: the page, the model, the sample.

Usage: python scripts/check_wheel.py dist/whisper_api_server-….whl
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def expected() -> set[str]:
    """Every file under src/ that git knows, as the wheel names it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "src"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name.removeprefix("src/") for name in listed.stdout.split("\0") if name}


def main(wheel: str) -> int:
    """Print what is missing; 1 when anything is."""
    held = set(zipfile.ZipFile(wheel).namelist())
    missing = sorted(expected() - held)
    for name in missing:
        print(f"missing in the wheel: {name}", file=sys.stderr)
    for folder in ("whisper_api/web/", "whisper_api/assets/"):
        if not any(name.startswith(folder) for name in held):
            missing.append(folder)
            print(f"the wheel holds nothing under {folder}", file=sys.stderr)
    megabytes = Path(wheel).stat().st_size / 1e6
    print(f"{Path(wheel).name}: {len(held)} files, {megabytes:.1f} MB")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
