"""Wrong input through the real command line: one line, exit code 2, nothing left behind, and no wait for torch."""

import json
import os
import re
from pathlib import Path

import pytest

USERS = """
from torch import nn

def deaf(num_classes, in_chans):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 784, 3))

def fails(num_classes, in_chans):
    raise KeyError("several\\nlines")
"""

# What is wrong, as arguments after "skd", and what the line must say. These are refused before torch is loaded.
QUICK = {
    "unknown key": (["run", "wrong_key.yaml"], 'wrong_key.yaml, key "studnt": found an unknown key', '"student"?'),
    "key twice": (["run", "twice.yaml"], 'twice.yaml, line 2: found the key "seeds" twice', "Remove one"),
    "missing study": (["run", "nowhere.yaml"], "nowhere.yaml: found no such file", "Check the path."),
    "folder for a study": (["run", "."], ".: found a folder", "Give the file itself."),
    "no YAML": (["run", "slip.yaml"], "slip.yaml, line 2, column 1: found text that YAML cannot read", "YAML"),
    "missing data": (["run", "study.yaml", "--set", "data.root=gone"], "gone: found no file train-images", "data.root"),
    "one class": (
        ["run", "study.yaml", "--set", "data.root=one_class"],
        'found no training image of class "lower"',
        "ever",
    ),
    "temperature": (["run", "study.yaml", "--set", "distillation.temperature=-1"], "found -1", "equal to 0.05"),
    "alpha": (["run", "study.yaml", "--set", "distillation.alpha=2"], "found 2", "less than or equal to 1"),
    "no setting": (["run", "study.yaml", "--set", "seeds"], '--set seeds: found "seeds"', "KEY=VALUE"),
    "demo setting": (["demo", "--set", "distillation.alpha=2"], "--set distillation.alpha=2", "or equal to 1"),
    "too many seeds": (["demo", "--seeds", "1000000000"], "found 1000000000", "a number from 1 to 1000"),
    "small model": (
        ["run", "study.yaml", "--set", "student.model=small:convnett"],
        "student.model",
        '"small:convnet"?',
    ),
    "timm model": (["run", "study.yaml", "--set", "teacher.model=timm:resnet81"], "teacher.model", "Did you mean"),
    "module": (["run", "study.yaml", "--set", "student.model=gone:build"], 'found no module "gone"', "install it"),
    "hierarchy": (["run", "left_out.yaml"], "found 8 subclasses, without Bag, Ankle boot", "all 10 subclasses"),
    "unknown subclass": (["run", "misspelt.yaml"], 'found "Anckle boot"', 'Did you mean "Ankle boot"?'),
    "positive": (["run", "study.yaml", "--set", "positive=lwoer"], 'found "lwoer"', 'Did you mean "lower"?'),
    "full folder": (["run", "study.yaml", "--out", "full"], "full: found other files", "Give another --out."),
    "file for a folder": (["run", "study.yaml", "--out", "study.yaml"], "study.yaml: found a file", "--out"),
    "other run": (
        ["run", "study.yaml", "--out", "other_run"],
        "found a run of another study (distillation.alpha: 0.5 before, 0.9 now)",
        "Give another --out, or restore these keys.",
    ),
}
# These need the networks themselves.
SLOW = {
    "deaf to num_classes": (
        ["run", "study.yaml", "--set", "student.model=users:deaf"],
        'key "student.model": found an output of shape (4, 3)',
        "heed num_classes",
    ),
    "callable that fails": (["run", "study.yaml", "--set", "teacher.model=users:fails"], "found KeyError", "callable"),
    "no such callable": (["run", "study.yaml", "--set", "teacher.model=users:gone"], 'no callable "gone"', "callable"),
    "options": (["run", "study.yaml", "--set", "student.options.widht=3"], "found TypeError", 'Mend its "options"'),
    "image size": (
        ["run", "study.yaml", "--set", "student.model=timm:vit_tiny_patch16_224"],
        "found a model that fails on images of shape (1, 28, 28)",
        "Set data.size",
    ),
    "device": (["run", "study.yaml", "--set", "device=cuda:99"], 'key "device": found "cuda:99"', "a device of this"),
}


@pytest.fixture(scope="module")
def folder(small_idx_folder, write_idx_folder, tmp_path_factory):
    """Give a folder with studies, data and models, right and wrong; no test may change it."""
    from subclass_kd.data.fashion_mnist import read_idx
    from subclass_kd.study_file import load_study

    folder = tmp_path_factory.mktemp("refusals")
    studies = {
        "study": f"data: {{root: {small_idx_folder}}}\nseeds: 2\n",
        "wrong_key": "studnt: {epochs: 3}",
        "twice": "seeds: 1\nseeds: 2",
        "slip": "student: {epochs: 3\n",
        "left_out": "hierarchy: {a: [T-shirt/top, Pullover, Dress, Coat, Shirt], b: [Trouser, Sandal, Sneaker]}",
        "misspelt": "hierarchy: {a: [Coat], b: [Anckle boot]}",
    }
    for name, text in studies.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "users.py").write_text(USERS)
    parts = [read_idx(path, 3 if "images" in path.name else 1) for path in sorted(small_idx_folder.iterdir())]
    test_images, test_labels, images, labels = parts
    write_idx_folder(folder / "one_class", images, labels * 0, test_images, test_labels)
    (folder / "full").mkdir()
    (folder / "full/thesis.tex").write_text("years of work")
    (folder / "other_run").mkdir()
    other = load_study(folder / "study.yaml", ["seeds=1", "distillation.alpha=0.5"])
    (folder / "other_run/study.json").write_text(other.model_dump_json())
    return folder


def contents(folder):
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        # Python's own, beside a user's module, and what torch, and wandb where timm finds it, make in TMPDIR
        if not re.search("__pycache__|torchinductor_|wandb-(artifacts|media)$", str(path))
    }


def skd_process(python, folder, *arguments):
    """Run ``skd`` and note whether torch was loaded; a check of sys.modules at exit costs nothing."""
    code = (
        "import atexit, sys, pathlib\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "from subclass_kd.cli import main\n"
        f"main({list(arguments)!r})"
    )
    return python("-c", code, cwd=folder, TMPDIR=str(folder))


@pytest.mark.parametrize("wrong", [*QUICK, *SLOW])
def test_wrong_input_gets_one_line_exit_2_and_leaves_nothing(python, skd, folder, monkeypatch, wrong):
    arguments, found, remedy = (QUICK | SLOW)[wrong]
    before = contents(folder)
    monkeypatch.syspath_prepend(folder)
    process = skd_process(python, folder, *arguments) if wrong in QUICK else skd(*arguments, cwd=folder)
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("skd: ")
    assert found in line
    assert remedy in line
    assert "; expected " in line
    assert contents(folder) == before
    if wrong in QUICK:
        assert process.stdout == "False\n", "torch was loaded"


@pytest.mark.parametrize("command", ["skd", "python -m subclass_kd.cli"])
def test_both_ways_to_start_the_command_refuse_alike(python, folder, command):
    import subprocess
    import sys

    start = [sys.executable, "-m", "subclass_kd.cli"]
    if command == "skd":
        script = Path(sys.executable).parent / "skd"
        if not script.exists():
            pytest.skip(f"no {script}: the package is not installed beside this Python")
        start = [str(script)]
    process = subprocess.run(
        [*start, "run", "wrong_key.yaml"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith('skd: wrong_key.yaml, key "studnt": found an unknown key;')
    assert process.stderr.count("\n") == 1


def quickest(call, times=2):
    """Give the least seconds of a core that a call's processes took, since others compute on this machine too."""
    taken = []
    for _ in range(times):
        before = os.times()
        call()
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(taken)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        *(QUICK[wrong][0] for wrong in ("unknown key", "one class", "timm model", "hierarchy")),
    ],
    ids=" ".join,
)
def test_help_and_a_refusal_answer_without_torch_and_at_once(python, folder, arguments):
    """Under 1 s on a quiet machine; a core that others heat and share may take three times as long."""
    assert skd_process(python, folder, *arguments).stdout.endswith("False\n")
    assert quickest(lambda: python("-m", "subclass_kd.cli", *arguments, cwd=folder)) < 3


def test_importing_the_package_loads_nothing_heavy(python):
    code = (
        "import json, sys, subclass_kd, subclass_kd.cli, subclass_kd.study_file; print(json.dumps(list(sys.modules)))"
    )
    loaded = json.loads(python("-c", code).stdout)
    assert not {"torch", "numpy", "timm", "lightning_fabric", "sklearn", "scipy", "torchvision"} & set(loaded)


def test_the_core_costs_torchs_own_import_and_at_most_a_fifth_of_a_second_more(python):
    code = (
        "import time, torch\n"
        "started = time.perf_counter()\n"
        "from subclass_kd import SubclassHierarchy, losses, information\n"
        "print(time.perf_counter() - started)"
    )
    assert min(float(python("-c", code).stdout) for _ in range(3)) < 0.2


def test_the_core_needs_torch_alone(python):
    code = (
        "import sys, torch\nbefore = set(sys.modules)\n"
        "from subclass_kd import SubclassHierarchy, losses, information\n"
        "ours = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(sorted(ours))"
    )
    assert python("-c", code).stdout == "['subclass_kd']\n"
