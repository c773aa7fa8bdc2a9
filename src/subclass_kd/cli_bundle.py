"""The commands of ``skd`` for what a run leaves: export, predict, serve, report."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from subclass_kd.arms import ARMS
from subclass_kd.cli_shared import Cache, say, writing
from subclass_kd.errors import UserError


def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="BUNDLE", help="Folder to make.", show_default=False)],
    arm: Annotated[str, typer.Option(help="Whose best student, by validation F1.")] = "skd",
    threshold: Annotated[
        str | None,
        typer.Option(
            help="youden (if not given), f1, specificity=S, sensitivity=S, cost=C, or a number; for two classes."
        ),
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
    stated = export_student(finished, arm, out, rule=threshold or "youden", int8=int8, say=say)
    if as_json:
        sys.stdout.write(json.dumps(stated, indent=2, allow_nan=False) + "\n")
    else:
        show_costs(Console(), stated)
    say(f"wrote {out}. Use it: skd predict {out} IMAGES -o predictions.csv")


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
    from subclass_kd.prediction_files import check_out
    from subclass_kd.prediction_files import writing as rows_to

    if out is not None:
        check_out(out)
    check_sources(paths, column)
    student = Bundle(bundle, int8=int8, threads=1)
    if int8:
        say(student.stated["int8"]["advice"])
    with contextlib.nullcontext() if out is None else writing(out), rows_to(out, *columns(student)) as write:
        done = predict_files(student, find_images(paths, column), write)
    failed = f", {done.errors:,} of them with an error" if done.errors else ""
    say(f"{done.images:,} image{'s' if done.images != 1 else ''}{failed}.")
    if done.errors == done.images:
        raise typer.Exit(2)


def serve(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="As skd export made it.")],
    host: Annotated[str, typer.Option(help="Address to listen at; another than this computer's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File of the token that clients must give; else the variable SKD_TOKEN.", show_default=False),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Ask the student of 8 bits.")] = False,
) -> None:
    """Answer about images over HTTP: a page for people, JSON for programs. For research only."""
    from subclass_kd.extras import demand

    demand("skd serve", "serve")
    from subclass_kd.serve.server import serve_bundle

    if not serve_bundle(bundle, host, port, token_file, int8=int8, say=say):
        raise typer.Exit(130)


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write here; else RUN/report.html.", show_default=False),
    ] = None,
    specificity: Annotated[
        float | None,
        typer.Option(
            help="The threshold's rule of this name keeps it on validation; 0.9 at first.", show_default=False
        ),
    ] = None,
    miss_cost: Annotated[
        float | None, typer.Option(help="What a miss costs, in false alarms; 5 at first.", show_default=False)
    ] = None,
    prevalence: Annotated[
        list[float] | None, typer.Option(help="Give predictive values at this share of positives, again and again.")
    ] = None,
    images: Annotated[
        bool | None,
        typer.Option(
            "--images/--no-images",
            help="Show images, with their names, that the student gets wrong; at first they are shown.",
            show_default=False,
        ),
    ] = None,
    cache: Cache = None,
) -> None:
    """Write a run's report: one HTML page, to read, to print and to send. What is not said is as for its last one."""
    from subclass_kd.extras import demand

    demand("skd report", "train")
    from subclass_kd.report import kept_choices, write_report
    from subclass_kd.report.points import Choices

    last = kept_choices(folder)
    choices = Choices(
        last.specificity if specificity is None else specificity,
        last.miss_cost if miss_cost is None else miss_cost,
        tuple(prevalence) if prevalence else last.prevalences,
    )
    say(f"wrote {write_report(folder, out, choices, images)}")
