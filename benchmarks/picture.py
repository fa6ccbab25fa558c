"""A picture of a benchmark's medians: bars in groups, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#1b7f4b", "#b4531a", "#d59a3c", "#7a6aa8", "#5b7fa6")
_LEFT, _WIDTH, _BAR, _ROW = 190, 760, 18, 22


def bars(title: str, groups: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Horizontal bars; each group is scaled to its own longest and may have its own unit."""
    names = list(dict.fromkeys(name for _, values in groups for name in values))
    parts, y = [], 58
    for label, values in groups:
        parts.append(f'<text x="12" y="{y}" font-weight="bold">{escape(label)}</text>')
        most = max(values.values(), default=1.0) or 1.0
        for name, value in values.items():
            y += _ROW
            long = (_WIDTH - _LEFT - 90) * value / most
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            parts += [
                f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{_LEFT}" y="{y - 13}" width="{long:.1f}" height="{_BAR}" '
                f'fill="{colour}"/>',
                f'<text x="{_LEFT + long + 6:.1f}" y="{y}">{_number(value)}</text>',
            ]
        y += 2 * _ROW
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" '
        f'font-family="sans-serif" font-size="13"><title>{escape(title)}</title>',
        f'<rect width="{_WIDTH}" height="{y}" fill="white"/>',
        f'<text x="12" y="26" font-size="15">{escape(title)}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>\n"])


def _number(value: float) -> str:
    """Three digits, and no powers of ten."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
