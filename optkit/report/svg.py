"""Small pictures as SVG text: axes, and marks in a plot's own units. Colours are the page's CSS classes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 360, 250
"""Of a picture in its own pixels, small enough to be readable when it is as wide as a phone."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 38


@dataclass
class Plot:
    """A plot under construction: marks are added, and `text` is the finished picture."""

    title: str
    """Read by screen readers."""
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_names: Sequence[str] = ()
    """Names in place of numbers, at 0, 1, 2, …"""
    height: int = HEIGHT
    log_y: bool = False
    """The y axis is logarithmic: equal steps are equal ratios."""
    marks: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high, value = (math.log10(v) if self.log_y else v for v in (*self.y_range, value))
        return _TOP + (high - value) / (high - low) * (self.height - _TOP - _BOTTOM)

    def line(self, values: Iterable[tuple[float, float]], css: str) -> None:
        """A line through points."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in values)
        self.marks.append(f'<polyline class="{css}" points="{path}"/>')

    def whisker(self, x: float, low: float, high: float, css: str = "whisker") -> None:
        """A vertical interval."""
        at = f"{self.x(x):.1f}"
        self.marks.append(f'<line class="{css}" x1="{at}" x2="{at}" y1="{self.y(low):.1f}" y2="{self.y(high):.1f}"/>')

    def disc(self, x: float, y: float, label: str, css: str, hint: str) -> None:
        """A numbered disc that explains itself when it is pointed at."""
        at = f"{self.x(x):.1f},{self.y(y):.1f}"
        self.marks.append(
            f'<g class="disc {css}" transform="translate({at})"><title>{escape(hint)}</title><circle r="8"/>'
            f'<text dy="3.2">{escape(label)}</text></g>'
        )

    def column(self, x: float, start: float, end: float, css: str, hint: str) -> None:
        """A bar from one value to another, at most 70 % of a unit wide."""
        wide = 0.7 * (self.x(1) - self.x(0))
        top, bottom = sorted((self.y(start), self.y(end)))
        self.marks.append(
            f'<rect class="{css}" x="{self.x(x) - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" '
            f'height="{max(1.0, bottom - top):.1f}"><title>{escape(hint)}</title></rect>'
        )

    def note(self, x: float, y: float, text: str, above: bool = True) -> None:
        """A short text at a point."""
        offset = -5 if above else 13
        self.marks.append(f'<text class="note" x="{self.x(x):.1f}" y="{self.y(y) + offset:.1f}">{escape(text)}</text>')

    def text(self) -> str:
        """The picture."""
        bottom, right = self.height - _BOTTOM, WIDTH - _RIGHT
        rows = "".join(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{self.y(v):.1f}" y2="{self.y(v):.1f}"/>'
            f'<text class="tick end" x="{_LEFT - 5}" y="{self.y(v) + 3.5:.1f}">{shown}</text>'
            for v, shown in (log_ticks if self.log_y else ticks)(*self.y_range)
        )
        places = list(enumerate(self.x_names)) if self.x_names else ticks(*self.x_range)
        columns = "".join(
            f'<text class="tick" x="{self.x(v):.1f}" y="{bottom + 14}">{escape(shown)}</text>' for v, shown in places
        )
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(self.title)}">{rows}{columns}'
            f'<text class="axis" x="{(_LEFT + right) / 2:.0f}" y="{self.height - 6}">{escape(self.x_label)}</text>'
            f'<text class="axis" transform="translate(10,{(_TOP + bottom) / 2:.0f}) rotate(-90)">'
            f"{escape(self.y_label)}</text>{''.join(self.marks)}</svg>"
        )


def around(values: Iterable[float], margin: float = 0.08, least: float = 1e-9, zero: bool = False) -> tuple[float, float]:
    """A range that holds all values with a margin, and is at least `least` wide; with `zero` it starts at 0."""
    found = list(values)
    low, high = (0.0 if zero else min(found)), max(found)
    room = max((high - low) * margin, (least - (high - low)) / 2, 1e-9)
    return (low if zero else low - room), high + room


def ticks(low: float, high: float, about: int = 5) -> list[tuple[float, str]]:
    """Round numbers within a range, as they are and as they are written."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(number * step, f"{number * step:.{digits}f}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """1, 2 and 5 times the powers of ten within a range of positive numbers, as they are and as they are written."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [times * 10.0**power for power in powers for times in (1, 2, 5)]
    return [(value, f"{value:g}") for value in found if low <= value <= high]
