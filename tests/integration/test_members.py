"""Teachers of several networks: each as if alone, their mean as one, and cross-fitted targets that nobody learned."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from subclass_kd import store, training
from subclass_kd.arithmetic import Arithmetic, Choice, Choices
from subclass_kd.bench import Bench
from subclass_kd.data.cross_fit import cross_fit_parts
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.plan import plan, teacher_paths
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.work import make

SMALL = {
    "teacher": {"options": {"width": 4}, "epochs": 2},
    "student": {"options": {"width": 4}, "epochs": 2},
    "distillation": {"views": 2},
    "arms": ["kd", "kd-collapsed", "skd"],
    "seeds": [3],
    "workers": 1,
    "device": "cpu",
}
CHOICE = Choice(Arithmetic("channels_last", "float32", 64), {})
CHOICES = Choices("cpu", CHOICE, CHOICE, CHOICE)


def small_study(folder, *overrides):
    return make_study({**SMALL, "data": {"kind": "fashion-mnist", "root": str(folder)}}, overrides)


def made(study, out, kinds=("teachers", "targets", "students", "predictions")):
    """Make the files of these kinds; give the samples."""
    samples = load_samples(study)
    for job in plan(study, samples.fingerprint):
        if job.kind in kinds:
            make(study, samples, out, [job], CHOICES, lambda *_: None)
    return samples


def weights(out, path):
    return store.load(out / f"{path}.safetensors")


def same(first, second):
    return all(first[name].equal(second[name]) for name in first)


def log_probs(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def targets_of(study, samples, weights_of_one, name, out):
    """Compute targets (V, n, K) of one network by the bench's own parts, view by view."""
    bench = Bench(study, samples, out, CHOICES, 3)
    model = bench.model(study.teacher, "teacher", "class" if name == "class" else "subclass").eval()
    model.load_state_dict(weights_of_one)
    images = torch.from_numpy(np.asarray(samples.images)[samples.train])
    rows = torch.from_numpy(samples.train)
    with torch.no_grad():
        seen = [bench.views.apply(images, rows, view).float() / 255 for view in range(2)]
        return torch.stack([model(view) for view in seen])


@pytest.fixture(scope="module")
def single(small_idx_folder, tmp_path_factory):
    """Give a run folder of the teacher of always."""
    out = tmp_path_factory.mktemp("runs") / "single"
    made(small_study(small_idx_folder), out)
    return out


@pytest.fixture(scope="module")
def three(small_idx_folder, tmp_path_factory):
    """Give study, samples and run folder of teachers of three members."""
    out = tmp_path_factory.mktemp("runs") / "three"
    study = small_study(small_idx_folder, "teacher.members=3")
    return study, made(study, out), out


@pytest.fixture(scope="module")
def crossed(small_idx_folder, tmp_path_factory):
    """Give the same of cross-fitted ones."""
    out = tmp_path_factory.mktemp("runs") / "crossed"
    study = small_study(small_idx_folder, "teacher.members=3", "teacher.cross_fit=true")
    return study, made(study, out), out


@pytest.mark.parametrize("name", ["class", "subclass"])
def test_the_first_member_is_the_teacher_alone_to_the_byte_and_the_others_are_not(single, three, name):
    _, _, out = three
    alone = weights(single, f"teachers/{name}-seed3")
    members = [weights(out, f"teachers/{name}-seed3-member{member}") for member in range(3)]
    assert same(alone, members[0])
    for other in members[1:]:
        assert not alone["body.stem.0.weight"].equal(other["body.stem.0.weight"])
    assert not members[1]["body.stem.0.weight"].equal(members[2]["body.stem.0.weight"])


def test_one_member_of_one_changes_no_file(single, small_idx_folder, tmp_path):
    made(small_study(small_idx_folder, "teacher.members=1", "distillation.within_class=1"), tmp_path)
    for path in single.rglob("*.safetensors"):
        if "seed3" in path.name:
            assert same(store.load(path), store.load(tmp_path / path.relative_to(single))), path


@pytest.mark.parametrize("name", ["class", "subclass"])
def test_targets_and_predictions_are_the_logarithm_of_the_mean_probability(three, name):
    study, samples, out = three
    members = [store.load(out / path) for path in teacher_paths(study, name, 3)]
    each = [targets_of(study, samples, own, name, out).double().numpy() for own in members]
    by_hand = np.log(np.exp([log_probs(logits) for logits in each]).mean(0))
    stored = weights(out, f"targets/{name}-seed3")["logits"]
    assert stored.dtype == torch.float32
    np.testing.assert_allclose(stored.double().numpy(), by_hand, atol=1e-4)

    bench = Bench(study, samples, out, CHOICES, 3)
    images = torch.from_numpy(np.asarray(samples.images)[samples.test]).float() / 255
    shares = []
    for own in members:
        model = bench.model(study.teacher, "teacher", "class" if name == "class" else "subclass").eval()
        model.load_state_dict(own)
        with torch.no_grad():
            shares.append(model(images).double().softmax(-1).numpy())
    predicted = weights(out, f"predictions/teachers/{name}-seed3")["test"]
    np.testing.assert_allclose(predicted.double().exp().numpy(), np.mean(shares, 0), atol=1e-5)


def test_a_teacher_costs_what_its_members_do(single, three):
    one, all_three = (store.notes(out / "predictions/teachers/class-seed3.safetensors") for out in (single, three[2]))
    asked = [len(each.pop("made_from")) for each in (one, all_three)]
    assert asked == [1, 3]
    assert all_three == {name: 3 * count for name, count in one.items()}


@pytest.mark.parametrize("name", ["class", "subclass"])
def test_cross_fitted_targets_of_a_part_are_its_members_alone(crossed, name):
    study, samples, out = crossed
    parts = cross_fit_parts(samples, 3)
    stored = weights(out, f"targets/{name}-seed3")["logits"]
    for member, path in enumerate(teacher_paths(study, name, 3)):
        own = targets_of(study, samples, store.load(out / path), name, out)
        torch.testing.assert_close(stored[:, parts == member], own[:, parts == member], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(stored[:, parts != member], own[:, parts != member], atol=1e-2)


def test_a_member_of_a_cross_fitted_teacher_sees_all_training_images_but_its_part(
    small_idx_folder, tmp_path, monkeypatch
):
    seen = []
    train_together = training.train_together

    def noting(models, lessons, pixels, *arguments):
        seen.append(pixels)
        return train_together(models, lessons, pixels, *arguments)

    monkeypatch.setattr(training, "train_together", noting)
    study = small_study(small_idx_folder, "teacher.members=4", "teacher.cross_fit=true", "arms=[skd]")
    samples = made(study, tmp_path, kinds=("teachers", "targets", "students"))
    parts = cross_fit_parts(samples, 4)
    assert len(seen) == 5
    for member, pixels in enumerate(seen[:4]):
        assert np.array_equal(pixels.train.numpy(), samples.train[parts != member])
        assert len(pixels.train) == 240
        assert np.array_equal(pixels.validation.numpy(), samples.validation)
    assert np.array_equal(seen[4].train.numpy(), samples.train)  # the student learns from all
    sizes = [np.bincount(samples.subclass_labels[samples.train][parts == part]) for part in range(4)]
    assert np.array_equal(sizes, np.full((4, 10), 8))


def test_the_pixels_and_labels_of_a_part_do_not_reach_its_member(small_idx_folder, tmp_path):
    """Noise and other labels in part 1 change every member's weights but those of member 1."""
    study = small_study(small_idx_folder, "teacher.members=3", "teacher.cross_fit=true", "arms=[skd]")
    samples = load_samples(study)
    parts = cross_fit_parts(samples, 3)  # by the labels as they are
    rows = samples.train[parts == 1]
    images = np.array(samples.images)
    images[rows] = np.random.default_rng(0).integers(0, 256, images[rows].shape, dtype=np.uint8)
    labels = samples.subclass_labels.copy()
    labels[rows] = 0
    spoilt = replace(samples, images=images, subclass_labels=labels)
    found = []
    for number, content in enumerate((samples, spoilt)):
        out = tmp_path / str(number)
        for job in plan(study, samples.fingerprint)[:3]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("subclass_kd.bench.cross_fit_parts", lambda *_: parts)
                make(study, content, out, [job], CHOICES, lambda *_: None)
        found.append([store.load(out / path) for path in teacher_paths(study, "subclass", 3)])
    kept = [same(first, second) for first, second in zip(*found, strict=True)]
    assert kept == [False, True, False]


def test_a_change_of_any_member_makes_targets_stale(three, tmp_path):
    study, samples, out = three
    for path in teacher_paths(study, "subclass", 3):
        store.save(tmp_path / path, store.load(out / path), "", {})
    store.save(
        tmp_path / "targets/subclass-seed3.safetensors",
        weights(out, "targets/subclass-seed3"),
        "",
        store.notes(out / "targets/subclass-seed3.safetensors"),
    )
    [job] = [job for job in plan(study, samples.fingerprint) if (job.kind, job.name) == ("students", "skd")]
    make(study, samples, tmp_path, [job], CHOICES, lambda *_: None)
    last = tmp_path / teacher_paths(study, "subclass", 3)[2]
    store.save(last, {name: 2 * tensor for name, tensor in store.load(last).items()}, "", {})
    with pytest.raises(UserError, match="targets of another teacher"):
        make(study, samples, tmp_path, [job], CHOICES, lambda *_: None)


def test_members_answer_online_as_they_do_stored(three, small_idx_folder, tmp_path):
    """Two epochs see views 0 and 1 either way."""
    _, _, out = three
    made(small_study(small_idx_folder, "teacher.members=3", "distillation.views=online"), tmp_path)
    for arm in SMALL["arms"]:
        stored, online = (weights(run, f"predictions/students/{arm}-seed3")["test"] for run in (out, tmp_path))
        torch.testing.assert_close(stored, online, rtol=1e-3, atol=1e-3)


def test_a_smaller_student_sees_the_views_of_its_teacher_at_its_own_size(single, small_idx_folder, tmp_path):
    study = small_study(small_idx_folder, "student.size=14", "arms=[skd]")
    samples = made(study, tmp_path)
    teacher = "teachers/subclass-seed3"
    assert same(weights(single, teacher), weights(tmp_path, teacher))
    assert same(weights(single, "targets/subclass-seed3"), weights(tmp_path, "targets/subclass-seed3"))
    bench = Bench(study, samples, tmp_path, CHOICES, 3)
    model = bench.model(study.student, "student", "subclass").eval()
    model.load_state_dict(weights(tmp_path, "students/skd-seed3"))
    images = torch.from_numpy(np.asarray(samples.images)[samples.test]).float() / 255
    small = torch.nn.functional.interpolate(images, (14, 14), mode="bilinear", antialias=True)
    with torch.no_grad():
        by_hand = model.body((small - model.mean) / model.std)
    predicted = weights(tmp_path, "predictions/students/skd-seed3")["test"]
    torch.testing.assert_close(predicted, by_hand, rtol=1e-4, atol=1e-4)
    large, small_cost = (store.notes(out / "predictions/students/skd-seed3.safetensors") for out in (single, tmp_path))
    assert large["parameters"] == small_cost["parameters"]
    assert large["multiply_adds"] > 3 * small_cost["multiply_adds"]


def test_the_weight_within_classes_reaches_students_with_subclass_outputs_alone(single, small_idx_folder, tmp_path):
    made(small_study(small_idx_folder, "distillation.within_class=0"), tmp_path)
    for arm in SMALL["arms"]:
        path = f"students/{arm}-seed3"
        assert same(weights(single, path), weights(tmp_path, path)) == (arm != "skd")


@pytest.mark.parametrize("overrides", [["teacher.members=2"], ["teacher.members=2", "teacher.cross_fit=true"]])
def test_a_run_goes_through_and_tells_of_every_member(small_idx_folder, tmp_path, overrides):
    results = run_study(small_study(small_idx_folder, *overrides, "arms=[skd]", "seeds=2"), tmp_path / "run")
    row = results["teachers"]["subclass"]
    assert [len(epochs) for epochs in row["best_epoch"]] == [2, 2]
    histories = [
        store.notes(tmp_path / f"run/teachers/subclass-seed{seed}-member{member}.safetensors")
        for seed in range(2)
        for member in range(2)
    ]
    assert row["train_seconds"] == pytest.approx(sum(notes["train_seconds"] for notes in histories) / 2)
    assert json.dumps(results, allow_nan=False)
