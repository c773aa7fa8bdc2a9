"""A finished run as one page of HTML: no network, no script, to read, to print and to send."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from subclass_kd.errors import UserError
from subclass_kd.files import whole
from subclass_kd.report.folder import open_run
from subclass_kd.report.points import Choices


def write_report(folder: Path, out: Path | None = None, choices: Choices | None = None, images: bool = True) -> Path:
    """Write the report of a finished run.

    Args:
        folder: the run folder.
        out: the file; ``report.html`` in the run folder if None.
        choices: specificity, cost of a miss and prevalences of the operating points.
        images: show the images that the student gets wrong, and name them; without, nothing of a patient is in the
            page but numbers and the names of classes and subclasses.

    Returns:
        The file.

    Raises:
        UserError: no finished run is there, a file of it is damaged, or the page cannot be written.
    """
    run = open_run(folder)
    out = out or folder / "report.html"
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
    page = environment.get_template("template.html").render(style=style, **content(run, choices or Choices(), images))
    try:
        with whole(out) as temporary:
            temporary.write_text(f"{page.strip()}\n", "utf-8")
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(str(out), found, "a file that can be written", "Give another -o.") from None
    return out


def refresh_report(folder: Path) -> Path:
    """Write a run's report unless one is there that is as new as its results.

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
