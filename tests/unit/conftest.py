"""What several files of unit tests share: a decoder, a scratch folder, a model to convert."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints import save_checkpoint

from whisper_api.audio.decode import Decoder
from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.convert import convert_folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of ``decoder``."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    """Settings of ``decoder``; files of tests that need others have a fixture of their own."""
    return {}


@pytest.fixture(scope="module")
def decoder(root: Path, limits: dict[str, Any]) -> Iterator[Decoder]:
    """A decoder that runs."""
    decoder = Decoder(Settings(data_dir=root, **limits))
    decoder.start()
    yield decoder
    decoder.close()


@pytest.fixture
def scratch(root: Path) -> Iterator[Scratch]:
    """The folder of a request."""
    with Scratch.create(root) as scratch:
        yield scratch


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
