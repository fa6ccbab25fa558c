"""One API-only server and three workers, as processes on a real PostgreSQL and S3 server.

The tests follow each other on the same machines; the last one kills them.
"""

from __future__ import annotations

import json
import random
import secrets
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.conftest import empty_bucket, postgres_away
from tests.e2e.cluster import Machines, cluster
from tests.e2e.line import Line
from tests.e2e.task_server import FULL, spoken, tape

import whisper_api

pytestmark = pytest.mark.slow


AWAY_S = 5.0
"""How long the database is away: longer than a process may be silent that has lost its lock."""


@pytest.fixture(scope="module")
def line(s3_server: str) -> Iterator[Line]:
    """The way to the store."""
    line = Line(int(s3_server.rpartition(":")[2]))
    yield line
    line.close()


@pytest.fixture(scope="module")
def machines(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str, line: Line
) -> Iterator[Machines]:
    """The machines of all tests here."""
    name = f"cluster_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        # Otherwise a server that is stopped at once forgets what it has said to be safe.
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = on".encode())
    with pytest.MonkeyPatch.context() as patch:
        bucket = empty_bucket(f"http://127.0.0.1:{line.port}", patch)
        running = cluster(
            tmp_path_factory.mktemp("cluster"),
            3,
            database_url=postgres_server.replace("/postgres?", f"/{name}?"),
            storage_url=bucket,
            model_path="fake:delay=0.1",
            batch_size=2,
            task_checkpoint_s=0.2,
            task_part_s=40,
            task_max_attempts=1000,
            chunk_length_s=4,
        )
        with running as found:
            yield found


def test_every_kind_of_request_works_through_a_server_without_engine(machines: Machines) -> None:
    api, wav = machines.api, tape(3)
    form = {"file": ("a.wav", wav)}
    answer = api.post("/v1/audio/transcriptions", files=form, data={"response_format": "text"})
    assert answer.status_code == 200, answer.text
    assert answer.text.split() == spoken(3)
    ident = api.submit(wav, response_format="text")
    assert api.finished(ident)["result"].split() == spoken(3)
    url = f"http://127.0.0.1:{api.port}/v1/audio/transcriptions"
    with httpx.stream("POST", url, files=form, data={"stream": "true"}, timeout=60) as stream:
        lines = [line[6:] for line in stream.iter_lines() if line.startswith("data: {")]
    events = [json.loads(line) for line in lines]
    assert events[-1]["text"].split() == spoken(3)
    unknown = api.post("/v1/audio/transcriptions", files=form, data={"model": "medium"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_a_long_recording_is_transcribed_by_all_workers_at_once_and_merged_in_order(
    machines: Machines,
) -> None:
    windows = 90
    machines.forget()
    ident = machines.api.submit(tape(windows), response_format="text")
    runners: dict[int, str] = {}

    def done() -> bool:
        for row in machines.rows("SELECT first, executor FROM task_parts WHERE executor <> ''"):
            runners[row["first"]] = row["executor"]
        return machines.api.task(ident)["finished_at"] is not None

    machines.api.until(done, 240)
    task = machines.api.task(ident)
    assert (task["status"], task["attempts"]) == ("completed", 1)
    assert task["result"].split() == spoken(windows)
    assert len(runners) > 3
    assert all(worker.has_decoded() for worker in machines.workers), runners
    every = machines.decoded()
    assert every == list(range(len(every)))
    assert machines.rows("SELECT * FROM task_parts") == []
    # What the parts were decoded from is gone, only the recordings are stored.
    machines.api.until(lambda: machines.stored() == machines.named())


def test_a_caller_who_leaves_takes_the_task_along_and_nothing_of_it_stays(
    machines: Machines,
) -> None:
    api = machines.api
    known = {row["id"] for row in api.get("/v1/tasks").json()["data"]}
    stored = len(machines.rows("SELECT digest FROM audio"))
    with httpx.stream(
        "POST",
        f"http://127.0.0.1:{api.port}/v1/audio/transcriptions",
        files={"file": ("a.wav", tape(150))},
        data={"stream": "true"},
        timeout=60,
    ) as stream:
        assert any("transcript.text.delta" in line for line in stream.iter_lines())
        assert machines.rows("SELECT id FROM tasks WHERE lane = 'interactive'") != []
        # Nobody but its caller sees it.
        assert {row["id"] for row in api.get("/v1/tasks").json()["data"]} == known
    api.until(lambda: machines.rows("SELECT id FROM tasks WHERE lane = 'interactive'") == [])
    assert len(machines.rows("SELECT digest FROM audio")) == stored


def test_a_worker_that_is_drained_or_stopped_hands_its_work_to_another(
    machines: Machines,
) -> None:
    api, workers = machines.api, machines.workers
    machines.forget()
    ident = api.submit(tape(14), response_format="text")  # too short to be cut
    api.until(lambda: any(worker.has_decoded() for worker in workers))
    first = next(worker for worker in workers if worker.has_decoded())
    found = {row["pid"]: row for row in api.get("/v1/workers").json()["data"]}
    drained = api.post(f"/v1/workers/{found[first.pid]['id']}/drain")
    assert (drained.status_code, drained.json()["state"]) == (202, "draining")
    api.until(lambda: first.get("/ready").status_code == 503)
    task = api.finished(ident)
    assert (task["status"], task["result"].split()) == ("completed", spoken(14))
    machines.forget()
    after = api.submit(tape(2), response_format="text")
    assert api.finished(after)["result"].split() == spoken(2)
    assert not first.has_decoded()
    first.stop()
    first.start()
    machines.until_ready(3)


def refused(answer: httpx.Response, code: str) -> None:
    """It is a 503 that says what is away and when to come again."""
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == code
    assert int(answer.headers["retry-after"]) >= 1


def test_a_store_that_is_away_is_a_clear_503_and_tasks_go_on_afterwards(
    machines: Machines, line: Line
) -> None:
    api, windows = machines.api, 90
    form = {"file": ("a.wav", tape(1, 3.3))}
    ident = api.submit(tape(windows, 3.9), response_format="text")
    api.until(lambda: machines.rows("SELECT * FROM task_parts") != [])
    line.cut()
    for path in ("/v1/audio/transcriptions", "/v1/audio/transcriptions/async"):
        refused(api.post(path, files=form), "storage_unavailable")
    line.mend()
    assert api.post("/v1/audio/transcriptions", files=form).status_code == 200
    task = api.finished(ident)
    assert (task["status"], task["attempts"]) == ("completed", 1)
    assert task["result"].split() == spoken(windows)


def test_old_and_new_versions_work_together_and_new_ones_inherit(
    machines: Machines, tmp_path: Path
) -> None:
    source = tmp_path / "old"
    shutil.copytree(Path(whisper_api.__file__).parent, source / "whisper_api")
    code = source / "whisper_api" / "tasks" / "durable.py"
    text = code.read_text("utf-8")
    assert 'STEPS_VERSION = "2"' in text
    code.write_text(text.replace('STEPS_VERSION = "2"', 'STEPS_VERSION = "1.9"'), "utf-8")
    machines.forget()
    old_api, old_worker = machines.make("", local_engine=False), machines.make("worker")
    for server in (old_api, old_worker):
        server.source = source
        server.start()
    # Each version does what it has accepted.
    olds, news = old_api.submit(tape(3)), machines.api.submit(tape(2))
    for ident, size in ((olds, 3), (news, 2)):
        assert machines.api.finished(ident)["status"] == "completed"
        assert machines.api.text(ident).split() == spoken(size)
    assert len(old_worker.decoded()) >= 3
    # What the last process of the old version leaves, goes on in the new one.
    ident = old_api.submit(tape(14), response_format="text")
    old_api.until(lambda: old_api.task(ident)["processed_seconds"] > 8)
    old_worker.kill()
    old_api.kill()
    task = machines.api.finished(ident)
    assert (task["status"], task["attempts"]) == ("completed", 2)
    assert task["result"].split() == spoken(14)
    assert machines.decoded()


def test_files_survive_killed_workers_and_a_restarted_database(
    machines: Machines, postgres_server: str
) -> None:
    count, kills = (300, 12) if FULL else (20, 2)
    chance = random.Random(7)
    # Short ones, middling ones, and a few that are cut into parts.
    sizes = [chance.choice((1, 2, 3, 8, 30)) for _ in range(count)]
    api, before = machines.api, machines.rows("SELECT id FROM tasks")

    def submit(size: int) -> str:
        while True:  # a database that restarts is a clear 503, and the client comes again
            answer = api.post(
                "/v1/audio/transcriptions/async",
                files={"file": ("a.wav", tape(size))},
                data={"response_format": "text"},
            )
            if answer.status_code == 202:
                return str(answer.json()["id"])
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            time.sleep(0.3)

    form = {"file": ("a.wav", tape(1))}
    started = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(submit, size) for size in sizes]
        for number in range(kills):
            time.sleep(chance.uniform(0.3, 2.0))
            victim = chance.choice(machines.workers)
            victim.kill()
            if number == kills // 2:
                with postgres_away(postgres_server):
                    for path in ("/v1/audio/transcriptions", "/v1/audio/transcriptions/async"):
                        refused(api.post(path, files=form), "database_unavailable")
                    refused(api.get("/v1/tasks"), "database_unavailable")
                    time.sleep(AWAY_S)
            victim.start()
        idents = [future.result() for future in futures]

    def unfinished() -> bool:
        answer = api.get("/v1/tasks?status=pending&status=running&limit=1")
        return answer.status_code == 200 and not answer.json()["data"]

    api.until(unfinished, 900)
    print(f"{count} files, {kills} kills: {time.monotonic() - started:.0f} s")
    for ident, size in zip(idents, sizes, strict=True):
        task = api.task(ident)
        assert (task["status"], task["error"]) == ("completed", None)
        assert task["result"].split() == spoken(size)
    old = {row["id"] for row in before}
    kept = machines.rows("SELECT task_id, count(*) AS times FROM transcripts GROUP BY task_id")
    times = {row["task_id"]: row["times"] for row in kept if row["task_id"] not in old}
    assert times == dict.fromkeys(idents, 1)
