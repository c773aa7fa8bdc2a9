"""Images without labels: only what is taught by a teacher sees them, and nothing sees what they are."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn
from torch.nn import functional as F

from subclass_kd import SubclassHierarchy, store
from subclass_kd.augment import Views
from subclass_kd.bench import Bench
from subclass_kd.config import Augment, Data, Student
from subclass_kd.criterion import Criterion
from subclass_kd.data.check import check_study
from subclass_kd.data.findings import Findings
from subclass_kd.data.samples import load_samples
from subclass_kd.data.splits import make_splits
from subclass_kd.errors import UserError
from subclass_kd.plan import grouped, plan
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.training import Lesson, Pixels, train

HIERARCHY = SubclassHierarchy.from_parent([0, 0, 1, 1])
VIEWS = Views(seed=3, count=2, augment=Augment(flip=True, shift=0.1))
NETWORK = Student(model="small:convnet", epochs=6, batch_size=8, learning_rate=0.01)
LABELS = torch.arange(60) % 4
TARGETS = torch.randn(2, 42, 4, generator=torch.Generator().manual_seed(5))  # of 30 with a label, 12 without


class Recording(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.seen = nn.Linear(64, 4), []

    def forward(self, images):
        if self.training:
            self.seen.append(images[:, 0, 0, 0].mul(255).round().long())
        return self.head(images.flatten(1))


@pytest.fixture
def pixels():
    """60 images, each with its number in the upper left corner: 30 to train, 18 to validate, 12 without a label."""
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(60)
    return Pixels(images, torch.arange(30), torch.arange(30, 48), positive=1, unlabelled=torch.arange(48, 60))


def fit(lesson, pixels, views=VIEWS):
    model = Recording()
    weights, history = train(model, lesson, pixels, views, NETWORK, Fabric(accelerator="cpu", devices=1), seed=1)
    return model, weights["head.weight"], history


def test_all_images_take_turns_and_no_epoch_is_longer(pixels):
    model, _, _ = fit(Lesson(HIERARCHY, LABELS, TARGETS, alpha=0.9), pixels, Views(0, 2, Augment(flip=False, shift=0)))
    assert [len(batch) for batch in model.seen] == [8, 8, 7, 7] * 6
    seen = torch.cat(model.seen)
    taught = [*range(30), *range(48, 60)]
    # 6 epochs of 30 images are four rounds through all 42, and 12 images more
    for number in range(4):
        assert sorted(seen[42 * number : 42 * (number + 1)].tolist()) == taught
    assert len(set(seen[168:].tolist())) == 12


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_labels_that_are_hidden_change_nothing(pixels, temperature):
    wrong = LABELS.clone()
    wrong[48:] = (wrong[48:] + 1) % 4
    lesson = Lesson(HIERARCHY, LABELS, TARGETS, temperature, alpha=0.6)
    (_, right, history), (_, other, _) = fit(lesson, pixels), fit(replace(lesson, labels=wrong), pixels)
    assert right.equal(other)
    assert all(np.isfinite([epoch.loss, epoch.hard, epoch.soft]).all() for epoch in history)


@pytest.mark.parametrize(("temperature", "hard_target"), [(1.0, "subclass"), (2.0, "subclass"), (1.0, "class")])
def test_the_loss_of_an_image_without_a_label_is_the_teachers_part_alone(temperature, hard_target):
    lesson = Lesson(HIERARCHY, LABELS, TARGETS, temperature, 0.6, hard_target)
    criterion = Criterion(lesson, torch.arange(42), 30, Fabric(accelerator="cpu", devices=1))
    criterion.begin(1)
    logits = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    seen = torch.tensor([3, 29, 30, 41])
    loss = criterion(logits, seen, logits)
    log_s, log_t = (logits / temperature).log_softmax(-1), (TARGETS[1, seen].double() / temperature).log_softmax(-1)
    soft = temperature**2 * (log_t.exp() * (log_t - log_s)).sum(-1)
    hard = F.cross_entropy(logits, LABELS[seen], reduction="none")
    if hard_target == "class":
        hard = -torch.stack([logits.softmax(-1)[:, :2].sum(-1), logits.softmax(-1)[:, 2:].sum(-1)], -1).log()
        hard = hard.gather(1, (LABELS[seen] // 2)[:, None]).squeeze(1)
    by_hand = torch.where(seen < 30, 0.6 * soft + 0.4 * hard, soft)
    [ours], [theirs] = torch.autograd.grad(loss.total.sum(), logits), torch.autograd.grad(by_hand.sum(), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    total, hard_mean, soft_mean = criterion.means(loss.total.detach().float(), loss.hard.float(), seen)
    assert total == pytest.approx(by_hand.mean().item(), rel=1e-5)
    assert hard_mean == pytest.approx(hard[:2].mean().item(), rel=1e-5)
    assert soft_mean == pytest.approx(soft.mean().item(), rel=1e-4)


def test_what_is_left_over_is_of_no_validation_patient_and_never_tests():
    labels, groups = np.arange(120) % 4, [str(row // 3) for row in range(120)]
    found = make_splits(Data(train_images=40, folds=5, fold=2), labels, None, groups, "cases.csv", Findings())
    sides = [set(side.tolist()) for side in (found.train, found.validation, found.test, found.rest)]
    assert sum(map(len, sides)) == len(set().union(*sides))
    patients = [{row // 3 for row in side} for side in sides]
    assert not patients[3] & (patients[1] | patients[2])
    assert len(sides[3]) > 20
    whole = make_splits(Data(), labels, None, groups, "cases.csv", Findings())
    assert len(whole.rest) == 0


STUDY = {
    "data": {"train_images": 200},
    "teacher": {"options": {"width": 4}, "epochs": 1},
    "student": {"options": {"width": 4}, "epochs": 2},
    "distillation": {"views": 2},
    "arms": ["scratch", "kd", "skd"],
    "seeds": 1,
    "workers": 1,
    "device": "cpu",
}


def test_a_study_with_unlabelled_images(tmp_path):
    study = make_study(STUDY, ["distillation.unlabelled=true"])
    results = run_study(study, tmp_path / "with")
    plain = run_study(make_study(STUDY), tmp_path / "without")
    assert results["data"]["unlabelled"] == 2800
    assert plain["data"]["unlabelled"] == 0
    assert json.loads((tmp_path / "with/data.json").read_text())["unlabelled"] == 2800
    with (tmp_path / "with/samples.csv").open() as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert (splits.count("unlabelled"), splits.count("train"), splits.count("unused")) == (2800, 160, 0)
    # What has no teacher is as without them, and so are the teachers.
    same, other = (
        [store.load(tmp_path / run / f"{name}-seed0.safetensors") for run in ("with", "without")]
        for name in ("students/scratch", "students/skd")
    )
    assert all(same[0][name].equal(same[1][name]) for name in same[0])
    assert not all(other[0][name].equal(other[1][name]) for name in other[0])
    assert results["label_bits"] == plain["label_bits"]
    assert store.load(tmp_path / "with/targets/subclass-seed0.safetensors")["logits"].shape == (2, 2960, 10)


def test_cross_fitted_members_take_turns_to_answer_for_them(tmp_path):
    overrides = ["distillation.unlabelled=true", "teacher.members=3", "teacher.cross_fit=true"]
    study = make_study(STUDY, overrides)
    samples = load_samples(study)
    bench = Bench(study, samples, tmp_path, None, seed=0)
    assert len(bench.part_of) == len(bench.taught.rows) == 2960
    assert np.bincount(bench.part_of[160:]).tolist() == [934, 933, 933]
    for member in range(3):
        rows = bench.pixels_of(member)
        assert rows.unlabelled is None
        assert len(rows.train) == int((bench.part_of[:160] != member).sum())


def test_students_that_see_other_images_are_not_trained_as_one():
    study = make_study(STUDY, ["distillation.unlabelled=true"])
    together = [
        [[job.name for job in group] for group in grouped(plan(study, ""), 3, apart) if group[0].kind == "students"]
        for apart in (True, False)
    ]
    assert together == [[["scratch"], ["kd"], ["skd"]], [["scratch", "kd"], ["skd"]]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train_images=null"], 'key "distillation.unlabelled": found true, and no such image'),
        (["curriculum.student=true"], "beside distillation.unlabelled, whose images have no stage"),
    ],
)
def test_what_cannot_be_is_refused(overrides, message):
    with pytest.raises(UserError) as caught:
        load_samples(make_study(STUDY, ["distillation.unlabelled=true", *overrides]))
    assert message in str(caught.value)


@pytest.fixture
def own(tmp_path):
    """Write 64 images of two classes with two subclasses each, and 9 in a folder apart, one in a folder below."""
    random = np.random.default_rng(0)

    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 12), dtype=np.uint8)).save(path)

    for number in range(64):
        write(
            tmp_path / f"data/{'ab'[number % 2]}/{'xy'[number // 2 % 2]}{number % 2}/patient{number // 4}-{number}.png"
        )
    for number in range(9):
        write(tmp_path / f"others/{'below/' if number == 3 else ''}scan{number}.png")
    return {
        **STUDY,
        "data": {
            "kind": "folder", "root": str(tmp_path / "data"), "unlabelled": str(tmp_path / "others"),
            "pattern": "(?P<group>patient[0-9]+)", "train_images": 30,
        },
        "distillation": {"views": 2, "unlabelled": True},
        "arms": ["scratch", "skd"],
    }  # fmt: skip


def test_a_folder_of_ones_own_is_added_to_what_is_left_over(own, tmp_path):
    study = make_study(own)
    samples = load_samples(study)
    assert len(samples.images) == 73
    assert samples.named == 64
    extra = [samples.table.names[row] for row in samples.unlabelled if row >= 64]
    assert extra[:2] == ["../others/below/scan3.png", "../others/scan0.png"]
    assert len(extra) == 9
    assert 0 < len(samples.unlabelled) - 9 < 30
    shown = np.asarray(Image.open(tmp_path / "others/scan8.png"))
    assert (samples.images[72, 0] == shown).all()
    results = run_study(study, tmp_path / "run")
    assert results["data"]["unlabelled"] == len(samples.unlabelled)
    with (tmp_path / "run/samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["subclass"], row["split"], row["group"]) for row in rows[64:]] == [
        ("", "", "unlabelled", "")
    ] * 9
    assert all(row["class"] and row["group"] for row in rows[:64])
    targets = store.load(tmp_path / "run/targets/subclass-seed0.safetensors")["logits"]
    assert targets.shape == (2, len(samples.train) + len(samples.unlabelled), 4)


def test_a_test_image_among_them_stops_the_run_and_copies_of_training_images_do_not_count_as_labels(own, tmp_path):
    samples = load_samples(make_study(own))
    for name, rows in (("seen", samples.train), ("tested", samples.test)):
        shutil.copy(tmp_path / "data" / samples.table.names[rows[0]], tmp_path / f"others/{name}.png")
    found = check_study(make_study(own))["findings"]
    kinds = {finding["kind"]: finding for finding in found if "dupl" in finding["kind"]}
    assert set(kinds) == {"duplicate across splits", "duplicate image"}
    assert "../others/tested.png" in kinds["duplicate across splits"]["found"]
    with pytest.raises(UserError, match="a test image that training has as"):
        run_study(make_study(own), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "fashion-mnist", "pattern": [], "root": None}, "a folder, and data.kind: fashion-mnist"),
        ({"unlabelled": "nowhere"}, 'no folder "nowhere"'),
        ({"unlabelled": "data/a"}, "inside data.root, whose folders are classes"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(own, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load_samples(make_study({**own, "data": {**own["data"], **change}}))
    assert message in str(caught.value)


def test_a_folder_that_nobody_learns_from_is_named(own):
    findings = Findings()
    samples = load_samples(make_study(own, ["distillation.unlabelled=false"]), findings=findings)
    assert len(samples.images) == 64
    assert [kept.where for kept in findings.kept if kept.kind == "key without effect"] == ['key "data.unlabelled"']


def test_links_lead_where_the_system_leads_them(own, tmp_path):
    (tmp_path / "deep/down").mkdir(parents=True)
    (tmp_path / "data").rename(tmp_path / "deep/down/data")
    (tmp_path / "data").symlink_to(tmp_path / "deep/down/data")
    samples = load_samples(make_study(own))
    assert samples.table.names[72] == "../../../others/scan8.png"
    assert (samples.images[72, 0] == np.asarray(Image.open(tmp_path / "others/scan8.png"))).all()


def test_weights_say_nothing_of_images_without_a_label(tmp_path):
    study = make_study(STUDY, ["distillation.unlabelled=true"])
    samples = load_samples(study)
    weights = np.where(samples.class_labels == 0, 100.0, 300.0)
    samples = replace(samples, table=replace(samples.table, weights=weights))
    found = Bench(study, samples, tmp_path, None, seed=0).weights
    assert (found[samples.unlabelled] == 1).all()
    assert found[samples.train].mean().item() == pytest.approx(1)
    assert set(np.round(found[samples.train].numpy(), 4)) == {0.5, 1.5}


def test_an_epoch_without_a_label_has_no_hard_part():
    criterion = Criterion(
        Lesson(HIERARCHY, LABELS, TARGETS, alpha=0.6), torch.arange(42), 30, Fabric(accelerator="cpu", devices=1)
    )
    criterion.begin(0)
    seen = torch.tensor([30, 41])
    loss = criterion(torch.zeros(2, 4), seen, torch.zeros(0))
    total, hard, soft = criterion.means(loss.total, loss.hard, seen)
    assert hard == 0.0
    assert total == pytest.approx(soft)
