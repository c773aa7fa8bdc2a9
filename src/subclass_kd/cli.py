"""The command ``skd``. Heavy imports wait until a study is known to be right."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from subclass_kd.cli_bits import bits
from subclass_kd.cli_bundle import export, predict, report, serve
from subclass_kd.cli_shared import Cache, overrides, say, writing
from subclass_kd.cli_tune import tune
from subclass_kd.config import Study
from subclass_kd.errors import UserError
from subclass_kd.files import whole
from subclass_kd.passwords import refuse_password

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from subclass_kd.engine import Engine

app = typer.Typer(
    help="Subclass Knowledge Distillation: did subclass knowledge help this student?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RUNS = Path("skd-runs")
_RUNNING = ("demo", "run", "tune")
_KEPT = " What a run has finished is kept: give the same command again to go on."
# As long as two cores train in under two minutes; chosen on training images: docs/demo.md.
DEMO = {
    "device": "cpu",
    "teacher": {"options": {"width": 16}, "epochs": 7},
    "student": {"epochs": 17},
    "distillation": {"views": 4},
    "seeds": 3,
}


class EngineName(StrEnum):
    """Where the jobs of a study are done."""

    local = "local"
    ray = "ray"


Out = Annotated[
    Path | None, typer.Option("-o", "--out", help="Run folder; a run that is there goes on.", show_default=False)
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the study, again and again.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes side by side; one for each core if not given.")]
Track = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Tell tensorboard, mlflow or wandb; again and again.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print results.json instead of tables.")]


@app.command()
def demo(
    out: Out = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many times each arm is trained.")] = 3,
    workers: Workers = None,
    set_: Set = None,
    track: Track = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole study on images that come with the package: six arms, a table, a verdict."""
    from subclass_kd.study_file import make_study

    _run(make_study(DEMO | {"seeds": seeds}, overrides(set_, workers, track), "demo"), out or RUNS / "demo", as_json)


@app.command()
def run(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study; see docs/study-file.md.")],
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="Run folder; a run that is there goes on. With --engine ray also a URL, s3://BUCKET/RUN say.",
            show_default=False,
        ),
    ] = None,
    workers: Workers = None,
    devices: Annotated[int, typer.Option(min=1, help="Devices on each node for one training: docs/devices.md.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines for one training.")] = 1,
    set_: Set = None,
    track: Track = None,
    cache: Cache = None,
    as_json: AsJson = False,
    engine: Annotated[EngineName, typer.Option(help="This machine, or a Ray cluster: docs/cluster.md.")] = (
        EngineName.local
    ),
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The Ray cluster, as ray start prints it.")
    ] = None,
) -> None:
    """Run a study, or what is left of it, and print its results."""
    from subclass_kd.extras import demand
    from subclass_kd.study_file import load_study
    from subclass_kd.together import check_together, joined

    if out is not None:
        refuse_password("--out", out)
    if engine is EngineName.ray:
        if devices * nodes > 1:
            raise UserError("--devices", "--engine ray beside it", "one of both", "Leave one out: docs/cluster.md.")
        study = load_study(study_file, overrides(set_, workers, track))
        _run_on_ray(study, out or str(RUNS / study_file.stem), as_json, address)
        return
    if address is not None:
        raise UserError("--address", address, "--engine ray beside it", "Add it, or leave the address out.")
    if out is not None and "://" in out:
        raise UserError("--out", out, "a folder, or --engine ray beside it", "Add it, or give a folder.")
    if devices * nodes > 1:
        demand("skd run --devices", "train")
    with joined(devices, nodes) as team:
        study = load_study(study_file, overrides(set_, workers, track))
        if team.count > 1:
            check_together(study, workers)
        _run(study, Path(out or RUNS / study_file.stem), as_json)


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


for _command in (tune, export, predict, serve, report, bits):
    app.command()(_command)


def _run_on_ray(study: Study, out: str, as_json: bool, address: str | None) -> None:
    from subclass_kd.engine_ray import on_cluster
    from subclass_kd.mirror import mirrored

    if "://" not in out:
        _run(study, Path(out), as_json, on_cluster(address))
        return
    with mirrored(out) as mirror:
        _run(study, mirror.folder, as_json, on_cluster(address, mirror), out)


def _run(
    study: Study, out: Path, as_json: bool, cluster: AbstractContextManager[Engine] | None = None, shown: str = ""
) -> None:
    from subclass_kd.display import RunProgress, show_results
    from subclass_kd.engine import run_jobs
    from subclass_kd.extras import demand
    from subclass_kd.study import run_study

    demand("skd run", "train")
    with contextlib.ExitStack() as stack:
        engine = run_jobs
        if cluster is not None:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray prints what befalls its nodes
            engine = stack.enter_context(cluster)
        progress = stack.enter_context(RunProgress(Console(stderr=True)))
        results = run_study(study, out, progress, engine)
    if as_json:
        sys.stdout.write(json.dumps(results, indent=2, allow_nan=False) + "\n")
    else:
        show_results(Console(), results, out, shown)
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
