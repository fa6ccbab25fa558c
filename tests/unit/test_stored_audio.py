"""Stored audio: whole or not there, kept once, gone with the last row that names it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import sqlalchemy as sa
from pydantic import SecretStr

from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.errors import NotFound, SettingsError, StorageFull
from whisper_api.storage import FolderStore, StorageUnavailable, open_store
from whisper_api.stored_audio import StoredAudio
from whisper_api.tables import audio, audio_holds, tasks
from whisper_api.types import AudioFile, Caller, Envelope

ANNA = Caller("anna", "Anna", admin=False)
BORIS = Caller("boris", "Boris", admin=False)


def make_file(folder: Path, content: bytes = b"RIFF1234") -> AudioFile:
    path = folder / f"upload-{len(list(folder.iterdir()))}"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return AudioFile(
        path, "Совещание.wav", len(content), digest, "wav", "pcm_s16le", "audio/wav", 1.5
    )


@pytest_asyncio.fixture(
    params=[
        "folder",
        "memory",
        pytest.param("postgresql", marks=pytest.mark.slow),
        pytest.param("s3", marks=pytest.mark.slow),
    ]
)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoredAudio]:
    """Stored audio on each kind of database and store."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    storage = f"memory://{tmp_path.name}" if request.param == "memory" else ""
    storage = request.getfixturevalue("s3_url") if request.param == "s3" else storage
    settings = Settings(
        data_dir=tmp_path / "data", database_url=SecretStr(url), storage_url=SecretStr(storage)
    )
    database = Database(settings)
    database.migrate()
    yield StoredAudio(settings, database)
    database.close()


def rows(kept: StoredAudio) -> tuple[int, int]:
    """How much audio and how many holds there are."""

    def work(connection: sa.Connection) -> tuple[int, int]:
        counted = [
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (audio, audio_holds)
        ]
        return counted[0], counted[1]

    return kept._database.work(work, write=False)


async def test_what_is_kept_comes_back_after_its_request(kept: StoredAudio, tmp_path: Path) -> None:
    file = make_file(tmp_path)
    hold = await kept.keep(file, "anna")
    file.path.unlink()
    with Scratch.create(tmp_path / "scratch") as scratch:
        found = await kept.file(hold.digest, scratch, "Совещание.wav")
        assert found.path.read_bytes() == b"RIFF1234"
        assert (found.name, found.codec, found.duration) == ("Совещание.wav", "pcm_s16le", 1.5)
    assert kept.store.size(hold.digest) == 8
    with kept.store.open(hold.digest) as stream:
        stream.seek(4)
        assert stream.read(2) == b"12"


async def test_the_same_content_is_kept_once_and_goes_with_its_last_hold(
    kept: StoredAudio, tmp_path: Path
) -> None:
    first = await kept.keep(make_file(tmp_path), "anna")
    second = await kept.keep(make_file(tmp_path), "boris")
    assert (first.digest, rows(kept)) == (second.digest, (1, 2))
    await kept.release(first)
    assert kept.store.size(first.digest) == 8
    await kept.release(second)
    assert (rows(kept), kept.store.size(first.digest)) == ((0, 0), None)
    await kept.release(second)


async def test_audio_that_a_task_names_outlives_its_hold(kept: StoredAudio, tmp_path: Path) -> None:
    hold = await kept.keep(make_file(tmp_path), "anna")
    task = tasks.insert().values(
        id="t", owner="anna", status="pending", created_at=1, name="x", source="upload",
        audio=hold.digest, options={},
    )  # fmt: skip
    await kept._database.run(lambda connection: connection.execute(task))
    await kept.release(hold)
    assert rows(kept) == (1, 0)
    assert await kept.sweep() == 0

    def delete(connection: sa.Connection) -> bool:
        connection.execute(tasks.delete())
        return kept.discard(connection, hold.digest)

    assert await kept._database.run(delete)
    assert kept.store.size(hold.digest) is None


async def test_a_hold_is_found_by_its_owner_and_by_admins(
    kept: StoredAudio, tmp_path: Path
) -> None:
    hold = await kept.keep(make_file(tmp_path), "anna", id="upload_1")
    assert (await kept.held("upload_1", ANNA)).digest == hold.digest
    assert (await kept.held("upload_1", Caller())).name == "Совещание.wav"
    for id, caller in (("upload_1", BORIS), ("upload_2", ANNA)):
        with pytest.raises(NotFound) as failure:
            await kept.held(id, caller)
        assert failure.value.param == "audio_id"


async def test_holds_that_are_over_end_with_the_sweep(kept: StoredAudio, tmp_path: Path) -> None:
    over = await kept.keep(make_file(tmp_path, b"over"), "anna", seconds=-1, id="over")
    current = await kept.keep(make_file(tmp_path, b"current"), "anna")
    with pytest.raises(NotFound):
        await kept.held("over", ANNA)
    assert await kept.sweep() == 1
    assert kept.store.size(over.digest) is None
    assert kept.store.size(current.digest) == 7


async def test_files_that_no_row_knows_go_when_they_are_old(
    kept: StoredAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = make_file(tmp_path, b"lost")
    known = await kept.keep(make_file(tmp_path, b"known"), "anna")
    await asyncio.to_thread(kept.store.put, lost.digest, lost.path)
    assert (await kept.sweep(), kept.store.size(lost.digest)) == (0, 4)
    monkeypatch.setattr("whisper_api.stored_audio.ORPHAN_SECONDS", -60)
    assert (await kept.sweep(), kept.store.size(lost.digest)) == (1, None)
    assert kept.store.size(known.digest) == 5


async def test_derived_files_go_with_their_audio(kept: StoredAudio, tmp_path: Path) -> None:
    hold = await kept.keep(make_file(tmp_path), "anna")
    kept.store.put(f"{hold.digest}.webm", make_file(tmp_path, b"derived").path)
    await kept.release(hold)
    assert kept.store.size(f"{hold.digest}.webm") is None


async def test_the_envelope_is_kept_beside_the_audio(kept: StoredAudio, tmp_path: Path) -> None:
    hold = await kept.keep(make_file(tmp_path), "anna")
    assert await kept.envelope(hold.digest) is None
    envelope = Envelope(1.5, 2.0, "00ff10", ((0.5, 1.0),))
    await kept.set_envelope(hold.digest, envelope)
    await kept.set_envelope(hold.digest, Envelope(9.0, 1.0, ""))
    assert await kept.envelope(hold.digest) == envelope
    with pytest.raises(NotFound):
        await kept.envelope("0" * 64)


async def test_keeping_and_releasing_the_same_content_at_once_loses_nothing(
    kept: StoredAudio, tmp_path: Path
) -> None:
    files = [make_file(tmp_path) for _ in range(24)]

    async def use(file: AudioFile) -> None:
        hold = await kept.keep(file, "anna")
        assert await asyncio.to_thread(kept.store.size, hold.digest) == 8
        await kept.release(hold)

    await asyncio.gather(*(use(file) for file in files))
    assert (rows(kept), kept.store.size(files[0].digest)) == ((0, 0), None)


async def test_a_full_disk_leaves_nothing_behind_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    database = Database(settings)
    database.migrate()
    kept = StoredAudio(settings, database)
    earlier = await kept.keep(make_file(tmp_path, b"earlier"), "anna")

    def full(source: object, target: object, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(StorageFull):
        await kept.keep(make_file(tmp_path, b"later"), "anna")
    assert rows(kept) == (1, 1)
    assert kept.store.size(earlier.digest) == 7
    assert not list((tmp_path / "data" / "audio").glob("*/*.part"))
    database.close()


def test_halves_that_a_crash_left_are_swept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    digest = "ab" + "0" * 62
    source = tmp_path / "source"
    source.write_bytes(b"x")
    store.put(digest, source)
    half, fresh = (tmp_path / "ab" / f"{digest}.{name}.part" for name in ("00", "11"))
    half.touch()
    fresh.touch()
    os.utime(half, (time.time() - 7200,) * 2)
    assert [key for key, _ in store.listing()] == [digest]
    assert (half.exists(), fresh.exists()) == (False, True)


def test_where_the_file_system_has_no_links_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "cross-device")

    monkeypatch.setattr(os, "link", no_links)
    store = FolderStore(tmp_path / "store")
    source = tmp_path / "source"
    source.write_bytes(b"content")
    store.put("0" * 64, source)
    source.write_bytes(b"changed")
    store.fetch("0" * 64, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"


@pytest.mark.parametrize("key", ["../../etc/passwd", "0" * 63, "0" * 64 + "/..", ""])
def test_keys_never_lead_out_of_the_store(key: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        FolderStore(tmp_path).open(key)


def test_stores_that_cannot_be_are_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="storage_url"):
        open_store(Settings(data_dir=tmp_path, storage_url=SecretStr("nonsense://bucket")))


@pytest.mark.slow
def test_an_object_store_that_is_away_or_without_the_bucket_is_told(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    store = open_store(Settings(data_dir=tmp_path, storage_url=SecretStr(f"{s3_url[:-7]}x/audio")))
    with pytest.raises(StorageUnavailable):
        store.put("0" * 64, source)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(Settings(data_dir=tmp_path, storage_url=SecretStr(s3_url)))
    for work in (lambda: store.size("0" * 64), lambda: store.open("0" * 64)):
        with pytest.raises(StorageUnavailable):
            work()


def test_a_store_that_is_away_is_told(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with pytest.raises(StorageUnavailable):
        FolderStore(blocked).put("0" * 64, source)
