"""The picture of a search: for each arm and setting, what each trial drew and what it was worth."""

from __future__ import annotations

import math
from typing import Any

from subclass_kd.config import tuned_by
from subclass_kd.report.svg import Ends, Frame, figure, tag, ticks
from subclass_kd.tune.space import BY_FACTORS

WIDTH, HEIGHT, LEFT, TOP = 230, 210, 60, 34  # of a panel, and of the frame in it
STYLE = """svg { background: #fff } text { font: 12px system-ui, sans-serif; fill: #1b1f24 }
.grid { stroke: #d0d7de } .tried { fill: #0b4f8a; fill-opacity: .55 } .pruned { fill: none; stroke: #57606a }
.best { fill: #c2540a; stroke: #fff } .share { fill: #0b4f8a } .rest { fill: #d0d7de } .title { font-weight: 600 }"""


def draw(outcome: dict[str, Any]) -> str:
    """Draw a search as SVG: a row of panels for each arm, a panel for each setting with its importance as a bar.

    Args:
        outcome: what tune.json holds.
    """
    arms = outcome["arms"]
    most = max(len(tuned_by(arm)) for arm in arms)
    drawn: list[str] = [tag("style", STYLE)]
    for row, (arm, found) in enumerate(arms.items()):
        top = 30 + HEIGHT * row
        title = f"{arm}: validation F1, %, of {found['trials']} trials; hollow: given up early; orange: the best"
        drawn.append(tag("text", title, x=12, y=top, class_="title"))
        for column, name in enumerate(tuned_by(arm)):
            drawn += _panel(found, name, WIDTH * column, top)
    told = "; ".join(
        f"{arm}: best validation F1 {100 * found['best']['validation_f1']:.1f} % with "
        + ", ".join(f"{name} {value}" for name, value in found["best"]["settings"].items())
        for arm, found in arms.items()
    )
    size = (WIDTH * most + 20, 40 + HEIGHT * len(arms))
    picture = figure("tune", "What each trial drew, and its validation F1", told, size, *drawn)
    return str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _panel(found: dict[str, Any], name: str, left: float, top: float) -> list[str]:
    """Draw the trials of an arm by one setting; the orange one is the best, hollow ones were given up."""
    trials = [each for each in found["all"] if each["validation_f1"] is not None and name in each["settings"]]
    values = [each["settings"][name] for each in trials]
    words = sorted({str(value) for value in values}) if any(isinstance(value, str) for value in values) else []
    places = [words.index(str(value)) if words else _scale(name, value) for value in values]
    heights = [100 * each["validation_f1"] for each in trials]
    frame = Frame(left + LEFT, top + TOP, WIDTH - LEFT - 20, HEIGHT - TOP - 66, _span(places), _span(heights))
    drawn: list[str] = list(_share(found["importance"], name, left, top))
    for value in ticks(frame.y, 4):
        at = frame.down(value)
        drawn.append(tag("line", x1=frame.left, x2=frame.left + frame.width, y1=at, y2=at, class_="grid"))
        drawn.append(tag("text", f"{value:g}", x=frame.left - 6, y=at + 4, text_anchor="end"))
    marks = list(enumerate(words)) if words else [(place, f"{_back(name, place):.3g}") for place in _spread(places)]
    bottom = frame.top + frame.height
    for place, word in marks:
        drawn.append(tag("text", word, x=frame.across(place), y=bottom + 16, text_anchor="middle"))
    for each, place, height in zip(trials, places, heights, strict=True):
        kind = "best" if each["number"] == found["best"]["number"] else "pruned" if each["pruned"] else "tried"
        hint = tag("title", f"trial {each['number']}: {name} {each['settings'][name]}, validation F1 {height:.1f} %")
        size = 6 if kind == "best" else 4
        drawn.append(tag("circle", hint, cx=frame.across(place), cy=frame.down(height), r=size, class_=kind))
    return drawn


def _share(importance: dict[str, float] | None, name: str, left: float, top: float) -> list[str]:
    """Name a setting, and draw its share of what mattered."""
    share = None if importance is None else importance.get(name)
    text = name.replace("_", " ") + ("" if share is None else f": mattered {100 * share:.0f} %")
    drawn: list[str] = [tag("text", text, x=left + LEFT, y=top + 20)]
    if share is not None:
        place = {"x": left + LEFT, "y": top + 24, "height": 4}
        drawn += [tag("rect", **place, width=WIDTH - LEFT - 20, class_="rest")]
        drawn += [tag("rect", **place, width=share * (WIDTH - LEFT - 20), class_="share")]
    return drawn


def _scale(name: str, value: float) -> float:
    return math.log(value) if name in BY_FACTORS else value


def _back(name: str, place: float) -> float:
    return math.exp(place) if name in BY_FACTORS else place


def _span(values: list[Any]) -> Ends:
    """Give ends a little beyond values, also where there is but one or none."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = 0.08 * (high - low) or 0.5
    return float(low - room), float(high + room)


def _spread(places: list[float]) -> list[float]:
    low, high = (min(places), max(places)) if places else (0.0, 1.0)
    return [low, (low + high) / 2, high] if high > low else [low]
