"""Charts as plain SVG, for light and for dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from .measuring import Spread, figure

WIDTH = 760
_COLOURS = ("a", "b", "c", "d")
_STYLE = """
    .page { fill: #ffffff; }
    .grid { stroke: #d0d7de; stroke-width: 1; }
    .axis { stroke: #57606a; stroke-width: 1.3; }
    text { fill: #1f2328; font-size: 13px; }
    .head { font-size: 16px; font-weight: 600; }
    .note { fill: #57606a; font-size: 12px; }
    .limit { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 5 4; }
    .spread { stroke: #1f2328; stroke-width: 1.3; }
    .a { fill: #1a7f37; stroke: #1a7f37; }
    .b { fill: #9a6700; stroke: #9a6700; }
    .c { fill: #0969da; stroke: #0969da; }
    .d { fill: #8250df; stroke: #8250df; }
    polyline { fill: none !important; stroke-width: 2.2; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; }
      .grid { stroke: #30363d; }
      .axis { stroke: #8b949e; }
      text { fill: #e6edf3; }
      .note { fill: #9da7b3; }
      .limit { stroke: #ff7b72; }
      .spread { stroke: #e6edf3; }
      .a { fill: #3fb950; stroke: #3fb950; }
      .b { fill: #d29922; stroke: #d29922; }
      .c { fill: #58a6ff; stroke: #58a6ff; }
      .d { fill: #bc8cff; stroke: #bc8cff; }
    }
"""


def _text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'  <text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'  <line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _document(title: str, told: str, height: float, drawn: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        'aria-labelledby="title desc"\n'
        "     font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\">\n"
        f'  <title id="title">{escape(title)}</title>\n  <desc id="desc">{escape(told)}</desc>\n'
        f"  <style>{_STYLE}  </style>\n"
        f'  <rect class="page" width="{WIDTH}" height="{height:.0f}"/>\n'
    )
    return head + "\n".join([_text(16, 26, title, "head"), *drawn]) + "\n</svg>\n"


def _steps(highest: float) -> list[float]:
    """About five round values from 0 up to a value that is not below the highest."""
    raw = highest / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def bars(title: str, values: Mapping[str, Spread], *, across: str, limit: float | None = None) -> str:
    """Bars that lie, one for each value, with a thin line from its lowest to its highest.

    Args:
        title: the heading.
        values: by label; a label that begins with ``ours`` is green.
        across: what the values are, and their unit.
        limit: a dashed line, where there is one.
    """
    left, right, top, step = 310, 40, 46, 30
    marks = _steps(max([*(one.highest for one in values.values()), limit or 0.0]) or 1.0)
    bottom = top + step * len(values)

    def x(value: float) -> float:
        return left + (WIDTH - left - right) * value / marks[-1]

    drawn = []
    for mark in marks:
        drawn += [
            _line("grid", x(mark), top, x(mark), bottom),
            _text(x(mark), bottom + 17, f"{mark:,g}", "note", "middle"),
        ]
    for number, (label, one) in enumerate(values.items()):
        y = top + step * number
        kind = "a" if label.startswith("ours") else "b"
        drawn.append(_text(left - 10, y + 19, label, "", "end"))
        drawn.append(
            f'  <rect class="{kind}" x="{left}" y="{y + 6}" width="{max(x(one.middle) - left, 1):.1f}" height="18"/>'
        )
        drawn.append(_line("spread", x(one.lowest), y + 15, x(one.highest), y + 15))
        drawn.append(_text(min(x(one.highest) + 6, WIDTH - 4), y + 19, figure(one.middle), "note"))
    if limit is not None:
        drawn.append(_line("limit", x(limit), top - 4, x(limit), bottom))
    drawn.append(_line("axis", left, top, left, bottom))
    drawn.append(_text(left, bottom + 36, across, "note"))
    told = "; ".join(f"{label}: {one}" for label, one in values.items())
    return _document(title, f"{across}. {told}", bottom + 50, drawn)


def lines(title: str, xs: Sequence[float], series: Mapping[str, Sequence[float]], *, across: str, up: str) -> str:
    """Lines over scales of powers of ten; values must be above 0.

    Args:
        title: the heading.
        xs: where the points stand.
        series: by label, one value for each of ``xs``.
        across, up: what both scales show.
    """
    left, right, top, height = 80, 150, 60, 260
    values = [value for ys in series.values() for value in ys]
    low, high = (_power(min(values), math.floor), _power(max(values), math.ceil))
    high = high if high > low else low + 1
    first, last = math.log10(min(xs)), math.log10(max(xs))
    last = last if last > first else first + 1

    def x(value: float) -> float:
        return left + (WIDTH - left - right) * (math.log10(value) - first) / (last - first)

    def y(value: float) -> float:
        return top + height * (high - math.log10(value)) / (high - low)

    drawn = [_text(16, 48, up, "note")]
    for power in range(low, high + 1):
        at = 10.0**power
        drawn += [
            _line("grid", left, y(at), WIDTH - right, y(at)),
            _text(left - 8, y(at) + 4, f"{at:,g}", "note", "end"),
        ]
    for value in xs:
        drawn += [
            _line("grid", x(value), top, x(value), top + height),
            _text(x(value), top + height + 18, f"{value:,g}", "note", "middle"),
        ]
    taken: list[float] = []
    for colour, (label, ys) in zip(_COLOURS, series.items(), strict=False):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in zip(xs, ys, strict=True))
        drawn.append(f'  <polyline class="{colour}" points="{points}"/>')
        drawn += [
            f'  <circle class="{colour}" cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3.5"/>'
            for p in points.split()
        ]
        stands = y(ys[-1]) + 4
        while any(abs(stands - other) < 15 for other in taken):
            stands += 15
        taken.append(stands)
        drawn.append(_text(WIDTH - right + 10, stands, f"{label}: {figure(ys[-1])}"))
    drawn.append(_line("axis", left, top + height, WIDTH - right, top + height))
    drawn.append(_line("axis", left, top, left, top + height))
    drawn.append(_text((left + WIDTH - right) / 2, top + height + 38, across, "note", "middle"))
    told = "; ".join(f"{label}: " + ", ".join(map(figure, ys)) for label, ys in series.items())
    return _document(
        title, f"{up} for {', '.join(f'{value:,g}' for value in xs)} {across}. {told}", top + height + 54, drawn
    )


def _power(value: float, rounded: object) -> int:
    assert callable(rounded)
    return int(rounded(math.log10(value)))
