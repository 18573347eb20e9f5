"""Bars as SVG, written by hand: text stays text, and the colours follow the reader's light or dark."""

import math
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, ROW, HEAD, GAP = 760, 22, 34, 18
LEFT, RIGHT = 172, 660
"""Where bars begin, and where the longest ends; its number follows."""

ROLE = 'role="img" aria-labelledby="title description"'

STYLE = """
    text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1c2530 }
    .head { font-size: 14px; font-weight: 600 }
    .small { font-size: 12px; font-weight: 400; fill: #4a5766 }
    .name { text-anchor: end }
    .paper { fill: #ffffff; stroke: #d5dce4 }
    .ours { fill: #2f74b5 }
    .other { fill: #9aa7b5 }
    .ours-name { font-weight: 600 }
    .line { stroke: #c3ccd6 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6ebf0 }
      .small { fill: #aab7c4 }
      .paper { fill: #14191f; stroke: #333d48 }
      .ours { fill: #5aa2e6 }
      .other { fill: #66727f }
      .line { stroke: #414d5a }
    }
  """


@dataclass(frozen=True)
class Bar:
    """One program's value; None has no bar."""

    name: str
    value: float | None
    shown: str
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars of one figure."""

    title: str
    scale: Literal["log", "linear"]
    bars: list[Bar]


def draw(panels: list[Panel], *, title: str, description: str, caption: str) -> str:
    """Return the picture."""
    parts, top = [], 8
    for panel in panels:
        parts += _panel(panel, top)
        top += HEAD + ROW * len(panel.bars) + GAP
    height = top + 22
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {ROLE}>',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="description">{escape(description)}</desc>',
        f"  <style>{STYLE}</style>",
        f'  <rect class="paper" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
        *parts,
        f'  <text class="small" x="20" y="{height - 14}">{escape(caption)}</text>',
        "</svg>\n",
    ])  # fmt: skip


def _panel(panel: Panel, top: int) -> list[str]:
    values = [bar.value for bar in panel.bars if bar.value]
    scale = _log(values) if panel.scale == "log" else _linear(values)
    note = "; logarithmic, a line for each power of ten" if panel.scale == "log" else ""
    head = f'{escape(panel.title)}<tspan class="small">{note}</tspan>'
    parts = [f'  <text class="head" x="20" y="{top + 20}">{head}</text>']
    bottom = top + HEAD + ROW * len(panel.bars)
    if panel.scale == "log" and values:
        for power in range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1):
            x = scale(10.0**power)
            parts.append(f'  <path class="line" d="M{x:.1f} {top + HEAD - 4}V{bottom}"/>')
    for number, bar in enumerate(panel.bars):
        y = top + HEAD + ROW * number
        name = "name ours-name" if bar.ours else "name"
        parts.append(f'  <text class="{name}" x="{LEFT - 10}" y="{y + 14}">{escape(bar.name)}</text>')
        end = float(LEFT)
        if bar.value:
            end = max(LEFT + 2, scale(bar.value))
            kind = "ours" if bar.ours else "other"
            parts.append(
                f'  <rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{end - LEFT:.1f}" height="15" rx="2"/>'
            )
        parts.append(f'  <text class="small" x="{end + 6:.1f}" y="{y + 14}">{escape(bar.shown)}</text>')
    return parts


def _linear(values: list[float]):
    largest = max(values, default=1)
    return lambda value: LEFT + (RIGHT - LEFT) * value / largest


def _log(values: list[float]):
    low = math.floor(math.log10(min(values, default=1)))
    high = math.ceil(math.log10(max(values, default=10)))
    high = max(high, low + 1)
    return lambda value: LEFT + (RIGHT - LEFT) * (math.log10(value) - low) / (high - low)
