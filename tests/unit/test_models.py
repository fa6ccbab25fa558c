"""The model store: names, folders, pulls from a stand-in hub, imports, removal."""

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
from tests.checkpoints import save_checkpoint
from tests.hub import COMMIT, Hub, serve_hub

from whisper_api.config import Settings
from whisper_api.convert import convert_folder
from whisper_api.errors import ModelBroken, ModelNotFound, ServerError
from whisper_api.hub import choose_files
from whisper_api.model_folder import describe
from whisper_api.model_names import (
    OPENAI_NAMES,
    SHORT_NAMES,
    check_name,
    folder_name,
    hub_model,
)
from whisper_api.models import ModelStore


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder; not to be changed."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "finetuned-v1.2")


@pytest.fixture(scope="module")
def converted(checkpoint: Path) -> Path:
    """The same as a CTranslate2 folder; not to be changed."""
    target = checkpoint.parent / "ct2"
    convert_folder(checkpoint, target, "int8")
    return target


def make(tmp_path: Path, **settings: Any) -> ModelStore:
    return ModelStore(Settings(data_dir=tmp_path / "data", **settings))


# --- the default, aliases -----------------------------------------------------------------------


def test_the_bundled_model_is_the_default(tmp_path: Path) -> None:
    files = make(tmp_path).resolve()
    assert (files.id, files.kind, files.vocabulary_size) == ("bundled", "ctranslate2", 51_865)
    assert {"en", "ru"} == set(files.languages)
    assert "knows" in files.note
    assert (files.path / "model.bin").is_file()


@pytest.mark.parametrize("name", [*OPENAI_NAMES, "bundled", "", None])
def test_openais_names_mean_the_default(tmp_path: Path, name: str | None) -> None:
    assert make(tmp_path).resolve(name).id == "bundled"


def test_the_bundled_model_can_be_named_beside_another_default(
    tmp_path: Path, converted: Path
) -> None:
    store = make(tmp_path, model_path=str(converted))
    assert store.resolve("whisper-1").id == "ct2"
    assert store.resolve("bundled").id == "bundled"


def test_the_list_begins_with_the_default_and_holds_every_name(tmp_path: Path) -> None:
    entries = make(tmp_path).list()
    assert (entries[0].id, entries[0].default) == ("bundled", True)
    assert entries[0].size > 1_000_000
    assert [entry.id for entry in entries[1:]] == list(OPENAI_NAMES)
    assert {entry.alias_of for entry in entries[1:]} == {"bundled"}


def test_a_package_without_the_bundled_model_serves_others(
    tmp_path: Path, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whisper_api.models.package_files", lambda name: tmp_path / "nothing")
    assert make(tmp_path, model_path=str(converted)).list()[0].id == "ct2"
    with pytest.raises(ModelBroken, match="missing from this installation"):
        make(tmp_path).resolve()


def test_the_fake_engine_needs_no_files(tmp_path: Path) -> None:
    store = make(tmp_path, engine="fake", model_path="fake:delay=0.5")
    assert (store.resolve().id, store.resolve("whisper-1").kind) == ("fake:delay=0.5", "fake")
    assert make(tmp_path, engine="fake").resolve().id == "fake"
    with pytest.raises(ModelNotFound):
        store.resolve("small")


# --- what a request may name ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small", "large-v3-turbo", "openai/whisper-small"])
def test_a_request_never_starts_a_download(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match=f"models pull {name}") as caught:
        make(tmp_path).resolve(name)
    assert caught.value.param == "model"
    assert caught.value.code == "model_not_found"
    assert "Here are: bundled" in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        "klingon",
        "../../etc",
        "/etc/passwd",
        "..",
        "a/../b",
        "a/b/c",
        "a\\b",
        ".hidden",
        ".converted/x",
        "small\n",
        "x" * 500,
        "a//b",
        "C:\\models",
    ],
)
def test_other_names_and_paths_are_unknown(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        make(tmp_path).resolve(name)
    assert len(caught.value.message) < 400


def test_a_path_may_be_a_setting_but_not_a_request(tmp_path: Path, converted: Path) -> None:
    assert make(tmp_path, model_path=str(converted)).resolve().path == converted
    with pytest.raises(ModelNotFound):
        make(tmp_path).resolve(str(converted))


# --- folders ------------------------------------------------------------------------------------


def test_a_folder_is_called_by_its_last_part(tmp_path: Path, converted: Path) -> None:
    store = make(tmp_path, model_path=str(converted))
    assert store.resolve().id == store.default_name == "ct2"
    assert store.resolve("ct2").path == converted
    assert store.list()[0].id == "ct2"
    assert not any(str(converted) in entry.id for entry in store.list())


def test_a_hugging_face_folder_is_converted_once_by_content(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def count(source: Path, target: Path, quantization: str) -> None:
        calls.append(source)
        convert_folder(source, target, quantization)

    monkeypatch.setattr("whisper_api.models.convert_folder", count)
    first = make(tmp_path, model_path=str(checkpoint)).resolve()
    assert first.id == "finetuned-v1.2"
    assert first.path.is_relative_to(tmp_path / "data" / "models")
    again = make(tmp_path, model_path=str(checkpoint)).resolve()
    copy = Path(shutil.copytree(checkpoint, tmp_path / "moved"))
    moved = make(tmp_path, model_path=str(copy)).resolve()
    assert first.path == again.path == moved.path
    assert len(calls) == 1
    save_checkpoint(copy, seed=5)
    assert make(tmp_path, model_path=str(copy)).resolve().path != first.path
    assert len(calls) == 2


def test_a_missing_folder_is_told_plainly(tmp_path: Path) -> None:
    store = make(tmp_path, model_path="/home/asr/models/antony-ties-podlodka-v1.2")
    for call in (store.resolve, store.prepare):
        with pytest.raises(ModelNotFound, match=r"podlodka-v1\.2'.*does not exist.*'bundled'"):
            call()


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelBroken, match=r"lacks model\.bin, config\.json, tokenizer\.json"):
        make(tmp_path, model_path=str(empty)).resolve()


def test_pickled_weights_are_refused_with_the_reason(tmp_path: Path, checkpoint: Path) -> None:
    pickled = Path(shutil.copytree(checkpoint, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelBroken, match="run code"):
        make(tmp_path, model_path=str(pickled)).resolve()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 a pickled archive", "not in CTranslate2's format"),
        (b"\x06\x00\x00\x00\x10\x00TransformerSpec\x00", "TransformerSpec, not Whisper"),
        (b"", "not in CTranslate2's format"),
    ],
)
def test_other_files_called_model_bin_are_refused(
    tmp_path: Path, converted: Path, content: bytes, message: str
) -> None:
    folder = Path(shutil.copytree(converted, tmp_path / "odd"))
    (folder / "model.bin").write_bytes(content)
    with pytest.raises(ModelBroken, match=message):
        make(tmp_path, model_path=str(folder)).resolve()


def test_a_folder_from_hub_times_with_a_text_vocabulary(tmp_path: Path, converted: Path) -> None:
    folder = Path(shutil.copytree(converted, tmp_path / "older"))
    words = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").unlink()
    (folder / "vocabulary.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    assert describe(folder, "older").vocabulary_size == 51_865


def test_a_manifest_in_the_folder_counts(tmp_path: Path, converted: Path) -> None:
    folder = Path(shutil.copytree(converted, tmp_path / "with"))
    said = {"languages": ["ru"], "decoding": {"log_prob": -2}, "knows": "podcasts"}
    (folder / "MANIFEST.json").write_text(json.dumps(said))
    files = make(tmp_path, model_path=str(folder)).resolve()
    assert (files.languages, files.decoding) == (("ru",), {"log_prob": -2})
    assert files.note == "The model 'with' knows podcasts."


# --- import and remove ----------------------------------------------------------------------------


def test_import_copies_or_converts(tmp_path: Path, checkpoint: Path, converted: Path) -> None:
    store = make(tmp_path)
    assert store.import_folder(checkpoint).id == "finetuned-v1.2"
    assert store.import_folder(converted, "team/ready").id == "team/ready"
    for name in ("finetuned-v1.2", "team/ready"):
        assert (store.resolve(name).path / "model.bin").is_file()
    listed = {entry.id: entry for entry in store.list()}
    assert listed["team/ready"].source == str(converted)
    assert listed["team/ready"].size > 1_000_000
    assert store.import_folder(converted, "team/ready").path == store.resolve("team/ready").path


def test_an_imported_model_can_be_the_default(tmp_path: Path, converted: Path) -> None:
    make(tmp_path).import_folder(converted, "mine")
    store = make(tmp_path, model_path="mine")
    assert store.resolve("whisper-1").id == "mine"
    assert [entry.id for entry in store.list() if entry.default] == ["mine"]


@pytest.mark.parametrize("name", ["bundled", "whisper-1", "../x", ".dot", "a/b/c"])
def test_names_that_an_import_may_not_take(tmp_path: Path, converted: Path, name: str) -> None:
    with pytest.raises(ModelNotFound):
        make(tmp_path).import_folder(converted, name)


def test_a_failed_import_leaves_nothing(tmp_path: Path, checkpoint: Path) -> None:
    broken = Path(shutil.copytree(checkpoint, tmp_path / "broken"))
    (broken / "tokenizer.json").unlink()
    store = make(tmp_path)
    with pytest.raises(ModelBroken):
        store.import_folder(broken)
    with pytest.raises(ModelNotFound, match="no folder"):
        store.import_folder(tmp_path / "nowhere")
    assert list((tmp_path / "data" / "models").iterdir()) == []


def test_remove_takes_only_what_is_in_the_store(tmp_path: Path, converted: Path) -> None:
    store = make(tmp_path, model_path=str(converted))
    store.import_folder(converted, "mine")
    store.remove("mine")
    assert list((tmp_path / "data" / "models").iterdir()) == []
    for name in ("mine", "bundled", "ct2", "../data", "..", str(converted)):
        with pytest.raises(ModelNotFound):
            store.remove(name)
    assert (converted / "model.bin").is_file()


# --- names ----------------------------------------------------------------------------------------


def test_short_names_are_pinned_to_commits() -> None:
    loose = {name for name, model in SHORT_NAMES.items() if len(model.revision) != 40}
    assert loose == {"distil-small.en", "distil-medium.en"}
    assert set(SHORT_NAMES) >= {"tiny", "base", "small", "medium", "large-v2", "large-v3"}
    assert hub_model("turbo") == SHORT_NAMES["large-v3-turbo"]
    assert hub_model("mine") is None


def test_names_become_folders_inside_the_store() -> None:
    assert folder_name("org/name-1.2_x") == "org--name-1.2_x"
    assert folder_name("turbo") == "large-v3-turbo"
    for name in ("", "a/b/c", "..", "a..b", "-x", "a b", "я"):
        with pytest.raises(ModelNotFound):
            check_name(name)


# --- the hub --------------------------------------------------------------------------------------


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
