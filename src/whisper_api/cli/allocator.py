"""The memory allocator of the server's process: glibc's can be told things only before the start.

Engines ask for the same large buffers again and again. By default glibc gives them back to the
system each time, and every page of the next one is a fault, which costs most in virtual machines.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Mapping

from whisper_api.config import Settings

log = logging.getLogger(__name__)

KEEPING: Mapping[str, str] = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "67108864",
}
"""Memory stays with the process once it has had it."""
HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""And comes in pages of 2 MB where the system has them."""


def restart_for_allocator(settings: Settings) -> None:
    """Start this command anew with what ``settings.allocator`` asks for; returns if it has that.

    Nothing may have been started or opened yet.
    """
    if settings.allocator == "system":
        return
    if platform.libc_ver()[0] != "glibc":
        log.warning("allocator: only glibc can be told to keep memory; this system has another")
        return
    wanted = environment(os.environ, huge=settings.allocator == "keep-huge")
    if wanted == dict(os.environ):
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


def environment(now: Mapping[str, str], huge: bool) -> dict[str, str]:
    """``now`` with the allocator's variables; what somebody has set stays."""
    wanted = {**KEEPING, **now}
    if huge:
        tunables = [part for part in wanted.get("GLIBC_TUNABLES", "").split(":") if part]
        if not any(part.startswith("glibc.malloc.hugetlb=") for part in tunables):
            wanted["GLIBC_TUNABLES"] = ":".join([*tunables, HUGE_PAGES])
    return wanted
