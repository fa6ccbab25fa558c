"""Run the contract's rows against real servers and write docs/conformance.md.

    python scripts/conformance.py            runs everything, some minutes
    python scripts/conformance.py --check    only says whether the page lists the tests there are

A test belongs to a row by ``@pytest.mark.row(NUMBER)``; ``refused="..."`` names the honest 400
that a row allows in place of an answer.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "conformance.md"
sys.path.insert(0, str(ROOT))

from tests.e2e.contract_rows import ROWS  # noqa: E402

HEAD = """# Conformance with OpenAI's audio API

Written by `make conformance`, which asks real server processes by {clients}.
The clients check each answer strictly against their own types (`_strict_response_validation=True`),
plain and asynchronous. A number behind a test counts its cases: versions, clients, formats.

**{passed} of {rows} rows pass**{refused}.

| row | what | tests | result |
|---|---|---|---|
"""


@dataclass
class Row:
    """What the tests of one row came to."""

    tests: dict[str, int] = field(default_factory=lambda: defaultdict(int))  #: name -> cases
    failed: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)  #: skipped, or never run
    refused: str | None = None

    @property
    def result(self) -> str:
        """For the table."""
        if self.failed or not self.tests:
            return "**fails**: " + (", ".join(sorted(self.failed)) or "no test")
        if self.missing:
            return "**not run**: " + ", ".join(sorted(self.missing))
        return "passes" if self.refused is None else f"passes, refused: {self.refused}"


class Collector:
    """A plugin of pytest's that sorts tests and their outcomes by row."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {number: Row() for number in ROWS}
        self._rows_of: dict[str, list[int]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which rows each test belongs to."""
        for item in items:
            marks = list(item.iter_markers("row"))
            self._rows_of[item.nodeid] = [mark.args[0] for mark in marks]
            for mark in marks:
                row = self.rows[mark.args[0]]
                row.tests[_name(item.nodeid)] += 1
                row.missing.add(item.nodeid)
                row.refused = mark.kwargs.get("refused", row.refused)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a part of a test that failed, or the whole that passed."""
        for number in self._rows_of.get(report.nodeid, ()):
            if report.failed:
                self.rows[number].failed.add(report.nodeid)
            if report.when == "call" and report.passed:
                self.rows[number].missing.discard(report.nodeid)


def collect(*more: str) -> dict[int, Row]:
    """Run (or, with ``--collect-only``, only find) the tests that have a row."""
    collector = Collector()
    options = ["-q", "-m", "row and not gpu", "-p", "no:cacheprovider", *more]
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [str(path) for path in files if "mark.row(" in path.read_text("utf-8")]
    pytest.main([*options, *marked], plugins=[collector])
    return collector.rows


def page(rows: dict[int, Row]) -> str:
    """The whole page."""
    from tests.e2e.test_openai_versions import NEWEST, OLDER

    passed = [number for number, row in rows.items() if row.result.startswith("passes")]
    refused = [str(number) for number, row in rows.items() if row.refused]
    versions = ", ".join((NEWEST, *OLDER))
    head = HEAD.format(
        clients=f"`openai` {versions}, curl and bare sockets",
        passed=len(passed),
        rows=len(rows),
        refused=f", of them {', '.join(refused)} by the refusal that is named there"
        if refused
        else "",
    )
    return head + "".join(
        f"| {number} | {ROWS[number]} | {_tests(row)} | {row.result} |\n"
        for number, row in rows.items()
    )


def main(check: bool) -> int:
    """Write the page, or check it; 1 when something is wrong."""
    if check:
        wrong = list(mistakes(PAGE.read_text("utf-8"), collect("--collect-only", "-qq")))
        print("\n".join(wrong) or "conformance.md: up to date")
        return 1 if wrong else 0
    rows = collect()
    PAGE.write_text(page(rows), "utf-8")
    wrong = [f"{number}: {r.result}" for number, r in rows.items() if r.result[0] == "*"]
    print("\n".join(wrong) or f"docs/conformance.md: all {len(rows)} rows pass")
    return 1 if wrong else 0


def mistakes(text: str, rows: dict[int, Row]) -> list[str]:
    """Where the page and the tests that exist differ, and rows that did not pass."""
    found = []
    lines = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    for number, row in rows.items():
        line = lines.get(f"| {number}", "")
        if f"| {_tests(row)} | passes" not in line or ROWS[number] not in line:
            found.append(f"conformance.md, row {number}: out of date; run make conformance")
    if f"`openai` {openai.__version__}" not in text:
        found.append("conformance.md: written with another openai; run make conformance")
    return found


def _name(nodeid: str) -> str:
    path, _, test = nodeid.partition("::")
    return f"{Path(path).name}::{test.partition('[')[0]}"


def _tests(row: Row) -> str:
    named = (f"`{name}`" + (f" ({n})" if n > 1 else "") for name, n in sorted(row.tests.items()))
    return "<br>".join(named)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
