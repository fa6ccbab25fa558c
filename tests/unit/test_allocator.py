"""The allocator setting: one restart with what was asked for, and none where nothing changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from whisper_api.cli import allocator
from whisper_api.config import Settings


class Restarted(Exception):
    """Instead of another program."""


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Mapping[str, str]]]:
    seen: list[tuple[list[str], Mapping[str, str]]] = []

    def execve(path: str, arguments: list[str], variables: Mapping[str, str]) -> None:
        assert path == sys.executable
        seen.append((arguments, variables))
        raise Restarted

    for name in (*allocator.KEEPING, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    return seen


def settings(tmp_path: Path, value: str) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path, "allocator": value})


def test_the_allocator_is_left_alone_unless_asked_for(
    tmp_path: Path, restarts: list[tuple[list[str], Mapping[str, str]]]
) -> None:
    allocator.restart_for_allocator(Settings(data_dir=tmp_path))
    assert restarts == []


@pytest.mark.parametrize("value", ["keep", "keep-huge"])
def test_the_command_starts_anew_once_with_the_same_arguments(
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restarts: list[tuple[list[str], Mapping[str, str]]],
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "whisper_api", "serve", "--port", "1"])
    with pytest.raises(Restarted):
        allocator.restart_for_allocator(settings(tmp_path, value))
    ((arguments, variables),) = restarts
    assert arguments[1:] == ["-m", "whisper_api", "serve", "--port", "1"]
    assert variables["MALLOC_MMAP_MAX_"] == "0"
    assert ("GLIBC_TUNABLES" in variables) == (value == "keep-huge")
    for name, found in variables.items():
        monkeypatch.setenv(name, found)
    allocator.restart_for_allocator(settings(tmp_path, value))  # now it has them
    assert len(restarts) == 1


def test_variables_that_somebody_set_stay() -> None:
    now = {"MALLOC_TOP_PAD_": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=3", "HOME": "/x"}
    wanted = allocator.environment(now, huge=True)
    assert wanted["MALLOC_TOP_PAD_"] == "1"
    assert wanted["GLIBC_TUNABLES"] == "glibc.malloc.tcache_count=3:glibc.malloc.hugetlb=1"
    assert wanted["HOME"] == "/x"
    assert allocator.environment(wanted, huge=True) == wanted


def test_systems_without_glibc_say_so_and_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    restarts: list[tuple[list[str], Mapping[str, str]]],
) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    allocator.restart_for_allocator(settings(tmp_path, "keep"))
    assert restarts == []
    assert "only glibc" in caplog.text
