"""A line chart on logarithmic axes as SVG text, so that growth in proportion is a straight line of slope one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 70, 130, 20, 55
COLOURS = ("#b3541e", "#1f6f8b", "#5b8c2a")


def line_chart(lines: Mapping[str, Sequence[tuple[float, float]]], *, x_title: str, y_title: str) -> str:
    """One line per name through its (x, y) points, all of them positive."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_range, y_range = (min(xs) / 1.3, max(xs) * 1.3), (min(ys) / 2, max(ys) * 2)

    def place(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / x_range[0]) / math.log(x_range[1] / x_range[0])
        up = math.log(y / y_range[0]) / math.log(y_range[1] / y_range[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for power in range(math.ceil(math.log10(y_range[0])), math.floor(math.log10(y_range[1])) + 1):
        _, y = place(xs[0], 10.0**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for x_value in sorted(set(xs)):
        x, _ = place(x_value, ys[0])
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x_value:,.0f}</text>')
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in placed]
        parts.append(f'<text x="{placed[-1][0] + 10:.1f}" y="{placed[-1][1] + 4:.1f}" fill="{colour}">{name}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{x_title}</text>')
    parts.append(f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{y_title}</text>')
    return "\n".join([*parts, "</svg>", ""])
