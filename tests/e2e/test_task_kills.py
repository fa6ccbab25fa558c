"""Tasks against SIGKILL, upgrades, files that kill the server, and a thousand at once."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import marked
from tests.e2e.task_server import FULL, TaskServer, spoken, tape

import whisper_api

pytestmark = pytest.mark.slow

MakeServer = Callable[..., TaskServer]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """``make_server(task_concurrency=2)``: a server on this test's folder; ended later."""
    made: list[TaskServer] = []

    def make(folder: str = "data", **settings: Any) -> TaskServer:
        server = TaskServer(tmp_path / folder, tmp_path / "decoded.log", settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


def test_a_task_survives_kills_at_random_moments_without_losing_or_doubling_a_window(
    make_server: MakeServer,
) -> None:
    kills, windows, size = (20, 600, 4) if FULL else (5, 200, 4)
    # Kills may come before there is any progress; here that is no sign of a bad file.
    server = make_server(
        model_path="fake:delay=0.1",
        batch_size=size,
        task_checkpoint_s=0.3,
        task_max_attempts=kills + 1,
    ).start()
    ident = server.submit(tape(windows), chunk_length_s="4", response_format="srt")
    moments, saved = random.Random(1), {server.pid: 0}
    for _ in range(kills):
        time.sleep(moments.uniform(0.05, 1.5))
        assert server.task(ident)["status"] in ("pending", "running")
        server.kill()
        kept = server.saved_windows()
        assert kept >= max(saved.values())
        server.start()
        saved[server.pid] = kept
    task = server.finished(ident)
    assert task["status"] == "completed"
    assert server.text(ident).split() == spoken(windows)
    assert task["result"].count(" --> ") == windows
    decoded = server.decoded_by()
    cut = max(max(indexes) for indexes in decoded.values()) + 1
    assert {index for indexes in decoded.values() for index in indexes} == set(range(cut))
    # Each process goes on with the first window that was not saved, and decodes none twice:
    # what a kill costs is the batch that was under way.
    for pid, indexes in decoded.items():
        assert indexes[0] == saved[pid]
        assert sorted(indexes) == list(range(saved[pid], max(indexes) + 1))


def test_an_upgrade_in_the_middle_of_a_task_does_not_strand_it(
    make_server: MakeServer, tmp_path: Path
) -> None:
    windows = 40
    server = make_server(model_path="fake:delay=0.1", batch_size=2, task_checkpoint_s=0.2).start()
    ident = server.submit(tape(windows), chunk_length_s="4", response_format="text")
    server.until(lambda: server.task(ident)["processed_seconds"] > 20)
    server.kill()
    # The next release: other source, also of the very functions that DBOS runs.
    source = tmp_path / "next"
    shutil.copytree(Path(whisper_api.__file__).parent, source / "whisper_api")
    changed = source / "whisper_api" / "tasks" / "workflow.py"
    code = changed.read_text("utf-8")
    old = "        windows = plan(ident)\n"
    assert old in code
    changed.write_text(code.replace(old, f"        # Better than ever.\n{old}"), "utf-8")
    server.source = source
    server.start()
    task = server.finished(ident)
    assert task["status"] == "completed"
    assert task["attempts"] == 2
    assert task["result"].split() == spoken(windows)
    assert len(server.decoded()) < windows + 10


def test_a_file_that_kills_the_server_each_time_fails_its_task_in_the_end(
    make_server: MakeServer,
) -> None:
    server = make_server(task_max_attempts=2).start()
    good = server.submit(tape(2), response_format="text")
    server.finished(good)
    (server.log.parent / "die").touch()
    bad = server.submit(tape(3))
    deaths = 0
    assert server.process is not None
    while server.process.wait(120) == 9:
        deaths += 1
        assert deaths <= 3
        try:
            server.start()
            task = server.finished(bad)
            break
        except (AssertionError, OSError, ValueError, httpx.HTTPError):
            continue  # it died before it could answer
    (server.log.parent / "die").unlink()
    assert deaths == 3  # the plan that the first attempt made was progress
    assert task["status"] == "failed"
    assert task["error"]["code"] == "task_abandoned"
    assert "2 times in a row" in task["error"]["message"]
    assert server.text(good).split() == spoken(2)
    assert server.post(f"/v1/tasks/{bad}/retry").status_code == 202
    assert server.finished(bad)["status"] == "completed"


def test_a_crowd_of_tasks_at_once_is_done_and_each_is_done_once(make_server: MakeServer) -> None:
    count = 1000 if FULL else 100
    server = make_server(task_concurrency=16, max_concurrent_requests=300).start()
    tapes = [marked({0.1: number}, 0.5) for number in range(count)]
    with ThreadPoolExecutor(16) as threads:
        started = time.monotonic()
        idents = list(threads.map(server.submit, tapes))
        accepted = time.monotonic()
    assert len(set(idents)) == count

    def unfinished() -> bool:
        found = server.get("/v1/tasks?status=pending&status=running&limit=1").json()["data"]
        return not found

    server.until(unfinished, 300)
    done = time.monotonic()
    for number, ident in enumerate(idents):
        task = server.task(ident)
        assert (task["status"], task["attempts"]) == ("completed", 1)
        assert task["result"]["text"] == f"marker-{number:04d}"
    assert len(server.decoded()) == count
    print(f"{count} tasks: accepted in {accepted - started:.1f} s, done in {done - started:.1f} s")


@pytest.mark.parametrize("kind", ["postgresql", "one data folder"])
def test_the_tasks_of_a_process_that_died_are_finished_by_another(
    make_server: MakeServer, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    windows = 80
    shared: dict[str, Any] = {
        "model_path": "fake:delay=0.1",
        "batch_size": 2,
        "task_checkpoint_s": 0.2,
        "task_takeover_s": 2,
    }
    folders = ["one", "one"]
    if kind == "postgresql":
        folders = ["one", "two"]
        shared["database_url"] = request.getfixturevalue("postgres_url")
        shared["storage_url"] = str(tmp_path / "audio")
    servers = [make_server(folder, **shared).start() for folder in folders]
    ident = servers[0].submit(tape(windows), chunk_length_s="4", response_format="text")
    servers[0].until(lambda: servers[0].task(ident)["processed_seconds"] > 20)
    # Either of them may have taken it.
    runner, other = sorted(servers, key=lambda server: not server.has_decoded())
    # The other sees the task and its events all the same.
    with httpx.stream("GET", f"http://127.0.0.1:{other.port}/v1/tasks/{ident}/events") as stream:
        assert any(line == "event: segment" for line in stream.iter_lines())
    assert other.task(ident)["status"] == "running"
    runner.kill()
    task = other.finished(ident)
    assert task["status"] == "completed"
    assert task["attempts"] == 2
    assert task["result"].split() == spoken(windows)
    assert len(other.decoded()) < windows + 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 40 MB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield folder
        return
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_507_and_keeps_what_is_there(
    make_server: MakeServer, small_disk: Path
) -> None:
    server = make_server(str(small_disk / "data"))
    if not small_disk.is_mount():
        server.largest_file = 8 << 20  # as a disk would, no file may grow beyond it
    server.start()
    kept = server.submit(tape(2), response_format="text")
    assert server.finished(kept)["status"] == "completed"
    filler = small_disk / "filler"
    if small_disk.is_mount():
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65_536)
    refused = server.post("/v1/audio/transcriptions/async", files={"file": ("a.wav", tape(80))})
    assert refused.status_code == 507, refused.text
    assert refused.json()["error"]["code"] == "storage_full"
    assert server.task(kept)["result"].split() == spoken(2)
    assert [task["id"] for task in server.get("/v1/tasks").json()["data"]] == [kept]
    assert not list(server.data_dir.glob("scratch/*/request-*"))
    filler.unlink(missing_ok=True)
    later = server.submit(tape(3), response_format="text")
    assert server.finished(later)["result"].split() == spoken(3)
    server.kill()
    server.start()
    assert server.task(kept)["result"].split() == spoken(2)
