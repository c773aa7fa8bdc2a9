"""torch.compile as an option: it trains what it should, or is refused before anything is trained."""

import shutil

import pytest
import torch

from subclass_kd import build
from subclass_kd.config import Student, Study
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study

SMALL = {
    "student": {"options": {"width": 4}, "epochs": 2},
    "arms": ["scratch"],
    "seeds": 1,
    "workers": 1,
    "device": "cpu",
}


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++ on a CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch's own making
def test_a_compiled_student_learns_what_the_plain_one_does(small_idx_folder, tmp_path):
    data = {"kind": "fashion-mnist", "root": str(small_idx_folder)}
    plain = run_study(make_study(SMALL | {"data": data}), tmp_path / "plain")
    student = SMALL["student"] | {"compile": True}
    compiled = run_study(make_study(SMALL | {"data": data, "student": student}), tmp_path / "compiled")
    scores = [results["arms"]["scratch"]["f1"]["mean"] for results in (plain, compiled)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert compiled["study"]["student"]["compile"] is True


def test_a_model_that_does_not_compile_is_refused_with_the_key(monkeypatch):
    def fail(model):
        raise RuntimeError("no working C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", fail)
    samples = load_samples(make_study({}))
    with pytest.raises(UserError) as caught:
        build._check_model(Study(device="cpu"), Student(compile=True), "student", 10, samples)
    assert caught.value.where == 'key "student.compile"'
    assert "no working C++ compiler" in caught.value.found
    assert "long story" not in str(caught.value)
    assert caught.value.remedy == "Set it to false."
