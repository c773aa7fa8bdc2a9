"""``skd tune``: the search for each arm's best settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from subclass_kd.cli_shared import Cache, say
from subclass_kd.passwords import refuse_password


def tune(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study; its section tune is the space.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder; a search that is there goes on.", show_default=False)
    ] = None,
    storage: Annotated[
        str | None,
        # Others on the machine see a command's arguments (ps), and not its environment.
        typer.Option(
            metavar="URL",
            envvar="SKD_STORAGE",
            help="Database that processes share: SQLite in the folder if not given. With a password: in SKD_STORAGE.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side; one for each core if not given.")
    ] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="What starts the processes.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the study, again and again.")
    ] = None,
    track: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Tell tensorboard, mlflow or wandb; again and again.")
    ] = None,
    cache: Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print tune.json instead of a table.")] = False,
) -> None:
    """Search for each arm's best settings, on the validation split alone, as many trials for each."""
    from subclass_kd.cli_shared import overrides
    from subclass_kd.display import RunProgress
    from subclass_kd.extras import demand
    from subclass_kd.study_file import load_study

    if out is not None:
        refuse_password("--out", str(out))
    study = load_study(study_file, overrides(set_, workers, track))
    demand("skd tune", "train")
    demand("skd tune", "tune")
    if engine == "ray":
        demand("--engine ray", "ray")
    from subclass_kd.tune.outcome import BEST, PLOT
    from subclass_kd.tune.search import tune as search

    out = out or Path("skd-runs") / f"{study_file.stem}-tune"
    wanted, ended = study.tune.trials * len(study.arms), 0

    def on_trial(arm: str, trial: Any) -> None:
        nonlocal ended
        ended += 1
        say(f"[{ended}/{wanted}] {line(arm, trial)}")

    with RunProgress(Console(stderr=True)) as progress:
        outcome = search(study, out, storage, engine == "ray", address, progress.decoding, on_trial)
    if as_json:
        sys.stdout.write(json.dumps(outcome, indent=2, allow_nan=False) + "\n")
        return
    show(Console(), outcome)
    Console().print(f"Files: {out}/{BEST}, to run; {PLOT}, what mattered", soft_wrap=True, highlight=False)


def line(arm: str, trial: Any) -> str:
    """Say what came of a trial."""
    worth = "diverged" if trial.value is None else f"validation F1 {100 * trial.value:.1f} %"
    early = (
        f", given up after {max(trial.intermediate_values, default=0)} epochs" if trial.state.name == "PRUNED" else ""
    )
    return f"{arm}, trial {trial.number}: {worth}{early} ({settings(trial.user_attrs.get('settings', {}))})"


def settings(own: dict[str, Any]) -> str:
    """Name an arm's settings.

    >>> settings({"learning_rate": 0.01, "hard_target": "class"})
    'learning rate 0.01, hard target class'
    """
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in own.items())


def show(console: Console, outcome: dict[str, Any]) -> None:
    """Print each arm's best trial, and what mattered."""
    from subclass_kd.config import Own
    from subclass_kd.display_tables import make_table

    names = list(Own.model_fields)
    words = [name.replace("_", " ") for name in names]
    seeds = len(outcome["seeds"])
    best = make_table(f"The best trials, over {seeds} seed{'s' * (seeds > 1)}", "", "validation F1 %", *words)
    mattered = make_table("What mattered, %", "", "trials", "given up", *words)
    for arm, row in outcome["arms"].items():
        own, shares = row["best"]["settings"], row["importance"] or {}
        best.add_row(arm, f"{100 * row['best']['validation_f1']:.1f}", *(str(own.get(name, "-")) for name in names))
        cells = (f"{100 * shares[name]:.0f}" if name in shares else "-" for name in names)
        mattered.add_row(arm, str(row["trials"]), str(row["pruned"]), *cells)
    console.print(best)
    console.print(mattered)
    for arm, row in outcome["arms"].items():
        if row["left_out"]:
            counted = f"the first {row['trials']} of its trials count, as many as tune.trials"
            text = f"{arm}: {counted}; {row['left_out']} more are left out."
            console.print(text, highlight=False)
    text = "The best of many trials flatters itself: skd run best.yaml says what the arms are worth, on the test split."
    console.print(text, highlight=False)
