"""Freed memory goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Blocks below malloc's threshold for mappings, with a last one that keeps the heap from shrinking.
HOLDING = """
from pathlib import Path
from whisper_api.engines.trim import trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

blocks = [bytearray(100_000) for _ in range(600)]
last = bytearray(b"x" * 100_000)
del blocks
before = resident()
trim()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators than glibc's")
def test_freed_blocks_leave_the_process() -> None:
    run = subprocess.run(
        [sys.executable, "-c", HOLDING], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 30_000_000
