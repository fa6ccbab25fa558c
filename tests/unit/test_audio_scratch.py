"""Scratch folders vanish with their request, and a sweep removes only what the dead left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from whisper_api.audio.scratch import Scratch, sweep

CHILD = """
import sys, time
from pathlib import Path
from whisper_api.audio.scratch import Scratch
scratch = Scratch.create(Path(sys.argv[1]))
scratch.path("x").write_bytes(b"left behind")
print(scratch.folder, flush=True)
time.sleep(60)
"""


def requests(root: Path) -> list[Path]:
    return [path for path in root.glob("*-*/request-*") if path.is_dir()]


def start_child(root: Path) -> tuple[subprocess.Popen[str], Path]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def end_child(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    child.communicate()


def test_folder_is_removed_with_its_files(tmp_path: Path) -> None:
    with Scratch.create(tmp_path / "scratch") as scratch:
        scratch.path("input").write_bytes(b"x")
        scratch.unique("pcm", ".s16").write_bytes(b"y")
        assert requests(tmp_path / "scratch") == [scratch.folder]
    assert requests(tmp_path / "scratch") == []
    scratch.close()


def test_folder_is_removed_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Scratch.create(tmp_path) as scratch:  # noqa: PT012
        scratch.path("input").write_bytes(b"x")
        raise RuntimeError
    assert requests(tmp_path) == []


async def test_folder_is_removed_when_the_task_is_cancelled(tmp_path: Path) -> None:
    async def work() -> None:
        async with Scratch.create(tmp_path) as scratch:
            scratch.path("input").write_bytes(b"x")
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    assert len(requests(tmp_path)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert requests(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "x" * 101])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with Scratch.create(tmp_path) as scratch, pytest.raises(ValueError, match="scratch file name"):
        scratch.path(name)


def test_sweep_removes_the_dead_and_spares_the_living(tmp_path: Path) -> None:
    foreign = tmp_path / "notes"
    foreign.mkdir()
    (tmp_path / "other-thing.lock").write_text("not ours")
    dead, left = start_child(tmp_path)
    alive, kept = start_child(tmp_path)
    try:
        end_child(dead)
        with Scratch.create(tmp_path) as mine:
            assert sweep(tmp_path) == 1
            assert not left.exists()
            assert kept.exists()
            assert mine.folder.exists()
        assert sweep(tmp_path) == 0
        assert foreign.exists()
        assert (tmp_path / "other-thing.lock").exists()
    finally:
        end_child(alive)
    assert sweep(tmp_path) == 1


def test_sweep_of_a_missing_root_is_nothing(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none") == 0


def test_a_folder_swept_from_under_us_is_made_again(tmp_path: Path) -> None:
    Scratch.create(tmp_path).close()
    for path in tmp_path.glob("*.lock"):
        path.unlink()
    with Scratch.create(tmp_path) as scratch:
        assert scratch.folder.is_dir()
        assert list(tmp_path.glob("*.lock"))
