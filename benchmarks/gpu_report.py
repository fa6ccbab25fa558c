"""What ``gpu.py`` has found: a file and a picture that are there from the first figure on."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from picture import bars

WHO = {"batches": "encoder, decoder", "engine": "whole engine", "peer": "transformers.pipeline"}


class Report:
    """What is known so far, in a file and as a picture."""

    def __init__(self, options: argparse.Namespace, about: dict[str, Any]) -> None:
        self.found: dict[str, Any] = {**about, "results": []}
        self._options = options
        self._end = time.monotonic() + 60 * options.minutes
        self.save()

    def save(self) -> None:
        """Write all of it again."""
        if self._options.json:
            self._options.json.write_text(json.dumps(self.found, indent=1), "utf-8")
        if self._options.picture:
            self._options.picture.write_text(picture(self.found), "utf-8")

    def add(self, rows: list[dict[str, Any]], row: dict[str, Any], work: Callable[[], Any]) -> None:
        """Measure one thing: ``row`` with what ``work`` answers, or with why there is nothing."""
        started = time.monotonic()
        if started > self._end:
            row["note"] = "no time was left"
        else:
            try:
                row |= work()
            except Exception as error:  # one that fails must not take the others along
                row["note"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            row["took_s"] = round(time.monotonic() - started, 1)
        print(json.dumps(row), flush=True)
        rows.append(row)
        self.save()


def picture(found: dict[str, Any]) -> str:
    """Speed of everything that has one."""
    groups = []
    for result in found["results"]:
        speeds = {
            f"{who}, {row['batch']}": row["rtfx"]
            for kind, who in WHO.items()
            for row in result[kind]
            if "rtfx" in row
        }
        groups.append((f"{result['model']}: seconds of audio per second", speeds))
    return bars(f"{found['device']}, {found['dtype']}, commit {found['commit']}", groups)


def table(results: Sequence[dict[str, Any]]) -> str:
    """The figures for people, in Markdown; a window's time is that of 30 s of audio."""
    lines = [
        "| model | batch | encoder ms/window | decoder ms/window | RTFx | share of limit | GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in results:
        for kind, who in WHO.items():
            for row in found[kind]:
                head = f"| {found['model']}, {who} | {row['batch']} "
                if "note" in row:
                    lines.append(f"{head}| {row['note']} | | | | |")
                    continue
                parts = [row.get("encoder_ms"), row.get("decoder_ms")]
                cells = ["" if part is None else f"{part:.2f}" for part in parts]
                cells.append(f"{row['rtfx']:.0f}")
                share, memory = row.get("share_of_limit"), row.get("memory_gb")
                cells.append("" if share is None else f"{share:.0%}")
                cells.append("" if memory is None else f"{memory:.1f}")
                lines.append(f"{head}| {' | '.join(cells)} |")
    return "\n".join(lines)


def whereabouts(results: Sequence[dict[str, Any]]) -> str:
    """Where the time of the fastest batch goes, for people, in Markdown."""
    lines = []
    for found in results:
        for row in found["parts"]:
            lines += ["", f"{found['model']}, batch {row['batch']}: where the time goes", ""]
            if "note" in row:
                lines.append(row["note"])
                continue
            lines += ["| stage | ms/window |", "|---|---|"]
            lines += [f"| {name} | {_ms(value)} |" for name, value in row["stages_ms"].items()]
            lines.append(f"| one step of the whole batch | {_ms(row['step_ms'])} |")
            for part, busy in row["kernels"].items():
                lines += ["", f"| {part}: busy with | ms | share | calls |", "|---|---|---|---|"]
                lines += [
                    f"| {one['name']} | {_ms(one['ms'])} | {one['share']:.0%} | {one['calls']} |"
                    for one in busy
                ]
    return "\n".join(lines)


def _ms(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"
