"""The command ``skd``. Heavy imports wait until a study is known to be right."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from subclass_kd.config import Study
from subclass_kd.errors import UserError

app = typer.Typer(
    help="Subclass Knowledge Distillation: did subclass knowledge help this student?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RUNS = Path("skd-runs")
# As long as two cores train in under three minutes; chosen on training images: docs/demo.md.
DEMO = {
    "device": "cpu",
    "teacher": {"options": {"width": 16}, "epochs": 9},
    "student": {"epochs": 20},
    "distillation": {"views": 4},
    "seeds": 3,
}

Out = Annotated[Path | None, typer.Option("--out", help="Run folder; a run that is there goes on.", show_default=False)]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the study, again and again.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes side by side; one for each core if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print results.json instead of tables.")]


@app.command()
def demo(
    out: Out = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many times each arm is trained.")] = 3,
    workers: Workers = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole study on images that come with the package: six arms, a table, a verdict."""
    from subclass_kd.study_file import make_study

    _run(make_study(DEMO | {"seeds": seeds}, _overrides(set_, workers), "demo"), out or RUNS / "demo", as_json)


@app.command()
def run(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study; see docs/study-file.md.")],
    out: Out = None,
    workers: Workers = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Run a study, or what is left of it, and print its results."""
    from subclass_kd.study_file import load_study

    study = load_study(study_file, _overrides(set_, workers))
    _run(study, out or RUNS / study_file.stem, as_json)


def _overrides(set_: list[str] | None, workers: int | None) -> list[str]:
    return [*(set_ or []), *([f"workers={workers}"] if workers else [])]


def _run(study: Study, out: Path, as_json: bool) -> None:
    from subclass_kd.display import RunProgress, show_results
    from subclass_kd.study import run_study

    try:
        with RunProgress(Console(stderr=True)) as progress:
            results = run_study(study, out, progress)
    except KeyboardInterrupt:  # here, since typer would say "Aborted" and nothing more
        _say("Interrupted. What is finished is kept: give the same command again to go on.")
        raise typer.Exit(130) from None
    if as_json:
        sys.stdout.write(json.dumps(results, indent=2, allow_nan=False) + "\n")
    else:
        show_results(Console(), results, out)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line: exit 0 done, 2 wrong input, 1 a fault of ours, 130 interrupted."""
    warnings.filterwarnings("ignore", module="lightning_fabric")
    try:
        return app(arguments)
    except UserError as error:
        _say(str(error))
        sys.exit(2)


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"skd: {text}\n")


if __name__ == "__main__":
    main()
