"""The contract by OpenAI's clients of several ages, each in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.conftest import Encode
from tests.e2e.conftest import Server
from tests.e2e.sdk_rows import ROWS
from tests.other_env import ensure_env

NEWEST = openai.__version__
OLDER = ("3.3.1", "2.54.0", "1.109.1")
SCRIPT = Path(__file__).parent / "sdk_rows.py"
Found = dict[str, str | None]


def cases() -> list[Any]:
    """Every version, row and kind of client; older versions need an installation, so are slow."""
    found = []
    for version in (NEWEST, *OLDER):
        slow = [] if version == NEWEST else [pytest.mark.slow]
        for number in ROWS:
            for kind in ("sync", "async"):
                name = f"{version}-{number}-{kind}"
                marks = [pytest.mark.row(number), *slow]
                found.append(pytest.param(version, f"{number} {kind}", marks=marks, id=name))
    return found


@pytest.fixture(scope="module")
def pythons() -> Iterator[dict[str, Future[Path]]]:
    """The interpreter of each version; installations run side by side."""
    with ThreadPoolExecutor(len(OLDER)) as pool:
        yield {
            version: pool.submit(ensure_env, f"openai-{version}", [f"openai=={version}"])
            for version in OLDER
        }


@pytest.fixture(scope="module")
def found_by(
    request: pytest.FixtureRequest,
    guarded: Server,
    speech: Path,
    encode: Encode,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Found]:
    """What a version found, asked once."""
    mp3 = tmp_path_factory.mktemp("mp3") / "x.mp3"
    mp3.write_bytes(encode(speech.read_bytes(), "mp3"))

    @cache
    def found(version: str) -> Found:
        python = Path(sys.executable)
        if version != NEWEST:
            python = request.getfixturevalue("pythons")[version].result()
        command = [str(python), "-I", str(SCRIPT), guarded.base_url, guarded.key]
        command += [str(speech), str(mp3)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["version"] == version
        result: Found = answer["found"]
        return result

    return found


@pytest.mark.parametrize(("version", "asked"), cases())
def test_row(found_by: Callable[[str], Found], version: str, asked: str) -> None:
    wrong = found_by(version)[asked]
    assert wrong is None, wrong
