"""The plan: every file, in an order that makes it, with a recipe that changes when its content would."""

import time

import pytest

from subclass_kd.arms import ARMS
from subclass_kd.plan import plan, teacher_paths
from subclass_kd.study_file import make_study


def jobs(*overrides, data="data"):
    return plan(make_study({"seeds": 2}, overrides), data)


def recipes(*overrides, data="data"):
    return {job.path: job.recipe for job in jobs(*overrides, data=data)}


@pytest.mark.parametrize("seeds", [1, 2, 7])
def test_six_arms_take_21_files_a_seed_and_one_for_the_results(seeds):
    """3 teachers, 3 targets, 6 students, 9 predictions."""
    planned = jobs(f"seeds={seeds}")
    kinds = [job.kind for job in planned]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    of_seeds = {"teachers": 3 * seeds, "targets": 3 * seeds, "students": 6 * seeds, "predictions": 9 * seeds}
    assert counts == of_seeds | {"results": 1}
    assert len({job.path for job in planned}) == 21 * seeds + 1
    assert planned[-1].path == "results.json"
    assert set(planned[-1].needs) == {job.path for job in planned if job.kind == "predictions"}


@pytest.mark.parametrize(
    ("arms", "teachers"),
    [
        ("[scratch]", []),
        ("[kd]", ["class"]),
        ("[skd, kd-collapsed]", ["subclass"]),
        ("[skd-shuffled]", ["subclass-shuffled"]),
    ],
)
def test_only_teachers_that_an_arm_needs_are_trained(arms, teachers):
    assert [job.name for job in jobs("seeds=1", f"arms={arms}") if job.kind == "teachers"] == teachers


def test_every_need_is_made_by_an_earlier_job():
    made = set()
    for job in jobs():
        assert made.issuperset(job.needs)
        made.add(job.path)


def test_a_student_needs_the_targets_of_its_own_teacher_and_seed_alone():
    for job in jobs():
        if job.kind == "students":
            teacher = ARMS[job.name].teacher
            assert job.needs == ((f"targets/{teacher}-seed{job.seed}.safetensors",) if teacher else ())
        if job.kind == "targets":
            assert job.needs == (f"teachers/{job.name}-seed{job.seed}.safetensors",)


def test_the_test_split_is_predicted_when_every_training_of_every_seed_is_done():
    planned = jobs()
    trained = {job.path for job in planned if job.kind in ("teachers", "students")}
    assert len(trained) == 18
    assert all(set(job.needs) == trained for job in planned if job.kind == "predictions")
    assert {job.epochs for job in planned if job.kind in ("targets", "predictions")} == {0}
    assert {job.path for job in planned if job.epochs} == trained


def test_every_file_has_a_recipe_of_its_own_and_the_same_every_time():
    first = recipes()
    assert recipes() == first
    assert len(set(first.values())) == len(first)


@pytest.mark.parametrize("override", ["workers=7", "seeds=3", "arms=[scratch, kd, skd]", "teacher.shard=true"])
def test_what_does_not_decide_a_files_content_leaves_its_recipe(override):
    first, second = recipes(), recipes(override)
    both = first.keys() & second.keys()
    assert both
    assert all(first[path] == second[path] for path in both)


STUDENTS = {"students", "predictions", "results.json"}
EVERYTHING = {"teachers", "targets", *STUDENTS}


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ("teacher.epochs=3", EVERYTHING),
        ("teacher.model=small:convnet", EVERYTHING),
        ("teacher.options.width=8", EVERYTHING),
        ("teacher.learning_rate=0.1", EVERYTHING),
        ("teacher.batch_size=32", EVERYTHING),
        ("teacher.weight_decay=0.1", EVERYTHING),
        ("teacher.size=32", EVERYTHING),
        ("distillation.views=3", EVERYTHING),
        ("augment.flip=false", EVERYTHING),
        ("augment.shift=0.2", EVERYTHING),
        ("precision=float32", EVERYTHING),
        ("device=cpu", EVERYTHING),
        ("student.epochs=3", STUDENTS),
        ("student.model=small:resnet", STUDENTS),
        ("student.options.width=4", STUDENTS),
        ("student.learning_rate=0.1", STUDENTS),
        ("student.size=16", STUDENTS),
        ("distillation.temperature=2", STUDENTS),
        ("distillation.alpha=0.5", STUDENTS),
        ("distillation.hard_target=class", STUDENTS),
        ("distillation.within_class=0.5", STUDENTS),
    ],
)
def test_what_decides_a_files_content_changes_its_recipe_and_that_of_all_that_follows(override, kinds):
    first, second = recipes(), recipes(override)
    for path in first:
        assert (first[path] != second[path]) == (path.split("/")[0] in kinds), path


def test_a_teacher_of_several_members_has_a_file_for_each_and_answers_once():
    """3 teachers of 4 members; targets and predictions are the teacher's."""
    planned = jobs("teacher.members=4", "seeds=[7]")
    kinds = [job.kind for job in planned]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    assert counts == {"teachers": 12, "targets": 3, "students": 6, "predictions": 9, "results": 1}
    assert len({job.path for job in planned}) == len({job.recipe for job in planned}) == len(planned)
    made = set()
    for job in planned:
        assert made.issuperset(job.needs)
        made.add(job.path)
    members = tuple(f"teachers/subclass-seed7-member{member}.safetensors" for member in range(4))
    assert teacher_paths(make_study({}, ["teacher.members=4"]), "subclass", seed=7) == members
    [targets] = [job for job in planned if (job.kind, job.name) == ("targets", "subclass")]
    assert (targets.path, targets.needs) == ("targets/subclass-seed7.safetensors", members)
    trained = {job.path for job in planned if job.epochs}
    assert len(trained) == 18
    assert all(set(job.needs) == trained for job in planned if job.kind == "predictions")
    assert {job.member for job in planned if job.kind == "teachers"} == {0, 1, 2, 3}
    assert {job.member for job in planned if job.kind != "teachers"} == {None}


def test_one_member_is_the_teacher_of_always():
    assert recipes("teacher.members=1") == recipes()
    assert {job.member for job in jobs()} == {None}


@pytest.mark.parametrize("override", ["teacher.members=3", "teacher.cross_fit=true"])
def test_members_and_cross_fitting_change_every_recipe(override):
    first, second = recipes("teacher.members=2"), recipes("teacher.members=2", override)
    both = first.keys() & second.keys()
    assert len(both) == len(first)
    assert all(first[path] != second[path] for path in both)


def test_a_label_says_whose_file_it_is():
    labels = [job.label for job in jobs("teacher.members=2", "seeds=[5]", "arms=[kd]")]
    assert labels[:3] == ["class, seed 5, member 0", "class, seed 5, member 1", "class, seed 5"]
    assert labels[-3:-1] == ["teacher class, seed 5", "student kd, seed 5"]


def test_other_data_change_every_recipe():
    first, second = recipes(), recipes(data="other")
    assert all(first[path] != second[path] for path in first)


def test_a_thousand_seeds_are_planned_in_two_seconds():
    started = time.process_time()
    assert len(jobs("seeds=1000", "arms=[scratch, kd, skd]")) == 12_001
    assert time.process_time() - started < 2


def test_another_model_of_the_same_name_changes_the_recipe(tmp_path, monkeypatch):
    """The content of the user's module decides, not its name."""
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "mine_for_the_plan.py"
    module.write_text("def build(**options): ...\n")
    override = "student.model=mine_for_the_plan:build"
    first = recipes(override)
    assert recipes(override) == first
    module.write_text("def build(**options): return 1\n")
    second = recipes(override)
    assert {path.split("/")[0] for path in first if first[path] != second[path]} == STUDENTS
