"""Pages of 2 MB for memory that is read in every step, such as packed weights.

With those of 4 KB a token takes up to a third more time: processors fetch ahead only within a page,
and virtual machines look each of them up twice.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

_PAGE = 2 << 20
_LEAST = 8 * _PAGE  # bytes of a mapping that are worth the while
_HUGEPAGE, _COLLAPSE = 14, 25  # of Linux' madvise; the second since 6.1
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(\[heap\])?$")
_KILOBYTES = re.compile(r"(Rss|AnonHugePages): +(\d+) kB")


def expect_huge(array: NDArray[Any]) -> NDArray[Any]:
    """``array``, whose memory comes in large pages when it is used, where the system has them."""
    _advise(array.ctypes.data, array.ctypes.data + array.nbytes, _HUGEPAGE)
    return array


def make_huge() -> None:
    """Move what this process has filled into large pages, unless the system is to have none.

    Memory with holes stays as it is, so that no more of it is taken.
    """
    with suppress(OSError):  # another system
        if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
            return
        for start, end in list(_filled(Path("/proc/self/smaps").read_text())):
            _advise(start, end, _COLLAPSE)


def _filled(smaps: str) -> Iterator[tuple[int, int]]:
    """Where private memory begins and ends that is in use as a whole, in small pages."""
    start = end = used = 0
    for line in smaps.splitlines():
        if found := _MAPPING.match(line):
            start, end = (int(found[place], 16) for place in (1, 2))
            used = 0
        elif found := _KILOBYTES.match(line):
            if found[1] == "Rss":
                used = int(found[2]) << 10
            elif end - start >= max(_LEAST, int(found[2]) << 11) and used > end - start - _PAGE:
                yield start, end
        elif re.match("[0-9a-f]+-", line):
            start = end = 0


def _advise(start: int, end: int, advice: int) -> None:
    first, last = -(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE
    if sys.platform == "linux" and last > first:
        # A system that cannot do it only says so.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
