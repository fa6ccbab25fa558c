"""What was measured, where, with what."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIBRARIES = ("ctranslate2", "faster-whisper", "openvino", "av", "torch", "transformers")


def about(args: argparse.Namespace, state: dict[str, Any]) -> dict[str, Any]:
    """The head of a report; ``state`` is what the server's ``/ready`` says."""
    commit, changed = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain", "-uno")
    told = ("engine", "device", "compute_type", "replicas", "chosen_because")
    return {
        "commit": (commit or "unknown") + ("-changed" if changed else ""),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
        "server": {key: state[key] for key in told},
        "arguments": {key: str(value) for key, value in vars(args).items()},
    }


def memory_mb(process: int) -> float | None:
    """Most resident memory that a process and its children have had, where the system tells.

    The children's peaks are added, as if all had come at the same time.
    """
    found = [_peak(process), *(memory_mb(child) for child in _children(process))]
    known = [value for value in found if value is not None]
    return sum(known) if known else None


def cpu_seconds(process: int) -> float:
    """Processor time of a process, its children and theirs; 0 where the system does not tell."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.is_file():
        return 0.0
    spent = stat.read_text().rpartition(")")[2].split()[11:15]  # own and of ended children
    own = sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_seconds, _children(process)))


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n") if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _peak(process: int) -> float | None:
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peaks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return peaks[0] if peaks else None


def _children(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(number) for number in task.read_text().split()]
    return found


def _git(*words: str) -> str:
    command = ["git", *words]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
