"""The command ``skd``. Heavy imports wait until a study is known to be right."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from subclass_kd.cli_bundle import export, predict, report, serve
from subclass_kd.cli_shared import Cache, say, writing
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
_RUNNING = ("demo", "run")
_KEPT = " What a run has finished is kept: give the same command again to go on."
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
    devices: Annotated[int, typer.Option(min=1, help="Devices on each node for one training: docs/devices.md.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines for one training.")] = 1,
    set_: Set = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Run a study, or what is left of it, and print its results."""
    from subclass_kd.extras import demand
    from subclass_kd.study_file import load_study
    from subclass_kd.together import check_together, joined

    if devices * nodes > 1:
        demand("skd run --devices", "train")
    with joined(devices, nodes) as team:
        study = load_study(study_file, _overrides(set_, workers))
        if team.count > 1:
            check_together(study, workers)
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
    with writing(out), whole(out) as temporary:
        temporary.write_text(text, "utf-8")
    say(f"wrote {out}. Read it, then: skd check {out}, skd run {out}")


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


for _command in (export, predict, serve, report):
    app.command()(_command)


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
    """Run the command line: exit 0 done, 2 wrong input, 1 a fault of ours, 130 interrupted, 143 asked to end."""
    warnings.filterwarnings("ignore", module="lightning_fabric")
    running = _command_of(arguments) in _RUNNING
    interrupts = _note_interrupts(signal.SIGINT, *([signal.SIGTERM] if running else []))
    try:
        return app(arguments)
    except BaseException as error:  # an interrupt may strike inside a library that makes another error of it
        if running and isinstance(error, SystemExit) and error.code in (130, 143):  # of a team, after a checkpoint
            interrupts.append(int(error.code) - 128)
        if interrupts and not (isinstance(error, SystemExit) and error.code in (0, 2)):
            say(f"Interrupted.{_KEPT if running else ''}")
            sys.exit(128 + interrupts[0])
        if isinstance(error, UserError):
            say(str(error))
            sys.exit(2)
        raise


def _command_of(arguments: list[str] | None) -> str:
    """Give the first word that is no option."""
    words = sys.argv[1:] if arguments is None else arguments
    return next((word for word in words if not word.startswith("-")), "")


def _note_interrupts(*signals: signal.Signals) -> list[int]:
    """Give a list that each of these signals is noted in, beside the KeyboardInterrupt that it raises."""
    noted: list[int] = []

    def strike(number: int, _: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    for number in signals:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):  # not where a shell has it ignored
            signal.signal(number, strike)
    return noted


if __name__ == "__main__":
    main()
