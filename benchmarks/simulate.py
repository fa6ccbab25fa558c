"""A cluster of up to 1,000 workers as a discrete-event model, fed by measured figures.

Files come at random (Poisson) in a mix of lengths and are cut into parts; workers take parts in
order of arrival. The database is a server with so many cores whose polling load is taken off
beforehand; object storage is a line of a given width; API nodes take processor time for each file.
What is measured stands in ``scale.json`` with its source, what is assumed stands there too.

``python benchmarks/simulate.py --json scale-results.json --svg docs/images/scale.svg``
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import simpy

HERE = Path(__file__).parent
Event = Generator[Any, Any, None]


@dataclass(frozen=True)
class Cluster:
    """One set-up. Times in seconds, sizes in bytes."""

    workers: int
    speed: float  #: seconds of audio that a worker does in a second
    load: float  #: audio that arrives, as a share of what all workers together can do
    #: share of files, shortest and longest; with ``inf`` as longest exponential around the other
    mix: tuple[tuple[float, float, float], ...]
    part_s: float  #: audio in a part
    queue_poll_s: float
    checkpoint_s: float
    db_cores: float
    db_cpu_poll: float  #: of one worker's polling for ``queue_poll_s`` (per second: over it)
    db_cpu_rest: float  #: of one worker otherwise, per second
    db_cpu_task: float
    db_cpu_step: float
    storage_bytes_per_s: float
    audio_bytes_per_s: float
    stretch_bytes_per_s: float  #: decoded audio of a part; 0: each fetches the whole file
    api_nodes: int
    api_cpu_task: float


@dataclass(frozen=True)
class Outcome:
    """What came of a run. Shares are of the busy time of a resource."""

    arrived: int
    done: int
    waiting: int  #: files that were not finished at the end
    audio_per_s: float  #: seconds of audio finished in a second
    wait_p50: float  #: seconds from arrival to the start of a file's first part
    wait_p95: float
    workers_busy: float
    db_busy: float  #: polling included; 1 or more means that it cannot keep up
    db_polling: float
    storage_busy: float
    api_busy: float

    @property
    def first_limit(self) -> str:
        """The busiest of the shared resources."""
        shares = {"database": self.db_busy, "storage": self.storage_busy, "api": self.api_busy}
        return max(shares, key=lambda name: shares[name])


class Model:
    """One run of a cluster."""

    def __init__(self, cluster: Cluster, seed: int = 1) -> None:
        """``seed`` makes runs repeatable."""
        self.cluster = cluster
        self.random = random.Random(seed)
        self.env = simpy.Environment()
        self.workers = simpy.Resource(self.env, cluster.workers)
        self.api = simpy.Resource(self.env, cluster.api_nodes)
        self.storage = simpy.Resource(self.env, 1)
        polling = cluster.workers * (
            cluster.db_cpu_poll / cluster.queue_poll_s + cluster.db_cpu_rest
        )
        self.polling = polling / cluster.db_cores
        # Whole cores: what polling leaves is spread over them by longer service times.
        self.database = simpy.Resource(self.env, max(1, round(cluster.db_cores)))
        self._slower = 1 / max(1e-3, 1 - self.polling)
        self.waits: list[float] = []
        self.times: list[float] = []  #: from arrival to the last part
        self.busy = dict.fromkeys(("workers", "database", "storage", "api"), 0.0)
        self.arrived = self.done = 0
        self.audio = 0.0

    def run(self, seconds: float) -> Outcome:
        """The outcome of so many seconds."""
        self.env.process(self._arrivals())
        self.env.run(until=seconds)
        cluster, waits = self.cluster, sorted(self.waits)
        used = self.busy["database"] / seconds / self.database.capacity
        return Outcome(
            arrived=self.arrived,
            done=self.done,
            waiting=self.arrived - self.done,
            audio_per_s=self.audio / seconds,
            wait_p50=_quantile(waits, 0.5),
            wait_p95=_quantile(waits, 0.95),
            workers_busy=self.busy["workers"] / seconds / cluster.workers,
            db_busy=self.polling + used / self._slower,
            db_polling=self.polling,
            storage_busy=self.busy["storage"] / seconds,
            api_busy=self.busy["api"] / seconds / cluster.api_nodes,
        )

    def _arrivals(self) -> Event:
        rate = self.cluster.load * self.cluster.workers * self.cluster.speed / mean(self.cluster)
        while True:
            yield self.env.timeout(self.random.expovariate(rate))
            self.arrived += 1
            self.env.process(self._file(self._length()))

    def _length(self) -> float:
        shares = [share for share, _, _ in self.cluster.mix]
        _, low, high = self.random.choices(self.cluster.mix, shares)[0]
        if math.isinf(high):
            return self.random.expovariate(1 / low)
        return self.random.uniform(low, high)

    def _file(self, seconds: float) -> Event:
        cluster = self.cluster
        came = self.env.now
        yield from self._use("api", self.api, cluster.api_cpu_task)
        yield from self._store(seconds)
        yield from self._ask(cluster.db_cpu_task)
        count = max(1, math.ceil(seconds / cluster.part_s)) if cluster.part_s else 1
        if count > 1 and cluster.stretch_bytes_per_s:
            yield from self._store(seconds)  # whoever plans decodes the whole
        parts = [
            self.env.process(self._part(seconds, seconds / count, came, first=number == 0))
            for number in range(count)
        ]
        yield self.env.all_of(parts)
        self.done += 1
        self.times.append(self.env.now - came)
        self.audio += seconds

    def _part(self, whole: float, seconds: float, came: float, *, first: bool) -> Event:
        cluster = self.cluster
        cut = seconds < whole
        if cut and cluster.stretch_bytes_per_s:
            yield from self._move(seconds * cluster.stretch_bytes_per_s)
        # Workers hear of it at once; they hold several, so that the engine works on others while
        # one gets ready.
        with self.workers.request() as turn:
            yield turn
            if first:
                self.waits.append(self.env.now - came)
            began = self.env.now
            if cut and cluster.stretch_bytes_per_s:
                yield from self._move(seconds * cluster.stretch_bytes_per_s)
            else:
                yield from self._store(whole)
            left = seconds / cluster.speed
            while left > 0:
                step = min(left, cluster.checkpoint_s)
                yield self.env.timeout(step)
                yield from self._ask(cluster.db_cpu_step)
                left -= step
            self.busy["workers"] += self.env.now - began

    def _ask(self, cpu: float) -> Event:
        yield from self._use("database", self.database, cpu * self._slower)

    def _store(self, seconds: float) -> Event:
        yield from self._move(seconds * self.cluster.audio_bytes_per_s)

    def _move(self, size: float) -> Event:
        yield from self._use("storage", self.storage, size / self.cluster.storage_bytes_per_s)

    def _use(self, name: str, resource: simpy.Resource, seconds: float) -> Event:
        if seconds <= 0:
            return
        with resource.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
            self.busy[name] += seconds


def mean(cluster: Cluster) -> float:
    """Seconds of the mean file."""
    total = sum(share for share, _, _ in cluster.mix)
    means = (
        share * (low if math.isinf(high) else (low + high) / 2) for share, low, high in cluster.mix
    )
    return sum(means) / total


def _quantile(ascending: list[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))] if ascending else 0.0


def from_figures(path: Path = HERE / "scale.json", **change: Any) -> Cluster:
    """The set-up of a file of figures, with changes."""
    figures = json.loads(path.read_text("utf-8"))
    values = {name: entry["value"] for part in figures.values() for name, entry in part.items()}
    values["mix"] = tuple(tuple(row) for row in values["mix"])
    values["speed"] = float(values["speed"])
    return replace(Cluster(workers=1, load=0.7, **values), **change)


def frontier(settings: dict[str, dict[str, Any]], seconds: float) -> dict[str, list[Any]]:
    """For each set of changed settings: how a growing cluster fares."""
    found: dict[str, list[Any]] = {}
    for name, change in settings.items():
        rows = []
        for workers in SIZES:
            cluster = from_figures(workers=workers, **change)
            outcome = Model(cluster).run(seconds)
            rows.append({"workers": workers, **outcome.__dict__, "limit": outcome.first_limit})
            print(
                f"{name:32} {workers:5} workers  db {outcome.db_busy:6.2f}  storage "
                f"{outcome.storage_busy:5.2f}  api {outcome.api_busy:5.2f}  "
                f"p95 wait {outcome.wait_p95:7.1f} s  {outcome.audio_per_s:9.0f} audio s/s"
            )
        found[name] = rows
    return found


SIZES = (1, 3, 10, 30, 100, 300, 1000)
SETTINGS: dict[str, dict[str, Any]] = {
    "as installed": {},
    "16 cores for the database": {"db_cores": 16.0},
    "and 100 Gbit/s to storage": {"db_cores": 16.0, "storage_bytes_per_s": 1.25e10},
    "and 32 cores, 4 API nodes": {
        "db_cores": 32.0,
        "storage_bytes_per_s": 1.25e10,
        "api_nodes": 4,
    },
}
"""Each moves what broke first with the one before it."""


def busiest(row: dict[str, Any]) -> float:
    """The largest load among what all workers share."""
    return max(float(row[name]) for name in ("db_busy", "storage_busy", "api_busy"))


def draw(found: dict[str, list[Any]]) -> str:
    """The load of the busiest shared part over the number of workers, logarithmic, as SVG."""
    left, top, width, height = 70, 30, 520, 300
    low, high = 1e-3, 1e2

    def place(workers: float, busy: float) -> tuple[float, float]:
        across = math.log10(workers) / 3
        up = (math.log10(max(low, min(high, busy))) - math.log10(low)) / math.log10(high / low)
        return round(left + across * width, 1), round(top + (1 - up) * height, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 190} '
        f'{top + height + 60}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for exponent in range(4):
        x, y = place(10**exponent, low)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{10**exponent}</text>')
        parts.append(f'<line x1="{x}" y1="{top}" x2="{x}" y2="{y}" stroke="#ddd"/>')
    for exponent in range(-3, 3):
        x, y = place(1, 10**exponent)
        text = f"{100 * 10**exponent:g} %"
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{text}</text>')
        strong = "#b00" if exponent == 0 else "#ddd"
        parts.append(f'<line x1="{left}" y1="{y}" x2="{left + width}" y2="{y}" stroke="{strong}"/>')
    colours = ("#1f5fbf", "#2a8f4f", "#c77700", "#8040a0")
    words = 0.0
    for (name, rows), colour in zip(found.items(), colours, strict=True):
        points = [place(row["workers"], busiest(row)) for row in rows]
        line = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = points[-1]
        words = max(y + 4, words + 14)  # lines may end close together
        parts.append(f'<text x="{x + 8}" y="{words}" fill="{colour}">{name}</text>')
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 42}" text-anchor="middle">workers</text>'
    )
    parts.append(
        f'<text x="{left}" y="18">load of the busiest shared part (100 %: it cannot keep up)</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="simulated")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    found = frontier(SETTINGS, given.seconds)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if given.svg is not None:
        given.svg.write_text(draw(found), "utf-8")


if __name__ == "__main__":
    main()
