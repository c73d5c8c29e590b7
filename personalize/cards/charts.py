"""Charts as inline SVG: a few hundred bytes a line, sharp at any size, coloured by the page's own palette."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 30, 44
MAX_POINTS = 400
COLOURS = 6

Line = tuple[Sequence[float], Sequence[float]]


def lines(series: Mapping[str, Line], x: str, y: str, marks: Mapping[str, float], title: str = "") -> str:
    """Draw named (xs, ys) as lines with vertical marks. Non-finite points are left out; no point gives a sentence."""
    kept = {name: _finite(*line) for name, line in series.items()}
    points = [point for line in kept.values() for point in line]
    if not points:
        return "<p class='muted'>Nothing to draw: no finite value was recorded.</p>"
    left_out = sum(len(xs) for xs, _ in series.values()) - len(points)
    x_ticks = ticks(*_span([px for px, _ in points] + list(marks.values())))
    y_ticks = ticks(*_span([py for _, py in points]))
    x0, x1 = min(x_ticks[0], min(px for px, _ in points)), max(x_ticks[-1], max(px for px, _ in points))
    y0, y1 = y_ticks[0], y_ticks[-1]

    def across(value: float) -> float:
        return LEFT + (value - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    names = ", ".join(kept)
    label = f"{title}: {y or names} over {x}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label, quote=True)}">']
    for value in y_ticks:
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{up(value) + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    for value in x_ticks:
        label_at = f'x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 18}"'
        parts.append(f'<text class="tick" {label_at} text-anchor="middle">{number(value)}</text>')
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>'
    )
    if y:
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text class="axis" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
        )
    for label, at in marks.items():
        if not math.isfinite(at):
            continue
        place = across(at)
        anchor = "end" if place > WIDTH * 0.9 else "start" if place < WIDTH * 0.1 else "middle"
        parts.append(f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"/>')
        words = f'x="{place:.1f}" y="{TOP - 11}" text-anchor="{anchor}">{escape(label)}'
        parts.append(f'<text class="mark-label" {words}</text>')
    for index, line in enumerate(kept.values()):
        colour = index % COLOURS + 1
        shown = thin(line)
        if len(shown) == 1:
            parts.append(
                f'<circle class="dot c{colour}" cx="{across(shown[0][0]):.1f}" cy="{up(shown[0][1]):.1f}" r="3.5"/>'
            )
        elif shown:
            path = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in shown)
            parts.append(f'<polyline class="line c{colour}" points="{path}"/>')
    parts.append("</svg>")
    keys = [f'<span class="key c{index % COLOURS + 1}">{escape(name)}</span>' for index, name in enumerate(kept)]
    if len(keys) > 1:
        parts.append(f'<p class="keys">{"".join(keys)}</p>')
    if left_out:
        parts.append(f'<p class="muted">{left_out} values were not finite and are not drawn.</p>')
    return "".join(parts)


def binned(groups: Mapping[str, Sequence[float]], about: int = 24) -> tuple[list[float], dict[str, list[int]]]:
    """Edges of bins of a round width, and how many of each group's values lie in each; none where nothing is finite."""
    kept = {name: [value for value in values if math.isfinite(value)] for name, values in groups.items()}
    every = [value for values in kept.values() for value in values]
    if not every:
        return [], {}
    edges = ticks(*_span(every), about)
    width = edges[1] - edges[0]
    counts = {}
    for name, values in kept.items():
        if values:
            counts[name] = [0] * (len(edges) - 1)
            for value in values:
                counts[name][min(int((value - edges[0]) / width + 1e-9), len(edges) - 2)] += 1
    return edges, counts


def bars(
    edges: Sequence[float], counts: Mapping[str, Sequence[int]], x: str, title: str = "", percent: bool = False
) -> str:
    """Stacked bars over bins; nothing to draw gives a sentence."""
    if not counts:
        return "<p class='muted'>Nothing to draw: no finite value was recorded.</p>"
    high = max(map(sum, zip(*counts.values(), strict=True)))
    steps = [step for step in ticks(0, max(high, 1), 4) if step == int(step)]
    most = max(steps[-1], high)

    def across(value: float) -> float:
        return LEFT + (value - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)

    total = sum(map(sum, counts.values()))
    label = f"{title}: {total} values from {number(edges[0])} to {number(edges[-1])}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label, quote=True)}">']
    for value in steps:
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{up(value) + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    for value in ticks(edges[0], edges[-1]):
        if edges[0] <= value <= edges[-1]:
            at = f'x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 18}"'
            said = f"{100 * value:.0f} %" if percent else number(value)
            parts.append(f'<text class="tick" {at} text-anchor="middle">{said}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    below = [0] * (len(edges) - 1)
    for index, of in enumerate(counts.values()):
        for place, count in enumerate(of):
            if count:
                left, right = across(edges[place]) + 1, across(edges[place + 1]) - 1
                top, bottom = up(below[place] + count), up(below[place])
                size = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
                parts.append(f'<rect class="bar c{index % COLOURS + 1}" {size}/>')
                below[place] += count
    parts.append("</svg>")
    keys = [f'<span class="key c{index % COLOURS + 1}">{escape(name)}</span>' for index, name in enumerate(counts)]
    if len(keys) > 1:
        parts.append(f'<p class="keys">{"".join(keys)}</p>')
    return "".join(parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that enclose [low, high]: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """A short label: 1,200 · 0.25 · 1e-05."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def thin(points: list[tuple[float, float]], most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `most` points that keep every stretch's lowest and highest, so that spikes stay visible."""
    if len(points) <= most:
        return points
    stretch = math.ceil(len(points) / (most // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {part.index(min(part, key=lambda p: p[1])), part.index(max(part, key=lambda p: p[1]))}
        kept.extend(part[index] for index in sorted(ends))
    return kept


def _finite(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    return [(px, py) for px, py in zip(xs, ys, strict=True) if math.isfinite(px) and math.isfinite(py)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if high - low > 1e-12 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) * 0.1 or 0.5
    return low - room, high + room
