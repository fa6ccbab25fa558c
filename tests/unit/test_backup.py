"""Backup and restore, by the commands that docs/history.md gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.records import ROOT, Kept

from whisper_api.audio.scratch import Scratch
from whisper_api.backup import Copied, back_up
from whisper_api.config import Settings
from whisper_api.errors import ServerError, SettingsError, StorageFull

DOCS = Path(__file__).resolve().parents[2] / "docs" / "history.md"


def commands() -> list[str]:
    """The code blocks of the section on backups: backup, restore."""
    section = DOCS.read_text("utf-8").split("## Backup and restore")[1]
    found = re.findall(r"(?:^    .+\n)+", section, re.MULTILINE)
    assert len(found) == 2
    return found


def run(script: str, data: Path, backup: Path) -> str:
    path = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["sh", "-ec", script],
        env={
            "PATH": f"{path}:/usr/bin:/bin",
            "DATA_DIR": str(data),
            "BACKUP": str(backup),
            "WHISPER_API_DATA_DIR": str(data),
        },
        cwd=data.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a Unix shell")
async def test_what_was_backed_up_comes_back_with_the_documented_commands(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backups" / "today"
    kept = Kept(Settings(data_dir=data))
    kept.database.migrate()
    file = kept.file(b"RIFF one")
    id = await kept.add("words to find", audio=file)
    make, restore = commands()
    # The database is open, as a running server has it.
    assert "database and 1 audio files copied" in run(make, data, backup)
    await kept.history.delete(id, ROOT)
    await kept.add("added later", audio=kept.file(b"RIFF two"))
    kept.database.close()
    run(restore, data, backup)
    kept = Kept(Settings(data_dir=data))
    kept.database.migrate()
    assert await kept.found("find") == [id]
    assert await kept.found("later") == []
    with Scratch.create(tmp_path / "scratch") as scratch:
        assert (await kept.audio.file(file.digest, scratch)).path.read_bytes() == b"RIFF one"
    kept.database.close()


async def test_a_second_backup_copies_what_is_new_and_drops_what_is_gone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    kept = Kept(settings)
    kept.database.migrate()
    first = await kept.add("one", audio=kept.file(b"one"))
    await kept.add("two", audio=kept.file(b"two"))
    target = tmp_path / "backup"
    assert back_up(settings, target) == Copied(audio=2, same=0, gone=0)
    await kept.history.delete(first, ROOT)
    await kept.add("three", audio=kept.file(b"three"))
    assert back_up(settings, target) == Copied(audio=1, same=1, gone=1)
    # A copy, not a link: what happens to the original does not reach it.
    (original,) = (tmp_path / "data" / "audio").glob(f"??/{kept.file(b'two').digest}")
    (copy,) = (target / "audio").glob(f"??/{original.name}")
    assert not copy.samefile(original)
    kept.database.close()


def test_a_backup_that_fails_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    kept = Kept(settings)
    kept.database.migrate()
    kept.database.close()
    target = tmp_path / "backup"
    back_up(settings, target)
    before = (target / "records.sqlite").read_bytes()

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(StorageFull):
            back_up(settings, target)
    assert (target / "records.sqlite").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="failed"):
        back_up(settings, tmp_path / "file")


def test_other_databases_have_tools_of_their_own(tmp_path: Path) -> None:
    for settings in (
        Settings(data_dir=tmp_path, database_url=SecretStr("postgresql://host/name")),
        Settings(data_dir=tmp_path, storage_url=SecretStr("memory://x")),
    ):
        with pytest.raises(SettingsError, match="pg_dump"):
            back_up(settings, tmp_path / "backup")
