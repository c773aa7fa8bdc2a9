"""The pictures of a report. Lines differ by dashes as well as by colour, so that they can be told apart in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from subclass_kd.report.measures import GRID, Bin
from subclass_kd.report.svg import Ends, Frame, clip, figure, legend, tag, ticks

Values = NDArray[np.float64]
STYLES = 7  # line styles s0 to s6 of the style sheet
SHARES = (0, 0.2, 0.4, 0.6, 0.8, 1)
MOST = 40  # rows of a matrix that can be read
MOST_POINTS = 200  # of a line: a picture is 274 pixels wide, and its size must not grow with the epochs


def interval(key: str, title: str, middle: float, ends: Ends | None, span: Ends) -> Markup:
    """Draw one row of a forest plot: a difference, its interval and zero, on the span that all rows share."""
    frame = Frame(16, 0, 208, 26, x=span)
    zero, at = frame.across(0), frame.across(middle)
    drawn = [tag("line", x1=zero, x2=zero, y1=0, y2=26, class_="zero")]
    if ends:
        low, high = (frame.across(end) for end in ends)
        drawn.append(tag("line", x1=low, x2=high, y1=13, y2=13, class_="whisker"))
        drawn += [tag("line", x1=end, x2=end, y1=8, y2=18, class_="whisker") for end in (low, high)]
    drawn.append(tag("rect", x=at - 4, y=9, width=8, height=8, class_="mark"))
    return figure(key, title, "The square is the difference, the line its 95 % interval.", (240, 26), *drawn)


def interval_axis(span: Ends) -> Markup:
    """Draw the axis that belongs under the rows of a forest plot."""
    frame = Frame(16, 0, 208, 6, x=span)
    drawn = [tag("line", x1=16, x2=224, y1=1, y2=1, class_="whisker")]
    for value in ticks(span, 4):
        at = frame.across(value)
        drawn += [tag("line", x1=at, x2=at, y1=1, y2=6, class_="whisker")]
        drawn += [tag("text", f"{value:+g}" if value else "0", x=at, y=20, text_anchor="middle")]
    return figure("forest-axis", "Axis", "F1 points", (240, 24), *drawn)


def curves(key: str, title: str, labels: tuple[str, str], lines: Mapping[str, Values], chance: Ends) -> Markup:
    """Draw curves over ``GRID``: the mean over seeds as a line, lowest to highest seed as a band.

    Args:
        key: of the picture.
        title: of the picture.
        labels: of both axes.
        lines: name -> (S, 101).
        chance: height at both ends of what a guess does.
    """
    frame = Frame(48, 10, 280, 280)
    drawn = [frame.axes(*labels, SHARES, SHARES), frame.line([0, 1], chance, "chance")]
    grid = GRID.tolist()
    for number, values in enumerate(lines.values()):
        drawn.append(frame.band(grid, values.min(0), values.max(0), f"s{number}"))
    for number, values in enumerate(lines.values()):
        drawn.append(frame.line(grid, values.mean(0), f"s{number}"))
    drawn.append(legend([(f"s{number}", clip(name, 30)) for number, name in enumerate(lines)], 48, 348))
    at = {f"{100 * x:.0f} %": int(100 * x) for x in (0.1, 0.5, 0.9)}
    told = "; ".join(
        f"{name}: " + ", ".join(f"{100 * values.mean(0)[k]:.0f} % at {x}" for x, k in at.items())
        for name, values in lines.items()
    )
    return figure(
        key, title, f"Mean over seeds. {labels[1]} by {labels[0]}: {told}.", (344, 350 + 17 * len(lines)), *drawn
    )


def calibration(key: str, name: str, bins: Sequence[Bin]) -> Markup:
    """Draw a reliability diagram: each mark a bin with its interval, and below how many answers fell into it.

    Args:
        key: of the picture.
        name: of the network.
        bins: of the answers of all seeds together.
    """
    frame, below = Frame(48, 10, 280, 280), Frame(48, 344, 280, 50)
    drawn = [frame.axes("predicted probability", "share that is positive", SHARES, SHARES)]
    drawn.append(frame.line([0, 1], [0, 1], "chance"))
    for each in bins:
        at = frame.across(each.predicted)
        if each.ci95:
            low, high = (frame.down(end) for end in each.ci95)
            drawn.append(tag("line", x1=at, x2=at, y1=low, y2=high, class_="whisker"))
        size = below.height * each.images / max(row.images for row in bins)
        drawn.append(tag("rect", x=at - 6, y=below.top + 50 - size, width=12, height=max(size, 1), class_="bar"))
    drawn.append(frame.line([b.predicted for b in bins], [b.observed for b in bins], "s0"))
    for each in bins:
        drawn.append(tag("circle", cx=frame.across(each.predicted), cy=frame.down(each.observed), r=4, class_="mark"))
    drawn.append(tag("text", "answers in each bin", x=188, y=410, text_anchor="middle"))
    told = "; ".join(f"predicted {100 * b.predicted:.0f} %, true {100 * b.observed:.0f} %" for b in bins)
    return figure(key, f"Reliability of {name}", told, (344, 416), *drawn)


def matrix(
    key: str, title: str, shares: Values, rows: Sequence[str], columns: Sequence[str], borders: Sequence[int] = ()
) -> Markup:
    """Draw a matrix of shares, true rows by predicted columns, darker where larger, with the share in %.

    Args:
        key: of the picture.
        title: of the picture.
        shares: (R, Q) from 0 to 1.
        rows: names of the R.
        columns: names of the Q.
        borders: numbers of columns (and rows) before which a class ends.
    """
    cell = 36 if len(columns) <= 12 else 28 if len(columns) <= 20 else 16
    shown = [clip(name, 18) for name in rows]
    left, top = (
        12 + max(6.8 * len(name) + 2.2 * sum(map(str.isupper, name)) for name in shown),
        16 + 5.4 * max(len(clip(name, 18)) for name in columns),
    )
    drawn = []
    for q, name in enumerate(columns):
        x = left + cell * (q + 0.5) + 4
        turned = f"rotate(-50 {x:.0f} {top - 6:.0f})"
        drawn.append(tag("text", clip(name, 18), tag("title", name), x=x, y=top - 6, transform=turned))
    for r, name in enumerate(rows):
        y = top + cell * r
        drawn.append(tag("text", shown[r], tag("title", name), x=left - 6, y=y + cell / 2 + 4, text_anchor="end"))
        for q in range(len(columns)):
            share = float(shares[r, q])
            place = {"x": left + cell * q, "y": y, "width": cell - 1, "height": cell - 1}
            hint = tag("title", f"{name} → {columns[q]}: {100 * share:.1f} %")
            drawn.append(tag("rect", hint, **place, class_="cell", fill_opacity=share**0.7))
            if cell > 20 and share >= 0.005:
                dark = "dark" if share > 0.62 else "light"  # the better contrast of the two
                middle = {"x": left + cell * (q + 0.5), "y": y + cell / 2 + 4}
                drawn.append(tag("text", f"{100 * share:.0f}", **middle, text_anchor="middle", class_=dark))
    width, height = cell * len(columns), cell * len(rows)
    for border in borders:
        at = left + cell * border - 0.5
        drawn.append(tag("line", x1=at, x2=at, y1=top, y2=top + height, class_="border"))
        if len(rows) == len(columns):
            at = top + cell * border - 0.5
            drawn.append(tag("line", x1=left, x2=left + width, y1=at, y2=at, class_="border"))
    told = "Rows: the truth; columns: predicted; the same numbers stand in the table below."
    return figure(key, title, told, (left + width + 5.4 * 10, top + height + 4), *drawn)


def bits(key: str, class_bits: float, rows: Sequence[tuple[str, float, float, float, float]]) -> Markup:
    """Draw what labels and teacher tell of an image: bits of the class, bits added, bits left untold.

    Args:
        key: of the picture.
        class_bits: entropy of the classes.
        rows: split, and mutual information, symmetric, soft, ceiling in bits.
    """
    most = max(class_bits + max(*row[1:]) for row in rows) or 1.0
    frame = Frame(84, 6, 500, 60 * len(rows), x=(0, most * 1.02), y=(0, 1))
    places = ticks((0, most), 6)
    drawn = [frame.axes("bits an image", "", places, ())]
    told = []
    for number, (split, mutual, symmetric, soft, ceiling) in enumerate(rows):
        y = 16 + 60 * number
        ends = [0.0, class_bits, class_bits + mutual, class_bits + ceiling]
        for class_, low, high in zip(("known", "added", "untold"), ends[:-1], ends[1:], strict=True):
            width = max(0.0, frame.across(high) - frame.across(low))
            drawn.append(tag("rect", x=frame.across(low), y=y, width=width, height=30, class_=class_))
        for letter, value in (("S", symmetric), ("P", soft)):
            at = frame.across(class_bits + value)
            drawn.append(tag("line", x1=at, x2=at, y1=y - 4, y2=y + 34, class_="zero"))
            drawn.append(tag("text", letter, x=at, y=y + 44, text_anchor="middle"))
        drawn.append(tag("text", split, x=76, y=y + 19, text_anchor="end"))
        told.append(f"{split}: class {class_bits:.2f}, added {mutual:.2f}, of at most {ceiling:.2f}")
    return figure(key, "Bits an image", "; ".join(told), (600, 50 + 60 * len(rows)), *drawn)


def training(key: str, title: str, label: str, lines: Mapping[str, Values]) -> Markup:
    """Draw what trainings noted epoch by epoch: the mean over trainings, lowest to highest as a band.

    Of more than 200 epochs the line goes through 200, the first and the last among them; the band holds all epochs.

    Args:
        key: of the picture.
        title: of the picture.
        label: of the values.
        lines: name -> (trainings, epochs).
    """
    epochs = max(values.shape[1] for values in lines.values())
    low, high = min(v.min() for v in lines.values()), max(v.max() for v in lines.values())
    spread = float(high - low) or 1.0
    span = (float(low) - 0.04 * spread, float(high) + 0.04 * spread)
    frame = Frame(54, 10, 274, 200, x=(1, max(epochs, 2)), y=span)
    drawn = [frame.axes("epoch", label, ticks((1, max(epochs, 2)), least=1), ticks(span))]
    for number, values in enumerate(lines.values()):
        drawn_at, starts = _thinned(values.shape[1])
        low_here, high_here = np.minimum.reduceat(values.min(0), starts), np.maximum.reduceat(values.max(0), starts)
        steps = (drawn_at + 1).tolist()
        drawn.append(frame.band(steps, low_here, high_here, f"s{number % STYLES}"))
        drawn.append(frame.line(steps, values.mean(0)[drawn_at], f"s{number % STYLES}"))
    drawn.append(legend([(f"s{n % STYLES}", clip(name, 30)) for n, name in enumerate(lines)], 54, 268))
    told = "; ".join(f"{name}: {v.mean(0)[0]:.3f} at first, {v.mean(0)[-1]:.3f} at last" for name, v in lines.items())
    return figure(key, title, f"{label} by epoch. {told}.", (344, 270 + 17 * len(lines)), *drawn)


def _thinned(epochs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose at most 200 of many epochs, evenly, and where the bin around each begins; the bins hold every epoch.

    >>> _thinned(3)
    (array([0, 1, 2]), array([0, 1, 2]))
    """
    chosen = np.linspace(0, epochs - 1, min(epochs, MOST_POINTS)).round().astype(np.int64)
    return chosen, np.concatenate([[0], (chosen[:-1] + chosen[1:] + 1) // 2])
