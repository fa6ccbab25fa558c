"""Commands: flags made from settings, files in and out, a server that stops cleanly."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.conftest import marked
from typer.testing import CliRunner

from whisper_api.api.system import package_folder
from whisper_api.cli import app, main
from whisper_api.cli.doctor import examine
from whisper_api.cli.files import plan_jobs, write_whole
from whisper_api.cli.flags import flagged, overrides
from whisper_api.cli.serve import banner
from whisper_api.config import ENV_PREFIX, Settings, describe
from whisper_api.errors import SettingsError

runner = CliRunner()


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WHISPER_API_ENGINE", "fake")
    monkeypatch.setenv("WHISPER_API_VAD", "false")
    monkeypatch.setenv("WHISPER_API_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def audio(path: Path, number: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(marked({1.0: number}, 3))
    return path


# --- flags and settings -----------------------------------------------------------------------


def test_serve_has_a_flag_for_every_setting() -> None:
    text = runner.invoke(app, ["serve", "--help"]).output
    for doc in describe():
        if flagged(doc):
            # Help cuts flags that are too wide for their column.
            assert doc.flag[:28] in text, doc.flag
    assert "--port" in text
    assert "--no-vad" in text


def test_flags_become_nested_settings() -> None:
    docs = {doc.name.replace(".", "__"): doc for doc in describe()}
    given = {"beam_size": "3", "file_validation__max_file_size_mb": "9", "host": None}
    assert overrides(docs, given) == {
        "beam_size": "3",
        "file_validation": {"max_file_size_mb": "9"},
    }


def test_a_wrong_flag_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["whisper-api", "serve", "--beam-size", "99"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    expected = 'error: beam_size: "99" is not allowed; allowed: a whole number from 1 to 20\n'
    assert capsys.readouterr().err == expected


def test_settings_shows_values_origins_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"host": "127.0.0.1", "beam_size": 2, "api_keys": ["sesame-open"]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    monkeypatch.setenv("WHISPER_API_BATCH_SIZE", "3")
    text = runner.invoke(app, ["settings"]).output
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "2  (file;" in lines["beam_size"]
    assert "3  (environment;" in lines["batch_size"]
    assert "(default;" in lines["replicas"]
    assert len(lines) == len(describe())
    as_json = runner.invoke(app, ["settings", "--json"]).output
    assert json.loads(as_json)["beam_size"] == 2
    assert "sesame" not in text + as_json


def test_version() -> None:
    assert runner.invoke(app, ["--version"]).output.strip().count(".") == 2


def test_banner_names_an_address_that_opens() -> None:
    assert "http://localhost:5042 " in banner(Settings(host="0.0.0.0"), 5042)
    assert "http://asr.lan:80 " in banner(Settings(host="asr.lan"), 80)


# --- doctor -----------------------------------------------------------------------------------


def test_doctor_finds_this_machine() -> None:
    findings = {item.topic: item for item in examine(None)}
    assert "ctranslate2 " in findings["libraries"].text
    assert findings["model"].state == "ok"
    assert findings["settings"].text == "defaults and environment"


def test_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"beam_size": 0}')
    result = runner.invoke(app, ["doctor", "--json"])
    wrong = [item for item in json.loads(result.output) if item["state"] == "missing"]
    assert result.exit_code == 1
    assert "beam_size" in wrong[0]["text"]


# --- transcribe -------------------------------------------------------------------------------


def test_folders_globs_and_files_each_once(tmp_path: Path) -> None:
    audio(tmp_path / "in" / "a.wav")
    audio(tmp_path / "in" / "deep" / "b.wav")
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    jobs = plan_jobs(["in", "in/*.wav", "in/a.wav"], Path("out"), "srt")
    assert [job.target for job in jobs] == [Path("out/a.srt"), Path("out/deep/b.srt")]


def test_same_stems_keep_their_endings(tmp_path: Path) -> None:
    for name in ("a.wav", "a.mp3"):
        audio(tmp_path / name)
    jobs = plan_jobs(["."], None, "txt")
    assert {job.target.name for job in jobs} == {"a.wav.txt", "a.mp3.txt"}


def test_two_sources_never_share_a_target(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        audio(tmp_path / folder / "a.wav")
    with pytest.raises(SettingsError, match="would both be written to"):
        plan_jobs(["one", "two"], Path("out"), "txt")


@pytest.mark.parametrize("pattern", ["none.wav", "*.ogg", "empty"])
def test_nothing_found_is_an_error(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="no "):
        plan_jobs([pattern], None, "txt")


def test_results_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "x.txt", "good\ud800")
    assert list(tmp_path.iterdir()) == []
    write_whole(tmp_path / "deep" / "x.txt", "один\n")
    assert (tmp_path / "deep" / "x.txt").read_text("utf-8") == "один\n"


def test_transcribe_writes_skips_and_overwrites(tmp_path: Path) -> None:
    audio(tmp_path / "a.wav", 7)
    first = runner.invoke(app, ["transcribe", "a.wav", "--format", "srt"])
    assert first.exit_code == 0, first.output
    result = tmp_path / "a.srt"
    assert "marker-0007" in result.read_text("utf-8")
    assert result.read_text("utf-8").startswith("1\n00:00:01,")
    result.write_text("kept")
    again = runner.invoke(app, ["transcribe", "a.wav", "--format", "srt"])
    assert "1 done before" in again.output
    assert result.read_text() == "kept"
    runner.invoke(app, ["transcribe", "a.wav", "--format", "srt", "--overwrite"])
    assert "marker-0007" in result.read_text("utf-8")


@pytest.mark.parametrize(("shape", "key"), [("json", "text"), ("verbose_json", "segments")])
def test_transcribe_json(tmp_path: Path, shape: str, key: str) -> None:
    audio(tmp_path / "a.wav")
    runner.invoke(app, ["transcribe", "a.wav", "--format", shape])
    assert key in json.loads((tmp_path / "a.json").read_text("utf-8"))


def test_one_bad_file_fails_alone(tmp_path: Path) -> None:
    audio(tmp_path / "in" / "good.wav")
    (tmp_path / "in" / "bad.wav").write_bytes(b"nothing of audio")
    result = runner.invoke(app, ["transcribe", "in", "--output-dir", "out"])
    assert result.exit_code == 1
    assert "bad.wav" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.txt"]


@pytest.mark.parametrize(
    "flags", [["--language", "klingon"], ["--task", "sing"], ["--word-timestamps"]]
)
def test_wrong_options_are_refused_before_any_work(tmp_path: Path, flags: list[str]) -> None:
    audio(tmp_path / "a.wav")
    result = runner.invoke(app, ["transcribe", "a.wav", *flags])
    assert result.exit_code != 0
    assert not (tmp_path / "a.txt").exists()


# --- transcribe through a server --------------------------------------------------------------


class _Stub(BaseHTTPRequestHandler):
    """Full at first, then answers; keeps what it was sent."""

    seen: ClassVar[list[tuple[str, str | None, bytes]]]
    answers: ClassVar[list[tuple[int, str]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).seen.append((self.path, self.headers["authorization"], body))
        status, text = type(self).answers.pop(0)
        self.send_response(status)
        self.send_header("retry-after", "0.1")
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        """Keep test output clean."""


@pytest.fixture
def stub() -> Iterator[tuple[str, type[_Stub]]]:
    class Stub(_Stub):
        """One test's own lists."""

    Stub.seen, Stub.answers = [], []
    server = HTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Stub
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_full_server_is_asked_again(tmp_path: Path, stub: tuple[str, type[_Stub]]) -> None:
    url, handler = stub
    handler.answers = [(429, "{}"), (200, "hello\n")]
    audio(tmp_path / "a.wav")
    flags = ["--server", url, "--api-key", "k1", "--language", "en", "--model", "small"]
    result = runner.invoke(app, ["transcribe", "a.wav", *flags])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.txt").read_text() == "hello\n"
    path, key, body = handler.seen[-1]
    assert (path, key) == ("/v1/audio/transcriptions", "Bearer k1")
    assert b'name="language"' in body
    assert b"small" in body
    assert len(handler.seen) == 2


def test_a_refusal_of_the_server_is_told(tmp_path: Path, stub: tuple[str, type[_Stub]]) -> None:
    url, handler = stub
    handler.answers = [(400, '{"error": {"message": "too bad"}}')]
    audio(tmp_path / "a.wav")
    flags = ["--server", f"{url}/v1/", "--task", "translate"]
    result = runner.invoke(app, ["transcribe", "a.wav", *flags])
    assert result.exit_code == 1
    assert "400: too bad" in result.output
    assert handler.seen[0][0] == "/v1/audio/translations"
    assert not (tmp_path / "a.txt").exists()


# --- models -----------------------------------------------------------------------------------


def test_models_list_shows_the_default_and_what_can_be_pulled() -> None:
    text = runner.invoke(app, ["models", "list"]).output
    assert "default" in text.splitlines()[0]
    assert "whisper-1" in text
    assert "large-v3-turbo" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remove", "nobody"], "not in the store"),
        (["remove", "bundled"], "not in the store"),
        (["import", "no-folder"], "no folder"),
        (["pull", "no spaces"], "no spaces"),
    ],
)
def test_models_says_what_is_wrong(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["whisper-api", "models", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in error


def test_models_import_and_remove(tmp_path: Path) -> None:
    bundled = package_folder("assets") / "bundled"
    done = runner.invoke(app, ["models", "import", str(bundled), "--name", "mine"])
    assert done.exit_code == 0, done.output
    assert "mine is ready" in done.output
    assert "mine " in runner.invoke(app, ["models", "list"]).output
    assert runner.invoke(app, ["models", "remove", "mine"]).exit_code == 0
    assert "mine " not in runner.invoke(app, ["models", "list"]).output
