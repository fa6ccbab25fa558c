"""The storage of uploads in parts: what counts after a crash, and when an upload goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from whisper_api.config import Settings
from whisper_api.errors import Conflict, NotFound
from whisper_api.types import Caller
from whisper_api.uploads import SAFE_BYTES, UploadStore

ME = Caller()


class Clock:
    """Time that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Unix seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> UploadStore:
    return UploadStore(Settings(data_dir=tmp_path, upload_expiry_hours=1), clock=clock)


def test_bytes_that_never_became_safe_are_dropped_and_sent_again(store: UploadStore) -> None:
    upload = store.create(ME, 8, "a.wav")
    with store.append(upload.id, ME, 0) as writer:
        writer.write(b"0123")
        writer.finish()
    with store.append(upload.id, ME, 4) as writer:
        writer.write(b"lost")  # the process dies before finish()
    assert store.get(upload.id, ME).offset == 4
    with store.append(upload.id, ME, 4) as writer:
        writer.write(b"4567")
        assert writer.finish().complete
    assert store.path(upload.id).read_bytes() == b"01234567"


def test_a_long_write_becomes_safe_on_the_way(store: UploadStore) -> None:
    upload = store.create(ME, 2 * SAFE_BYTES, "a.wav")
    with store.append(upload.id, ME, 0) as writer:
        writer.write(b"x" * SAFE_BYTES)
        writer.write(b"y" * 10)
    assert store.get(upload.id, ME).offset == SAFE_BYTES


def test_two_writers_at_once_are_told_apart(store: UploadStore) -> None:
    upload = store.create(ME, 8, "a.wav")
    with store.append(upload.id, ME, 0) as writer:
        with pytest.raises(Conflict, match="Another request"):
            store.append(upload.id, ME, 0)
        writer.write(b"0123")
        writer.finish()
    with store.append(upload.id, ME, 4):
        pass


def test_an_upload_expires_so_long_after_its_last_byte(store: UploadStore, clock: Clock) -> None:
    upload = store.create(ME, 8, "a.wav")
    clock.now += 3000
    with store.append(upload.id, ME, 0) as writer:
        writer.write(b"0123")
        writer.finish()
    clock.now += 3000
    assert store.sweep() == 0
    clock.now += 601
    with pytest.raises(NotFound):
        store.get(upload.id, ME)
    assert store.sweep() == 1
    assert not list(store.path(upload.id).parent.iterdir())


@pytest.mark.parametrize("ident", ["", "upload_", "../secrets", "upload_" + "0" * 31 + "/"])
def test_an_id_is_never_a_path(store: UploadStore, ident: str) -> None:
    with pytest.raises(NotFound):
        store.get(ident, ME)


def test_an_upload_belongs_to_the_key_that_made_it(store: UploadStore) -> None:
    one, two, admin = Caller("a", admin=False), Caller("b", admin=False), Caller("c", admin=True)
    upload = store.create(one, 8, "a.wav")
    assert store.get(upload.id, one) == store.get(upload.id, admin) == upload
    for refused in (store.get, store.remove):
        with pytest.raises(NotFound):
            refused(upload.id, two)
    with pytest.raises(NotFound):
        store.append(upload.id, two, 0)


def test_a_delete_while_bytes_come_leaves_nothing(store: UploadStore) -> None:
    upload = store.create(ME, 8, "a.wav")
    with store.append(upload.id, ME, 0) as writer:
        writer.write(b"0123")
        store.remove(upload.id, ME)
        with pytest.raises(NotFound):
            writer.finish()
    assert not list(store.path(upload.id).parent.iterdir())
    with pytest.raises(NotFound):
        store.append(upload.id, ME, 4)


@pytest.mark.parametrize("between", ["open", "replace"])
def test_a_delete_at_any_moment_of_a_write_leaves_nothing(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    upload = store.create(ME, 8, "a.wav")
    with store.append(upload.id, ME, 0) as writer:
        writer.write(b"0123")
        real = getattr(Path, between)

        def late(path: Path, *args: Any, **options: Any) -> Any:
            if path.suffix == ".tmp":
                store.remove(upload.id, ME)
            return real(path, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, between, late)
            with pytest.raises(NotFound):
                writer.finish()
    assert not list(store.path(upload.id).parent.iterdir())


def test_a_delete_that_was_cut_off_is_finished_later(store: UploadStore) -> None:
    upload = store.create(ME, 8, "a.wav")
    store.path(upload.id).unlink()
    with pytest.raises(NotFound):
        store.append(upload.id, ME, 0)
    assert store.sweep() == 1
    assert not list(store.path(upload.id).parent.iterdir())
