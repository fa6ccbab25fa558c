"""``whisper-api serve`` as a real process: it says where it is, drains, and stops with status 0."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.conftest import marked
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("WHISPER_API_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WHISPER_API_ENGINE", "fake")
    monkeypatch.setenv("WHISPER_API_VAD", "false")
    monkeypatch.setenv("WHISPER_API_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_its_address_and_stops_with_0(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0"]
    with subprocess.Popen(
        [*command, "--log-file", "server.log"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = next(word for word in line.split() if word.startswith("http://"))
            assert httpx.get(f"{url}/health", timeout=PATIENCE_S).json()["status"] in {
                "ok",
                "healthy",
            }
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    assert "stopping" in (tmp_path / "server.log").read_text("utf-8")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_stop_lets_a_running_request_finish(tmp_path: Path) -> None:
    wav = marked({1.0: 9}, 3)
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0"]
    command += ["--model", "fake:delay=1.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            url = next(word for word in process.stdout.readline().split() if "http://" in word)
            send = functools.partial(
                httpx.post,
                f"{url}/v1/audio/transcriptions",
                files={"file": wav},
                timeout=PATIENCE_S,
            )
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(send)
                wait_for_work(url)
                process.send_signal(signal.SIGTERM)
                assert answer.result().json()["text"] == "marker-0009"
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_stop_interrupts_tasks_and_ends_the_streams_of_their_followers(tmp_path: Path) -> None:
    wav = marked({1.0: 9}, 300)
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0"]
    command += ["--model", "fake:delay=5", "--drain-seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            url = next(word for word in process.stdout.readline().split() if "http://" in word)
            task = httpx.post(
                f"{url}/v1/audio/transcriptions/async", files={"file": wav}, timeout=PATIENCE_S
            ).json()
            with httpx.stream(
                "GET", f"{url}/v1/tasks/{task['id']}/events", timeout=PATIENCE_S
            ) as stream:
                lines = stream.iter_lines()
                assert any('"status":"running"' in line for line in lines)
                process.send_signal(signal.SIGTERM)
                # The stream ends without a last status: whoever follows comes again later.
                assert not any('"status":"' in line for line in lines)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def wait_for_work(url: str) -> None:
    """Until the server holds a request."""
    wait_until(lambda: httpx.get(f"{url}/v1/queue", timeout=PATIENCE_S).json()["requests"])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--compand-params", "junk"], "error: compand_params: 'junk' is not sox's"),
        (["--engine", "nope"], "error: engine: 'nope' is not known"),
        (["--data-dir", "taken/data"], "error: data_dir: "),
    ],
)
def test_what_stops_the_start_is_one_line(tmp_path: Path, flags: list[str], line: str) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    done = start(flags, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = start(["--port", str(port)], tmp_path)
    assert done.returncode == 2
    assert f"error: 127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr


def start(flags: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A start that must fail."""
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0", *flags]
    quiet = {**os.environ, "WHISPER_API_LOG_LEVEL": "ERROR"}
    return subprocess.run(
        command,
        cwd=folder,
        env=quiet,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
