"""Log lines: one an event, no forged ones, no secrets; metrics: what they count."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.logs import JsonFormatter, LineFormatter, request_id_var, setup_logging
from whisper_api.metrics import Metrics
from whisper_api.runtime import open_runtime
from whisper_api.types import Lane


@pytest.fixture(autouse=True)
def same_loggers_afterwards() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def line(message: str, *args: object, secrets: tuple[str, ...] = ()) -> str:
    record = logging.LogRecord("whisper_api.x", logging.INFO, "", 0, message, args, None)
    return LineFormatter(secrets).format(record)


def test_a_line_names_level_logger_and_request() -> None:
    token = request_id_var.set("req_1")
    try:
        assert line("hello %s", "there").endswith(" INFO whisper_api.x [req_1] hello there")
    finally:
        request_id_var.reset(token)
    assert "[" not in line("hello")


def test_callers_cannot_forge_lines() -> None:
    text = line("GET %s", "/a\r\n2026-01-01 INFO forged\x1b[31m\u2028")
    assert "\n" not in text
    assert "\\r\\n2026" in text
    assert "\x1b" not in text
    assert "\u2028" not in text


def test_tracebacks_keep_their_lines() -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), info)
    assert LineFormatter().format(record).count("\n") > 1


def test_secrets_are_starred() -> None:
    text = line("key sesame-open, Authorization: Bearer tok123", secrets=("sesame-open",))
    assert "sesame" not in text
    assert "tok123" not in text


def test_log_file_is_written_and_uvicorn_folded_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "whisper.log"
    setup_logging(Settings(log_file=path, log_level="WARNING"))
    logging.getLogger("uvicorn.error").warning("from uvicorn")
    logging.getLogger("whisper_api").info("too quiet")
    setup_logging(Settings())  # closes the file
    written = path.read_text("utf-8")
    assert "from uvicorn" in written
    assert "too quiet" not in written
    assert "from uvicorn" in capsys.readouterr().err


def test_a_log_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"^log_file: .* cannot be written"):
        setup_logging(Settings(log_file=tmp_path / "file" / "whisper.log"))


def test_metrics_of_two_applications_are_apart() -> None:
    one, two = Metrics(), Metrics()
    one.rescues.inc()
    assert one.registry.get_sample_value("whisper_rescues_total") == 1
    assert two.registry.get_sample_value("whisper_rescues_total") == 0


def test_batches_are_observed() -> None:
    metrics = Metrics()
    metrics.observe_batch(4, 100.0, 10.0)
    metrics.observe_batch(1, 0.0, 1.0)  # silence has no factor
    value = metrics.registry.get_sample_value
    assert value("whisper_batch_size_sum") == 5
    assert value("whisper_real_time_factor_sum") == pytest.approx(0.1)
    assert value("whisper_real_time_factor_count") == 1


def test_the_queue_is_read_at_each_scrape() -> None:
    metrics, waiting = Metrics(), {"interactive": 3.0}
    metrics.follow_queue(lambda: waiting)
    assert (
        'whisper_queued_seconds{lane="interactive"} 3.0'
        in generate_latest(metrics.registry).decode()
    )
    waiting["interactive"] = 5.0
    value = metrics.registry.get_sample_value
    assert value("whisper_queued_seconds", {"lane": "interactive"}) == 5
    assert value("whisper_queued_seconds", {"lane": "task"}) == 0


async def test_a_running_server_counts_loads_and_shows_its_queue(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, engine="fake", model_path="fake")
    async with open_runtime(settings) as runtime:
        await runtime.preload()
        async with runtime.scheduler.admit(Lane.TASK, 12.0):
            value = runtime.metrics.registry.get_sample_value
            assert value("whisper_model_loads_total", {"model": "fake"}) == 1
            assert value("whisper_queued_seconds", {"lane": "task"}) == 12


def test_json_lines_hold_the_fields_of_an_event_and_no_secrets() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "key %s\nBearer abc", ("sk-1",), None)
    record.fields = {"route": "/v1/models", "ms": 1.5}
    token = request_id_var.set("req_1")
    try:
        text = JsonFormatter(("sk-1",)).format(record)
    finally:
        request_id_var.reset(token)
    assert "\n" not in text
    content = json.loads(text)
    assert content["request_id"] == "req_1"
    assert content["route"] == "/v1/models"
    assert content["message"] == "key ********\nBearer ********"
    assert content["level"] == "INFO"
