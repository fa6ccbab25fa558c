"""The command ``history``, and folders of older servers."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from whisper_api.cli import app, main
from whisper_api.config import ENV_PREFIX
from whisper_api.history_import import Unreadable, old_files, read_all
from whisper_api.records import NewRecord

runner = CliRunner()
DAY = datetime.now(UTC).strftime("%Y-%m-%d")
MS = int(time.time() * 1000) - 60_000
ANSWER = {
    "segments": [
        {"start_time_ms": 0, "end_time_ms": 1500, "text": "Добрый день."},
        {"start_time_ms": 1500, "end_time_ms": 4000, "text": "Начнём совещание."},
    ],
    "text": "Добрый день. Начнём совещание.",
    "processing_time": 1.25,
    "response_size_bytes": 321,
    "duration_seconds": 4.5,
    "model": "antony-ties-podlodka-v1.2",
}


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WHISPER_API_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)


def old_file(folder: Path, content: Any, name: str = "запись.mp3", day: str = DAY) -> Path:
    path = folder / day / f"{MS}_{name}_a1b2.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def read(path: Path, language: str | None = None) -> NewRecord:
    (found,) = read_all([path], "owner", language)
    assert isinstance(found, NewRecord)
    return found


def test_an_old_answer_becomes_a_record(tmp_path: Path) -> None:
    found = read(old_file(tmp_path, ANSWER), "ru")
    transcript = found.transcript
    assert (found.name, found.owner, found.source) == ("запись.mp3", "owner", "import")
    assert found.created_at == MS / 1000
    assert transcript.text == ANSWER["text"]
    assert [(s.start, s.end) for s in transcript.segments] == [(0, 1.5), (1.5, 4.0)]
    assert (transcript.language, transcript.duration) == ("ru", 4.5)
    assert transcript.model == "antony-ties-podlodka-v1.2"
    assert found.timings == {"processing_seconds": 1.25}


@pytest.mark.parametrize(
    ("content", "text", "spans"),
    [
        ({"text": "Only text."}, "Only text.", [(0, 0)]),
        ({"text": "  "}, "", []),
        ({"text": "a", "duration_seconds": "7.5"}, "a", [(0, 7.5)]),
        ({"segments": [{"start": 1, "end": 2, "text": "b"}]}, "b", [(1, 2)]),
        ({"text": "x", "chunks": [{"timestamp": [0, 2.5], "text": "c"}]}, "c", [(0, 2.5)]),
        ({"segments": [{"timestamp": [1, None], "text": "d"}]}, "d", [(1, 1)]),
        (
            {"segments": [{"start": 5, "end": 6, "text": "e"}, {"start": 1, "text": "f"}]},
            "e f", [(5, 6), (6, 6)],
        ),
        ({"segments": [{"start": -1, "end": "nan", "text": "g"}]}, "g", [(0, 0)]),
        ({"segments": [3, {"text": 4}, {"text": " "}], "text": "h"}, "h", [(0, 0)]),
        ({"result": {"text": "i"}, "original_filename": "../../../n.wav"}, "i", [(0, 0)]),
        ({"text": "j", "segments": "none", "language": 7, "model": None}, "j", [(0, 0)]),
    ],
)  # fmt: skip
def test_files_are_read_tolerantly(
    tmp_path: Path, content: Any, text: str, spans: list[tuple[float, float]]
) -> None:
    transcript = read(old_file(tmp_path, content)).transcript
    assert transcript.text == text
    assert [(s.start, s.end) for s in transcript.segments] == spans
    assert transcript.duration >= max((end for _, end in spans), default=0)


def test_a_name_in_the_file_counts_without_its_path(tmp_path: Path) -> None:
    path = old_file(
        tmp_path, {"text": "a", "original_filename": "../../x.wav", "language": "Russian"}
    )
    found = read(path, "en")
    assert (found.name, found.transcript.language) == ("x.wav", "ru")


def test_without_a_time_in_the_name_the_folder_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "2025-03-04" / "note.json"
    path.parent.mkdir()
    path.write_text('{"text": "a"}')
    assert datetime.fromtimestamp(read(path).created_at, UTC).isoformat()[:10] == "2025-03-04"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '"text"', '{"text": 5}', "\0", "[" * 9999]
)
def test_what_is_no_transcript_is_named(tmp_path: Path, content: str) -> None:
    (found,) = read_all([old_file(tmp_path, content)], "", None)
    assert isinstance(found, Unreadable)
    assert found.reason


def invoke(*arguments: str) -> str:
    done = runner.invoke(app, ["history", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_folder_is_imported_once_listed_exported_and_pruned(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    old_file(folder, ANSWER)
    old_file(folder, {"text": "Quarterly meetings."}, "b.wav")
    old_file(folder, "{", "broken.wav")
    said = invoke("import", str(folder), "--language", "russian")
    assert "2 transcripts imported, 0 were there already" in said
    assert "broken.wav" in said
    assert "0 transcripts imported, 2 were there already" in invoke("import", str(folder))
    assert len(invoke("list").splitlines()) == 2
    assert "запись.mp3" in invoke("list", "-q", "совещания")
    assert "meetings" in invoke("list", "--query", "MEETING")
    assert "2 transcripts" in invoke("export", "all.zip", "--format", "srt")
    with zipfile.ZipFile("all.zip") as archive:
        assert sorted(archive.namelist()) == ["b.srt", "запись.srt"]
        assert "Начнём совещание." in archive.read("запись.srt").decode()
    assert "1 transcripts" in invoke("export", "some.zip", "-q", "meeting")
    assert "0 transcripts forgotten" in invoke("prune")
    assert "0 transcripts forgotten" in invoke("prune", "--days", "1")


def test_what_is_too_old_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = (datetime.now(UTC) - timedelta(days=90)).strftime("%Y-%m-%d")
    path = tmp_path / "history" / day / "old.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(ANSWER))
    said = invoke("import", "history")
    assert "0 transcripts imported" in said
    assert "1 left out: older than max_history_days (30)" in said
    monkeypatch.setenv("WHISPER_API_MAX_HISTORY_DAYS", "0")
    assert "1 transcripts imported" in invoke("import", "history")
    monkeypatch.delenv("WHISPER_API_MAX_HISTORY_DAYS")
    assert "1 transcripts forgotten" in invoke("prune")
    assert invoke("list") == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "nowhere"], "there are no JSON files"),
        (["export", "x.zip", "--format", "docx"], "--format is one of"),
        (["export", "no/such/folder/x.zip"], "No such file"),
        (["backup", "copy"], "There is no database"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["whisper-api", "history", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_old_files_are_found_in_a_day_and_in_a_history(tmp_path: Path) -> None:
    path = old_file(tmp_path / "history", ANSWER)
    assert old_files(tmp_path / "history") == old_files(path.parent) == [path]
    shutil.rmtree(tmp_path / "history")
    assert old_files(tmp_path / "history") == []
