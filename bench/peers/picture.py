"""A roofline as SVG: speed over tokens at a time, for each number of threads, under what memory and arithmetic allow."""

import math
from html import escape

from table import axis, best, grouped

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 400, 56, 150, 34, 44
COLORS = {
    8: "#4e79a7",
    7: "#76b7b2",
    6: "#59a14f",
    5: "#edc948",
    4: "#e15759",
    3: "#f28e2b",
    2: "#b07aa1",
    1: "#9c755f",
}
OTHER = "#888888"
SHOWN = (8, 4, 2)  # whole bits; all of them would be a tangle


class Axes:
    def __init__(self, x_values, low, high):
        self.x = [math.log2(v) for v in (min(x_values), max(x_values))]
        self.y = [math.log2(v) for v in (low, high)]

    def at(self, x, y):
        place = lambda v, ends: (math.log2(v) - ends[0]) / ((ends[1] - ends[0]) or 1)
        return (
            LEFT + place(x, self.x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - place(y, self.y) * (HEIGHT - TOP - BOTTOM),
        )


def line(points, color, extra=""):
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" stroke="{color}" stroke-width="1.8" {extra}/>'


def words(x, y, content, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(content)}</text>'


def shown(groups):
    return [group for group in groups if group[0] in SHOWN] or groups


def roof(axes, ns, one_token, peak):
    """What reading weights allows, growing with the tokens that use them, up to what arithmetic allows."""
    bend = min(max(peak / one_token, ns[0]), ns[-1])
    return [axes.at(n, min(one_token * n, peak)) for n in (ns[0], bend, ns[-1])]


def panel(document, threads, ns):
    rows = [r for r in document["rows"] if r["threads"] == threads]
    peak = document["limits"]["gmac_per_s"]["dot7"][str(threads)]
    groups = shown(grouped(document, threads))
    slowest = min(
        best(e, n, o)[0]["gmac_per_s"] for _, e in groups for n in ns for o in (True, False) if best(e, n, o)[0]
    )
    low = 2 ** math.floor(math.log2(slowest))
    axes = Axes(ns, low, 2 ** math.ceil(math.log2(max([peak] + [r["gmac_per_s"] for r in rows]))))
    out = [words(LEFT, 20, f"{threads} thread{'s' if threads > 1 else ''}", 'font-weight="bold"')]
    for n in ns:
        x, y = axes.at(n, low)
        out += [line([(x, y), (x, TOP)], "#eeeeee"), words(x, y + 16, str(n), 'text-anchor="middle"')]
    tick = low
    while math.log2(tick) <= axes.y[1]:
        x, y = axes.at(ns[0], tick)
        out += [line([(x, y), (WIDTH - RIGHT, y)], "#eeeeee"), words(x - 6, y + 4, f"{tick:g}", 'text-anchor="end"')]
        tick *= 2
    x, y = axes.at(ns[0], peak)
    out.append(words(x + 4, y - 4, "8-bit dot products"))
    read = document["limits"]["read_gb_per_s"][str(threads)]
    labels = []
    for bits, entries in groups:
        color = COLORS.get(bits, OTHER)
        out.append(line(roof(axes, ns, 8 * read / bits, peak), color, 'opacity="0.35"'))
        for ours in (True, False):
            points = [(n, best(entries, n, ours)[0]) for n in ns]
            points = [axes.at(n, row["gmac_per_s"]) for n, row in points if row]
            if points:
                out.append(line(points, color, "" if ours else 'stroke-dasharray="2 3"'))
                labels.append((points[-1], f"{'anybit' if ours else 'best peer'}, {bits} bits", color))
    last = TOP + 4
    for (_, y), label, color in sorted(labels):
        last = max(y, last + 13)
        out.append(words(WIDTH - RIGHT + 6, last + 4, label, f'fill="{color}"'))
    out.append(words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "tokens at a time; GMAC/s", 'text-anchor="middle"'))
    return "\n".join(out)


def draw(document):
    threads, ns = axis(document, "threads"), axis(document, "n")
    panels = [
        f'<g transform="translate({i * WIDTH},0)">\n{panel(document, t, ns)}\n</g>' for i, t in enumerate(threads)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(1, len(threads)) * WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(panels)
        + "\n</svg>\n"
    )
