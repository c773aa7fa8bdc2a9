"""What a person sees: progress while a study runs, and its results as tables."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from subclass_kd.arithmetic import from_dict
from subclass_kd.comparison import HEADLINES
from subclass_kd.diagnosis import first_verdict
from subclass_kd.display_check import show_warnings
from subclass_kd.display_tables import make_table, show_diagnosis, show_power, show_votes
from subclass_kd.plan import Job

SPLITS = {"train": "training", "validation": "validation", "test": "test"}
ACTIVITIES = {
    "teachers": "teacher",
    "targets": "targets of teacher",
    "students": "student",
    "predictions": "predictions of",
}


class RunProgress:
    """Progress of a run: a live panel on a terminal, a line for each finished training elsewhere.

    Use it as a context manager around the run, so that the panel goes when the run does.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.remaining: dict[str, int] = {}  # path -> epochs left
        self.running: dict[str, tuple[Job, Any]] = {}  # path -> job and its last epoch
        self.kinds: dict[str, str] = {}  # path -> kind of job
        self.spent: dict[str, tuple[int, float]] = {}  # kind -> epochs measured, their seconds
        self.total = self.finished = self.workers = 0
        self.decoded = (0, 0)  # images, of how many
        self.of_fold = ""  # which of how many
        self.warned = False  # of the data, if there is anything to warn of
        self.started = time.monotonic()
        self.live = Live(console=console, get_renderable=self._panel, transient=True, refresh_per_second=4)

    def __enter__(self) -> RunProgress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def decoding(self, done: int, total: int) -> None:
        """Note how many images are decoded."""
        self.decoded = (done, total)

    def fold(self, number: int, folds: int) -> None:
        """Note which fold comes now."""
        self.of_fold, self.decoded, self.total = f"fold {number + 1} of {folds}", (0, 0), 0

    def damaged(self, paths: Sequence[str]) -> None:
        """Name files that are made again because they are not as they were written."""
        for path in paths:
            self.console.print(f"{path} is damaged: made again", highlight=False, markup=False, soft_wrap=True)

    def checked(self, report: Mapping[str, Any]) -> None:
        """Show the warnings about the data before the first training; those of other folds are of the same images."""
        if not self.warned:
            show_warnings(self.console, report)
        self.warned = True

    def begin(self, jobs: Sequence[Job], finished: int, workers: int, arithmetic: dict[str, Any]) -> None:
        """Note what there is to do."""
        self.remaining = {job.path: job.epochs for job in jobs if job.epochs}
        self.kinds = {job.path: job.kind for job in jobs}
        self.total, self.finished, self.workers = len(jobs) + finished, finished, workers
        self.started = time.monotonic()
        kept = f", {finished} kept from before" if finished else ""
        if self.of_fold:
            self._line(self.of_fold)
        if self.decoded[1]:
            self._line(f"{self.decoded[1]:,} images decoded")
        self._line(f"{len(jobs)} files to make{kept}; {workers} at a time")
        for name, chosen in from_dict(arithmetic).describe().items():
            self._line(f"{name}: {chosen}")

    def event(self, job: Job, event: str, content: Any) -> None:
        """Note what happened to a job; say so if it was a whole training."""
        if event == "started":
            self.running[job.path] = (job, None)
        elif event == "epoch":
            self.running[job.path] = (job, content)
            self.remaining[job.path] = job.epochs - content.epoch
            epochs, seconds = self.spent.get(job.kind, (0, 0.0))
            self.spent[job.kind] = (epochs + 1, seconds + content.seconds)
        else:
            _, epoch = self.running.pop(job.path)
            self.finished += 1
            if epoch is not None:
                self._line(f"[{self.finished}/{self.total}] {_activity(job, epoch)}{self._time_left()}")

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _time_left(self) -> str:
        """Estimate from the epochs to come and the mean time of each kind; "more than" while a kind is unmeasured."""
        seconds, unmeasured = 0.0, False
        for path, epochs in self.remaining.items():
            measured, spent = self.spent.get(self.kinds[path], (0, 0.0))
            seconds += epochs * spent / max(1, measured)
            unmeasured |= measured == 0
        bound = "more than" if unmeasured else "about"
        return f", {bound} {seconds / max(1, self.workers):.0f} s left" if seconds else ""

    def _panel(self) -> RenderableType:
        bar = Table.grid(padding=(0, 1))
        if not self.total:
            done, images = self.decoded
            bar.add_row(ProgressBar(total=max(1, images), completed=done, width=30), f"{done:,} of {images:,} images")
            return bar if images else Text("")
        bar.add_row(
            ProgressBar(total=max(1, self.total), completed=self.finished, width=30),
            f"{self.of_fold + ', ' if self.of_fold else ''}{self.finished} of {self.total} files, "
            f"{time.monotonic() - self.started:.0f} s{self._time_left()}",
        )
        return Group(bar, *(Text(f"  {_activity(job, epoch)}") for job, epoch in list(self.running.values())))


def _activity(job: Job, epoch: Any) -> str:
    if job.kind == "results":
        return "metrics, comparisons, label bits"
    text = f"{ACTIVITIES[job.kind]} {job.label}"
    if epoch is None:
        return text
    f1 = f"validation F1 {100 * epoch.validation_f1:.1f} %"
    return f"{text}: epoch {epoch.epoch} of {job.epochs}, loss {epoch.loss:.4f}, {f1}"


def show_results(console: Console, results: Mapping[str, Any], out: Path, shown: str = "") -> None:
    """Print the answer first, then arms, comparisons, label bits, and where the files are.

    Args:
        console: to print on.
        results: of the run.
        out: the run folder.
        shown: what it is called, if not by its path.
    """
    seeds, data = len(results["study"]["seeds"]), results["data"]
    images = {split: sum(row[split] for row in data["subclasses"]) for split in SPLITS}
    folds = len(data.get("folds", ()))
    console.print()
    console.print(Text(headline(results), style="bold"))
    console.print(
        f'\nF1 of "{data["positive"]}" ({len(data["classes"])} classes, {len(data["subclasses"])} subclasses), '
        f"{seeds} seed{'s' * (seeds > 1)}{f', {folds} folds' if folds else ''}. Images: {images['train']:,} training, "
        f"{images['validation']:,} validation{' in the first fold' if folds else ''}, {images['test']:,} test"
        f"{', each tested once a seed' if folds else ''}.{_groups(data['groups'], folds > 0)}\n",
        highlight=False,
        markup=False,
    )
    if data["votes"]:
        show_votes(console, data["votes"])
    console.print(_arms_table(results))
    console.print(_comparisons_table(results["comparisons"]))
    show_power(console, results["power"])
    for caution in cautions(results["arms"]):
        console.print(Text(f"{caution}\n", style="yellow"))
    if results["label_bits"]:
        console.print(_bits_table(results["label_bits"]))
    verdict = first_verdict(results["comparisons"]) if "skd" in results["arms"] else None
    show_diagnosis(console, results["diagnosis"]["findings"], verdict)
    if (warnings := _warnings_about_data(out)) is not None:
        console.print(Text(warnings, style="yellow"))
    console.print(f"Files: {shown or out}/report.html, to read", soft_wrap=True, highlight=False, markup=False)
    beside = "fold-0/ and so on with" if folds else "study.json,"
    console.print(f"       and beside it results.json, {beside}", highlight=False)
    console.print("       teachers/, targets/, students/, predictions/", highlight=False)


def _warnings_about_data(out: Path) -> str | None:
    try:
        warnings = json.loads((out / "check.json").read_text("utf-8"))["warnings"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    text = f"{warnings:,} warning{'s' * (warnings > 1)} about the data: check.json, or skd check.\n"
    return text if warnings else None


def _groups(groups: Mapping[str, int] | None, folds: bool) -> str:
    if groups is None:
        return ""
    where = {"validation": " in the first fold"} if folds else {}
    counts = ", ".join(f"{groups[split]:,} {name}{where.get(split, '')}" for split, name in SPLITS.items())
    return f" Groups (patients): {counts}, none on two sides."


def headline(results: Mapping[str, Any]) -> str:
    """Answer the study's first question in one sentence, with its uncertainty.

    >>> comparison = {"arm": "skd", "reference": "kd", "difference": 0.013, "ci95": [0.004, 0.022],
    ...               "verdict": "better", "seeds": 10, "test_images": 1000}
    >>> headline({"comparisons": [comparison], "arms": {"skd": {}, "kd": {}}})
    'skd beats kd by +1.3 F1 points (95 % interval +0.4 to +2.2, 10 seeds, 1,000 test images).'
    """
    comparisons = {(row["arm"], row["reference"]): row for row in results["comparisons"]}
    row = next((comparisons[pair] for pair in HEADLINES if pair in comparisons), None)
    if row is None:
        return f"No pair of arms to compare: {', '.join(results['arms'])}."
    size = f"{row['seeds']} seed{'s' * (row['seeds'] > 1)}, {row['test_images']:,} test images"
    if row.get("test_groups"):
        size += f" of {row['test_groups']:,} patients or groups"
    interval = (
        f"95 % interval {_interval(row['ci95'])}, {size}"
        if row["ci95"]
        else f"no interval: {row['reason'].rstrip('.')}"
    )
    points = f"{100 * row['difference']:+.1f} F1 points ({interval})"
    arm, reference = row["arm"], row["reference"]
    if row["verdict"] == "better":
        return f"{arm} beats {reference} by {points}."
    if row["verdict"] == "worse":
        return f"{arm} is worse than {reference}: {points}."
    return f"Inconclusive: {arm} minus {reference} is {points}."


def cautions(arms: Mapping[str, Any]) -> list[str]:
    """Name the arms with networks that give every test image the same answer, on which no comparison should rest.

    >>> cautions({"scratch": {"same_answer": [1, 0]}, "kd": {"same_answer": [0, 0]}})
    ['Caution: scratch gives every test image the same answer in 1 of 2 seeds. Train it longer.']
    >>> cautions({"scratch": {"same_answer": [3, 1]}})[0]
    'Caution: scratch gives every test image of a fold the same answer in 2 of 2 seeds (4 folds). Train it longer.'
    """
    found = []
    for name, row in arms.items():
        counts = row.get("same_answer", ())  # which older versions did not write
        seeds, networks = sum(count > 0 for count in counts), sum(counts)
        if seeds:
            of_folds = networks > seeds
            images = "every test image of a fold" if of_folds else "every test image"
            folds = f" ({networks} folds)" if of_folds else ""
            answer = f"{name} gives {images} the same answer in {seeds} of {len(counts)} seeds{folds}"
            found.append(f"Caution: {answer}. Train it longer.")
    return found


def _arms_table(results: Mapping[str, Any]) -> Table:
    title = "Test split, %: mean over seeds, \u00b1 half of the 95 % interval over seeds"
    table = make_table(title, "", "F1", "macro F1", "AUROC", "subclass", "parameters")
    for name, row in results["arms"].items():
        table.add_row(name, *_cells(row))
    table.add_section()
    for name, row in results["teachers"].items():
        table.add_row(f"teacher: {name.removeprefix('subclass-')}", *_cells(row), style="dim")
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    metrics = [_mean(row[key], 100, 1) for key in ("f1", "f1_macro", "auroc", "subclass_accuracy")]
    return [*metrics, f"{row['parameters']:,}"]


def _mean(summary: Mapping[str, Any], scale: float, digits: int) -> str:
    """Show a mean with half of its 95 % interval over seeds, where there is one."""
    if summary["mean"] is None:
        return "-"
    mean = f"{scale * summary['mean']:.{digits}f}"
    return f"{mean}±{scale * (summary['ci95'][1] - summary['mean']):.{digits}f}" if summary["ci95"] else mean


def _comparisons_table(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    title = "Difference in F1, over seeds and test images"
    table = make_table(title, "", "points", "95 % interval", "p (Holm)", "verdict")
    styles = {"better": "green", "worse": "red", "inconclusive": ""}
    for row in comparisons:
        p_holm = "-" if row["p_holm"] is None else "<0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
        interval = _interval(row["ci95"]) if row["ci95"] else "-"
        verdict = Text(row["verdict"], style=styles[row["verdict"]])
        table.add_row(
            f"{row['arm']} - {row['reference']}", f"{100 * row['difference']:+.1f}", interval, p_holm, verdict
        )
    return table


def _interval(ends: Sequence[float]) -> str:
    return f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"


def _bits_table(bits: Mapping[str, Any]) -> Table:
    title = "Label bits of the subclass teacher: extra bits an image"
    table = make_table(title, "images", "symmetric", "mutual inf.", "soft", "ceiling", "accuracy %")
    for split, row in bits.items():
        over_seeds = row["over_seeds"]
        values = [_mean(over_seeds[key], 1, 2) for key in ("symmetric", "mutual_information", "soft")]
        accuracy = _mean(over_seeds["accuracy"], 100, 1)
        table.add_row(f"{row['images']:,} {split}", *values, f"{row['ceiling']:.2f}", accuracy)
    return table
