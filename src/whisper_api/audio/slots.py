"""The decode pool's machinery: jobs, their queue, and slots of one thread and one process each."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

Reply = dict[str, Any]
_START_SECONDS = 60.0
_LONGEST_ANSWER = 1 << 16


class Job:
    """One request to a worker; its future gets the reply, or None when the worker died."""

    def __init__(
        self, request: dict[str, Any], limit: float, *, light: bool, counts: bool = False
    ) -> None:
        """``limit``: seconds it may run; ``light``: short work; ``counts`` towards recycling."""
        self.request = request | {"cpu_seconds": limit * 4}
        self.limit = limit
        self.light = light
        self.counts = counts
        self.future: Future[Reply | None] = Future()
        self.ended: Future[None] = Future()
        self.reason: str | None = None  #: why it was aborted
        self.started = False
        self._worker: Worker | None = None
        self._guard = threading.Lock()

    def begin(self, worker: Worker) -> bool:
        """Claim the job for ``worker``; False when nobody waits for it any more."""
        with self._guard:
            if self.reason or not self.future.set_running_or_notify_cancel():
                self._end()
                return False
            self._worker, self.started = worker, True
            return True

    def let_go(self) -> bool:
        """Take the worker from the job, which can kill it no more; whether it has done so."""
        with self._guard:
            self._worker = None
            return self.reason is not None

    def finish(self, reply: Reply | None) -> None:
        """Hand over the reply; None says that the worker died or never started."""
        with self._guard:
            self._worker = None
            if self.started or self.future.set_running_or_notify_cancel():
                self.future.set_result(reply)
            self._end()

    def abort(self, reason: str) -> None:
        """Kill the worker that runs this job; a waiting job is dropped when its turn comes."""
        with self._guard:
            if self.ended.done():
                return
            self.reason = self.reason or reason
            if self._worker is not None:
                self._worker.kill()
            elif not self.started:
                self.future.cancel()
                self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class JobQueue:
    """Jobs that wait: short work first, in order of arrival."""

    def __init__(self) -> None:
        self.closed = False
        self._light: deque[Job] = deque()
        self._heavy: deque[Job] = deque()
        self._change = threading.Condition()

    def put(self, job: Job) -> None:
        """Append a job; after ``close`` it is answered at once."""
        with self._change:
            if not self.closed:
                (self._light if job.light else self._heavy).append(job)
                self._change.notify_all()
                return
        job.reason = "closed"
        job.finish(None)

    def take(self, *, light_only: bool) -> Job | None:
        """The next job, waiting for one; None once the queue is closed."""
        with self._change:
            while not self.closed:
                if self._light:
                    return self._light.popleft()
                if self._heavy and not light_only:
                    return self._heavy.popleft()
                self._change.wait()
            return None

    def close(self) -> None:
        """Refuse whatever waits and everything that comes."""
        with self._change:
            self.closed = True
            left = [*self._light, *self._heavy]
            self._light.clear()
            self._heavy.clear()
            self._change.notify_all()
        for job in left:
            job.reason = "closed"
            job.finish(None)


class Worker:
    """One decode process and its pipes."""

    def __init__(self, limits: dict[str, int]) -> None:
        """Start the process; it is ready when ``wait_ready`` returns."""
        self.jobs = 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "whisper_api.audio.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._send(limits)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait_ready(self) -> bool:
        """Wait for its first line; False when it could not start."""
        timer = threading.Timer(_START_SECONDS, self.kill)
        timer.start()
        try:
            return self._receive() == {"ok": {}}
        finally:
            timer.cancel()

    def ask(self, job: Job) -> Reply | None:
        """Run a job, at most its time limit; None when the process died over it."""
        timer = threading.Timer(job.limit, job.abort, ("timeout",))
        timer.daemon = True
        timer.start()
        try:
            self._send(job.request)
            return self._receive()
        finally:
            timer.cancel()
            self.jobs += job.counts

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def reap(self) -> None:
        """Kill it, close its pipes and collect its exit status."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # a dead worker shows when it is read from
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _receive(self) -> Reply | None:
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline(_LONGEST_ANSWER)
            reply = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return reply if isinstance(reply, dict) else None


class Slot:
    """One thread that keeps one worker warm and feeds it jobs.

    The thread lives as long as the slot, because Linux ends a worker together with the
    *thread* that started it.
    """

    def __init__(
        self, jobs: JobQueue, limits: dict[str, int], *, recycle: int, light_only: bool
    ) -> None:
        """Start the thread; the worker warms up in it."""
        self._queue = jobs
        self._limits = limits
        self._recycle = recycle
        self._light_only = light_only
        self._job: Job | None = None
        self._worker: Worker | None = None
        self._thread = threading.Thread(target=self._serve, name="decode", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process number of the live worker."""
        worker = self._worker
        return worker.pid if worker is not None and worker.alive else None

    def abort(self) -> None:
        """Kill the running job; used while the queue is being closed."""
        if (job := self._job) is not None:
            job.abort("closed")

    def join(self) -> None:
        """Wait until the thread and its worker are gone."""
        while self._thread.is_alive():
            self.abort()
            self._thread.join(0.2)

    def _serve(self) -> None:
        self._warm()
        while (job := self._queue.take(light_only=self._light_only)) is not None:
            self._job = job
            try:
                self._run(job)
            finally:
                self._job = None
        if self._worker is not None:
            self._worker.reap()

    def _run(self, job: Job) -> None:
        worker = self._warm()
        if worker is None:
            job.finish(None)
            return
        if job.begin(worker):
            reply = worker.ask(job)
            killed = job.let_go()
            spent = killed or reply is None or worker.jobs >= self._recycle
            if spent:
                worker.reap()
            job.finish(reply)
            if spent and not self._queue.closed:
                self._warm()

    def _warm(self) -> Worker | None:
        """The live worker, a new one if need be; None when none starts."""
        if self._worker is not None:
            if self._worker.alive:
                return self._worker
            self._worker.reap()
        try:
            worker = Worker(self._limits)
        except OSError:
            self._worker = None
            return None
        self._worker = worker if worker.wait_ready() else None
        if self._worker is None:
            worker.reap()
        return self._worker


def _environment() -> dict[str, str]:
    """What the worker needs to start, and none of the server's secrets."""
    package_parent = str(Path(__file__).resolve().parents[2])
    kept = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR", "TEMP")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    path = [package_parent, os.environ.get("PYTHONPATH", "")]
    return environment | {
        "PYTHONPATH": os.pathsep.join(part for part in path if part),
        "PYTHONUTF8": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
