"""Every instrument of the server, declared once; a registry for each ``Metrics``, never global."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from whisper_api.types import Lane

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)
_RTF = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 3)


class Metrics:
    """The instruments of one application, in ``registry``."""

    def __init__(self) -> None:
        """Names start with ``whisper_``; times are seconds."""
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter(
            "whisper_requests",
            "Answered HTTP requests.",
            ["route", "status"],
            registry=r,
        )
        self.failures = Counter(
            "whisper_failures", "Failed requests by error code.", ["code"], registry=r
        )
        self.audio_seconds = Counter(
            "whisper_audio_seconds", "Seconds of audio transcribed.", registry=r
        )
        self.batch_size = Histogram(
            "whisper_batch_size", "Windows in one engine call.", buckets=_BATCH, registry=r
        )
        self.real_time_factor = Histogram(
            "whisper_real_time_factor",
            "Engine seconds per second of audio, of each batch.",
            buckets=_RTF,
            registry=r,
        )
        self.stage_seconds = Histogram(
            "whisper_stage_seconds",
            "Seconds that a request spent in each stage: decode, vad, language, infer.",
            ["stage"],
            buckets=_SECONDS,
            registry=r,
        )
        self.uptime = Gauge(
            "whisper_start_time_seconds", "Unix time at which the server started.", registry=r
        )
        self.uptime.set_to_current_time()
        self._declare_requests(r)
        self._declare_models(r)
        # Memory, CPU and open files of the process; Linux only.
        ProcessCollector(registry=r)
        self._declare_reuse(r)
        self._declare_tasks(r)
        self._declare_history(r)

    def _declare_models(self, r: CollectorRegistry) -> None:
        self.model_loads = Counter(
            "whisper_model_loads", "Models loaded into memory.", ["model"], registry=r
        )
        self.fallbacks = Counter(
            "whisper_fallbacks", "Windows decoded again at a higher temperature.", registry=r
        )
        self.rescues = Counter(
            "whisper_rescues",
            "Voiced spans decoded again because no text covered them.",
            registry=r,
        )

    def _declare_requests(self, r: CollectorRegistry) -> None:
        self.request_seconds = Histogram(
            "whisper_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=r,
        )
        self.queue_wait_seconds = Histogram(
            "whisper_queue_wait_seconds",
            "Seconds that the longest waiting window of each engine call had waited.",
            buckets=_SECONDS,
            registry=r,
        )

    def _declare_history(self, r: CollectorRegistry) -> None:
        self.history_records = Counter(
            "whisper_history_records",
            "Transcripts kept in history, by source: sync, task, import.",
            ["source"],
            registry=r,
        )
        self.history_failures = Counter(
            "whisper_history_failures",
            "Transcripts that were answered but could not be kept.",
            registry=r,
        )

    def _declare_tasks(self, r: CollectorRegistry) -> None:
        self.tasks = Counter(
            "whisper_tasks", "Tasks that ended in this process.", ["status"], registry=r
        )
        self.webhooks = Counter(
            "whisper_webhooks",
            "Webhook calls: delivered, retried (failed, tried again later), dead.",
            ["outcome"],
            registry=r,
        )

    def _declare_reuse(self, r: CollectorRegistry) -> None:
        self.reuse = Counter(
            "whisper_reuse",
            "Requests by what was there already: miss, hit (a result), joined, resumed.",
            ["outcome"],
            registry=r,
        )
        self.cache_bytes = Gauge(
            "whisper_result_cache_bytes",
            "Memory of kept results and of windows kept for retries, about.",
            registry=r,
        )

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Note one answered HTTP request."""
        self.requests.labels(route=route, status=str(status)).inc()
        self.request_seconds.labels(route=route).observe(seconds)

    def observe_batch(self, size: int, audio: float, wall: float, waited: float = 0.0) -> None:
        """Note one engine call: its windows, their audio seconds, the seconds it took, and how
        long the first of its windows had waited."""
        self.batch_size.observe(size)
        self.queue_wait_seconds.observe(waited)
        if audio > 0:
            self.real_time_factor.observe(wall / audio)

    def observe_load(self, model: str) -> None:
        """Note that ``model`` was loaded into memory."""
        self.model_loads.labels(model=model).inc()

    def follow_cache(self, size: Callable[[], float]) -> None:
        """Show ``size`` (bytes), asked at each scrape."""
        self.cache_bytes.set_function(size)

    def follow_queue(self, waiting: Callable[[], Mapping[str, float]]) -> None:
        """Show ``waiting`` (lane -> queued seconds of audio), asked at each scrape."""
        self.registry.register(_Queue(waiting))

    def follow_engines(self, spent: Callable[[], Mapping[str, float]]) -> None:
        """Show ``spent`` (part -> seconds of work), asked at each scrape."""
        self.registry.register(_EngineParts(spent))

    def follow_cluster(self, figures: Callable[[], ClusterFigures]) -> None:
        """Show ``figures`` of all processes that share the database, asked at each scrape."""
        self.registry.register(_Cluster(figures))


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """What to scale workers by."""

    queued: Mapping[str, float]  #: seconds of audio by lane
    speed: float  #: seconds of audio in a second, all workers together
    backlog: float  #: seconds until what is queued is done
    workers: Mapping[str, int]  #: by state


class _Cluster:
    """A collector that reads the picture of the cluster when it is asked."""

    def __init__(self, figures: Callable[[], ClusterFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge for each figure."""
        figures = self._figures()
        queued = GaugeMetricFamily(
            "whisper_cluster_queued_seconds",
            "Seconds of audio in tasks that wait or run on the shared database, by lane.",
            labels=["lane"],
        )
        for lane in (Lane.INTERACTIVE, Lane.TASK):
            queued.add_metric([lane.value], figures.queued.get(lane.value, 0.0))
        yield queued
        yield GaugeMetricFamily(
            "whisper_cluster_speed",
            "Seconds of audio that all ready workers do in a second, measured.",
            figures.speed,
        )
        yield GaugeMetricFamily(
            "whisper_cluster_backlog_seconds",
            "Seconds until the queue of the shared database is done: queued audio by speed.",
            figures.backlog,
        )
        workers = GaugeMetricFamily(
            "whisper_cluster_workers",
            "Processes with an engine on the shared database, by state: ready, draining, away.",
            labels=["state"],
        )
        for state, count in figures.workers.items():
            workers.add_metric([state], count)
        yield workers


class _Queue:
    """A collector that reads the queue when it is asked."""

    def __init__(self, waiting: Callable[[], Mapping[str, float]]) -> None:
        self._waiting = waiting

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge with a value for each lane."""
        family = GaugeMetricFamily(
            "whisper_queued_seconds", "Seconds of audio that wait, by lane.", labels=["lane"]
        )
        waiting = self._waiting()
        for lane in Lane:
            family.add_metric([lane.value], waiting.get(lane.value, 0.0))
        yield family


class _EngineParts:
    """A collector that reads the engines' clock when it is asked."""

    def __init__(self, spent: Callable[[], Mapping[str, float]]) -> None:
        self._spent = spent

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One counter with a value for each part."""
        family = CounterMetricFamily(
            "whisper_engine_seconds",
            "Seconds of the engines' threads by part: features, encode, decode, align.",
            labels=["part"],
        )
        for part, seconds in self._spent().items():
            family.add_metric([part], seconds)
        yield family
