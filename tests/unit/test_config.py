"""Settings: order of sources, the old config.json, errors in one line, secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from whisper_api.config import ENV_PREFIX, Settings, describe, load_settings
from whisper_api.errors import SettingsError

OLD: dict[str, Any] = {
    "service_port": 5042,
    "model_path": "/srv/models/some-whisper",
    "language": "russian",
    "enable_history": True,
    "max_history_days": 30,
    "chunk_length_s": 28,
    "batch_size": 6,
    "max_new_tokens": 384,
    "temperature": 0.01,
    "return_timestamps": False,
    "audio_rate": 8000,
    "norm_level": "-0.55",
    "compand_params": "0.3,1 -90,-90,-70,-50,-40,-15,0,0 -7 0 0.15",
    "device_id": 0,
    "file_validation": {
        "max_file_size_mb": 500,
        "allowed_extensions": [".wav", ".mp3"],
        "allowed_mime_types": ["audio/wav", "audio/x-m4a"],
    },
    "log_level": "info",
    "log_file": "logs/whisper_api.log",
    "request_logging": {"exclude_endpoints": ["/health", "/static"]},
    "allowed_directories": ["recordings"],
    "version": "1.2",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


def write(folder: Path, content: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def complaint(path: Path | None = None, **overrides: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, **overrides)
    return caught.value.message


def test_old_config_loads_unchanged(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, OLD))
    assert settings.language == "ru"
    assert settings.norm_level == -0.55
    assert settings.temperature == 0.01
    assert settings.chunk_length_s == 28
    assert settings.device_id == 0
    assert settings.log_level == "INFO"
    assert settings.preprocess
    assert settings.max_file_bytes == 500 * 1024 * 1024
    assert settings.request_logging.exclude_endpoints == ("/health", "/static")


def test_paths_in_the_file_start_at_its_folder(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    settings = load_settings(write(tmp_path, {**OLD, "model_path": "my-model"}))
    assert settings.model_path == str(tmp_path / "my-model")
    assert settings.log_file == tmp_path / "logs" / "whisper_api.log"
    assert settings.allowed_directories == (tmp_path / "recordings",)


def test_a_hub_name_is_no_path(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, {"model_path": "org/name"})).model_path == "org/name"


def test_shared_old_config_loads() -> None:
    folder = os.environ.get("WHISPER_API_TEST_DATA") or SHARED
    if not folder:
        pytest.skip("WHISPER_API_TEST_DATA is not set")
    assert load_settings(Path(folder) / "old-config.json").audio_rate == 8000


# The autouse fixture above empties the environment before a test can read it.
SHARED = os.environ.get("WHISPER_API_TEST_DATA", "")


def test_order_file_environment_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"host": "127.0.0.1", "beam_size": 2, "batch_size": 2, "replicas": 2})
    monkeypatch.setenv("WHISPER_API_BATCH_SIZE", "3")
    monkeypatch.setenv("WHISPER_API_REPLICAS", "3")
    settings = load_settings(path, replicas=4)
    assert (settings.beam_size, settings.batch_size, settings.replicas) == (2, 3, 4)
    assert settings.cpu_threads == 0


def test_nested_and_lists_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_API_FILE_VALIDATION__MAX_FILE_SIZE_MB", "7")
    monkeypatch.setenv("WHISPER_API_FILE_VALIDATION__ALLOWED_EXTENSIONS", "wav, mp3")
    monkeypatch.setenv("WHISPER_API_API_KEYS", '["one", "two"]')
    settings = load_settings(file_validation={"allowed_codecs": ["aac"]})
    assert settings.file_validation.max_file_size_mb == 7
    assert settings.file_validation.allowed_extensions == ("wav", "mp3")
    assert settings.file_validation.allowed_codecs == ("aac",)
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]


def test_empty_variables_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_API_LOG_FILE", "")
    assert load_settings().log_file is None


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"temperature": 2}, "temperature: 2 is not allowed; allowed: a number from 0 to 1"),
        ({"tempature": 1}, "unknown setting 'tempature'; did you mean 'temperature'?"),
        (
            {"file_validation": {"max_file_size": 1}},
            "unknown setting 'file_validation.max_file_size'; did you mean 'max_file_size_mb'?",
        ),
        (
            {"file_validation": {"max_file_size_mb": 0}},
            "file_validation.max_file_size_mb: 0 is not allowed; "
            "allowed: a number above 0 up to 1048576",
        ),
        ({"file_validation": 3}, "file_validation: must be a JSON object"),
        (
            {"norm_level": "loud"},
            'norm_level: "loud" is not allowed; allowed: a number from -60 to 0, or null',
        ),
        (
            {"device": "gpu"},
            'device: "gpu" is not allowed; allowed: auto, cpu, mps, cuda or cuda:N',
        ),
        (
            {"log_level": "loud"},
            'log_level: "LOUD" is not allowed; allowed: DEBUG, INFO, WARNING, ERROR',
        ),
    ],
)
def test_a_mistake_is_one_clear_line(overrides: dict[str, Any], line: str) -> None:
    assert complaint(**overrides) == line


def test_an_unknown_language_names_the_value() -> None:
    message = complaint(language="klingon")
    assert message.startswith('language: "klingon" is not allowed;')
    assert "\n" not in message


def test_each_mistake_in_a_file_has_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"beam_size": 0, "service_port": "http"})
    lines = complaint(path).split("\n")
    assert len(lines) == 2
    assert all(line.startswith(f"{path}: ") for line in lines)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    message = complaint(path)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read" in complaint(tmp_path / "none.json")


def test_old_config_without_host_serves_everyone_and_says_so(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, OLD))
    assert settings.host == "0.0.0.0"
    assert any("EVERYONE" in notice for notice in settings.notices)


@pytest.mark.parametrize("content", [{}, {"host": "127.0.0.1", "model_path": "bundled"}])
def test_new_installs_bind_loopback(tmp_path: Path, content: dict[str, Any]) -> None:
    settings = load_settings(write(tmp_path, content))
    assert settings.host == "127.0.0.1"
    assert settings.notices == ()


def test_a_host_from_elsewhere_wins_over_the_old_default(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, OLD), host="127.0.0.1").host == "127.0.0.1"


def test_an_unknown_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_API_BATCHSIZE", "3")
    (notice,) = load_settings().notices
    assert "WHISPER_API_BATCHSIZE" in notice
    assert "did you mean 'WHISPER_API_BATCH_SIZE'?" in notice


def test_secrets_never_print(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, {"host": "::1", "api_keys": ["sesame-open"]}))
    assert "sesame" not in repr(settings) + str(settings) + settings.model_dump_json()
    path = write(tmp_path, {"api_keys": [["sesame-open"]]})
    assert "sesame" not in complaint(path)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().host = "0.0.0.0"


def test_every_setting_has_prose_limits_and_unique_names() -> None:
    docs = describe()
    assert all(doc.prose.endswith(".") and doc.limits and doc.section for doc in docs)
    assert len({doc.flag for doc in docs}) == len({doc.env for doc in docs}) == len(docs)


def test_every_default_is_the_one_that_loads() -> None:
    settings = load_settings()
    for doc in describe():
        if doc.name != "data_dir":
            value: Any = settings
            for key in doc.path:
                value = getattr(value, key)
            value = value.get_secret_value() if isinstance(value, SecretStr) else value
            plain = list(value) if isinstance(value, tuple) else value
            plain = plain.get_secret_value() if isinstance(plain, SecretStr) else plain
            assert json.loads(doc.default) == plain, doc.name
