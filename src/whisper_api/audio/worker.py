"""The decode worker: a process that reads one JSON request a line and answers each with one.

It runs hostile input through libav, so it is started bare (``python -m``), limited, and
believed in nothing but numbers and short texts: no pickle comes back from it, and audio
stays on disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from whisper_api.audio.effort import process_gives_way
from whisper_api.audio.envelope import PeakMeter
from whisper_api.errors import AudioRejected, UndecodableAudio

Request = dict[str, Any]
Reply = dict[str, Any]


def main() -> None:
    """Serve requests from standard input until it closes."""
    requests, answers = sys.stdin, _private_stdout()
    import av

    from whisper_api.audio import libav, preprocess

    av.logging.set_level(None)
    pending: queue.SimpleQueue[Request] = queue.SimpleQueue()
    limits: Request = json.loads(requests.readline())
    limit_process(limits)
    threading.Thread(target=_listen, args=(requests, pending), daemon=True).start()
    jobs: dict[str, Callable[[Request], Reply]] = {
        "probe": lambda request: libav.probe(Path(request["source"])).as_dict(),
        "measure": lambda request: _measure(request, libav),
        "decode": lambda request: _decode(request, libav, preprocess),
        "transcode": lambda request: _transcode(request, libav),
        "ready": lambda request: {},
    }
    _answer(answers, {"ok": {}})
    while True:
        request = pending.get()
        _allow_cpu(request.get("cpu_seconds", 0))
        _answer(answers, answer(jobs, request))


def answer(jobs: dict[str, Callable[[Request], Reply]], request: Request) -> Reply:
    """Run one request; whatever goes wrong becomes a plain reply."""
    try:
        return {"ok": jobs[request["op"]](request)}
    except AudioRejected as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(
            UndecodableAudio("Decoding this file needs too much memory.", code="decode_memory")
        )
    except OSError as error:
        if type(error) is OSError and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"error": "storage_full"}
        return _undecodable(error)
    except Exception as error:
        return _undecodable(error)


def _undecodable(error: Exception) -> Reply:
    return _refusal(UndecodableAudio()) | {"detail": f"{type(error).__name__}: {error}"[:300]}


def _refusal(error: AudioRejected) -> Reply:
    return {"error": type(error).__name__, "message": error.message, "code": error.code}


def _decode(request: Request, libav: Any, preprocess: Any) -> Reply:
    """Decode ``source`` to ``target`` and run the second pass that was asked for."""
    source, target = Path(request["source"]), Path(request["target"])
    limit: float = request["max_seconds"]
    lead = tail = 0
    rate = request["rate"] if request["chain"] is None else request["chain"]["rate"]
    meter = PeakMeter(rate)
    if request["chain"] is None:
        pcm = libav.decode_pcm(source, target, rate, limit, meter)
        damaged = pcm.damaged
        if request["loudness"]:
            pcm.peak = preprocess.normalise_loudness(target, pcm.peak)
    else:
        chain = preprocess.Chain(**request["chain"])
        first = target.with_suffix(".first")
        raw = libav.decode_pcm(source, first, rate, limit, meter)
        damaged = raw.damaged
        pcm, lead, tail = preprocess.run_chain(first, target, raw.peak, chain)
        first.unlink()
    return {
        "samples": pcm.samples,
        "lead": lead,
        "tail": tail,
        "peak": min(pcm.peak / 32768, 1.0),
        "damaged": damaged,
        "envelope": asdict(meter.finish()),
    }


def _measure(request: Request, libav: Any) -> Reply:
    return {"seconds": libav.measure(Path(request["source"]), request["max_seconds"])}


def _transcode(request: Request, libav: Any) -> Reply:
    libav.transcode(Path(request["source"]), Path(request["target"]), request["max_seconds"])
    return {}


def _listen(requests: TextIO, pending: queue.SimpleQueue[Request]) -> None:
    """Hand requests on; when the parent is gone, so is this process, whatever it is doing."""
    for line in requests:
        pending.put(json.loads(line))
    os._exit(0)


def _private_stdout() -> TextIO:
    """The answer pipe, kept from anything that prints."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    return answers


def _answer(answers: TextIO, reply: Reply) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def limit_process(limits: Request) -> list[str]:
    """Bound this process as far as the system can; the names of the bounds that took hold."""
    held = []
    if sys.platform == "linux":
        import ctypes
        import signal

        with contextlib.suppress(OSError, AttributeError):
            set_parent_death_signal = 1
            ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
            held.append("dies with its parent")
    if limits.get("gives_way"):
        process_gives_way()
        held.append("gives way")
    if sys.platform != "win32":
        import resource

        bounds = {
            "memory": (resource.RLIMIT_AS, limits["memory_bytes"]),
            "file size": (resource.RLIMIT_FSIZE, limits["file_bytes"]),
            "core dumps": (resource.RLIMIT_CORE, 0),
        }
        for name, (kind, value) in bounds.items():
            # macOS refuses some of these.
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (value, value))
                held.append(name)
    return held


def _allow_cpu(seconds: float) -> None:
    """Let this process use ``seconds`` of CPU more than it has (the limit counts its life)."""
    if sys.platform != "win32" and seconds:
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = usage.ru_utime + usage.ru_stime
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


if __name__ == "__main__":
    main()
