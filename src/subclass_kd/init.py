"""``skd init``: look at some data, and write a study that runs as it is, with a comment on each choice."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from subclass_kd.config import Study
from subclass_kd.data.check import few_validation
from subclass_kd.data.findings import Findings
from subclass_kd.data.hierarchies import NEGATIVE
from subclass_kd.data.images import DICOM_EXTENSIONS
from subclass_kd.data.patients import PATIENT_ID
from subclass_kd.data.pixel_checks import full_scale
from subclass_kd.data.rows import SPLITS, Rows
from subclass_kd.data.samples import resolve_rows
from subclass_kd.data.scan import Look, Scan, scan
from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError
from subclass_kd.expected_time import duration, expected_seconds
from subclass_kd.look import Found, look, one_line
from subclass_kd.study_file import make_study

SAMPLE = 200  # images that are decoded to see their size and colour
SMALL, LARGE = 64, 224  # pixels, without and with a GPU
LARGEST_SMALL = 96  # up to this size the small networks serve
WIDTH = 118


def init(data: Path, measure: bool = True) -> str:
    """Write a study for some data.

    Args:
        data: a folder of images or of shards, MHIST's folder, or a table file.
        measure: time the networks; without, torch is not loaded, and the study is one for a CPU.

    Returns:
        A study file's text, in YAML. The comment at its top says what was found and how long a run will take here.

    Raises:
        UserError: nothing is there, or nothing that a study can be made of.
    """
    found = look(data)
    findings = Findings()
    rows = resolve_rows(make_study(found.content), findings)
    sample = rows.table.take(np.unique(np.linspace(0, len(rows.table) - 1, SAMPLE).astype(np.int64)))
    started = time.perf_counter()
    seen = scan(sample, make_study(found.content).data)
    reading = (time.perf_counter() - started) * len(rows.table) / len(sample)  # seconds for all images
    has_gpu = measure and _has_gpu()
    shape = _describe_pixels(found, sample, seen, has_gpu)
    content = found.content | _choose(rows, shape, has_gpu)
    study = make_study(content)
    if measure:
        counts = {split: len(getattr(rows, split)) for split in SPLITS}
        seconds = reading + expected_seconds(study, rows.hierarchy, counts, shape)
        found.note("", f"Expected time of skd run on this machine: {duration(seconds)}.")
    if findings.errors:
        found.note("", f"Errors in the data: {findings.errors:,}. A run refuses them; skd check lists them.")
    return _write(data, study, content, found, rows)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _describe_pixels(found: Found, sample: SampleTable, seen: Scan, has_gpu: bool) -> tuple[int, int, int]:
    """Choose size, channels and white by a sample of the images, and give their shape (C, H, W) in the study."""
    looks = [one for one in seen.looks if isinstance(one, Look)]
    if not looks:
        error = next(why for why in seen.looks if isinstance(why, UserError))
        raise UserError(
            error.where, error.found, f"{error.expected}; none of {len(seen.looks)} could be read", error.remedy
        )
    data = found.content["data"]
    sizes = Counter((look.width, look.height) for look in looks)
    width, height = max(sizes, key=lambda size: sizes[size])
    shortest = int(np.median([min(side) for side in sizes.elements()]))
    largest = LARGE if has_gpu and shortest >= LARGE else SMALL
    size = min(largest, max(8, shortest))
    data["size"] = size
    more = len(sizes) - 1
    stored = f"{width} x {height}" + (f" and {more} other size{'s' * (more > 1)}" if more else "")
    found.note("size", f"Height and width in pixels; stored are {stored}. Larger shows more and takes longer.")
    coloured = any(one.coloured for one in looks)
    data["channels"] = 3 if coloured else 1
    found.note("channels", f"{'3 for colour' if coloured else '1 for grey'}, as of {len(looks)} images looked at.")
    names = [Path(name).suffix.lower() for name in sample.names]
    deep = [
        one.largest
        for one, suffix in zip(seen.looks, names, strict=True)
        if isinstance(one, Look) and one.bits == 16 and suffix not in DICOM_EXTENSIONS  # DICOM has its own window
    ]
    if deep:
        data["white"] = full_scale(max(deep), data_white=65535)
        value = f"{max(deep) * 257:,}"
        found.note("white", f"This value of 16-bit grey is shown as white; the largest seen is about {value}.")
    return data["channels"], size, size


def _choose(rows: Rows, shape: tuple[int, int, int], has_gpu: bool) -> dict[str, Any]:
    """Choose networks and schedule by image size and number of training images."""
    images = len(rows.train)
    most = 200_000 if has_gpu else 50_000  # images that a teacher sees, over all epochs
    epochs = min(60, max(10 if has_gpu else 5, round(most / images)))
    small = shape[1] <= LARGEST_SMALL
    teacher, student = ("small:resnet", "small:convnet") if small else ("timm:resnet18", "timm:mobilenetv3_small_050")
    rate = 0.01 if small else 0.001
    names = rows.hierarchy.classes
    positive = names[rows.positive]
    if len(names) == 2 and positive.lower() in NEGATIVE:
        positive = names[1 - rows.positive]
    content: dict[str, Any] = {
        "positive": positive,
        "teacher": {"model": teacher, "epochs": epochs, "learning_rate": rate},
        "student": {"model": student, "epochs": 2 * epochs, "learning_rate": rate},
        "distillation": {"temperature": 1.0, "alpha": 0.9, "views": 4},
        "arms": "all" if rows.hierarchy.num_subclasses > rows.hierarchy.num_classes else ["scratch", "kd"],
        "seeds": 3,
    }
    if rows.table.votes is None:
        parents, subclasses = rows.hierarchy.parent_indices, rows.hierarchy.subclasses
        content["hierarchy"] = {
            name: [subclass for subclass, parent in zip(subclasses, parents, strict=True) if parent == number]
            for number, name in enumerate(names)
        }
    return content


def _write(path: Path, study: Study, content: dict[str, Any], found: Found, rows: Rows) -> str:
    counts = ", ".join(f"{len(getattr(rows, split)):,} {split}" for split in SPLITS)
    lines = _comment(f"A study of {path}, written by skd init: {len(rows.table):,} images ({counts}).")
    for note in found.notes.get("", []):
        lines += _comment(note)
    lines += _comment("First look at the data with skd check; docs/study-file.md has all keys.")
    lines += ["", "data:", *_data_lines(content["data"], found, rows)]
    if "votes" in content:
        lines += ["", *_comment("Annotators' votes decide class and subclass: see docs/data.md."), "votes:"]
        lines += [f"  {key}: {scalar(value)}" for key, value in content["votes"].items()]
    lines += ["", *_hierarchy_lines(content, rows)]
    lines += ["", *_training_lines(study, content, rows)]
    return "\n".join(lines) + "\n"


def _data_lines(data: dict[str, Any], found: Found, rows: Rows) -> list[str]:
    lines: list[str] = []
    remarks = {"root": "Starts from the folder in which skd is run.", "table": "One row an image."}
    for key, value in data.items():
        notes = found.notes.get(key, []) + ([remarks[key]] if key in remarks else [])
        if key == "pattern":
            notes = [*notes, "Found in the names of files and folders; a wrong one may be deleted."]
        lines += [line for note in notes for line in _comment(note, indent=2)]
        if isinstance(value, list):
            lines += [f"  {key}:", *(f"    - {scalar(item)}" for item in value)]
        elif isinstance(value, dict):
            lines += [f"  {key}:", *(f"    {name}: {scalar(item)}" for name, item in value.items())]
        else:
            lines.append(f"  {key}: {scalar(value)}")
    if rows.table.splits is None or "test" not in rows.table.splits:
        lines += _comment("No test split is given: this share of the images is set aside.", indent=2)
        lines.append("  test: 0.2")
    if rows.table.splits is None or "validation" not in rows.table.splits:
        lines += _comment("Share of the training images that chooses epochs.", indent=2)
        lines.append("  validation: 0.2")
    few = few_validation(rows)
    if few is not None:
        lines += _comment(f"Few, to choose epochs and the threshold by: {few[0]}. {few[1]}", indent=2)
    if rows.groups is None:
        lines += _comment(
            "No patients (groups) were found: images of one patient may be in training and test, which flatters every "
            "result. If file names or a column tell patients, say so: docs/data.md.",
            indent=2,
        )
    elif rows.table.group_source == PATIENT_ID:
        text = f"Groups (patients): {len(set(rows.table.groups or ())):,} by {PATIENT_ID}; the study numbers them."
        lines += _comment(text, indent=2)
    return lines


def _hierarchy_lines(content: dict[str, Any], rows: Rows) -> list[str]:
    hierarchy = rows.hierarchy
    counts = np.bincount(rows.subclass_labels, minlength=hierarchy.num_subclasses).tolist()
    numbers = dict(zip(hierarchy.subclasses, counts, strict=True))
    lines = _comment("Each class with its subclasses; regroup them as the question asks.")
    if hierarchy.num_subclasses == hierarchy.num_classes:
        lines = _comment(
            "No subclasses were found: each class is its own. Then skd is the same as kd, and only scratch and kd are "
            "compared. Subclasses may be folders in those of the classes, a column, or a word in the file names."
        )
    if "hierarchy" in content:
        lines.append("hierarchy:")
        for name, members in content["hierarchy"].items():
            lines.append(f"  {scalar(name)}:")
            lines += [f"    - {scalar(member)}  # {numbers[member]:,} images" for member in members]
    else:
        listed = "; ".join(f"{one_line(name)}: {count:,}" for name, count in numbers.items())
        lines = _comment(f"Subclasses by votes, with their images: {listed}.")
    lines += _comment("The class that F1, sensitivity and specificity speak of: is it this one?")
    return [*lines, f"positive: {scalar(content['positive'])}"]


def _training_lines(study: Study, content: dict[str, Any], rows: Rows) -> list[str]:
    images = f"{len(rows.train):,} training images"
    remarks = {
        "teacher": "The network that learns first; pretrained: true starts timm's from ImageNet.",
        "student": "The small network to deploy.",
        "distillation": "What passes from teacher to student: alpha is the teacher's weight; views, augmentations.",
    }
    lines: list[str] = []
    for key, remark in remarks.items():
        epochs = f" Epochs for {images}: fewer images need more." if key == "teacher" else ""
        lines += [*_comment(remark + epochs), f"{key}:"]
        lines += [f"  {name}: {scalar(value)}" for name, value in content[key].items()]
    lines += _comment("Ways to train the student: docs/study-file.md says what each asks.")
    lines.append(f"arms: [{', '.join(study.arms)}]")
    lines += _comment("Repetitions of everything; with 5 or 10 smaller differences can be told from chance.")
    lines.append(f"seeds: {content['seeds']}")
    return lines


def _comment(text: str, indent: int = 0) -> list[str]:
    start = f"{' ' * indent}# "
    return textwrap.wrap(one_line(text), WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False)


def scalar(value: Any) -> str:
    r"""Write a plain value as YAML, in quotes unless it is surely the same without.

    >>> [scalar(value) for value in (64, "NORMAL", "no", "1e3", "a: b", "it's", "two\nlines")]
    ['64', 'NORMAL', "'no'", "'1e3'", "'a: b'", "'it''s'", '"two\\nlines"']
    """
    if not isinstance(value, str):
        return json.dumps(value)
    if not value.isprintable():
        return json.dumps(value)
    if re.fullmatch(r"[A-Za-z][\w ./:()-]*[\w.)]|[A-Za-z]", value, re.ASCII) and ": " not in value:
        return yaml.safe_dump(value, width=10**6).removesuffix("\n").removesuffix("\n...")
    return "'" + value.replace("'", "''") + "'"
