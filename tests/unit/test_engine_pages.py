"""Memory in pages of 2 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.waiting import PATIENCE_S

from whisper_api.engines.pages import _filled, expect_huge, make_huge

MB = 1 << 20


def mapping(start: int, mb: int, rss: int, huge: int, name: str = "", rights: str = "rw-p") -> str:
    """As /proc/<pid>/smaps has it, with fields left out."""
    inode = 7 if name.startswith("/") else 0
    return (
        f"{start:x}-{start + mb * MB:x} {rights} 00000000 00:00 {inode} {name}\n"
        f"Size: {mb << 10} kB\nRss: {rss << 10} kB\nAnonHugePages: {huge << 10} kB\n"
    )


def test_only_what_is_in_use_as_a_whole_is_moved() -> None:
    text = (
        mapping(0x10000000, 64, 64, 0)
        + mapping(0x20000000, 64, 63, 2, "[heap]")
        + mapping(0x30000000, 64, 40, 0)
        + mapping(0x40000000, 64, 64, 60)
        + mapping(0x50000000, 8, 8, 0)
        + mapping(0x60000000, 64, 64, 0, "/models/model.bin")
        + mapping(0x70000000, 64, 64, 0, rights="r--p")
    )
    found = [start for start, _ in _filled(text)]
    assert found == [0x10000000, 0x20000000]


@pytest.mark.skipif(sys.platform != "linux", reason="another system")
def test_what_lies_there_stays_and_takes_no_more_memory() -> None:
    """In a process of its own: what other tests left in this one is moved as well."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.test_engine_pages"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert before > 32 * MB
    assert after < before + 16 * MB


def move_an_array() -> None:
    """Prints this process's memory in bytes before and after."""
    array = np.arange(8 * MB, dtype=np.uint32)
    assert expect_huge(np.zeros(4 * MB, np.uint8)).sum() == 0
    before = resident()
    make_huge()
    assert array[-1] == 8 * MB - 1
    assert array.sum(dtype=np.uint64) == 4 * MB * (8 * MB - 1)
    print(before, resident())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    move_an_array()
