"""Inline SVG by hand: small, escaped, with a title and a description that a screen reader tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike

Ends = tuple[float, float]


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Write an element; text and attributes are escaped, what is Markup already is not.

    Attribute names take ``_`` for ``-`` and may end in ``_`` where Python has the word for itself.

    >>> tag("text", "<b>", class_="axis", text_anchor="end")
    Markup('<text class="axis" text-anchor="end">&lt;b&gt;</text>')
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{shown}>{''.join(escape(child) for child in children)}</{name}>")  # noqa: S704 - all escaped


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def figure(key: str, title: str, description: str, size: tuple[float, float], *children: str) -> Markup:
    """Write a picture of a size in pixels, named by a key that the page has once."""
    width, height = (f"{value:.0f}" for value in size)
    return tag(
        "svg",
        tag("title", title, id=f"{key}-title"),
        tag("desc", description, id=f"{key}-desc"),
        *children,
        role="img",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        aria_labelledby=f"{key}-title",
        aria_describedby=f"{key}-desc",
    )


def clip(name: str, letters: int = 20) -> str:
    """Shorten a name.

    >>> clip("abcdef", 4)
    'abc…'
    """
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


@dataclass(frozen=True)
class Frame:
    """Where data stand in a picture.

    Args:
        left, top, width, height: of the frame, in pixels.
        x, y: values at its ends.
    """

    left: float
    top: float
    width: float
    height: float
    x: Ends = (0.0, 1.0)
    y: Ends = (0.0, 1.0)

    def across(self, value: float) -> float:
        """Pixels from the left of a value."""
        return self.left + self.width * (value - self.x[0]) / (self.x[1] - self.x[0])

    def down(self, value: float) -> float:
        """Pixels from the top of a value."""
        return self.top + self.height * (self.y[1] - value) / (self.y[1] - self.y[0])

    def points(self, xs: ArrayLike, ys: ArrayLike) -> str:
        """Points of a line or a polygon."""
        pairs = zip(np.asarray(xs).tolist(), np.asarray(ys).tolist(), strict=True)
        return " ".join(f"{self.across(x):.1f},{self.down(y):.1f}" for x, y in pairs)

    def line(self, xs: ArrayLike, ys: ArrayLike, class_: str) -> Markup:
        """Draw a line through points."""
        return tag("polyline", points=self.points(xs, ys), class_=f"line {class_}")

    def band(self, xs: Sequence[float], low: ArrayLike, high: ArrayLike, class_: str) -> Markup:
        """Fill between two lines."""
        both = np.concatenate([np.asarray(low), np.asarray(high)[::-1]])
        return tag("polygon", points=self.points([*xs, *xs[::-1]], both), class_=f"band {class_}")

    def axes(self, x_label: str, y_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> Markup:
        """Draw grid, ticks and labels; ticks are written with as few digits as tell them apart."""
        bottom, right = self.top + self.height, self.left + self.width
        drawn = []
        for value in x_ticks:
            at = self.across(value)
            drawn += [tag("line", x1=at, x2=at, y1=self.top, y2=bottom, class_="grid")]
            drawn += [tag("text", f"{value:g}", x=at, y=bottom + 16, text_anchor="middle")]
        for value in y_ticks:
            at = self.down(value)
            drawn += [tag("line", x1=self.left, x2=right, y1=at, y2=at, class_="grid")]
            drawn += [tag("text", f"{value:g}", x=self.left - 6, y=at + 4, text_anchor="end")]
        middle = self.top + self.height / 2
        drawn.append(tag("text", x_label, x=self.left + self.width / 2, y=bottom + 34, text_anchor="middle"))
        turned = f"rotate(-90 12 {middle:.0f})"
        drawn.append(tag("text", y_label, x=12, y=middle, text_anchor="middle", transform=turned))
        return Markup("").join(drawn)


def ticks(ends: Ends, wanted: int = 5, least: float = 0.0) -> list[float]:
    """Choose round values between two ends, not closer than ``least``.

    >>> ticks((0.0, 1.1))
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks((1, 7), least=1)
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    """
    rough = (ends[1] - ends[0]) / wanted
    power = 10 ** np.floor(np.log10(rough))
    sizes = [m * power for m in ((1, 2, 5, 10) if least else (1, 2, 2.5, 5, 10))]
    step = max(least, float(min(sizes, key=lambda size: abs(size - rough))))
    first = np.ceil(ends[0] / step - 1e-9)
    last = np.floor(ends[1] / step + 1e-9)
    return [round(float(k * step), 10) + 0.0 for k in np.arange(first, last + 1)]  # + 0.0: no minus before 0


def legend(entries: Sequence[tuple[str, str]], left: float, top: float) -> Markup:
    """Name lines of these classes, one below the other."""
    drawn = []
    for row, (class_, name) in enumerate(entries):
        at = top + 17 * row
        drawn.append(tag("polyline", points=f"{left:.0f},{at:.0f} {left + 26:.0f},{at:.0f}", class_=f"line {class_}"))
        drawn.append(tag("text", name, x=left + 32, y=at + 4))
    return Markup("").join(drawn)
