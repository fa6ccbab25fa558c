"""The catalogue of models, as the page shows it."""

from __future__ import annotations

from typing import Any

import pytest

from whisper_api.config import Settings
from whisper_api.models import ModelStore

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_catalogue_tells_what_is_here_and_what_may_be_fetched(
    open_app: Any, tmp_path: Any
) -> None:
    store = ModelStore(Settings(data_dir=tmp_path))
    bundled = store.resolve("bundled").path
    store.import_folder(bundled, "mine")
    async with open_app(offline=True) as client:
        answer = (await client.get("/v1/models/catalog")).json()
    models = {model["id"]: model for model in answer["data"]}
    assert answer["offline"]
    assert answer["can_manage"]
    assert models["fake"]["default"]
    assert models["fake"]["installed"]
    assert models["bundled"]["size_bytes"] > 1_000_000
    assert not models["bundled"]["removable"]
    assert models["mine"]["removable"]
    # It came from a folder, whose path is nobody's business.
    assert models["mine"]["source"] == ""
    assert not models["small"]["installed"]
    assert models["small"]["source"] == "Systran/faster-whisper-small"
    assert "whisper-1" not in models


async def test_users_cannot_manage(open_app: Any) -> None:
    async with open_app(keys=[{"name": "bob", "secret": "sk-bob"}]) as client:
        headers = {"authorization": "Bearer sk-bob"}
        answer = (await client.get("/v1/models/catalog", headers=headers)).json()
    assert not answer["can_manage"]
