"""The command ``skd``. Heavy imports wait until a study is known to be right."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from subclass_kd.arms import ARMS
from subclass_kd.config import Study
from subclass_kd.errors import UserError
from subclass_kd.files import whole

app = typer.Typer(
    help="Subclass Knowledge Distillation: did subclass knowledge help this student?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RUNS = Path("skd-runs")
# As long as two cores train in under two minutes; chosen on training images: docs/demo.md.
DEMO = {
    "device": "cpu",
    "teacher": {"options": {"width": 16}, "epochs": 7},
    "student": {"epochs": 17},
    "distillation": {"views": 4},
    "seeds": 3,
}

Out = Annotated[
    Path | None, typer.Option("-o", "--out", help="Run folder; a run that is there goes on.", show_default=False)
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the study, again and again.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes side by side; one for each core if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print results.json instead of tables.")]


def _use_cache(folder: Path | None) -> Path | None:
    if folder is not None:
        os.environ["SUBCLASS_KD_CACHE"] = str(folder.expanduser().absolute())  # processes that are started inherit it
    return folder


Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep decoded images and measurements here; else SUBCLASS_KD_CACHE, or the system's cache folder.",
        callback=_use_cache,
        show_default=False,
    ),
]


@app.command()
def demo(
    out: Out = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many times each arm is trained.")] = 3,
    workers: Workers = None,
    set_: Set = None,
    cache: Cache = None,
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
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Run a study, or what is left of it, and print its results."""
    from subclass_kd.study_file import load_study

    study = load_study(study_file, _overrides(set_, workers))
    _run(study, out or RUNS / study_file.stem, as_json)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder of images, a table, or MHIST's folder.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="STUDY.yaml", help="Write here, not on the screen.")
    ] = None,
    cache: Cache = None,
) -> None:
    """Look at data and write a study file with comments, to run as it is or to edit."""
    from subclass_kd.init import init

    if out is not None and out.exists():
        raise UserError(str(out), "a file that is there", "a new file", "Give another -o, or remove it.")
    text = init(data)
    if out is None:
        sys.stdout.write(text)
        return
    with _writing(out), whole(out) as temporary:
        temporary.write_text(text, "utf-8")
    _say(f"wrote {out}. Read it, then: skd check {out}, skd run {out}")


@app.command()
def check(
    source: Annotated[Path, typer.Argument(metavar="STUDY.yaml|DATA", help="A study, or data as for init.")],
    set_: Set = None,
    cache: Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find everything that is wrong with the data, at once. Exit 2 if anything would stop a run."""
    from subclass_kd.data.check import check_study
    from subclass_kd.display import RunProgress
    from subclass_kd.display_check import show as show_check
    from subclass_kd.init import init
    from subclass_kd.study_file import load_study, parse_study

    if source.suffix.lower() in (".yaml", ".yml"):
        study = load_study(source, set_ or ())
    else:
        study = parse_study(init(source, measure=False), set_ or (), f"the study of {source}")
    with RunProgress(Console(stderr=True)) as progress:
        report = check_study(study, progress.decoding)
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2, allow_nan=False) + "\n")
    else:
        show_check(Console(), report)
    if report["errors"]:
        raise typer.Exit(2)


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="BUNDLE", help="Folder to make.", show_default=False)],
    arm: Annotated[str, typer.Option(help="Whose best student, by validation F1.")] = "skd",
    threshold: Annotated[
        str | None,
        typer.Option(help="youden (if not given), f1, specificity=S, sensitivity=S, or a number; for two classes."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Make a student of 8 bits too.")] = False,
    cache: Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print bundle.json instead of a table.")] = False,
) -> None:
    """Make a bundle of an arm's best student: ONNX, weights, names, threshold, model card; checked first."""
    from subclass_kd.calibration import parse_rule
    from subclass_kd.display import RunProgress
    from subclass_kd.extras import demand

    demand("skd export", "export")
    parse_rule(threshold or "youden")
    if arm in ARMS and ARMS[arm].shuffled:
        found = f'"{arm}", whose subclasses are shuffled and mean nothing'
        raise UserError("option --arm", found, "an arm to use", "It is a control.")
    if out.exists():
        raise UserError(str(out), "something that is there", "a new folder", "Give another -o, or remove it.")
    from subclass_kd.run_files import read_run

    study, results = read_run(run_folder, arm)
    from subclass_kd.candidates import open_run
    from subclass_kd.display_export import show_costs
    from subclass_kd.export import export_student

    with RunProgress(Console(stderr=True)) as progress:
        finished = open_run(run_folder, study, results, progress.decoding)
    if threshold is not None and finished.samples.hierarchy.num_classes > 2:
        found = f"a threshold, and {finished.samples.hierarchy.num_classes} classes"
        raise UserError("option --threshold", found, "no such option: the most probable class decides", "Leave it out.")
    stated = export_student(finished, arm, out, rule=threshold or "youden", int8=int8, say=_say)
    if as_json:
        sys.stdout.write(json.dumps(stated, indent=2, allow_nan=False) + "\n")
    else:
        show_costs(Console(), stated)
    _say(f"wrote {out}. Use it: skd predict {out} IMAGES -o predictions.csv")


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="As skd export made it.")],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Images, folders, patterns, CSV files of paths.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A .csv, .parquet, .json or .jsonl; CSV on the screen if not given."),
    ] = None,
    column: Annotated[str | None, typer.Option(help='Column of paths in a CSV file; "path" if not given.')] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Ask the student of 8 bits.")] = False,
) -> None:
    """Ask a bundle's student about images: probabilities and decisions, a row an image. For research only."""
    from subclass_kd.bundle import Bundle
    from subclass_kd.predict import check_sources, columns, find_images, predict_files
    from subclass_kd.prediction_files import check_out, writing

    if out is not None:
        check_out(out)
    check_sources(paths, column)
    student = Bundle(bundle, int8=int8, threads=1)
    with contextlib.nullcontext() if out is None else _writing(out), writing(out, *columns(student)) as write:
        done = predict_files(student, find_images(paths, column), write)
    failed = f", {done.errors:,} of them with an error" if done.errors else ""
    _say(f"{done.images:,} image{'s' if done.images != 1 else ''}{failed}.")
    if done.errors == done.images:
        raise typer.Exit(2)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write here; else RUN/report.html.", show_default=False),
    ] = None,
    specificity: Annotated[float, typer.Option(help="The threshold's rule of this name keeps it on validation.")] = 0.9,
    miss_cost: Annotated[float, typer.Option(help="What a miss costs, in false alarms.")] = 5,
    prevalence: Annotated[
        list[float] | None, typer.Option(help="Give predictive values at this share of positives, again and again.")
    ] = None,
    images: Annotated[bool, typer.Option(help="Show images, with their names, that the student gets wrong.")] = True,
    cache: Cache = None,
) -> None:
    """Write a run's report: one HTML page, to read, to print and to send."""
    from subclass_kd.extras import demand

    demand("skd report", "train")
    from subclass_kd.report import write_report
    from subclass_kd.report.points import Choices

    choices = Choices(specificity, miss_cost, tuple(prevalence) if prevalence else Choices.prevalences)
    _say(f"wrote {write_report(folder, out, choices, images)}")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell a user whose disk refuses a file so."""
    try:
        yield
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(str(path), found, "a file that can be written", "Give another -o.") from None


def _overrides(set_: list[str] | None, workers: int | None) -> list[str]:
    return [*(set_ or []), *([f"workers={workers}"] if workers else [])]


def _run(study: Study, out: Path, as_json: bool) -> None:
    from subclass_kd.display import RunProgress, show_results
    from subclass_kd.extras import demand
    from subclass_kd.study import run_study

    demand("skd run", "train")
    with RunProgress(Console(stderr=True)) as progress:
        results = run_study(study, out, progress)
    if as_json:
        sys.stdout.write(json.dumps(results, indent=2, allow_nan=False) + "\n")
    else:
        show_results(Console(), results, out)
    from subclass_kd.report import refresh_report  # last: a report that fails hides no results

    refresh_report(out)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line: exit 0 done, 2 wrong input, 1 a fault of ours, 130 interrupted."""
    warnings.filterwarnings("ignore", module="lightning_fabric")
    interrupts = _note_interrupts()
    try:
        return app(arguments)
    except BaseException as error:  # an interrupt may strike inside a library that makes another error of it
        if interrupts and not (isinstance(error, SystemExit) and error.code in (0, 2)):
            _say("Interrupted. What a run has finished is kept: give the same command again to go on.")
            sys.exit(130)
        if isinstance(error, UserError):
            _say(str(error))
            sys.exit(2)
        raise


def _note_interrupts() -> list[int]:
    """Give a list that every Ctrl-C is noted in, beside the KeyboardInterrupt that it raises."""
    noted: list[int] = []

    def strike(number: int, _: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, strike)
    return noted


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"skd: {text}\n")


if __name__ == "__main__":
    main()
