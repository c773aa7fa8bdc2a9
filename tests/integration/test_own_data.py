"""Data of a user's own through the command line: init, check, run; MHIST's form; radiologists' votes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from subclass_kd.data.findings import Findings
from subclass_kd.data.samples import resolve_rows
from subclass_kd.study_file import load_study, make_study
from synthetic_mhist import write_synthetic_mhist

EXAMPLES = Path(__file__).parents[2] / "examples"
XRAYS = Path(__file__).parents[3] / "shared/data/chest_xray"
QUICK = [
    "teacher.model=small:resnet", "teacher.pretrained=false", "teacher.options={width: 4}", "teacher.epochs=2",
    "student.model=small:convnet", "student.pretrained=false", "student.options={width: 4}", "student.epochs=4",
    "distillation.views=2", "seeds=2", "workers=1",
]  # fmt: skip


def settings(*values):
    return [part for value in values for part in ("--set", value)]


@pytest.fixture(scope="module")
def mhist(tmp_path_factory):
    """Synthetic MHIST, a tenth of its size."""
    folder = tmp_path_factory.mktemp("mhist")
    write_synthetic_mhist(folder, scale=0.1, size=32)
    return folder


@pytest.mark.parametrize(
    ("mapping", "subclasses"),
    [
        ("pairs", ["HP 0-1/7", "HP 2-3/7", "SSA 4-5/7", "SSA 6-7/7"]),
        ("each", [f"{'HP' if votes < 4 else 'SSA'} {votes}/7" for votes in range(8)]),
    ],
)
def test_synthetic_mhist_runs_through_the_example_with_small_networks(skd, mhist, tmp_path, mapping, subclasses):
    changes = settings(f"data.root={mhist}", "data.size=24", f"votes.subclasses={mapping}", *QUICK)
    done = skd("run", EXAMPLES / "mhist.yaml", *changes, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert [row["name"] for row in results["data"]["subclasses"]] == subclasses
    assert results["data"]["positive"] == "SSA"
    assert list(results["arms"])[2] == "soft-votes"
    assert "Votes" in done.stdout
    assert "4 of 7" in done.stdout
    with (mhist / "annotations.csv").open() as file:
        partition = {f"images/{row['Image Name']}": row["Partition"] for row in csv.DictReader(file)}
    with (tmp_path / "run/samples.csv").open() as file:
        listing = list(csv.DictReader(file))
    assert len(listing) == len(partition)
    for row in listing:
        assert (row["split"] == "test") == (partition[row["sample"]] == "test")
        assert row["class"] == ("SSA" if int(row["positive_votes"]) >= 4 else "HP")


def test_the_votes_of_a_whole_synthetic_mhist_are_those_worked_out_by_hand(tmp_path):
    """Votes 0 to 7 of training and test together: 723 705 426 308 | 216 168 250 356."""
    write_synthetic_mhist(tmp_path, scale=1.0, size=8)
    study = load_study(EXAMPLES / "mhist.yaml", [f"data.root={tmp_path}", "data.size=8"])
    rows = resolve_rows(study, Findings())
    votes = rows.describe()["votes"]
    counted = [list(row["images"].values()) for row in votes["counts"]]
    hp, ssa = [723, 705, 426, 308], [216, 168, 250, 356]
    assert counted == [[count, 0] for count in hp] + [[0, count] for count in ssa]

    def entropy(*counts):
        shares = np.array(counts) / sum(counts)
        return -(shares * np.log2(shares)).sum()

    assert votes["class_entropy"] == pytest.approx(entropy(2162, 990))
    each = (2162 * entropy(*hp) + 990 * entropy(*ssa)) / 3152
    pairs = (2162 * entropy(1428, 734) + 990 * entropy(384, 606)) / 3152
    assert votes["vote_entropy"] == pytest.approx(each)
    assert votes["subclass_entropy"] == pytest.approx(pairs)
    assert (len(rows.train) + len(rows.validation), len(rows.test)) == (2175, 977)
    # The stages of the curriculum: unanimous, 6, 5, then 4 of 7.
    level = np.maximum(rows.table.votes.positive, 7 - rows.table.votes.positive)
    assert (rows.stage[rows.train] == 7 - level[rows.train]).all()


def test_radiologists_votes_run_with_every_arm_and_patients_on_one_side(skd, tmp_path):
    done = skd("run", EXAMPLES / "lidc_votes.yaml", *settings(*QUICK), "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert len(results["arms"]) == 7
    assert {row["verdict"] for row in results["comparisons"]} <= {"better", "worse", "inconclusive"}
    with (tmp_path / "run/samples.csv").open() as file:
        sides = {}
        for row in csv.DictReader(file):
            sides.setdefault(row["group"], set()).add(row["split"])
    assert len(sides) == 634
    assert all(len(splits) == 1 for splits in sides.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a clinician has it: two classes, subclass and patient in the file name, no split."""
    root = tmp_path_factory.mktemp("own") / "images"
    random = np.random.default_rng(0)
    for number in range(240):
        patient, kind = number // 4, ("viral", "bacterial", "healthy", "healthy")[number // 4 % 4]
        place = np.arange(32)
        wave = np.sin(2 * np.pi * place / (4 if kind == "viral" else 8))
        ground = wave[:, None] + wave * (kind == "healthy") + np.zeros((32, 32))
        pixels = np.clip(128 + 50 * ground + random.normal(0, 20, (32, 32)), 0, 255).astype(np.uint8)
        name = f"p{patient:03}_{kind}_{number % 4}.png" if kind != "healthy" else f"p{patient:03}_{number % 4}.png"
        path = root / ("normal" if kind == "healthy" else "pneumonia") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def test_a_folder_becomes_a_study_that_runs_as_it_is(skd, folder, tmp_path):
    written = skd("init", folder, "-o", "study.yaml", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    study = yaml.safe_load((tmp_path / "study.yaml").read_text())
    assert study["hierarchy"] == {"normal": ["normal"], "pneumonia": ["bacterial", "viral"]}
    checked = skd("check", "study.yaml", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    report = json.loads(checked.stdout)
    assert report["errors"] == 0
    assert report["data"]["shared_groups"] == 0
    done = skd("run", "study.yaml", *settings(*QUICK, "data.validation=0.1"), "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "240 images decoded" in done.stderr
    assert done.stderr.index("warning: few validation images\n") < done.stderr.index(": epoch ")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert sum(results["data"]["groups"].values()) == 60
    assert skd("init", folder, "-o", "study.yaml", cwd=tmp_path).returncode == 2


def test_check_takes_data_as_well_as_a_study_and_exits_2_on_errors(skd, folder, tmp_path):
    copy = tmp_path / "copy"
    for path in folder.rglob("*.png"):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    broken = [copy / "normal/p002_0.png", copy / "pneumonia/p000_viral_1.png"]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(broken[1].read_bytes()[:200])
    checked = skd("check", copy, "--json", cwd=tmp_path)
    assert checked.returncode == 2
    report = json.loads(checked.stdout)
    assert report["errors"] == 2
    assert sorted(finding["where"] for finding in report["findings"] if finding["severity"] == "error") == sorted(
        map(str, broken)
    )
    shown = skd("check", copy, cwd=tmp_path)
    assert shown.returncode == 2
    assert "2 errors" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_every_fold_is_a_run_of_its_own(folder, tmp_path):
    study = {"data": {"kind": "folder", "root": str(folder), "folds": 5}}
    tested = []
    for fold in range(5):
        rows = resolve_rows(make_study(study, [f"data.fold={fold}"]), Findings())
        tested += [rows.table.names[row] for row in rows.test]
    assert len(tested) == len(set(tested)) == 240


@pytest.mark.skipif(not XRAYS.exists(), reason=f"the chest X-rays are not here: {XRAYS}")
def test_the_chest_xrays_get_their_study_duplicates_and_patients_by_themselves(skd, tmp_path):
    assert skd("init", XRAYS, "-o", "study.yaml", cwd=tmp_path).returncode == 0
    checked = skd("check", "study.yaml", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    data = json.loads(checked.stdout)["data"]
    assert data["copies"] == {"groups": 30, "surplus": 32}
    assert data["shared_groups"] == 0
    assert data["sentence"] == "No group (patient) is in two splits: 4,082 groups."
    counts = {row["name"]: (row["train"] + row["validation"], row["test"]) for row in data["subclasses"]}
    assert counts == {"NORMAL": (1341, 234), "bacteria": (2530, 242), "virus": (1345, 148)}
