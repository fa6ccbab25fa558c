"""The README followed by a newcomer: ``make run``, then every block of code, in order."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SAMPLE = ROOT / "src" / "whisper_api" / "assets" / "MANIFEST.json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the blocks are for a Unix shell"),
    pytest.mark.skipif(
        not shutil.which("make") or not shutil.which("curl"), reason="no make, curl"
    ),
]


def environment(data: Path) -> dict[str, str]:
    """This process's variables without settings of its own."""
    kept = {name: value for name, value in os.environ.items() if "WHISPER_API" not in name}
    # make must not take over the flags and variables of the make that runs the tests.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS", "PORT", "MODEL", "CONFIG", "PYTHON"):
        kept.pop(name, None)
    return kept | {"WHISPER_API_DATA_DIR": str(data)}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server started by ``make run``; it must stop with status 0."""
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["make", "run", f"PORT={port}"],
            cwd=ROOT,
            env=environment(folder / "data"),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_ready(process, port, folder / "log")
            yield port
        finally:
            # To the group, as a terminal's Ctrl-C: make passes it to nobody.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait(30)
    assert "Traceback" not in (folder / "log").read_text("utf-8")


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 300  # a first run installs everything
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text("utf-8")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"not ready: {log.read_text('utf-8')}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the blocks run: a folder with a ``.venv`` in it, as the checkout has."""
    place = tmp_path_factory.mktemp("checkout")
    (place / ".venv").symlink_to(ROOT / ".venv")
    return place


def run(kind: str, block: str, folder: Path, port: int) -> str:
    """Run one block of the README against ``port``; what it printed."""
    code = block.replace("localhost:5042", f"127.0.0.1:{port}")
    command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-euo", "pipefail"]
    done = subprocess.run(
        command,
        input=None if kind == "python" else code,
        cwd=folder,
        env=environment(folder / "data"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_runs(server: int, folder: Path) -> None:
    text = json.loads(SAMPLE.read_text("utf-8"))["sample"]["text"]
    kinds = [block for block in BLOCKS if block[1] != "make run\n"]
    assert len(kinds) == len(BLOCKS) - 1 == 4
    curl, python, formats, commands = (run(kind, block, folder, server) for kind, block in kinds)
    assert json.loads(curl)["text"] == text
    assert python == text + "\n"
    check_formats(formats, text)
    assert "whisper-api" in commands
    first = text.split(".")[0]
    assert first in (folder / "subtitles" / "sample.srt").read_text("utf-8")


def check_formats(printed: str, text: str) -> None:
    """All five answers, one after another."""
    first = text.split(".")[0]
    assert f'"text":"{text}"' in printed
    assert f"\n{text}\n" in printed.replace("}", "}\n")
    assert re.search(rf"1\n00:00:0\d,\d{{3}} --> 00:00:0\d,\d{{3}}\n{first}", printed)
    assert re.search(rf"WEBVTT\n\n00:00:0\d\.\d{{3}} --> .*\n{first}", printed)
    assert '"language":"english"' in printed
