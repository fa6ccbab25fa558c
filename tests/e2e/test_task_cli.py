"""``whisper-api tasks`` and ``transcribe --background`` against a real server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conftest import MakeWav, marked
from tests.e2e.conftest import Server, StartServer

from whisper_api.cli import main, remote

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    """A server with a key."""
    return start_server(api_keys=["secret"], model_path="fake:delay=0.2", batch_size=1)


@dataclass(frozen=True)
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """``run("tasks", "list")``: one command, told of the server by its environment."""
    monkeypatch.setenv("WHISPER_API_URL", server.base_url)
    monkeypatch.setenv("WHISPER_API_KEY", server.key)

    def command(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["whisper-api", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return command


def test_a_file_goes_to_the_background_and_its_result_comes_back(run: Run, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(marked({0.5: 3, 31: 4}, 60))
    sent = run("transcribe", "--background", str(tmp_path / "talk.wav"))
    assert sent.returncode == 0, sent.stderr
    ident, name = sent.stdout.split()
    assert name.endswith("talk.wav")
    waited = run("tasks", "wait", ident, "--format", "srt")
    assert waited.returncode == 0, waited.stderr
    assert waited.stdout.startswith("1\n00:00:00,5")
    assert "marker-0004" in waited.stdout
    assert run("tasks", "show", ident, "--format", "text").stdout == ("marker-0003 marker-0004\n")
    shown = run("tasks", "show", ident).stdout
    assert "completed" in shown
    assert "100.0 %" in shown
    listed = run("tasks", "list", "--status", "completed")
    assert ident in listed.stdout
    assert "talk.wav" in listed.stdout
    assert [t["id"] for t in json.loads(run("tasks", "list", "--json").stdout)] == [ident]


def test_a_task_is_cancelled_and_tried_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(marked({0.5: 3}, 600))
    sent = run("transcribe", "--background", str(tmp_path / "long.wav"))
    ident = sent.stdout.split()[0]
    assert run("tasks", "cancel", ident).stdout == f"{ident} cancelled\n"
    waited = run("tasks", "wait", ident)
    assert waited.returncode == 1
    assert waited.stderr == f"{ident} cancelled\n"
    assert run("tasks", "retry", ident).stdout == f"{ident} pending\n"
    result = tmp_path / "result.txt"
    done = run("tasks", "wait", ident, "--output", str(result))
    assert done.returncode == 0, done.stderr
    assert result.read_text() == "marker-0003\n"
    refused = run("tasks", "retry", ident)
    assert refused.returncode == 1
    assert refused.stderr == "error: 409: Only failed and cancelled tasks are tried again.\n"


def test_mistakes_are_one_line(run: Run) -> None:
    unknown = run("tasks", "show", "task_none")
    assert unknown.returncode == 1
    assert unknown.stderr == "error: 404: There is no task 'task_none'.\n"
    away = run("tasks", "list", "--url", "http://127.0.0.1:9")
    assert away.returncode == 1
    assert away.stderr.startswith("error: http://127.0.0.1:9: ")
    assert away.stderr.count("\n") == 1


def test_a_large_file_goes_in_parts(
    server: Server,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_wav: MakeWav,
) -> None:
    monkeypatch.setattr(remote, "LARGE_BYTES", 1000)
    monkeypatch.setattr(remote, "PART_BYTES", 10_000)
    path = tmp_path / "talk.wav"
    path.write_bytes(make_wav({0.5: 3}, 2))
    parts: list[float] = []
    with remote.Remote(server.base_url, server.key) as opened:
        task = opened.submit(path, {"response_format": "text"}, parts.append)
    assert len(parts) == 8
    assert parts == sorted(parts)
    assert task["name"] == "talk.wav"
    assert run("tasks", "wait", str(task["id"]), "--format", "text").stdout == ("marker-0003\n")
