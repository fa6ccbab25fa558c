"""Virtual environments of their own, for tests against other libraries or other versions.

They are made once and kept: under ``WHISPER_API_TEST_ENVS``, or ``~/.cache/whisper-api-tests``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path


def ensure_env(name: str, requirements: Sequence[str]) -> Path:
    """The python of an environment with exactly these requirements (each pinned).

    Raises:
        ValueError: a requirement has no exact version.
        subprocess.CalledProcessError: pip failed; its output is on the terminal.
    """
    loose = [requirement for requirement in requirements if "==" not in requirement]
    if loose:
        raise ValueError(f"pin these exactly: {', '.join(loose)}")
    text = "\n".join([sys.version.split()[0], *requirements])
    home = _root() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (home / "complete").is_file():
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True, symlinks=os.name != "nt")
        command = [str(python), "-m", "pip", "install", "--quiet", *requirements]
        subprocess.run(command, check=True, timeout=1800)
        (home / "complete").touch()
    return python


def _root() -> Path:
    said = os.environ.get("WHISPER_API_TEST_ENVS")
    return Path(said) if said else Path.home() / ".cache" / "whisper-api-tests"
