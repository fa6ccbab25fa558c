"""What ``load.py`` found, as one SVG of small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, MARGIN = 380, 230, 44
COLOURS = ("#1b7f4b", "#b4531a", "#3b5b9d", "#7a3b9d")
Bar = tuple[str, float, int]
"""Its name, its value, and which colour."""


def picture(found: dict[str, Any]) -> str:
    """All phases that have one, two in a row."""
    parts: list[str] = []
    if steps := found.get("steps"):
        names = [str(step["clients"]) for step in steps]
        curves = {p: [step[p] or 0.0 for step in steps] for p in ("p50", "p95")}
        parts.append(lines("Latency by clients, s", names, curves))
        parts.append(lines("Audio s per s by clients", names, {"": _of(steps, "audio_per_second")}))
    if many := found.get("connections"):
        title = f"/health beside {many['connections']} connections, ms"
        times = [(p, 1000 * (many["health"][p] or 0), 0) for p in ("p50", "p95", "p99")]
        parts.append(bars(title, times))
    for model, one in found.get("clients16", {}).items():
        rates = [("engine", one["engine_per_second"], 2), ("server", one["server_per_second"], 0)]
        parts.append(bars(f"16 clients, {model}: audio s per s", rates))
    if clip := found.get("clip"):
        both = [
            (f"{p} {who}", clip[who][p] or 0.0, n)
            for p in ("p50", "p95")
            for n, who in enumerate(("alone", "beside"))
        ]
        parts.append(bars(f"3 s clip beside {clip['long_files']} long files, s", both))
    if endurance := found.get("endurance"):
        names = [str(count) for count, _ in endurance["memory"]]
        curve = [mb for _, mb in endurance["memory"]]
        parts.append(lines("Memory by requests, MB", names, {"": curve}))
    return sheet(parts)


def sheet(parts: Sequence[str]) -> str:
    """Small pictures, two in a row."""
    rows = -(-len(parts) // 2)
    placed = [
        f'<g transform="translate({n % 2 * WIDTH} {n // 2 * HEIGHT})">{part}</g>'
        for n, part in enumerate(parts)
    ]
    box = f"0 0 {2 * WIDTH} {max(1, rows) * HEIGHT}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" '
        'font-family="sans-serif" font-size="11"><title>The server under load</title>'
        '<rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *placed, "</svg>\n"])


def lines(title: str, names: Sequence[str], curves: dict[str, list[float]]) -> str:
    """Curves over the same places."""
    most = max((value for curve in curves.values() for value in curve), default=0) or 1
    parts = [_frame(title, most)]
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        points = [(_across(n, len(names)), _up(value, most)) for n, value in enumerate(curve)]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = points[-1]
        parts.append(f'<text x="{x + 4:.0f}" y="{y:.0f}" fill="{colour}">{escape(name)}</text>')
    for n in range(0, len(names), max(1, len(names) // 6)):
        parts.append(_label(_across(n, len(names)), names[n]))
    return "".join(parts)


def bars(title: str, values: Sequence[Bar]) -> str:
    """A bar for each value, with its number."""
    most = max((value for _, value, _ in values), default=0) or 1
    parts, room = [_frame(title, most)], (WIDTH - 2 * MARGIN) / max(1, len(values))
    for n, (name, value, colour) in enumerate(values):
        x, top = MARGIN + (n + 0.2) * room, _up(value, most)
        parts.append(
            f'<rect x="{x:.0f}" y="{top:.0f}" width="{0.6 * room:.0f}" '
            f'height="{HEIGHT - MARGIN - top:.0f}" fill="{COLOURS[colour]}"/>'
            f'<text x="{x + 0.3 * room:.0f}" y="{top - 4:.0f}" text-anchor="middle">'
            f"{value:.3g}</text>"
        )
        parts.append(_label(x + 0.3 * room, name))
    return "".join(parts)


def _frame(title: str, most: float) -> str:
    return (
        f'<text x="{MARGIN}" y="20" font-weight="bold">{escape(title)}</text>'
        f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none" '
        'stroke="#888"/>'
        f'<text x="{MARGIN - 4}" y="{MARGIN + 4}" text-anchor="end">{most:.3g}</text>'
    )


def _label(x: float, text: str) -> str:
    where = f'x="{x:.0f}" y="{HEIGHT - MARGIN + 16}"'
    return f'<text {where} text-anchor="middle">{escape(text)}</text>'


def _across(n: int, count: int) -> float:
    return MARGIN + n * (WIDTH - 2 * MARGIN) / max(1, count - 1)


def _up(value: float, most: float) -> float:
    return HEIGHT - MARGIN - value / most * (HEIGHT - 2 * MARGIN)


def _of(steps: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [float(step[key]) for step in steps]
