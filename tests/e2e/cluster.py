"""An API-only server and workers as processes, on a real PostgreSQL and a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import fsspec
import psycopg
from psycopg.rows import dict_row
from tests.e2e.task_server import TaskServer


class Machines:
    """Processes that share a database and a store, each with a folder of its own."""

    def __init__(self, folder: Path, shared: Mapping[str, Any]) -> None:
        """``shared`` are the settings of all of them."""
        self.folder = folder
        self.shared = shared
        self.made: list[TaskServer] = []
        self.api: TaskServer = self.make("", local_engine=False)
        self.workers: list[TaskServer] = []

    def make(self, role: str, **settings: Any) -> TaskServer:
        """A process that is not started."""
        number = len(self.made)
        server = TaskServer(
            self.folder / str(number),
            self.folder / f"decoded-{number}.log",
            {**self.shared, **settings},
            role=role,
        )
        self.made.append(server)
        return server

    def start(self, workers: int) -> None:
        """The API and so many workers, all at once; returns when they know each other."""
        self.workers = [self.make("worker") for _ in range(workers)]
        with ThreadPoolExecutor(workers + 1) as threads:
            list(threads.map(TaskServer.start, [self.api, *self.workers]))
        self.until_ready(workers)

    def until_ready(self, workers: int) -> None:
        """Wait until so many workers take work, and have known of each other for a moment."""
        wanted = {"ready": workers}

        def known() -> bool:
            found = self.api.get("/v1/workers").json()["data"]
            pids = {server.pid for server in self.workers}
            ready = [row for row in found if row["pid"] in pids and row["state"] == "ready"]
            return len(ready) == wanted["ready"]

        self.api.until(known, 120)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What the database answers."""
        address = self.shared["database_url"]
        with closing(psycopg.connect(address, row_factory=dict_row)) as connection:
            return connection.execute(query.encode()).fetchall()

    def stored(self) -> set[str]:
        """Keys of all files in the store."""
        system, root = fsspec.core.url_to_fs(self.shared["storage_url"], use_listings_cache=False)
        return {path.rpartition("/")[2] for path in system.find(root)}

    def named(self) -> set[str]:
        """Digests of all audio that the database knows."""
        return {row["digest"] for row in self.rows("SELECT digest FROM audio")}

    def decoded(self) -> list[int]:
        """Indexes of the windows that any worker began to decode since ``forget``."""
        return sorted(index for worker in self.workers for index in worker.decoded())

    def forget(self) -> None:
        """Count decoded windows anew."""
        for worker in self.workers:
            worker.log.write_text("")


@contextmanager
def cluster(folder: Path, workers: int, **shared: Any) -> Iterator[Machines]:
    """Running machines, ended afterwards."""
    machines = Machines(folder, shared)
    try:
        machines.start(workers)
        yield machines
    finally:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(TaskServer.stop, machines.made))
