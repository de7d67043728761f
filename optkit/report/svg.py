"""Small pictures as SVG text: axes, and marks in a plot's own units. Colours are the page's CSS classes.

Whatever is put into a `Markup` by its `format` is escaped.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH, HEIGHT = 360, 250
"""Size of a picture in its own pixels, small enough to be readable when it is as wide as a phone."""
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
    marks: list[Markup] = field(default_factory=list)

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
        self.marks.append(Markup('<polyline class="{}" points="{}"/>').format(css, path))

    def whisker(self, x: float, low: float, high: float, css: str = "whisker") -> None:
        """A vertical interval."""
        line = Markup('<line class="{}" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
        self.marks.append(line.format(css, self.y(low), self.y(high), x=self.x(x)))

    def disc(self, x: float, y: float, label: str, css: str, hint: str) -> None:
        """A numbered disc that explains itself when it is pointed at."""
        disc = Markup(
            '<g class="disc {}" transform="translate({:.1f},{:.1f})"><title>{}</title><circle r="8"/>'
            '<text dy="3.2">{}</text></g>'
        )
        self.marks.append(disc.format(css, self.x(x), self.y(y), hint, label))

    def column(self, x: float, start: float, end: float, css: str, hint: str) -> None:
        """A bar from one value to another, at most 70 % of a unit wide."""
        wide = 0.7 * (self.x(1) - self.x(0))
        top, bottom = sorted((self.y(start), self.y(end)))
        bar = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
        self.marks.append(bar.format(css, self.x(x) - wide / 2, top, wide, max(1.0, bottom - top), hint))

    def note(self, x: float, y: float, text: str, above: bool = True) -> None:
        """A short text at a point."""
        note = Markup('<text class="note" x="{:.1f}" y="{:.1f}">{}</text>')
        self.marks.append(note.format(self.x(x), self.y(y) + (-5 if above else 13), text))

    def text(self) -> Markup:
        """The picture."""
        picture = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>')
        marks = Markup().join(self.marks)
        return picture.format(WIDTH, self.height, self.title, self._ticks(), self._labels(), marks)

    def _ticks(self) -> Markup:
        """Round values at both axes, and lines across the picture."""
        row = Markup(
            '<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="tick end" x="{}" y="{:.1f}">{}</text>'
        )
        column = Markup('<text class="tick" x="{:.1f}" y="{}">{}</text>')
        values = (log_ticks if self.log_y else ticks)(*self.y_range)
        places = list(enumerate(self.x_names)) if self.x_names else ticks(*self.x_range)
        ends = {"left": _LEFT, "right": WIDTH - _RIGHT}
        rows = [row.format(_LEFT - 5, self.y(v) + 3.5, shown, y=self.y(v), **ends) for v, shown in values]
        columns = [column.format(self.x(v), self.height - _BOTTOM + 14, shown) for v, shown in places]
        return Markup().join([*rows, *columns])

    def _labels(self) -> Markup:
        labels = Markup(
            '<text class="axis" x="{:.0f}" y="{}">{}</text>'
            '<text class="axis" transform="translate(10,{:.0f}) rotate(-90)">{}</text>'
        )
        x, y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + self.height - _BOTTOM) / 2
        return labels.format(x, self.height - 6, self.x_label, y, self.y_label)


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
