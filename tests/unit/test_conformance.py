"""docs/conformance.md lists every row with the tests there are, and none that did not pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import conformance
from scripts.conformance import Row, mistakes, page
from tests.e2e.contract_rows import ROWS

TEXT = conformance.PAGE.read_text("utf-8")


def test_the_page_lists_the_tests_there_are() -> None:
    script = Path(conformance.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_row_from_1_to_48_passes() -> None:
    assert list(ROWS) == list(range(1, 49))
    for number in ROWS:
        assert re.search(rf"^\| {number} \| .* \| passes.* \|$", TEXT, re.MULTILINE), number


def rows() -> dict[int, Row]:
    """All rows with one test each that passed."""
    return {number: Row(tests={"test_a.py::test_b": 1}) for number in ROWS}


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"tests": {}}, "**fails**: no test"),
        ({"failed": {"test_b"}}, "**fails**: test_b"),
        ({"missing": {"test_b"}}, "**not run**: test_b"),
        ({"refused": "400"}, "passes, refused: 400"),
        ({}, "passes"),
    ],
)
def test_results_are_told_as_they_are(change: dict[str, object], result: str) -> None:
    found = rows()
    for name, value in change.items():
        setattr(found[17], name, value)
    assert found[17].result == result
    assert bool(mistakes(page(found), found)) is result.startswith("*")


def test_a_page_of_other_tests_is_out_of_date() -> None:
    written = page(rows())
    changed = rows()
    changed[5].tests["test_a.py::test_c"] = 1
    assert mistakes(written, changed) == [
        "conformance.md, row 5: out of date; run make conformance"
    ]
