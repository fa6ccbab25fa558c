"""Pulling models from a stand-in for the hub: choice of files, resuming, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hub import COMMIT, Hub, serve_hub

from whisper_api.config import Settings
from whisper_api.errors import ModelBroken, ModelNotFound, ServerError
from whisper_api.hub import choose_files
from whisper_api.model_names import SHORT_NAMES
from whisper_api.models import ModelStore


def make(tmp_path: Path, **settings: Any) -> ModelStore:
    return ModelStore(Settings(data_dir=tmp_path / "data", **settings))


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["model.bin", "vocabulary.txt", "x.md"], ["model.bin", "vocabulary.txt"]),
        (
            ["pytorch_model.bin", "model.safetensors", "config.json", "flax_model.msgpack"],
            ["model.safetensors", "config.json"],
        ),
        (
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.fp32-00001-of-00002.safetensors",
            ],
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
        ),
    ],
)
def test_only_needed_files_are_chosen(names: list[str], wanted: list[str]) -> None:
    assert choose_files(names, "o/n") == wanted


@pytest.mark.parametrize(
    ("names", "message"),
    [(["pytorch_model.bin", "config.json"], "pickled"), (["README.md"], "no Whisper weights")],
)
def test_repositories_without_readable_weights_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ModelBroken, match=message):
        choose_files(names, "o/n")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as running:
        yield running


_PULL = """
import json, sys
from whisper_api.config import Settings
from whisper_api.errors import WhisperApiError
from whisper_api.models import ModelStore
store = ModelStore(Settings(data_dir=sys.argv[1]))
seen = []
try:
    revision = sys.argv[3] or None
    files = store.pull(sys.argv[2], lambda done, total: seen.append((done, total)), revision)
    print(json.dumps({"id": files.id, "path": str(files.path), "seen": seen[-1]}))
except WhisperApiError as error:
    print(json.dumps({"error": type(error).__name__, "message": error.message}))
"""


def start_pull(tmp_path: Path, hub: Hub, name: str, revision: str = "") -> subprocess.Popen[str]:
    """In a process of its own: the hub's address is read when its library is imported."""
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "PATH": "",
        "HOME": str(tmp_path),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", _PULL, str(tmp_path / "data"), name, revision],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def pull(tmp_path: Path, hub: Hub, name: str, revision: str = "") -> dict[str, Any]:
    process = start_pull(tmp_path, hub, name, revision)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return answer


def test_pulling_a_converted_model(tmp_path: Path, hub: Hub, converted: Path) -> None:
    hub.repositories["team/asr"] = converted
    (extra := tmp_path / "repo").mkdir()
    shutil.copytree(converted, extra, dirs_exist_ok=True)
    (extra / "README.md").write_text("x" * 1000)
    hub.repositories["team/asr"] = extra
    answer = pull(tmp_path, hub, "team/asr")
    total = sum(p.stat().st_size for p in converted.iterdir())
    assert answer["id"] == "team/asr"
    assert answer["seen"] == [total, total]
    store = make(tmp_path)
    files = store.resolve("team/asr")
    assert str(files.path) == answer["path"]
    entry = next(entry for entry in store.list() if entry.id == "team/asr")
    assert (entry.source, entry.revision) == ("team/asr", COMMIT)
    assert "README.md" not in hub.sent
    assert [path.name for path in files.path.iterdir() if path.name.startswith(".")] == []
    assert list((tmp_path / "data" / "models" / ".downloads").iterdir()) == []


def test_pulling_safetensors_converts_them(tmp_path: Path, hub: Hub, checkpoint: Path) -> None:
    hub.repositories["team/hf"] = checkpoint
    assert pull(tmp_path, hub, "team/hf")["id"] == "team/hf"
    files = make(tmp_path).resolve("team/hf")
    assert (files.path / "model.bin").is_file()
    assert not (files.path / "model.safetensors").exists()


def test_a_short_name_is_pulled_at_its_pinned_commit(
    tmp_path: Path, hub: Hub, converted: Path
) -> None:
    small = SHORT_NAMES["small"]
    hub.repositories[small.repository] = converted
    assert pull(tmp_path, hub, "small")["error"] == "ModelNotFound"
    hub.revisions[small.revision] = small.revision
    assert pull(tmp_path, hub, "small")["id"] == "small"
    assert any(small.revision in asked for asked in hub.asked)
    assert make(tmp_path, model_path="small").resolve("whisper-1").id == "small"


@pytest.fixture
def large(tmp_path: Path, converted: Path) -> Path:
    """A model whose weights are 20 MB longer."""
    folder = Path(shutil.copytree(converted, tmp_path / "large"))
    with (folder / "model.bin").open("ab") as file:
        file.write(bytes(range(256)) * 80_000)
    return folder


def check_resumed(tmp_path: Path, hub: Hub, large: Path) -> None:
    got = make(tmp_path).resolve("team/asr").path / "model.bin"
    assert got.read_bytes() == (large / "model.bin").read_bytes()
    assert hub.sent["model.bin"] < (large / "model.bin").stat().st_size + 4_000_000


def test_a_broken_connection_is_resumed(tmp_path: Path, hub: Hub, large: Path) -> None:
    hub.repositories["team/asr"] = large
    hub.cut_after["model.bin"] = 16_000_000
    assert pull(tmp_path, hub, "team/asr")["id"] == "team/asr"
    check_resumed(tmp_path, hub, large)


def test_a_killed_download_is_resumed(tmp_path: Path, hub: Hub, large: Path) -> None:
    hub.repositories["team/asr"] = large
    hub.hold_after["model.bin"] = 16_000_000
    process = start_pull(tmp_path, hub, "team/asr")
    downloads = tmp_path / "data" / "models" / ".downloads"
    arrived = 0
    for _ in range(600):
        arrived = sum(p.stat().st_size for p in downloads.rglob("*") if p.is_file())
        if arrived > 14_000_000:
            break
        time.sleep(0.05)
    process.kill()
    process.communicate()
    hub.released.set()
    assert arrived > 14_000_000
    with pytest.raises(ModelNotFound):
        make(tmp_path).resolve("team/asr")
    assert pull(tmp_path, hub, "team/asr")["id"] == "team/asr"
    check_resumed(tmp_path, hub, large)


def test_a_file_that_arrives_changed_is_not_used(tmp_path: Path, hub: Hub, converted: Path) -> None:
    hub.repositories["team/asr"] = converted
    hub.wrong_digest.add("model.bin")
    answer = pull(tmp_path, hub, "team/asr")
    assert answer["error"] == "ServerError"
    assert "model.bin did not arrive" in answer["message"]
    hub.wrong_digest.clear()
    assert pull(tmp_path, hub, "team/asr")["id"] == "team/asr"


def test_what_the_hub_does_not_have(tmp_path: Path, hub: Hub, converted: Path) -> None:
    assert "no model 'team/none'" in pull(tmp_path, hub, "team/none")["message"]
    hub.repositories["team/asr"] = converted
    assert "no such revision" in pull(tmp_path, hub, "team/asr", "v9")["message"]
    (bad := tmp_path / "bad").mkdir()
    (bad / "pytorch_model.bin").write_bytes(b"x")
    hub.repositories["team/bad"] = bad
    assert "pickled" in pull(tmp_path, hub, "team/bad")["message"]
    assert hub.sent == {}
    hub.url = "http://127.0.0.1:9"
    answer = pull(tmp_path, hub, "team/asr")
    assert answer["error"] == "ServerError"
    assert "import a folder" in answer["message"]


def test_offline_never_asks(tmp_path: Path) -> None:
    store = make(tmp_path, offline=True, model_path="small")
    with pytest.raises(ServerError, match="offline is set"):
        store.prepare()
    with pytest.raises(ModelNotFound):
        make(tmp_path).pull("klingon")


def test_prepare_pulls_a_missing_default_and_nothing_else(
    tmp_path: Path, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fake_fetch(model: Any, folder: Path, progress: Any) -> tuple[Path, str]:
        asked.append(model.repository)
        shutil.copytree(converted, folder, dirs_exist_ok=True)
        return folder, COMMIT

    monkeypatch.setattr("whisper_api.models.fetch", fake_fetch)
    store = make(tmp_path, model_path="turbo")
    assert store.prepare().id == "large-v3-turbo"
    assert store.prepare().path == store.resolve().path
    assert asked == [SHORT_NAMES["large-v3-turbo"].repository]
    assert make(tmp_path).prepare().id == "bundled"
