"""What a study file may say, what it means where it is silent, and how it is refused."""

import json
import re
import resource
import time

import pytest

from subclass_kd.errors import UserError
from subclass_kd.study_file import load_study, make_study

DEFAULTS = {
    "data": {
        "kind": "fashion-mnist", "root": None, "unlabelled": None, "table": None, "columns": {}, "pattern": [],
        "size": None, "channels": None, "white": 65535, "store_limit": 50.0,
        "train_images": None, "validation": 0.2, "test": 0.2, "folds": None, "fold": None,
    },
    "hierarchy": None,
    "positive": None,
    "votes": None,
    "teacher": {
        "model": "small:resnet", "pretrained": False, "options": {},
        "epochs": 20, "batch_size": 64, "learning_rate": 0.01, "weight_decay": 0.01, "compile": False, "size": None,
        "members": 1, "cross_fit": False, "shard": False,
    },
    "student": {
        "model": "small:convnet", "pretrained": False, "options": {},
        "epochs": 40, "batch_size": 64, "learning_rate": 0.01, "weight_decay": 0.01, "compile": False, "size": None,
    },
    "distillation": {
        "temperature": 1.0, "alpha": 0.9, "hard_target": "subclass", "views": 8, "within_class": 1.0,
        "unlabelled": False,
    },
    "augment": {
        "flip": True, "shift": 0.08, "flip_vertical": False, "rotate90": False, "crop": 0.0,
        "rotation": 0.0, "scale": 0.0, "shear": 0.0,
        "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "stain": 0.0, "erasing": 0.0,
    },
    "curriculum": {"by": "agreement", "stages": 4, "teacher": False, "student": False},
    "per_arm": {},
    "arms": ["scratch", "subclass-labels", "kd", "kd-collapsed", "skd", "skd-shuffled"],
    "seeds": [0, 1, 2, 3, 4],
    "workers": "auto",
    "device": "auto",
    "precision": "auto",
    "track": [],
    "tune": {
        "trials": 30, "seeds": 2,
        "temperature": {"low": 1.0, "high": 8.0, "choices": []},
        "alpha": {"low": 0.3, "high": 1.0, "choices": []},
        "learning_rate": {"low": 0.003, "high": 0.03, "choices": []},
        "hard_target": ["subclass", "class"],
    },
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """Give the function that writes a study file and loads it."""

    def load(text, *overrides):
        path = tmp_path / "study.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_study(path, overrides)

    return load


def refused(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    error = caught.value
    assert error.where
    assert error.found
    assert error.expected
    assert len(str(error).splitlines()) == 1
    return error


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}", "---\n"])
def test_an_empty_file_is_the_study_of_all_defaults(read, text):
    assert read(text).model_dump() == DEFAULTS


def test_what_is_given_replaces_that_default_and_no_other(read):
    assert read("student: {epochs: 3}").model_dump() == {**DEFAULTS, "student": {**DEFAULTS["student"], "epochs": 3}}


def test_a_study_survives_json(read):
    study = read("data: {root: /some/where}\nhierarchy: {a: [x], b: [y]}\nstudent: {options: {width: 4}}")
    assert type(study).model_validate_json(study.model_dump_json()) == study


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("studnt: {epochs: 3}", "studnt", 'Did you mean "student"?'),
        ("student: {epoch: 3}", "student.epoch", 'Did you mean "epochs"?'),
        ("distillation: {temprature: 3}", "distillation.temprature", 'Did you mean "temperature"?'),
        ("data: {zzz: 3}", "data.zzz", ""),
        ("student: {epoch: 3, epocs: 4}", "student.epoch", 'Did you mean "epochs"? 1 more wrong: student.epocs.'),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(read, text, key, remedy):
    error = refused(read, text)
    assert error.where.endswith(f'study.yaml, key "{key}"')
    assert error.found == "an unknown key"
    assert error.expected.startswith("one of ")
    assert error.remedy == remedy


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [("seeds: 1\narms: [skd]\nseeds: 2", 3, "seeds"), ("student:\n  epochs: 1\n  epochs: 1\n", 3, "epochs")],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(read, text, line, key):
    error = refused(read, text)
    assert error.where.endswith(f"study.yaml, line {line}")
    assert error.found == f'the key "{key}" twice'


@pytest.mark.parametrize(
    ("text", "key", "found", "expected"),
    [
        ("distillation: {temperature: -1}", "distillation.temperature", "-1", "greater than or equal to 0.05"),
        ("distillation: {temperature: 0}", "distillation.temperature", "0", "greater than or equal to 0.05"),
        ("distillation: {alpha: 2}", "distillation.alpha", "2", "less than or equal to 1"),
        ("distillation: {alpha: -0.1}", "distillation.alpha", "-0.1", "greater than or equal to 0"),
        ("distillation: {hard_target: klass}", "distillation.hard_target", '"klass"', "'subclass' or 'class'"),
        ("distillation: {views: 0}", "distillation.views", "0", "online, or a whole number from 1 to 1000"),
        ("distillation: {views: fresh}", "distillation.views", '"fresh"', "online, or a whole number from 1 to 1000"),
        ("student: {learning_rate: .nan}", "student.learning_rate", "nan", "a finite number"),
        ("student: {learning_rate: .inf}", "student.learning_rate", "inf", "a finite number"),
        ("student: {learning_rate: 0}", "student.learning_rate", "0", "greater than 0"),
        ("student: {learning_rate: fast}", "student.learning_rate", '"fast"', "a number"),
        ("student: {weight_decay: -1}", "student.weight_decay", "-1", "greater than or equal to 0"),
        ("student: {epochs: 0}", "student.epochs", "0", "greater than or equal to 1"),
        ("student: {epochs: true}", "student.epochs", "true", "a whole number"),
        ("student: {epochs: '5'}", "student.epochs", '"5"', "a whole number"),
        ("student: {epochs: 2.5}", "student.epochs", "2.5", "a whole number"),
        ("student: {batch_size: 1}", "student.batch_size", "1", "greater than or equal to 4"),
        ("student: {pretrained: 1}", "student.pretrained", "1", "true or false"),
        ("student: small:convnet", "student", '"small:convnet"', "keys and values"),
        ("student:", "student", "nothing", "keys and values"),
        ("student: {options: {1: 2}}", "student.options.1", "1", "text, in quotes if need be"),
        ("distillation: {within_class: -1}", "distillation.within_class", "-1", "greater than or equal to 0"),
        ("distillation: {within_class: 11}", "distillation.within_class", "11", "less than or equal to 10"),
        ("distillation: {within_class: .nan}", "distillation.within_class", "nan", "less than or equal to 10"),
        ("teacher: {size: 7}", "teacher.size", "7", "greater than or equal to 8"),
        ("student: {size: 2000}", "student.size", "2000", "less than or equal to 1024"),
        ("teacher: {members: 0}", "teacher.members", "0", "greater than or equal to 1"),
        ("teacher: {members: 21}", "teacher.members", "21", "less than or equal to 20"),
        ("teacher: {cross_fit: 1}", "teacher.cross_fit", "1", "true or false"),
        (
            "teacher: {cross_fit: true}",
            "teacher.cross_fit",
            "true",
            "false, or teacher.members of at least 2 beside it",
        ),
        (
            "teacher: {members: 2, cross_fit: true}\ndistillation: {views: online}",
            "distillation",
            "{'views': 'online'}",
            "views: a whole number from 1 to 1000 beside teacher.cross_fit, whose targets are stored",
        ),
        ("augment: {flip: sometimes}", "augment.flip", '"sometimes"', "true or false"),
        ("augment: {shift: 0.6}", "augment.shift", "0.6", "less than or equal to 0.5"),
        ("augment: {crop: -0.1}", "augment.crop", "-0.1", "greater than or equal to 0"),
        ("augment: {hue: 0.6}", "augment.hue", "0.6", "less than or equal to 0.5"),
        ("augment: {stain: .nan}", "augment.stain", "nan", "less than or equal to 0.5"),
        ("augment: {erasing: true}", "augment.erasing", "true", "a number"),
        ("arms: skd", "arms", '"skd"', "a list"),
        ("arms: []", "arms", "[]", "at least one"),
        ("arms: [skd, kd, skd]", "arms", "['skd', 'kd', 'skd']", "each at most once, but skd is repeated"),
        ("seeds: [3, 3]", "seeds", "[3, 3]", "each at most once, but 3 is repeated"),
        ("seeds: []", "seeds", "[]", "at least one"),
        ("seeds: 0", "seeds", "0", "a number from 1 to 1000, or a list of seeds"),
        ("seeds: -1", "seeds", "-1", "a number from 1 to 1000, or a list of seeds"),
        ("seeds: true", "seeds", "true", "a number from 1 to 1000, or a list of seeds"),
        ("seeds: 1000000000000", "seeds", "1000000000000", "a number from 1 to 1000, or a list of seeds"),
        ("seeds: [-1]", "seeds.0", "-1", "greater than or equal to 0"),
        ("seeds: [0, yes]", "seeds.1", "true", "a whole number"),
        ("workers: 0", "workers", "0", "auto, or a whole number of at least 1"),
        ("workers: many", "workers", '"many"', "auto, or a whole number of at least 1"),
        ("device: gpu", "device", '"gpu"', "auto, cpu, mps, cuda or cuda:N"),
        ("precision: half", "precision", '"half"', "'auto', 'float32' or 'bfloat16'"),
        (
            "data: {kind: mnist}",
            "data.kind",
            '"mnist"',
            "'fashion-mnist', 'lidc-votes', 'folder', 'table', 'mhist' or 'webdataset'",
        ),
        ("data: {channels: 2}", "data.channels", "2", "1 or 3"),
        ("data: {validation: 0.9}", "data.validation", "0.9", "less than or equal to 0.5"),
        ("data: {root: 3}", "data.root", "3", "a path"),
        ("hierarchy: [a]", "hierarchy", "['a']", "keys and values"),
        ("hierarchy: {upper: Bag}", "hierarchy.upper", '"Bag"', "a list"),
        ("hierarchy: {on: [Bag]}", "hierarchy.1", "true", "text, in quotes if need be"),
        ("1: 2", "1", "1", "a key that is text"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_may_stand_there(read, text, key, found, expected):
    error = refused(read, text)
    assert error.where.endswith(f'study.yaml, key "{key}"')
    assert error.found == found
    assert error.expected == expected


def test_only_the_teacher_has_members(read):
    assert refused(read, "student: {members: 2}").found == "an unknown key"
    teacher = read("teacher: {cross_fit: true, members: 2}").teacher
    assert (teacher.members, teacher.cross_fit) == (2, True)
    assert read("teacher: {members: 20}\ndistillation: {views: online}").teacher.cross_fit is False


def test_a_mistyped_choice_is_met_with_the_nearest_one(read):
    assert refused(read, "arms: [skd, sratch]").remedy == 'Did you mean "scratch"?'


def test_seeds_as_a_number_count_from_nought_and_as_a_list_are_themselves(read):
    assert read("seeds: 3").seeds == [0, 1, 2]
    assert read("seeds: [7, 0]").seeds == [7, 0]


def test_arms_come_in_table_order_however_they_are_written(read):
    assert read("arms: [skd, scratch, kd]").arms == ["scratch", "kd", "skd"]


@pytest.mark.parametrize("text", ["2020-01-01", "!!set {a, b}", ".nan", "[-.inf]", "!!binary aGk=", "{deep: [.inf]}"])
def test_options_must_fit_into_json_since_study_json_holds_them(read, text):
    error = refused(read, f"student: {{options: {{value: {text}}}}}")
    assert error.where.endswith('key "student.options"')


def test_options_keep_the_types_that_yaml_gives_them(read):
    options = read("teacher: {options: {a: 1, b: 0.5, c: 1e-3, d: yes, e: '1', f: [1, {g: null}]}}").teacher.options
    assert options == {"a": 1, "b": 0.5, "c": 0.001, "d": True, "e": "1", "f": [1, {"g": None}]}
    assert json.loads(json.dumps(options)) == options


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("1E3", 1000.0), ("-2.5e+1", -25.0), (".5e1", 5.0)])
def test_a_number_with_an_exponent_is_a_number_with_or_without_a_point(read, text, value):
    assert read(f"student: {{options: {{x: {text}}}}}").student.options == {"x": value}


def test_set_changes_one_dotted_key_with_a_value_typed_as_in_yaml(read):
    study = read("student: {epochs: 3, batch_size: 32}", "student.epochs=5", "distillation.alpha=1e-1", "seeds=[4, 2]")
    assert (study.student.epochs, study.student.batch_size) == (5, 32)
    assert study.distillation.alpha == 0.1
    assert study.seeds == [4, 2]
    assert read("", "student.model=my.net:build", "hierarchy.a=[x]").student.model == "my.net:build"
    assert read("", "student.options.width=16").student.options == {"width": 16}


def test_of_two_settings_of_one_key_the_last_holds(read):
    assert read("seeds: 1", "seeds=2", "seeds=3").seeds == [0, 1, 2]


def test_set_leaves_the_callers_values_as_they_were():
    content = {"student": {"epochs": 3}}
    make_study(content, ["student.epochs=5", "student.options.width=2"])
    assert content == {"student": {"epochs": 3}}


@pytest.mark.parametrize("override", ["seeds", "=3", "a..b=1", ".a=1", "a.=1", ""])
def test_a_setting_without_key_or_value_is_refused_with_an_example(read, override):
    error = refused(read, "", override)
    assert error.expected == "KEY=VALUE"
    assert "--set seeds=3" in error.remedy


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("distillation.alpha=2", "distillation.alpha"),
        ("distillation.temprature=2", "distillation.temprature"),
        ("student={epochs: 0}", "student.epochs"),
        ("student.epochs.x=3", "student.epochs"),
        ("seeds=", "seeds"),
    ],
)
def test_a_wrong_setting_is_blamed_on_the_setting_not_on_the_file(read, override, key):
    assert refused(read, "seeds: 2", "arms=[skd]", override).where == f'--set {override}, key "{key}"'


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("seeds=[1", "text that YAML cannot read (expected ',' or ']'"),
        ("student={epochs: 1, epochs: 2}", 'the key "epochs" twice'),
        ("student.options={a: &x [1], b: *x}", 'the alias "*x"'),
    ],
)
def test_a_setting_is_read_as_strictly_as_the_file(read, override, found):
    error = refused(read, "", override)
    assert error.where.startswith(f"--set {override}, line 1")
    assert error.found.startswith(found)


def test_a_missing_file_a_folder_and_a_file_that_is_no_text_are_told_apart(read, tmp_path):
    assert refused(load_study, tmp_path / "none.yaml").found == "no such file"
    assert refused(load_study, tmp_path).found == "a folder"
    assert refused(read, "seeds: 5  # caf\u00e9".encode("latin-1")).found == "a byte that is not UTF-8 at 15"


@pytest.mark.parametrize(("text", "found"), [("- seeds: 5", "[{'seeds': 5}]"), ("seeds", '"seeds"'), ("7", "7")])
def test_a_file_that_is_no_mapping_is_refused(read, text, found):
    assert refused(read, text).found == found


def test_a_slip_in_yaml_is_refused_with_line_and_column(read):
    error = refused(read, "seeds: 2\nstudent: {epochs: 3\n")
    assert re.search(r"study\.yaml, line 3, column 1$", error.where)
    assert error.found == "text that YAML cannot read (expected ',' or '}', but got '<stream end>')"
    assert refused(read, "seeds: 1: 2").where.endswith("line 1, column 9")


@pytest.mark.parametrize("text", ["positive: 2020-13-01", "seeds: !!int x", "seeds: !!bool x", "positive: \x00"])
def test_a_value_that_yaml_itself_cannot_make_is_refused(read, text):
    assert "YAML cannot read" in refused(read, text).found


@pytest.mark.parametrize("tag", ["object/apply:os.mkdir", "object/new:os.mkdir", "name:os.mkdir", "module:os"])
def test_a_tag_that_would_run_code_is_refused_and_runs_nothing(read, tmp_path, tag):
    error = refused(read, f"seeds: !!python/{tag} ['{tmp_path / 'made'}']")
    assert "could not determine a constructor" in error.found
    assert not (tmp_path / "made").exists()


def test_aliases_to_aliases_are_refused_before_they_fill_the_memory(read):
    """The "billion laughs": ten lines that stand for 9^10 values, in lists and in merged keys."""
    lists = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 11))
    merged = "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 11))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert refused(read, f"a0: &a0 [x]\n{lists}").found == 'the alias "*a0"'
    assert refused(read, f"a0: &a0 {{x: 1}}\n{merged}").where.endswith("line 2")
    assert refused(read, "student: {options: {a: &a [*a]}}").found == 'the alias "*a"'
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("text", ["[" * 100_000, "student: {options: {a: " + "{a: " * 30, "- " * 30 + "a"])
def test_brackets_without_end_are_refused_before_they_exhaust_the_stack(read, text):
    error = refused(read, text)
    assert error.found == "more than 20 levels"
    assert error.where.endswith("line 1")


def test_a_long_value_is_cut_to_fit_its_line(read):
    assert len(refused(read, f"seeds: {list(range(1000)) * 2}").found) == 80
