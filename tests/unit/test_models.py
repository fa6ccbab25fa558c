"""The model store: names, folders, imports, removal."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints import save_checkpoint

from whisper_api.config import Settings
from whisper_api.convert import convert_folder
from whisper_api.errors import ModelBroken, ModelNotFound
from whisper_api.model_folder import describe
from whisper_api.model_names import (
    OPENAI_NAMES,
    SHORT_NAMES,
    check_name,
    folder_name,
    hub_model,
)
from whisper_api.models import ModelStore


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


def test_aliases_of_the_settings_add_change_and_remove_names(
    tmp_path: Path, converted: Path
) -> None:
    aliases = {"mine": "ct2", "gpt-4o-transcribe": "ct2", "whisper-1": "", "house": "default"}
    store = make(tmp_path, model_aliases=aliases)
    store.import_folder(converted)
    wanted = {"mine": "ct2", "gpt-4o-transcribe": "ct2", "house": "bundled", "default": "bundled"}
    assert {name: store.resolve(name).id for name in wanted} == wanted
    with pytest.raises(ModelNotFound):
        store.resolve("whisper-1")
    listed = {entry.id: entry.alias_of for entry in store.list() if entry.alias_of}
    assert listed["mine"] == "ct2"
    assert listed["house"] == listed["gpt-transcribe"] == "bundled"
    assert "whisper-1" not in listed


def test_other_weights_under_the_same_name_are_another_revision(
    tmp_path: Path, converted: Path
) -> None:
    store = make(tmp_path)
    first = store.import_folder(converted).revision
    assert store.resolve("ct2").revision == first != ""
    other = tmp_path / "ct2"
    shutil.copytree(converted, other)
    os.utime(other / "model.bin", ns=(1, 1))
    store.import_folder(other)
    assert store.resolve("ct2").revision != first


def test_any_name_may_carry_a_profile(tmp_path: Path, converted: Path) -> None:
    store = make(tmp_path, profiles={"meeting": {"language": "ru"}})
    store.import_folder(converted)
    for name, model in {"whisper-1": "bundled", "ct2": "ct2", "": "bundled"}.items():
        assert store.resolve(f"{name}:meeting").id == model
    assert "bundled:meeting" in [entry.id for entry in store.list()]
    with pytest.raises(ModelNotFound, match=r"no profile 'other'. Here are: meeting\."):
        store.resolve("whisper-1:other")
    with pytest.raises(ModelNotFound):
        store.resolve("none:meeting")


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
