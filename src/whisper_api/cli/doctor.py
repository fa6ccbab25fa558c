"""``whisper-api doctor``: what this machine has, what is missing, and what helps."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from whisper_api import __version__
from whisper_api.accelerators import INSTALL as TORCH_INSTALL
from whisper_api.accelerators import missing_libraries
from whisper_api.cli.flags import ConfigOption, find_config
from whisper_api.config import Settings, load_settings
from whisper_api.engines import ENGINES
from whisper_api.engines.auto import INSTALL
from whisper_api.engines.choice import measured
from whisper_api.errors import SettingsError, WhisperApiError
from whisper_api.model_folder import CHECKPOINT
from whisper_api.models import ModelStore

State = Literal["ok", "note", "missing"]
LIBRARIES = (
    "av",
    "ctranslate2",
    "fastapi",
    "faster-whisper",
    "huggingface-hub",
    "numpy",
    "onnxruntime",
    "tokenizers",
    "uvicorn",
)
TESTED = "Linux on x86-64"
"""Where the tests run; everything else is named as untested."""
UNMEASURED = "not measured yet on this machine: the engine does so when it loads the model"
LEAST_DISK = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    topic: str
    state: State
    text: str
    help: str = ""  #: what to do about it


def doctor(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Look at hardware, libraries, limits, settings and model. Exit 1 if something is missing."""
    findings = list(examine(find_config(config)))
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in findings], indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False)
        for item in findings:
            console.print(f"{item.state:8}{item.topic:13}{item.text}")
            if item.help:
                console.print(f"{'':21}-> {item.help}")
    if any(item.state == "missing" for item in findings):
        raise typer.Exit(1)


def examine(config: Path | None) -> Iterator[Finding]:
    """Every finding, settings and model included."""
    yield from _system()
    yield from _libraries()
    yield from _accelerators()
    yield from _limits()
    try:
        settings = load_settings(config)
    except SettingsError as error:
        for line in error.message.split("\n"):
            yield Finding("settings", "missing", line, "mend it; whisper-api settings shows all")
        return
    yield Finding("settings", "ok", f"from {config}" if config else "defaults and environment")
    for notice in settings.notices:
        yield Finding("settings", "note", notice)
    yield from _folders(settings)
    yield from _model(settings)


def _system() -> Iterator[Finding]:
    python = platform.python_version()
    yield Finding("version", "ok", f"whisper-api {__version__}, Python {python}")
    here = f"{platform.system()} {platform.release()} on {platform.machine()}"
    tested = platform.system() == "Linux" and platform.machine() in {"x86_64", "AMD64"}
    help = "" if tested else f"the tests run on {TESTED} only; please report what happens here"
    yield Finding("system", "ok" if tested else "note", here, help)
    yield Finding("processor", "ok", f"{_cpus()} usable cores, {_memory()}")


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "memory unknown"
    return f"{total / 1024**3:.1f} GiB of memory"


def _libraries() -> Iterator[Finding]:
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("libraries", "ok", ", ".join(found))
    if missing:
        yield Finding("libraries", "missing", ", ".join(missing), "run make install again")
    for name, target in ENGINES.items():
        try:
            there = importlib.util.find_spec(target.partition(":")[0]) is not None
        except ImportError:
            there = False
        if name == "openvino" and importlib.util.find_spec(name) is None:
            help = f"on processors it often encodes twice as fast: {INSTALL}"
            yield Finding("engine", "note", f"{name}: its library is not installed", help)
        elif name == "transformers" and (lacking := missing_libraries()):
            help = f"for CUDA cards and Apple's: {TORCH_INSTALL}"
            text = f"{name}: {', '.join(lacking)} not installed"
            yield Finding("engine", "note", text, help)
        else:
            yield Finding("engine", "ok" if there else "missing", name)


def _accelerators() -> Iterator[Finding]:
    try:
        import ctranslate2
    except (ImportError, OSError) as error:
        yield Finding("ctranslate2", "missing", str(error), "run make install again")
        return
    types = ", ".join(sorted(ctranslate2.get_supported_compute_types("cpu")))
    yield Finding("cpu", "ok", f"compute types {types}")
    count = ctranslate2.get_cuda_device_count()
    if count:
        types = ", ".join(sorted(ctranslate2.get_supported_compute_types("cuda")))
        yield Finding("cuda", "ok", f"{count} device(s), compute types {types}")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "cuda",
            "note",
            "there is an NVIDIA driver, but CTranslate2 sees no device",
            "install cuBLAS and cuDNN 9: pip install nvidia-cublas-cu12 nvidia-cudnn-cu12",
        )
    else:
        yield Finding("cuda", "note", "no NVIDIA device; the processor does the work")


def _limits() -> Iterator[Finding]:
    """The limits that decode processes run under; not every system has them."""
    if importlib.util.find_spec("resource") is None:
        yield Finding(
            "limits",
            "note",
            "no memory limits for processes on this system; decoders keep their time limit",
            "limit the memory of the whole server from outside, as with a container",
        )
    elif sys.platform == "darwin":
        yield Finding(
            "limits", "note", "macOS enforces no memory limits; decoders keep time limits"
        )
    else:
        yield Finding("limits", "ok", "decoders run under limits of memory, file size and time")


def _folders(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        help = "choose another with WHISPER_API_DATA_DIR or data_dir"
        yield Finding("data folder", "missing", f"{folder} cannot be written", help)
        return
    free = shutil.disk_usage(there).free
    text = f"{folder}, {free / 1024**3:.1f} GiB free"
    if free < LEAST_DISK:
        yield Finding("data folder", "note", text, "uploads and models need more room")
    else:
        yield Finding("data folder", "ok", text)


def _model(settings: Settings) -> Iterator[Finding]:
    try:
        files = ModelStore(settings).resolve()
    except WhisperApiError as error:
        help = "whisper-api models list shows what is here; models pull NAME fetches one"
        yield Finding("model", "missing", f"{settings.model_path}: {error.message}", help)
        return
    yield Finding("model", "ok", files.id, files.note)
    if settings.engine == "transformers" or files.kind == CHECKPOINT:
        yield _torch(settings)
    elif settings.engine in ("auto", "openvino"):
        found = measured(settings.data_dir, files)
        yield Finding("encoder", "ok" if found else "note", found or UNMEASURED)


def _torch(settings: Settings) -> Finding:
    """What the transformers engine would run on: device, number format, attention."""
    if lacking := missing_libraries():
        return Finding("torch", "missing", f"{', '.join(lacking)} not installed", TORCH_INSTALL)
    torch = importlib.import_module("torch")
    place = importlib.import_module("whisper_api.engines.torch_place")
    try:
        return Finding("torch", "ok", place.choose_torch_place(settings, torch).reason)
    except SettingsError as error:
        return Finding("torch", "missing", error.message, "docs/gpu.md names the builds for CUDA")
