"""Files of the server itself: only what truly lies in an allowed folder, and regular files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.intake import intake
from tests.media import make, tone

from whisper_api.audio.decode import Decoder
from whisper_api.audio.scratch import Scratch
from whisper_api.errors import (
    FileTooLarge,
    PathRefused,
)

SOUND = make("wav", tone(0.5))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of allowed files beside things that are not."""
    shelf = tmp_path / "shelf"
    (shelf / "sub").mkdir(parents=True)
    (shelf / "sub" / "talk.wav").write_bytes(SOUND)
    (tmp_path / "secret.wav").write_bytes(SOUND)
    (tmp_path / "shelf-not").mkdir()
    (tmp_path / "shelf-not" / "talk.wav").write_bytes(SOUND)
    return shelf


async def test_a_path_inside(decoder: Decoder, scratch: Scratch, shelf: Path) -> None:
    door = intake(decoder, directories=(shelf,))
    for path in (shelf / "sub" / "talk.wav", shelf / "sub" / ".." / "sub" / "talk.wav"):
        file = await door.from_path(scratch, str(path))
        assert (file.name, file.size) == ("talk.wav", len(SOUND))
        assert file.path.parent == scratch.folder


async def test_a_link_to_an_allowed_folder(
    decoder: Decoder, scratch: Scratch, shelf: Path, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(shelf)
    for roots in ((shelf,), (tmp_path / "alias",)):
        door = intake(decoder, directories=roots)
        file = await door.from_path(scratch, str(tmp_path / "alias" / "sub" / "talk.wav"))
        assert file.name == "talk.wav"


async def test_paths_that_are_refused(
    decoder: Decoder, scratch: Scratch, shelf: Path, tmp_path: Path
) -> None:
    (shelf / "link.wav").symlink_to(tmp_path / "secret.wav")
    (shelf / "folder").symlink_to(tmp_path)
    os.mkfifo(shelf / "pipe.wav")
    refused = [
        str(tmp_path / "secret.wav"),
        str(shelf / ".." / "secret.wav"),
        str(shelf) + "-not/talk.wav",
        str(shelf / "link.wav"),
        str(shelf / "folder" / "secret.wav"),
        str(shelf / "missing.wav"),
        str(shelf / "sub"),
        str(shelf),
        str(shelf / "pipe.wav"),
        "/dev/zero",
        "/proc/self/environ",
        "secret.wav",
        "",
        "x\0y",
        "~root/x.wav",
        "x" * 5000,
    ]
    door = intake(decoder, directories=(shelf,))
    for path in refused:
        with pytest.raises(PathRefused) as caught:
            await door.from_path(scratch, path)
        assert caught.value.param == "file_path"
        assert str(tmp_path) not in caught.value.message
    assert [path for path in scratch.folder.iterdir() if path.stat().st_size] == []


async def test_outside_nothing_tells_whether_it_exists(
    decoder: Decoder, scratch: Scratch, shelf: Path, tmp_path: Path
) -> None:
    door = intake(decoder, directories=(shelf,))
    messages = set()
    for name in ("secret.wav", "no-such-file.wav"):
        with pytest.raises(PathRefused) as caught:
            await door.from_path(scratch, str(tmp_path / name))
        messages.add((caught.value.message, caught.value.code))
    assert len(messages) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_folder_swapped_for_a_link_meanwhile(
    decoder: Decoder,
    scratch: Scratch,
    shelf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from whisper_api.audio import paths

    real_open = paths._open_regular

    def swap_then_open(path: Path) -> Any:
        (shelf / "sub" / "talk.wav").unlink()
        (shelf / "sub").rmdir()
        (shelf / "sub").symlink_to(tmp_path / "shelf-not")
        return real_open(path)

    monkeypatch.setattr(paths, "_open_regular", swap_then_open)
    with pytest.raises(PathRefused):
        await intake(decoder, directories=(shelf,)).from_path(
            scratch, str(shelf / "sub" / "talk.wav")
        )


async def test_local_paths_are_off_by_default(
    decoder: Decoder, scratch: Scratch, shelf: Path
) -> None:
    with pytest.raises(PathRefused, match="allowed_directories"):
        await intake(decoder).from_path(scratch, str(shelf / "sub" / "talk.wav"))


async def test_a_local_path_is_capped(decoder: Decoder, scratch: Scratch, shelf: Path) -> None:
    door = intake(decoder, directories=(shelf,), max_file_size_mb=0.001)
    with pytest.raises(FileTooLarge):
        await door.from_path(scratch, str(shelf / "sub" / "talk.wav"))


async def test_the_owner_may_name_any_file(
    decoder: Decoder, scratch: Scratch, tmp_path: Path
) -> None:
    (tmp_path / "talk.wav").write_bytes(SOUND)
    file = await intake(decoder).from_own_path(scratch, tmp_path / "talk.wav")
    assert file.name == "talk.wav"
    for path in (tmp_path, tmp_path / "none.wav"):
        with pytest.raises(PathRefused):
            await intake(decoder).from_own_path(scratch, path)
