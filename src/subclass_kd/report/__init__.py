"""A finished run as one page of HTML: no network, no script, to read, to print and to send."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from subclass_kd.errors import UserError
from subclass_kd.files import require_json, whole, write_json
from subclass_kd.report.folder import open_run
from subclass_kd.report.points import Choices

CHOICES = "report.json"


def write_report(
    folder: Path, out: Path | None = None, choices: Choices | None = None, images: bool | None = None
) -> Path:
    """Write the report of a finished run; what was chosen for the folder's own report is kept there for the next.

    Args:
        folder: the run folder.
        out: the file; ``report.html`` in the run folder if None.
        choices: specificity, cost of a miss and prevalences of the operating points; as last time if None.
        images: show the images that the student gets wrong, and name them; without, nothing of a patient is in the
            page but numbers and the names of classes and subclasses. As last time if None, at first with images.

    Returns:
        The file.

    Raises:
        UserError: no finished run is there, a file of it is damaged, or the page cannot be written.
    """
    run = open_run(folder)
    kept_choices, kept_images = _kept(folder)
    choices, images = choices or kept_choices, kept_images if images is None else images
    own, out = out is None, out or folder / "report.html"
    from jinja2 import Environment, PackageLoader, StrictUndefined  # late: a wrong folder is refused at once

    from subclass_kd.report.content import content

    here = Path(__file__).parent
    environment = Environment(
        loader=PackageLoader("subclass_kd.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((here / "style.css").read_text("utf-8"))  # noqa: S704 - ours
    page = environment.get_template("template.html").render(style=style, **content(run, choices, images))
    try:
        if own and (choices, images) != (kept_choices, kept_images):
            write_json(folder / CHOICES, {"images": images, **asdict(choices)})  # first: a page may leave images out
        with whole(out) as temporary:
            temporary.write_text(f"{page.strip()}\n", "utf-8")
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(str(out), found, "a file that can be written", "Give another -o.") from None
    return out


def kept_choices(folder: Path) -> Choices:
    """Give what was chosen for the folder's report before; what is usual for a folder without one.

    Raises:
        UserError: the note of it is damaged.
    """
    return _kept(folder)[0]


def _kept(folder: Path) -> tuple[Choices, bool]:
    """Give what was chosen for the folder's report before."""
    path = folder / CHOICES
    if not path.exists():
        return Choices(), True
    mend = f"Delete it, and give skd report {folder} as it should be, with --no-images or without."
    kept = require_json(path, "a run", "", mend)
    try:
        images = kept.pop("images")
        choices = Choices(**kept | {"prevalences": tuple(kept["prevalences"])})
    except (KeyError, TypeError):
        images, choices = None, Choices()
    if not isinstance(images, bool):
        raise UserError(str(path), "other keys", "images, specificity, miss_cost and prevalences", mend)
    return choices, images


def refresh_report(folder: Path) -> Path:
    """Write a run's report unless one is there that is as new as its results; images stay left out where they were.

    Args:
        folder: the run folder.

    Returns:
        The file.

    Raises:
        UserError: as :func:`write_report`.
    """
    out, results = folder / "report.html", folder / "results.json"
    if out.exists() and results.exists() and out.stat().st_mtime_ns >= results.stat().st_mtime_ns:
        return out
    return write_report(folder)
