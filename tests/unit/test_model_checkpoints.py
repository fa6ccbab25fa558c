"""Hugging Face folders that are handed over as they are, for the transformers engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints import save_checkpoint

from whisper_api.config import Settings
from whisper_api.errors import ModelBroken, ModelNotFound
from whisper_api.model_names import SHORT_NAMES, hub_model
from whisper_api.models import ModelStore


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("hf") / "mine", kind="F16")


def store(tmp_path: Path, **settings: Any) -> ModelStore:
    return ModelStore(Settings(data_dir=tmp_path / "data", **settings))


def test_a_folder_is_not_converted(tmp_path: Path, checkpoint: Path) -> None:
    files = store(tmp_path, engine="transformers", model_path=str(checkpoint)).resolve()
    assert (files.path, files.kind) == (checkpoint, "huggingface")
    assert (files.id, files.vocabulary_size) == ("mine", 51_865)
    assert not list((tmp_path / "data").rglob("model.bin"))


def test_an_imported_folder_serves_both_engines(tmp_path: Path, checkpoint: Path) -> None:
    first = store(tmp_path, engine="transformers")
    assert first.import_folder(checkpoint, "own").kind == "huggingface"
    found = first.resolve("own")
    assert found.path.name == "own"
    assert (found.path / "model.safetensors").is_file()
    other = store(tmp_path, engine="ctranslate2").resolve("own")
    assert other.kind == "ctranslate2"
    assert (other.path / "model.bin").is_file()
    assert store(tmp_path, engine="transformers", model_path="own").resolve().kind == "huggingface"


def test_what_was_pulled_for_the_other_engine_is_pulled_again(
    tmp_path: Path, checkpoint: Path
) -> None:
    store(tmp_path, engine="ctranslate2").import_folder(checkpoint, "tiny")
    with pytest.raises(ModelNotFound, match="models pull tiny"):
        store(tmp_path, engine="transformers", model_path="tiny").resolve()


def test_the_manifest_of_a_checkpoint_is_read(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "tuned")
    said = {"languages": ["ru"], "knows": "one accent", "decoding": {"log_prob": -0.5}}
    (folder / "MANIFEST.json").write_text(json.dumps(said))
    files = store(tmp_path, engine="transformers", model_path=str(folder)).resolve()
    assert (files.languages, files.decoding) == (("ru",), {"log_prob": -0.5})
    assert "one accent" in files.note


def test_pickled_weights_stay_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelBroken, match="pickled"):
        store(tmp_path, engine="transformers", model_path=str(folder)).resolve()


def test_every_short_name_has_a_repository_with_safetensors() -> None:
    for name in SHORT_NAMES:
        model = hub_model(name, checkpoint=True)
        assert model is not None
        assert model.repository.split("/")[0] in ("openai", "distil-whisper")
    turbo = hub_model("turbo", checkpoint=True)
    assert turbo is not None
    assert turbo.repository == "openai/whisper-large-v3-turbo"
    assert hub_model("someone/whisper-ru", checkpoint=True) == hub_model("someone/whisper-ru")
